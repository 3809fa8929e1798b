//! The memory of a process for which many bodies of 1 MiB wait.
//!
//! One process delivers them to a receiver that answers at once. Another one is stuck: its attempts
//! hang, so that it claims as much as an engine asks for, and holds that. The figure is the larger of
//! their two peaks.

use std::future::pending;
use std::time::Duration;

use webhooks_core::{EndpointId, Event, EventType, Payload, Timestamp};
use webhooks_dispatch::{
    BoxedStore, Engine, EngineSettings, FnTransport,
    store::{DeliveryStore as _, SerializedEvent},
    transport::Transport,
};
use webhooks_http::HttpTransport;
use webhooks_registry::store::{EndpointStore as _, RegisterRequest};
use webhooks_tests::postgres::Cluster;

use super::crowd::Kind;
use super::delivered::Delivered;
use super::figures::{Figures, endpoint, note};
use super::place::{Opened, Place};
use super::process::{Memory, alone};
use super::receiver::Receiver;

/// The number of endpoints that share the bodies.
const ENDPOINTS: usize = 20;

/// A little less than the largest body: the rest is around the payload.
const PAYLOAD: usize = 1024 * 1024 - 1024;

/// The number of events per publish call.
const BATCH: usize = 8;

/// The time for which a stuck process claims.
const STUCK: Duration = Duration::from_secs(3);

pub(crate) async fn measure(
    cluster: &Cluster,
    receiver: &Receiver,
    is_quick: bool,
    figures: &mut Figures,
) {
    let bodies = if is_quick { 300 } else { 2_000 };
    println!("\n{bodies} bodies of 1 MiB wait for {ENDPOINTS} endpoints: peak memory in MiB");
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let place = Place::new(kind, cluster).await;
        fill(&place.name, &receiver.url("hook"), bodies).await;
        let count = bodies.to_string();
        let [empty, stuck] = alone("bodies", &[&place.name, "stuck", &count]).await[..] else {
            unreachable!("it prints two");
        };
        let [_, delivering] = alone("bodies", &[&place.name, "delivering", &count]).await[..]
        else {
            unreachable!("it prints two");
        };
        println!(
            "{kind:>9?}: {delivering:.0} when they are delivered, {stuck:.0} when attempts hang, \
             {empty:.0} before the store is opened"
        );
        let store = kind.suffix();
        note(figures, &format!("rss_mib_1mib_bodies{store}"), delivering.max(stuck));
    }
}

async fn fill(place: &str, url: &str, bodies: usize) {
    let opened = Opened::open(place).await;
    let store = opened.store();
    for n in 0..ENDPOINTS {
        let id = EndpointId::new(&format!("endpoint-{n}")).unwrap();
        let endpoint = endpoint(url).events([format!("order.n{n}")]).unwrap();
        store.register(RegisterRequest::new(id, endpoint, Timestamp::now())).await.unwrap();
    }
    // Random, since PostgreSQL would compress it otherwise.
    let text: String = std::iter::repeat_with(fastrand::alphanumeric).take(PAYLOAD).collect();
    let payload = Payload::from_value(text).unwrap();
    let types = (0..ENDPOINTS).map(|n| EventType::new(&format!("order.n{n}")).unwrap());
    let types: Vec<EventType> = types.collect();
    let events = (0..bodies).map(|n| Event::new(types[n % ENDPOINTS].clone(), &payload).unwrap());
    let mut events = events.map(|event| SerializedEvent::new(&event)).peekable();
    while events.peek().is_some() {
        let batch = events.by_ref().take(BATCH).collect();
        let published = store.publish(batch, Timestamp::now()).await.unwrap();
        assert!(published.iter().all(Result::is_ok));
    }
    drop(store);
    opened.close().await;
}

/// Measures in a process of its own; returns its memory before, and its peak.
pub(crate) async fn run(arguments: &[String]) -> Vec<f64> {
    let [place, how, count] = arguments else { unreachable!("it gets three") };
    let before = Memory::read().now;
    let opened = Opened::open(place).await;
    let delivered = Delivered::default();
    if how == "stuck" {
        let hangs = FnTransport::new(|_, _, _, _| pending::<(u16, &str)>());
        // Its claims are soon due again for the next process.
        let settings =
            EngineSettings { lease: Duration::from_secs(4), ..EngineSettings::default() };
        let engine = engine(opened.store(), hangs, settings, &delivered);
        let worker = engine.start();
        tokio::time::sleep(STUCK).await;
        worker.shutdown(Duration::ZERO).await;
    } else {
        let http = HttpTransport::development().unwrap();
        let engine = engine(opened.store(), http, EngineSettings::default(), &delivered);
        let worker = engine.start();
        delivered.wait_for(count.parse().unwrap()).await;
        worker.shutdown(Duration::from_secs(5)).await;
    }
    opened.close().await;
    vec![before, Memory::read().peak]
}

fn engine<T: Transport>(
    store: BoxedStore,
    transport: T,
    settings: EngineSettings,
    delivered: &Delivered,
) -> Engine<BoxedStore, T> {
    Engine::builder(store, transport).settings(settings).observer(delivered.clone()).build()
}
