//! The behaviour of receivers in the field, from public reports: the transport handles it, and must
//! go on to do so.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::Full;
use tokio::io::AsyncReadExt as _;
use tokio::sync::Notify;
use webhooks_core::{DeliveryStatus, Event, RetryPolicy};
use webhooks_dispatch::{
    Dispatcher, Engine, MemoryStore,
    history::{HistoryStore as _, Query},
    observer::{Observer, Occurrence},
    transport::{ErrorClass, Request, Transport as _},
};
use webhooks_http::{AddressPolicy, HttpTransport, Proxy};
use webhooks_registry::Registry;
use webhooks_tests::{NameServer, RawServer, Receiver};

use crate::{builder, endpoint, request};

/// woocommerce/woocommerce#21490.
#[tokio::test]
async fn a_receiver_that_always_redirects_gets_each_attempt_once_and_says_so() {
    let receiver = Receiver::start(|_, _| {
        let moved = Response::builder().status(302).header("location", "/elsewhere");
        moved.body(Full::from("moved")).unwrap()
    })
    .await;
    let registry = Registry::new();
    let retry = RetryPolicy::fixed(Duration::from_millis(1), 2);
    registry.register("hook", endpoint(&receiver.url()).retry(retry)).unwrap();
    let dispatcher = Dispatcher::new(registry, builder().build().unwrap());
    let results = dispatcher.dispatch_with_retry(&Event::new("created", 1).unwrap(), None).await;
    assert_eq!((results[0].status, results[0].attempt), (DeliveryStatus::Failed, 3));
    assert_eq!(results[0].status_code, Some(302));
    assert_eq!(results[0].error.as_deref(), Some("endpoint answered 302 Found"));
    let received = receiver.received();
    assert_eq!(received.len(), 3);
    assert!(received.iter().all(|one| one.method == Method::POST && one.uri.path() == "/hook"));
}

/// psf/requests#2422: nginx answers that a body is too large, and closes with most of it unread.
#[tokio::test]
async fn a_refusal_before_the_request_is_read_is_told_as_one() {
    let server = RawServer::start(|mut connection| async move {
        connection.stream.read_exact(&mut [0; 16]).await.unwrap();
        connection.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let transport = builder().build().unwrap();
    for sent in 1..=10 {
        for (place, size) in [100, 20_000, 900_000].into_iter().enumerate() {
            let body = Bytes::from(vec![b' '; size]);
            let outcome = transport.send(Request { body, ..request(&server.url()) }).await;
            assert_eq!(outcome.unwrap().status, 413, "{size} bytes");
            assert_eq!(server.wire().accepted(), (sent - 1) * 3 + place + 1, "one each");
        }
    }
}

/// nodejs/node#47130: a receiver closes after each answer without saying so, while the next request
/// is on its way.
#[tokio::test]
async fn a_connection_that_ends_beside_a_request_costs_an_attempt_and_repeats_nothing() {
    let bodies: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&bodies);
    let server = RawServer::start(move |mut connection| {
        let seen = Arc::clone(&seen);
        async move {
            let Some(request) = connection.request().await else { return };
            seen.lock().unwrap().push(request.split("\r\n\r\n").nth(1).unwrap().to_owned());
            connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
    })
    .await;
    let transport = builder().build().unwrap();
    let mut delivered = BTreeSet::new();
    for number in 0..200 {
        let body = Bytes::from(number.to_string());
        match transport.send(Request { body, ..request(&server.url()) }).await {
            Ok(response) => {
                assert_eq!(response.status, 200);
                delivered.insert(number.to_string());
            }
            Err(error) => assert_eq!(error.class, ErrorClass::Reset),
        }
    }
    let bodies = bodies.lock().unwrap();
    let once: BTreeSet<String> = bodies.iter().cloned().collect();
    assert_eq!(bodies.len(), once.len(), "nothing twice");
    assert_eq!(once, delivered, "what was read was answered, and told so");
    assert!(delivered.len() > 100);
}

/// ericferon/glpi-webhook#51 (Power Automate): the signature is in the query, and must not be
/// changed.
const SIGNED: &str = "/workflows/0a/triggers/manual/paths/invoke?api-version=2016-06-01\
                      &sp=%2Ftriggers%2fmanual%2Frun&sv=1.0&sig=a-B_c~d%2Be%3D%3d+f&x=%E9&y";

#[tokio::test]
async fn a_signature_in_the_query_goes_out_byte_for_byte() {
    let server = RawServer::start(|mut connection| async move {
        let request = connection.request().await.unwrap();
        let is_right = request.starts_with(&format!("POST {SIGNED} HTTP/1.1\r\n"))
            && request.contains("\r\ncontent-length: 2\r\n")
            && !request.contains("transfer-encoding");
        let status = if is_right { "202" } else { "400" };
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
        connection.write(answer.as_bytes()).await;
    })
    .await;
    let url = format!("http://{}{SIGNED}", server.address());
    assert_eq!(builder().build().unwrap().send(request(&url)).await.unwrap().status, 202);
}

/// Through a proxy, because a test cannot listen on port 80.
#[tokio::test]
async fn the_default_port_is_left_out_of_host() {
    let names = NameServer::start(60, [("hook.example.com", vec![vec!["127.0.0.1".into()]])]).await;
    let proxy = RawServer::start(|mut connection| async move {
        let connect = connection.request().await.unwrap();
        assert!(connect.starts_with("CONNECT 127.0.0.1:80 "), "{connect}");
        connection.write(b"HTTP/1.1 200 OK\r\n\r\n").await;
        let request = connection.request().await.unwrap();
        let is_right = request.contains("\r\nhost: hook.example.com\r\n");
        let status = if is_right { "200" } else { "400" };
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
        connection.write(answer.as_bytes()).await;
    })
    .await;
    let policy = AddressPolicy::public().allow_network("127.0.0.0/8".parse().unwrap());
    let transport = HttpTransport::builder()
        .address_policy(policy)
        .dns_server(names.address())
        .proxy(Proxy::new(&format!("http://{}", proxy.address())).unwrap())
        .build()
        .unwrap();
    for url in ["http://hook.example.com/", "http://hook.example.com:80/"] {
        assert_eq!(transport.send(request(url)).await.unwrap().status, 200, "{url}");
    }
}

/// raspberrypi/bookworm-feedback#362: the name has both kinds of address, and one of them cannot be
/// reached.
#[tokio::test]
async fn an_address_that_refuses_is_passed_over_for_the_next() {
    let receiver = Receiver::answering(200).await;
    let both = vec!["::1".to_owned(), "127.0.0.1".to_owned()];
    let names = NameServer::start(60, [("hook.example.com", vec![both])]).await;
    let policy = AddressPolicy::public()
        .allow_network("127.0.0.0/8".parse().unwrap())
        .allow_network("::1/128".parse().unwrap());
    let builder = HttpTransport::builder().address_policy(policy).dns_server(names.address());
    let url = format!("http://hook.example.com:{}/", receiver.port());
    assert_eq!(builder.build().unwrap().send(request(&url)).await.unwrap().status, 200);
}

/// Signals the end of a delivery, with success or not.
#[derive(Debug)]
struct Ended(Arc<Notify>);

impl Observer for Ended {
    fn observe(&self, occurrence: &Occurrence<'_>) {
        if matches!(occurrence, Occurrence::Delivered { .. } | Occurrence::DeliveryFailed { .. }) {
            self.0.notify_one();
        }
    }
}

/// RocketChat/Rocket.Chat#25562: the receiver answered 200 and stopped in the middle of its body.
#[tokio::test]
async fn what_came_of_a_response_is_kept_with_its_status() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 10\r\n\r\nabc";
    let server = RawServer::answering(answer).await;
    let ended = Arc::new(Notify::new());
    let engine = Engine::builder(MemoryStore::new(), builder().build().unwrap())
        .observer(Ended(Arc::clone(&ended)))
        .build();
    let endpoint = endpoint(&server.url()).retry(RetryPolicy::fixed(Duration::from_millis(1), 2));
    engine.endpoints().register("hook", endpoint).await.unwrap();
    let worker = engine.start();
    let _published = engine.publish(&Event::new("created", 1).unwrap()).await.unwrap();
    ended.notified().await;
    let delivery = engine.history().deliveries(Query::default()).await.unwrap().items[0].clone();
    assert_eq!(delivery.status, DeliveryStatus::Delivered);
    let attempts = engine.history().attempts(Query::default()).await.unwrap().items;
    let [attempt] = &attempts[..] else { panic!("one attempt: {attempts:?}") };
    let attempt = &attempt.attempt;
    assert_eq!((attempt.status_code, attempt.error_class), (Some(200), None));
    assert_eq!(
        (&attempt.response[..], &*attempt.response_headers),
        (&b"abc"[..], "content-type: text/plain")
    );
    assert_eq!(server.wire().requests(), 1);
    drop(worker);
}
