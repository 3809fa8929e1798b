//! The cost of a claim and of a settle, with few pending deliveries and with two million.

use std::time::Duration;

use sqlx::PgConnection;
use webhooks_core::{EndpointId, Timestamp};
use webhooks_dispatch::{
    clock::{Clock as _, Now, SystemClock},
    store::{ClaimRequest, DeliveryStore as _, Room},
};
use webhooks_postgres::PostgresStore;
use webhooks_registry::store::{EndpointStore as _, RegisterRequest};
use webhooks_tests::postgres::{Cluster, connect};

use super::figures::{Figures, PAID, endpoint, event, float, median, note, settlements};
use super::server::cpu_with;

/// Every event goes to all of them.
const ENDPOINTS: usize = 20;
const BATCH: usize = 100;

/// The number of batches that fill the caches first, and the number of batches that are measured.
const WARM_UP: usize = 20;
const BATCHES: usize = 60;

pub(crate) async fn measure(cluster: &Cluster, is_quick: bool, figures: &mut Figures) {
    let rounds = if is_quick { 3 } else { 9 };
    println!("\nclaim and settle, processor µs a delivery in batches of {BATCH}, {rounds} rounds");
    let (small_url, large_url) = (cluster.database().await, cluster.database().await);
    let small = PostgresStore::open(&small_url).await.unwrap();
    let large = filled(&large_url, 2_000_000).await;
    let [mut costs_of_small, mut costs_of_large] = [const { Vec::new() }; 2];
    for round in 0..rounds {
        // Replaces the deliveries that the round before has carried out.
        if round == 0 {
            drop(filled(&small_url, 10_000).await);
        } else {
            fill(&mut connect(&small_url).await, (WARM_UP + BATCHES) * BATCH).await;
        }
        costs_of_small.push(cost(cluster, &small).await);
        costs_of_large.push(cost(cluster, &large).await);
    }
    let [small, large] = [costs_of_small, costs_of_large].map(median);
    println!("    10000 waiting: {small:>6.2}\n  2000000 waiting: {large:>6.2}");
    println!("2m over 10k: {:.3}", large / small);
    note(figures, "backlog_2m_over_10k", large / small);
}

/// Opens a store and adds `deliveries` pending deliveries.
async fn filled(url: &str, deliveries: usize) -> PostgresStore {
    let store = PostgresStore::open(url).await.unwrap();
    for n in 0..ENDPOINTS {
        let id = EndpointId::new(&format!("endpoint-{n}")).unwrap();
        store
            .register(RegisterRequest::new(id, endpoint("http://127.0.0.1/"), Timestamp::now()))
            .await
            .unwrap();
    }
    fill(&mut connect(url).await, deliveries).await;
    store
}

/// Adds deliveries by SQL statements, which is faster than publishing them.
async fn fill(connection: &mut PgConnection, deliveries: usize) {
    const EVENTS: &str = "
        WITH made AS (
            INSERT INTO webhooks.events (number, accepted_at, tenant, id, type, deliveries, body)
            SELECT nextval('webhooks.event_numbers'), now(), 'default', gen_random_uuid(),
                   'order.paid', 20, $2 FROM generate_series(1, $1)
            RETURNING number, accepted_at
        )
        INSERT INTO webhooks.pending_deliveries (id, endpoint, due_at, event_at, queued_at)
        SELECT webhooks.first_delivery(made.number) + e.number, e.number, accepted_at, accepted_at,
               accepted_at
        FROM made CROSS JOIN webhooks.endpoints e";
    let ensure = "SELECT webhooks.ensure_partition(now())";
    sqlx::query(ensure).execute(&mut *connection).await.unwrap();
    let events = i64::try_from(deliveries / ENDPOINTS).unwrap();
    let fill = sqlx::query(EVENTS).bind(events).bind(event(&PAID).to_json());
    fill.execute(&mut *connection).await.unwrap();
    let analyze = "VACUUM ANALYZE webhooks.pending_deliveries";
    sqlx::raw_sql(analyze).execute(&mut *connection).await.unwrap();
}

/// Returns the microseconds per delivery with warm caches.
async fn cost(cluster: &Cluster, store: &PostgresStore) -> f64 {
    claim_and_settle(store, WARM_UP, Timestamp::now()).await;
    let before = cpu_with(cluster);
    let deliveries = claim_and_settle(store, BATCHES, Timestamp::now()).await;
    (cpu_with(cluster) - before) * 1e6 / float(deliveries)
}

/// Carries out deliveries without sending anything, and returns their number.
pub(crate) async fn claim_and_settle(
    store: &PostgresStore,
    batches: usize,
    now: Timestamp,
) -> usize {
    let mut deliveries = 0;
    for _ in 0..batches {
        let lease = Duration::from_secs(3600);
        let clocks = Now { wall: now, ..SystemClock.clocks() };
        let request = ClaimRequest {
            now: clocks,
            lease,
            limit: BATCH,
            per_endpoint: 32,
            bytes: usize::MAX,
            room: Room::new(),
        };
        let claimed = store.claim(request).await.unwrap();
        if claimed.is_empty() {
            break;
        }
        let settled = store.settle(settlements(&claimed, now), now).await.unwrap();
        deliveries += settled.len();
    }
    deliveries
}
