//! Callers that are slow, many or unknown, by connections of their own.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use webhooks_admin::{ApiKeyText, Grant, Role};
use webhooks_core::TenantId;
use webhooks_dispatch::clock::{Clock as _, SystemClock};
use webhooks_server::{ServeSettings, ServiceSettings, serve};

use crate::running::{Kind, Running, add_key, client, until};

/// A time that is short for a test, and long enough for a request.
const SHORT: Duration = Duration::from_millis(300);

/// Serves a router until the sender is used or dropped.
async fn start(
    router: Router,
    settings: ServeSettings,
) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let stopped = async { stopped.await.unwrap_or_default() };
    let served = tokio::spawn(serve(listener, router, settings, stopped));
    (address, stop, served)
}

fn settings(change: impl FnOnce(&mut ServeSettings)) -> ServeSettings {
    let mut settings = ServeSettings::default();
    change(&mut settings);
    settings
}

fn hello() -> Router {
    Router::new().route("/", get(async || "hello"))
}

async fn connect(address: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// Reads until the server closes the connection. A reset is an end, too.
async fn read_all(stream: &mut TcpStream) -> String {
    let mut told = Vec::new();
    let _reset = stream.read_to_end(&mut told).await;
    String::from_utf8(told).unwrap()
}

/// Reads until the answer has this text.
async fn read_until(stream: &mut TcpStream, expected: &str) -> String {
    let mut told = String::new();
    let mut buffer = [0; 1_024];
    while !told.contains(expected) {
        let read = stream.read(&mut buffer).await.unwrap();
        assert!(read > 0, "closed: {told}");
        told.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_headers_and_idle_connections_end() {
    let settings = settings(|settings| settings.header_timeout = SHORT);
    let (address, _stop, _served) = start(hello(), settings).await;
    let mut slow = connect(address, "GET / HTTP/1.1\r\nhost: here\r\n").await;
    let mut silent = connect(address, "").await;
    let mut idle = connect(address, "GET / HTTP/1.1\r\nhost: here\r\n\r\n").await;
    assert!(read_until(&mut idle, "hello").await.starts_with("HTTP/1.1 200 "));
    assert_eq!(read_all(&mut idle).await, "");
    assert_eq!(read_all(&mut silent).await, "");
    assert!(!read_all(&mut slow).await.contains(" 200 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_or_too_large_headers_are_refused() {
    let (address, _stop, _served) = start(hello(), ServeSettings::default()).await;
    let ask = async |headers: String| {
        let text = format!("GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n{headers}\r\n");
        read_all(&mut connect(address, &text).await).await
    };
    assert!(ask("x-a: b\r\n".repeat(90)).await.starts_with("HTTP/1.1 200 "));
    assert!(ask("x-a: b\r\n".repeat(101)).await.starts_with("HTTP/1.1 431 "));
    let large = |bytes| format!("x-a: {}\r\n", "b".repeat(bytes));
    assert!(ask(large(30 * 1024)).await.starts_with("HTTP/1.1 200 "));
    assert!(ask(large(40 * 1024)).await.starts_with("HTTP/1.1 431 "));
}

/// Goal: further connections wait until there is room, and get an answer then. Method: the handler counts how
/// many are there at once, and holds each until another could have come.
#[tokio::test(flavor = "multi_thread")]
async fn further_connections_wait_for_their_turn() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counters = (Arc::clone(&now), Arc::clone(&most));
    let handler = async move || {
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        now.fetch_sub(1, Ordering::SeqCst);
        "hello"
    };
    let settings = settings(|settings| settings.max_connections = 2);
    let (address, _stop, _served) = start(Router::new().route("/", get(handler)), settings).await;
    let clients = (0..20).map(async |_| {
        let mut stream = connect(address, "GET / HTTP/1.1\r\nhost: here\r\n\r\n").await;
        let told = read_until(&mut stream, "hello").await;
        // Those that keep theirs open are closed, or end here.
        told.contains("connection: close")
    });
    let closed = join_all(clients).await.into_iter().filter(|is_closed| *is_closed).count();
    assert!(closed > 0, "a full server frees its connections");
    assert!((1..=2).contains(&counters.1.load(Ordering::SeqCst)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_work_is_answered_after_the_stop() {
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = {
        let (begun, go) = (Arc::clone(&begun), Arc::clone(&go));
        async move || {
            begun.notify_one();
            go.notified().await;
            "hello"
        }
    };
    let router = Router::new().route("/slow", get(handler)).route("/", get(async || "quick"));
    let (address, stop, served) = start(router, ServeSettings::default()).await;
    let mut idle = connect(address, "GET / HTTP/1.1\r\nhost: here\r\n\r\n").await;
    read_until(&mut idle, "quick").await;
    let mut slow = connect(address, "GET /slow HTTP/1.1\r\nhost: here\r\n\r\n").await;
    begun.notified().await;
    stop.send(()).unwrap();
    assert_eq!(read_all(&mut idle).await, "", "idle ones end at once");
    assert!(TcpStream::connect(address).await.is_err(), "nothing more is accepted");
    assert!(!served.is_finished());
    go.notify_one();
    let told = read_all(&mut slow).await;
    assert!(told.starts_with("HTTP/1.1 200 ") && told.ends_with("hello"), "{told}");
    served.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stop_takes_no_longer_than_the_grace_time() {
    let begun = Arc::new(Notify::new());
    let handler = {
        let begun = Arc::clone(&begun);
        async move || {
            begun.notify_one();
            pending::<&str>().await
        }
    };
    let settings = settings(|settings| settings.grace = SHORT);
    let (address, stop, served) = start(Router::new().route("/", get(handler)), settings).await;
    let mut stuck = connect(address, "GET / HTTP/1.1\r\nhost: here\r\n\r\n").await;
    begun.notified().await;
    stop.send(()).unwrap();
    served.await.unwrap();
    assert_eq!(read_all(&mut stuck).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_of_an_answer_is_cut_off() {
    let settings = settings(|settings| settings.write_timeout = SHORT);
    let large = async || "x".repeat(64 * 1024 * 1024);
    let (address, _stop, _served) = start(Router::new().route("/", get(large)), settings).await;
    let mut stream = connect(address, "GET / HTTP/1.1\r\nhost: here\r\n\r\n").await;
    // It waits for the end of the connection without reading: then a write fails.
    loop {
        tokio::task::yield_now().await;
        if stream.write_all(b"x").await.is_err() {
            break;
        }
    }
    assert!(read_all(&mut stream).await.len() < 64 * 1024 * 1024);
}

async fn running(change: impl FnOnce(&mut ServiceSettings)) -> (Running, SocketAddr) {
    let mut settings = ServiceSettings::default();
    change(&mut settings);
    let running = Running::start_with_settings(settings).await;
    let address = running.url.strip_prefix("http://").unwrap().parse().unwrap();
    (running, address)
}

/// Begins a request to make an application, until the service waits for the rest of its body.
async fn begin_post(address: SocketAddr, key: &str) -> TcpStream {
    let head = format!(
        "POST /api/v1/app HTTP/1.1\r\nhost: here\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: 16\r\nexpect: 100-continue\r\n\r\n"
    );
    let mut stream = connect(address, &head).await;
    assert!(read_until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 100 "));
    stream.write_all(b"{\"name\"").await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_body_ends() {
    let (running, address) = running(|settings| settings.body_timeout = SHORT).await;
    let mut slow = begin_post(address, &running.key).await;
    let told = read_until(&mut slow, "request_timeout").await;
    assert!(told.starts_with("HTTP/1.1 408 "), "{told}");
    assert_eq!(running.get("/api/v1/app").await.1["data"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_those_in_work_are_told_to_come_again() {
    let (running, address) = running(|settings| settings.max_requests = 1).await;
    let mut slow = begin_post(address, &running.key).await;
    let url = format!("{}/api/v1/app", running.url);
    let shed = client().get(&url).bearer_auth(&running.key).send().await.unwrap();
    assert_eq!(shed.status(), 503);
    assert_eq!(shed.headers()["retry-after"], "1");
    assert!(shed.text().await.unwrap().contains("\"busy\""));
    for path in ["/api/v1/health", "/api/v1/health/ping"] {
        assert_eq!(running.ask_as(None, "GET", path, None).await.0, 204, "{path}");
    }
    slow.write_all(b": \"shop\"}").await.unwrap();
    assert!(read_until(&mut slow, "shop").await.starts_with("HTTP/1.1 201 "));
    let found = until(&running, "/api/v1/app", |found| found["data"][0]["name"] == "shop").await;
    assert_eq!(found["data"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_guesses_keys_waits_and_known_keys_pass() {
    let (running, _) = running(|settings| settings.max_refused_keys = 3).await;
    let ask = async |key: &str| {
        let request = client().get(format!("{}/api/v1/app", running.url)).bearer_auth(key);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.headers().get("retry-after").cloned())
    };
    assert_eq!(ask(&running.key).await.0, 200);
    assert_eq!(ask("nonsense").await.0, 401);
    let mut guesses = 1;
    let wait = loop {
        match ask(&unknown()).await {
            (401, _) => guesses += 1,
            (status, wait) => {
                assert_eq!(status, 429);
                break wait;
            }
        }
    };
    assert!(guesses >= 3, "{guesses}");
    let wait: u64 = wait.unwrap().to_str().unwrap().parse().unwrap();
    assert!((1..=5).contains(&wait), "{wait}");
    // A key that nobody used yet cannot be told from a guess.
    let new = add_key(&running.service, Grant::new(Role::Viewer)).await;
    assert_eq!(ask(&new).await.0, 429);
    assert_eq!(ask(&running.key).await.0, 200, "a neighbour locks nobody out");
    let (_, figures) = running.get("/metrics").await;
    assert!(figures.as_str().unwrap().contains("webhooks_held_off_total 2"), "{figures}");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_behind_a_proxy_are_told_apart() {
    let (running, _) = running(|settings| {
        settings.max_refused_keys = 1;
        settings.proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let ask = async |key: &str, seen: &str| {
        let request = client().get(format!("{}/api/v1/app", running.url)).bearer_auth(key);
        let answer = request.header("x-forwarded-for", seen).send().await.unwrap();
        answer.status().as_u16()
    };
    assert_eq!(ask(&unknown(), "192.0.2.1").await, 401);
    // One more may be refused each five seconds.
    while ask(&unknown(), "192.0.2.1").await != 429 {}
    let new = add_key(&running.service, Grant::new(Role::Admin)).await;
    assert_eq!(ask(&new, "192.0.2.1, 192.0.2.2").await, 200, "another caller");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_just_made_is_known() {
    let (running, _) = running(|settings| settings.max_refused_keys = 1).await;
    let app = running.add_app("shop").await;
    let path = format!("/api/v1/auth/app-portal-access/{app}");
    let (_, session) = running.ask("POST", &path, Value::Null).await;
    let path = "/api/v1/management/authentication/default/api-token";
    let (_, key) = running.ask("POST", path, json!({ "name": "new", "role": "viewer" })).await;
    let ask =
        async |key: &str| running.ask_as(Some(key), "GET", "/api/v1/auth/whoami", None).await.0;
    while ask(&unknown()).await != 429 {}
    assert_eq!(ask(session["token"].as_str().unwrap()).await, 200);
    assert_eq!(ask(key["token"].as_str().unwrap()).await, 200);
}

fn unknown() -> String {
    ApiKeyText::generate().reveal().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_lost_its_worker_is_not_well() {
    let mut running = Running::start(Kind::Sqlite).await;
    let health = "/api/v1/health";
    assert_eq!(running.ask_as(None, "GET", health, None).await.0, 204);
    running.worker.take().unwrap().shutdown(SHORT).await;
    let (status, told) = running.ask_as(None, "GET", health, None).await;
    assert_eq!((status, &told["code"]), (503, &json!("no_worker")));
    assert_eq!(running.ask_as(None, "GET", "/api/v1/health/ping", None).await.0, 204);
    running.worker = Some(running.service.engine().start());
    let deadline = SystemClock.monotonic() + Duration::from_secs(30);
    while running.ask_as(None, "GET", health, None).await.0 != 204 {
        assert!(SystemClock.monotonic() < deadline, "a new worker makes it well");
    }
}

on_each_store! {
    a_key_of_a_deleted_application_is_refused;
}

mod behaviour {
    use super::*;

    pub(super) async fn a_key_of_a_deleted_application_is_refused(running: Running) {
        let app = running.add_app("shop").await;
        let other = running.add_app("other").await;
        let tenant = TenantId::new(&app).unwrap();
        let key = add_key(&running.service, Grant::new(Role::Admin).for_application(tenant)).await;
        let paths = [
            "/api/v1/auth/whoami".to_owned(),
            "/api/v1/event-type".to_owned(),
            "/api/v1/background-task".to_owned(),
            format!("/api/v1/app/{app}"),
            "/api/v1/app/shop/endpoint".to_owned(),
            format!("/api/v1/app/{other}"),
        ];
        for (path, expected) in paths.iter().zip([200, 200, 200, 200, 200, 404]) {
            let (status, told) = running.ask_as(Some(&key), "GET", path, None).await;
            assert_eq!(status, expected, "{path}: {told}");
        }
        let deleted = running.ask("DELETE", &format!("/api/v1/app/{app}"), Value::Null).await;
        assert_eq!(deleted.0, 204);
        // Its name may be used again, and is not that of the key's application.
        running.add_app("shop").await;
        for path in &paths {
            let (status, told) = running.ask_as(Some(&key), "GET", path, None).await;
            assert_eq!(status, 401, "{path}: {told}");
        }
        // It is deleted soon, in the background.
        let keys = "/api/v1/management/authentication/env/api-token";
        until(&running, keys, |keys| !keys.to_string().contains(&app)).await;
    }
}
