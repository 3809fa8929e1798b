//! The health of an endpoint: the time for which all its attempts have failed.

use std::time::Duration;

use webhooks_core::Timestamp;

use super::Outcome;

/// The longest pause between two failures that counts as trying throughout: the longest delay of
/// the Standard Webhooks schedule is 24 h, and jitter adds a fifth. A longer one is time without
/// traffic.
const LONGEST_PAUSE: Duration = Duration::from_secs(30 * 60 * 60);

/// The shortest time between two failures that are recorded. So an endpoint that fails a thousand
/// times a second costs its store one row a second.
const NOTED_EVERY: Duration = Duration::from_secs(1);

/// The health of an endpoint, as its attempts show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the engine must know each")]
pub enum Health {
    /// Nothing to report: this attempt succeeded, as the last one did, or this outcome had no
    /// attempt. The endpoint may be failing in the second case.
    Healthy,
    /// This attempt succeeded, after failures.
    Recovered,
    /// Every attempt since the last success failed.
    Failing {
        /// The failures so far.
        failing: Failing,
        /// [`Failing::tried_for`] before this failure.
        before: Duration,
    },
}

impl Health {
    /// Returns the health of an endpoint after an outcome, and updates `failing`, which a store
    /// keeps for each endpoint.
    pub fn after(failing: &mut Option<Failing>, outcome: Outcome, now: Timestamp) -> Self {
        match outcome {
            Outcome::Delivered => match failing.take() {
                Some(_) => Self::Recovered,
                None => Self::Healthy,
            },
            Outcome::Failed | Outcome::Retrying { .. } => {
                let before = failing.map_or(Duration::ZERO, |so_far| so_far.tried_for);
                let after = failing.map_or_else(|| Failing::first(now), |so_far| so_far.again(now));
                *failing = Some(after);
                Self::Failing { failing: after, before }
            }
            Outcome::Expired | Outcome::Released => Self::Healthy,
        }
    }
}

/// The failures of an endpoint since its last success.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use webhooks_core::Timestamp;
/// use webhooks_dispatch::store::Failing;
///
/// const HOUR: Duration = Duration::from_secs(3_600);
/// let monday = Timestamp::from_unix_seconds(1_767_571_200);
/// let failing = Failing::first(monday).again(monday + HOUR);
/// assert_eq!(failing.tried_for, HOUR);
/// let next_week = failing.again(monday + HOUR * 24 * 7);
/// assert_eq!(next_week.tried_for, HOUR, "days without an attempt count for nothing");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it of their columns")]
pub struct Failing {
    /// The time at which the first failure was settled.
    pub since: Timestamp,
    /// The time at which the last failure was settled that was recorded.
    pub last: Timestamp,
    /// The time for which attempts were made throughout, and all failed.
    pub tried_for: Duration,
}

impl Failing {
    /// Returns the first failure after a success.
    pub fn first(now: Timestamp) -> Self {
        Self { since: now, last: now, tried_for: Duration::ZERO }
    }

    /// Returns the failures with one more. The value is equal if the failure need not be recorded.
    #[must_use]
    pub fn again(self, now: Timestamp) -> Self {
        let pause = now.saturating_since(self.last);
        if pause < NOTED_EVERY {
            return self;
        }
        let tried = if pause <= LONGEST_PAUSE { pause } else { Duration::ZERO };
        Self { last: now, tried_for: self.tried_for.saturating_add(tried), ..self }
    }
}
