//! The layers of tower: one that verifies, and one inside it that guards against replays.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{Either, Full};
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    AnyScheme, BoxError, Guard, Guarded, Handshake, MisuseError, Receiver, Rejection, SeenStore,
    Webhook,
};

/// What the layers answer with: the body of the service inside, or a text of their own.
type Answer<R> = Response<Either<R, Full<Bytes>>>;

type Answering<R, E> = Pin<Box<dyn Future<Output = Result<Answer<R>, E>> + Send>>;

/// Verifies what reaches the service inside, which sees a request with the whole body and a
/// [`Webhook`] in its extensions, and needs not know of either.
///
/// What is refused never gets there. The [`Rejection`] is then in the extensions of the response,
/// as an `Arc`, for a layer outside that writes logs.
///
/// # Example
/// ```
/// # #[cfg(all(feature = "axum", feature = "memory"))]
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use axum::{Router, body::Bytes, routing::post};
/// use webhooks_receive::{Guard, MemorySeen, Receiver, ReceiveLayer, ReplayLayer, Standard};
/// use webhooks_sign::Key;
///
/// # let secret = concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
/// let receiver = Receiver::<Standard>::of(Key::standard(secret)?)?;
/// let guard = Guard::new(&receiver, "billing", MemorySeen::new())?;
/// // The first is the outermost.
/// let layers = (ReceiveLayer::new(receiver), ReplayLayer::new(guard));
/// let app: Router = Router::new().route("/hook", post(hook)).layer(layers);
///
/// async fn hook(body: Bytes) { /* verified, and not seen before */ }
/// # Ok(())
/// # }
/// # #[cfg(not(all(feature = "axum", feature = "memory")))]
/// # fn main() {}
/// ```
pub struct ReceiveLayer<P = AnyScheme> {
    receiver: Receiver<P>,
    handshakes: Arc<[Handshake]>,
}

impl<P> ReceiveLayer<P> {
    /// Returns the layer of this receiver.
    pub fn new(receiver: Receiver<P>) -> Self {
        Self { receiver, handshakes: Arc::from([]) }
    }

    /// Answers these handshakes, so that the service inside sees webhooks alone.
    #[must_use]
    pub fn handshakes(self, handshakes: impl IntoIterator<Item = Handshake>) -> Self {
        Self { handshakes: handshakes.into_iter().collect(), ..self }
    }
}

impl<S, P> Layer<S> for ReceiveLayer<P> {
    type Service = Receive<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Receive { inner, layer: self.clone() }
    }
}

impl<P> Clone for ReceiveLayer<P> {
    fn clone(&self) -> Self {
        let handshakes = Arc::clone(&self.handshakes);
        Self { receiver: self.receiver.clone(), handshakes }
    }
}

impl<P> fmt::Debug for ReceiveLayer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveLayer")
            .field("receiver", &self.receiver)
            .field("handshakes", &self.handshakes)
            .finish()
    }
}

/// A service that gets verified webhooks alone; made by [`ReceiveLayer`].
#[derive(Debug)]
pub struct Receive<S, P = AnyScheme> {
    inner: S,
    layer: ReceiveLayer<P>,
}

impl<S: Clone, P> Clone for Receive<S, P> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<S, P, B, R> Service<Request<B>> for Receive<S, P>
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>, Future: Send> + Clone + Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    P: 'static,
{
    type Response = Answer<R>;
    type Error = S::Error;
    type Future = Answering<R, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut inner = take_ready(&mut self.inner);
        let layer = self.layer.clone();
        Box::pin(async move {
            match layer.receive(request).await {
                Ok(Received::Webhook(request)) => Ok(inner.call(request).await?.map(Either::Left)),
                Ok(Received::Answered(answer)) => Ok(answer.map(|text| Either::Right(text.into()))),
                Err(rejection) => Ok(refuse(rejection)),
            }
        })
    }
}

/// What a request turned out to be.
enum Received {
    Webhook(Request<Full<Bytes>>),
    Answered(Response<Bytes>),
}

impl<P> ReceiveLayer<P> {
    async fn receive<B>(&self, request: Request<B>) -> Result<Received, Rejection>
    where
        B: Body<Error: Into<BoxError>>,
    {
        let (head, body) = request.into_parts();
        for handshake in &*self.handshakes {
            if let Some(answer) = handshake.answer(&head) {
                return answer.map(Received::Answered);
            }
        }
        let received = self.receiver.receive(Request::from_parts(head, body)).await?;
        let (mut head, webhook) = received.into_parts();
        for handshake in &*self.handshakes {
            if let Some(answer) = handshake.answer_webhook(&webhook) {
                return Ok(Received::Answered(answer));
            }
        }
        let body = Full::new(webhook.body().clone());
        head.extensions.insert(webhook);
        Ok(Received::Webhook(Request::from_parts(head, body)))
    }
}

/// Runs the service inside once a webhook; goes inside a [`ReceiveLayer`], or answers 500.
///
/// An answer of 2xx is a success. If the store then fails to take note, the answer is sent all the
/// same, and the [`SeenError`](crate::SeenError) is in its extensions, as an `Arc`.
pub struct ReplayLayer<G> {
    guard: Guard<G>,
}

impl<G> ReplayLayer<G> {
    /// Returns the layer of this guard.
    pub fn new(guard: Guard<G>) -> Self {
        Self { guard }
    }
}

impl<S, G> Layer<S> for ReplayLayer<G> {
    type Service = Replay<S, G>;

    fn layer(&self, inner: S) -> Self::Service {
        Replay { inner, guard: self.guard.clone() }
    }
}

impl<G> Clone for ReplayLayer<G> {
    fn clone(&self) -> Self {
        Self { guard: self.guard.clone() }
    }
}

impl<G> fmt::Debug for ReplayLayer<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayLayer").field("guard", &self.guard).finish()
    }
}

/// A service that runs once a webhook; made by [`ReplayLayer`].
#[derive(Debug)]
pub struct Replay<S, G> {
    inner: S,
    guard: Guard<G>,
}

impl<S: Clone, G> Clone for Replay<S, G> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), guard: self.guard.clone() }
    }
}

impl<S, G, B, R> Service<Request<B>> for Replay<S, G>
where
    S: Service<Request<B>, Response = Response<R>, Future: Send, Error: Send>
        + Clone
        + Send
        + 'static,
    G: SeenStore,
    B: Send + 'static,
    R: Send + 'static,
{
    type Response = Answer<R>;
    type Error = S::Error;
    type Future = Answering<R, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut inner = take_ready(&mut self.inner);
        let guard = self.guard.clone();
        Box::pin(async move {
            let Some(webhook) = request.extensions().get::<Webhook>().cloned() else {
                return Ok(refuse(Rejection::Misuse { source: MisuseError::Unverified }));
            };
            match guard.run(&webhook, async { Handled(inner.call(request).await) }).await {
                Ok(Guarded::Ran { result, remembered }) => {
                    let mut response = result.0?.map(Either::Left);
                    if let Err(error) = remembered {
                        response.extensions_mut().insert(Arc::new(error));
                    }
                    Ok(response)
                }
                Ok(Guarded::Duplicate) => Ok(Response::new(Either::Right(Full::default()))),
                Err(rejection) => Ok(refuse(rejection)),
            }
        })
    }
}

/// A service's answer, whose error is a failure whatever it is.
struct Handled<R, E>(Result<Response<R>, E>);

impl<R, E> crate::Handled for Handled<R, E> {
    fn status(&self) -> StatusCode {
        self.0.as_ref().map_or(StatusCode::INTERNAL_SERVER_ERROR, Response::status)
    }
}

/// Takes the service that was polled ready, and leaves a clone to be polled anew.
fn take_ready<S: Clone>(inner: &mut S) -> S {
    let clone = inner.clone();
    mem::replace(inner, clone)
}

fn refuse<R>(rejection: Rejection) -> Answer<R> {
    let mut response = rejection.to_response().map(Either::Right);
    response.extensions_mut().insert(Arc::new(rejection));
    response
}
