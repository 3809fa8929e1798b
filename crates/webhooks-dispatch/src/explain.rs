//! Why an attempt failed, in a sentence.

use std::error::Error;
use std::fmt;
use std::fmt::Write as _;

use http::StatusCode;
use webhooks_core::Timestamp;
use webhooks_registry::{Endpoint, HeaderProfile, Secret};

use crate::{AttemptError, Response};

/// The longest such text, for what transports say is up to them.
pub(crate) const MAX_ERROR_CHARACTERS: usize = 512;

/// What is said of an attempt that was not signed as most receivers expect, and was refused: which
/// headers it has follows from the secret, and nothing else would tell.
const UNUSUAL: &str =
    " (it was signed in X-Webhook headers: the secret does not start with whsec_)";

/// Says in a sentence why an attempt failed, for whoever owns the endpoint.
pub(crate) fn explain(outcome: &Result<Response, AttemptError>, endpoint: &Endpoint) -> String {
    let mut text = match outcome {
        Ok(Response { status, .. }) => {
            let reason = StatusCode::from_u16(*status).ok();
            let reason = reason.and_then(|status| status.canonical_reason()).unwrap_or_default();
            // By these two receivers refuse what they cannot verify, ours among them.
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

    /// Whoever forgot the prefix of a secret learns nothing else of it.
    #[test]
    fn a_refusal_says_so_if_it_was_signed_unusually() {
        let check = |secret: &str, status: u16, expected: &str| {
            let endpoint = Endpoint::new("https://example.com/", secret).unwrap();
            let outcome = Ok(Response { status, ..Response::default() });
            assert_eq!(explain(&outcome, &endpoint), expected);
        };
        let standard = concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let unusual = |answer: &str| format!("endpoint answered {answer}{UNUSUAL}");
        check("my-secret-key", 400, &unusual("400 Bad Request"));
        check("my-secret-key", 401, &unusual("401 Unauthorized"));
        check("my-secret-key", 503, "endpoint answered 503 Service Unavailable");
        check(standard, 401, "endpoint answered 401 Unauthorized");
        let chosen = Endpoint::new("https://example.com/", standard).unwrap();
        let chosen = chosen.profiles([HeaderProfile::XWebhook]).unwrap();
        let outcome = Ok(Response { status: 401, ..Response::default() });
        assert_eq!(explain(&outcome, &chosen), "endpoint answered 401 Unauthorized");
    }
}
