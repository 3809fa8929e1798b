//! Errors in the setup of receivers and guards.

use std::time::Duration;

use thiserror::Error;

/// An error of other code, which is the source of an error of this crate.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The reason why a receiver, or its guard against replays, cannot be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The keys are for another algorithm than the scheme's, or there are none.
    #[error("the keys do not suit the scheme {scheme:?}")]
    UnsuitableKeys {
        /// The scheme's name.
        scheme: &'static str,
        /// The error of the verification.
        source: webhooks_sign::Error,
    },
    /// The scheme signs the URL, and the keys have none: use [`Keys::url`](crate::Keys::url), or
    /// [`TenantKeys::url`](crate::TenantKeys::url).
    #[error(
        "the scheme {scheme:?} signs the URL: set it with `Keys::from(key).url(\"https://…\")`"
    )]
    MissingUrl {
        /// The scheme's name.
        scheme: &'static str,
    },
    /// The scheme signs no id, so that an attacker who replays a webhook can change its id, and the
    /// provider documents no id in the body: use
    /// [`ReplayGuard::by_fields`](crate::ReplayGuard::by_fields) or
    /// [`ReplayGuard::by_body`](crate::ReplayGuard::by_body).
    #[error(
        "the scheme {scheme:?} signs no id: use `ReplayGuard::by_fields` or `ReplayGuard::by_body`"
    )]
    UnsignedId {
        /// The scheme's name.
        scheme: &'static str,
    },
    /// The scheme sends or signs a token, and does not sign the body: an attacker who replays a webhook
    /// can change its body, so the body does not identify it.
    #[error("the scheme {scheme:?} does not sign the body")]
    UnsignedBody {
        /// The scheme's name.
        scheme: &'static str,
    },
    /// A JSON pointer (RFC 6901) does not start with `/`, or there is none.
    #[error("fields are named by JSON pointers, such as \"/event/id\"")]
    Pointer,
    /// The provider's events have equal bodies by design, so that the second of two would be lost.
    #[error("the bodies of {scheme:?} repeat by design: handle each webhook, without a guard")]
    RepeatedBodies {
        /// The scheme's name.
        scheme: &'static str,
    },
    /// The lease is zero, so that a handler would have no time.
    #[error("the lease must not be zero")]
    ZeroLease,
    /// An id would be forgotten while its webhook still passes verification.
    #[error("ttl {ttl:?} is too short; a webhook stays valid for {replayable:?}")]
    TtlTooShort {
        /// How long ids were to be remembered.
        ttl: Duration,
        /// How long a replay passes verification: the sum of past and future tolerance, the
        /// receiver's read deadline, and one second.
        replayable: Duration,
    },
}
