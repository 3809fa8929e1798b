//! Deliveries a second, and processor time a delivery: bare, with the memory store, with SQLite.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use webhooks_core::Event;
use webhooks_dispatch::{
    DeliveryStore, Engine, EngineSettings, HistoryStore, MemoryStore, Observer, Occurrence,
};
use webhooks_http::HttpTransport;
use webhooks_registry::EndpointStore;
use webhooks_sqlite::SqliteStore;

use super::{
    CONCURRENCY, Figures, PAID, Receiver, cpu, endpoint, event, float, folder, median, note,
};

/// How many events are published in one call, and how far publishing runs ahead of delivery.
const BATCH: usize = 64;
const AHEAD: usize = 2_048;

/// What a round took.
#[derive(Clone, Copy)]
struct Round {
    per_second: f64,
    /// In microseconds.
    cpu_each: f64,
}

pub(crate) async fn measure(receiver: &Receiver, is_quick: bool, figures: &mut Figures) {
    let (rounds, deliveries) = if is_quick { (3, 20_000) } else { (9, 60_000) };
    println!("\n{deliveries} deliveries a round, {rounds} rounds, {CONCURRENCY} in flight");
    println!("published in batches of {BATCH} while delivering, until the last one is settled");
    let [mut bare, mut memory, mut sqlite] = [const { Vec::new() }; 3];
    let url = receiver.url("hook");
    // Warms up connections and caches.
    bare_round(&url, deliveries / 4).await;
    for _ in 0..rounds {
        bare.push(bare_round(&url, deliveries).await);
        memory.push(engine_round(MemoryStore::with_history(1_000), &url, deliveries).await);
        let folder = folder();
        let store = SqliteStore::open(folder.path().join("bench.db")).await.unwrap();
        sqlite.push(engine_round(store, &url, deliveries).await);
    }
    println!("           over bare  cpu over bare   per second  cpu µs each");
    let bare_median = middle(&bare);
    for (name, rounds) in [("bare", &bare), ("memory", &memory), ("sqlite", &sqlite)] {
        let Round { per_second, cpu_each } = middle(rounds);
        // Each round is compared with the bare one just before it.
        let over =
            median(rounds.iter().zip(&bare).map(|(a, b)| a.per_second / b.per_second).collect());
        let cpu_over =
            median(rounds.iter().zip(&bare).map(|(a, b)| a.cpu_each / b.cpu_each).collect());
        println!("{name:>9} {over:>10.3} {cpu_over:>14.3} {per_second:>12.0} {cpu_each:>12.1}");
        if name != "bare" {
            note(figures, &format!("{name}_over_bare"), over);
            note(figures, &format!("cpu_{name}_over_bare"), cpu_over);
        }
    }
    note(figures, "bare_per_s", bare_median.per_second);
}

fn middle(rounds: &[Round]) -> Round {
    Round {
        per_second: median(rounds.iter().map(|round| round.per_second).collect()),
        cpu_each: median(rounds.iter().map(|round| round.cpu_each).collect()),
    }
}

/// Starts measuring, and ends it with what so many deliveries took.
fn stopwatch() -> impl FnOnce(usize) -> Round {
    let (start, cpu_before) = (Instant::now(), cpu());
    move |deliveries| Round {
        per_second: float(deliveries) / start.elapsed().as_secs_f64(),
        cpu_each: (cpu() - cpu_before) * 1e6 / float(deliveries),
    }
}

async fn bare_round(url: &str, deliveries: usize) -> Round {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = Bytes::from(event(&PAID).to_json());
    let left = Arc::new(AtomicUsize::new(deliveries));
    let mut loops = JoinSet::new();
    let stop = stopwatch();
    for _ in 0..CONCURRENCY {
        let (client, body, left) = (client.clone(), body.clone(), Arc::clone(&left));
        let url = reqwest::Url::parse(url).unwrap();
        loops.spawn(async move {
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                .is_ok()
            {
                let request = client.post(url.clone()).header(CONTENT_TYPE, "application/json");
                let response = request.body(body.clone()).send().await.unwrap();
                assert_eq!(response.status(), 200);
                response.bytes().await.unwrap();
            }
        });
    }
    loops.join_all().await;
    stop(deliveries)
}

/// Counts what was delivered, and tells the publisher.
#[derive(Debug, Clone, Default)]
struct Delivered {
    count: Arc<AtomicUsize>,
    more: Arc<Notify>,
}

impl Observer for Delivered {
    fn observe(&self, occurrence: &Occurrence<'_>) {
        match occurrence {
            Occurrence::Delivered { .. } => {
                if (self.count.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(BATCH) {
                    self.more.notify_one();
                }
            }
            Occurrence::Published { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn engine_round<S>(store: S, url: &str, deliveries: usize) -> Round
where
    S: DeliveryStore + EndpointStore + HistoryStore,
{
    let delivered = Delivered::default();
    let settings = EngineSettings { concurrency: CONCURRENCY, ..EngineSettings::default() };
    let engine = Engine::new(store, HttpTransport::development().unwrap());
    let engine = engine.settings(settings).observer(delivered.clone());
    engine.endpoints().register("receiver", endpoint(url)).await.unwrap();
    let worker = engine.start();
    let deliveries = deliveries / BATCH * BATCH;
    let stop = stopwatch();
    let mut published = 0;
    while published < deliveries {
        if published - delivered.count.load(Ordering::Relaxed) > AHEAD {
            delivered.more.notified().await;
            continue;
        }
        let batch: Vec<Event> = (0..BATCH).map(|_| event(&PAID)).collect();
        for outcome in engine.publish_all(&batch).await.unwrap() {
            let _published = outcome.unwrap();
        }
        published += BATCH;
    }
    while delivered.count.load(Ordering::Relaxed) < deliveries {
        delivered.more.notified().await;
    }
    let round = stop(deliveries);
    worker.shutdown(Duration::from_secs(5)).await;
    round
}
