//! A webhook receiver on loopback that records its requests.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// One request as it came over the wire.
#[derive(Debug, Clone)]
pub struct Received {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub uri: Uri,
    /// The protocol.
    pub version: Version,
    /// All headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// The sender's address: the same one for two requests means the same connection.
    pub peer: SocketAddr,
}

/// A server on a free port of 127.0.0.1; it ends when dropped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    _tasks: JoinSet<()>,
}

/// The answer of a receiver to its n-th request, from 1.
type Answer = dyn Fn(usize, &Received) -> Response<Full<Bytes>> + Send + Sync;

impl Receiver {
    /// Starts a receiver that answers its n-th request, from 1, with `answer`.
    pub async fn start<A>(answer: A) -> Self
    where
        A: Fn(usize, &Received) -> Response<Full<Bytes>> + Send + Sync + 'static,
    {
        Self::serve(None, Arc::new(answer)).await
    }

    /// Starts a receiver that speaks TLS and answers 200.
    pub async fn start_tls(tls: TlsAcceptor) -> Self {
        Self::start_tls_with(tls, |_, _| status(200)).await
    }

    /// Starts a receiver that speaks TLS and answers its n-th request, from 1, with `answer`.
    pub async fn start_tls_with<A>(tls: TlsAcceptor, answer: A) -> Self
    where
        A: Fn(usize, &Received) -> Response<Full<Bytes>> + Send + Sync + 'static,
    {
        Self::serve(Some(tls), Arc::new(answer)).await
    }

    /// Starts a receiver that answers every request with this status.
    pub async fn answering(code: u16) -> Self {
        Self::start(move |_, _| status(code)).await
    }

    async fn serve(tls: Option<TlsAcceptor>, answer: Arc<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let received = Arc::default();
        let log = Log { received: Arc::clone(&received), answer };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, peer)) = listener.accept().await {
                connections.spawn(connection(stream, peer, tls.clone(), log.clone()));
            }
        });
        Self { address, received, _tasks: tasks }
    }

    /// Returns a URL of the receiver.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns all requests so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("no panic while it was held").clone()
    }
}

/// Returns an empty response.
fn status(code: u16) -> Response<Full<Bytes>> {
    Response::builder().status(code).body(Full::default()).expect("a status that exists")
}

#[derive(Clone)]
struct Log {
    received: Arc<Mutex<Vec<Received>>>,
    answer: Arc<Answer>,
}

impl Log {
    async fn note(self, peer: SocketAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.expect("the sender sends whole bodies").to_bytes();
        let Parts { method, uri, version, headers, .. } = head;
        let received = Received { method, uri, version, headers, body, peer };
        let number = {
            let mut all = self.received.lock().expect("no panic while it was held");
            all.push(received.clone());
            all.len()
        };
        (self.answer)(number, &received)
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>, log: Log) {
    let service = service_fn(move |request| {
        let log = log.clone();
        async move { Ok::<_, Infallible>(log.note(peer, request).await) }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    // The test checks on the sender's side how a connection ends.
    let _ended = match tls {
        None => server.serve_connection(TokioIo::new(stream), service).await,
        Some(tls) => match tls.accept(stream).await {
            Ok(stream) => server.serve_connection(TokioIo::new(stream), service).await,
            Err(_refused) => Ok(()),
        },
    };
}
