//! No receiver makes the sender's memory grow. This test has its own process, because it measures
//! the peak.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use webhooks_dispatch::transport::{Request, Transport as _};
use webhooks_http::HttpTransport;
use webhooks_registry::Endpoint;
use webhooks_tests::RawServer;

/// Returns the most memory that this process has had so far, in KiB (proc(5), `VmHWM`).
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Sends once to a server that answers with `start`, and then goes on with `repeated`; returns the
/// number of bytes that it could write.
async fn exchange(transport: &HttpTransport, start: &'static str, repeated: &[u8]) -> u64 {
    let repeated: Bytes = repeated.repeat(0x10000 / repeated.len()).into();
    let server = RawServer::start(move |mut connection| {
        let repeated = repeated.clone();
        async move {
            connection.request().await;
            connection.write(start.as_bytes()).await;
            connection.write_forever(&repeated).await;
        }
    })
    .await;
    let endpoint = Endpoint::new(&server.url(), "secret").unwrap();
    let request = Request::new(&endpoint, HeaderMap::new(), Bytes::from_static(b"{}"));
    let request = Request { timeout: Duration::from_secs(2), ..request };
    let _outcome = transport.send(request).await;
    server.wire().ended(1).await;
    server.wire().written()
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_leave_memory_flat() {
    const LIMIT_KIB: u64 = 32 * 1024;
    let transport = HttpTransport::development().unwrap();
    exchange(&transport, "HTTP/1.1 200 OK\r\n\r\n", b"warm up").await;
    let before = peak();
    let mut bytes = 0;
    for (start, repeated) in [
        ("", &b"HTTP/1.1 100 Continue\r\n\r\n"[..]),
        ("", b"HTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\n\r\n"),
        ("HTTP/1.1 200 OK\r\n", b"x-n: 1\r\n"),
        ("HTTP/1.1 200 OK\r\nx-long: ", b"x"),
        ("HTTP/1.1 200 OK\r\n\r\n", b"x"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;", b"extension"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"x-trailer: 1\r\n"),
    ] {
        bytes += exchange(&transport, start, repeated).await;
    }
    let grown = peak() - before;
    assert!(bytes > LIMIT_KIB * 1024, "only {bytes} bytes were sent: it shows nothing");
    assert!(grown < LIMIT_KIB, "{grown} KiB for {bytes} bytes");
}
