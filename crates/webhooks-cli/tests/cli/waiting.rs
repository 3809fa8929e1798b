//! Waiting for what another process does.

use std::time::Duration;

use webhooks_dispatch::clock::{Clock as _, SystemClock};

/// The longest time for something to happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until something is true. A failure tells `what`.
#[track_caller]
pub(crate) fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let start = SystemClock.monotonic();
    while !is_true() {
        let waited = SystemClock.monotonic().saturating_since(start);
        assert!(waited < PATIENCE, "not in time: {what}");
        std::thread::yield_now();
    }
}
