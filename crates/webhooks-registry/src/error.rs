//! The reasons why an endpoint cannot be made.

use std::convert::Infallible;

use thiserror::Error;

use crate::{EndpointUrlError, HeaderError, HeaderProfile, SecretError, SubscriptionError};

/// How many secrets an endpoint may have: what a receiver checks at most.
pub(crate) const MAX_SECRETS: usize = 16;

/// How many subscriptions an endpoint may have: each is an entry of the index, made and removed
/// under its lock. Whoever wants more event types than this subscribes to subtrees.
pub(crate) const MAX_SUBSCRIPTIONS: usize = 256;

/// Says why an endpoint cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// Both an `authorization` header and client credentials are set.
    #[error("an endpoint has either an authorization header or client credentials, not both")]
    Authorization,
    /// A header of its own is not allowed.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// No header profile is named.
    #[error("an endpoint needs at least one header profile")]
    NoProfile,
    /// A setting is outside its range.
    #[error("the {setting} must be {range}")]
    OutOfRange {
        /// Which setting.
        setting: &'static str,
        /// What it may be.
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
    /// TLS settings are of no use on an `http` URL: nothing would be pinned, and no certificate shown.
    #[error("an endpoint with TLS settings needs a URL that starts with https://")]
    TlsWithoutHttps,
    /// Credentials or certificates are longer than they need to be: 4 KiB a text, 64 KiB of PEM.
    #[error("the {what} may have {max} bytes at most")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// How long it may be, in bytes.
        max: usize,
    },
    /// The endpoint has 16 secrets already.
    #[error("an endpoint has at most {MAX_SECRETS} secrets; let old ones expire first")]
    TooManySecrets,
    /// The endpoint wants more than 256 types and subtrees one by one.
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

/// Returns the first setting that is outside its range: whether it fits, its name, its range.
pub(crate) fn check_ranges<const N: usize>(
    settings: [(bool, &'static str, &'static str); N],
) -> Result<(), EndpointError> {
    match settings.into_iter().find(|(fits, ..)| !fits) {
        Some((_, setting, range)) => Err(EndpointError::OutOfRange { setting, range }),
        None => Ok(()),
    }
}
