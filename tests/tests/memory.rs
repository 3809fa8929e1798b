//! The memory store passes the suite for every store.

use webhooks_dispatch::MemoryStore;

async fn store() -> (MemoryStore, ()) {
    (MemoryStore::new(), ())
}

webhooks_conformance::delivery_store_tests!(store);
