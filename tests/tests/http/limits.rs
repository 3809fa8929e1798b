//! The bounds of connections, and of questions to name servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use webhooks_core::Event;
use webhooks_dispatch::{
    Dispatcher,
    transport::{ErrorClass, Request, Transport as _},
};
use webhooks_http::{AddressPolicy, HttpTransport};
use webhooks_registry::Registry;
use webhooks_tests::{NameServer, RawServer, Receiver};

use crate::{builder, endpoint, request, told};

const DONE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn a_host_has_so_many_connections_at_once() {
    let (gate, now, most) =
        (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let shared = (Arc::clone(&gate), Arc::clone(&now), Arc::clone(&most));
    let server = RawServer::start(move |mut connection| {
        let (gate, now, most) = shared.clone();
        async move {
            while connection.request().await.is_some() {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                gate.acquire().await.unwrap().forget();
                now.fetch_sub(1, Ordering::SeqCst);
                connection.write(DONE).await;
            }
        }
    })
    .await;
    let transport = builder().max_per_host(2).build().unwrap();
    let mut sends = JoinSet::new();
    for _ in 0..6 {
        let (transport, request) = (transport.clone(), request(&server.url()));
        sends.spawn(async move { transport.send(request).await.unwrap().status });
    }
    // Two requests are in, and each answer lets one more in.
    for answered in 2..=6 {
        server.wire().wait_until(|wire| wire.requests() >= answered).await;
        gate.add_permits(1);
    }
    gate.add_permits(1);
    assert_eq!(sends.join_all().await, [200; 6]);
    assert_eq!((most.load(Ordering::SeqCst), server.wire().accepted()), (2, 2));
}

#[tokio::test]
async fn an_idle_connection_is_given_up() {
    let server = RawServer::start(|mut connection| async move {
        connection.request().await;
        connection.write(DONE).await;
        connection.until_closed().await;
    })
    .await;
    let transport = builder().idle_timeout(Duration::from_millis(50)).build().unwrap();
    transport.send(request(&server.url())).await.unwrap();
    server.wire().ended(1).await;
    assert_eq!(server.wire().accepted(), 1);
}

/// Common receivers close idle connections after 5 s.
#[tokio::test]
async fn an_idle_connection_is_given_up_before_receivers_do_so() {
    let server = moody().await;
    let transport = builder().build().unwrap();
    for (idle, connections) in [(3_900, 1), (4_900, 2)] {
        assert_eq!(transport.send(request(&server.url())).await.unwrap().status, 200);
        // No task waits for the network at this time, so nothing is late by this clock.
        tokio::time::pause();
        tokio::time::advance(Duration::from_millis(idle)).await;
        tokio::time::resume();
        assert_eq!(transport.send(request(&server.url())).await.unwrap().status, 200);
        assert_eq!(server.wire().accepted(), connections, "after {idle} ms");
    }
}

fn local() -> AddressPolicy {
    AddressPolicy::public().allow_network("127.0.0.0/8".parse().unwrap())
}

async fn names(ttl: u32, name: &str, turns: &[&[&str]]) -> NameServer {
    let turns = turns.iter().map(|turn| turn.iter().map(|&text| text.to_owned()).collect());
    NameServer::start(ttl, [(name, turns.collect())]).await
}

#[tokio::test]
async fn an_answer_is_used_while_it_holds() {
    for (ttl, asked) in [(60, 1), (0, 3)] {
        let names = names(ttl, "my_hook.example.com", &[&["127.0.0.1"]]).await;
        let receiver = Receiver::answering(200).await;
        let transport = HttpTransport::builder()
            .address_policy(local())
            .dns_server(names.address())
            .max_idle_per_host(0)
            .build()
            .unwrap();
        for _ in 0..3 {
            let url = format!("http://my_hook.example.com:{}/", receiver.port());
            assert_eq!(transport.send(request(&url)).await.unwrap().status, 200);
        }
        assert_eq!(names.asked("my_hook.example.com"), asked, "with a time to live of {ttl} s");
    }
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_told_so() {
    let names = names(60, "hook.example.com", &[&[]]).await;
    let transport = HttpTransport::builder().dns_server(names.address()).build().unwrap();
    for name in ["other.example.com", "hook.example.com"] {
        let error = transport.send(request(&format!("http://{name}/"))).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Dns);
        let expected = "cannot resolve the host name: no such name, or it has no address";
        assert_eq!(told(&error), expected);
    }
}

#[tokio::test]
async fn a_connection_that_is_not_made_in_time_is_a_timeout_of_its_own() {
    // The TLS handshake never begins.
    let server = RawServer::start(|mut connection| async move {
        connection.until_closed().await;
    })
    .await;
    let transport = builder().connect_timeout(Duration::from_millis(50)).build().unwrap();
    let url = format!("https://{}/", server.address());
    let error = transport.send(request(&url)).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Timeout);
    assert!(told(&error).ends_with(&format!("no connection to {} in time", server.address())));
    server.wire().ended(1).await;
}

#[tokio::test]
async fn names_that_mean_the_inside_are_never_asked_for() {
    let inside = ["metadata.google.internal", "printer.local", "localhost", "redis", "a.corp"];
    let script = inside.map(|name| (name, vec![vec!["93.184.215.14".to_owned()]]));
    let names = NameServer::start(60, script).await;
    let transport = HttpTransport::builder().dns_server(names.address()).build().unwrap();
    for name in inside {
        let error = transport.send(request(&format!("http://{name}/"))).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Blocked, "{name}");
        assert_eq!(names.asked(name), 0, "{name}");
    }
}

/// Returns a server that never answers `/hang` and answers the rest.
async fn moody() -> RawServer {
    RawServer::start(|mut connection| async move {
        while let Some(request) = connection.request().await {
            if request.starts_with("POST /hang") {
                return connection.until_closed().await;
            }
            connection.write(DONE).await;
        }
    })
    .await
}

#[tokio::test]
async fn waiting_for_others_is_no_part_of_an_endpoints_time() {
    let server = moody().await;
    let transport = builder().max_per_host(1).build().unwrap();
    let url = format!("http://{}/hang", server.address());
    let hanging = tokio::spawn({
        let request = Request { timeout: Duration::from_secs(1), ..request(&url) };
        let transport = transport.clone();
        async move { transport.send(request).await.unwrap_err().class }
    });
    server.wire().wait_until(|wire| wire.requests() == 1).await;
    // The caller of the transport must wait for it, too.
    let registry = Registry::new();
    let brief = endpoint(&server.url()).timeout(Duration::from_millis(250));
    registry.register("brief", brief).unwrap();
    let dispatcher = Dispatcher::new(registry, transport);
    let results = dispatcher.dispatch(&Event::new("created", 1).unwrap()).await;
    assert_eq!(results[0].status_code, Some(200), "{results:?}");
    assert_eq!(hanging.await.unwrap(), ErrorClass::Timeout);
}

#[tokio::test]
async fn what_finds_no_room_is_not_sent_and_says_so() {
    let server = moody().await;
    let wait = Duration::from_millis(50);
    let transport = builder().max_per_host(1).slot_wait(wait).build().unwrap();
    assert_eq!(transport.longest_wait(), wait);
    let hanging = tokio::spawn({
        let (transport, request) =
            (transport.clone(), request(&format!("http://{}/hang", server.address())));
        async move { transport.send(request).await }
    });
    server.wire().wait_until(|wire| wire.requests() == 1).await;
    let error = transport.send(request(&server.url())).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Busy);
    hanging.abort();
    server.wire().ended(1).await;
    assert_eq!(transport.send(request(&server.url())).await.unwrap().status, 200);
    assert_eq!(server.wire().requests(), 2);
}
