//! Receivers that misbehave: each request ends in the right class, by the deadline, and its
//! connection is closed and not used again.
//!
//! The servers go on until the client closes. So a result shows that the deadline held, and `ended`
//! shows that nothing of the exchange is left.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::Response as HttpResponse;
use http_body_util::Full;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use webhooks_dispatch::transport::{ErrorClass, Request, Response, Transport as _, TransportError};
use webhooks_http::Proxy;
use webhooks_tests::{Connection, RawServer, Receiver};

use crate::proxy::TestProxy;
use crate::tls::Authority;
use crate::{builder, class, request, send, short_request, told};

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n";

/// Sends twice to a server, with little time, and returns both outcomes once both connections have
/// ended: the second request used another connection.
async fn twice<F, Fut>(treat: F) -> [Result<Response, TransportError>; 2]
where
    F: Fn(Connection<TcpStream>) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let server = RawServer::start(treat).await;
    let transport = builder().build().unwrap();
    let outcomes = [
        transport.send(short_request(&server.url())).await,
        transport.send(short_request(&server.url())).await,
    ];
    server.wire().ended(2).await;
    assert_eq!(server.wire().accepted(), 2, "a connection that failed is not used again");
    outcomes
}

fn is_timeout(outcome: &Result<Response, TransportError>) -> bool {
    matches!(outcome, Err(error) if error.class == ErrorClass::Timeout)
}

#[tokio::test]
async fn what_never_accepts_ends_at_the_deadline() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let outcome = builder().build().unwrap().send(short_request(&url)).await;
    assert!(is_timeout(&outcome), "{outcome:?}");
}

#[tokio::test]
async fn what_hangs_ends_at_the_deadline() {
    for head in [&b""[..], b"HTTP/1.1 2", HEAD] {
        let outcomes = twice(move |mut connection| async move {
            connection.request().await;
            connection.write(head).await;
            connection.until_closed().await;
        })
        .await;
        assert!(outcomes.iter().all(is_timeout), "{head:?}: {outcomes:?}");
    }
}

#[tokio::test]
async fn what_trickles_ends_at_the_deadline() {
    // In the status line, and in a header.
    for head in [&b""[..], HEAD] {
        let outcomes = twice(move |mut connection| async move {
            connection.request().await;
            connection.write(head).await;
            let mut beat = tokio::time::interval(Duration::from_millis(20));
            let start: &[u8] = if head.is_empty() { b"HTTP/1.1 200 " } else { b"x-slow: " };
            for byte in start.iter().chain(std::iter::repeat(&b'x')) {
                beat.tick().await;
                if !connection.write(&[*byte]).await {
                    break;
                }
            }
            connection.until_closed().await;
        })
        .await;
        assert!(outcomes.iter().all(is_timeout), "{head:?}: {outcomes:?}");
    }
}

#[tokio::test]
async fn a_receiver_that_reads_nothing_ends_at_the_deadline() {
    let server = RawServer::start(|connection| async move {
        // More than the system's buffers hold.
        std::future::pending::<()>().await;
        drop(connection);
    })
    .await;
    let body = Bytes::from(vec![b' '; 64 * 1024 * 1024]);
    let request = Request { body, ..short_request(&server.url()) };
    let outcome = builder().build().unwrap().send(request).await;
    assert!(is_timeout(&outcome), "{outcome:?}");
}

/// The largest number of bytes that the system's buffers take besides those that the client reads.
const BUFFERED: u64 = 16 * 1024 * 1024;

#[tokio::test]
async fn an_endless_body_is_cut() {
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000)).into_bytes();
    let server = RawServer::start(move |mut connection| {
        let chunk = chunk.clone();
        async move {
            connection.request().await;
            connection.write(HEAD).await;
            connection.write(b"transfer-encoding: chunked\r\n\r\n").await;
            connection.write_forever(&chunk).await;
        }
    })
    .await;
    let transport = builder().build().unwrap();
    let response = transport.send(request(&server.url())).await.unwrap();
    assert_eq!((response.status, response.body.len()), (200, 16 * 1024));
    server.wire().ended(1).await;
    assert!(server.wire().written() < BUFFERED);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_early() {
    let one_long_header = vec![b'x'; 64 * 1024];
    let many_headers = b"x-n: 1\r\n".repeat(8 * 1024);
    for part in [one_long_header, many_headers] {
        let server = RawServer::start(move |mut connection| {
            let part = part.clone();
            async move {
                connection.request().await;
                connection.write(HEAD).await;
                connection.write(b"x-large: ").await;
                // A hundred megabytes, if the client took them all.
                for _ in 0..1600 {
                    if !connection.write(&part).await {
                        break;
                    }
                }
                connection.until_closed().await;
            }
        })
        .await;
        let error = builder().build().unwrap().send(request(&server.url())).await.unwrap_err();
        let expected = "the response was not valid HTTP: its headers are too many or too large";
        assert_eq!((error.class, &*told(&error)), (ErrorClass::Protocol, expected));
        server.wire().ended(1).await;
        assert!(server.wire().written() < BUFFERED);
    }
}

#[tokio::test]
async fn a_flood_of_interim_responses_ends_at_the_deadline() {
    for interim in
        ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"]
    {
        let flood = interim.repeat(1000);
        let outcomes = twice(move |mut connection| {
            let flood = flood.clone();
            async move {
                connection.request().await;
                connection.write_forever(flood.as_bytes()).await;
            }
        })
        .await;
        assert!(outcomes.iter().all(is_timeout), "{interim}: {outcomes:?}");
    }
}

#[tokio::test]
async fn what_closes_or_resets_is_told_by_when_it_does() {
    for (head, expected) in [(&b""[..], ErrorClass::Reset), (HEAD, ErrorClass::Reset)] {
        let closing = RawServer::answering(head).await;
        assert_eq!(class(&closing.url()).await, expected, "closed after {head:?}");
        let resetting = RawServer::start(move |mut connection| async move {
            connection.request().await;
            connection.write(head).await;
            connection.reset().unwrap();
        })
        .await;
        let found = class(&resetting.url()).await;
        // A reset may overtake what was sent before it.
        assert!(found == expected || found == ErrorClass::Reset, "reset after {head:?}: {found}");
    }
}

/// Responses with a status, and with an incomplete body.
const HALVES: [(&str, &str); 6] = [
    ("content-length: 10\r\n\r\nabc", "abc"),
    ("content-length: 10\r\n\r\n", ""),
    ("transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", "abc"),
    ("transfer-encoding: chunked\r\n\r\n9\r\nabc", "abc"),
    ("transfer-encoding: chunked\r\n\r\nxyz\r\n", ""),
    ("connection: close\r\n\r\nabc", "abc"),
];

#[tokio::test]
async fn a_status_that_came_counts_whatever_becomes_of_the_body() {
    for (rest, kept) in HALVES {
        for status in [200, 503] {
            let answer = format!("HTTP/1.1 {status} X\r\nx-is: kept\r\n{rest}");
            // Closed, open until the deadline, and open with time to spare.
            let closing = RawServer::answering(answer.clone()).await;
            let open = RawServer::start(move |mut connection| {
                let answer = answer.clone();
                async move {
                    connection.request().await;
                    connection.write(answer.as_bytes()).await;
                    connection.until_closed().await;
                }
            })
            .await;
            let brief = builder().body_timeout(Duration::from_millis(50)).build().unwrap();
            let patient = builder().body_timeout(Duration::from_secs(600)).build().unwrap();
            let long = Request { timeout: Duration::from_secs(600), ..request(&open.url()) };
            for (transport, request) in [
                (&patient, request(&closing.url())),
                (&patient, short_request(&open.url())),
                (&brief, long),
            ] {
                let response = transport.send(request).await.unwrap();
                let found = (response.status, &response.body[..]);
                assert_eq!(found, (status, kept.as_bytes()), "{rest:?}");
                assert_eq!(response.headers["x-is"], "kept");
            }
            // Connections with half a response on them are not used again.
            open.wire().ended(2).await;
            assert_eq!((open.wire().accepted(), open.wire().requests()), (2, 2));
            assert_eq!(closing.wire().requests(), 1);
        }
    }
}

#[tokio::test]
async fn a_body_that_trickles_holds_nothing_past_its_time() {
    let server = RawServer::start(|mut connection| async move {
        connection.request().await;
        connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await;
        let mut beat = tokio::time::interval(Duration::from_millis(5));
        while connection.write(b"x").await {
            beat.tick().await;
        }
        connection.until_closed().await;
    })
    .await;
    let transport = builder().body_timeout(Duration::from_millis(50)).build().unwrap();
    let response = transport.send(request(&server.url())).await.unwrap();
    assert_eq!(response.status, 200);
    assert!(response.body.iter().all(|byte| *byte == b'x') && response.body.len() < 16 * 1024);
    server.wire().ended(1).await;
}

#[tokio::test]
async fn a_close_before_the_request_is_read_is_a_reset() {
    let server = RawServer::start(|connection| async move { drop(connection) }).await;
    let found = class(&server.url()).await;
    assert_eq!(found, ErrorClass::Reset);
}

#[tokio::test]
async fn a_close_before_tls_is_set_up_is_a_tls_error() {
    for resets in [false, true] {
        let server = RawServer::start(move |mut connection| async move {
            // Part of the first message.
            connection.stream.read_exact(&mut [0; 16]).await.unwrap();
            if resets {
                connection.reset().unwrap();
            }
        })
        .await;
        let proxy = TestProxy::http().await;
        let proxied = builder().proxy(Proxy::new(&proxy.url()).unwrap());
        for transport in [builder(), proxied].map(|builder| builder.build().unwrap()) {
            let url = format!("https://{}/", server.address());
            let error = transport.send(request(&url)).await.unwrap_err();
            let expected = "the connection was closed during the handshake";
            assert_eq!(told(&error), format!("cannot set up a secure connection: {expected}"));
            assert_eq!(error.class, ErrorClass::Tls);
        }
    }
}

#[tokio::test]
async fn garbage_is_a_protocol_error_that_says_what_is_wrong() {
    let not_http = "it does not begin as a response of HTTP/1.1 does";
    let length = "its content-length is not a number, or there are several";
    for (garbage, reason) in [
        (&b"SSH-2.0-OpenSSH_9.2\r\n"[..], not_http),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", not_http),
        (b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", not_http),
        (
            b"HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
            "a header of it has a character that none may hold",
        ),
        (b"HTTP/1.1 two OK\r\n\r\n", "its status is no number of three digits"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx", length),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", length),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5O\r\n\r\n", length),
    ] {
        let server = RawServer::answering(garbage).await;
        let error = send(&server.url()).await.unwrap_err();
        let told = told(&error);
        assert_eq!(told, format!("the response was not valid HTTP: {reason}"), "{garbage:?}");
        assert_eq!(error.class, ErrorClass::Protocol);
    }
}

/// Answers of real servers that RFC 9112 does not allow, or hardly allows, and that other clients
/// accept.
#[tokio::test]
async fn sloppy_responses_are_taken_by_their_status() {
    let ok = "HTTP/1.1 200 OK\r\n";
    for (answer, body) in [
        // A space before the colon, a folded line, and a line that is no header: RFC 9112 §5.
        (
            format!("{ok}Access-Control-Allow-Credentials : true\r\ncontent-length: 2\r\n\r\nok"),
            "ok",
        ),
        (format!("{ok}content-length : 2\r\n\r\nok"), "ok"),
        (format!("{ok}x-folded: a\r\n  b\r\ncontent-length: 2\r\n\r\nok"), "ok"),
        (format!("{ok}no colon here\r\ncontent-length: 2\r\n\r\nok"), "ok"),
        (format!("{ok}bad name: x\r\ncontent-length: 2\r\n\r\nok"), "ok"),
        (format!("{ok}x: a\x01b\r\ncontent-length: 2\r\n\r\nok"), "ok"),
        (format!("{ok}: nameless\r\ncontent-length: 2\r\n\r\nok"), "ok"),
        (format!("{ok}x:\r\ny: \r\ncontent-length: 2\r\n\r\nok"), "ok"),
        (format!("{ok}x: caf\u{e9}\r\ncontent-length: 2\r\n\r\nok"), "ok"),
        ("HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok".into(), "ok"),
        ("HTTP/1.1 200 \r\ncontent-length: 2\r\n\r\nok".into(), "ok"),
        ("HTTP/1.1 200 OK\ncontent-length: 2\n\nok".into(), "ok"),
        ("\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".into(), "ok"),
        ("HTTP/1.0 200 OK\r\n\r\nok".into(), "ok"),
        (
            format!(
                "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n{ok}content-length: 2\r\n\r\nok"
            ),
            "ok",
        ),
        (format!("{ok}content-length: 2\r\ncontent-length: 2\r\n\r\nok"), "ok"),
        (
            format!(
                "{ok}content-length: 9\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
            ),
            "ok",
        ),
        (format!("{ok}content-encoding: gzip\r\ncontent-length: 2\r\n\r\nok"), "ok"),
    ] {
        let server = RawServer::answering(answer.clone()).await;
        let response = send(&server.url()).await.map_err(|error| told(&error));
        let response = response.unwrap_or_else(|told| panic!("{answer:?}: {told}"));
        assert_eq!((response.status, &response.body[..]), (200, body.as_bytes()), "{answer:?}");
    }
}

/// A body after 204 belongs to no response (RFC 9110 §15.3.5): a client that read on would take it
/// for the next one.
#[tokio::test]
async fn a_connection_with_bytes_left_on_it_is_not_used_again() {
    let server = RawServer::start(|mut connection| async move {
        connection.request().await;
        let unasked = b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 500 Left Over\r\n\r\n";
        connection.write(unasked).await;
        connection.until_closed().await;
    })
    .await;
    let transport = builder().build().unwrap();
    for sent in 1..=5 {
        assert_eq!(transport.send(request(&server.url())).await.unwrap().status, 204);
        server.wire().ended(sent).await;
    }
    assert_eq!(server.wire().accepted(), 5);
}

/// A hundred megabytes of zeros, compressed twice, stay the few bytes that were sent.
#[tokio::test]
async fn nothing_is_decompressed() {
    let zeros = vec![0; 1024 * 1024];
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..100 {
        bomb.write_all(&zeros).unwrap();
    }
    let bomb = Bytes::from(bomb.finish().unwrap());
    let compressed = bomb.clone();
    let receiver = Receiver::start(move |_, _| {
        let builder = HttpResponse::builder().header("content-encoding", "gzip");
        builder.body(Full::from(compressed.clone())).unwrap()
    })
    .await;
    let response = send(&receiver.url()).await.unwrap();
    assert_eq!(response.body, bomb[..16 * 1024]);
    assert!(!receiver.received()[0].headers.contains_key("accept-encoding"));
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_over_http_2_as_well() {
    let authority = Authority::new();
    let acceptor = authority.issue("localhost").acceptor(None, &[b"h2"]);
    let receiver = Receiver::start_tls_with(acceptor, |_, _| {
        let large = "x".repeat(16 * 1024);
        let builder = (0..8).fold(HttpResponse::builder(), |builder, n| {
            builder.header(format!("x-large-{n}"), &large)
        });
        builder.body(Full::default()).unwrap()
    })
    .await;
    let transport = builder().extra_root(authority.root()).build().unwrap();
    let url = format!("https://localhost:{}/hook", receiver.port());
    let error = transport.send(request(&url)).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Protocol, "{error:?}");
    assert_eq!(receiver.received().len(), 1);
}
