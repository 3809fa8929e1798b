//! Rounds of deliveries: a bare loop of HTTP requests, and an engine over a store.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use webhooks_core::Event;
use webhooks_dispatch::{
    Engine, EngineSettings, Store,
    observer::{Observer, Occurrence},
};
use webhooks_http::HttpTransport;

use super::figures::{CONCURRENCY, PAID, cpu, endpoint, event, float, median};

/// The number of events per publish call, and how far publishing may run ahead of delivery.
pub(crate) const BATCH: usize = 64;
const AHEAD: usize = 2_048;

/// The cost of a round.
#[derive(Clone, Copy)]
pub(crate) struct Round {
    pub(crate) per_second: f64,
    /// In microseconds.
    pub(crate) cpu_each: f64,
}

pub(crate) fn middle(rounds: &[Round]) -> Round {
    Round {
        per_second: median(rounds.iter().map(|round| round.per_second).collect()),
        cpu_each: median(rounds.iter().map(|round| round.cpu_each).collect()),
    }
}

/// Measures a round: starts, and ends with the cost of `deliveries`. `cpu` returns the processor
/// time used so far, in seconds.
fn stopwatch(cpu: impl Fn() -> f64) -> impl FnOnce(usize) -> Round {
    let (start, cpu_before) = (Instant::now(), cpu());
    move |deliveries| Round {
        per_second: float(deliveries) / start.elapsed().as_secs_f64(),
        cpu_each: (cpu() - cpu_before) * 1e6 / float(deliveries),
    }
}

pub(crate) async fn bare_round(url: &str, deliveries: usize) -> Round {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = Bytes::from(event(&PAID).to_json());
    let left = Arc::new(AtomicUsize::new(deliveries));
    let mut loops = JoinSet::new();
    let stop = stopwatch(cpu);
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

/// Counts a delivery, and lets the publishers go on.
#[derive(Debug, Clone)]
struct Delivered {
    count: Arc<AtomicUsize>,
    more: Arc<Notify>,
    /// The number of events that may be published now.
    room: Arc<Semaphore>,
}

impl Observer for Delivered {
    fn observe(&self, occurrence: &Occurrence<'_>) {
        match occurrence {
            Occurrence::Delivered { .. } => {
                if (self.count.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(BATCH) {
                    self.room.add_permits(BATCH);
                    self.more.notify_one();
                }
            }
            Occurrence::Published { .. }
            | Occurrence::EndpointChanged { .. }
            | Occurrence::WorkerStarted { .. }
            | Occurrence::WorkerEnded { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Publishes `total` events from `publishers` tasks at once, and delivers them.
pub(crate) async fn engine_round<S>(
    store: S,
    url: &str,
    deliveries: usize,
    publishers: usize,
    cpu: impl Fn() -> f64 + Send,
) -> Round
where
    S: Store,
{
    let room = Arc::new(Semaphore::new(AHEAD));
    let delivered = Delivered { count: Arc::default(), more: Arc::default(), room };
    let settings = EngineSettings { concurrency: CONCURRENCY, ..EngineSettings::default() };
    let engine = Engine::builder(store, HttpTransport::development().unwrap());
    let engine = engine.settings(settings).observer(delivered.clone()).build();
    engine.endpoints().register("receiver", endpoint(url)).await.unwrap();
    let worker = engine.start();
    let batches = deliveries / BATCH;
    let left = Arc::new(AtomicUsize::new(batches));
    let mut tasks = JoinSet::new();
    let stop = stopwatch(cpu);
    for _ in 0..publishers {
        let (engine, left) = (engine.clone(), Arc::clone(&left));
        tasks.spawn(publish(engine, left, Arc::clone(&delivered.room)));
    }
    while delivered.count.load(Ordering::Relaxed) < batches * BATCH {
        delivered.more.notified().await;
    }
    let round = stop(batches * BATCH);
    tasks.join_all().await;
    worker.shutdown(Duration::from_secs(5)).await;
    round
}

/// Publishes batches while events are left, and never runs too far ahead of delivery.
async fn publish<S>(engine: Engine<S, HttpTransport>, left: Arc<AtomicUsize>, room: Arc<Semaphore>)
where
    S: Store,
{
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
        room.acquire_many(u32::try_from(BATCH).unwrap()).await.unwrap().forget();
        let batch: Vec<Event> = (0..BATCH).map(|_| event(&PAID)).collect();
        for outcome in engine.publish_all(&batch).await.unwrap() {
            let _published = outcome.unwrap();
        }
    }
}
