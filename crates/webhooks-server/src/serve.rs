//! A server for the router, which withstands slow and many clients.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use http::header::CONNECTION;
use http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tower_service::Service as _;
use webhooks_dispatch::clock::{Clock as _, SystemClock};

/// The time after which connections are accepted again when the system has no room for one, such as too few
/// file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// The limits of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServeSettings {
    /// The most connections; 4,096 by default. Further ones wait until one ends; meanwhile each connection
    /// ends with its next answer. The limit of open files of the process must be higher.
    pub max_connections: usize,
    /// The longest time from the start of a connection, or from an answer, until the headers of the next
    /// request are there; 60 s by default. This ends idle connections and those that send headers
    /// slowly. A proxy in front must end its idle connections earlier.
    pub header_timeout: Duration,
    /// The most bytes of the headers of a request; 32 KiB by default. Larger ones get 431, and so do those
    /// with more than 100 fields.
    pub max_header_bytes: usize,
    /// The longest time in which a client takes nothing of an answer; 30 s by default.
    pub write_timeout: Duration,
    /// The time that requests have to end after the stop; 30 s by default.
    pub grace: Duration,
}

impl Default for ServeSettings {
    fn default() -> Self {
        Self {
            max_connections: 4_096,
            header_timeout: Duration::from_secs(60),
            max_header_bytes: 32 * 1024,
            write_timeout: Duration::from_secs(30),
            grace: Duration::from_secs(30),
        }
    }
}

/// Serves a router by HTTP/1.1 until `stop` is ready. Then it accepts nothing more, ends idle connections, and
/// returns when the requests in work are answered, at the latest after the grace time.
///
/// Handlers find the address of the caller as `ConnectInfo<SocketAddr>`. Bodies are the affair of the router:
/// that of a [`Service`](crate::Service) limits their size and their time. There is no TLS and no HTTP/2: both
/// are for a proxy in front, which also takes the streams of browsers together.
///
/// # Cancellation
/// A dropped future ends all connections at once.
///
/// # Example
/// ```no_run
/// # async fn run(service: webhooks_server::Service) -> std::io::Result<()> {
/// use webhooks_server::{ServeSettings, serve};
///
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8071").await?;
/// let stop = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
/// serve(listener, service.router(), ServeSettings::default(), stop).await;
/// # Ok(())
/// # }
/// ```
pub async fn serve(
    listener: TcpListener,
    router: Router,
    settings: ServeSettings,
    stop: impl Future<Output = ()> + Send,
) {
    let mut stop = pin!(stop);
    let mut connections = JoinSet::new();
    let graceful = GracefulShutdown::new();
    let server = Server::new(router, settings);
    let settings = &server.settings;
    loop {
        let has_room = connections.len() < settings.max_connections.max(1);
        server.is_full.store(!has_room, Ordering::Relaxed);
        tokio::select! {
            biased;
            () = &mut stop => break,
            // A panic is a bug of the router, and was reported.
            Some(_ended) = connections.join_next() => {}
            (stream, peer) = accept(&listener), if has_room => {
                connections.spawn(server.clone().connection(stream, peer, graceful.watcher()));
            }
        }
    }
    // Callers turn to another process at once.
    drop(listener);
    if tokio::time::timeout(settings.grace, graceful.shutdown()).await.is_err() {
        let connections = connections.len();
        tracing::warn!(connections, "requests were not answered within the grace time");
    }
    connections.shutdown().await;
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_client(&error) => {}
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "no connection is accepted"
                );
                SystemClock.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Returns whether a client went away before it was accepted.
fn is_of_client(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};

    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// The parts that all connections share.
#[derive(Clone)]
struct Server {
    router: Router,
    settings: Arc<ServeSettings>,
    http: http1::Builder,
    /// Whether no further connection is accepted.
    is_full: Arc<AtomicBool>,
}

impl Server {
    fn new(router: Router, settings: ServeSettings) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(settings.header_timeout)
            .max_header_size(settings.max_header_bytes);
        Self { router, settings: Arc::new(settings), http, is_full: Arc::default() }
    }

    async fn connection(self, stream: TcpStream, peer: SocketAddr, watcher: Watcher) {
        // An answer is small and must not wait for the next. A connection works without it.
        let _slower = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.settings.write_timeout));
        let Self { router, http, is_full, .. } = self;
        let answer = service_fn(move |request| answer(&router, request, peer, &is_full));
        let connection = http.serve_connection(TokioIo::new(Box::pin(stream)), answer);
        if let Err(error) = watcher.watch(connection).await {
            // A client that is slow, speaks no HTTP or went away.
            tracing::debug!(error = &error as &dyn std::error::Error, %peer, "a connection failed");
        }
    }
}

fn answer(
    router: &Router,
    request: Request<Incoming>,
    peer: SocketAddr,
    is_full: &Arc<AtomicBool>,
) -> impl Future<Output = Result<Response, Infallible>> + use<> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(ConnectInfo(peer));
    // A router is always ready.
    let (answer, is_full) = (router.clone().call(request), Arc::clone(is_full));
    async move {
        let mut response = answer.await?;
        if is_full.load(Ordering::Relaxed) {
            // Its place is for one that waits.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}
