//! What a claim and a settle cost when little waits, and when a million deliveries do.
//!
//! The cost is processor time: how long a commit waits for the disk is the same for both, and
//! differs from one second to the next.

use std::sync::Arc;
use std::time::Duration;

use webhooks_core::{EndpointId, Timestamp};
use webhooks_dispatch::{
    Attempt, ClaimRequest, DeliveryStore, Outcome, SerializedEvent, Settlement,
};
use webhooks_registry::EndpointStore;
use webhooks_sqlite::SqliteStore;

use super::{Figures, cpu, endpoint, event, float, folder, note};

/// Few enough that both backlogs exceed what memory holds of an endpoint, and are read from disk.
const ENDPOINTS: usize = 5;
const BATCH: usize = 100;

pub(crate) async fn measure(is_quick: bool, figures: &mut Figures) {
    let batches = if is_quick { 60 } else { 90 };
    println!("\nclaim and settle, µs a delivery in batches of {BATCH}, for {ENDPOINTS} endpoints");
    let mut costs = Vec::new();
    for backlog in [10_000, 1_000_000] {
        let folder = folder();
        let store = SqliteStore::open(folder.path().join("bench.db")).await.unwrap();
        fill(&store, backlog).await;
        // Both start with an empty log and cold caches, so that neither pays for the filling.
        store.close().await;
        let store = SqliteStore::open(folder.path().join("bench.db")).await.unwrap();
        let cost = cost(&store, batches).await;
        println!("{backlog:>9} waiting: {cost:>6.2}");
        costs.push(cost);
    }
    let ratio = costs[1] / costs[0];
    println!("1m over 10k: {ratio:.3}");
    note(figures, "backlog_1m_over_10k", ratio);
}

async fn fill(store: &SqliteStore, backlog: usize) {
    for n in 0..ENDPOINTS {
        let id = EndpointId::new(&format!("endpoint-{n}")).unwrap();
        let endpoint = endpoint("http://127.0.0.1/").events([format!("order.{n}")]).unwrap();
        store.register(id, endpoint).await.unwrap();
    }
    let now = Timestamp::now();
    for batch in 0..backlog / 1_000 {
        let event = |n| SerializedEvent::new(&event(&format!("order.{}", (batch + n) % ENDPOINTS)));
        let published = store.publish((0..1_000).map(event).collect(), now).await.unwrap();
        assert!(published.iter().all(Result::is_ok));
    }
}

/// Returns the microseconds that a delivery took, reading ahead included.
async fn cost(store: &SqliteStore, batches: usize) -> f64 {
    let mut wakeups = store.wakeups();
    let (before, mut deliveries) = (cpu(), 0);
    while deliveries < batches * BATCH {
        let now = Timestamp::now();
        let lease = Duration::from_secs(3600);
        let request =
            ClaimRequest { now, lease, limit: BATCH, per_endpoint: 32, busy: Arc::default() };
        let claimed = store.claim(request).await.unwrap();
        if claimed.len() < BATCH {
            assert!(!claimed.is_empty() || store.next_due(Arc::default()).await.unwrap().is_some());
            wakeups.next().await;
        }
        let settlements = claimed.iter().map(|claimed| Settlement {
            claim: claimed.claim,
            outcome: Outcome::Delivered,
            attempt: Some(Attempt {
                started_at: now,
                duration: Duration::from_millis(3),
                status_code: Some(200),
                error_class: None,
                error: None,
                response: bytes::Bytes::new(),
            }),
        });
        let settled = store.settle(settlements.collect(), now).await.unwrap();
        deliveries += settled.len();
    }
    (cpu() - before) * 1e6 / float(deliveries)
}
