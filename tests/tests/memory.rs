//! The store in memory does what every store does.

use webhooks_dispatch::MemoryStore;
use webhooks_tests::conformance;

#[tokio::test]
async fn the_store_in_memory_conforms() {
    conformance::exercise(|| async { MemoryStore::new() }).await;
}
