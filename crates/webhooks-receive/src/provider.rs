//! Providers as types, so that the signature of a handler names the provider of its webhooks.
//!
//! For a provider that is not here, implement [`Provider`], or pass its scheme to
//! [`Receiver::new`](crate::Receiver::new).

use webhooks_sign::{providers, scheme::Scheme, standard};

/// A provider that is known at compile time: a type without values, for
/// [`Receiver::from_keys`](crate::Receiver::from_keys) and `VerifiedWebhook<T, P>`.
///
/// # Example
/// ```
/// use webhooks_receive::provider::Provider;
/// use webhooks_sign::{providers::LINEAR, scheme::Scheme};
///
/// enum Linear {}
/// impl Provider for Linear {
///     const SCHEME: Scheme = LINEAR;
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no provider: implement `Provider`, or choose the scheme by \
               `Receiver::new`"
)]
pub trait Provider: 'static {
    /// The scheme by which the provider signs.
    const SCHEME: Scheme;
}

/// A provider whose scheme is a value: that of [`Receiver::new`](crate::Receiver::new).
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_enums, reason = "it has no values")]
pub enum AnyScheme {}

macro_rules! providers {
    ($($(#[$doc:meta])* $name:ident = $scheme:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        #[expect(clippy::exhaustive_enums, reason = "it has no values")]
        pub enum $name {}

        impl Provider for $name {
            const SCHEME: Scheme = $scheme;
        }
    )*};
}

providers! {
    /// [GitHub](providers::GITHUB).
    GitHub = providers::GITHUB;
    /// [Meta](providers::META): Facebook, Instagram, WhatsApp.
    Meta = providers::META;
    /// [Shopify](providers::SHOPIFY).
    Shopify = providers::SHOPIFY;
    /// [Slack](providers::SLACK).
    Slack = providers::SLACK;
    /// [Standard Webhooks](standard::STANDARD), by HMAC.
    Standard = standard::STANDARD;
    /// [Stripe](providers::STRIPE).
    Stripe = providers::STRIPE;
    /// [Svix](standard::SVIX), by HMAC.
    Svix = standard::SVIX;
    /// [Twitch](providers::TWITCH).
    Twitch = providers::TWITCH;
    /// [Zoom](providers::ZOOM).
    Zoom = providers::ZOOM;
}
