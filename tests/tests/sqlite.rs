//! The embedded store passes the suite for every store, with a large window and with a small one.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::atomic::{AtomicUsize, Ordering};

use webhooks_dispatch::backlog::Window;
use webhooks_sqlite::SqliteOptions;
use webhooks_tests::conformance;

async fn exercise(window: Option<Window>) {
    let folder = tempfile::tempdir().unwrap();
    let number = AtomicUsize::new(0);
    conformance::exercise(|| {
        let number = number.fetch_add(1, Ordering::Relaxed);
        let options = SqliteOptions::new(folder.path().join(format!("{number}.db")));
        let options = match window {
            Some(window) => options.window(window),
            None => options,
        };
        async { options.open().await.unwrap() }
    })
    .await;
}

#[tokio::test]
async fn the_embedded_store_conforms() {
    exercise(None).await;
}

#[tokio::test]
async fn it_conforms_when_memory_holds_next_to_nothing() {
    exercise(Some(Window { per_endpoint: 3, bytes: 500 })).await;
}
