//! The embedded store passes the suite for every store, with a large window and with a small one.
#![expect(clippy::unwrap_used, reason = "a test")]

use tempfile::TempDir;
use webhooks_dispatch::backlog::Window;
use webhooks_sqlite::{SqliteOptions, SqliteStore};

mod as_it_is {
    use super::*;

    async fn store() -> (SqliteStore, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        (SqliteOptions::new(folder.path().join("a.db")).open().await.unwrap(), folder)
    }

    webhooks_conformance::delivery_store_tests!(store);
}

/// Memory holds next to nothing of the queue.
mod narrow {
    use super::*;

    async fn store() -> (SqliteStore, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteOptions::new(folder.path().join("a.db"));
        let options = options.window(Window { per_endpoint: 3, bytes: 500 });
        (options.open().await.unwrap(), folder)
    }

    webhooks_conformance::delivery_store_tests!(store);
}
