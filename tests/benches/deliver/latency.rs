//! From publish to receipt at a paced rate, alone and beside a hundred endpoints that hang.

use std::time::Duration;

use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};
use webhooks_core::Event;
use webhooks_dispatch::{Engine, EngineSettings};
use webhooks_http::HttpTransport;
use webhooks_sqlite::SqliteStore;

use super::receiver::micros;
use super::{Figures, Receiver, endpoint, event, float, folder, note};

/// Events a second.
const RATE: u32 = 500;
const HEALTHY: usize = 100;
const SICK: usize = 100;

pub(crate) async fn measure(receiver: &Receiver, is_quick: bool, figures: &mut Figures) {
    let seconds = if is_quick { 4 } else { 15 };
    let backlog = 100_000;
    println!(
        "\nfrom publish to receipt at {RATE} events a second over {HEALTHY} endpoints, durable"
    );
    let alone = round(receiver, seconds, 0).await;
    let beside = round(receiver, seconds, backlog).await;
    for (name, latencies) in [("alone", &alone), ("beside the sick", &beside)] {
        let [p50, p99] = [50, 99].map(|percent| percentile(latencies, percent));
        println!("{name:>16}: p50 {p50:.2} ms, p99 {p99:.2} ms, {} events", latencies.len());
    }
    println!("(the sick: {SICK} endpoints that hang, {backlog} deliveries waiting for them)");
    note(figures, "paced_p50_ms", percentile(&alone, 50));
    note(figures, "paced_p99_ms", percentile(&alone, 99));
    let ratio = percentile(&beside, 99) / percentile(&alone, 99);
    println!("p99 beside the sick over p99 alone: {ratio:.3}");
    note(figures, "isolation_p99_ratio", ratio);
}

fn percentile(latencies: &[Duration], percent: usize) -> f64 {
    let index = (latencies.len() * percent / 100).min(latencies.len() - 1);
    latencies[index].as_secs_f64() * 1e3
}

async fn round(receiver: &Receiver, seconds: usize, backlog: usize) -> Vec<Duration> {
    let folder = folder();
    let store = SqliteStore::open(folder.path().join("bench.db")).await.unwrap();
    let engine = Engine::new(store, HttpTransport::new().unwrap());
    let engine = engine.settings(EngineSettings::default());
    for n in 0..HEALTHY {
        let healthy = endpoint(&receiver.url("timed")).events([format!("healthy.n{n}")]).unwrap();
        engine.endpoints().register(&format!("healthy-{n}"), healthy).await.unwrap();
    }
    for n in 0..SICK {
        let sick = endpoint(&receiver.url("hang")).events([format!("sick.n{n}")]).unwrap();
        engine.endpoints().register(&format!("sick-{n}"), sick).await.unwrap();
    }
    for batch in 0..backlog / 500 {
        let events: Vec<Event> =
            (0..500).map(|n| event(&format!("sick.n{}", (batch + n) % SICK))).collect();
        let _published = engine.publish_all(&events).await.unwrap();
    }
    let worker = engine.start();
    let mut ticks = interval(Duration::from_secs(1) / RATE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let rate = usize::try_from(RATE).unwrap();
    // The first second warms up and does not count.
    for n in 0..(seconds + 1) * rate {
        ticks.tick().await;
        if n == rate {
            receiver.latencies().await;
        }
        let event_type = format!("healthy.n{}", n % HEALTHY);
        let event = Event::new(event_type.as_str(), json!({ "sent": micros() })).unwrap();
        let _published = engine.publish(&event).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let latencies = receiver.latencies().await;
    worker.shutdown(Duration::ZERO).await;
    assert!(float(latencies.len()) > float(seconds * rate) * 0.95, "{}", latencies.len());
    latencies
}
