//! The schemes of webhook providers, each with the page that it follows.
//!
//! Schemes that sign no timestamp cannot tell a replay: keep the delivery ids that you have seen.
//! Those that sign the URL need the one that you gave the provider, by
//! [`Verifier::url`](crate::Verifier::url).
//!
//! Left out: HubSpot v1 and v2 (a hash with the secret ahead, which can be extended, and no HMAC),
//! PayPal and AWS SNS (RSA with certificates fetched from the network), Adyen's payment
//! notifications (fields of the JSON body joined). Clerk, Resend, OpenAI, Supabase, GitLab from 19.0,
//! Brex and Polar send [`STANDARD`](crate::standard::STANDARD) or [`SVIX`](crate::standard::SVIX).

pub mod mailgun;
#[cfg(feature = "sha1")]
pub mod twilio;

use crate::key::KeyFormat;
use crate::scheme::HEX_OF_BODY;
use crate::{
    Algorithm, Encoding, Grammar, Part, Scheme, TimestampFormat, TimestampSource, Tolerance,
};

/// A hexadecimal HMAC of the body behind `sha256=`.
const SHA256_EQUALS: Scheme = Scheme { grammar: Grammar::One { prefix: "sha256=" }, ..HEX_OF_BODY };

/// A base64 HMAC of the body.
const BASE64_OF_BODY: Scheme = Scheme { encoding: Encoding::Base64, ..HEX_OF_BODY };

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

/// The header repeats a shared token.
const TOKEN: Scheme = Scheme { algorithm: Algorithm::Token, ..HEX_OF_BODY };

const TIMESTAMP_AND_BODY: &[Part] = &[Part::Timestamp, Part::Body];

/// Adyen's webhooks that sign in the header; the key is hexadecimal. docs.adyen.com, "Verify
/// HMAC signatures".
pub const ADYEN_HEADER: Scheme = Scheme {
    name: "adyen-header",
    signature: "hmacsignature",
    key: KeyFormat::Hex,
    ..BASE64_OF_BODY
};

/// Bitbucket and Jira Cloud. support.atlassian.com/bitbucket-cloud/docs/manage-webhooks.
pub const BITBUCKET: Scheme =
    Scheme { name: "bitbucket", signature: "x-hub-signature", ..SHA256_EQUALS };

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

/// Coinbase Developer Platform: `v0`, which signs the body; `v1`, which signs headers too, is
/// skipped. docs.cdp.coinbase.com.
pub const COINBASE_CDP: Scheme = Scheme {
    name: "coinbase-cdp",
    signature: "x-hook0-signature",
    grammar: Grammar::Fields { separator: b',', signature: "v0=" },
    ..FIELDS
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
    ..HEX_OF_BODY
};

/// Dropbox. dropbox.com/developers/reference/webhooks.
pub const DROPBOX: Scheme = Scheme {
    name: "dropbox",
    signature: "x-dropbox-signature",
    repeats_bodies: true,
    ..HEX_OF_BODY
};

/// Gitea and Forgejo. docs.gitea.com/usage/webhooks.
pub const GITEA: Scheme = Scheme { name: "gitea", signature: "x-gitea-signature", ..HEX_OF_BODY };

/// GitHub; `X-GitHub-Delivery` is the id, unsigned. docs.github.com, "Validating webhook
/// deliveries".
pub const GITHUB: Scheme = Scheme {
    name: "github",
    signature: "x-hub-signature-256",
    max_body: Some(25 << 20),
    ..SHA256_EQUALS
};

/// GitLab before 19.0: a token, which does not cover the body. docs.gitlab.com.
pub const GITLAB_TOKEN: Scheme =
    Scheme { name: "gitlab-token", signature: "x-gitlab-token", ..TOKEN };

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
    ..BASE64_OF_BODY
};

/// Intercom, which has no other than HMAC-SHA1. developers.intercom.com.
#[cfg(feature = "sha1")]
pub const INTERCOM: Scheme = Scheme {
    name: "intercom",
    algorithm: Algorithm::HmacSha1,
    signature: "x-hub-signature",
    grammar: Grammar::One { prefix: "sha1=" },
    ..HEX_OF_BODY
};

/// Lemon Squeezy. docs.lemonsqueezy.com, "Signing requests".
pub const LEMON_SQUEEZY: Scheme =
    Scheme { name: "lemon-squeezy", signature: "x-signature", ..HEX_OF_BODY };

/// LINE. developers.line.biz, "Verify webhook signature".
pub const LINE: Scheme = Scheme { name: "line", signature: "x-line-signature", ..BASE64_OF_BODY };

/// Linear; the time is in the verified body, `webhookTimestamp` in ms: refuse what is older
/// than a minute. linear.app/developers/webhooks.
pub const LINEAR: Scheme = Scheme { name: "linear", signature: "linear-signature", ..HEX_OF_BODY };

/// Meta: Facebook, Instagram, WhatsApp. developers.facebook.com/docs/graph-api/webhooks.
pub const META: Scheme = Scheme { name: "meta", signature: "x-hub-signature-256", ..SHA256_EQUALS };

/// Mux. docs.mux.com, "Verify webhook signatures".
pub const MUX: Scheme = Scheme { name: "mux", signature: "mux-signature", ..FIELDS };

/// Notion. developers.notion.com/reference/webhooks.
pub const NOTION: Scheme =
    Scheme { name: "notion", signature: "x-notion-signature", ..SHA256_EQUALS };

/// Paddle Billing; its SDKs take 5 s, which leaves little for a slow network.
/// developer.paddle.com, "Signature verification".
pub const PADDLE: Scheme = Scheme {
    name: "paddle",
    signature: "paddle-signature",
    grammar: Grammar::Fields { separator: b';', signature: "h1=" },
    timestamp: Some(TimestampSource::Field("ts=", TimestampFormat::Seconds)),
    parts: &[Part::Timestamp, Part::Literal(":"), Part::Body],
    tolerance: Tolerance { past: 5, future: 5 },
    ..FIELDS
};

/// PagerDuty v3, one signature a live secret. developer.pagerduty.com, "Webhook signatures".
pub const PAGER_DUTY: Scheme = Scheme {
    name: "pager-duty",
    signature: "x-pagerduty-signature",
    grammar: Grammar::List { separator: b',', version: "v1=" },
    ..HEX_OF_BODY
};

/// Paystack: HMAC-SHA512. paystack.com/docs/payments/webhooks.
pub const PAYSTACK: Scheme = Scheme {
    name: "paystack",
    algorithm: Algorithm::HmacSha512,
    signature: "x-paystack-signature",
    ..HEX_OF_BODY
};

/// Razorpay. razorpay.com/docs/webhooks/validate-test.
pub const RAZORPAY: Scheme =
    Scheme { name: "razorpay", signature: "x-razorpay-signature", ..HEX_OF_BODY };

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
    ..BASE64_OF_BODY
};

/// Sentry; `Sentry-Hook-Timestamp` is unsigned and not looked at. docs.sentry.io, "Webhooks".
pub const SENTRY: Scheme =
    Scheme { name: "sentry", signature: "sentry-hook-signature", ..HEX_OF_BODY };

/// Shopify. shopify.dev, "Verify webhook deliveries".
pub const SHOPIFY: Scheme =
    Scheme { name: "shopify", signature: "x-shopify-hmac-sha256", ..BASE64_OF_BODY };

/// Slack. api.slack.com/authentication/verifying-requests-from-slack.
pub const SLACK: Scheme = Scheme {
    name: "slack",
    signature: "x-slack-signature",
    timestamp: Some(TimestampSource::Header("x-slack-request-timestamp", TimestampFormat::Seconds)),
    ..V0
};

/// Square: URL and body. developer.squareup.com, "Validate webhook notifications".
pub const SQUARE: Scheme = Scheme {
    name: "square",
    signature: "x-square-hmacsha256-signature",
    parts: &[Part::Url, Part::Body],
    ..BASE64_OF_BODY
};

/// Stripe; the whole text `whsec_…` is the key, not the base64 in it.
/// docs.stripe.com/webhooks/signature.
pub const STRIPE: Scheme = Scheme { name: "stripe", signature: "stripe-signature", ..FIELDS };

/// Telegram: a token, which does not cover the body. core.telegram.org/bots/api#setwebhook.
pub const TELEGRAM: Scheme =
    Scheme { name: "telegram", signature: "x-telegram-bot-api-secret-token", ..TOKEN };

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

/// Typeform. typeform.com/developers/webhooks/secure-your-webhooks.
pub const TYPEFORM: Scheme = Scheme {
    name: "typeform",
    signature: "typeform-signature",
    grammar: Grammar::One { prefix: "sha256=" },
    ..BASE64_OF_BODY
};

/// WorkOS; its time is in milliseconds. workos.com/docs/events/data-syncing/webhooks.
pub const WORKOS: Scheme = Scheme {
    name: "workos",
    signature: "workos-signature",
    timestamp: Some(TimestampSource::Field("t=", TimestampFormat::Milliseconds)),
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

/// Every scheme of this module that the features on bring.
pub const ALL: &[Scheme] = &[
    ADYEN_HEADER,
    BITBUCKET,
    CALENDLY,
    CLOUDFLARE_STREAM,
    COINBASE_CDP,
    #[cfg(feature = "ed25519")]
    DISCORD,
    DROPBOX,
    GITEA,
    GITHUB,
    GITLAB_TOKEN,
    HUBSPOT_V3,
    #[cfg(feature = "sha1")]
    INTERCOM,
    LEMON_SQUEEZY,
    LINE,
    LINEAR,
    META,
    MUX,
    NOTION,
    PADDLE,
    PAGER_DUTY,
    PAYSTACK,
    RAZORPAY,
    #[cfg(feature = "p256")]
    SENDGRID,
    SENTRY,
    SHOPIFY,
    SLACK,
    SQUARE,
    STRIPE,
    TELEGRAM,
    TWITCH,
    TYPEFORM,
    WORKOS,
    ZENDESK,
    ZOOM,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheme_holds_to_the_rules_for_schemes_of_ones_own() {
        for scheme in ALL {
            assert_eq!(scheme.check(), Ok(()), "{}", scheme.name);
        }
    }
}
