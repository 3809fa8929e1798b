//! The receiver on this machine: HTTP/1.1 without TLS, with limits on connections, headers and bodies.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Interval, interval};
use webhooks_dispatch::clock::{Clock as _, SystemClock};

use super::inbox::Inbox;
use super::plan::Manner;

/// The most connections; further ones wait.
const MAX_CONNECTIONS: usize = 256;

/// The largest body in bytes.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// The size in bytes of a huge body.
const HUGE: u64 = 1024 * 1024 * 1024;

/// The pause between the bytes of a slow body.
const SLOW: Duration = Duration::from_secs(1);

/// The time that requests under way have to end.
const GRACE: Duration = Duration::from_secs(2);

/// The time in which headers must arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// The pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// The receiver.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) listener: TcpListener,
    pub(crate) inbox: Arc<Inbox>,
    /// The target of redirects.
    pub(crate) redirect: Option<HeaderValue>,
    /// Whether connections end by a reset.
    pub(crate) resets: bool,
}

impl Server {
    /// Receives until `stop` is ready; then requests under way have a short time to end.
    pub(crate) async fn run(self, mut stop: oneshot::Receiver<()>) {
        let Self { listener, inbox, redirect, resets } = self;
        let (mut connections, graceful) = (JoinSet::new(), GracefulShutdown::new());
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        loop {
            let accepted = tokio::select! {
                biased;
                _stopped = &mut stop => break,
                Some(_ended) = connections.join_next() => continue,
                accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => accepted,
            };
            let Ok((stream, _peer)) = accepted else {
                SystemClock.sleep(ACCEPT_PAUSE).await;
                continue;
            };
            prepare(&stream, resets);
            let (inbox, redirect) = (Arc::clone(&inbox), redirect.clone());
            let service =
                service_fn(move |request| answer(Arc::clone(&inbox), redirect.clone(), request));
            let connection = http.serve_connection(TokioIo::new(stream), service);
            let connection = graceful.watch(connection);
            connections.spawn(async move {
                // A client that went away, or an answer that was chosen to fail.
                let _ended = connection.await;
            });
        }
        drop(listener);
        // A chosen hang never ends by itself.
        let _late = tokio::time::timeout(GRACE, graceful.shutdown()).await;
        connections.shutdown().await;
    }
}

fn prepare(stream: &TcpStream, resets: bool) {
    // A connection works without either.
    let _slower = stream.set_nodelay(true);
    if resets {
        // A connection that closes without lingering ends by a reset.
        let _ends_well = stream.set_zero_linger();
    }
}

/// The end of a connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection ends without an answer")]
struct NoAnswer;

async fn answer(
    inbox: Arc<Inbox>,
    redirect: Option<HeaderValue>,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, NoAnswer> {
    let (head, body) = request.into_parts();
    // A body that says how long it is need not arrive first.
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Ok(response(StatusCode::PAYLOAD_TOO_LARGE, AnswerBody::Empty));
    }
    let body = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return Ok(response(StatusCode::PAYLOAD_TOO_LARGE, AnswerBody::Empty));
        }
        Err(_gone) => return Err(NoAnswer),
    };
    let (answer, status) = inbox.take(head, body, None).await;
    SystemClock.sleep(answer.delay).await;
    let body = match answer.manner {
        Manner::Reset => return Err(NoAnswer),
        Manner::Hang => std::future::pending().await,
        Manner::HugeBody => AnswerBody::Huge(HUGE),
        Manner::SlowBody => AnswerBody::Slow(interval(SLOW)),
        _ => AnswerBody::Empty,
    };
    let mut response = response(status, body);
    if answer.manner == Manner::Redirect
        && let Some(target) = redirect
    {
        response.headers_mut().insert(LOCATION, target);
    }
    Ok(response)
}

fn response(status: StatusCode, body: AnswerBody) -> Response<AnswerBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if !matches!(response.body(), AnswerBody::Empty) {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    response
}

/// The body of an answer.
#[derive(Debug)]
enum AnswerBody {
    Empty,
    /// So many bytes follow.
    Huge(u64),
    /// A byte follows at each tick, without an end.
    Slow(Interval),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        const CHUNK: &[u8] = &[b'.'; 64 * 1024];
        let bytes = match &mut *self {
            Self::Empty | Self::Huge(0) => return Poll::Ready(None),
            Self::Huge(left) => {
                *left = left.saturating_sub(64 * 1024);
                CHUNK
            }
            Self::Slow(interval) => {
                let _time = ready!(interval.poll_tick(context));
                b"."
            }
        };
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Empty)
    }
}
