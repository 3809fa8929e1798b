//! The notice of a store to workers that there may be more to claim.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// The notifier of a store. It wakes the workers that hold a [`ChangeListener`], in the order in
/// which they began to wait.
#[derive(Debug, Clone)]
pub struct ChangeNotifier(Arc<Changes>);

/// The number of changes. A `watch` channel would wake in random order, and a seed would not repeat
/// a run.
#[derive(Debug, Default)]
struct Changes {
    count: AtomicU64,
    notify: Notify,
}

impl ChangeNotifier {
    /// Returns a notifier without listeners.
    pub fn new() -> Self {
        Self(Arc::default())
    }

    /// Wakes all listeners, now or when they next wait.
    pub fn notify(&self) {
        // The count first: a listener that wakes and finds the old count would wait again.
        self.0.count.fetch_add(1, Ordering::Release);
        self.0.notify.notify_waiters();
    }

    /// Returns a listener.
    pub fn listen(&self) -> ChangeListener {
        let seen = self.0.count.load(Ordering::Acquire);
        ChangeListener { changes: Arc::clone(&self.0), seen }
    }
}

impl Default for ChangeNotifier {
    fn default() -> Self {
        Self::new()
    }
}

/// A listener of a worker for changes of a store.
#[derive(Debug)]
pub struct ChangeListener {
    changes: Arc<Changes>,
    seen: u64,
}

impl ChangeListener {
    /// Returns whether the next call of [`changed`](Self::changed) returns at once.
    pub(crate) fn is_due(&self) -> bool {
        self.changes.count.load(Ordering::Acquire) != self.seen
    }

    /// Waits until something has changed since the last call. It never returns once the store is
    /// gone.
    ///
    /// # Cancellation
    /// A dropped future misses nothing: a change meanwhile ends the next call.
    pub async fn changed(&mut self) {
        loop {
            let mut notified = pin!(self.changes.notify.notified());
            // From here on a change is noticed: either the count has moved, or this is woken.
            notified.as_mut().enable();
            let count = self.changes.count.load(Ordering::Acquire);
            if count != self.seen {
                self.seen = count;
                return;
            }
            notified.await;
        }
    }
}
