//! The settings of an engine: its bounds and defaults.

use std::time::Duration;

use tokio::sync::Semaphore;
use webhooks_core::RetryPolicy;

use crate::breaker::BreakerSettings;

/// The bounds of a lease. When a worker extends it, at least a quarter is left: enough for a call
/// that fails, the pause after it, and another call. A long lease is of no use: a live worker
/// extends it, and after a crash its deliveries wait for its end.
const LEASE: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(60 * 60));

/// The upper bound of `linger`: a quarter of the shortest lease, so that results are settled while
/// their leases last.
const MAX_LINGER: Duration = Duration::from_secs(1);

/// The lower bound of `retention`: publishing is idempotent for as long as events are remembered.
pub(crate) const MIN_RETENTION: Duration = Duration::from_secs(60);

/// The part of the time until an endpoint is disabled after which observers are warned.
const WARNED_AFTER: u32 = 10;

/// The settings of an engine. Every bound has a default that suits a small server.
///
/// # Example
/// ```
/// use webhooks_dispatch::{Engine, EngineSettings, FnTransport, MemoryStore};
///
/// let transport = FnTransport::new(|_, _, _, _| async { (200, "") });
/// let settings = EngineSettings { concurrency: 64, ..EngineSettings::default() };
/// let engine = Engine::builder(MemoryStore::new(), transport).settings(settings).build();
/// ```
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "users build it")]
pub struct EngineSettings {
    /// The number of attempts that may be in flight at once, without slow ones: 256 unless set.
    ///
    /// Attempts that take longer than `slow_after` count apart; there may be four times as many.
    /// From 8 on, a part is reserved for endpoints that answer quickly, so that endpoints that hang
    /// never use all.
    pub concurrency: usize,
    /// The time after which an attempt counts as slow: 1 s unless set.
    pub slow_after: Duration,
    /// The time after which another worker may claim the deliveries of a dead one: 60 s unless set,
    /// from 4 s to an hour. A live worker extends its claims.
    pub lease: Duration,
    /// The time for which results are gathered to be settled together: 5 ms unless set, at most a
    /// second.
    pub linger: Duration,
    /// The number of attempts that may be in flight or not settled yet: 2,048 unless set. A crash
    /// can repeat this many.
    pub max_unsettled: usize,
    /// The retry policy of endpoints that have none of their own. Unless set, it is the Standard
    /// Webhooks schedule: nine retries over 75 hours.
    pub retry: RetryPolicy,
    /// The circuit breaker of each endpoint.
    pub breaker: BreakerSettings,
    /// The time for which all attempts of an endpoint must fail before it is disabled: 5 days
    /// unless set; never if `None`. A pause of more than 30 hours without an attempt does not
    /// count. A delivery that has retries left is tried to its end.
    pub disable_after: Option<Duration>,
    /// The time for which events are remembered whose deliveries have ended: 30 days unless set, at
    /// least a minute. Publishing is idempotent for this time.
    pub retention: Duration,
    /// The largest body of an event, in bytes: 1 MiB unless set.
    pub max_body: usize,
    /// The seed of the jitter, to repeat a run; random if `None`.
    pub seed: Option<u64>,
}

impl Default for EngineSettings {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            concurrency: 256,
            slow_after: Duration::from_secs(1),
            lease: Duration::from_secs(60),
            linger: Duration::from_millis(5),
            max_unsettled: 2_048,
            retry: RetryPolicy::standard(),
            breaker: BreakerSettings::default(),
            disable_after: Some(5 * DAY),
            retention: 30 * DAY,
            max_body: 1024 * 1024,
            seed: None,
        }
    }
}

impl EngineSettings {
    /// Returns the time for which all attempts of an endpoint must fail before observers are warned
    /// ([`EndpointFailing`](crate::observer::Occurrence::EndpointFailing)): a tenth of
    /// [`disable_after`](Self::disable_after).
    pub fn warn_after(&self) -> Option<Duration> {
        self.disable_after.map(|span| span / WARNED_AFTER)
    }
}

/// Bounds settings that would stop the engine, or forget events that it has just accepted.
pub(crate) fn bounded(settings: EngineSettings) -> EngineSettings {
    EngineSettings {
        concurrency: settings.concurrency.max(1),
        max_unsettled: settings.max_unsettled.clamp(1, Semaphore::MAX_PERMITS),
        lease: settings.lease.clamp(LEASE.0, LEASE.1),
        linger: settings.linger.min(MAX_LINGER),
        retention: settings.retention.max(MIN_RETENTION),
        ..settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_would_stop_it_are_raised_and_others_are_kept() {
        let nothing = EngineSettings {
            concurrency: 0,
            max_unsettled: 0,
            lease: Duration::ZERO,
            linger: Duration::MAX,
            retention: Duration::ZERO,
            ..EngineSettings::default()
        };
        let raised = bounded(nothing);
        assert_eq!((raised.concurrency, raised.max_unsettled), (1, 1));
        assert_eq!((raised.lease, raised.linger), (LEASE.0, MAX_LINGER));
        assert_eq!(raised.retention, MIN_RETENTION);
        let endless = EngineSettings { lease: Duration::MAX, ..EngineSettings::default() };
        assert_eq!(bounded(endless).lease, LEASE.1);
        let usual = EngineSettings::default();
        assert_eq!(format!("{:?}", bounded(usual.clone())), format!("{usual:?}"));
    }
}
