//! Exchanges with a receiver that behaves, and the classes of failures.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, Response, Version};
use http_body_util::Full;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use webhooks_core::{DeliveryStatus, Event, RetryPolicy, Timestamp};
use webhooks_dispatch::{
    Dispatcher, Engine, MemoryStore,
    clock::{Clock, MonotonicTime},
    transport::{ErrorClass, Transport as _},
};
use webhooks_http::{AddressPolicy, HttpTransport};
use webhooks_registry::{Endpoint, HeaderProfile, Registry, store::EndpointStoreError};
use webhooks_sign::{Algorithm, Key, KeyRing, standard, x_webhook};
use webhooks_tests::{NameServer, RawServer, Receiver};

use crate::tls::Authority;
use crate::{SECRET, builder, class, request, send, told};

/// A clock that stands at a second and a quarter after 2026 began.
struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_microseconds(1_767_225_601_250_000)
    }

    fn monotonic(&self) -> MonotonicTime {
        MonotonicTime::default()
    }

    fn sleep(&self, _: Duration) -> impl Future<Output = ()> + Send {
        pending()
    }
}

/// The signatures are Python's: `hmac.digest` over `evt_1.1767225601.` and the body with the
/// decoded secret, and `hmac.new(…, "sha512")` over the body alone.
#[tokio::test]
async fn a_delivery_arrives_with_exactly_the_headers_of_its_profiles() {
    let receiver = Receiver::answering(204).await;
    let registry = Registry::new();
    let profiles = [HeaderProfile::Standard, HeaderProfile::XWebhook];
    let endpoint = Endpoint::new(&receiver.url(), SECRET).unwrap().profiles(profiles).unwrap();
    registry.register("hook", endpoint.algorithm(Algorithm::HmacSha512)).unwrap();
    let dispatcher =
        Dispatcher::new(registry, HttpTransport::development().unwrap()).clock(StoppedClock);
    let event = Event::new("user.created", "Zoë").unwrap().id("evt_1".parse().unwrap());
    let event = event.timestamp("2026-01-01T00:00:00Z".parse().unwrap());
    let results = dispatcher.dispatch(&event).await;
    assert_eq!(results[0].status_code, Some(204));
    assert_eq!(results[0].timestamp, StoppedClock.now());

    let [received] = &receiver.received()[..] else { unreachable!("one request") };
    assert_eq!((&received.method, received.version), (&Method::POST, Version::HTTP_11));
    let body = r#"{"event_id":"evt_1","event_type":"user.created","payload":"Zoë","source":null,"timestamp":"2026-01-01T00:00:00Z"}"#;
    assert_eq!(received.body, body);
    let found: BTreeMap<&str, &str> = (received.headers.iter())
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    assert_eq!(found.len(), received.headers.len(), "each name once");
    let expected = [
        ("accept", "*/*"),
        ("content-length", &*body.len().to_string()),
        ("content-type", "application/json"),
        ("host", &*format!("127.0.0.1:{}", receiver.port())),
        ("user-agent", concat!("webhooks-http/", env!("CARGO_PKG_VERSION"))),
        ("webhook-id", "evt_1"),
        ("webhook-signature", "v1,Q160PF7rT5KpaLrV0G4nBOI/fcMpyOWpLLeN5sVtmjk="),
        ("webhook-timestamp", "1767225601"),
        ("x-webhook-event", "user.created"),
        ("x-webhook-event-id", "evt_1"),
        (
            "x-webhook-signature",
            "67cca625d714c6c177b04f3d6107fc6f0dfcde698f12e068b24a2885f42596a96306a36780f408ceacbbba0666bc0e76754b6cebc2c7f15ef741524765fb4ff1",
        ),
        ("x-webhook-signature-algorithm", "hmac_sha512"),
        ("x-webhook-timestamp", "2026-01-01T00:00:01.25Z"),
    ];
    assert_eq!(found, BTreeMap::from(expected));

    let keys = KeyRing::from(Key::standard(SECRET).unwrap());
    let now = StoppedClock.now().as_unix_seconds();
    standard::verify(&keys, &received.headers, &received.body, now).unwrap();
    let keys = KeyRing::from(Key::from_secret(Algorithm::HmacSha512, SECRET).unwrap());
    x_webhook::verify(&keys, &received.headers, &received.body).unwrap();
}

#[tokio::test]
async fn a_receiver_that_fails_twice_gets_three_attempts_with_one_id() {
    let receiver = Receiver::start(|number, _| {
        let status = if number < 3 { 503 } else { 200 };
        Response::builder().status(status).body(Full::default()).unwrap()
    })
    .await;
    let registry = Registry::new();
    let retry = RetryPolicy::fixed(Duration::from_millis(1), 5);
    registry
        .register("hook", Endpoint::new(&receiver.url(), SECRET).unwrap().retry(retry))
        .unwrap();
    let dispatcher = Dispatcher::new(registry, HttpTransport::development().unwrap());
    let results = dispatcher.dispatch_with_retry(&Event::new("created", 1).unwrap(), None).await;
    assert_eq!((results[0].status, results[0].attempt), (DeliveryStatus::Delivered, 3));
    let received = receiver.received();
    assert_eq!(received.len(), 3);
    assert!(
        received.iter().all(|one| one.headers["webhook-id"] == received[0].headers["webhook-id"])
    );
}

#[tokio::test]
async fn connections_are_reused() {
    let receiver = Receiver::answering(200).await;
    let transport = HttpTransport::development().unwrap();
    for _ in 0..3 {
        transport.send(request(&receiver.url())).await.unwrap();
    }
    let received = receiver.received();
    assert_eq!(received.len(), 3);
    assert!(received.iter().all(|one| one.peer == received[0].peer));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let inside = Receiver::answering(200).await;
    let location = inside.url();
    let receiver = Receiver::start(move |_, _| {
        let builder = Response::builder().status(307).header("location", &location);
        builder.body(Full::default()).unwrap()
    })
    .await;
    assert_eq!(send(&receiver.url()).await.unwrap().status, 307);
    assert!(inside.received().is_empty());
}

#[tokio::test]
async fn of_a_long_body_16_kib_are_kept() {
    let receiver = Receiver::start(|_, _| Response::new(Full::from(vec![b'x'; 1 << 20]))).await;
    let response = send(&receiver.url()).await.unwrap();
    assert_eq!((response.status, response.body.len()), (200, 16 * 1024));
    let short = Receiver::start(|_, _| Response::new(Full::from("thank you"))).await;
    assert_eq!(send(&short.url()).await.unwrap().body, "thank you");
}

#[tokio::test]
async fn what_breaks_off_past_the_limit_was_never_read() {
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let server = RawServer::answering(format!("{head}{}", chunk.repeat(8))).await;
    assert_eq!(send(&server.url()).await.unwrap().body.len(), 16 * 1024);
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_a_tls_error() {
    let receiver = Receiver::answering(200).await;
    assert_eq!(class(&format!("https://127.0.0.1:{}/", receiver.port())).await, ErrorClass::Tls);
}

#[tokio::test]
async fn a_closed_port_is_a_connect_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let url = format!("http://{address}/secret-path?token=hush");
    drop(listener);
    let error = send(&url).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Connect);
    let shown = format!("{error:?} {error}");
    assert!(!shown.contains("hush"), "{shown}");
    assert_eq!(told(&error), format!("cannot connect: connection refused by {address}"));
}

#[tokio::test]
async fn an_http_2_stream_or_connection_that_is_given_up_is_a_reset() {
    // RFC 9113 §6.4: RST_STREAM of stream 1, CANCEL.
    let reset = [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8];
    assert_eq!(http_2_class(&reset).await, ErrorClass::Reset);
    // RFC 9113 §6.8: GOAWAY without any stream, ENHANCE_YOUR_CALM.
    let go_away = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];
    assert_eq!(http_2_class(&go_away).await, ErrorClass::Reset);
}

/// Returns the outcome of a request that an HTTP/2 server answers with this frame, and checks that
/// it was sent once.
async fn http_2_class(frame: &[u8]) -> ErrorClass {
    let authority = Authority::new();
    let acceptor = authority.issue("localhost").acceptor(None, &[b"h2"]);
    // RFC 9113 §6.5: a server begins with SETTINGS, here none.
    let answer = [&[0, 0, 0, 4, 0, 0, 0, 0, 0], frame].concat();
    // RFC 9113 §6.1: DATA, the last of a stream, with the body that `request` sends.
    let is_body = |frame: &[u8]| frame.starts_with(&[0, 0, 2, 0, 1]) && frame.ends_with(b"{}");
    let bodies = Arc::new(AtomicUsize::new(0));
    let over = Arc::new(Notify::new());
    let (counted, ended) = (Arc::clone(&bodies), Arc::clone(&over));
    let server = RawServer::start(move |connection| {
        let (acceptor, answer) = (acceptor.clone(), answer.clone());
        let (bodies, ended) = (Arc::clone(&counted), Arc::clone(&ended));
        async move {
            let mut stream = acceptor.accept(connection.stream).await.unwrap();
            let (mut read, mut is_answered) = (Vec::new(), false);
            // The client must close the connection, so that the frame is the only signal that it
            // gets.
            while let Ok(1..) = stream.read_buf(&mut read).await {
                let count = read.windows(11).filter(|frame| is_body(frame)).count();
                if count > 0 && !is_answered {
                    is_answered = true;
                    stream.write_all(&answer).await.unwrap();
                    stream.flush().await.unwrap();
                }
            }
            let count = read.windows(11).filter(|frame| is_body(frame)).count();
            bodies.fetch_add(count, Ordering::SeqCst);
            ended.notify_one();
        }
    })
    .await;
    let url = format!("https://localhost:{}/", server.address().port());
    let transport = builder().extra_root(authority.root()).build().unwrap();
    let error = transport.send(request(&url)).await.unwrap_err();
    drop(transport);
    over.notified().await;
    assert_eq!((server.wire().accepted(), bodies.load(Ordering::SeqCst)), (1, 1));
    error.class
}

#[tokio::test]
async fn http_2_that_makes_no_sense_is_a_protocol_error() {
    // RFC 9113 §6.5: SETTINGS whose length is not a multiple of 6 bytes.
    assert_eq!(http_2_class(&[0, 0, 1, 4, 0, 0, 0, 0, 0, 0]).await, ErrorClass::Protocol);
}

#[tokio::test]
async fn what_a_name_resolves_to_inside_is_not_told_to_the_owner_of_the_endpoint() {
    let names = NameServer::start(60, [("hook.example.com", vec![vec!["10.1.2.3".into()]])]).await;
    let registry = Registry::new();
    let endpoint = Endpoint::new("http://hook.example.com/", SECRET).unwrap();
    registry.register("hook", endpoint).unwrap();
    let transport = HttpTransport::builder().dns_server(names.address()).build().unwrap();
    let dispatcher = Dispatcher::new(registry, transport);
    let results = dispatcher.dispatch(&Event::new("created", 1).unwrap()).await;
    let told = "the delivery is blocked: the address is not an allowed destination";
    assert_eq!(results[0].error.as_deref(), Some(told));
}

#[tokio::test]
async fn where_an_own_name_is_inside_is_not_told_either() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let names = NameServer::start(60, [("hook.example.com", vec![vec!["127.0.0.1".into()]])]).await;
    let policy = AddressPolicy::public().allow_network("127.0.0.0/8".parse().unwrap());
    let builder = HttpTransport::builder().address_policy(policy).dns_server(names.address());
    let url = format!("http://hook.example.com:{}/", closed.port());
    let error = builder.build().unwrap().send(request(&url)).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Connect);
    let shown = told(&error);
    assert!(!shown.contains("127.0.0.1"), "{shown}");
}

#[tokio::test]
async fn an_engine_registers_no_endpoint_that_could_never_be_delivered_to() {
    let engine = Engine::new(MemoryStore::new(), HttpTransport::new().unwrap());
    let endpoint = |url| Endpoint::new(url, SECRET).unwrap();
    for url in ["http://169.254.169.254/", "http://localhost/", "http://intranet/", "http://[::1]/"]
    {
        let error = engine.endpoints().register("hook", endpoint(url)).await.unwrap_err();
        assert!(matches!(error, EndpointStoreError::Refused { .. }), "{url}: {error:?}");
    }
    assert!(engine.endpoints().get("hook").await.unwrap().is_none());
    engine.endpoints().register("hook", endpoint("https://example.com/")).await.unwrap();
}
