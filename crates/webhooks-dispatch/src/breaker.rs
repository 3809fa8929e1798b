//! The circuit breaker: an endpoint that fails is paused, and probed.

use std::time::Duration;

use crate::clock::MonotonicTime;
use crate::report::BreakerState;

/// The settings of the circuit breaker that each endpoint has.
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
    /// The number of failures in a row that open it: 5 unless set; 0 counts as 1. An attempt fails
    /// here if it gets no answer, or 410, 429 or 5xx; any other answer closes the breaker.
    pub failures: u32,
    /// The time for which it is open at first: 10 s unless set. Each probe that fails doubles it, except one that
    /// somebody asked for.
    pub first_pause: Duration,
    /// The longest time for which it is open: 5 min unless set.
    pub longest_pause: Duration,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        let (first_pause, longest_pause) = (Duration::from_secs(10), Duration::from_secs(300));
        Self { failures: 5, first_pause, longest_pause }
    }
}

/// The number of longest pauses without a failure after which earlier failures no longer count.
const FORGOTTEN_AFTER: u32 = 2;

/// The shortest pause after a failure, if somebody wants the endpoint to be tried now: time for a
/// person to mend something. So a thousand wishes in a second are one attempt.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// A change of a circuit breaker that an attempt has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BreakerChange {
    /// It had opened, and is closed again.
    Closed,
    /// It opened, and nothing is sent for this time.
    Opened { pause: Duration },
}

/// The circuit breaker of an endpoint: it counts failures in a row. While it is open, deliveries
/// wait and use up no attempts. Then one attempt is made as a probe, which closes the breaker or
/// opens it again. An answer that refuses the delivery closes it, too: the endpoint is there.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Breaker {
    failures: u32,
    openings: u32,
    /// Set if the endpoint was known to fail before anything was sent to it.
    is_on_probation: bool,
    /// Set if somebody asked for the next probe. Its failure does not make the pauses longer: they follow the
    /// endpoint, not the patience of people.
    is_asked_for: bool,
    /// The time until which it is open, if it is.
    open_until: Option<MonotonicTime>,
    /// The time of the last failure.
    failed_at: MonotonicTime,
}

impl Breaker {
    /// Returns the breaker of an endpoint that is known to fail: it opens at the first failure.
    pub(crate) fn on_probation(now: MonotonicTime) -> Self {
        Self { is_on_probation: true, failed_at: now, ..Self::default() }
    }

    /// Closes it: the endpoint answered. Returns whether it had opened.
    pub(crate) fn on_answer(&mut self) -> bool {
        std::mem::take(self).openings > 0
    }

    /// Counts a failure; returns the time until which it is open if the failure opens it.
    pub(crate) fn on_failure(
        &mut self,
        settings: &BreakerSettings,
        now: MonotonicTime,
    ) -> Option<MonotonicTime> {
        // This attempt was in flight when it opened: its failure belongs to the same trouble.
        if self.open_until.is_some_and(|until| now < until) {
            return None;
        }
        self.age(settings, now);
        self.failed_at = now;
        self.failures = self.failures.saturating_add(1);
        if !self.is_probing() && self.failures < settings.failures {
            return None;
        }
        if std::mem::take(&mut self.is_asked_for) {
            self.openings = self.openings.saturating_sub(1);
        }
        // The factor overflows from 32 openings on; `longest_pause` caps the pause in any case.
        let factor = 2_u32.checked_pow(self.openings).unwrap_or(u32::MAX);
        self.openings = self.openings.saturating_add(1);
        let pause = settings.first_pause.saturating_mul(factor).min(settings.longest_pause);
        self.open_until = Some(now + pause);
        self.open_until
    }

    /// Makes the next attempt a probe, since somebody wants the endpoint to be tried now; returns the time from
    /// which it may be made. The endpoint rests until `until`.
    pub(crate) fn probe_early(
        &mut self,
        until: MonotonicTime,
        now: MonotonicTime,
    ) -> MonotonicTime {
        let from = if self.failures > 0 { now.max(self.failed_at + SHORTEST_PAUSE) } else { now };
        let from = from.min(until);
        // So the failure of this probe counts, and it stays a probe however old the failures are.
        self.open_until = Some(from);
        self.is_on_probation = true;
        self.is_asked_for = true;
        from
    }

    /// Returns the number of failures in a row.
    pub(crate) fn failures(self) -> u32 {
        self.failures
    }

    /// Forgets failures from too long ago.
    pub(crate) fn age(&mut self, settings: &BreakerSettings, now: MonotonicTime) {
        if self.is_forgettable(settings, now) {
            *self = Self::default();
        }
    }

    /// Returns whether the next attempt is a probe, which is made alone.
    pub(crate) fn is_probing(self) -> bool {
        self.openings > 0 || self.is_on_probation
    }

    /// Returns its state, for people to read.
    pub(crate) fn state(self, settings: &BreakerSettings, now: MonotonicTime) -> BreakerState {
        if !self.is_probing() || self.is_forgettable(settings, now) {
            return BreakerState::Closed;
        }
        let remaining = self.open_until.map_or(Duration::ZERO, |until| until.saturating_since(now));
        if remaining.is_zero() { BreakerState::Probing } else { BreakerState::Open { remaining } }
    }

    /// Returns whether no failure counts any more.
    pub(crate) fn is_forgettable(self, settings: &BreakerSettings, now: MonotonicTime) -> bool {
        let is_at_rest = self.failures == 0 && !self.is_probing();
        let last = self.open_until.unwrap_or_default().max(self.failed_at);
        let memory = settings.longest_pause.saturating_mul(FORGOTTEN_AFTER);
        is_at_rest || now.saturating_since(last) >= memory
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
            assert_eq!(breaker.on_failure(&settings, now), None, "it started before");
            assert!(breaker.is_probing());
            now = until;
        }
        assert!(breaker.on_answer() && !breaker.on_answer(), "it had opened, and is closed");
        assert!(breaker.is_forgettable(&settings, now) && !breaker.is_probing());
        assert_eq!(breaker.on_failure(&settings, now), None);
    }

    #[test]
    fn failures_that_are_long_apart_do_not_add_up() {
        let settings = BreakerSettings::default();
        let mut now = MonotonicTime::default();
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            assert_eq!(breaker.on_failure(&settings, now), None);
            now = now + settings.longest_pause * FORGOTTEN_AFTER;
        }
        for _ in 0..settings.failures {
            breaker.on_failure(&settings, now);
        }
        let until = now + settings.first_pause;
        assert!(breaker.is_probing() && !breaker.is_forgettable(&settings, until));
        let later = until + settings.longest_pause * FORGOTTEN_AFTER;
        breaker.age(&settings, later);
        assert!(!breaker.is_probing(), "what failed so long ago tells nothing");
    }

    #[test]
    fn on_probation_it_opens_at_the_first_failure_and_closes_at_the_first_answer() {
        let settings = BreakerSettings::default();
        let now = MonotonicTime::default();
        let mut breaker = Breaker::on_probation(now);
        assert!(breaker.is_probing());
        assert_eq!(breaker.on_failure(&settings, now), Some(now + settings.first_pause));
        let mut breaker = Breaker::on_probation(now);
        assert_eq!(breaker.state(&settings, now), BreakerState::Probing);
        assert!(!breaker.on_answer(), "it never opened");
        assert!(!breaker.is_probing());
        assert_eq!(breaker.on_failure(&settings, now), None);
    }

    #[test]
    fn a_probe_that_somebody_wants_comes_early_and_makes_no_pause_longer() {
        let settings = BreakerSettings { failures: 1, ..BreakerSettings::default() };
        let start = MonotonicTime::default();
        let second = |second| start + Duration::from_secs(second);
        let mut breaker = Breaker::default();
        let until = breaker.on_failure(&settings, start).unwrap();
        for wish in [start, start, second(1)] {
            assert_eq!(breaker.probe_early(until, wish), second(1), "a second after the failure");
        }
        assert_eq!(breaker.state(&settings, second(1)), BreakerState::Probing);
        assert_eq!(breaker.on_failure(&settings, second(5)), Some(second(15)), "as long as before");
        assert_eq!(breaker.on_failure(&settings, second(15)), Some(second(35)), "twice as long");
        assert_eq!(breaker.failures(), 3);
        assert_eq!(breaker.probe_early(second(35), second(20)), second(20));
        assert!(breaker.on_answer() && !breaker.is_probing());

        let brief = BreakerSettings { first_pause: Duration::from_millis(10), ..settings };
        let until = breaker.on_failure(&brief, second(20)).unwrap();
        assert_eq!(breaker.probe_early(until, second(20)), until, "it is never later");
    }

    #[test]
    fn a_pause_that_was_asked_for_long_ago_ends_with_one_probe() {
        let settings = BreakerSettings::default();
        let (hour, now) = (Duration::from_secs(3_600), MonotonicTime::default());
        for failures in [0, 1] {
            let mut breaker = Breaker::default();
            for _ in 0..failures {
                assert_eq!(breaker.on_failure(&settings, now), None);
            }
            assert_eq!(breaker.probe_early(now + hour * 2, now + hour), now + hour);
            breaker.age(&settings, now + hour);
            assert!(breaker.is_probing());
            assert!(breaker.on_failure(&settings, now + hour).is_some());
        }
    }

    #[test]
    fn its_state_is_open_then_probing_and_closed_once_its_failures_are_forgotten() {
        let settings = BreakerSettings { failures: 1, ..BreakerSettings::default() };
        let start = MonotonicTime::default();
        let mut breaker = Breaker::default();
        assert_eq!(breaker.state(&settings, start), BreakerState::Closed);
        breaker.on_failure(&settings, start);
        let state = |seconds| breaker.state(&settings, start + Duration::from_secs(seconds));
        assert_eq!(state(4), BreakerState::Open { remaining: Duration::from_secs(6) });
        assert_eq!((state(10), state(609)), (BreakerState::Probing, BreakerState::Probing));
        assert_eq!(state(610), BreakerState::Closed);
    }
}
