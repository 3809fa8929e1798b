//! The schemes of webhook providers, each with the page that it follows.
//!
//! A scheme that signs no timestamp cannot detect a replay: store the delivery ids that you have seen.
//! A scheme that signs the URL needs the one that you gave the provider: see
//! [`Verifier::url`](crate::Verifier::url).
//!
//! Left out: HubSpot v1 and v2 (a hash with the secret in front, which can be extended, and no HMAC),
//! PayPal and AWS SNS (RSA with certificates fetched from the network), Plaid and Vonage (JSON Web
//! Tokens, Plaid's by keys fetched from the network), Adyen's payment notifications (fields of the
//! JSON body joined). Clerk, Resend, OpenAI, Supabase, GitLab's signing tokens, Brex and Polar send
//! [`STANDARD`](crate::standard::STANDARD) or [`SVIX`](crate::standard::SVIX); keys of Supabase are
//! read by [`Key::supabase`](crate::Key::supabase), those of Polar by
//! [`Key::polar`](crate::Key::polar).

mod body;
mod other;
mod timed;

use crate::scheme::{Encoding, Grammar, HEX_OF_BODY, Scheme};

pub use body::*;
pub use other::*;
pub use timed::*;

/// A hexadecimal HMAC of the body behind `sha256=`.
const SHA256_EQUALS: Scheme = Scheme { grammar: Grammar::One { prefix: "sha256=" }, ..HEX_OF_BODY };

/// A base64 HMAC of the body.
const BASE64_OF_BODY: Scheme = Scheme { encoding: Encoding::Base64, ..HEX_OF_BODY };

/// All schemes of this module, as far as their features are on.
pub const ALL: &[Scheme] = &[
    ADYEN_HEADER,
    ASANA,
    BITBUCKET,
    BOX,
    BUILDKITE,
    CALENDLY,
    CAL_COM,
    CIRCLE_CI,
    CLOUDFLARE_STREAM,
    COINBASE_CDP,
    CUSTOMER_IO,
    #[cfg(feature = "ed25519")]
    DISCORD,
    DOCU_SIGN,
    DROPBOX,
    ELEVEN_LABS,
    GITEA,
    GITHUB,
    GITLAB_TOKEN,
    GO_CARDLESS,
    HUBSPOT_V3,
    #[cfg(feature = "sha1")]
    INTERCOM,
    LEMON_SQUEEZY,
    LINE,
    LINEAR,
    MAILGUN,
    #[cfg(feature = "sha1")]
    MANDRILL,
    META,
    MUX,
    NOTION,
    PADDLE,
    PAGER_DUTY,
    PAYSTACK,
    RAZORPAY,
    SANITY,
    #[cfg(feature = "p256")]
    SENDGRID,
    SENTRY,
    SHOPIFY,
    SLACK,
    SQUARE,
    STRIPE,
    TELEGRAM,
    #[cfg(feature = "ed25519")]
    TELNYX,
    #[cfg(feature = "sha1")]
    TRELLO,
    #[cfg(feature = "sha1")]
    TWILIO,
    TWITCH,
    TYPEFORM,
    #[cfg(feature = "sha1")]
    VERCEL,
    WEBFLOW,
    WOO_COMMERCE,
    WORKOS,
    X,
    XERO,
    ZENDESK,
    ZOOM,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::standard::{STANDARD, SVIX};
    use crate::x_webhook::{X_WEBHOOK, X_WEBHOOK_SHA512};

    #[test]
    fn every_scheme_holds_to_the_rules_for_schemes_of_ones_own() {
        let own = [STANDARD, SVIX, X_WEBHOOK, X_WEBHOOK_SHA512];
        for scheme in ALL.iter().chain(&own) {
            assert_eq!(scheme.check(), Ok(()), "{}", scheme.name);
        }
    }
}
