//! The state that the store, its tasks and all calls share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use webhooks_dispatch::{
    clock::{Clock as _, MonotonicTime, SystemClock},
    store::ChangeNotifier,
};
use webhooks_registry::seal::SealingKeys;

use crate::call::{Call, Database, with_timeout};
use crate::claim_state::{ClaimTurns, EndpointCache, NextDueCache};
use crate::local_queue::LocalQueues;
use crate::membership::Membership;

/// Returns the present time for the local queues. It is not the time of the engine's clock, since a
/// publish is not given a monotonic time.
pub(crate) fn local_now() -> MonotonicTime {
    SystemClock.monotonic()
}

/// The inside of a store.
///
/// # Locks
/// Of its four mutexes, a call takes those that it needs in this order: `turns`, `endpoint_cache`,
/// `local_queues`. It takes `next_due_cache` with no other one except `turns`. Only `turns` may be
/// held across an `await`; the others are held for a few lines. [`Membership`] has a mutex of its
/// own, which its methods release before they return.
pub(crate) struct PostgresInner {
    pub(crate) database: Database,
    pub(crate) keys: SealingKeys,
    pub(crate) membership: Membership,
    /// Held while a claim is made: two at once would pass over each other's rows.
    pub(crate) turns: tokio::sync::Mutex<ClaimTurns>,
    endpoint_cache: Mutex<EndpointCache>,
    /// The preclaimed deliveries, which wait for the next claims.
    local_queues: Mutex<LocalQueues>,
    /// The times at which something is due in the database, as the last claim found them.
    next_due_cache: Mutex<NextDueCache>,
    /// The count of changes after which [`NextDueCache`] no longer holds.
    changes: AtomicU64,
    pub(crate) notifier: ChangeNotifier,
}

impl PostgresInner {
    pub(crate) fn new(database: Database, keys: SealingKeys, heartbeat: Duration) -> Self {
        Self {
            database,
            keys,
            membership: Membership::new(heartbeat),
            turns: tokio::sync::Mutex::default(),
            endpoint_cache: Mutex::default(),
            local_queues: Mutex::default(),
            next_due_cache: Mutex::default(),
            changes: AtomicU64::new(0),
            notifier: ChangeNotifier::new(),
        }
    }

    /// Wakes this process's worker, which then asks the database: something in it may have become
    /// due.
    ///
    /// A caller that changed only the local queues calls `notifier.notify()` instead. The worker
    /// then claims as well, and [`NextDueCache`] still holds.
    pub(crate) fn wake(&self) {
        self.note_change();
        self.notifier.notify();
    }

    /// Notes that something in the database may have become due.
    pub(crate) fn note_change(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Wakes the workers of other processes when the transaction is committed.
    pub(crate) async fn notify_others(&self, transaction: &mut Call) -> Result<(), sqlx::Error> {
        let notify = sqlx::query("SELECT webhooks.notify_others($1)")
            .persistent(false)
            .bind(self.membership.id);
        notify.execute(transaction.connection()).await.map(drop)
    }

    /// Tells the other workers that this one is gone. If that fails, they notice it a little later.
    pub(crate) async fn leave(&self) {
        let _noticed_later = with_timeout(self.membership.leave(&self.database)).await;
    }

    /// Leaves the other workers if this one is to end and has nothing left to settle.
    pub(crate) async fn leave_if_ended(&self) {
        if self.membership.has_ended() {
            self.leave().await;
        }
    }

    pub(crate) fn endpoint_cache(&self) -> MutexGuard<'_, EndpointCache> {
        self.endpoint_cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn local_queues(&self) -> MutexGuard<'_, LocalQueues> {
        self.local_queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn next_due_cache(&self) -> MutexGuard<'_, NextDueCache> {
        self.next_due_cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
