//! The rate limit of an endpoint.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::EndpointError;
use crate::error::check_ranges;

/// The most calls per period, and the most that a bucket may hold.
const MAX_CALLS: u32 = 1_000_000;
const MAX_BURST: u32 = 100_000;

/// The shortest and the longest period.
const PERIODS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 60 * 60));

/// The limit of calls to an endpoint: a token bucket.
///
/// # Example
/// ```
/// use std::num::NonZeroU32;
/// use std::time::Duration;
/// use webhooks_registry::{Endpoint, RateLimit};
///
/// let one = NonZeroU32::MIN;
/// let each_minute = RateLimit { calls: one, per: Duration::from_secs(60), burst: one };
/// let endpoint = Endpoint::new("https://example.com/", "my-secret-key")?.rate_limited(each_minute);
/// assert!(endpoint.check().is_ok());
/// # Ok::<(), webhooks_registry::EndpointError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "a bucket has a rate and a size, nothing else")]
pub struct RateLimit {
    /// The number of calls that are added to the bucket per period: 1,000,000 at most.
    pub calls: NonZeroU32,
    /// The period: from 1 s to 24 h.
    pub per: Duration,
    /// The number of calls in a full bucket, which may be made at once: 100,000 at most. An engine
    /// counts with the calls of 10 ms at least.
    pub burst: NonZeroU32,
}

impl RateLimit {
    /// Returns a limit of `calls` per second.
    pub fn per_second(calls: NonZeroU32, burst: NonZeroU32) -> Self {
        Self { calls, per: Duration::from_secs(1), burst }
    }

    /// Returns the time between two calls once the bucket is empty.
    pub fn interval(self) -> Duration {
        self.per / self.calls.get()
    }

    /// Returns the number of calls in a full bucket that an engine counts with: at least the calls of
    /// 10 ms. A timer may wake it as late as that, and calls that it could not make meanwhile would
    /// be lost.
    pub fn bucket(self) -> NonZeroU32 {
        const LATENESS: Duration = Duration::from_millis(10);
        let calls = LATENESS.as_nanos() / self.interval().as_nanos().max(1);
        let calls = u32::try_from(calls).ok().and_then(NonZeroU32::new);
        calls.map_or(self.burst, |calls| self.burst.max(calls))
    }

    /// Returns the largest number of calls within `span`, if the bucket is full at its start.
    pub fn most_within(self, span: Duration) -> usize {
        let calls = span.as_nanos() / self.interval().as_nanos().max(1);
        let calls = calls.saturating_add(u128::from(self.bucket().get()));
        usize::try_from(calls).unwrap_or(usize::MAX)
    }

    /// Returns `Ok` if the limit is in its range.
    pub(crate) fn check(self) -> Result<(), EndpointError> {
        let (shortest, longest) = PERIODS;
        check_ranges([
            (self.calls.get() <= MAX_CALLS, "calls of the rate limit", "from 1 to 1000000"),
            (
                (shortest..=longest).contains(&self.per),
                "period of the rate limit",
                "from 1 s to 24 h",
            ),
            (self.burst.get() <= MAX_BURST, "burst of the rate limit", "from 1 to 100000"),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Endpoint;

    #[test]
    fn limits_are_bounded() {
        let count = |number| NonZeroU32::new(number).unwrap();
        let is_allowed = |calls, milliseconds, burst| {
            let per = Duration::from_millis(milliseconds);
            let limit = RateLimit { calls: count(calls), per, burst: count(burst) };
            let endpoint = Endpoint::new("https://example.com/", "my-secret-key").unwrap();
            endpoint.rate_limited(limit).check().is_ok()
        };
        assert!(is_allowed(1, 1_000, 1));
        assert!(is_allowed(MAX_CALLS, 86_400_000, MAX_BURST));
        assert!(!is_allowed(MAX_CALLS + 1, 1_000, 1));
        assert!(!is_allowed(1, 999, 1));
        assert!(!is_allowed(1, 86_400_001, 1));
        assert!(!is_allowed(1, 1_000, MAX_BURST + 1));
    }

    #[test]
    fn calls_are_spread_over_the_period() {
        let limit = RateLimit {
            calls: NonZeroU32::new(4).unwrap(),
            per: Duration::from_secs(60),
            burst: NonZeroU32::MIN,
        };
        assert_eq!(limit.interval(), Duration::from_secs(15));
        let within = [0, 14, 15, 60].map(|seconds| limit.most_within(Duration::from_secs(seconds)));
        assert_eq!(within, [1, 1, 2, 5]);
    }

    #[test]
    fn a_bucket_holds_the_calls_of_ten_milliseconds() {
        let check = |calls: u32, burst: u32, expected: u32| {
            let [calls, burst] = [calls, burst].map(|count| NonZeroU32::new(count).unwrap());
            assert_eq!(RateLimit::per_second(calls, burst).bucket().get(), expected);
        };
        check(1, 1, 1);
        check(100, 1, 1);
        check(1_000, 1, 10);
        check(1_000, 50, 50);
        check(1_000_000, 1, 10_000);
    }
}
