//! A server on loopback that treats each connection as a test wants, however rude.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// The record of the wire so far.
#[derive(Debug, Default)]
pub struct Wire {
    accepted: AtomicUsize,
    ended: AtomicUsize,
    requests: AtomicUsize,
    written: AtomicU64,
    changed: Notify,
}

impl Wire {
    /// Returns the number of accepted connections.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Returns the number of whole requests that were read.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Returns the number of bytes that were written and that the client or the kernel's buffers
    /// took.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }

    /// Waits until the condition holds.
    pub async fn wait_until(&self, is_so: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.changed.notified();
            if is_so(self) {
                return;
            }
            changed.await;
        }
    }

    /// Waits until the client has ended `count` connections.
    pub async fn ended(&self, count: usize) {
        self.wait_until(|wire| wire.ended.load(Ordering::SeqCst) >= count).await;
    }

    fn count(&self, counter: &AtomicUsize) {
        counter.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
    }
}

/// The server; it ends when dropped.
#[derive(Debug)]
pub struct RawServer {
    address: SocketAddr,
    wire: Arc<Wire>,
    _tasks: JoinSet<()>,
}

impl RawServer {
    /// Starts a server on 127.0.0.1 that treats each connection in this way.
    pub async fn start<F, Fut>(treat: F) -> Self
    where
        F: Fn(Connection<TcpStream>) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::start_at(Ipv4Addr::LOCALHOST, treat).await
    }

    /// Starts such a server on another address of this machine.
    pub async fn start_at<F, Fut>(address: Ipv4Addr, treat: F) -> Self
    where
        F: Fn(Connection<TcpStream>) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((address, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let (wire, mut tasks) = (Arc::<Wire>::default(), JoinSet::new());
        let noted = Arc::clone(&wire);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                noted.count(&noted.accepted);
                connections.spawn(treat(Connection { stream, wire: Arc::clone(&noted) }));
            }
        });
        Self { address, wire, _tasks: tasks }
    }

    /// Starts a server that reads one request per connection, answers with these bytes, and closes.
    pub async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        Self::start(move |mut connection| {
            let answer = Arc::clone(&answer);
            async move {
                connection.request().await;
                connection.write(&answer).await;
            }
        })
        .await
    }

    /// Returns a URL of the server.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Returns the address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the record so far.
    pub fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }
}

/// One connection.
#[derive(Debug)]
pub struct Connection<S> {
    /// The stream itself.
    pub stream: S,
    wire: Arc<Wire>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    /// Returns the same connection over another stream, such as TLS.
    pub fn over<T>(self, layer: impl FnOnce(S) -> T) -> Connection<T> {
        Connection { stream: layer(self.stream), wire: self.wire }
    }

    /// Reads one HTTP/1.1 request with its body and returns it, or nothing if it is not complete.
    pub async fn request(&mut self) -> Option<String> {
        let mut read = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&read).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let head = head.to_ascii_lowercase();
                let length = head.split("content-length: ").nth(1);
                let length = length.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
                if body.len() >= length.unwrap_or(0) {
                    self.wire.count(&self.wire.requests);
                    return Some(text);
                }
            }
            if !matches!(self.stream.read_buf(&mut read).await, Ok(1..)) {
                return None;
            }
        }
    }

    /// Writes bytes; returns whether the client still took them.
    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        let written = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        let is_taken = written.await.is_ok();
        if is_taken {
            self.wire.written.fetch_add(bytes.len() as u64, Ordering::SeqCst);
            self.wire.changed.notify_waiters();
        }
        is_taken
    }

    /// Writes bytes again and again until the client closes.
    pub async fn write_forever(&mut self, bytes: &[u8]) {
        while self.write(bytes).await {}
        self.wire.count(&self.wire.ended);
    }

    /// Waits until the client closes.
    pub async fn until_closed(&mut self) {
        let mut dropped = [0; 1024];
        while matches!(self.stream.read(&mut dropped).await, Ok(1..)) {}
        self.wire.count(&self.wire.ended);
    }
}

impl Connection<TcpStream> {
    /// Closes with a reset instead of an orderly end.
    ///
    /// # Errors
    /// The system's error, if it cannot.
    pub fn reset(self) -> io::Result<()> {
        self.stream.set_zero_linger()
    }
}
