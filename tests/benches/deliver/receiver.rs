//! The receiver, a separate process.

use std::convert::Infallible;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// The receiver's process; it ends when dropped.
pub(crate) struct Receiver {
    process: Child,
    address: String,
}

impl Receiver {
    pub(crate) fn start() -> Self {
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new(program);
        let command = command.arg("--receiver").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut address = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { process, address: address.trim().to_owned() }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// Returns the sorted latencies of the events that came to `/timed` since the last call.
    pub(crate) async fn latencies(&self) -> Vec<Duration> {
        let report = reqwest::get(self.url("report")).await.unwrap().bytes().await.unwrap();
        let mut micros: Vec<u64> = serde_json::from_slice(&report).unwrap();
        micros.sort_unstable();
        micros.into_iter().map(Duration::from_micros).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// Returns the time in microseconds, by a clock that all processes of this machine share.
pub(crate) fn micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_micros()).unwrap()
}

/// The time for which `/slow` makes a sender wait.
const SLOW: Duration = Duration::from_millis(200);

/// The requests so far.
#[derive(Default)]
struct Log {
    latencies: Mutex<Vec<u64>>,
    arrived: AtomicUsize,
    more: Notify,
}

impl Log {
    /// Waits until this many requests have come; returns how many have.
    async fn arrived(&self, requests: usize) -> usize {
        loop {
            let more = self.more.notified();
            let arrived = self.arrived.load(Ordering::Relaxed);
            if arrived >= requests {
                return arrived;
            }
            more.await;
        }
    }
}

/// Serves until standard input ends, which happens when the process that started this one ends.
pub(crate) fn serve() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = Arc::new(Notify::new());
    let stop = Arc::clone(&ended);
    std::thread::spawn(move || {
        let _end = std::io::stdin().read_line(&mut String::new());
        stop.notify_one();
    });
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        std::io::stdout().flush().unwrap();
        let log = Arc::new(Log::default());
        loop {
            let (stream, _) = tokio::select! {
                () = ended.notified() => return,
                accepted = listener.accept() => accepted.unwrap(),
            };
            stream.set_nodelay(true).unwrap();
            let log = Arc::clone(&log);
            let service = service_fn(move |request| answer(request, Arc::clone(&log)));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
}

async fn answer(
    request: Request<Incoming>,
    log: Arc<Log>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    match path.as_str() {
        "/hang" => std::future::pending().await,
        "/report" => {
            let report = std::mem::take(&mut *log.latencies.lock().unwrap());
            return Ok(Response::new(serde_json::to_vec(&report).unwrap().into()));
        }
        "/timed" => {
            let event: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let sent = event["payload"]["sent"].as_u64().unwrap();
            log.latencies.lock().unwrap().push(micros().saturating_sub(sent));
        }
        "/slow" => tokio::time::sleep(SLOW).await,
        path => {
            if let Some(requests) = path.strip_prefix("/arrived/") {
                let arrived = log.arrived(requests.parse().unwrap()).await;
                return Ok(Response::new(arrived.to_string().into()));
            }
        }
    }
    log.arrived.fetch_add(1, Ordering::Relaxed);
    log.more.notify_waiters();
    Ok(Response::new(Full::default()))
}
