//! The rate limit of an endpoint: governor's bucket, under the engine's clock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use webhooks_registry::RateLimit;

use crate::MonotonicTime;

/// A token bucket that starts full.
pub(crate) struct Rate {
    limit: RateLimit,
    now: Now,
    /// How long the bucket takes to refill by one token.
    interval: Duration,
    /// When it is full again if nothing more is taken.
    full_at: MonotonicTime,
    bucket: RateLimiter<NotKeyed, InMemoryState, Now, NoOpMiddleware<Nanos>>,
}

impl Rate {
    pub(crate) fn new(limit: RateLimit, now: MonotonicTime) -> Self {
        let quota = Quota::per_second(limit.per_second).allow_burst(limit.burst);
        let clock = Now::default();
        clock.set(now);
        let interval = quota.replenish_interval();
        let bucket = RateLimiter::direct_with_clock(quota, clock.clone());
        Self { limit, now: clock, interval, full_at: now, bucket }
    }

    /// Returns the limit that it was made for.
    pub(crate) fn limit(&self) -> RateLimit {
        self.limit
    }

    /// Takes a token, or returns when there will be one.
    pub(crate) fn take(&mut self, now: MonotonicTime) -> Result<(), MonotonicTime> {
        self.now.set(now);
        let taken = self.bucket.check();
        taken.map_err(|not_until| now + not_until.wait_time_from(self.now.now()))?;
        self.full_at = self.full_at.max(now) + self.interval;
        Ok(())
    }

    /// Returns whether the bucket is full: one that is made anew allows no more.
    pub(crate) fn is_full(&self, now: MonotonicTime) -> bool {
        self.full_at <= now
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rate").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// The time that the caller said it is, in nanoseconds; it never goes back.
#[derive(Debug, Clone, Default)]
struct Now(Arc<AtomicU64>);

impl Now {
    fn set(&self, now: MonotonicTime) {
        let elapsed = now.saturating_since(MonotonicTime::default()).as_nanos();
        let nanoseconds = u64::try_from(elapsed).unwrap_or(u64::MAX);
        self.0.fetch_max(nanoseconds, Ordering::Relaxed);
    }
}

impl Clock for Now {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let [per_second, burst] = [10, 3].map(|n| NonZeroU32::new(n).unwrap());
        let mut now = MonotonicTime::default();
        let start = now;
        let mut rate = Rate::new(RateLimit { per_second, burst }, now);
        let mut taken = 0;
        while taken < 23 {
            match rate.take(now) {
                Ok(()) => taken += 1,
                Err(until) => {
                    assert!(until > now);
                    now = until;
                }
            }
        }
        let elapsed = now.saturating_since(start).as_millis();
        assert!((2_000..2_010).contains(&elapsed), "20 past the burst take 2 s: {elapsed} ms");
        assert!(!rate.is_full(now + Duration::from_millis(299)));
        assert!(rate.is_full(now + Duration::from_millis(301)));
    }
}
