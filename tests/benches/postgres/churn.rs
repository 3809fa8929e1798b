//! A day's deliveries through the store, in a few minutes: how much stays on disk.

use std::time::{Duration, Instant};

use webhooks_core::Timestamp;
use webhooks_dispatch::store::{DeliveryStore as _, PruneRequest, SerializedEvent};
use webhooks_postgres::PostgresOptions;
use webhooks_registry::store::{EndpointStore as _, RegisterRequest};
use webhooks_tests::postgres::{Cluster, connect};

use super::backlog::claim_and_settle;
use super::figures::{PAID, endpoint, event, float};

const HOUR: Duration = Duration::from_secs(3600);

/// The number of hours that are retained, in a day of partitions of an hour each.
const RETENTION: u32 = 4;

/// The number of events per publish call.
const BATCH: usize = 100;

pub(crate) async fn measure(cluster: &Cluster, is_quick: bool) {
    let deliveries = if is_quick { 120_000 } else { 1_000_000 };
    println!("\n{deliveries} deliveries in a day of 24 simulated hours, {RETENTION} of them kept");
    let url = cluster.database().await;
    let options = PostgresOptions::new(&url).unwrap().partition_width(HOUR);
    let store = options.open().await.unwrap();
    let id = "receiver".parse().unwrap();
    store
        .register(RegisterRequest::new(id, endpoint("http://127.0.0.1/"), Timestamp::now()))
        .await
        .unwrap();
    let start = Instant::now();
    let batches = deliveries / BATCH;
    // Another day than today, so that partitions made ahead for today do not count.
    let midnight = Timestamp::from_unix_seconds(1_767_225_600);
    println!("  hour  queue MiB  its indexes  keys MiB  all MiB  rows that are dead");
    for batch in 0..batches {
        let of_day = HOUR * 24 * u32::try_from(batch).unwrap() / u32::try_from(batches).unwrap();
        let now = midnight + of_day;
        let events = (0..BATCH).map(|_| SerializedEvent::new(&event(&PAID)));
        assert_eq!(store.publish(events.collect(), now).await.unwrap().len(), BATCH);
        while claim_and_settle(&store, 4, now).await > 0 {}
        // Claims a little more than it publishes, as an engine does.
        let before = now.saturating_sub(HOUR * RETENTION);
        let request = PruneRequest { tenant: None, before, limit: 2 * BATCH, now };
        store.prune(request).await.unwrap();
        if (batch + 1) % (batches / 12) == 0 {
            show(&url, of_day).await;
        }
    }
    let per_second = float(deliveries) / start.elapsed().as_secs_f64();
    println!("{per_second:.0} deliveries a second, published, claimed, settled and pruned");
}

async fn show(url: &str, of_day: Duration) {
    const SIZES: &str = "
        SELECT pg_relation_size('webhooks.pending_deliveries') / 1048576.0::float8,
               pg_indexes_size('webhooks.pending_deliveries') / 1048576.0::float8,
               pg_total_relation_size('webhooks.event_keys') / 1048576.0::float8,
               (SELECT sum(pg_total_relation_size(c.oid))::float8 / 1048576 FROM pg_class c
                WHERE relnamespace = 'webhooks'::regnamespace AND relkind = 'r'),
               (SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'pending_deliveries')";
    let sizes = sqlx::query_as(SIZES);
    let (queue, indexes, keys, all, dead): (f64, f64, f64, f64, i64) =
        sizes.fetch_one(&mut connect(url).await).await.unwrap();
    let hour = of_day.as_secs_f64() / HOUR.as_secs_f64();
    println!("{hour:>6.0} {queue:>10.1} {indexes:>12.1} {keys:>9.1} {all:>8.1} {dead:>19}");
}
