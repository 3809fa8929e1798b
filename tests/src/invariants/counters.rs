//! The counters of a run.

use std::fmt;
use std::ops::AddAssign;

/// Writes one line per counter, each with its name.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident: $text:literal,)*) => {
        /// The number of times that each thing happened, over one run or many.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl AddAssign for Counters {
            fn add_assign(&mut self, other: Self) {
                $(self.$name += other.$name;)*
            }
        }

        impl fmt::Display for Counters {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(writeln!(f, "{:>12} {}", self.$name, $text)?;)*
                Ok(())
            }
        }
    };
}

counters! {
    /// Events that were accepted.
    accepted: "events accepted",
    /// Events that were refused because the store failed.
    refused: "publishes refused",
    /// Events that were published again.
    repeated: "publishes repeated",
    /// Attempts.
    attempts: "exchanges",
    /// Attempts that were answered 2xx.
    successes: "exchanges with 2xx",
    /// First attempts at healthy endpoints while most endpoints hang.
    beside_outage: "exchanges on time beside an outage",
    /// Attempts that the engine stopped.
    broken_off: "exchanges broken off",
    /// Attempts that panicked.
    panics: "panics of the transport",
    /// Requests to an endpoint that had answered 2xx to the same delivery before.
    duplicates: "duplicates, all explained",
    /// Deliveries that were delivered.
    delivered: "deliveries delivered",
    /// Deliveries that failed after their last retry.
    failed: "deliveries failed",
    /// Deliveries that were cancelled.
    cancelled: "deliveries cancelled",
    /// Deliveries that expired.
    expired: "deliveries expired",
    /// Claims that were released.
    released: "claims released",
    /// Leases that ended before their claim was settled.
    lost_leases: "leases that ran out",
    /// Store calls that failed before they did anything.
    failed_before: "store calls that failed undone",
    /// Store calls that did their work, and then failed.
    failed_after: "store calls that failed done",
    /// Store calls that took long.
    stalled: "store calls that stalled",
    /// Workers that were dropped.
    crashes: "workers dropped",
    /// Workers that were shut down.
    shutdowns: "workers shut down",
    /// Endpoints that were disabled, unregistered or replaced.
    endpoint_changes: "endpoints changed",
    /// Groups of commands whose transaction failed.
    groups_failed: "commit groups failed",
    /// Stores that crashed, with all their workers.
    store_crashes: "stores crashed",
    /// Operators' calls that changed something, or were refused.
    operations: "operations",
    /// Events that retention deleted.
    pruned: "events forgotten",
    /// Steps of the wall clock.
    clock_steps: "steps of the wall clock",
    /// Times when a store accepted no events.
    full: "times when a store was full",
    /// Times when pending deliveries could not be read.
    unread: "times when a backlog could not be read",
    /// Breakers that opened.
    openings: "breakers opened",
    /// Deliveries that were replayed.
    replayed: "deliveries replayed",
    /// Observers that panicked.
    observer_panics: "panics of the observer",
}
