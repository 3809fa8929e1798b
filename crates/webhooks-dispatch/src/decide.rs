//! For implementors: the step that follows an attempt, decided by a pure function of values.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::{HeaderMap, RETRY_AFTER};
use webhooks_core::{RetryPolicy, Timestamp};

use crate::transport::{AttemptError, ErrorClass, Response};

/// The step that follows an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// The endpoint took the event.
    Delivered,
    /// Try again, not before this time.
    RetryAt {
        /// The time at which the retry is due.
        at: Timestamp,
    },
    /// The delivery failed: try it no more.
    Failed,
    /// The delivery failed, and the endpoint answered that it is gone: send it nothing more.
    Gone,
}

/// Returns the step that follows attempt number `attempt` (from 1), which ended at `now`.
///
/// Standard Webhooks 1.0, "Delivery and failure": 2xx delivers, 410 disables the endpoint, anything
/// else fails, redirects included. A failed attempt is retried as the policy says, and later if the
/// response has `Retry-After`. It is not retried if another attempt must fail, too: there is
/// nothing to sign with, or the URL is blocked. `random` places the delay within the policy's
/// jitter. A transport without room ([`ErrorClass::Busy`]) is a failed attempt here; an engine
/// releases such a delivery and does not ask.
///
/// # Example
/// ```
/// use webhooks_core::{RetryPolicy, Timestamp};
/// use webhooks_dispatch::{decide::{decide, Decision}, transport::Response};
///
/// let now = Timestamp::from_unix_seconds(100);
/// let busy = Ok(Response { status: 503, ..Response::default() });
/// let policy = RetryPolicy::default().without_jitter();
/// let at = Timestamp::from_unix_seconds(101);
/// assert_eq!(decide(&policy, 1, &busy, now, 0), Decision::RetryAt { at });
/// assert_eq!(decide(&policy, 4, &busy, now, 0), Decision::Failed);
/// ```
pub fn decide(
    policy: &RetryPolicy,
    attempt: u32,
    response: &Result<Response, AttemptError>,
    now: Timestamp,
    random: u32,
) -> Decision {
    let retry_after = match response {
        Ok(response) if is_success(response.status) => return Decision::Delivered,
        Ok(response) if response.status == StatusCode::GONE => return Decision::Gone,
        Ok(response) => retry_after(&response.headers, now),
        Err(AttemptError::Signing(_)) => return Decision::Failed,
        Err(AttemptError::Transport(error)) if error.class == ErrorClass::Blocked => {
            return Decision::Failed;
        }
        Err(AttemptError::Transport(_)) => None,
    };
    match policy.delay_after(attempt, random, retry_after) {
        Some(delay) => Decision::RetryAt { at: now + delay },
        None => Decision::Failed,
    }
}

/// Returns whether the transport had no room. Nothing was sent then, so an engine does not count it
/// as an attempt.
pub(crate) fn had_no_room(response: &Result<Response, AttemptError>) -> bool {
    matches!(response, Err(AttemptError::Transport(error)) if error.class == ErrorClass::Busy)
}

/// The pause of an endpoint that answered that it is gone, until it is disabled.
const GONE_PAUSE: Duration = Duration::from_secs(10);

/// The signal of one attempt about its endpoint, beside the outcome of the delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndpointSignal {
    /// The endpoint took the event.
    Success,
    /// The endpoint is there, and refused this event.
    Refused,
    /// The transport had no room. That says nothing of the endpoint, but its lane rests.
    NoRoom,
    /// None: nothing was sent.
    Nothing,
    /// The endpoint cannot be reached, or is overloaded. A store counts more as failing: there, so
    /// does every answer except 2xx.
    Unhealthy {
        /// The pause for which the endpoint asked.
        pause: Option<Duration>,
    },
}

/// Returns the signal about its endpoint of an attempt that ended at `now`.
///
/// Standard Webhooks 1.0, "Delivery and failure": 429, 502, 503 and 504 ask to slow down. Other 5xx
/// and failed exchanges mean trouble too; 3xx and 4xx are about the one event, except 410, which
/// means that nothing more is wanted. An attempt that could not be signed gives no signal.
/// `Retry-After` counts up to the policy's cap.
pub(crate) fn signal(
    policy: &RetryPolicy,
    response: &Result<Response, AttemptError>,
    now: Timestamp,
) -> EndpointSignal {
    match response {
        Ok(response) if is_success(response.status) => EndpointSignal::Success,
        // The endpoint is disabled in a moment. If the store fails, the next attempt asks again.
        Ok(response) if response.status == StatusCode::GONE => {
            EndpointSignal::Unhealthy { pause: Some(GONE_PAUSE) }
        }
        Ok(response) if response.status == 429 || response.status >= 500 => {
            let asked = retry_after(&response.headers, now);
            EndpointSignal::Unhealthy { pause: asked.map(|asked| policy.capped(asked)) }
        }
        Ok(_) => EndpointSignal::Refused,
        Err(AttemptError::Signing(_)) => EndpointSignal::Nothing,
        Err(AttemptError::Transport(_)) if had_no_room(response) => EndpointSignal::NoRoom,
        Err(AttemptError::Transport(_)) => EndpointSignal::Unhealthy { pause: None },
    }
}

fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

/// Reads `Retry-After` (RFC 9110 §10.2.3): seconds, or a date; anything else counts as absent.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // The policy caps the delay, so more seconds than a u64 holds need no exact value.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date: SystemTime = httpdate::parse_http_date(text).ok()?;
    Some(Timestamp::from(date).saturating_since(now))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::headers::SigningError;
    use crate::transport::TransportError;

    const NOW: u64 = 1_767_225_600; // 2026-01-01T00:00:00Z

    fn step(attempt: u32, response: &Result<Response, AttemptError>) -> Decision {
        let policy = RetryPolicy::fixed(Duration::from_secs(10), 3).without_jitter();
        decide(&policy, attempt, response, Timestamp::from_unix_seconds(NOW), 0)
    }

    fn retry_in(seconds: u64) -> Decision {
        Decision::RetryAt { at: Timestamp::from_unix_seconds(NOW + seconds) }
    }

    fn step_after(attempt: u32, status: u16) -> Decision {
        step(attempt, &Ok(Response { status, ..Response::default() }))
    }

    fn step_after_error(error: impl Into<AttemptError>) -> Decision {
        step(1, &Err(error.into()))
    }

    #[test]
    fn every_status_has_its_step() {
        for code in 0..=u16::MAX {
            let expected = match code {
                200..=299 => Decision::Delivered,
                410 => Decision::Gone,
                _ => retry_in(10),
            };
            assert_eq!(step_after(1, code), expected, "{code}");
        }
    }

    #[test]
    fn retries_are_spent_after_the_last() {
        assert_eq!(step_after(3, 500), retry_in(10));
        assert_eq!(step_after(4, 500), Decision::Failed);
        assert_eq!(step_after(4, 200), Decision::Delivered);
    }

    #[test]
    fn only_what_may_end_otherwise_is_tried_again() {
        let transport = |class| step_after_error(TransportError::new(class));
        assert_eq!(transport(ErrorClass::Timeout), retry_in(10));
        assert_eq!(transport(ErrorClass::Dns), retry_in(10));
        assert_eq!(transport(ErrorClass::Blocked), Decision::Failed);
        assert_eq!(transport(ErrorClass::BlockedAddress), retry_in(10));
        assert_eq!(step_after_error(SigningError::NoLiveSecret), Decision::Failed);
    }

    #[test]
    fn what_was_not_sent_tells_nothing_of_the_endpoint() {
        let policy = RetryPolicy::fixed(Duration::from_secs(10), 3);
        let told = |class| {
            let response = Err(TransportError::new(class).into());
            signal(&policy, &response, Timestamp::from_unix_seconds(NOW))
        };
        assert_eq!(told(ErrorClass::Busy), EndpointSignal::NoRoom);
        assert_eq!(told(ErrorClass::Timeout), EndpointSignal::Unhealthy { pause: None });
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_date() {
        let asked = |text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            step(1, &Ok(Response { status: 429, headers, ..Response::default() }))
        };
        assert_eq!(asked("120"), retry_in(120));
        assert_eq!(asked("Thu, 01 Jan 2026 00:02:00 GMT"), retry_in(120));
        assert_eq!(asked("Thursday, 01-Jan-26 00:02:00 GMT"), retry_in(120));
        assert_eq!(asked("Thu Jan  1 00:02:00 2026"), retry_in(120));
        // Less than the policy's own delay, or in the past: the policy's delay stands.
        assert_eq!(asked("3"), retry_in(10));
        assert_eq!(asked("Thu, 01 Jan 2015 00:00:00 GMT"), retry_in(10));
        // One day is the policy's cap.
        assert_eq!(asked("99999999999999999999999999"), retry_in(86_400));
        for malformed in ["", "-1", "1.5", "soon", "+5", " 5x"] {
            assert_eq!(asked(malformed), retry_in(10), "{malformed:?}");
        }
    }

    proptest! {
        #[test]
        fn a_retry_is_never_early_and_no_text_panics(
            text in "[ -~]{0,40}",
            attempt in 0..6_u32,
            random: u32,
        ) {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            let response = Ok(Response { status: 503, headers, ..Response::default() });
            let policy = RetryPolicy::fixed(Duration::from_secs(10), 3);
            let now = Timestamp::from_unix_seconds(NOW);
            if let Decision::RetryAt { at } = decide(&policy, attempt, &response, now, random) {
                prop_assert!(at.saturating_since(now) >= Duration::from_secs(10));
                prop_assert!(attempt <= 3);
            }
        }
    }
}
