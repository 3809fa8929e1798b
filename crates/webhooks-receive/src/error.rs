//! What can be wrong with how a receiver is set up.

use std::time::Duration;

use thiserror::Error;

/// An error of somebody else's code, kept as the source of ours.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Says why a receiver, or its guard against replays, cannot be what it was asked to be.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The keys are for another algorithm than the scheme's, or there is none.
    #[error("the keys do not suit the scheme {scheme:?}")]
    UnsuitableKeys {
        /// The scheme's name.
        scheme: &'static str,
        /// What verification says of them.
        source: webhooks_sign::Error,
    },
    /// The scheme signs the URL, and the keys do not say which: use [`Keys::url`](crate::Keys::url),
    /// or [`TenantKeys::url`](crate::TenantKeys::url).
    #[error(
        "the scheme {scheme:?} signs the URL: say which by `Keys::from(key).url(\"https://…\")`"
    )]
    MissingUrl {
        /// The scheme's name.
        scheme: &'static str,
    },
    /// The scheme signs no id, so whoever replays a webhook can change it, and its provider documents
    /// no field of the body that is one: use [`ReplayGuard::by_fields`](crate::ReplayGuard::by_fields) or
    /// [`ReplayGuard::by_body`](crate::ReplayGuard::by_body).
    #[error(
        "the scheme {scheme:?} signs no id: use `ReplayGuard::by_fields` or `ReplayGuard::by_body`"
    )]
    UnsignedId {
        /// The scheme's name.
        scheme: &'static str,
    },
    /// The scheme repeats a token and signs nothing at all: nothing of a webhook can be remembered
    /// that whoever replays it could not change.
    #[error("the scheme {scheme:?} does not sign the body")]
    UnsignedBody {
        /// The scheme's name.
        scheme: &'static str,
    },
    /// A JSON pointer (RFC 6901) starts with `/`, and a guard needs one at least.
    #[error("fields are named by JSON pointers, such as \"/event/id\"")]
    Pointer,
    /// The provider's events have equal bodies by design, and of two the second would be lost.
    #[error("the bodies of {scheme:?} repeat by design: handle each, without a guard")]
    RepeatedBodies {
        /// The scheme's name.
        scheme: &'static str,
    },
    /// A handler would have no time at all.
    #[error("a lease must last longer than nothing")]
    ZeroLease,
    /// Ids would be forgotten while their webhooks still pass verification.
    #[error("ids must be remembered for more than {replayable:?}, not for {ttl:?}")]
    TtlTooShort {
        /// How long they were to be remembered.
        ttl: Duration,
        /// How long it may come again and pass: past and future tolerance, the receiver's read
        /// deadline and a second, together.
        replayable: Duration,
    },
}
