//! The HTTP transport against real servers on loopback.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, Version};
use http_body_util::Full;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use webhooks_core::{DeliveryStatus, Event, RetryPolicy, Timestamp};
use webhooks_dispatch::{Clock, Dispatcher, ErrorClass, Request, Transport as _, TransportError};
use webhooks_http::{AddressPolicy, Blocked, HttpTransport};
use webhooks_registry::{Endpoint, EndpointUrl, HeaderProfile, Registry};
use webhooks_sign::{Algorithm, Key, KeyRing, standard, x_webhook};
use webhooks_tests::Receiver;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn request(url: &str) -> Request {
    Request {
        url: EndpointUrl::new(url).unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::from_static(b"{}"),
        timeout: Duration::from_secs(30),
    }
}

async fn send(url: &str) -> Result<webhooks_dispatch::Response, TransportError> {
    HttpTransport::new().unwrap().send(request(url)).await
}

async fn class(url: &str) -> ErrorClass {
    send(url).await.unwrap_err().class
}

/// Starts a server that reads the head of a request, writes these bytes, and closes.
async fn raw_server(answer: impl AsRef<[u8]> + Send + Sync + 'static) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await;
            stream.write_all(answer.as_ref()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    (url, tasks)
}

/// Reads up to the end of the body that [`request`] sends.
async fn read_request(stream: &mut TcpStream) {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n{}") {
        if stream.read_buf(&mut read).await.unwrap() == 0 {
            break;
        }
    }
}

/// A clock that stands at a second and a quarter after 2026 began.
struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_microseconds(1_767_225_601_250_000)
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
    let dispatcher = Dispatcher::new(registry, HttpTransport::new().unwrap()).clock(StoppedClock);
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
    let dispatcher = Dispatcher::new(registry, HttpTransport::new().unwrap());
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
    let transport = HttpTransport::new().unwrap();
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
    let (url, _server) = raw_server(format!("{head}{}", chunk.repeat(8))).await;
    assert_eq!(send(&url).await.unwrap().body.len(), 16 * 1024);
}

#[tokio::test]
async fn http_2_is_spoken_where_tls_negotiates_it() {
    let (acceptor, root) = tls(&[b"h2", b"http/1.1"]);
    let receiver = Receiver::start_tls(acceptor).await;
    let transport = HttpTransport::builder().extra_root(root).build().unwrap();
    let url = format!("https://localhost:{}/hook", receiver.port());
    assert_eq!(transport.send(request(&url)).await.unwrap().status, 200);
    assert_eq!(receiver.received()[0].version, Version::HTTP_2);
}

#[tokio::test]
async fn http_1_is_spoken_over_tls_to_those_that_know_no_other() {
    let (acceptor, root) = tls(&[b"http/1.1"]);
    let receiver = Receiver::start_tls(acceptor).await;
    let transport = HttpTransport::builder().extra_root(root).build().unwrap();
    let url = format!("https://localhost:{}/hook", receiver.port());
    assert_eq!(transport.send(request(&url)).await.unwrap().status, 200);
    assert_eq!(receiver.received()[0].version, Version::HTTP_11);
}

/// Returns a TLS server for `localhost` and its self-signed certificate.
fn tls(protocols: &[&[u8]]) -> (TlsAcceptor, Vec<u8>) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let root = certified.cert.der().to_vec();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    (TlsAcceptor::from(Arc::new(config)), root)
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_a_tls_error() {
    let receiver = Receiver::start_tls(tls(&[b"h2"]).0).await;
    assert_eq!(class(&format!("https://localhost:{}/", receiver.port())).await, ErrorClass::Tls);
    assert!(receiver.received().is_empty());
}

#[tokio::test]
async fn a_certificate_for_another_name_is_a_tls_error() {
    let (acceptor, root) = tls(&[b"h2"]);
    let receiver = Receiver::start_tls(acceptor).await;
    let transport = HttpTransport::builder().extra_root(root).build().unwrap();
    let url = format!("https://127.0.0.1:{}/", receiver.port());
    assert_eq!(transport.send(request(&url)).await.unwrap_err().class, ErrorClass::Tls);
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_a_tls_error() {
    let receiver = Receiver::answering(200).await;
    assert_eq!(class(&format!("https://127.0.0.1:{}/", receiver.port())).await, ErrorClass::Tls);
}

#[tokio::test]
async fn a_closed_port_is_a_connect_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/secret-path?token=hush", listener.local_addr().unwrap());
    drop(listener);
    let error = send(&url).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Connect);
    let shown = format!("{error:?} {error}");
    assert!(!shown.contains("hush"), "{shown}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("refused"), "{cause}");
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_a_dns_error() {
    // A label of 64 characters is refused by the resolver itself, without a question on the wire.
    let url = format!("http://{}.invalid/", "x".repeat(64));
    assert_eq!(class(&url).await, ErrorClass::Dns);
}

#[tokio::test]
async fn what_hangs_ends_at_the_deadline_as_a_timeout() {
    let before_accept = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let before_accept_url = format!("http://{}/", before_accept.local_addr().unwrap());
    let in_body = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let in_body_url = format!("http://{}/", in_body.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut stream, _) = in_body.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart").await.unwrap();
        pending::<()>().await;
    });
    for url in [before_accept_url, in_body_url] {
        let transport = HttpTransport::new().unwrap();
        let request = Request { timeout: Duration::from_millis(50), ..request(&url) };
        assert_eq!(transport.send(request).await.unwrap_err().class, ErrorClass::Timeout);
    }
}

#[tokio::test]
async fn a_connection_closed_without_an_answer_is_a_reset() {
    let (url, _server) = raw_server("").await;
    assert_eq!(class(&url).await, ErrorClass::Reset);
    let (url, _server) = raw_server("HTTP/1.1 200 OK\r\ncontent-le").await;
    assert_eq!(class(&url).await, ErrorClass::Reset);
}

#[tokio::test]
async fn an_http_2_stream_or_connection_that_is_given_up_is_a_reset() {
    // RFC 9113 §6.4: RST_STREAM of stream 1, REFUSED_STREAM.
    let reset = [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 7];
    assert_eq!(http_2_class(&reset).await, ErrorClass::Reset);
    // RFC 9113 §6.8: GOAWAY without any stream, ENHANCE_YOUR_CALM.
    let go_away = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];
    assert_eq!(http_2_class(&go_away).await, ErrorClass::Reset);
}

/// Returns what becomes of a request that an HTTP/2 server answers with this frame.
async fn http_2_class(frame: &[u8]) -> ErrorClass {
    let (acceptor, root) = tls(&[b"h2"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    // RFC 9113 §6.5: a server begins with SETTINGS, here none.
    let answer = [&[0, 0, 0, 4, 0, 0, 0, 0, 0], frame].concat();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        // RFC 9113 §6.1: DATA, the last of stream 1, with the body that `request` sends.
        let body = [0, 0, 2, 0, 1, 0, 0, 0, 1, b'{', b'}'];
        let mut read = Vec::new();
        while !read.ends_with(&body) {
            assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0);
        }
        stream.write_all(&answer).await.unwrap();
        stream.flush().await.unwrap();
        // Closing is for the client to do, so that the frame is all that it is told.
        while stream.read_buf(&mut read).await.unwrap() > 0 {}
    });
    let transport = HttpTransport::builder().extra_root(root).build().unwrap();
    transport.send(request(&url)).await.unwrap_err().class
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_a_protocol_error() {
    let (url, _server) = raw_server("SSH-2.0-OpenSSH_9.2\r\n").await;
    assert_eq!(class(&url).await, ErrorClass::Protocol);
    // RFC 9113 §6.5: SETTINGS of other than a multiple of 6 bytes.
    assert_eq!(http_2_class(&[0, 0, 1, 4, 0, 0, 0, 0, 0, 0]).await, ErrorClass::Protocol);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_a_body_error() {
    let (url, _server) = raw_server("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart").await;
    assert_eq!(class(&url).await, ErrorClass::Body);
}

/// Keeps deliveries off this machine, as the example of the documentation does.
#[derive(Debug)]
struct NoLoopback;

impl AddressPolicy for NoLoopback {
    fn check(&self, address: IpAddr) -> Result<(), Blocked> {
        let is_local = address.is_loopback() || address.is_unspecified();
        if is_local { Err(Blocked { address }) } else { Ok(()) }
    }
}

#[tokio::test]
async fn a_blocked_address_is_never_connected_to() {
    let receiver = Receiver::answering(200).await;
    let transport = HttpTransport::builder().address_policy(NoLoopback).build().unwrap();
    for host in
        ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "0.0.0.0"]
    {
        let url = format!("http://{host}:{}/", receiver.port());
        let error = transport.send(request(&url)).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Blocked, "{url}");
    }
    assert!(receiver.received().is_empty());
}

#[tokio::test]
async fn a_blocked_address_is_not_told_to_the_owner_of_the_endpoint() {
    for host in ["127.0.0.1", "localhost"] {
        let registry = Registry::new();
        let endpoint = Endpoint::new(&format!("http://{host}/"), SECRET).unwrap();
        registry.register("hook", endpoint).unwrap();
        let transport = HttpTransport::builder().address_policy(NoLoopback).build().unwrap();
        let dispatcher = Dispatcher::new(registry, transport);
        let results = dispatcher.dispatch(&Event::new("created", 1).unwrap()).await;
        let error = results[0].error.as_deref();
        assert_eq!(
            error,
            Some("the delivery is blocked: the address is not an allowed destination")
        );
    }
}
