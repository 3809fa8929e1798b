//! One connection: its handshake, and the requests on it.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::server::TlsStream;
use tower_service::Service as _;

use super::{ServeSettings, http2};
use crate::tls::{HTTP2, Tls};

/// The answer to a client that speaks HTTP without TLS.
const PLAIN: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 34\r\n\
connection: close\r\n\r\nThis port speaks HTTPS, not HTTP.\n";

/// The most bytes that are read of a request that gets [`PLAIN`]: a socket that is closed with bytes unread resets
/// the connection, and the client may lose the answer.
const MAX_PLAIN: u64 = 64 * 1024;

/// A stream whose writes have a time limit.
type TimedStream = Pin<Box<TimeoutStream<TcpStream>>>;

/// The parts that all connections share.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) router: Router,
    pub(super) settings: Arc<ServeSettings>,
    tls: Option<Tls>,
    http: http1::Builder,
    /// Whether no further connection is accepted.
    pub(super) is_full: Arc<AtomicBool>,
    stopping: watch::Receiver<bool>,
}

impl Server {
    /// Returns the server, and the sender that tells its connections of the stop.
    pub(super) fn new(
        router: Router,
        tls: Option<Tls>,
        settings: ServeSettings,
    ) -> (Self, watch::Sender<bool>) {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(settings.header_timeout)
            .max_header_size(settings.max_header_bytes);
        let (stop, stopping) = watch::channel(false);
        let (settings, is_full) = (Arc::new(settings), Arc::default());
        (Self { router, settings, tls, http, is_full, stopping }, stop)
    }

    pub(super) async fn connection(mut self, stream: TcpStream, peer: SocketAddr) {
        // An answer is small and must not wait for the next. A connection works without it.
        let _slower = stream.set_nodelay(true);
        let served = match self.tls.take() {
            None => self.http1(self.timed(stream), peer).await.map_err(Into::into),
            Some(tls) => self.https(stream, peer, &tls).await,
        };
        if let Err(error) = served {
            // A client that is slow, speaks another protocol or went away.
            tracing::debug!(error = &*error as &dyn Error, %peer, "a connection failed");
        }
    }

    async fn https(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        tls: &Tls,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let handshake = timeout(self.settings.handshake_timeout, self.handshake(stream, tls));
        let stream = tokio::select! {
            stream = handshake => stream??,
            // It has no request yet.
            () = self.stop() => return Ok(()),
        };
        let Some(stream) = stream else { return Ok(()) };
        if stream.get_ref().1.alpn_protocol() == Some(HTTP2) {
            http2::serve(self, stream, peer).await?;
        } else {
            self.http1(stream, peer).await?;
        }
        Ok(())
    }

    /// Returns the stream of a client, unless it speaks HTTP without TLS and was told so.
    async fn handshake(
        &self,
        mut stream: TcpStream,
        tls: &Tls,
    ) -> io::Result<Option<TlsStream<TimedStream>>> {
        let mut first = [0];
        // A handshake starts with the byte 22, a request with the letters of its method.
        if stream.peek(&mut first).await? == 1 && first[0].is_ascii_uppercase() {
            stream.write_all(PLAIN).await?;
            stream.shutdown().await?;
            tokio::io::copy(&mut stream.take(MAX_PLAIN), &mut tokio::io::sink()).await?;
            return Ok(None);
        }
        tls.acceptor().accept(self.timed(stream)).await.map(Some)
    }

    fn timed(&self, stream: TcpStream) -> TimedStream {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.settings.write_timeout));
        Box::pin(stream)
    }

    async fn http1(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send,
        peer: SocketAddr,
    ) -> hyper::Result<()> {
        let (router, is_full) = (self.router.clone(), Arc::clone(&self.is_full));
        let service = service_fn(move |request| {
            let (answer, is_full) = (answer(&router, request, peer), Arc::clone(&is_full));
            async move {
                let mut response = answer.await?;
                if is_full.load(Ordering::Relaxed) {
                    // Its place is for one that waits.
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let mut connection = pin!(self.http.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = self.stop() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    }

    /// Waits until the server stops.
    pub(super) async fn stop(&self) {
        let mut stopping = self.stopping.clone();
        // Without a sender, the server was dropped, and so is this.
        let _stopped = stopping.wait_for(|is_stopping| *is_stopping).await;
    }
}

/// Answers a request by the router.
pub(super) fn answer(
    router: &Router,
    request: Request<Incoming>,
    peer: SocketAddr,
) -> impl Future<Output = Result<Response, Infallible>> + use<> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(ConnectInfo(peer));
    // A router is always ready.
    router.clone().call(request)
}
