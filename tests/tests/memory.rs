//! The memory store passes the suite for every store.

use webhooks_dispatch::MemoryStore;
use webhooks_tests::conformance;

#[tokio::test]
async fn the_store_in_memory_conforms() {
    conformance::exercise(|| async { MemoryStore::new() }).await;
}
