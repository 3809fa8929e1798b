//! The notice of a store to workers that there may be more to claim.

use std::collections::{BTreeSet, VecDeque};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use webhooks_registry::EndpointNumber;

/// The number of probes that a notifier remembers for listeners that are busy.
const MAX_PROBES: usize = 1_024;

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
    /// The number of probes that were ever asked for. It changes under the lock of `probes`.
    asked: AtomicU64,
    /// The last of them.
    probes: Mutex<VecDeque<EndpointNumber>>,
}

impl Changes {
    fn probes(&self) -> MutexGuard<'_, VecDeque<EndpointNumber>> {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

    /// Wakes all listeners, and has them probe endpoints: somebody wants these to be tried now, so a
    /// breaker or a pause that holds one of them ends with the next attempt.
    pub fn probe(&self, endpoints: impl IntoIterator<Item = EndpointNumber>) {
        // A replay names the endpoint of each of its deliveries.
        let endpoints: BTreeSet<EndpointNumber> = endpoints.into_iter().collect();
        {
            let mut probes = self.0.probes();
            for endpoint in endpoints {
                if probes.len() == MAX_PROBES {
                    probes.pop_front();
                }
                probes.push_back(endpoint);
                self.0.asked.fetch_add(1, Ordering::Release);
            }
        }
        self.notify();
    }

    /// Returns a listener.
    pub fn listen(&self) -> ChangeListener {
        let seen = self.0.count.load(Ordering::Acquire);
        let probed = self.0.asked.load(Ordering::Acquire);
        ChangeListener { changes: Arc::clone(&self.0), seen, probed }
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
    /// The number of probes that it has returned, or that were asked for before it.
    probed: u64,
}

impl ChangeListener {
    /// Returns whether the next call of [`changed`](Self::changed) returns at once.
    pub(crate) fn is_due(&self) -> bool {
        self.changes.count.load(Ordering::Acquire) != self.seen
    }

    /// Returns the endpoints to probe that were named since the last call. Of very many, the last ones
    /// are returned.
    pub fn probes(&mut self) -> Vec<EndpointNumber> {
        // Without the lock as a rule: a worker asks in each step.
        if self.changes.asked.load(Ordering::Acquire) == self.probed {
            return Vec::new();
        }
        let probes = self.changes.probes();
        let asked = self.changes.asked.load(Ordering::Acquire);
        let new = asked - std::mem::replace(&mut self.probed, asked);
        let new = usize::try_from(new).unwrap_or(usize::MAX);
        probes.iter().skip(probes.len().saturating_sub(new)).copied().collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_listener_gets_each_probe_once_and_none_from_before() {
        let numbers = |range: std::ops::Range<u64>| range.map(EndpointNumber::from_u64);
        let notifier = ChangeNotifier::new();
        notifier.probe(numbers(0..1));
        let (mut one, mut other) = (notifier.listen(), notifier.listen());
        assert!(one.probes().is_empty() && !one.is_due());
        notifier.probe(numbers(1..3));
        assert!(one.is_due());
        assert!(one.probes().into_iter().eq(numbers(1..3)) && one.probes().is_empty());
        notifier.probe(numbers(3..4));
        assert!(one.probes().into_iter().eq(numbers(3..4)));
        assert!(other.probes().into_iter().eq(numbers(1..4)));
        let more = MAX_PROBES as u64 + 10;
        notifier.probe(numbers(0..more));
        assert!(one.probes().into_iter().eq(numbers(10..more)), "the last ones are remembered");
    }
}
