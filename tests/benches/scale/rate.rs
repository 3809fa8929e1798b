//! The cost of a rate limit for the store, and whether its rate is reached.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use webhooks_core::{EventType, Timestamp};
use webhooks_dispatch::{
    Conflict, Engine, EngineSettings, FnTransport, MemoryStore, Published,
    clock::Now,
    forward_store,
    observer::WorkerReport,
    store::{
        ChangeListener, Claim, ClaimRequest, Claimed, DeliveryStore, Outcome, PruneRequest, Room,
        SerializedEvent, Settled, Settlement, StoreError,
    },
};
use webhooks_registry::RateLimit;

use super::delivered::Delivered;
use super::figures::{Figures, endpoint, event, float, note};

/// A memory store that counts the deliveries which the engine claims, and those which it releases.
#[derive(Clone)]
struct CountingStore {
    inner: MemoryStore,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    claimed: AtomicUsize,
    released: AtomicUsize,
}

forward_store!(CountingStore => inner:
    EndpointStore, OperationStore, HistoryStore, MonitorStore, JobStore);

impl DeliveryStore for CountingStore {
    async fn publish(
        &self,
        events: Vec<SerializedEvent>,
        now: Timestamp,
    ) -> Result<Vec<Result<Published, Conflict>>, StoreError> {
        self.inner.publish(events, now).await
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, StoreError> {
        let claimed = self.inner.claim(request).await?;
        self.counts.claimed.fetch_add(claimed.len(), Ordering::Relaxed);
        Ok(claimed)
    }

    async fn settle(
        &self,
        settlements: Vec<Settlement>,
        now: Timestamp,
    ) -> Result<Vec<Settled>, StoreError> {
        let is_released = |settlement: &&Settlement| settlement.outcome == Outcome::Released;
        let released = settlements.iter().filter(is_released).count();
        self.counts.released.fetch_add(released, Ordering::Relaxed);
        self.inner.settle(settlements, now).await
    }

    async fn extend(
        &self,
        claims: Vec<Claim>,
        lease: Duration,
        now: Now,
    ) -> Result<Vec<Claim>, StoreError> {
        self.inner.extend(claims, lease, now).await
    }

    async fn next_due(&self, room: Room, now: Now) -> Result<Option<Duration>, StoreError> {
        self.inner.next_due(room, now).await
    }

    async fn hasten(&self, now: Timestamp) -> Result<(), StoreError> {
        self.inner.hasten(now).await
    }

    async fn refresh(&self) {
        self.inner.refresh().await;
    }

    async fn release_preclaimed(&self) -> usize {
        self.inner.release_preclaimed().await
    }

    async fn prune(&self, request: PruneRequest) -> Result<usize, StoreError> {
        self.inner.prune(request).await
    }

    async fn report(
        &self,
        worker: u64,
        report: Option<WorkerReport>,
        now: Now,
    ) -> Result<(), StoreError> {
        self.inner.report(worker, report, now).await
    }

    fn changes(&self) -> ChangeListener {
        self.inner.changes()
    }
}

/// Deliveries at a rate: a number of endpoints with a number of deliveries each.
#[derive(Clone, Copy)]
struct Load {
    endpoints: usize,
    deliveries: usize,
    per_second: u32,
}

/// The result of a run.
struct Run {
    claimed: f64,
    released: f64,
    per_second: f64,
}

pub(crate) async fn measure(figures: &mut Figures) {
    println!("\na rate limit with a burst of 1, memory store");
    let mut worst = (0_f64, 0_f64);
    for load in [
        Load { endpoints: 1, deliveries: 100, per_second: 50 },
        Load { endpoints: 100, deliveries: 20, per_second: 10 },
    ] {
        let Run { claimed, released, .. } = run(load, Duration::MAX).await;
        let Load { endpoints, deliveries, per_second } = load;
        println!(
            "{endpoints:>4} endpoints, {deliveries} deliveries each at {per_second} a second: of \
             each {claimed:.2} claimed, {released:.2} released"
        );
        worst = (worst.0.max(claimed), worst.1.max(released));
    }
    note(figures, "rate_claimed_per_delivery", worst.0);
    note(figures, "rate_released_per_delivery", worst.1);
    let load = Load { endpoints: 1, deliveries: 4_000, per_second: 1_000 };
    let reached = run(load, Duration::from_secs(3)).await.per_second;
    println!("   1 endpoint with 1000 a second: {reached:.0} a second");
    note(figures, "rate_1000_reached", reached / 1_000.0);
}

/// Delivers until all is delivered, or until the time is over.
async fn run(load: Load, time: Duration) -> Run {
    let store = CountingStore { inner: MemoryStore::with_history(1_000), counts: Arc::default() };
    let counts = Arc::clone(&store.counts);
    let transport = FnTransport::new(|_, _, _, _| async {
        tokio::task::yield_now().await;
        (200, "")
    });
    let delivered = Delivered::default();
    let engine = Engine::builder(store, transport).settings(EngineSettings::default());
    let engine = engine.observer(delivered.clone()).build();
    let per_second = NonZeroU32::new(load.per_second).unwrap();
    for n in 0..load.endpoints {
        let limited = endpoint("http://127.0.0.1/").events(["order.paid"]).unwrap();
        let limited = limited.rate_limited(RateLimit::per_second(per_second, NonZeroU32::MIN));
        engine.endpoints().register(&format!("limited-{n}"), limited).await.unwrap();
    }
    let paid = EventType::new("order.paid").unwrap();
    for _ in 0..load.deliveries / 20 {
        let events: Vec<_> = (0..20).map(|_| event(&paid)).collect();
        let _published = engine.publish_all(&events).await.unwrap();
    }
    let start = Instant::now();
    let worker = engine.start();
    let all = delivered.wait_for(load.endpoints * load.deliveries);
    let _over = tokio::time::timeout(time, all).await;
    let (sent, elapsed) = (float(delivered.count()), start.elapsed());
    let [claimed, released] =
        [&counts.claimed, &counts.released].map(|count| float(count.load(Ordering::Relaxed)));
    worker.shutdown(Duration::ZERO).await;
    Run {
        claimed: claimed / sent,
        released: released / sent,
        per_second: sent / elapsed.as_secs_f64(),
    }
}
