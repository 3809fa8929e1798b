//! Whether workers send to an endpoint now: the sum of their reports.

use webhooks_core::Timestamp;

use crate::report::{BreakerState, EndpointReport, RestReason};

/// Whether workers send to an endpoint that is active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "callers must tell people of each")]
pub enum Sending {
    /// Nothing is known to hold deliveries back.
    Free,
    /// They send one delivery, and the others wait for its result.
    Probing {
        /// The number of failures in a row, in the worker that has seen the most.
        failures: u32,
    },
    /// They send nothing for a time.
    Held {
        /// The reason why the first of them waits.
        by: RestReason,
        /// The time at which the first of them makes the next attempt, if a delivery is due.
        until: Timestamp,
        /// As for [`Probing`](Self::Probing).
        failures: u32,
        /// The number of these workers. Others may send, if they have seen fewer failures.
        workers: u32,
    },
}

impl Sending {
    /// Returns the sum of reports about one endpoint, each with the time at which it was made.
    pub(crate) fn of(
        reports: impl IntoIterator<Item = (Timestamp, EndpointReport)>,
        now: Timestamp,
    ) -> Self {
        let (mut held, mut workers) = (None::<(Timestamp, RestReason)>, 0);
        let (mut failures, mut is_probing) = (0, false);
        for (at, report) in reports {
            if report.breaker != BreakerState::Closed {
                failures = report.failures.max(failures);
            }
            let rest = report.rests_for.zip(report.rests_by);
            match rest.map(|(rests_for, by)| (at + rests_for, by)) {
                Some(rest) if rest.0 > now => {
                    workers += 1;
                    held = Some(
                        held.map_or(rest, |first| if rest.0 < first.0 { rest } else { first }),
                    );
                }
                // A report may be older than the end of its rest.
                _ => is_probing |= report.breaker != BreakerState::Closed,
            }
        }
        match held {
            _ if is_probing => Self::Probing { failures },
            Some((until, by)) => Self::Held { by, until, failures, workers },
            None => Self::Free,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use webhooks_registry::EndpointNumber;

    use super::*;

    const OPEN: BreakerState = BreakerState::Open { remaining: Duration::from_secs(20) };

    fn at(second: u64) -> Timestamp {
        Timestamp::from_unix_seconds(second)
    }

    /// Returns a worker's report of second 100. `rest` has the reason and the seconds.
    fn report(
        breaker: BreakerState,
        failures: u32,
        rest: Option<(RestReason, u64)>,
    ) -> (Timestamp, EndpointReport) {
        let report = EndpointReport {
            number: EndpointNumber::from_u64(1),
            in_flight: 0,
            waiting: 0,
            breaker,
            failures,
            rests_for: rest.map(|(_, seconds)| Duration::from_secs(seconds)),
            rests_by: rest.map(|(by, _)| by),
            tokens: None,
        };
        (at(100), report)
    }

    #[test]
    fn the_first_worker_to_go_on_tells_until_when_it_is_held() {
        let first = report(OPEN, 5, Some((RestReason::Failures, 20)));
        let second = report(OPEN, 7, Some((RestReason::Pause, 60)));
        let busy = report(BreakerState::Closed, 0, None);
        let held = |by, second, workers| {
            let until = at(second);
            Sending::Held { by, until, failures: 7, workers }
        };
        let both = [second, first, busy];
        assert_eq!(Sending::of(both, at(119)), held(RestReason::Failures, 120, 2));
        assert_eq!(Sending::of([second], at(120)), held(RestReason::Pause, 160, 1));
        assert_eq!(Sending::of(both, at(120)), Sending::Probing { failures: 7 });
    }

    #[test]
    fn a_rest_that_is_over_holds_nothing() {
        let limited = report(BreakerState::Closed, 2, Some((RestReason::RateLimit, 1)));
        let (by, until) = (RestReason::RateLimit, at(101));
        let held = Sending::Held { by, until, failures: 0, workers: 1 };
        assert_eq!(Sending::of([limited], at(100)), held);
        assert_eq!(Sending::of([limited], at(101)), Sending::Free);
        assert_eq!(Sending::of([], at(100)), Sending::Free);
        let probing = report(BreakerState::Probing, 5, None);
        assert_eq!(Sending::of([probing], at(100)), Sending::Probing { failures: 5 });
    }
}
