//! HTTP/1.1 without TLS on this machine: the one place where the receivers of `listen`, `demo` and `bench`, and the
//! page of `listen`, accept connections and read requests.

use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use webhooks_dispatch::clock::{Clock as _, SystemClock};

use crate::output::Output;

/// The time in which the head of a request must arrive, and then its body.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The most connections; further ones wait.
const MAX_CONNECTIONS: usize = 512;

/// The largest body in bytes: anybody on this machine can send one.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// The time that requests under way have to end.
const GRACE: Duration = Duration::from_secs(2);

/// The pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// The end of a connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection ends without an answer")]
pub(crate) struct NoAnswer;

/// A server on this machine, with limits on connections, heads and bodies.
#[derive(Debug)]
pub(crate) struct Loopback {
    pub(crate) listener: TcpListener,
    /// The time in which the head of a request must arrive, and then its body.
    pub(crate) read_timeout: Duration,
    /// Whether connections end by a reset.
    pub(crate) resets: bool,
    /// Where it tells of requests that no handler sees.
    pub(crate) output: Option<Output>,
}

/// Takes a free port of loopback; returns the URL for the receiver that listens there.
pub(crate) async fn listen() -> std::io::Result<(TcpListener, String)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("http://{}/hook", listener.local_addr()?);
    Ok((listener, url))
}

/// Answers each request with the status that `handler` returns for its headers and body.
///
/// # Cancellation
/// Dropping the future closes all connections.
pub(crate) async fn serve<H, F>(listener: TcpListener, handler: H)
where
    H: Fn(HeaderMap, Bytes) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = StatusCode> + Send,
{
    let loopback = Loopback { listener, read_timeout: READ_TIMEOUT, resets: false, output: None };
    let answer = move |head: Parts, body| {
        let status = handler(head.headers, body);
        async move {
            let mut response = Response::new(Full::<Bytes>::default());
            *response.status_mut() = status.await;
            Ok(response)
        }
    };
    loopback.run(answer, pending()).await;
}

impl Loopback {
    /// Answers each request with what `handler` returns for its head and body, until `stop` is ready; then requests
    /// under way have a short time to end.
    ///
    /// # Cancellation
    /// Dropping the future closes all connections.
    pub(crate) async fn run<H, F, B>(self, handler: H, stop: impl Future<Output = ()>)
    where
        H: Fn(Parts, Bytes) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Response<B>, NoAnswer>> + Send,
        B: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Default + Send + 'static,
    {
        let Self { listener, read_timeout, resets, output } = self;
        let (mut connections, graceful) = (JoinSet::new(), GracefulShutdown::new());
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(read_timeout);
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stop => break,
                Some(_ended) = connections.join_next() => continue,
                accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => accepted,
            };
            // The sender gave up, or this process has no descriptor left: the next one may come through.
            let Ok((stream, peer)) = accepted else {
                SystemClock.sleep(ACCEPT_PAUSE).await;
                continue;
            };
            prepare(&stream, resets);
            let connection = Connection { peer, read_timeout, output, had_request: Arc::default() };
            let (handler, own) = (handler.clone(), connection.clone());
            let service = service_fn(move |request| own.clone().answer(request, handler.clone()));
            let serving = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
            connections.spawn(async move {
                if let Err(error) = serving.await {
                    connection.tell_end(&error);
                }
            });
        }
        drop(listener);
        // An answer that hangs never ends by itself.
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

/// A connection, as its requests see it.
#[derive(Debug, Clone)]
struct Connection {
    peer: SocketAddr,
    read_timeout: Duration,
    output: Option<Output>,
    had_request: Arc<AtomicBool>,
}

impl Connection {
    async fn answer<H, F, B>(
        self,
        request: Request<Incoming>,
        handler: H,
    ) -> Result<Response<B>, NoAnswer>
    where
        H: Fn(Parts, Bytes) -> F,
        F: Future<Output = Result<Response<B>, NoAnswer>>,
        B: Default,
    {
        self.had_request.store(true, Ordering::Relaxed);
        let (head, body) = request.into_parts();
        match self.read(body).await {
            Ok(body) => handler(head, body).await,
            Err(Unread::Gone) => Err(NoAnswer),
            Err(Unread::Refused(status)) => {
                let mut response = Response::new(B::default());
                *response.status_mut() = status;
                Ok(response)
            }
        }
    }

    /// Reads a body as a whole.
    async fn read(&self, body: Incoming) -> Result<Bytes, Unread> {
        let refused = |status: StatusCode, reason: &str| {
            self.tell(&format!("answered {} to a request: {reason}", status.as_u16()));
            Unread::Refused(status)
        };
        let too_large = || refused(StatusCode::PAYLOAD_TOO_LARGE, "its body has more than 16 MiB");
        // A body that says how long it is need not arrive first.
        if body.size_hint().lower() > MAX_BODY as u64 {
            return Err(too_large());
        }
        let read = Limited::new(body, MAX_BODY).collect();
        match tokio::time::timeout(self.read_timeout, read).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(_broken)) => {
                self.tell("a request ended in the middle of its body, or its body is malformed");
                Err(Unread::Gone)
            }
            Err(_late) => {
                let time = humantime::format_duration(self.read_timeout);
                let reason = format!("its body did not arrive in {time}");
                Err(refused(StatusCode::REQUEST_TIMEOUT, &reason))
            }
        }
    }

    /// Tells why a connection ended, if the sender should know. The texts are those of hyper and have nothing of
    /// the request in them.
    fn tell_end(&self, error: &hyper::Error) {
        if error.is_parse() {
            // hyper itself answers, before any handler sees a request.
            self.tell(&format!("refused what is no request of HTTP/1.1: {error}"));
        } else if error.is_incomplete_message() {
            self.tell("a connection ended in the middle of a request");
        } else if error.is_timeout() && !self.had_request.load(Ordering::Relaxed) {
            let time = humantime::format_duration(self.read_timeout);
            self.tell(&format!("a connection brought no whole request in {time}"));
        }
        // Others ended as they were told to, or their sender went away.
    }

    fn tell(&self, text: &str) {
        if let Some(output) = self.output {
            output.note(format!("{text} (from {})", self.peer));
        }
    }
}

/// The reason why a body was not read.
enum Unread {
    /// The sender went away, or what it sends is no body.
    Gone,
    Refused(StatusCode),
}
