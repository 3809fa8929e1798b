//! Providers that sign the URL, or nothing: they repeat a token.

use super::BASE64_OF_BODY;
use crate::scheme::HEX_OF_BODY;
use crate::{Algorithm, Part, Scheme};

/// The header repeats a shared token.
const TOKEN: Scheme = Scheme { algorithm: Algorithm::Token, ..HEX_OF_BODY };

/// GitLab's secret token, which does not cover the body; its signing tokens are those of
/// [`STANDARD`](crate::standard::STANDARD). docs.gitlab.com.
pub const GITLAB_TOKEN: Scheme =
    Scheme { name: "gitlab-token", signature: "x-gitlab-token", ..TOKEN };

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
    event_id: &["/action/id"],
    ..BASE64_OF_BODY
};
