//! The memory and the start of a process with many registered endpoints, and nothing to deliver.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use webhooks_core::{EndpointId, Event, Timestamp};
use webhooks_dispatch::{Engine, FnTransport};
use webhooks_registry::store::{EndpointStore as _, RegisterRequest};
use webhooks_tests::postgres::Cluster;

use super::crowd::{Kind, REGISTERED_AT_ONCE};
use super::delivered::Delivered;
use super::figures::{Figures, endpoint, note};
use super::place::{Opened, Place};
use super::process::{Memory, alone};

/// The type that one of the endpoints wants.
const FIRST: &str = "first.paid";

pub(crate) async fn measure(cluster: &Cluster, is_quick: bool, figures: &mut Figures) {
    let endpoints = if is_quick { 20_000 } else { 100_000 };
    let place = Place::new(Kind::Sqlite, cluster).await;
    fill(&place.name, endpoints).await;
    let [before, memory, peak, seconds] = alone("endpoints", &[&place.name]).await[..] else {
        unreachable!("it prints four");
    };
    println!(
        "\n{endpoints} endpoints, SQLite: {memory:.0} MiB (at most {peak:.0}, {before:.0} before), \
         {seconds:.2} s from opening the store to a first delivery"
    );
    let size = endpoints / 1_000;
    note(figures, &format!("rss_mib_{size}k_endpoints"), memory);
    note(figures, &format!("start_s_{size}k_endpoints"), seconds);
}

async fn fill(place: &str, endpoints: usize) {
    let opened = Opened::open(place).await;
    let mut calls = JoinSet::new();
    for n in 0..endpoints {
        let store = opened.store();
        let url = format!("https://customer-{n}.example.com/webhooks");
        let types = if n == 0 { [FIRST, "customer.*"] } else { ["order.*", "customer.*"] };
        let endpoint = endpoint(&url).events(types).unwrap();
        let id = EndpointId::new(&format!("customer-{n}")).unwrap();
        let request = RegisterRequest::new(id, endpoint, Timestamp::now());
        calls.spawn(async move { store.register(request).await.unwrap() });
        if calls.len() >= REGISTERED_AT_ONCE {
            calls.join_next().await.unwrap().unwrap();
        }
    }
    calls.join_all().await;
    opened.close().await;
}

/// Measures in a process of its own; returns its memory before, now and at most, and the seconds of
/// its start.
pub(crate) async fn run(arguments: &[String]) -> Vec<f64> {
    let [place] = arguments else { unreachable!("it gets one") };
    let before = Memory::read().now;
    let start = Instant::now();
    let opened = Opened::open(place).await;
    let delivered = Delivered::default();
    let transport = FnTransport::new(|_, _, _, _| async { (200, "") });
    let engine = Engine::builder(opened.store(), transport).observer(delivered.clone()).build();
    let worker = engine.start();
    let published = engine.publish(&Event::new(FIRST, 17).unwrap()).await.unwrap();
    assert_eq!(published.deliveries, 1);
    delivered.wait_for(1).await;
    let seconds = start.elapsed().as_secs_f64();
    let Memory { now, peak } = Memory::read();
    worker.shutdown(Duration::from_secs(1)).await;
    opened.close().await;
    vec![before, now, peak, seconds]
}
