//! How an engine works: its bounds and defaults.

use std::time::Duration;

use tokio::sync::Semaphore;
use webhooks_core::RetryPolicy;

use crate::breaker::BreakerSettings;

/// How long a lease may be. When a worker extends it, a quarter is left at worst: enough for a call that
/// fails, the pause after it, and another call. No lease needs to be long, since it is extended, and
/// after a crash it is waited for.
const LEASE: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(60 * 60));

/// The longest time that results are gathered: a quarter of the shortest lease, so that they are settled
/// while their leases last.
const MAX_LINGER: Duration = Duration::from_secs(1);

/// Publishing is idempotent for as long as events are remembered.
const MIN_RETENTION: Duration = Duration::from_secs(60);

/// How an engine works. Every bound has a default that suits a small server.
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
    /// How many exchanges start and are in flight at once: 256 unless set. Those that last longer
    /// than `slow_after` count apart, and there may be four times as many. Of 8 and more a part is
    /// kept for endpoints that answer quickly, so that those that hang never have all.
    pub concurrency: usize,
    /// How long an exchange may last before it counts as slow: 1 s unless set.
    pub slow_after: Duration,
    /// How long a claim lasts before another worker may take the delivery over: 60 s unless set.
    /// A live worker extends its claims. From 4 s to an hour.
    pub lease: Duration,
    /// How long results are gathered before they are settled together: 5 ms unless set, 1 s at most.
    pub linger: Duration,
    /// How many exchanges may be in flight or not settled yet: 2,048 unless set. A crash can
    /// repeat so many.
    pub max_unsettled: usize,
    /// When a failed delivery is tried again whose endpoint does not say it: by the Standard Webhooks
    /// schedule, nine times over 75 hours, unless set.
    pub retry: RetryPolicy,
    /// When an endpoint in trouble is left alone.
    pub breaker: BreakerSettings,
    /// How long an endpoint may be tried and fail each time before it is disabled: 5 days unless
    /// set; never if `None`. Pauses of more than 30 hours without an attempt count for nothing, and
    /// a delivery that has retries left is tried to its end.
    pub disable_after: Option<Duration>,
    /// How long events are remembered whose deliveries have ended: 30 days unless set, at least a
    /// minute. Publishing is idempotent for as long.
    pub retention: Duration,
    /// How large an event's body may be, in bytes: 1 MiB unless set.
    pub max_body: usize,
    /// The seed of the jitter, so that a run can be repeated; random if `None`.
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

/// Bounds what would bring the engine to a standstill, or forget events that it has just accepted.
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
