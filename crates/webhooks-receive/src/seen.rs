//! For implementors: the port to the store of a [`ReplayGuard`](crate::ReplayGuard), which remembers
//! the ids of webhooks. Applications take one of the three stores at the root of this crate.
//!
//! A guard calls [`begin`](SeenStore::begin) before it runs a handler. Afterwards it calls
//! [`done`](SeenStore::done) if the handler succeeded, and [`release`](SeenStore::release) otherwise.
//! If the process dies in between, nobody calls: the claim ends by its time.

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

/// The key under which a webhook is remembered: its id, and the scope of the id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct SeenId {
    /// The guard's scope, and the tenant if there are tenants. No scope can use up the ids of
    /// another.
    pub scope: Arc<str>,
    /// The id that the sender signed, or a hash of the body or of its fields.
    pub id: Arc<str>,
}

impl SeenId {
    /// Returns the key of this id in this scope.
    pub fn new(scope: &str, id: &str) -> Self {
        Self { scope: Arc::from(scope), id: Arc::from(id) }
    }
}

/// The right to handle a webhook, for a time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "it is nothing but these two")]
pub struct SeenClaim {
    /// The webhook to handle.
    pub id: SeenId,
    /// When others may take it over. Two claims of one id never end at the same time, since the later
    /// begins when the earlier has ended; so `until` identifies a claim.
    pub until: Timestamp,
}

/// The answer of a store to a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a guard must have an answer to each")]
pub enum BeginOutcome {
    /// The claim is made.
    Claimed,
    /// Another claim of the id has not ended.
    InProgress {
        /// When that claim ends.
        until: Timestamp,
    },
    /// The id is done.
    Done,
}

/// Remembers which webhooks were handled. The crate `webhooks-conformance` (feature `receive`) has
/// the suite that every store of this crate passes, for a store of your own.
///
/// All methods may be called at the same time.
#[diagnostic::on_unimplemented(message = "`{Self}` is not a store: implement `SeenStore`")]
pub trait SeenStore: Send + Sync + 'static {
    /// Claims an id unless it is done, or another claim has not ended at `now`. The call is atomic: of
    /// any number of callers, one gets [`BeginOutcome::Claimed`].
    ///
    /// # Errors
    /// [`SeenError`] when the store fails; the id may then be claimed, until the claim ends.
    ///
    /// # Cancellation
    /// When the future is dropped, the id may be claimed, until the claim ends.
    fn begin(
        &self,
        claim: SeenClaim,
        now: Timestamp,
    ) -> impl Future<Output = Result<BeginOutcome, SeenError>> + Send;

    /// Remembers the id as done until `until`, even if the claim has ended, or another caller has one.
    ///
    /// # Errors
    /// [`SeenError`] when the store fails; the id may then be handled again.
    fn done(
        &self,
        id: SeenId,
        until: Timestamp,
    ) -> impl Future<Output = Result<(), SeenError>> + Send;

    /// Releases this claim if it still exists. A later claim of the id stays.
    ///
    /// # Errors
    /// [`SeenError`] when the store fails; the claim then ends by its time.
    fn release(&self, claim: SeenClaim) -> impl Future<Output = Result<(), SeenError>> + Send;
}

/// The reason why a seen store failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SeenError {
    /// The number of webhooks in flight has reached the capacity of the store.
    #[error("{capacity} webhooks are being handled, and no more can be remembered")]
    Full {
        /// The capacity.
        capacity: usize,
    },
    /// The store cannot be used.
    #[error("the seen store cannot be used")]
    Unavailable {
        /// The error of the database.
        source: BoxError,
    },
}
