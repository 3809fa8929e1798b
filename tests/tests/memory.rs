//! The memory store passes the suite for every store.

use webhooks_dispatch::MemoryStore;

webhooks_conformance::delivery_store_tests!(async || (MemoryStore::new(), ()));
