//! The circuit breaker: an endpoint in trouble is left alone, and probed.

use std::time::Duration;

use crate::MonotonicTime;

/// When an endpoint in trouble is left alone, and for how long.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use webhooks_dispatch::BreakerSettings;
///
/// let patient = BreakerSettings { failures: 20, ..BreakerSettings::default() };
/// assert_eq!(patient.first_pause, Duration::from_secs(10));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "users build it")]
pub struct BreakerSettings {
    /// How many failures in a row open it: 5 unless set; none counts as one.
    pub failures: u32,
    /// How long it stays open at first: 10 s unless set. Each probe that fails doubles it.
    pub first_pause: Duration,
    /// How long it stays open at most: 5 min unless set.
    pub longest_pause: Duration,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        let (first_pause, longest_pause) = (Duration::from_secs(10), Duration::from_secs(300));
        Self { failures: 5, first_pause, longest_pause }
    }
}

/// Counts failures in a row. While it is open, deliveries wait and burn no attempts; then one goes
/// out as a probe, which closes or opens it again.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Breaker {
    failures: u32,
    openings: u32,
    /// Until when it is open, if it is.
    open_until: Option<MonotonicTime>,
}

impl Breaker {
    pub(crate) fn on_success(&mut self) {
        *self = Self::default();
    }

    /// Counts a failure; returns until when to leave the endpoint alone if that opens it.
    pub(crate) fn on_failure(
        &mut self,
        settings: &BreakerSettings,
        now: MonotonicTime,
    ) -> Option<MonotonicTime> {
        // What was in flight when it opened tells nothing new.
        if self.open_until.is_some_and(|until| now < until) {
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        if self.openings == 0 && self.failures < settings.failures {
            return None;
        }
        let factor = 2_u32.checked_pow(self.openings).unwrap_or(u32::MAX);
        self.openings = self.openings.saturating_add(1);
        let pause = settings.first_pause.saturating_mul(factor).min(settings.longest_pause);
        self.open_until = Some(now + pause);
        self.open_until
    }

    /// Returns whether the next delivery is a probe: it goes out alone.
    pub(crate) fn is_probing(self) -> bool {
        self.openings > 0
    }

    /// Returns whether nothing failed lately.
    pub(crate) fn is_at_rest(self) -> bool {
        self.failures == 0 && self.openings == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_so_many_failures_and_longer_after_each_failed_probe() {
        let settings = BreakerSettings::default();
        let mut now = MonotonicTime::default();
        let mut breaker = Breaker::default();
        for _ in 0..4 {
            assert_eq!(breaker.on_failure(&settings, now), None);
            assert!(!breaker.is_probing());
        }
        for pause in [10, 20, 40, 80, 160, 300].into_iter().chain([300; 100]) {
            let until = now + Duration::from_secs(pause);
            assert_eq!(breaker.on_failure(&settings, now), Some(until), "no overflow");
            assert_eq!(breaker.on_failure(&settings, now), None, "it took off before");
            assert!(breaker.is_probing());
            now = until;
        }
        breaker.on_success();
        assert!(breaker.is_at_rest() && !breaker.is_probing());
        assert_eq!(breaker.on_failure(&settings, now), None);
    }
}
