//! The memory store passes the suite for every store, also in a box.

use webhooks_dispatch::{BoxedStore, MemoryStore};

mod as_it_is {
    use super::*;

    webhooks_conformance::delivery_store_tests!(async || (MemoryStore::new(), ()));
}

mod boxed {
    use super::*;

    webhooks_conformance::delivery_store_tests!(async || (BoxedStore::new(MemoryStore::new()), ()));
}
