//! The time from publish to receipt at a fixed rate: bare requests, the engine alone, and the
//! engine beside a hundred endpoints that hang.

use std::future::ready;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use webhooks_core::{Event, EventType};
use webhooks_dispatch::Engine;
use webhooks_http::HttpTransport;
use webhooks_sqlite::SqliteStore;

use super::receiver::micros;
use super::{Figures, Receiver, endpoint, event, folder, note};

/// Events per second.
const RATE: u32 = 500;
const HEALTHY: usize = 100;
const SICK: usize = 100;

pub(crate) async fn measure(receiver: &Receiver, is_quick: bool, figures: &mut Figures) {
    let seconds = if is_quick { 4 } else { 15 };
    let backlog = 100_000;
    println!(
        "\nfrom publish to receipt at {RATE} events a second over {HEALTHY} endpoints, durable"
    );
    let bare = bare_round(receiver, seconds).await;
    let alone = round(receiver, seconds, 0).await;
    let beside = round(receiver, seconds, backlog).await;
    let rounds = [("bare requests", &bare), ("alone", &alone), ("beside the sick", &beside)];
    for (name, latencies) in rounds {
        let [p50, p99] = [50, 99].map(|percent| percentile(latencies, percent));
        println!("{name:>16}: p50 {p50:.2} ms, p99 {p99:.2} ms, {} events", latencies.len());
    }
    println!("(the sick: {SICK} endpoints that hang, {backlog} deliveries waiting for them)");
    note(figures, "paced_p50_ms", percentile(&alone, 50));
    note(figures, "paced_p99_ms", percentile(&alone, 99));
    for percent in [50, 99] {
        let ratio = percentile(&alone, percent) / percentile(&bare, percent);
        println!("p{percent} alone over bare: {ratio:.3}");
        note(figures, &format!("paced_p{percent}_over_bare"), ratio);
    }
    let ratio = percentile(&beside, 99) / percentile(&alone, 99);
    println!("p99 beside the sick over p99 alone: {ratio:.3}");
    note(figures, "isolation_p99_ratio", ratio);
}

fn percentile(latencies: &[Duration], percent: usize) -> f64 {
    let index = (latencies.len() * percent / 100).min(latencies.len() - 1);
    latencies[index].as_secs_f64() * 1e3
}

/// Calls `publish` at every tick, and returns the latencies of the events. The first second warms
/// up and does not count.
async fn paced<F: Future<Output = ()> + Send>(
    receiver: &Receiver,
    seconds: usize,
    mut send: impl FnMut(usize) -> F + Send,
) -> Vec<Duration> {
    let mut ticks = interval(Duration::from_secs(1) / RATE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let rate = usize::try_from(RATE).unwrap();
    for n in 0..(seconds + 1) * rate {
        ticks.tick().await;
        if n == rate {
            receiver.latencies().await;
        }
        send(n).await;
    }
    let mut latencies = Vec::new();
    // A few events of the first second may come late, and are counted in place of later ones.
    while latencies.len() < seconds * rate - rate / 10 {
        ticks.tick().await;
        latencies.extend(receiver.latencies().await);
    }
    latencies.sort_unstable();
    latencies
}

async fn bare_round(receiver: &Receiver, seconds: usize) -> Vec<Duration> {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = reqwest::Url::parse(&receiver.url("timed")).unwrap();
    let mut requests = JoinSet::new();
    let latencies = paced(receiver, seconds, |_| {
        let body = json!({ "payload": { "sent": micros() } }).to_string();
        let request = client.post(url.clone()).body(body);
        requests.spawn(async move { request.send().await.unwrap() });
        while requests.try_join_next().is_some() {}
        ready(())
    })
    .await;
    requests.join_all().await;
    latencies
}

async fn round(receiver: &Receiver, seconds: usize, backlog: usize) -> Vec<Duration> {
    let folder = folder();
    let store = SqliteStore::open(folder.path().join("bench.db")).await.unwrap();
    let engine = Engine::new(store, HttpTransport::development().unwrap());
    for n in 0..HEALTHY {
        let healthy = endpoint(&receiver.url("timed")).events([format!("healthy.n{n}")]).unwrap();
        engine.endpoints().register(&format!("healthy-{n}"), healthy).await.unwrap();
    }
    for n in 0..SICK {
        let sick = endpoint(&receiver.url("hang")).events([format!("sick.n{n}")]).unwrap();
        engine.endpoints().register(&format!("sick-{n}"), sick).await.unwrap();
    }
    let sick = (0..SICK).map(|n| EventType::new(&format!("sick.n{n}")).unwrap());
    let sick: Vec<EventType> = sick.collect();
    for batch in 0..backlog / 500 {
        let events: Vec<Event> = (0..500).map(|n| event(&sick[(batch + n) % SICK])).collect();
        let _published = engine.publish_all(&events).await.unwrap();
    }
    let worker = engine.start();
    let latencies = paced(receiver, seconds, |n| {
        let event_type = format!("healthy.n{}", n % HEALTHY);
        let event = Event::new(event_type.as_str(), json!({ "sent": micros() })).unwrap();
        let engine = engine.clone();
        async move {
            let _published = engine.publish(&event).await.unwrap();
        }
    })
    .await;
    worker.shutdown(Duration::ZERO).await;
    latencies
}
