//! The store in memory does what every store does.

use webhooks_dispatch::MemoryStore;

async fn store() -> (MemoryStore, ()) {
    (MemoryStore::new(), ())
}

webhooks_conformance::delivery_store_tests!(store);
