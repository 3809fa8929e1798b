//! What the tests that kill processes and these processes agree on.

use std::time::Duration;

use webhooks_dispatch::EngineSettings;

/// How many tasks publish at once.
pub const PUBLISHERS: usize = 4;

/// How many exchanges are in flight at once.
pub const CONCURRENCY: usize = 8;

/// How many exchanges may be in flight or not settled yet: what one kill can repeat.
pub const MAX_UNSETTLED: usize = 24;

/// The endpoints of the test with many processes: one as usual, one in order.
pub const ENDPOINTS: [&str; 2] = ["free", "ordered"];

/// How long claims last: what a killed process held is delivered by others after that.
pub const LEASE: Duration = Duration::from_secs(5);

/// Returns the settings of the engines that are killed.
pub fn settings() -> EngineSettings {
    EngineSettings {
        concurrency: CONCURRENCY,
        max_unsettled: MAX_UNSETTLED,
        linger: Duration::from_millis(2),
        lease: LEASE,
        ..EngineSettings::default()
    }
}
