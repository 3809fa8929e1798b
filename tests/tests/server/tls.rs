//! Connections over TLS: both versions of HTTP, certificates that are exchanged, and clients that are slow or silent.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use http::Request;
use reqwest::{Certificate, Client, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use webhooks_core::Timestamp;
use webhooks_server::{ServeSettings, Tls, TlsCertificate, TlsError, serve_tls};

/// A time that is short for a test, and long enough for a request.
const SHORT: Duration = Duration::from_millis(300);

/// A certificate for `localhost`, which its clients trust.
struct Pair {
    made: rcgen::CertifiedKey<rcgen::KeyPair>,
}

impl Pair {
    fn new() -> Self {
        Self { made: rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap() }
    }

    fn certificate(&self) -> TlsCertificate {
        let (chain, key) = (self.made.cert.pem(), self.made.signing_key.serialize_pem());
        TlsCertificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap()
    }

    fn der(&self) -> CertificateDer<'static> {
        self.made.cert.der().clone()
    }

    /// Opens a connection that chooses this version of HTTP.
    async fn connect(&self, address: SocketAddr, version: &[u8]) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![version.to_vec()];
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }
}

/// A server over TLS, until the sender is used or dropped.
struct Served {
    address: SocketAddr,
    tls: Tls,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

async fn start(pair: &Pair, router: Router, change: impl FnOnce(&mut ServeSettings)) -> Served {
    let _chosen_before = ring::default_provider().install_default();
    let mut settings = ServeSettings::default();
    change(&mut settings);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let stopped = async { stopped.await.unwrap_or_default() };
    let tls = Tls::new(pair.certificate());
    let ended = tokio::spawn(serve_tls(listener, tls.clone(), router, settings, stopped));
    Served { address, tls, stop, ended }
}

fn hello() -> Router {
    Router::new().route("/", get(async || "hello"))
}

/// A connection of HTTP/2, and the task that ends with it.
async fn http2(
    pair: &Pair,
    address: SocketAddr,
    builder: &h2::client::Builder,
) -> (h2::client::SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let stream = pair.connect(address, b"h2").await;
    let (client, connection) = builder.handshake(stream).await.unwrap();
    (client, tokio::spawn(connection))
}

fn request(path: &str) -> Request<()> {
    Request::get(format!("https://localhost{path}")).body(()).unwrap()
}

/// Reads an answer of HTTP/2.
async fn read(response: h2::client::ResponseFuture) -> String {
    let mut body = response.await.unwrap().into_body();
    let mut told = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.unwrap();
        body.flow_control().release_capacity(piece.len()).unwrap();
        told.extend_from_slice(&piece);
    }
    String::from_utf8(told).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_choose_the_version_of_http() {
    let pair = Pair::new();
    let served = start(&pair, hello(), |_| {}).await;
    let client = || {
        let trusted = Certificate::from_der(&pair.der()).unwrap();
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        Client::builder().tls_certs_only([trusted]).no_proxy().resolve("localhost", local)
    };
    let url = format!("https://localhost:{}/", served.address.port());
    for (client, version) in
        [(client(), Version::HTTP_2), (client().http1_only(), Version::HTTP_11)]
    {
        let answer = client.build().unwrap().get(&url).send().await.unwrap();
        assert_eq!(answer.version(), version);
        assert_eq!(answer.text().await.unwrap(), "hello");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_for_new_connections() {
    let (old, new) = (Pair::new(), Pair::new());
    let served = start(&old, hello(), |_| {}).await;
    let builder = h2::client::Builder::new();
    let (mut client, _connection) = http2(&old, served.address, &builder).await;
    assert_eq!(read(client.send_request(request("/"), true).unwrap().0).await, "hello");
    served.tls.replace(new.certificate());
    assert_eq!(read(client.send_request(request("/"), true).unwrap().0).await, "hello");
    let stream = new.connect(served.address, b"http/1.1").await;
    assert_eq!(stream.get_ref().1.peer_certificates().unwrap(), [new.der()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_does_not_end_is_cut_off_and_blocks_nobody() {
    let pair = Pair::new();
    let served = start(&pair, hello(), |settings| settings.handshake_timeout = SHORT).await;
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    let mut slow = TcpStream::connect(served.address).await.unwrap();
    slow.write_all(&[22, 3, 1]).await.unwrap();
    let mut quick = pair.connect(served.address, b"http/1.1").await;
    quick.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut told = String::new();
    quick.read_to_string(&mut told).await.unwrap();
    assert!(told.ends_with("hello"), "{told}");
    for stream in [&mut silent, &mut slow] {
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap_or_default(), 0, "it is closed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_take_places_of_connections_and_give_them_back() {
    let pair = Pair::new();
    let served = start(&pair, hello(), |settings| {
        settings.max_connections = 2;
        settings.handshake_timeout = SHORT;
    });
    let served = served.await;
    let _silent = [
        TcpStream::connect(served.address).await.unwrap(),
        TcpStream::connect(served.address).await.unwrap(),
    ];
    // It waits until one of the two is cut off.
    let (mut client, connection) = http2(&pair, served.address, &h2::client::Builder::new()).await;
    assert_eq!(read(client.send_request(request("/"), true).unwrap().0).await, "hello");
    drop((client, connection));
}

/// Checks that a connection ended in good order. The server may be gone before the client's last word.
#[track_caller]
fn is_ended(connection: Result<(), h2::Error>) {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};

    let Err(error) = connection else { return };
    let kind = error.get_io().map(std::io::Error::kind);
    assert!(matches!(kind, Some(BrokenPipe | ConnectionReset)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_ends_a_connection_of_http2_after_its_answer() {
    let pair = Pair::new();
    let served = start(&pair, hello(), |settings| settings.max_connections = 1).await;
    let (mut client, connection) = http2(&pair, served.address, &h2::client::Builder::new()).await;
    assert_eq!(read(client.send_request(request("/"), true).unwrap().0).await, "hello");
    is_ended(connection.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_http2_that_rests_is_let_go() {
    let pair = Pair::new();
    let served = start(&pair, hello(), |settings| settings.header_timeout = SHORT).await;
    let (mut client, connection) = http2(&pair, served.address, &h2::client::Builder::new()).await;
    assert_eq!(read(client.send_request(request("/"), true).unwrap().0).await, "hello");
    is_ended(connection.await.unwrap());
}

/// It says nothing at all, so the server is the one that ends the connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_of_http2_is_told_of_the_end() {
    let pair = Pair::new();
    let served = start(&pair, hello(), |settings| {
        settings.header_timeout = SHORT;
        settings.write_timeout = SHORT;
    });
    let served = served.await;
    let mut stream = pair.connect(served.address, b"h2").await;
    // The preface, and settings without a setting (RFC 9113 §3.4).
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.write_all(preface).await.unwrap();
    let mut told = Vec::new();
    // The end without a word of TLS is an error; the frames before it count.
    let _ended = stream.read_to_end(&mut told).await;
    let (mut frames, mut kinds) = (&*told, Vec::new());
    while let [high, middle, low, kind, _, _, _, _, _, rest @ ..] = frames {
        kinds.push(*kind);
        let len = u32::from_be_bytes([0, *high, *middle, *low]);
        frames = rest.get(usize::try_from(len).unwrap()..).unwrap_or_default();
    }
    assert!(kinds.contains(&7), "no GOAWAY in {kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_http2_that_takes_nothing_is_cut_off() {
    let pair = Pair::new();
    let large = async || "x".repeat(1024 * 1024);
    let served = start(&pair, Router::new().route("/", get(large)), |settings| {
        settings.header_timeout = SHORT;
        settings.write_timeout = SHORT;
    });
    let served = served.await;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(0);
    let (mut client, connection) = http2(&pair, served.address, &builder).await;
    let (response, _sent) = client.send_request(request("/"), true).unwrap();
    let response = response.await.unwrap();
    // The end of the connection is an error: an answer is not whole.
    let _cut = connection.await.unwrap();
    assert!(response.into_body().data().await.is_none_or(|piece| piece.is_err()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_http2_in_work_is_answered_after_the_stop() {
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = {
        let (begun, go) = (Arc::clone(&begun), Arc::clone(&go));
        async move || {
            begun.notify_one();
            go.notified().await;
            "hello"
        }
    };
    let pair = Pair::new();
    let served = start(&pair, Router::new().route("/", get(handler)), |_| {}).await;
    // It has no request yet, so it ends at once.
    let _silent = TcpStream::connect(served.address).await.unwrap();
    let (mut client, connection) = http2(&pair, served.address, &h2::client::Builder::new()).await;
    let response = client.send_request(request("/"), true).unwrap().0;
    begun.notified().await;
    served.stop.send(()).unwrap();
    go.notify_one();
    assert_eq!(read(response).await, "hello");
    is_ended(connection.await.unwrap());
    served.ended.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_http2_end_with_the_grace_time() {
    /// Tells that it was dropped.
    struct Dropped(Arc<Notify>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }

    let (begun, dropped) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = {
        let (begun, dropped) = (Arc::clone(&begun), Arc::clone(&dropped));
        async move || {
            let _dropped = Dropped(dropped);
            begun.notify_one();
            pending::<&str>().await
        }
    };
    let pair = Pair::new();
    let router = Router::new().route("/", get(handler));
    let served = start(&pair, router, |settings| settings.grace = SHORT).await;
    let (mut client, _connection) = http2(&pair, served.address, &h2::client::Builder::new()).await;
    let _response = client.send_request(request("/"), true).unwrap();
    begun.notified().await;
    served.stop.send(()).unwrap();
    served.ended.await.unwrap();
    dropped.notified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_headers_of_http2_are_refused() {
    let pair = Pair::new();
    let served = start(&pair, hello(), |settings| settings.max_header_bytes = 1024).await;
    let (mut client, _connection) = http2(&pair, served.address, &h2::client::Builder::new()).await;
    let mut large = request("/");
    large.headers_mut().insert("x-large", "x".repeat(2048).parse().unwrap());
    let response = client.send_request(large, true).unwrap().0;
    let refused = response.await.map(|answer| answer.status().as_u16());
    assert!(matches!(refused, Ok(431) | Err(_)), "{refused:?}");
    // The connection is not to blame.
    assert_eq!(read(client.send_request(request("/"), true).unwrap().0).await, "hello");
}

#[test]
fn pairs_that_cannot_be_used_are_refused_without_showing_them() {
    let (pair, other) = (Pair::new(), Pair::new());
    let (chain, key) = (pair.made.cert.pem(), pair.made.signing_key.serialize_pem());
    let other = other.made.signing_key.serialize_pem();
    let broken = chain.replace("MII", "topsecret");
    let refusal = |chain: &str, key: &str| {
        let error = TlsCertificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("topsecret"), "{error:?}");
        error
    };
    assert!(matches!(refusal(&chain, &other), TlsError::Mismatch));
    assert!(matches!(refusal(&chain, &chain), TlsError::NoKey));
    assert!(matches!(refusal(&key, &key), TlsError::NoCertificate));
    assert!(matches!(refusal("topsecret", &key), TlsError::NoCertificate));
    assert!(matches!(refusal(&chain, "-----BEGIN topsecret-----"), TlsError::NoKey));
    refusal(&broken, &key);
    let empty = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(refusal(empty, &key), TlsError::Certificate(_)));
    let empty = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert!(matches!(refusal(&chain, empty), TlsError::Key(_)));
}

#[test]
fn a_certificate_tells_its_time() {
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2026, 2, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let chain = params.self_signed(&key).unwrap().pem();
    let certificate =
        TlsCertificate::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    let at = |text: &str| certificate.check_time(text.parse::<Timestamp>().unwrap());
    assert!(matches!(at("2025-12-31T23:59:59Z"), Err(TlsError::NotYetValid { .. })));
    assert!(at("2026-01-01T00:00:00Z").is_ok() && at("2026-02-01T00:00:00Z").is_ok());
    let expired = at("2026-02-01T00:00:01Z").unwrap_err();
    assert_eq!(expired.to_string(), "the certificate expired at 2026-02-01T00:00:00Z");
    assert_eq!(certificate.valid_until().to_string(), "2026-02-01T00:00:00Z");
}

#[test]
fn a_certificate_is_for_its_names() {
    let names = ["*.a.test", "b.test", "127.0.0.1", "::1"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let certificate = Pair { made }.certificate();
    for (host, is_for) in [
        ("x.a.test", true),
        ("B.test", true),
        ("127.0.0.1", true),
        ("::1", true),
        ("a.test", false),
        ("x.b.test", false),
        ("127.0.0.2", false),
        ("not a host", false),
    ] {
        assert_eq!(certificate.is_for(host), is_for, "{host}");
    }
}
