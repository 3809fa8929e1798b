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
    /// The scheme signs no id, so whoever replays a webhook can change it: use
    /// [`Guard::by_body`](crate::Guard::by_body).
    #[error("the scheme {scheme:?} signs no id to remember")]
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
