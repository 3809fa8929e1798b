//! An observer that counts deliveries.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use webhooks_dispatch::observer::{Observer, Occurrence};

#[derive(Debug, Clone, Default)]
pub(crate) struct Delivered(Arc<AtomicUsize>, Arc<Notify>);

impl Delivered {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Waits until `count` deliveries have reached their endpoints.
    pub(crate) async fn wait_for(&self, count: usize) {
        while self.count() < count {
            self.1.notified().await;
        }
    }
}

impl Observer for Delivered {
    fn observe(&self, occurrence: &Occurrence<'_>) {
        if matches!(occurrence, Occurrence::Delivered { .. }) {
            self.0.fetch_add(1, Ordering::Relaxed);
            self.1.notify_one();
        }
    }
}
