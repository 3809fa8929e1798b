//! The rate limit of an endpoint: a token bucket, as the generic cell rate algorithm counts it.
//!
//! The state is one time: that at which the bucket is full again. ITU-T I.371 (GCRA) calls it the
//! theoretical arrival time of the next cell.

use std::num::NonZeroU32;
use std::time::Duration;

use webhooks_registry::RateLimit;

use crate::clock::MonotonicTime;

/// A token bucket that starts full.
#[derive(Debug)]
pub(crate) struct Rate {
    limit: RateLimit,
    /// The time in which the bucket gets one token.
    interval: Duration,
    /// The number of tokens in a full bucket.
    size: NonZeroU32,
    /// The time at which it is full again if nothing more is taken.
    full_at: MonotonicTime,
}

impl Rate {
    pub(crate) fn new(limit: RateLimit, now: MonotonicTime) -> Self {
        // Endpoints have no shorter interval. With none there would be tokens without end.
        let interval = limit.interval().max(Duration::from_nanos(1));
        Self { limit, interval, size: limit.bucket(), full_at: now }
    }

    /// Returns the limit.
    pub(crate) fn limit(&self) -> RateLimit {
        self.limit
    }

    /// Takes a token, or returns the time at which there is one.
    pub(crate) fn take(&mut self, now: MonotonicTime) -> Result<(), MonotonicTime> {
        if let Some(until) = self.next_token(now) {
            return Err(until);
        }
        self.full_at = self.full_at.max(now) + self.interval;
        Ok(())
    }

    /// Returns the time at which there is a token, if there is none now.
    pub(crate) fn next_token(&self, now: MonotonicTime) -> Option<MonotonicTime> {
        let one_left = self.interval.saturating_mul(self.size.get() - 1);
        let wait = self.full_at.saturating_since(now).saturating_sub(one_left);
        (!wait.is_zero()).then(|| now + wait)
    }

    /// Returns the number of tokens in the bucket.
    pub(crate) fn tokens(&self, now: MonotonicTime) -> u32 {
        u32::try_from(self.tokens_within(now, Duration::ZERO)).unwrap_or(u32::MAX)
    }

    /// Returns the number of tokens that can be taken within `span`, each as soon as it is there.
    pub(crate) fn tokens_within(&self, now: MonotonicTime, span: Duration) -> usize {
        let missing = self.full_at.saturating_since(now).as_nanos();
        let full = self.interval.as_nanos() * u128::from(self.size.get());
        let tokens = (full + span.as_nanos()).saturating_sub(missing) / self.interval.as_nanos();
        usize::try_from(tokens).unwrap_or(usize::MAX)
    }

    /// Returns whether the bucket is full. Then it can be dropped: a new one allows no more.
    pub(crate) fn is_full(&self, now: MonotonicTime) -> bool {
        self.full_at <= now
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
        let within =
            [0, 50, 1_000].map(|time| rate.tokens_within(after(50), Duration::from_millis(time)));
        assert_eq!(within, [0, 1, 10]);
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
