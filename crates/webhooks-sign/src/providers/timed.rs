//! Providers that sign the time too.

use super::{BASE64_OF_BODY, SHA256_EQUALS};
#[cfg(any(feature = "ed25519", feature = "p256"))]
use crate::Algorithm;
use crate::Tolerance;
#[cfg(any(feature = "ed25519", feature = "p256"))]
use crate::scheme::KeyFormat;
use crate::scheme::{
    Encoding, Grammar, HEX_OF_BODY, Part, Scheme, TimestampFormat, TimestampSource,
};

/// Stripe's form: a time and signatures as fields, `{t}.{body}` signed.
const FIELDS: Scheme = Scheme {
    grammar: Grammar::Fields { separator: b',', signature: "v1=" },
    timestamp: Some(TimestampSource::Field("t=", TimestampFormat::Seconds)),
    parts: &[Part::Timestamp, Part::Literal("."), Part::Body],
    ..HEX_OF_BODY
};

/// Slack's form: `v0:{timestamp}:{body}` behind `v0=`.
const V0: Scheme = Scheme {
    grammar: Grammar::One { prefix: "v0=" },
    parts: &[Part::Literal("v0:"), Part::Timestamp, Part::Literal(":"), Part::Body],
    ..HEX_OF_BODY
};

const TIMESTAMP_AND_BODY: &[Part] = &[Part::Timestamp, Part::Body];

/// Box: the body and the time behind it, by two keys in a header each, of which one may be missing.
/// developer.box.com/guides/webhooks/v2/signatures-v2.
pub const BOX: Scheme = Scheme {
    name: "box",
    signature: "box-signature-primary",
    more_signatures: &["box-signature-secondary"],
    timestamp: Some(TimestampSource::Header("box-delivery-timestamp", TimestampFormat::Rfc3339)),
    parts: &[Part::Body, Part::Timestamp],
    tolerance: Tolerance { past: 600, future: 600 },
    event_id: &["/id"],
    ..BASE64_OF_BODY
};

/// Buildkite, where it is set to sign: the key is the webhook's token.
/// buildkite.com/docs/apis/webhooks/pipelines, "Webhook signature".
pub const BUILDKITE: Scheme = Scheme {
    name: "buildkite",
    signature: "x-buildkite-signature",
    grammar: Grammar::Fields { separator: b',', signature: "signature=" },
    timestamp: Some(TimestampSource::Field("timestamp=", TimestampFormat::Seconds)),
    ..FIELDS
};

/// Calendly; its documentation's example takes 180 s. developer.calendly.com, "Webhook
/// signatures".
pub const CALENDLY: Scheme = Scheme {
    name: "calendly",
    signature: "calendly-webhook-signature",
    tolerance: Tolerance { past: 180, future: 180 },
    ..FIELDS
};

/// Cloudflare Stream; its header has the name of Standard Webhooks' one.
/// developers.cloudflare.com/stream.
pub const CLOUDFLARE_STREAM: Scheme = Scheme {
    name: "cloudflare-stream",
    signature: "webhook-signature",
    grammar: Grammar::Fields { separator: b',', signature: "sig1=" },
    timestamp: Some(TimestampSource::Field("time=", TimestampFormat::Seconds)),
    ..FIELDS
};

/// Coinbase Developer Platform: `v0`, which signs the body. `v1` signs headers too and is skipped, so
/// that a header which lists it alone, as some pages show, is [`NoMatch`](crate::Error::NoMatch).
/// docs.cdp.coinbase.com/webhooks/verify-signatures.
pub const COINBASE_CDP: Scheme = Scheme {
    name: "coinbase-cdp",
    signature: "x-hook0-signature",
    grammar: Grammar::Fields { separator: b',', signature: "v0=" },
    ..FIELDS
};

/// Customer.io. docs.customer.io/journeys/webhooks, "Securely verify requests".
pub const CUSTOMER_IO: Scheme = Scheme {
    name: "customer-io",
    signature: "x-cio-signature",
    grammar: Grammar::One { prefix: "" },
    timestamp: Some(TimestampSource::Header("x-cio-timestamp", TimestampFormat::Seconds)),
    event_id: &["/event_id"],
    ..V0
};

/// Discord's interactions; the key is the application's public one, in hexadecimal.
/// discord.com/developers/docs.
#[cfg(feature = "ed25519")]
pub const DISCORD: Scheme = Scheme {
    name: "discord",
    algorithm: Algorithm::Ed25519,
    signature: "x-signature-ed25519",
    timestamp: Some(TimestampSource::Header("x-signature-timestamp", TimestampFormat::Seconds)),
    parts: TIMESTAMP_AND_BODY,
    key: KeyFormat::Hex,
    event_id: &["/id"],
    ..HEX_OF_BODY
};

/// ElevenLabs; its SDKs accept 30 minutes. elevenlabs.io/docs/eleven-api/resources/webhooks.
pub const ELEVEN_LABS: Scheme = Scheme {
    name: "eleven-labs",
    signature: "elevenlabs-signature",
    grammar: Grammar::Fields { separator: b',', signature: "v0=" },
    tolerance: Tolerance { past: 1800, future: 1800 },
    ..FIELDS
};

/// HubSpot v3: method, URL, body, and the time behind it. Decode the `%XX` that HubSpot names
/// before giving the URL. developers.hubspot.com, "Validating requests".
pub const HUBSPOT_V3: Scheme = Scheme {
    name: "hubspot-v3",
    signature: "x-hubspot-signature-v3",
    timestamp: Some(TimestampSource::Header(
        "x-hubspot-request-timestamp",
        TimestampFormat::Milliseconds,
    )),
    parts: &[Part::Method, Part::Url, Part::Body, Part::Timestamp],
    // "This value is not guaranteed to be unique", says the page of `eventId`; `attemptNumber` is
    // another in each attempt.
    event_id: &["/*/eventId", "/*/subscriptionId", "/*/objectId", "/*/occurredAt"],
    ..BASE64_OF_BODY
};

/// Mux. docs.mux.com, "Verify webhook signatures".
pub const MUX: Scheme =
    Scheme { name: "mux", signature: "mux-signature", event_id: &["/id"], ..FIELDS };

/// Paddle Billing; its SDKs take 5 s, which leaves little for a slow network.
/// developer.paddle.com, "Signature verification".
pub const PADDLE: Scheme = Scheme {
    name: "paddle",
    signature: "paddle-signature",
    grammar: Grammar::Fields { separator: b';', signature: "h1=" },
    timestamp: Some(TimestampSource::Field("ts=", TimestampFormat::Seconds)),
    parts: &[Part::Timestamp, Part::Literal(":"), Part::Body],
    tolerance: Tolerance { past: 5, future: 5 },
    event_id: &["/event_id"],
    ..FIELDS
};

/// Sanity; its time is in milliseconds. github.com/sanity-io/webhook-toolkit.
pub const SANITY: Scheme = Scheme {
    name: "sanity",
    signature: "sanity-webhook-signature",
    encoding: Encoding::Base64Url,
    timestamp: Some(TimestampSource::Field("t=", TimestampFormat::Milliseconds)),
    // A body holds what your projection picks of a document, which may be the same twice.
    repeats_bodies: true,
    ..FIELDS
};

/// SendGrid's event webhook; the key is the public one in base64. docs.sendgrid.com, "Event
/// webhook security".
#[cfg(feature = "p256")]
pub const SENDGRID: Scheme = Scheme {
    name: "sendgrid",
    algorithm: Algorithm::EcdsaP256,
    signature: "x-twilio-email-event-webhook-signature",
    timestamp: Some(TimestampSource::Header(
        "x-twilio-email-event-webhook-timestamp",
        TimestampFormat::Seconds,
    )),
    parts: TIMESTAMP_AND_BODY,
    key: KeyFormat::Base64,
    event_id: &["/*/sg_event_id"],
    ..BASE64_OF_BODY
};

/// Slack. api.slack.com/authentication/verifying-requests-from-slack.
pub const SLACK: Scheme = Scheme {
    name: "slack",
    signature: "x-slack-signature",
    timestamp: Some(TimestampSource::Header("x-slack-request-timestamp", TimestampFormat::Seconds)),
    event_id: &["/event_id"],
    ..V0
};

/// Stripe; the whole text `whsec_…` is the key, not the base64 in it.
/// docs.stripe.com/webhooks/signature.
pub const STRIPE: Scheme =
    Scheme { name: "stripe", signature: "stripe-signature", event_id: &["/id"], ..FIELDS };

/// Telnyx; the key is the account's public one, in base64.
/// developers.telnyx.com/docs/messaging/messages/receiving-webhooks.
#[cfg(feature = "ed25519")]
pub const TELNYX: Scheme = Scheme {
    name: "telnyx",
    algorithm: Algorithm::Ed25519,
    signature: "telnyx-signature-ed25519",
    timestamp: Some(TimestampSource::Header("telnyx-timestamp", TimestampFormat::Seconds)),
    parts: &[Part::Timestamp, Part::Literal("|"), Part::Body],
    key: KeyFormat::Base64,
    event_id: &["/data/id"],
    ..BASE64_OF_BODY
};

/// Twitch: id, time and body, within 10 minutes. dev.twitch.tv/docs/eventsub.
pub const TWITCH: Scheme = Scheme {
    name: "twitch",
    signature: "twitch-eventsub-message-signature",
    id: Some("twitch-eventsub-message-id"),
    timestamp: Some(TimestampSource::Header(
        "twitch-eventsub-message-timestamp",
        TimestampFormat::Rfc3339,
    )),
    parts: &[Part::Id, Part::Timestamp, Part::Body],
    tolerance: Tolerance { past: 600, future: 600 },
    ..SHA256_EQUALS
};

/// Webflow; its time is in milliseconds. developers.webflow.com/data/docs/working-with-webhooks,
/// "Validating request signatures".
pub const WEBFLOW: Scheme = Scheme {
    name: "webflow",
    signature: "x-webflow-signature",
    timestamp: Some(TimestampSource::Header("x-webflow-timestamp", TimestampFormat::Milliseconds)),
    parts: &[Part::Timestamp, Part::Literal(":"), Part::Body],
    ..HEX_OF_BODY
};

/// WorkOS; its time is in milliseconds. workos.com/docs/events/data-syncing/webhooks.
pub const WORKOS: Scheme = Scheme {
    name: "workos",
    signature: "workos-signature",
    timestamp: Some(TimestampSource::Field("t=", TimestampFormat::Milliseconds)),
    event_id: &["/id"],
    ..FIELDS
};

/// Zendesk; the secret looks like base64 and is used as text. developer.zendesk.com, "Verifying
/// webhooks".
pub const ZENDESK: Scheme = Scheme {
    name: "zendesk",
    signature: "x-zendesk-webhook-signature",
    timestamp: Some(TimestampSource::Header(
        "x-zendesk-webhook-signature-timestamp",
        TimestampFormat::Rfc3339,
    )),
    parts: TIMESTAMP_AND_BODY,
    ..BASE64_OF_BODY
};

/// Zoom. developers.zoom.us/docs/api/webhooks.
pub const ZOOM: Scheme = Scheme {
    name: "zoom",
    signature: "x-zm-signature",
    timestamp: Some(TimestampSource::Header("x-zm-request-timestamp", TimestampFormat::Seconds)),
    ..V0
};
