//! The reports of workers in a store.

use std::time::Duration;

use crate::monitor::MonitorStore as _;
use crate::{Engine, FnTransport, MemoryStore};

/// Goal: the end of a worker takes no report of another one away. Method: two engines over one store.
#[tokio::test(start_paused = true)]
async fn engines_that_share_a_store_have_their_own_reports() {
    let store = MemoryStore::new();
    let start = || {
        let transport = FnTransport::new(|_, _, _, _| async { (200, "") });
        Engine::new(store.clone(), transport).start()
    };
    let until = async |workers: usize| {
        for _ in 0..1_000 {
            if store.workers().await.unwrap().len() == workers {
                return;
            }
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        panic!("{} workers instead of {workers}", store.workers().await.unwrap().len());
    };
    let (first, second) = (start(), start());
    until(2).await;
    let _ended = first.shutdown(Duration::ZERO).await;
    until(1).await;
    let _ended = second.shutdown(Duration::ZERO).await;
    until(0).await;
}
