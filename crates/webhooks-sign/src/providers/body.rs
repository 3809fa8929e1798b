//! Providers that sign the body alone.

use super::{BASE64_OF_BODY, SHA256_EQUALS};
use crate::Algorithm;
use crate::scheme::{Encoding, Grammar, HEX_OF_BODY, KeyFormat, Scheme};

/// Adyen's webhooks that sign in the header; the key is hexadecimal. docs.adyen.com, "Verify
/// HMAC signatures".
pub const ADYEN_HEADER: Scheme = Scheme {
    name: "adyen-header",
    signature: "hmacsignature",
    key: KeyFormat::Hex,
    ..BASE64_OF_BODY
};

/// Asana; the key is the `X-Hook-Secret` of its handshake. developers.asana.com/docs/webhooks-guide.
pub const ASANA: Scheme = Scheme { name: "asana", signature: "x-hook-signature", ..HEX_OF_BODY };

/// Bitbucket and Jira Cloud. support.atlassian.com/bitbucket-cloud/docs/manage-webhooks.
pub const BITBUCKET: Scheme =
    Scheme { name: "bitbucket", signature: "x-hub-signature", ..SHA256_EQUALS };

/// Cal.com. cal.com/docs/developing/guides/automation/webhooks.
pub const CAL_COM: Scheme =
    Scheme { name: "cal-com", signature: "x-cal-signature-256", ..HEX_OF_BODY };

/// CircleCI. circleci.com/docs/guides/integration/outbound-webhooks, "Validate webhooks".
pub const CIRCLE_CI: Scheme = Scheme {
    name: "circle-ci",
    signature: "circleci-signature",
    grammar: Grammar::List { separator: b',', version: "v1=" },
    event_id: &["/id"],
    ..HEX_OF_BODY
};

/// DocuSign Connect: a header for each live key, the first four of which are looked at.
/// developers.docusign.com/platform/webhooks/connect/validate.
pub const DOCU_SIGN: Scheme = Scheme {
    name: "docu-sign",
    signature: "x-docusign-signature-1",
    more_signatures: &[
        "x-docusign-signature-2",
        "x-docusign-signature-3",
        "x-docusign-signature-4",
    ],
    ..BASE64_OF_BODY
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

/// GoCardless; its header has the name of Standard Webhooks' one.
/// developer.gocardless.com/getting-started/staying-up-to-date-with-webhooks.
pub const GO_CARDLESS: Scheme = Scheme {
    name: "go-cardless",
    signature: "webhook-signature",
    event_id: &["/events/*/id"],
    ..HEX_OF_BODY
};

/// Intercom, which has no other than HMAC-SHA1. developers.intercom.com.
#[cfg(feature = "sha1")]
pub const INTERCOM: Scheme = Scheme {
    name: "intercom",
    algorithm: Algorithm::HmacSha1,
    signature: "x-hub-signature",
    grammar: Grammar::One { prefix: "sha1=" },
    event_id: &["/id"],
    ..HEX_OF_BODY
};

/// Lemon Squeezy. docs.lemonsqueezy.com, "Signing requests".
pub const LEMON_SQUEEZY: Scheme =
    Scheme { name: "lemon-squeezy", signature: "x-signature", ..HEX_OF_BODY };

/// LINE. developers.line.biz, "Verify webhook signature".
pub const LINE: Scheme = Scheme {
    name: "line",
    signature: "x-line-signature",
    // A test from the console has no events, and no id.
    event_id: &["/events/*/webhookEventId"],
    ..BASE64_OF_BODY
};

/// Linear; the time is in the verified body, `webhookTimestamp` in ms: refuse what is older
/// than a minute. linear.app/developers/webhooks.
pub const LINEAR: Scheme = Scheme { name: "linear", signature: "linear-signature", ..HEX_OF_BODY };

/// Meta: Facebook, Instagram, WhatsApp. developers.facebook.com/docs/graph-api/webhooks.
pub const META: Scheme = Scheme {
    name: "meta",
    signature: "x-hub-signature-256",
    // WhatsApp's; developers.facebook.com/docs/whatsapp/cloud-api, "Webhooks".
    max_body: Some(3 << 20),
    ..SHA256_EQUALS
};

/// Notion. developers.notion.com/reference/webhooks.
pub const NOTION: Scheme =
    Scheme { name: "notion", signature: "x-notion-signature", event_id: &["/id"], ..SHA256_EQUALS };

/// PagerDuty v3, with one signature for each live secret. developer.pagerduty.com, "Webhook signatures".
pub const PAGER_DUTY: Scheme = Scheme {
    name: "pager-duty",
    signature: "x-pagerduty-signature",
    grammar: Grammar::List { separator: b',', version: "v1=" },
    event_id: &["/event/id"],
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

/// Sentry; `Sentry-Hook-Timestamp` is unsigned and not looked at. docs.sentry.io, "Webhooks".
pub const SENTRY: Scheme =
    Scheme { name: "sentry", signature: "sentry-hook-signature", ..HEX_OF_BODY };

/// Shopify. shopify.dev, "Verify webhook deliveries".
pub const SHOPIFY: Scheme =
    Scheme { name: "shopify", signature: "x-shopify-hmac-sha256", ..BASE64_OF_BODY };

/// Typeform. typeform.com/developers/webhooks/secure-your-webhooks.
pub const TYPEFORM: Scheme = Scheme {
    name: "typeform",
    signature: "typeform-signature",
    grammar: Grammar::One { prefix: "sha256=" },
    event_id: &["/event_id"],
    ..BASE64_OF_BODY
};

/// Vercel, which has no other than HMAC-SHA1. vercel.com/docs/webhooks/webhooks-api, "Securing
/// webhooks".
#[cfg(feature = "sha1")]
pub const VERCEL: Scheme = Scheme {
    name: "vercel",
    algorithm: Algorithm::HmacSha1,
    signature: "x-vercel-signature",
    ..HEX_OF_BODY
};

/// WooCommerce. developer.woocommerce.com/docs/apis/rest-api/v2/webhooks.
pub const WOO_COMMERCE: Scheme =
    Scheme { name: "woo-commerce", signature: "x-wc-webhook-signature", ..BASE64_OF_BODY };

/// X, formerly Twitter; the key is the app's consumer secret. docs.x.com/x-api/webhooks/quickstart.
pub const X: Scheme = Scheme {
    name: "x",
    signature: "x-twitter-webhooks-signature",
    encoding: Encoding::Base64,
    ..SHA256_EQUALS
};

/// Xero. developer.xero.com/documentation/guides/webhooks/overview.
pub const XERO: Scheme = Scheme { name: "xero", signature: "x-xero-signature", ..BASE64_OF_BODY };
