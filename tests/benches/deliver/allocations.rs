//! The allocations per delivery without its HTTP request: engine and memory store, on one thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use webhooks_dispatch::{
    Engine, EngineSettings, FnTransport, MemoryStore,
    observer::{Observer, Occurrence},
};

use super::{CONCURRENCY, Figures, PAID, endpoint, event, float, note};

const DELIVERIES: usize = 10_000;

#[derive(Debug, Clone, Default)]
struct Delivered(Arc<AtomicUsize>, Arc<Notify>);

impl Observer for Delivered {
    fn observe(&self, occurrence: &Occurrence<'_>) {
        if matches!(occurrence, Occurrence::Delivered { .. }) {
            self.0.fetch_add(1, Ordering::Relaxed);
            self.1.notify_one();
        }
    }
}

pub(crate) fn measure(figures: &mut Figures) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let counted = allocation_counter::measure(|| runtime.block_on(deliver()));
    let each = float(usize::try_from(counted.count_total).unwrap()) / float(DELIVERIES);
    println!(
        "\nallocations of a delivery, from its event to its settled result, but HTTP: {each:.1}"
    );
    note(figures, "allocations_per_delivery", each);
}

async fn deliver() {
    let delivered = Delivered::default();
    let settings = EngineSettings { concurrency: CONCURRENCY, ..EngineSettings::default() };
    let transport = FnTransport::new(|_, _, _, _| async {
        tokio::task::yield_now().await;
        (200, "")
    });
    let engine = Engine::builder(MemoryStore::with_history(1_000), transport);
    let engine = engine.settings(settings).observer(delivered.clone()).build();
    engine.endpoints().register("a", endpoint("http://127.0.0.1/")).await.unwrap();
    let worker = engine.start();
    for _ in 0..=DELIVERIES / 64 {
        let events: Vec<_> = (0..64).map(|_| event(&PAID)).collect();
        let _published = engine.publish_all(&events).await.unwrap();
    }
    while delivered.0.load(Ordering::Relaxed) < DELIVERIES {
        delivered.1.notified().await;
    }
    worker.shutdown(Duration::from_secs(1)).await;
}
