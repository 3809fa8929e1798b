//! The layers and the extractor of webhooks-receive behind a real server: the requests of our own
//! sender, and bodies as bad as a socket allows.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::io::Write as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::routing::post;
use axum::{Json, Router};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::rustls::crypto::ring;
use webhooks_core::{DeliveryStatus, Event, RetryPolicy, Timestamp};
use webhooks_dispatch::{Dispatcher, Engine, MemoryStore};
use webhooks_http::HttpTransport;
use webhooks_receive::{
    MemorySeenStore, ReceiveLayer, Receiver, ReplayGuard, VerifiedWebhook,
    clock::{Clock, SystemClock},
    provider::Standard,
};
use webhooks_registry::{Endpoint, Registry};
use webhooks_sign::{Key, standard};

const SECRET: &str = concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");

/// The largest body that this server accepts, in bytes.
const MAX_BODY: usize = 1000;

/// The system's time, with deadlines that end when the test signals it.
#[derive(Debug, Clone)]
struct TestClock {
    is_over: watch::Sender<bool>,
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn sleep(&self, _: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut is_over = self.is_over.subscribe();
        Box::pin(async move {
            is_over.wait_for(|is_over| *is_over).await.unwrap();
        })
    }
}

/// An axum server with both layers around a handler that takes an enum of event types.
struct Server {
    address: String,
    /// The invoices that the handler got, in order.
    invoices: Arc<Mutex<Vec<u64>>>,
    clock: TestClock,
    _tasks: JoinSet<()>,
}

#[derive(Deserialize)]
#[serde(tag = "event_type")]
enum OurEvent {
    #[serde(rename = "invoice.paid")]
    InvoicePaid { payload: Invoice },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Invoice {
    number: u64,
}

impl Server {
    /// Starts a server whose handler answers by the number of its runs, from 1.
    async fn start(answer: impl Fn(usize) -> u16 + Clone + Send + Sync + 'static) -> Self {
        let clock = TestClock { is_over: watch::Sender::new(false) };
        let invoices: Arc<Mutex<Vec<u64>>> = Arc::default();
        let seen = Arc::clone(&invoices);
        let hook = move |hook: VerifiedWebhook<Json<OurEvent>, Standard>| {
            let number = match hook.body.0 {
                OurEvent::InvoicePaid { payload } => payload.number,
                OurEvent::Other => 0,
            };
            let mut seen = seen.lock().unwrap();
            seen.push(number);
            let status = StatusCode::from_u16(answer(seen.len())).unwrap();
            async move { status }
        };
        let receiver = Receiver::<Standard>::from_keys(Key::standard(SECRET).unwrap()).unwrap();
        let receiver = receiver.max_body(MAX_BODY).clock(clock.clone());
        let guard = ReplayGuard::new(&receiver, "billing", MemorySeenStore::new()).unwrap();
        let layer = ReceiveLayer::new(receiver.clone()).guard(guard);
        let app = Router::new().route("/hook", post(hook)).layer(layer).with_state(receiver);
        let (address, tasks) = serve(app).await;
        Self { address, invoices, clock, _tasks: tasks }
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    fn invoices(&self) -> Vec<u64> {
        self.invoices.lock().unwrap().clone()
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.unwrap()
    }

    /// Sends exactly these bytes, and returns the status of the answer.
    async fn send(&self, request: impl AsRef<[u8]>) -> u16 {
        let mut stream = self.connect().await;
        stream.write_all(request.as_ref()).await.unwrap();
        status(&mut stream).await
    }
}

async fn serve(app: Router) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    (address, tasks)
}

/// Reads the status line of an answer.
async fn status(stream: &mut TcpStream) -> u16 {
    let mut line = [0; 12];
    stream.read_exact(&mut line).await.unwrap();
    str::from_utf8(&line).unwrap().strip_prefix("HTTP/1.1 ").unwrap().parse().unwrap()
}

fn paid(number: u64) -> Event {
    Event::new("invoice.paid", json!({ "number": number })).unwrap()
}

fn dispatcher(server: &Server, secret: &str) -> Dispatcher<HttpTransport> {
    let registry = Registry::new();
    let retry = RetryPolicy::fixed(Duration::from_millis(1), 5);
    let endpoint = Endpoint::new(&server.url(), secret).unwrap().retry(retry);
    registry.register("hook", endpoint).unwrap();
    Dispatcher::new(registry, HttpTransport::development().unwrap())
}

#[tokio::test]
async fn what_the_dispatcher_sends_is_handled_once() {
    let server = Server::start(|_| 204).await;
    let dispatcher = dispatcher(&server, SECRET);
    let event = paid(17);
    for expected in [204, 200] {
        let results = dispatcher.dispatch(&event).await;
        assert_eq!(results[0].status_code, Some(expected));
    }
    dispatcher.dispatch(&paid(18)).await;
    dispatcher.dispatch(&Event::new("invoice.lost", json!({ "number": 19 })).unwrap()).await;
    assert_eq!(server.invoices(), [17, 18, 0]);
}

#[tokio::test]
async fn a_handler_that_fails_is_run_again_on_the_dispatchers_retry() {
    let server = Server::start(|number| if number < 3 { 500 } else { 200 }).await;
    let results = dispatcher(&server, SECRET).dispatch_with_retry(&paid(17), None).await;
    assert_eq!((results[0].status, results[0].attempt), (DeliveryStatus::Delivered, 3));
    assert_eq!(server.invoices(), [17, 17, 17]);
}

#[tokio::test]
async fn what_another_secret_signs_is_refused() {
    let server = Server::start(|_| 204).await;
    let other = concat!("whsec_", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    let results = dispatcher(&server, other).dispatch(&paid(17)).await;
    assert_eq!(results[0].status_code, Some(401));
    assert!(server.invoices().is_empty());
}

#[tokio::test]
async fn an_engine_delivers_durably_to_a_receiver_that_is_down_at_first() {
    let server = Server::start(|number| if number < 2 { 503 } else { 200 }).await;
    let engine = Engine::new(MemoryStore::new(), HttpTransport::development().unwrap());
    let retry = RetryPolicy::fixed(Duration::from_millis(1), 5);
    let endpoint = Endpoint::new(&server.url(), SECRET).unwrap().retry(retry);
    engine.endpoints().register("hook", endpoint).await.unwrap();
    let worker = engine.start();
    let _published = engine.publish(&paid(17)).await.unwrap();
    while server.invoices().len() < 2 {
        tokio::task::yield_now().await;
    }
    worker.shutdown(Duration::from_secs(30)).await;
    assert_eq!(server.invoices(), [17, 17]);
}

/// Returns the head of a request that is signed for this body.
fn head(id: &str, body: &str, more: &str) -> String {
    let now = Timestamp::now().as_unix_seconds();
    let key = Key::standard(SECRET).unwrap();
    let signature = standard::sign(&key, id, now, body.as_bytes()).unwrap();
    format!(
        "POST /hook HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         webhook-id: {id}\r\nwebhook-timestamp: {now}\r\nwebhook-signature: {signature}\r\n\
         {more}\r\n\r\n"
    )
}

const PAID: &str = r#"{"event_type":"invoice.paid","payload":{"number":17}}"#;

#[tokio::test]
async fn bodies_may_come_in_chunks() {
    let server = Server::start(|_| 204).await;
    let mut request = head("msg_1", PAID, "transfer-encoding: chunked").into_bytes();
    for chunk in PAID.as_bytes().chunks(7) {
        write!(request, "{:x}\r\n{}\r\n", chunk.len(), str::from_utf8(chunk).unwrap()).unwrap();
    }
    request.extend(b"0\r\n\r\n");
    assert_eq!(server.send(request).await, 204);
    assert_eq!(server.invoices(), [17]);
}

#[tokio::test]
async fn an_empty_body_is_verified_and_then_no_json() {
    let server = Server::start(|_| 204).await;
    assert_eq!(server.send(head("msg_1", "", "content-length: 0")).await, 400);
    // The reason is not the signature: the body was emptied on the way.
    assert_eq!(server.send(head("msg_1", PAID, "content-length: 0")).await, 401);
    assert!(server.invoices().is_empty());
}

#[tokio::test]
async fn a_body_that_declares_too_much_is_refused_before_it_comes() {
    let server = Server::start(|_| 204).await;
    let length = format!("content-length: {}", MAX_BODY + 1);
    assert_eq!(server.send(head("msg_1", PAID, &length)).await, 413);
}

#[tokio::test]
async fn a_body_that_grows_too_large_is_refused_before_it_ends() {
    let server = Server::start(|_| 204).await;
    let head = head("msg_1", PAID, "transfer-encoding: chunked");
    let chunk = format!("{MAX_BODY:x}\r\n{}\r\n", "x".repeat(MAX_BODY));
    assert_eq!(server.send(format!("{head}{chunk}1\r\nx\r\n")).await, 413);
    assert!(server.invoices().is_empty());
}

#[tokio::test]
async fn a_body_that_is_cut_off_is_refused() {
    let server = Server::start(|_| 204).await;
    let length = format!("content-length: {}", PAID.len());
    let cut = PAID.split_at(20).0;
    let chunk = format!("{:x}\r\n{cut}\r\n", cut.len());
    for request in [
        format!("{}{cut}", head("msg_1", PAID, &length)),
        format!("{}{chunk}", head("msg_1", PAID, "transfer-encoding: chunked")),
    ] {
        let mut stream = server.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        // The sender announces that it has no more, but still listens.
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer:?}");
    }
    assert!(server.invoices().is_empty());
}

/// The sender keeps the connection open and sends no more. Method: the deadline ends while it
/// waits.
#[tokio::test]
async fn a_body_that_never_ends_is_given_up() {
    let server = Server::start(|_| 204).await;
    let length = format!("content-length: {}", PAID.len());
    let mut stream = server.connect().await;
    stream.write_all(head("msg_1", PAID, &length).as_bytes()).await.unwrap();
    stream.write_all(b"{").await.unwrap();
    while server.clock.is_over.receiver_count() == 0 {
        tokio::task::yield_now().await;
    }
    server.clock.is_over.send_replace(true);
    assert_eq!(status(&mut stream).await, 408);
}

#[tokio::test]
async fn a_header_that_is_there_twice_is_refused() {
    let server = Server::start(|_| 204).await;
    let length = format!("content-length: {}", PAID.len());
    for twice in ["webhook-id: msg_1", "webhook-timestamp: 1", "Webhook-Signature: v1,AAAA"] {
        let request = format!("{}{PAID}", head("msg_1", PAID, &format!("{length}\r\n{twice}")));
        assert_eq!(server.send(request).await, 400, "{twice}");
    }
    let request = head("msg_1", PAID, &format!("{length}\r\ncontent-type: application/json"));
    assert_eq!(server.send(format!("{request}{PAID}")).await, 415);
    assert!(server.invoices().is_empty());
}

/// The system's clock, which counts the callers that wait for another one's handler.
#[derive(Debug)]
struct Counting(Arc<Semaphore>);

impl Clock for Counting {
    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        if duration == Duration::from_secs(10) {
            self.0.add_permits(1);
        }
        SystemClock.sleep(duration)
    }
}

/// 1,000 duplicates at once over ten connections of HTTP/2. Method: the handler ends when all
/// others wait for it, which they do for 10 s.
#[tokio::test]
async fn a_thousand_at_once_run_the_handler_once() {
    let (come, runs) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let receiver = Receiver::<Standard>::from_keys(Key::standard(SECRET).unwrap()).unwrap();
    let receiver = receiver.clock(Counting(Arc::clone(&come)));
    let receiver = receiver.read_deadline(Duration::from_secs(60));
    let guard = ReplayGuard::new(&receiver, "billing", MemorySeenStore::new()).unwrap();
    let (all, count) = (Arc::clone(&come), Arc::clone(&runs));
    let handler = move || async move {
        count.fetch_add(1, Ordering::Relaxed);
        all.acquire_many(999).await.unwrap().forget();
        StatusCode::CREATED
    };
    let layer = ReceiveLayer::new(receiver).guard(guard);
    let app = Router::new().route("/", post(handler)).layer(layer);
    let (address, _server) = serve(app).await;
    // reqwest needs a provider, although nothing here is encrypted.
    ring::default_provider().install_default().unwrap();

    let now = Timestamp::now().as_unix_seconds();
    let signature = standard::sign(&Key::standard(SECRET).unwrap(), "msg_1", now, b"{}").unwrap();
    let mut senders = JoinSet::new();
    for _ in 0..10 {
        let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
        for _ in 0..100 {
            let request = (client.post(format!("http://{address}/")))
                .header("webhook-id", "msg_1")
                .header("webhook-timestamp", now)
                .header("webhook-signature", signature.as_str())
                .body("{}");
            senders.spawn(async move { request.send().await.unwrap().status() });
        }
    }
    let statuses = senders.join_all().await;
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    let count = |wanted| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(StatusCode::CREATED), count(StatusCode::OK)), (1, 999));
}
