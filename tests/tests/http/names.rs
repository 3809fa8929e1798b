//! Name servers that answer half, late, wrongly, or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use tokio::sync::Notify;
use webhooks_core::{DeliveryStatus, Event, RetryPolicy};
use webhooks_dispatch::{
    Dispatcher,
    transport::{ErrorClass, Request, Transport as _},
};
use webhooks_http::{AddressPolicy, HttpTransport, HttpTransportBuilder};
use webhooks_registry::Registry;
use webhooks_tests::{NameServer, RawServer, Receiver, Treat};

use crate::{endpoint, request, short_request, told};

const HOST: &str = "hook.example.com";

/// Starts a server that knows only `HOST`, with this address, and treats questions by `treat`.
async fn names(treat: impl Fn(&Message) -> Treat + Send + Sync + 'static) -> NameServer {
    NameServer::start_with(60, [(HOST, vec![vec!["127.0.0.1".to_owned()]])], treat).await
}

/// Returns the builder of a transport that asks this server, and may reach this machine.
fn by(names: &NameServer) -> HttpTransportBuilder {
    let policy = AddressPolicy::public().allow_network("127.0.0.0/8".parse().unwrap());
    HttpTransport::builder().address_policy(policy).dns_server(names.address()).max_idle_per_host(0)
}

fn asks_for(kind: RecordType) -> impl Fn(&Message) -> bool {
    move |message| message.queries.iter().all(|query| query.query_type() == kind)
}

#[tokio::test]
async fn an_address_is_enough_whatever_becomes_of_the_other_kind() {
    let receiver = Receiver::answering(200).await;
    let url = format!("http://{HOST}:{}/", receiver.port());
    for other in [
        Treat::Answer, // that there is none
        Treat::Ignore,
        Treat::Fail(ResponseCode::FormErr),
        Treat::Fail(ResponseCode::NotImp),
        Treat::Fail(ResponseCode::NXDomain),
        Treat::Fail(ResponseCode::Refused),
        Treat::Fail(ResponseCode::ServFail),
    ] {
        let is_v6 = asks_for(RecordType::AAAA);
        let names =
            names(move |question| if is_v6(question) { other } else { Treat::Answer }).await;
        let transport = by(&names).build().unwrap();
        for _ in 0..3 {
            let outcome = transport.send(request(&url)).await.map_err(|error| told(&error));
            assert_eq!(outcome.map(|response| response.status), Ok(200), "{other:?}");
        }
        assert_eq!(names.asked(HOST), 1, "{other:?}: it is remembered");
    }
}

#[tokio::test]
async fn servers_without_extensions_are_understood() {
    let receiver = Receiver::answering(200).await;
    let is_old = |question: &Message| match question.edns {
        Some(_) => Treat::Fail(ResponseCode::FormErr),
        None => Treat::Answer,
    };
    let names = names(is_old).await;
    let url = format!("http://{HOST}:{}/", receiver.port());
    let outcome = by(&names).build().unwrap().send(request(&url)).await;
    assert_eq!(outcome.map_err(|error| told(&error)).map(|response| response.status), Ok(200));
}

#[tokio::test]
async fn what_does_not_fit_into_a_packet_is_asked_for_by_tcp() {
    let receiver = Receiver::answering(200).await;
    let many = vec!["127.0.0.1".to_owned(); 100];
    let names = NameServer::start(60, [(HOST, vec![many])]).await;
    let url = format!("http://{HOST}:{}/", receiver.port());
    let outcome = by(&names).build().unwrap().send(request(&url)).await;
    assert_eq!(outcome.map_err(|error| told(&error)).map(|response| response.status), Ok(200));
    assert_eq!(names.asked(HOST), 2, "by UDP, and by TCP");
}

#[tokio::test]
async fn a_failure_of_name_servers_says_that_it_is_one_and_which() {
    let url = format!("http://{HOST}/");
    for (treat, reason) in [
        (Treat::Fail(ResponseCode::ServFail), "the name servers answered SERVFAIL"),
        (Treat::Fail(ResponseCode::Refused), "the name servers answered REFUSED"),
        (Treat::Ignore, "the name servers did not answer in time"),
    ] {
        let names = names(move |_| treat).await;
        let brief = by(&names).connect_timeout(Duration::from_millis(200)).build().unwrap();
        let patient = by(&names).build().unwrap();
        // Once because of the bound on names, and once because of the deadline of the exchange.
        for error in [
            brief.send(request(&url)).await.unwrap_err(),
            patient.send(short_request(&url)).await.unwrap_err(),
        ] {
            assert_eq!(error.class, ErrorClass::Dns);
            assert_eq!(told(&error), format!("cannot resolve the host name: {reason}"));
        }
    }
}

#[tokio::test]
async fn a_receiver_that_hangs_is_not_blamed_on_the_name_servers() {
    let names = names(|_| Treat::Answer).await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{HOST}:{}/", silent.local_addr().unwrap().port());
    let error = by(&names).build().unwrap().send(short_request(&url)).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Timeout);
}

/// A sinkhole, a parked domain or a split horizon can give such an answer for a while.
#[tokio::test]
async fn a_name_that_leads_inside_for_a_moment_loses_no_delivery() {
    let receiver = Receiver::answering(200).await;
    let turns = ["10.0.0.1", "127.0.0.1"].map(|address| vec![address.to_owned()]);
    let names = NameServer::start(60, [(HOST, turns.to_vec())]).await;
    let registry = Registry::new();
    let url = format!("http://{HOST}:{}/", receiver.port());
    let retry = RetryPolicy::fixed(Duration::from_millis(1), 1);
    registry.register("hook", endpoint(&url).retry(retry)).unwrap();
    let dispatcher = Dispatcher::new(registry, by(&names).build().unwrap());
    let results = dispatcher.dispatch_with_retry(&Event::new("created", 1).unwrap(), None).await;
    assert_eq!((results[0].status, results[0].attempt), (DeliveryStatus::Delivered, 2));
}

/// Goal: if an exchange has a connection, its timeout is not blamed on name servers. Method: while
/// one exchange waits for them, another one's connection becomes free, and the first request is
/// sent there; the client still asks on.
#[tokio::test]
async fn an_exchange_that_found_a_connection_waits_for_no_name_servers() {
    let (asked, is_asking) = (AtomicUsize::new(0), Arc::new(Notify::new()));
    let told = Arc::clone(&is_asking);
    let first_alone = move |_: &Message| match asked.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => Treat::Answer, // both kinds of address
        _ => {
            told.notify_one();
            Treat::Ignore
        }
    };
    let script = [(HOST, vec![vec!["127.0.0.1".to_owned()]])];
    let names = NameServer::start_with(0, script, first_alone).await;
    let gate = Arc::new(Notify::new());
    let opened = Arc::clone(&gate);
    let server = RawServer::start(move |mut connection| {
        let gate = Arc::clone(&opened);
        async move {
            connection.request().await;
            gate.notified().await;
            connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            connection.request().await;
            connection.until_closed().await;
        }
    })
    .await;
    let url = format!("http://{HOST}:{}/", server.address().port());
    let transport = by(&names).max_idle_per_host(1).build().unwrap();
    let send = |seconds| {
        let timeout = Duration::from_secs(seconds);
        let (transport, request) = (transport.clone(), Request { timeout, ..request(&url) });
        tokio::spawn(async move { transport.send(request).await })
    };
    let first = send(30);
    server.wire().wait_until(|wire| wire.requests() == 1).await;
    let second = send(2);
    is_asking.notified().await;
    gate.notify_one();
    assert_eq!(first.await.unwrap().unwrap().status, 200);
    server.wire().wait_until(|wire| wire.requests() == 2).await;
    assert_eq!(second.await.unwrap().unwrap_err().class, ErrorClass::Timeout);
    assert_eq!(server.wire().accepted(), 1);
}
