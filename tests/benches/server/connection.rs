//! A connection to the service that costs little: it sends whole requests that were made before, and
//! reads no more of an answer than it must.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Where a header ends and the body begins.
const END: &[u8] = b"\r\n\r\n";

/// A request as it goes over the wire.
#[derive(Clone)]
pub(crate) struct Request(Vec<u8>);

impl Request {
    /// Returns a request with a body, or a GET without one.
    pub(crate) fn new(path: &str, key: &str, body: &str) -> Self {
        let method = if body.is_empty() { "GET" } else { "POST" };
        let len = body.len();
        Self(
            format!(
                "{method} /api/v1{path} HTTP/1.1\r\nhost: service\r\nauthorization: Bearer {key}\r\n\
                 content-type: application/json\r\ncontent-length: {len}\r\n\r\n{body}"
            )
            .into_bytes(),
        )
    }
}

/// A connection that is kept alive.
pub(crate) struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    /// Makes a request, which must succeed; returns the body of the answer.
    pub(crate) async fn ask(&mut self, request: &Request) -> &[u8] {
        self.stream.write_all(&request.0).await.unwrap();
        self.read.clear();
        let head = loop {
            if let Some(at) = self.read.windows(END.len()).position(|found| found == END) {
                break at + END.len();
            }
            self.more().await;
        };
        let text = str::from_utf8(&self.read[..head]).unwrap();
        assert!(text.starts_with("HTTP/1.1 2"), "{}", String::from_utf8_lossy(&self.read));
        let len = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        let end = head + len.map_or(0, |len| len.parse().unwrap());
        while self.read.len() < end {
            self.more().await;
        }
        &self.read[head..end]
    }

    async fn more(&mut self) {
        let read = self.stream.read_buf(&mut self.read).await.unwrap();
        assert!(read > 0, "the service closed the connection");
    }
}
