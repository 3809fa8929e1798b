//! The rate limit of an endpoint: the bucket of `governor`, with the engine's clock.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use webhooks_registry::RateLimit;

use crate::clock::MonotonicTime;

/// The bounds within which `governor` can count in nanoseconds; registries allow no more.
const SHORTEST_INTERVAL: Duration = Duration::from_nanos(1);
const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(99_999);

/// A token bucket that starts full.
pub(crate) struct Rate {
    limit: RateLimit,
    clock: BucketClock,
    /// The time in which the bucket gets one token.
    interval: Duration,
    /// The time at which it is full again if nothing more is taken.
    full_at: MonotonicTime,
    bucket: RateLimiter<NotKeyed, InMemoryState, BucketClock, NoOpMiddleware<Nanos>>,
}

impl Rate {
    pub(crate) fn new(limit: RateLimit, now: MonotonicTime) -> Self {
        let interval = limit.interval().clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL);
        // An interval of zero has no quota; `clamp` has excluded it.
        let quota = Quota::with_period(interval).unwrap_or_else(|| Quota::per_second(limit.calls));
        let quota = quota.allow_burst(limit.burst.min(MAX_BURST));
        // Before the bucket is made, which then reads the clock for its start.
        let clock = BucketClock::default();
        clock.set(now);
        let bucket = RateLimiter::direct_with_clock(quota, clock.clone());
        Self { limit, clock, interval, full_at: now, bucket }
    }

    /// Returns the limit.
    pub(crate) fn limit(&self) -> RateLimit {
        self.limit
    }

    /// Takes a token, or returns the time at which there is one.
    pub(crate) fn take(&mut self, now: MonotonicTime) -> Result<(), MonotonicTime> {
        self.clock.set(now);
        let taken = self.bucket.check();
        taken.map_err(|not_until| now + not_until.wait_time_from(self.clock.now()))?;
        self.full_at = self.full_at.max(now) + self.interval;
        Ok(())
    }

    /// Returns the number of tokens in the bucket.
    pub(crate) fn tokens(&self, now: MonotonicTime) -> u32 {
        let refills_in = self.full_at.saturating_since(now).as_nanos();
        let missing = refills_in.div_ceil(self.interval.as_nanos().max(1));
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        self.limit.burst.min(MAX_BURST).get().saturating_sub(missing)
    }

    /// Returns whether the bucket is full. Then it can be dropped: a new one allows no more.
    pub(crate) fn is_full(&self, now: MonotonicTime) -> bool {
        self.full_at <= now
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rate").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// The time that the caller set last, in nanoseconds. It never goes back.
#[derive(Debug, Clone, Default)]
struct BucketClock(Arc<AtomicU64>);

impl BucketClock {
    fn set(&self, now: MonotonicTime) {
        let elapsed = now.saturating_since(MonotonicTime::default()).as_nanos();
        let nanoseconds = u64::try_from(elapsed).unwrap_or(u64::MAX);
        self.0.fetch_max(nanoseconds, Ordering::Relaxed);
    }
}

impl Clock for BucketClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limit(calls: u32, per: Duration, burst: u32) -> RateLimit {
        let [calls, burst] = [calls, burst].map(|n| NonZeroU32::new(n).unwrap());
        RateLimit { calls, per, burst }
    }

    /// Takes `tokens` tokens as soon as they are there; returns the time of the last one.
    fn take(rate: &mut Rate, tokens: u32, mut now: MonotonicTime) -> MonotonicTime {
        let mut taken = 0;
        while taken < tokens {
            match rate.take(now) {
                Ok(()) => taken += 1,
                Err(until) => {
                    assert!(until > now);
                    now = until;
                }
            }
        }
        now
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let start = MonotonicTime::default();
        for (per, milliseconds) in [(1, 2_000), (60, 120_000), (3_600, 7_200_000)] {
            let mut rate = Rate::new(limit(10, Duration::from_secs(per), 3), start);
            let now = take(&mut rate, 23, start);
            let elapsed = now.saturating_since(start).as_millis();
            let expected = milliseconds..=milliseconds + 1;
            assert!(expected.contains(&elapsed), "20 past the burst take 2 periods: {elapsed} ms");
            let refills_in = Duration::from_millis(300) * u32::try_from(per).unwrap();
            let millisecond = Duration::from_millis(1);
            assert!(!rate.is_full(now + refills_in.saturating_sub(millisecond)));
            assert!(rate.is_full(now + refills_in + millisecond));
        }
    }

    #[test]
    fn its_tokens_are_those_that_can_be_taken() {
        let start = MonotonicTime::default();
        let mut rate = Rate::new(limit(10, Duration::from_secs(1), 3), start);
        assert_eq!(rate.tokens(start), 3);
        take(&mut rate, 3, start);
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        let tokens = [0, 99, 100, 299, 300, 9_000].map(|time| rate.tokens(after(time)));
        assert_eq!(tokens, [0, 0, 1, 2, 3, 3]);
    }

    proptest! {
        #[test]
        fn no_limit_panics_and_a_burst_goes_at_once(
            calls in 1_u32.., nanoseconds: u64, burst in 1_u32.., at: u64,
        ) {
            let now = MonotonicTime::from_origin(Duration::from_nanos(at / 4));
            let mut rate = Rate::new(limit(calls, Duration::from_nanos(nanoseconds), burst), now);
            prop_assert_eq!(take(&mut rate, burst.min(100), now), now);
            let _later = take(&mut rate, 3, now);
        }
    }
}
