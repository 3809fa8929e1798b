//! The headers that carry the signature.

use serde::{Deserialize, Serialize};

/// The headers that carry id, timestamp and signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::exhaustive_enums, reason = "a profile that nobody signs must not compile")]
pub enum HeaderProfile {
    /// `webhook-id`, `webhook-timestamp`, `webhook-signature` (Standard Webhooks 1.0).
    Standard,
    /// The same under `svix-*`.
    Svix,
    /// `X-Webhook-Event`, `X-Webhook-Event-Id`, `X-Webhook-Signature`,
    /// `X-Webhook-Signature-Algorithm`, `X-Webhook-Timestamp`.
    XWebhook,
}
