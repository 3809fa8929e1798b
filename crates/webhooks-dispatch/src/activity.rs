//! Counts of a store's work in this process: its commits, and its connections.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The number of buckets; the last one has no bound.
const BUCKETS: usize = 17;

/// The upper bounds of the buckets in microseconds, inclusive: from a commit of a file to the timeout of an
/// exchange.
const BOUNDS: [u64; BUCKETS - 1] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 10_000_000, 30_000_000,
];

/// A histogram of durations that many tasks count into, without a lock.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use webhooks_dispatch::monitor::DurationHistogram;
///
/// let histogram = DurationHistogram::default();
/// histogram.record(Duration::from_millis(3));
/// let counts = histogram.read();
/// assert_eq!((counts.count(), counts.sum), (1, Duration::from_millis(3)));
/// ```
#[derive(Debug, Default)]
pub struct DurationHistogram {
    buckets: [AtomicU64; BUCKETS],
    micros: AtomicU64,
}

impl DurationHistogram {
    /// Counts a duration.
    pub fn record(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let place = BOUNDS.partition_point(|bound| *bound < micros);
        self.buckets[place].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Returns the counts so far. A duration that is counted meanwhile may be in one of them and not yet in
    /// another.
    pub fn read(&self) -> DurationCounts {
        let mut counts = DurationCounts::default();
        for (count, bucket) in counts.counts.iter_mut().zip(&self.buckets) {
            *count = bucket.load(Ordering::Relaxed);
        }
        counts.sum = Duration::from_micros(self.micros.load(Ordering::Relaxed));
        counts
    }
}

/// The counts of a [`DurationHistogram`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DurationCounts {
    counts: [u64; BUCKETS],
    /// The sum of all durations.
    pub sum: Duration,
}

impl DurationCounts {
    /// Returns the upper bounds of the buckets, each with the number of durations in it. The last bucket
    /// has no bound.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let bounds = BOUNDS.into_iter().map(Duration::from_micros).map(Some).chain([None]);
        bounds.zip(self.counts)
    }

    /// Returns the number of durations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// The number of calls that wait now, for a connection for example.
#[derive(Debug, Default)]
pub struct Waiting(AtomicU64);

/// A call that waits, until it is dropped.
#[derive(Debug)]
#[must_use = "a call that is dropped no longer waits"]
pub struct WaitingCall<'a>(&'a Waiting);

impl Waiting {
    /// Counts a call that begins to wait.
    // Not a function around the call's future: it would double the size of that.
    pub fn begin(&self) -> WaitingCall<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        WaitingCall(self)
    }

    /// Returns the present number.
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for WaitingCall<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A store's work in this process since it was opened. A store in memory has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct StoreActivity {
    /// The times that commits took, if the store commits. SQLite: from the begin of a transaction to the end
    /// of its commit, on the connection that writes. PostgreSQL: from the moment at which a call has its
    /// connection to the end of its statement or transaction, on the connections that may write.
    pub commits: DurationCounts,
    /// The calls that these commits stored. There are more calls than commits if a commit stores a group of
    /// them.
    pub calls: u64,
    /// The connections, by their use.
    pub connections: Vec<ConnectionGauges>,
}

/// The connections of a store for one use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct ConnectionGauges {
    /// The use: `write` or `read`.
    pub purpose: &'static str,
    /// The most connections that may be open at once.
    pub max: u64,
    /// The open connections that nobody uses.
    pub idle: u64,
    /// The connections in use.
    pub in_use: u64,
    /// The calls that wait for one.
    pub waiting: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_waits_until_it_is_dropped() {
        let waiting = Waiting::default();
        let (one, another) = (waiting.begin(), waiting.begin());
        assert_eq!(waiting.read(), 2);
        drop(one);
        assert_eq!(waiting.read(), 1);
        drop(another);
        assert_eq!(waiting.read(), 0);
    }

    #[test]
    fn a_duration_is_counted_in_the_first_bucket_that_holds_it() {
        for (micros, bound) in [
            (0, Some(100)),
            (100, Some(100)),
            (101, Some(250)),
            (30_000_000, Some(30_000_000)),
            (30_000_001, None),
        ] {
            let histogram = DurationHistogram::default();
            histogram.record(Duration::from_micros(micros));
            let counts = histogram.read();
            let found: Vec<_> = counts.buckets().filter(|(_, count)| *count > 0).collect();
            assert_eq!(found, [(bound.map(Duration::from_micros), 1)], "{micros}");
            assert_eq!((counts.count(), counts.sum), (1, Duration::from_micros(micros)));
        }
    }
}
