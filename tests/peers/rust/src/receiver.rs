//! The receiver: it records requests, and answers 500 as often as it is told to for a path.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderMap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// One request as it came over the wire.
#[derive(Debug, Clone)]
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The status that it was answered with.
    pub status: u16,
}

impl Received {
    /// Returns the id of its message.
    pub fn message(&self) -> &str {
        self.headers["svix-id"].to_str().unwrap()
    }
}

#[derive(Debug, Clone, Default)]
pub struct Receiver {
    port: u16,
    requests: Arc<Mutex<Vec<Received>>>,
    failures: Arc<Mutex<HashMap<String, usize>>>,
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let receiver = Self { port, ..Self::default() };
        let log = receiver.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let log = log.clone();
                let answer = service_fn(move |request| log.clone().answer(request));
                let connection = http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), answer));
            }
        });
        receiver
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Makes the next requests to a path fail.
    pub fn fail(&self, path: &str, times: usize) {
        self.failures.lock().unwrap().insert(path.to_owned(), times);
    }

    /// Returns the requests to a path.
    pub fn requests(&self, path: &str) -> Vec<Received> {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|request| request.path == path).cloned().collect()
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let path = head.uri.path().to_owned();
        let status = match self.failures.lock().unwrap().get_mut(&path) {
            Some(left) if *left > 0 => {
                *left -= 1;
                500
            }
            _ => 200,
        };
        let received = Received { path, headers: head.headers, body, status };
        self.requests.lock().unwrap().push(received);
        let answer = Full::from(format!("answered {status}"));
        Ok(Response::builder().status(status).body(answer).unwrap())
    }
}
