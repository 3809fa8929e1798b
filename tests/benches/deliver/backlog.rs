//! The cost of a claim and of a settle, with few pending deliveries and with a million.
//!
//! The cost is processor time. The time that a commit waits for the disk is the same for both, and
//! differs from one second to the next.

use std::time::Duration;

use tempfile::TempDir;
use webhooks_core::{EndpointId, EventType, Timestamp};
use webhooks_dispatch::{
    clock::{Clock as _, SystemClock},
    store::{ClaimRequest, DeliveryStore, Room, SerializedEvent},
};
use webhooks_registry::store::{EndpointStore, RegisterRequest};
use webhooks_sqlite::SqliteStore;

use super::{Figures, cpu, endpoint, event, float, folder, median, note, settlements};

/// Small enough that both backlogs exceed an endpoint's queue in memory and are read from disk.
const ENDPOINTS: usize = 5;
const BATCH: usize = 100;

/// The number of batches that fill the caches first, and the number of batches that are measured.
const WARM_UP: usize = 20;
const BATCHES: usize = 75;

pub(crate) async fn measure(is_quick: bool, figures: &mut Figures) {
    let rounds = if is_quick { 3 } else { 9 };
    println!("\nclaim and settle, processor µs a delivery in batches of {BATCH}, {rounds} rounds");
    let (large_folder, large) = filled(1_000_000).await;
    let [mut costs_of_small, mut costs_of_large] = [const { Vec::new() }; 2];
    for _ in 0..rounds {
        let (small_folder, small) = filled(10_000).await;
        costs_of_small.push(cost(&small).await);
        small.close().await;
        drop(small_folder);
        costs_of_large.push(cost(&large).await);
    }
    large.close().await;
    drop(large_folder);
    let [small, large] = [costs_of_small, costs_of_large].map(median);
    println!("    10000 waiting: {small:>6.2}\n  1000000 waiting: {large:>6.2}");
    println!("1m over 10k: {:.3}", large / small);
    note(figures, "backlog_1m_over_10k", large / small);
}

/// Returns a store with `backlog` pending deliveries, reopened with an empty log.
async fn filled(backlog: usize) -> (TempDir, SqliteStore) {
    let folder = folder();
    let path = folder.path().join("bench.db");
    let store = SqliteStore::open(&path).await.unwrap();
    fill(&store, backlog).await;
    store.close().await;
    (folder, SqliteStore::open(path).await.unwrap())
}

async fn fill(store: &SqliteStore, backlog: usize) {
    for n in 0..ENDPOINTS {
        let id = EndpointId::new(&format!("endpoint-{n}")).unwrap();
        let endpoint = endpoint("http://127.0.0.1/").events([format!("order.{n}")]).unwrap();
        store.register(RegisterRequest::new(id, endpoint, Timestamp::now())).await.unwrap();
    }
    let now = Timestamp::now();
    let types = (0..ENDPOINTS).map(|n| EventType::new(&format!("order.{n}")).unwrap());
    let types: Vec<EventType> = types.collect();
    for batch in 0..backlog / 1_000 {
        let event = |n| SerializedEvent::new(&event(&types[(batch + n) % ENDPOINTS]));
        let published = store.publish((0..1_000).map(event).collect(), now).await.unwrap();
        assert!(published.iter().all(Result::is_ok));
    }
}

/// Returns the microseconds per delivery with warm caches; reading ahead is included.
async fn cost(store: &SqliteStore) -> f64 {
    claim_and_settle(store, WARM_UP).await;
    let before = cpu();
    let deliveries = claim_and_settle(store, BATCHES).await;
    (cpu() - before) * 1e6 / float(deliveries)
}

async fn claim_and_settle(store: &SqliteStore, batches: usize) -> usize {
    let mut changes = store.changes();
    let mut deliveries = 0;
    while deliveries < batches * BATCH {
        let now = SystemClock.clocks();
        let lease = Duration::from_secs(3600);
        let request = ClaimRequest {
            now,
            lease,
            limit: BATCH,
            per_endpoint: 32,
            bytes: usize::MAX,
            room: Room::new(),
        };
        let claimed = store.claim(request).await.unwrap();
        if claimed.len() < BATCH {
            assert!(
                !claimed.is_empty() || store.next_due(Room::new(), now).await.unwrap().is_some()
            );
            changes.changed().await;
        }
        let settled = store.settle(settlements(&claimed, now.wall), now.wall).await.unwrap();
        deliveries += settled.len();
    }
    deliveries
}
