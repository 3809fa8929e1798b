//! The port behind which ids are remembered.

#[cfg(feature = "memory")]
pub(crate) mod memory;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

use std::sync::Arc;

use thiserror::Error;
use webhooks_core::Timestamp;

use crate::error::BoxError;

/// The name under which a webhook is remembered: its id, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct SeenId {
    /// The guard's scope, and the tenant where there are tenants. One can't use up the ids of
    /// another.
    pub scope: Arc<str>,
    /// The id that the sender signed, or the hash of the body.
    pub id: Arc<str>,
}

impl SeenId {
    /// Returns the name of this id within this scope.
    pub fn new(scope: &str, id: &str) -> Self {
        Self { scope: Arc::from(scope), id: Arc::from(id) }
    }
}

/// The right to handle a webhook, for a time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "it is nothing but these two")]
pub struct SeenClaim {
    /// What is to be handled.
    pub id: SeenId,
    /// When others may take it over. No two claims of one id have the same, for the later begins
    /// when the earlier has ended: it tells them apart.
    pub until: Timestamp,
}

/// What a store says to somebody who wants to handle a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a guard must have an answer to each")]
pub enum BeginOutcome {
    /// Nobody has: the claim is made.
    Claimed,
    /// Somebody is at it.
    InProgress {
        /// When that claim ends.
        until: Timestamp,
    },
    /// It is done.
    Done,
}

/// Remembers which webhooks were handled. Every store passes one suite, `tests/src/seen.rs` of the
/// repository, which a store of your own can take over.
#[diagnostic::on_unimplemented(message = "`{Self}` is not a store: implement `SeenStore`")]
pub trait SeenStore: Send + Sync + 'static {
    /// Claims an id if it is neither done nor claimed by somebody else, as of `now`: atomically, so
    /// that of any number of callers one gets [`BeginOutcome::Claimed`].
    ///
    /// # Errors
    /// [`SeenError`] when the store fails; the id may then be claimed, until the claim ends.
    ///
    /// # Cancellation
    /// The same.
    fn begin(
        &self,
        claim: SeenClaim,
        now: Timestamp,
    ) -> impl Future<Output = Result<BeginOutcome, SeenError>> + Send;

    /// Remembers the id as done until then, whatever became of the claim.
    ///
    /// # Errors
    /// [`SeenError`] when the store fails; the id may then be handled again.
    fn done(
        &self,
        id: SeenId,
        until: Timestamp,
    ) -> impl Future<Output = Result<(), SeenError>> + Send;

    /// Gives the claim back, if it is still there; another's is left alone.
    ///
    /// # Errors
    /// [`SeenError`] when the store fails; the claim then ends by itself.
    fn release(&self, claim: SeenClaim) -> impl Future<Output = Result<(), SeenError>> + Send;
}

/// Says why a store of ids failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SeenError {
    /// As many webhooks are being handled as the store may remember.
    #[error("{capacity} webhooks are being handled, and no more can be remembered")]
    Full {
        /// How many.
        capacity: usize,
    },
    /// The store cannot be used.
    #[error("the store of ids cannot be used")]
    Unavailable {
        /// What it says of it.
        source: BoxError,
    },
}
