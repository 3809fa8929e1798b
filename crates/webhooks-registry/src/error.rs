//! The reasons why an endpoint cannot be made.

use std::convert::Infallible;

use thiserror::Error;
use webhooks_core::LabelError;

use crate::{EndpointUrlError, HeaderError, HeaderProfile, SecretError, SubscriptionError};

/// The most secrets of an endpoint: a receiver checks no more signatures than that.
pub(crate) const MAX_SECRETS: usize = 16;

/// The most subscriptions of an endpoint: each is an entry of the index, added and removed under its
/// lock. An endpoint that needs more event types subscribes to subtrees.
pub(crate) const MAX_SUBSCRIPTIONS: usize = 256;

/// The reason why an endpoint cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// Both an `authorization` header and client credentials are set.
    #[error("an endpoint has either an authorization header or client credentials, not both")]
    Authorization,
    /// A channel is malformed, or there are too many.
    #[error(transparent)]
    Channels(#[from] LabelError),
    /// A header of its own is not allowed.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// There is no header profile.
    #[error("an endpoint needs at least one header profile")]
    NoProfile,
    /// A setting is outside its range.
    #[error("the {setting} must be {range}")]
    OutOfRange {
        /// The name of the setting.
        setting: &'static str,
        /// The allowed range.
        range: &'static str,
    },
    /// The profile needs a secret that starts with `whsec_`.
    #[error("header profile {profile:?} needs a secret that starts with whsec_")]
    ProfileNeedsStandardSecret {
        /// The profile at fault.
        profile: HeaderProfile,
    },
    /// The secret cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A subscription is malformed.
    #[error(transparent)]
    Subscription(#[from] SubscriptionError),
    /// There are TLS settings, and the URL is `http`: no authority would be checked, and no certificate
    /// presented.
    #[error("an endpoint with TLS settings needs a URL that starts with https://")]
    TlsWithoutHttps,
    /// Credentials or certificates are too long: more than 4 KiB for a text, or 64 KiB of PEM.
    #[error("the {what} may have {max} bytes at most")]
    TooLong {
        /// The name of the text.
        what: &'static str,
        /// The longest that is allowed, in bytes.
        max: usize,
    },
    /// The endpoint has 16 secrets already.
    #[error("an endpoint has at most {MAX_SECRETS} secrets; let old ones expire first")]
    TooManySecrets,
    /// The endpoint has more than 256 subscriptions.
    #[error(
        "an endpoint has at most {MAX_SUBSCRIPTIONS} subscriptions; a subtree such as 'user.*' covers many types"
    )]
    TooManySubscriptions,
    /// The user name for Basic authorization has a colon, where the password would begin (RFC 7617
    /// §2).
    #[error("a user name must not contain ':'")]
    UserName,
    /// The URL cannot be an endpoint's.
    #[error(transparent)]
    Url(#[from] EndpointUrlError),
}

impl From<Infallible> for EndpointError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Returns an error for the first setting that is outside its range. A setting is whether it fits, its
/// name and its range.
pub(crate) fn check_ranges<const N: usize>(
    settings: [(bool, &'static str, &'static str); N],
) -> Result<(), EndpointError> {
    match settings.into_iter().find(|(fits, ..)| !fits) {
        Some((_, setting, range)) => Err(EndpointError::OutOfRange { setting, range }),
        None => Ok(()),
    }
}
