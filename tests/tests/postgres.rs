//! The shared store on a real PostgreSQL: what every store does, and what only this one does.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use webhooks_postgres::PostgresOptions;
use webhooks_tests::conformance;
use webhooks_tests::postgres::Cluster;

/// Narrow partitions, so that retention drops some.
#[tokio::test]
async fn the_shared_store_conforms() {
    conformance::exercise(|| async {
        let url = Cluster::shared().database().await;
        let options = PostgresOptions::new(&url).unwrap().partition_width(Duration::from_secs(1));
        options.open().await.unwrap()
    })
    .await;
}
