//! One attempt is one request on the wire, whatever goes wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use webhooks_dispatch::transport::{ErrorClass, Transport as _};
use webhooks_http::Proxy;
use webhooks_tests::RawServer;

use crate::proxy::TestProxy;
use crate::{builder, request, short_request};

#[tokio::test]
async fn no_answer_makes_the_client_ask_again() {
    for answer in [
        "",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart",
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: /again\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 421 Misdirected Request\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 503 Service Unavailable\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n",
        "garbage\r\n\r\n",
    ] {
        let proxy = TestProxy::http().await;
        let proxied = builder().proxy(Proxy::new(&proxy.url()).unwrap());
        for transport in [builder(), proxied].map(|builder| builder.build().unwrap()) {
            let server = RawServer::answering(answer).await;
            let _outcome = transport.send(request(&server.url())).await;
            assert_eq!((server.wire().accepted(), server.wire().requests()), (1, 1), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn neither_a_reset_nor_silence_makes_the_client_ask_again() {
    let server = RawServer::start(|mut connection| async move {
        connection.request().await;
        connection.reset().unwrap();
    })
    .await;
    let transport = builder().build().unwrap();
    let error = transport.send(request(&server.url())).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Reset);
    assert_eq!(server.wire().requests(), 1);

    let silent = RawServer::start(|mut connection| async move {
        connection.request().await;
        connection.until_closed().await;
    })
    .await;
    let error = transport.send(short_request(&silent.url())).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Timeout);
    silent.wire().ended(1).await;
    assert_eq!((silent.wire().accepted(), silent.wire().requests()), (1, 1));
}

const DONE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn a_pooled_connection_that_dies_over_a_request_is_not_replaced() {
    let server = RawServer::start(|mut connection| async move {
        connection.request().await;
        connection.write(DONE).await;
        // The second request is read, so it may have been acted upon.
        connection.request().await;
    })
    .await;
    let transport = builder().build().unwrap();
    assert_eq!(transport.send(request(&server.url())).await.unwrap().status, 200);
    let error = transport.send(request(&server.url())).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Reset);
    assert_eq!((server.wire().accepted(), server.wire().requests()), (1, 2));
}

#[tokio::test]
async fn a_pooled_connection_that_was_closed_before_is_replaced() {
    let (answered, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Notify::new()));
    let (count, done) = (Arc::clone(&answered), Arc::clone(&closed));
    let server = RawServer::start(move |mut connection| {
        let (count, done) = (Arc::clone(&count), Arc::clone(&done));
        async move {
            connection.request().await;
            connection.write(DONE).await;
            count.fetch_add(1, Ordering::SeqCst);
            drop(connection);
            done.notify_one();
        }
    })
    .await;
    let transport = builder().build().unwrap();
    for sent in 1..=20 {
        assert_eq!(transport.send(request(&server.url())).await.unwrap().status, 200);
        closed.notified().await;
        assert_eq!(server.wire().requests(), sent, "one request an attempt");
    }
    assert_eq!(answered.load(Ordering::SeqCst), 20);
}
