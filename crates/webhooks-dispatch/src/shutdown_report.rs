//! The report of how a worker ended.

/// A report of how a worker ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// The number of deliveries whose claims were released before an attempt started.
    pub released: usize,
    /// The number of attempts that were broken off when the grace time ended. Their deliveries are
    /// due again, and the receiver may have got them.
    pub broken_off: usize,
    /// The number of results that could not be settled: the store failed to the end, or the grace
    /// time was shorter than `linger`. Their deliveries are due again: at once if the store then
    /// takes the release, else when their leases end.
    pub unsettled: usize,
    /// The number of deliveries that still wait in the store, for any worker: at most 10,000 are
    /// counted. `None` if the store failed.
    pub waiting: Option<u64>,
    /// The number of times that a part of the worker panicked and the worker went on.
    pub failures: u64,
    /// Set if the worker had ended by itself before, because of a bug. Its deliveries are due again
    /// when their leases end. The other numbers are unknown then, and zero.
    pub had_died: bool,
}
