//! The layer for tower: it verifies webhooks and guards against replays.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{Either, Full};
use tokio::task::JoinError;
use tower_layer::Layer;
use tower_service::Service;
use webhooks_core::Timestamp;

use crate::body;
use crate::error::BoxError;
use crate::handshake::Handshake;
use crate::provider::AnyScheme;
use crate::receiver::Receiver;
use crate::rejection::Rejection;
use crate::replay_guard::{HandlerResult, ReplayGuard, RunOutcome};
use crate::seen::{BeginOutcome, SeenClaim, SeenError, SeenId, SeenStore};
use crate::webhook::Webhook;

/// The response of the layer: with the body of the inner service, or a text of the layer.
type Answer<R> = Response<Either<R, Full<Bytes>>>;

type Answering<R, E> = Pin<Box<dyn Future<Output = Result<Answer<R>, E>> + Send>>;

/// Verifies each request before it reaches the inner service. The inner service gets a request with
/// the whole body, and the [`Webhook`] in its extensions; it needs no change for either.
///
/// A refused request never reaches the inner service. The layer calls [`Receiver::on_rejection`], and
/// adds the [`Rejection`] to the extensions of the response, as an `Arc`, for outer layers.
///
/// # Example
/// ```
/// # #[cfg(all(feature = "axum", feature = "memory"))]
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use axum::{Router, body::Bytes, routing::post};
/// use webhooks_receive::{provider::Standard, MemorySeenStore, ReceiveLayer, Receiver, ReplayGuard};
/// use webhooks_sign::Key;
///
/// # let secret = concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
/// let receiver = Receiver::<Standard>::from_keys(Key::standard(secret)?)?;
/// let guard = ReplayGuard::new(&receiver, "billing", MemorySeenStore::new())?;
/// let layer = ReceiveLayer::new(receiver).guard(guard);
/// let app: Router = Router::new().route("/hook", post(hook)).layer(layer);
///
/// async fn hook(body: Bytes) { /* verified, and not seen before */ }
/// # Ok(())
/// # }
/// # #[cfg(not(all(feature = "axum", feature = "memory")))]
/// # fn main() {}
/// ```
pub struct ReceiveLayer<P = AnyScheme, G = Unguarded> {
    receiver: Receiver<P>,
    handshakes: Arc<[Handshake]>,
    guard: Option<ReplayGuard<G>>,
}

impl<P> ReceiveLayer<P> {
    /// Returns the layer of this receiver, without a guard: the inner service gets each attempt.
    pub fn new(receiver: Receiver<P>) -> Self {
        Self { receiver, handshakes: Arc::from([]), guard: None }
    }

    /// Runs the inner service once per webhook.
    ///
    /// A response of 2xx is a success. If the store then fails to record it, the response is sent all
    /// the same, with the [`SeenError`] in its extensions, as an `Arc`.
    #[must_use]
    pub fn guard<G: SeenStore>(self, guard: ReplayGuard<G>) -> ReceiveLayer<P, G> {
        let Self { receiver, handshakes, .. } = self;
        ReceiveLayer { receiver, handshakes, guard: Some(guard) }
    }
}

impl<P, G: SeenStore> ReceiveLayer<P, G> {
    /// Answers these handshakes, so that the inner service gets only webhooks.
    #[must_use]
    pub fn handshakes(self, handshakes: impl IntoIterator<Item = Handshake>) -> Self {
        Self { handshakes: handshakes.into_iter().collect(), ..self }
    }
}

impl<S, P, G> Layer<S> for ReceiveLayer<P, G> {
    type Service = Receive<S, P, G>;

    fn layer(&self, inner: S) -> Self::Service {
        Receive { inner, layer: self.clone() }
    }
}

impl<P, G> Clone for ReceiveLayer<P, G> {
    fn clone(&self) -> Self {
        Self {
            receiver: self.receiver.clone(),
            handshakes: Arc::clone(&self.handshakes),
            guard: self.guard.clone(),
        }
    }
}

impl<P, G> fmt::Debug for ReceiveLayer<P, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveLayer")
            .field("receiver", &self.receiver)
            .field("handshakes", &self.handshakes)
            .field("guard", &self.guard)
            .finish()
    }
}

/// The service of [`ReceiveLayer`], whose inner service gets only verified webhooks.
#[derive(Debug)]
pub struct Receive<S, P = AnyScheme, G = Unguarded> {
    inner: S,
    layer: ReceiveLayer<P, G>,
}

impl<S: Clone, P, G> Clone for Receive<S, P, G> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<S, P, G, B, R> Service<Request<B>> for Receive<S, P, G>
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>, Future: Send, Error: Send>
        + Clone
        + Send
        + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    R: Send + 'static,
    P: 'static,
    G: SeenStore,
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
                Ok(Received::Webhook(webhook, request)) => {
                    let handled = async move { ServiceResult(inner.call(request).await) };
                    layer.run(webhook, handled).await
                }
                Ok(Received::Answered(answer)) => Ok(answer.map(|text| Either::Right(text.into()))),
                Err(rejection) => Ok(refuse(rejection)),
            }
        })
    }
}

/// The store of a [`ReceiveLayer`] without a guard. There is none: it has no values.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_enums, reason = "it has no values")]
pub enum Unguarded {}

impl SeenStore for Unguarded {
    async fn begin(&self, _: SeenClaim, _: Timestamp) -> Result<BeginOutcome, SeenError> {
        match *self {}
    }

    async fn done(&self, _: SeenId, _: Timestamp) -> Result<(), SeenError> {
        match *self {}
    }

    async fn release(&self, _: SeenClaim) -> Result<(), SeenError> {
        match *self {}
    }
}

fn answer<R, E>(
    outcome: Result<RunOutcome<ServiceResult<R, E>>, Rejection>,
) -> Result<Answer<R>, E> {
    match outcome {
        Ok(RunOutcome::Ran { result, remembered }) => {
            let mut response = result.0?.map(Either::Left);
            if let Err(error) = remembered {
                response.extensions_mut().insert(Arc::new(error));
            }
            Ok(response)
        }
        Ok(RunOutcome::Duplicate) => Ok(Response::new(Either::Right(Full::default()))),
        Err(rejection) => Ok(refuse(rejection)),
    }
}

/// The kind of a request that was not refused.
enum Received {
    Webhook(Webhook, Request<Full<Bytes>>),
    Answered(Response<Bytes>),
}

impl<P, G: SeenStore> ReceiveLayer<P, G> {
    /// Runs the inner service, or answers without it.
    async fn run<R: Send + 'static, E: Send + 'static>(
        &self,
        webhook: Webhook,
        handled: impl Future<Output = ServiceResult<R, E>> + Send + 'static,
    ) -> Result<Answer<R>, E> {
        let Some(guard) = self.guard.clone() else { return Ok(handled.await.0?.map(Either::Left)) };
        if !guard.may_detach() {
            return answer(guard.run(&webhook, handled).await);
        }
        let task = tokio::spawn(async move {
            // The handler alone is counted: a duplicate, which waits for it, takes none of the room.
            let counted = async {
                let _counted = guard.count();
                handled.await
            };
            answer(guard.run(&webhook, counted).await)
        });
        match task.await.map_err(JoinError::try_into_panic) {
            Ok(answer) => answer,
            // The panic goes on in the task of the connection, as it would without a task of its own.
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // The runtime ends.
            Err(Err(_)) => {
                Ok(refuse(Rejection::EarlierRunFailed { status: StatusCode::SERVICE_UNAVAILABLE }))
            }
        }
    }

    async fn receive<B>(&self, request: Request<B>) -> Result<Received, Rejection>
    where
        B: Body<Error: Into<BoxError>>,
    {
        let (head, body) = request.into_parts();
        for handshake in &*self.handshakes {
            if let Some(answer) = handshake.answer(&head) {
                let report = |rejection: &_| self.receiver.settings().report_rejection(rejection);
                return answer.map(Received::Answered).inspect_err(report);
            }
        }
        let is_signed =
            head.headers.contains_key(self.receiver.settings().rules.scheme.signature_header());
        let is_asked = |handshake: &&Handshake| !is_signed && handshake.needs_body(&head);
        match self.handshakes.iter().find(is_asked) {
            Some(handshake) => self.receive_unsigned(handshake, head, body).await,
            None => self.receive_webhook(Request::from_parts(head, body)).await,
        }
    }

    /// Answers an unsigned handshake that only its body identifies. Any other request is refused,
    /// because it has no signature.
    async fn receive_unsigned<B>(
        &self,
        handshake: &Handshake,
        head: Parts,
        body: B,
    ) -> Result<Received, Rejection>
    where
        B: Body<Error: Into<BoxError>>,
    {
        let settings = self.receiver.settings();
        let report = |rejection: &_| settings.report_rejection(rejection);
        let deadline = settings.rules.clock.sleep(settings.read_deadline);
        let read = body::read(body, Handshake::MAX_UNSIGNED, deadline, |_| {});
        let bytes = read.await.inspect_err(report)?;
        match handshake.answer_unsigned(&head, &bytes) {
            Some(answer) => answer.map(Received::Answered).inspect_err(report),
            None => self.receive_webhook(Request::from_parts(head, Full::new(bytes))).await,
        }
    }

    async fn receive_webhook<B>(&self, request: Request<B>) -> Result<Received, Rejection>
    where
        B: Body<Error: Into<BoxError>>,
    {
        let (mut head, webhook) = self.receiver.receive(request).await?.into_parts();
        for handshake in &*self.handshakes {
            if let Some(answer) = handshake.answer_webhook(&webhook) {
                return Ok(Received::Answered(answer));
            }
        }
        let body = Full::new(webhook.body().clone());
        head.extensions.insert(webhook.clone());
        Ok(Received::Webhook(webhook, Request::from_parts(head, body)))
    }
}

/// The response of the inner service; each of its errors is a failure.
struct ServiceResult<R, E>(Result<Response<R>, E>);

impl<R, E> HandlerResult for ServiceResult<R, E> {
    fn status(&self) -> StatusCode {
        self.0.as_ref().map_or(StatusCode::INTERNAL_SERVER_ERROR, Response::status)
    }
}

/// Takes the service that was polled ready, and leaves a clone that must be polled again: tower lets
/// only the polled one be called.
fn take_ready<S: Clone>(inner: &mut S) -> S {
    let clone = inner.clone();
    mem::replace(inner, clone)
}

fn refuse<R>(rejection: Rejection) -> Answer<R> {
    let mut response = rejection.to_response().map(Either::Right);
    response.extensions_mut().insert(Arc::new(rejection));
    response
}
