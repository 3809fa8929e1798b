//! A server for the router, which withstands slow and many clients.

mod connection;
mod http2;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use webhooks_dispatch::clock::{Clock as _, SystemClock};

use crate::tls::Tls;

use connection::Server;

/// The time after which connections are accepted again when the system has no room for one, such as too few
/// file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// The limits of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServeSettings {
    /// The most connections; 4,096 by default. Further ones wait until one ends; meanwhile each connection
    /// ends with its next answer. The limit of open files of the process must be higher. A connection counts before
    /// its handshake.
    pub max_connections: usize,
    /// The longest time of a TLS handshake; 10 s by default.
    pub handshake_timeout: Duration,
    /// The longest time from the start of a connection, or from an answer, until the headers of the next
    /// request are there; 60 s by default. This ends idle connections and those that send headers
    /// slowly. A proxy in front must end its idle connections earlier.
    pub header_timeout: Duration,
    /// The most bytes of the headers of a request; 32 KiB by default. Larger ones get 431, and so do those
    /// of HTTP/1.1 with more than 100 fields.
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
            handshake_timeout: Duration::from_secs(10),
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
/// that of a [`Service`](crate::Service) limits their size and their time. There is no TLS and no HTTP/2:
/// [`serve_tls`] has both, and so has a proxy in front.
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
    run(listener, (router, None), settings, stop).await;
}

/// Serves a router by HTTP/1.1 and HTTP/2 over TLS, as [`serve`] does it without. The client chooses the version
/// of HTTP in the handshake. A client that speaks HTTP without TLS is told so.
///
/// # Cancellation
/// A dropped future ends all connections at once.
///
/// # Example
/// ```no_run
/// # async fn run(service: webhooks_server::Service) -> Result<(), Box<dyn std::error::Error>> {
/// use webhooks_server::{ServeSettings, Tls, TlsCertificate, serve_tls};
///
/// let (chain, key) = (std::fs::read("chain.pem")?, std::fs::read("key.pem")?);
/// let tls = Tls::new(TlsCertificate::from_pem(&chain, &key)?);
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8443").await?;
/// let stop = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
/// serve_tls(listener, tls, service.router(), ServeSettings::default(), stop).await;
/// # Ok(())
/// # }
/// ```
pub async fn serve_tls(
    listener: TcpListener,
    tls: Tls,
    router: Router,
    settings: ServeSettings,
    stop: impl Future<Output = ()> + Send,
) {
    run(listener, (router, Some(tls)), settings, stop).await;
}

async fn run(
    listener: TcpListener,
    (router, tls): (Router, Option<Tls>),
    settings: ServeSettings,
    stop: impl Future<Output = ()> + Send,
) {
    let mut stop = pin!(stop);
    let mut connections = JoinSet::new();
    let (most, grace) = (settings.max_connections.max(1), settings.grace);
    let (server, stopping) = Server::new(router, tls, settings);
    loop {
        let has_room = connections.len() < most;
        server.is_full.store(!has_room, Ordering::Relaxed);
        tokio::select! {
            biased;
            () = &mut stop => break,
            // A panic is a bug of the router, and was reported.
            Some(_ended) = connections.join_next() => {}
            (stream, peer) = accept(&listener), if has_room => {
                connections.spawn(server.clone().connection(stream, peer));
            }
        }
    }
    // Callers turn to another process at once.
    drop(listener);
    stopping.send_replace(true);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, ended).await.is_err() {
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
