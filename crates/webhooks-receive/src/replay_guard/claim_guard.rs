//! The claim of an id while its handler runs: settled even if the future of the handler is dropped.

use std::sync::Arc;

use webhooks_core::Timestamp;

use super::single_flight::SingleFlight;
use crate::seen::{SeenClaim, SeenError, SeenId, SeenStore};

/// A claim that this process has, or may have. When the guard is dropped, a task settles the claim.
pub(super) struct ClaimGuard<'g, S: SeenStore> {
    store: &'g Arc<S>,
    single_flight: &'g SingleFlight,
    settlement: Option<Settlement>,
}

/// The call of the store that ends a claim.
enum Settlement {
    Release(SeenClaim),
    Done(SeenId, Timestamp),
}

impl<'g, S: SeenStore> ClaimGuard<'g, S> {
    /// Returns a guard that releases the claim.
    ///
    /// It must exist before the store is asked: a call that is cancelled may have made the claim.
    pub(super) fn new(
        store: &'g Arc<S>,
        single_flight: &'g SingleFlight,
        claim: SeenClaim,
    ) -> Self {
        Self { store, single_flight, settlement: Some(Settlement::Release(claim)) }
    }

    /// Drops the guard without a call of the store: this process has no claim to release.
    pub(super) fn disarm(mut self) {
        self.settlement = None;
    }

    /// Marks the id as done until `until`, instead of releasing the claim.
    pub(super) fn mark_done(&mut self, until: Timestamp) {
        if let Some(Settlement::Release(claim)) = self.settlement.take() {
            self.settlement = Some(Settlement::Done(claim.id, until));
        }
    }

    pub(super) async fn settle(mut self) -> Result<(), SeenError> {
        // The settlement stays in place until the store has answered: if this future is dropped
        // meanwhile, `drop` starts a task that settles.
        let settled = match &self.settlement {
            Some(settlement) => settlement.apply(self.store).await,
            None => Ok(()),
        };
        self.settlement = None;
        settled
    }
}

impl Settlement {
    async fn apply<S: SeenStore>(&self, store: &Arc<S>) -> Result<(), SeenError> {
        match self {
            Self::Release(claim) => store.release(claim.clone()).await,
            Self::Done(id, until) => store.done(id.clone(), *until).await,
        }
    }
}

impl<S: SeenStore> Drop for ClaimGuard<'_, S> {
    fn drop(&mut self) {
        let Some(settlement) = self.settlement.take() else { return };
        let store = Arc::clone(self.store);
        self.single_flight.settle_later(async move {
            // No caller is left for the error. If the call fails, the claim ends with its lease.
            let _failed = settlement.apply(&store).await;
        });
    }
}
