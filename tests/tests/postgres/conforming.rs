//! The shared store conforms: alone, behind a pooler, and whatever the database sets for its sessions.

use std::sync::LazyLock;
use std::time::Duration;

use webhooks_postgres::{PostgresOptions, PostgresStore};
use webhooks_tests::postgres::{Cluster, Pooler, simulate_leases};

use super::sessions::{demand_read_committed, hostile_database};

/// Returns a store whose partitions are narrow, so that retention drops some.
async fn open(database: &str, options: PostgresOptions) -> (PostgresStore, ()) {
    let store = options.partition_width(Duration::from_secs(1)).open().await.unwrap();
    simulate_leases(database).await;
    (store, ())
}

fn behind(pooler: &Pooler, database: &str) -> PostgresOptions {
    let options = PostgresOptions::new(&pooler.url(database)).unwrap();
    options.listen_url(database).unwrap().without_prepared_statements()
}

mod alone {
    use super::*;

    async fn store() -> (PostgresStore, ()) {
        let database = Cluster::shared().database().await;
        open(&database, PostgresOptions::new(&database).unwrap()).await
    }

    webhooks_conformance::delivery_store_tests!(store);
}

/// Goal: all of it works behind a pooler that gives a connection to another client after each
/// transaction, and keeps no prepared statements. Method: a real one with two server connections,
/// so that a call that relied on a session would meet another one's.
mod behind_a_pooler {
    use super::*;

    static POOLER: LazyLock<Pooler> = LazyLock::new(|| Cluster::shared().pooler());

    async fn store() -> (PostgresStore, ()) {
        let database = Cluster::shared().database().await;
        open(&database, behind(&POOLER, &database)).await
    }

    webhooks_conformance::delivery_store_tests!(store);
}

/// Goal: the store works as usual whatever the database sets for its sessions, and makes each change
/// in a transaction that is read committed. Method: triggers refuse every other change.
mod hostile {
    use super::*;

    async fn store() -> (PostgresStore, ()) {
        let database = hostile_database().await;
        let store = open(&database, PostgresOptions::new(&database).unwrap()).await;
        demand_read_committed(&database).await;
        store
    }

    webhooks_conformance::delivery_store_tests!(store);
}

/// As [`hostile`], where the store has no session of its own.
mod hostile_behind_a_pooler {
    use super::*;

    static POOLER: LazyLock<Pooler> = LazyLock::new(|| Cluster::shared().pooler_in("hostile"));

    async fn store() -> (PostgresStore, ()) {
        let database = hostile_database().await;
        let store = open(&database, behind(&POOLER, &database)).await;
        demand_read_committed(&database).await;
        store
    }

    webhooks_conformance::delivery_store_tests!(store);
}
