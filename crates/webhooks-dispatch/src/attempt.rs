//! One attempt: sign, send, wait no longer than the endpoint allows, and explain a failure.

use std::error::Error;
use std::fmt;
use std::fmt::Write as _;
use std::future::ready;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{Either, OptionFuture, select};
use http::StatusCode;
use webhooks_core::Timestamp;
use webhooks_registry::{Endpoint, HeaderProfile, Secret};

use crate::clock::Clock;
use crate::serialized_event::SerializedEvent;
use crate::transport::{AttemptError, ErrorClass, Request, Response, Transport, TransportError};

/// The longest error text: a transport may return a text of any length.
pub(crate) const MAX_ERROR_CHARACTERS: usize = 512;

/// A hint for an attempt that was refused and was not signed as most receivers expect. The form of
/// the secret selects the headers, and nothing else would show that.
const UNUSUAL: &str =
    " (it was signed in X-Webhook headers: the secret does not start with whsec_)";

/// Signs the endpoint's body of the event, sends it once and returns what came back.
///
/// `started_at` is a reading of the raw wall clock and not the steady time: receivers compare the
/// timestamp of the signature with their own clocks.
///
/// The deadline holds and a panic is contained for every transport, even if its future panics when
/// it is dropped. If the exchange takes longer than `slow_after`, `on_slow` is called, and it goes
/// on.
pub(crate) async fn attempt(
    transport: &impl Transport,
    clock: &impl Clock,
    endpoint: &Endpoint,
    event: &SerializedEvent,
    started_at: Timestamp,
    slow_after: Duration,
    on_slow: impl FnOnce() + Send,
) -> Result<Response, AttemptError> {
    let request = Request::signed(endpoint, event, started_at)?;
    let timeout = endpoint.timeout.saturating_add(transport.longest_wait());
    // The call itself may panic, not only the future that it returns.
    let exchange = ready(request).then(|request| transport.send(request));
    let exchange = AssertUnwindSafe(exchange).catch_unwind();
    let mut exchange = pin!(OptionFuture::from(Some(exchange)));
    let deadline = async {
        clock.sleep(slow_after.min(timeout)).await;
        if slow_after < timeout {
            on_slow();
            clock.sleep(timeout.saturating_sub(slow_after)).await;
        }
    };
    let response = match select(exchange.as_mut(), pin!(deadline)).await {
        Either::Left((Some(Ok(response)), _)) => response.map_err(AttemptError::from),
        Either::Left(_panic) => Err(TransportError::new(ErrorClass::Panic).into()),
        Either::Right(_) => Err(TransportError::new(ErrorClass::Timeout).into()),
    };
    // The rest of the exchange is dropped here, where a panic cannot change the result.
    let _panic = catch_unwind(AssertUnwindSafe(|| exchange.set(None.into())));
    response
}

/// Explains in a sentence why an attempt failed, for the endpoint's owner.
pub(crate) fn explain(response: &Result<Response, AttemptError>, endpoint: &Endpoint) -> String {
    let mut text = match response {
        Ok(Response { status, .. }) => {
            let reason = StatusCode::from_u16(*status).ok();
            let reason = reason.and_then(|status| status.canonical_reason()).unwrap_or_default();
            // Receivers answer so if they cannot verify a signature; webhooks-receive does, too.
            let is_unverified = matches!(status, 400 | 401);
            let is_unusual = endpoint.header_profiles() == [HeaderProfile::XWebhook]
                && !endpoint.live_secrets(Timestamp::UNIX_EPOCH).any(Secret::is_standard);
            let more = if is_unverified && is_unusual { UNUSUAL } else { "" };
            format!("endpoint answered {status} {reason}{more}")
        }
        Err(error) => with_causes(error),
    };
    if let Some((end, _)) = text.char_indices().nth(MAX_ERROR_CHARACTERS) {
        text.truncate(end);
    }
    text.truncate(text.trim_end().len());
    text
}

/// Returns the text of an error and of its causes.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = String::new();
    if write_chain(&mut text, error).is_err() {
        text.push_str(" (and an error that cannot be shown)");
    }
    text
}

fn write_chain(text: &mut String, error: &dyn Error) -> fmt::Result {
    write!(text, "{error}")?;
    let mut source = error.source();
    while let Some(error) = source {
        write!(text, ": {error}")?;
        source = error.source();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A user who forgot the prefix of a secret sees no other hint.
    #[test]
    fn a_refusal_says_so_if_it_was_signed_unusually() {
        let check = |secret: &str, status: u16, expected: &str| {
            let endpoint = Endpoint::new("https://example.com/", secret).unwrap();
            let response = Ok(Response { status, ..Response::default() });
            assert_eq!(explain(&response, &endpoint), expected);
        };
        let standard = concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let unusual = |answer: &str| format!("endpoint answered {answer}{UNUSUAL}");
        check("my-secret-key", 400, &unusual("400 Bad Request"));
        check("my-secret-key", 401, &unusual("401 Unauthorized"));
        check("my-secret-key", 503, "endpoint answered 503 Service Unavailable");
        check(standard, 401, "endpoint answered 401 Unauthorized");
        let chosen = Endpoint::new("https://example.com/", standard).unwrap();
        let chosen = chosen.profiles([HeaderProfile::XWebhook]).unwrap();
        let response = Ok(Response { status: 401, ..Response::default() });
        assert_eq!(explain(&response, &chosen), "endpoint answered 401 Unauthorized");
    }
}
