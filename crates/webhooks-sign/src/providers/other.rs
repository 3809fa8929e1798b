//! Providers that sign the URL, a form or a token in place of the body, or nothing: the last send a
//! token.

use super::BASE64_OF_BODY;
use crate::scheme::{HEX_OF_BODY, Part, Scheme, TimestampFormat, TimestampSource};
use crate::{Algorithm, Tolerance};

/// The header repeats a shared token.
const TOKEN: Scheme = Scheme { algorithm: Algorithm::Token, ..HEX_OF_BODY };

/// GitLab's secret token, which does not cover the body; its signing tokens are those of
/// [`STANDARD`](crate::standard::STANDARD). docs.gitlab.com.
pub const GITLAB_TOKEN: Scheme = Scheme {
    name: "gitlab-token",
    signature: "x-gitlab-token",
    // gitlab.com/gitlab-org/gitlab, merge request 38687.
    max_body: Some(25 << 20),
    ..TOKEN
};

/// Mailgun, which signs a time and a token that its JSON body holds, and nothing else of the body:
/// give them to [`Verifier::verify_token`](crate::Verifier::verify_token). The token is the id, and
/// used once. documentation.mailgun.com, "Securing webhooks".
pub const MAILGUN: Scheme = Scheme {
    name: "mailgun",
    signature: "signature",
    timestamp: Some(TimestampSource::Header("timestamp", TimestampFormat::Seconds)),
    // It tries again over 8 hours, by reports (PostHog/posthog#103057) with the first signature.
    tolerance: Tolerance { past: 9 * 60 * 60, future: 300 },
    parts: &[Part::Timestamp, Part::Token],
    ..HEX_OF_BODY
};

/// Mandrill, also Mailchimp Transactional, which signs as [`TWILIO`] does: verify its forms by
/// [`Verifier::verify_form`](crate::Verifier::verify_form). mailchimp.com/developer/transactional,
/// "Authenticating webhook requests".
#[cfg(feature = "sha1")]
pub const MANDRILL: Scheme =
    Scheme { name: "mandrill", signature: "x-mandrill-signature", ..TWILIO };

/// Square: URL and body. developer.squareup.com, "Validate webhook notifications".
pub const SQUARE: Scheme = Scheme {
    name: "square",
    signature: "x-square-hmacsha256-signature",
    parts: &[Part::Url, Part::Body],
    event_id: &["/event_id"],
    ..BASE64_OF_BODY
};

/// Telegram: a token, which does not cover the body. core.telegram.org/bots/api#setwebhook.
pub const TELEGRAM: Scheme =
    Scheme { name: "telegram", signature: "x-telegram-bot-api-secret-token", ..TOKEN };

/// Trello: body and URL. developer.atlassian.com/cloud/trello/guides/rest-api/webhooks, "Webhook
/// signatures".
#[cfg(feature = "sha1")]
pub const TRELLO: Scheme = Scheme {
    name: "trello",
    algorithm: Algorithm::HmacSha1,
    signature: "x-trello-webhook",
    parts: &[Part::Body, Part::Url],
    // One action is sent for each webhook whose model it is about.
    event_id: &["/action/id", "/model/id"],
    ..BASE64_OF_BODY
};

/// Twilio: the URL, and in place of the body the fields of the form: verify it by
/// [`Verifier::verify_form`](crate::Verifier::verify_form), and any other body by
/// [`Verifier::verify_hashed_body`](crate::Verifier::verify_hashed_body).
/// twilio.com/docs/usage/webhooks/webhooks-security.
#[cfg(feature = "sha1")]
pub const TWILIO: Scheme = Scheme {
    name: "twilio",
    algorithm: Algorithm::HmacSha1,
    signature: "x-twilio-signature",
    parts: &[Part::Url, Part::Form],
    ..BASE64_OF_BODY
};
