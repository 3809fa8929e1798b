//! The time from publish to receipt of a few healthy endpoints, beside many that hang.

use std::time::Duration;

use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};
use webhooks_core::{Event, EventType};
use webhooks_dispatch::{BoxedStore, Engine};
use webhooks_http::{AddressPolicy, HttpTransport};
use webhooks_tests::postgres::Cluster;

use super::crowd::Kind;
use super::figures::{Figures, endpoint, event, median, note};
use super::place::{Opened, Place};
use super::receiver::{Receiver, micros};

/// The number of healthy endpoints, and that of the events for all of them together per second.
const HEALTHY: usize = 10;
const RATE: u32 = 200;

/// The number of events that wait for each endpoint that hangs when the worker starts.
const BACKLOG: usize = 3;

/// More than there are attempts in flight, since the endpoints stand for as many hosts.
const MAX_PER_HOST: usize = 10_000;

pub(crate) async fn measure(
    cluster: &Cluster,
    receiver: &Receiver,
    is_quick: bool,
    figures: &mut Figures,
) {
    let (hanging, rounds, seconds) = if is_quick { (300, 2, 3) } else { (3_000, 5, 10) };
    println!(
        "\nfrom publish to receipt at {RATE} events a second over {HEALTHY} healthy endpoints, \
         SQLite, {rounds} rounds"
    );
    // A second one, so that its host has connections of its own.
    let black_hole = Receiver::start();
    let [mut p99_alone, mut p99_beside] = [const { Vec::new() }; 2];
    for _ in 0..rounds {
        for (hanging, p99s) in [(0, &mut p99_alone), (hanging, &mut p99_beside)] {
            let place = Place::new(Kind::Sqlite, cluster).await;
            let urls = [receiver.url("timed"), black_hole.url("hang")];
            p99s.push(round(&place.name, receiver, urls, hanging, seconds).await);
        }
    }
    let pairs = p99_beside.iter().zip(&p99_alone);
    let ratio = median(pairs.map(|(beside, alone)| beside / alone).collect());
    let [alone, beside] = [p99_alone, p99_beside].map(median);
    println!(
        "p99 alone {alone:.2} ms, beside {hanging} that hang {beside:.2} ms, {ratio:.3} times"
    );
    note(figures, &format!("healthy_p99_ratio_{hanging}_hanging"), ratio);
}

/// Returns the p99 of the healthy endpoints in milliseconds, from the start of the worker on.
async fn round(
    place: &str,
    receiver: &Receiver,
    [timed, hang]: [String; 2],
    hanging: usize,
    seconds: u32,
) -> f64 {
    let opened = Opened::open(place).await;
    let policy = AddressPolicy::development();
    let transport = HttpTransport::builder().address_policy(policy).max_per_host(MAX_PER_HOST);
    let engine = Engine::new(opened.store(), transport.build().unwrap());
    for n in 0..HEALTHY {
        register(&engine, &timed, &format!("healthy.n{n}")).await;
    }
    for n in 0..hanging {
        register(&engine, &hang, &format!("sick.n{n}")).await;
    }
    let sick = EventType::new("sick").unwrap();
    let sick: Vec<EventType> =
        (0..hanging).map(|n| EventType::new(&format!("{sick}.n{n}")).unwrap()).collect();
    for _ in 0..BACKLOG {
        for types in sick.chunks(500) {
            let events: Vec<Event> = types.iter().map(event).collect();
            let _published = engine.publish_all(&events).await.unwrap();
        }
    }
    receiver.latencies().await;
    let worker = engine.start();
    let mut ticks = interval(Duration::from_secs(1) / RATE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let events = seconds * RATE;
    for n in 0..events {
        ticks.tick().await;
        let n = usize::try_from(n).unwrap();
        let healthy = format!("healthy.n{}", n % HEALTHY);
        let event_of_healthy = Event::new(healthy.as_str(), json!({ "sent": micros() })).unwrap();
        // Something for the sick ones comes all the time, too.
        let of_sick = sick.get(n % hanging.max(1)).map(event);
        let events: Vec<Event> = std::iter::once(event_of_healthy).chain(of_sick).collect();
        let _published = engine.publish_all(&events).await.unwrap();
    }
    let mut latencies = Vec::new();
    while latencies.len() < usize::try_from(events).unwrap() {
        ticks.tick().await;
        latencies.extend(receiver.latencies().await);
    }
    worker.shutdown(Duration::ZERO).await;
    opened.close().await;
    latencies.sort_unstable();
    latencies[latencies.len() * 99 / 100].as_secs_f64() * 1e3
}

async fn register(engine: &Engine<BoxedStore, HttpTransport>, url: &str, event_type: &str) {
    let endpoint = endpoint(url).events([event_type]).unwrap();
    let id = event_type.replace('.', "-");
    engine.endpoints().register(&id, endpoint).await.unwrap();
}
