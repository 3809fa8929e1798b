//! The ways to misbehave, and which of them the next answer takes.

use std::time::Duration;

use http::StatusCode;

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) manner: Manner,
    /// The time that passes first.
    pub(crate) delay: Duration,
}

/// The manner of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// The status of the receiver behind, or this one. Without one, it depends on whether the request verifies.
    Usual(Option<StatusCode>),
    /// A failure of `--fail`, with the number of those that follow, or of `--fail-rate`.
    Failure(StatusCode, Option<u32>),
    Gone,
    Hang,
    HugeBody,
    Redirect,
    Reset,
    SlowBody,
}

impl Manner {
    /// Returns whether a receiver behind gets the request. It does not if the sender will send it again.
    pub(crate) fn forwards(self) -> bool {
        matches!(self, Self::Usual(_) | Self::SlowBody | Self::HugeBody)
    }
}

/// Failures: with this status, and how many of them; all without a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failures {
    status: StatusCode,
    left: Option<u32>,
}

/// Reads `503` or `503:3`.
pub(crate) fn failures(text: &str) -> Result<Failures, String> {
    let (status, left) = match text.split_once(':') {
        Some((status, count)) => {
            (status, Some(count.parse().map_err(|_no_number| "write it as STATUS:COUNT")?))
        }
        None => (text, None),
    };
    Ok(Failures { status: self::status(status)?, left })
}

/// Reads a status that ends a request.
pub(crate) fn status(text: &str) -> Result<StatusCode, String> {
    let status = text.parse().ok().filter(|status: &StatusCode| status.as_u16() >= 200);
    status.filter(|status| status.as_u16() < 600).ok_or_else(|| "a status is 200 to 599".to_owned())
}

/// Reads a share from 0 to 1.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.0..=1.0).contains(rate));
    rate.ok_or_else(|| "a share is 0 to 1, such as 0.3".to_owned())
}

/// The answers that follow.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    pub(crate) respond: Option<StatusCode>,
    pub(crate) failures: Option<Failures>,
    pub(crate) fail_rate: f64,
    pub(crate) delay: Duration,
    /// The manner of all answers that do not fail.
    pub(crate) always: Option<Manner>,
}

impl Plan {
    /// Returns the next answer; `chance` is a random number from 0 to 1.
    pub(crate) fn next(&mut self, chance: f64) -> Answer {
        Answer { manner: self.manner(chance), delay: self.delay }
    }

    fn manner(&mut self, chance: f64) -> Manner {
        match &mut self.failures {
            Some(Failures { status, left: None }) => return Manner::Failure(*status, None),
            Some(Failures { status, left: Some(left) }) if *left > 0 => {
                *left -= 1;
                return Manner::Failure(*status, Some(*left));
            }
            _ => {}
        }
        if chance < self.fail_rate {
            return Manner::Failure(StatusCode::SERVICE_UNAVAILABLE, None);
        }
        self.always.unwrap_or(Manner::Usual(self.respond))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let (respond, delay) = (Some(StatusCode::NO_CONTENT), Duration::ZERO);
        Plan { respond, failures: None, fail_rate: 0.0, delay, always: None }
    }

    #[test]
    fn the_first_answers_fail_and_then_none() {
        let mut plan = Plan { failures: Some(failures("503:2").unwrap()), ..plan() };
        let manners: Vec<_> = (0..3).map(|_| plan.next(0.9).manner).collect();
        let failure = |left| Manner::Failure(StatusCode::SERVICE_UNAVAILABLE, Some(left));
        assert_eq!(manners, [failure(1), failure(0), Manner::Usual(Some(StatusCode::NO_CONTENT))]);
    }

    #[test]
    fn a_share_fails_by_chance() {
        let mut plan = Plan { fail_rate: 0.3, always: Some(Manner::Gone), ..plan() };
        assert!(matches!(plan.next(0.29).manner, Manner::Failure(..)));
        assert_eq!(plan.next(0.3).manner, Manner::Gone);
    }

    #[test]
    fn what_is_no_status_is_refused() {
        for text in ["", "99", "100", "600", "503:", "503:-1", "503:x", "x:3"] {
            assert!(failures(text).is_err(), "{text:?}");
        }
        for text in ["-0.1", "1.1", "NaN", "x"] {
            assert!(rate(text).is_err(), "{text:?}");
        }
    }
}
