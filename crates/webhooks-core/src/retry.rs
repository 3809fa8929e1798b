//! The schedule by which failed deliveries are tried again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest delay before jitter: four weeks. A longer one is cut to it.
const MAX_DELAY: Duration = Duration::from_secs(28 * 24 * 60 * 60);

/// The delay of a policy that names none.
const DEFAULT_DELAY: Duration = Duration::from_secs(1);

/// The part of its nominal length by which jitter can lengthen a delay: a fifth.
const JITTER_DIVISOR: u32 = 5;

/// The longest delay that `Retry-After` can ask for, unless the policy sets another: one day.
const DEFAULT_RETRY_AFTER_CAP: Duration = Duration::from_secs(24 * 60 * 60);

/// The schedule by which a failed delivery is tried again: how often, and after which delays.
///
/// The default is 3 retries, 1 second apart. Jitter is on unless turned off: each delay is drawn
/// from its nominal length to a fifth more, never less. Every delay is at most four weeks, before
/// jitter.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use webhooks_core::RetryPolicy;
///
/// let policy = RetryPolicy::exponential(Duration::from_secs(1), Duration::from_secs(60), 8)
///     .without_jitter();
/// let seconds: Vec<u64> = (1..=8).map(|n| policy.delay(n, 0).unwrap().as_secs()).collect();
/// assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
/// assert_eq!(policy.delay(9, 0), None);
/// ```
///
/// Its serialized form is what stores keep of it: the shape and its delays, to the nanosecond.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    shape: Shape,
    retries: u32,
    jitter: Jitter,
    retry_after_cap: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Shape {
    Fixed(Duration),
    Exponential { initial: Duration, cap: Duration },
    Schedule(Vec<Duration>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Jitter {
    Off,
    On,
}

impl RetryPolicy {
    /// Returns a policy of `retries` retries, each after the same delay.
    pub fn fixed(delay: Duration, retries: u32) -> Self {
        Self::of(Shape::Fixed(delay), retries)
    }

    /// Returns a policy of `retries` retries. The first comes after `initial`, each further one
    /// after twice the delay before it, at most `cap`.
    pub fn exponential(initial: Duration, cap: Duration, retries: u32) -> Self {
        Self::of(Shape::Exponential { initial, cap }, retries)
    }

    /// Returns a policy of one retry for each delay listed.
    ///
    /// If [`retries`](Self::retries) later asks for more, the last delay repeats.
    pub fn schedule(delays: impl IntoIterator<Item = Duration>) -> Self {
        let delays: Vec<Duration> = delays.into_iter().collect();
        let retries = u32::try_from(delays.len()).unwrap_or(u32::MAX);
        Self::of(Shape::Schedule(delays), retries)
    }

    /// Returns the schedule of Standard Webhooks 1.0, "Retry schedule": after 5 s, 5 min, 30 min,
    /// 2 h, 5 h, 10 h, 14 h, 20 h and 24 h; ten attempts over 75 hours.
    pub fn standard() -> Self {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        let seconds = [
            5,
            5 * MINUTE,
            30 * MINUTE,
            2 * HOUR,
            5 * HOUR,
            10 * HOUR,
            14 * HOUR,
            20 * HOUR,
            24 * HOUR,
        ];
        Self::schedule(seconds.map(Duration::from_secs))
    }

    /// Returns a policy that never retries. If [`retries`](Self::retries) asks for some all the same,
    /// each comes after 1 s.
    pub fn none() -> Self {
        Self::fixed(DEFAULT_DELAY, 0)
    }

    fn of(shape: Shape, retries: u32) -> Self {
        let retry_after_cap = DEFAULT_RETRY_AFTER_CAP;
        Self { shape, retries, jitter: Jitter::On, retry_after_cap }
    }

    /// Sets the number of retries, keeping the delays.
    #[must_use]
    pub fn retries(self, retries: u32) -> Self {
        Self { retries, ..self }
    }

    /// Makes every delay exactly its nominal length.
    #[must_use]
    pub fn without_jitter(self) -> Self {
        Self { jitter: Jitter::Off, ..self }
    }

    /// Sets the longest delay that a `Retry-After` header can ask for; one day unless set.
    #[must_use]
    pub fn retry_after_cap(self, cap: Duration) -> Self {
        Self { retry_after_cap: cap, ..self }
    }

    /// Returns how long to wait before retry number `retry`, counted from 1; `None` when the
    /// retries are spent.
    ///
    /// `random` places the delay within the jitter: 0 gives the shortest delay, `u32::MAX` the longest.
    pub fn delay(&self, retry: u32, random: u32) -> Option<Duration> {
        if retry == 0 || retry > self.retries {
            return None;
        }
        let nominal = self.nominal(retry).min(MAX_DELAY);
        let extra = match self.jitter {
            Jitter::Off => Duration::ZERO,
            Jitter::On => {
                (nominal / JITTER_DIVISOR).mul_f64(f64::from(random) / f64::from(u32::MAX))
            }
        };
        Some(nominal.saturating_add(extra))
    }

    /// Returns the delays before the retries, in their order and without jitter.
    pub fn delays(&self) -> impl Iterator<Item = Duration> {
        (1..=self.retries).map(|retry| self.nominal(retry).min(MAX_DELAY))
    }

    /// Returns [`delay`](Self::delay), or what the receiver asked for by `Retry-After`
    /// (RFC 9110 §10.2.3) if that is longer, up to the policy's cap.
    pub fn delay_after(
        &self,
        retry: u32,
        random: u32,
        retry_after: Option<Duration>,
    ) -> Option<Duration> {
        let asked = self.capped(retry_after.unwrap_or_default());
        self.delay(retry, random).map(|delay| delay.max(asked))
    }

    /// Returns the delay that a receiver asked for by `Retry-After`, cut to the policy's cap.
    pub fn capped(&self, retry_after: Duration) -> Duration {
        retry_after.min(self.retry_after_cap)
    }

    fn nominal(&self, retry: u32) -> Duration {
        let index = retry.saturating_sub(1);
        match &self.shape {
            Shape::Fixed(delay) => *delay,
            Shape::Exponential { initial, cap } => {
                // From retry 33 on the factor stays the same: if the power wrapped, delays would
                // start again at `initial`.
                let factor = 2_u32.checked_pow(index).unwrap_or(u32::MAX);
                initial.saturating_mul(factor).min(*cap)
            }
            Shape::Schedule(delays) => {
                let index = usize::try_from(index).unwrap_or(usize::MAX);
                delays.get(index).or_else(|| delays.last()).copied().unwrap_or(DEFAULT_DELAY)
            }
        }
    }
}

impl Default for RetryPolicy {
    /// Returns 3 retries, 1 second apart, with jitter.
    fn default() -> Self {
        Self::fixed(DEFAULT_DELAY, 3)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_standard_schedule_takes_75_hours() {
        let policy = RetryPolicy::standard().without_jitter();
        let total: Duration = (1..).map_while(|n| policy.delay(n, 0)).sum();
        assert_eq!(total, Duration::from_secs(75 * 3600 + 35 * 60 + 5));
    }

    #[test]
    fn a_schedule_asked_for_more_repeats_its_last_delay() {
        let policy = RetryPolicy::schedule([1, 5].map(Duration::from_secs)).without_jitter();
        let policy = policy.retries(4);
        let seconds: Vec<u64> =
            (1..).map_while(|n| policy.delay(n, 0)).map(|delay| delay.as_secs()).collect();
        assert_eq!(seconds, [1, 5, 5, 5]);
    }

    #[test]
    fn a_policy_without_delays_does_not_hammer_when_asked_for_retries() {
        for policy in [RetryPolicy::none(), RetryPolicy::schedule([])] {
            assert_eq!(policy.delay(1, 0), None);
            assert_eq!(policy.retries(1).delay(1, 0), Some(Duration::from_secs(1)));
        }
    }

    #[test]
    fn retry_after_delays_further_never_less_up_to_the_cap() {
        let policy = RetryPolicy::fixed(Duration::from_secs(10), 1)
            .without_jitter()
            .retry_after_cap(Duration::from_secs(60));
        let after = |seconds| policy.delay_after(1, 0, Some(Duration::from_secs(seconds)));
        assert_eq!(after(3), Some(Duration::from_secs(10)));
        assert_eq!(after(30), Some(Duration::from_secs(30)));
        assert_eq!(after(3600), Some(Duration::from_secs(60)));
        assert_eq!(policy.delay_after(2, 0, Some(Duration::from_secs(1))), None);
    }

    fn duration() -> impl Strategy<Value = Duration> {
        prop_oneof![
            (0..100_000_u64).prop_map(Duration::from_millis),
            any::<u64>().prop_map(Duration::from_secs),
            Just(Duration::MAX),
        ]
    }

    fn policy() -> impl Strategy<Value = RetryPolicy> {
        prop_oneof![
            (duration(), 0..20_u32).prop_map(|(delay, n)| RetryPolicy::fixed(delay, n)),
            (duration(), duration(), 0..200_u32)
                .prop_map(|(initial, cap, n)| RetryPolicy::exponential(initial, cap, n)),
            (vec(duration(), 0..20), 0..40_u32)
                .prop_map(|(delays, n)| RetryPolicy::schedule(delays).retries(n)),
        ]
    }

    proptest! {
        #[test]
        fn there_are_exactly_as_many_delays_as_retries(policy in policy(), random: u32) {
            for retry in 0..300 {
                let is_left = (1..=policy.retries).contains(&retry);
                prop_assert_eq!(policy.delay(retry, random).is_some(), is_left);
            }
        }

        #[test]
        fn a_stored_policy_is_read_back_as_it_was(policy in policy()) {
            let stored = serde_json::to_string(&policy).unwrap();
            prop_assert_eq!(serde_json::from_str::<RetryPolicy>(&stored).unwrap(), policy);
        }

        #[test]
        fn jitter_adds_up_to_a_fifth_and_takes_nothing(policy in policy(), random: u32) {
            let nominal = policy.clone().without_jitter();
            for retry in 1..=policy.retries {
                let least = nominal.delay(retry, random).unwrap();
                let drawn = policy.delay(retry, random).unwrap();
                prop_assert!(least <= MAX_DELAY);
                prop_assert!((least..=least + least / JITTER_DIVISOR).contains(&drawn));
            }
            if policy.retries > 0 {
                prop_assert_eq!(policy.delay(1, 0), nominal.delay(1, 0));
            }
        }

        #[test]
        fn exponential_delays_never_shrink(initial in duration(), cap in duration(), random: u32) {
            let policy = RetryPolicy::exponential(initial, cap, 100);
            let delays: Vec<_> = (1..=100).map(|n| policy.delay(n, random)).collect();
            prop_assert!(delays.is_sorted());
        }

        #[test]
        fn a_larger_draw_never_shortens_the_delay(policy in policy(), a: u32, b: u32) {
            prop_assert!(policy.delay(1, a.min(b)) <= policy.delay(1, a.max(b)));
        }
    }
}
