//! The state that the store, its tasks and all calls share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use webhooks_core::Timestamp;
use webhooks_dispatch::{
    clock::{Clock as _, MonotonicTime, SystemClock},
    store::ChangeNotifier,
};
use webhooks_registry::seal::SealingKeys;

use crate::call::{Call, Database, with_timeout};
use crate::claim_state::{ClaimTurns, EndpointCache};
use crate::known_due::KnownDue;
use crate::local_queue::LocalQueues;
use crate::membership::Membership;
use crate::row;

/// Returns the present time for the local queues. It is not the time of the engine's clock, since a
/// publish is not given a monotonic time.
pub(crate) fn local_now() -> MonotonicTime {
    SystemClock.monotonic()
}

/// The inside of a store.
///
/// # Locks
/// Of its four mutexes, a call takes those that it needs in this order: `turns`, `endpoint_cache`,
/// `local_queues`, `known_due`. Only `turns` may be
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
    /// The endpoints with something to claim in the database.
    known_due: Mutex<KnownDue>,
    /// The time that the last read of all endpoints took, in microseconds.
    read_time: AtomicU64,
    pub(crate) notifier: ChangeNotifier,
    /// Wakes the task that reads which endpoints other processes want to be probed.
    pub(crate) probes_asked: Notify,
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
            known_due: Mutex::default(),
            read_time: AtomicU64::new(0),
            notifier: ChangeNotifier::new(),
            probes_asked: Notify::new(),
        }
    }

    /// Wakes this process's worker, which then reads all endpoints: anything in the database may have
    /// become due.
    ///
    /// A caller that knows which endpoints have something to claim notes them in [`KnownDue`] and
    /// calls `notifier.notify()` instead, and so does one that changed only the local queues.
    pub(crate) fn wake(&self) {
        self.known_due().forget();
        self.notifier.notify();
    }

    /// Wakes this process's worker, which then asks the database for these endpoints: they may have
    /// something to claim, or to cancel.
    pub(crate) fn wake_for(&self, endpoints: impl IntoIterator<Item = i64>) {
        let mut known = self.known_due();
        for endpoint in endpoints {
            // Its due time is not known, and the claim finds it.
            known.note(row::endpoint_number(endpoint), Timestamp::UNIX_EPOCH);
        }
        drop(known);
        self.notifier.notify();
    }

    pub(crate) fn set_read_time(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.read_time.store(micros, Ordering::Relaxed);
    }

    /// Returns the time that the last read of all endpoints took.
    pub(crate) fn read_time(&self) -> Duration {
        Duration::from_micros(self.read_time.load(Ordering::Relaxed))
    }

    /// Wakes the workers of other processes when the transaction is committed.
    pub(crate) async fn notify_others(&self, transaction: &mut Call) -> Result<(), sqlx::Error> {
        let notify = sqlx::query("SELECT webhooks.notify_others($1)")
            .persistent(false)
            .bind(self.membership.id);
        notify.execute(transaction.connection()).await.map(drop)
    }

    /// Has the workers of other processes probe these endpoints when the transaction is committed.
    pub(crate) async fn probe_elsewhere(
        &self,
        transaction: &mut Call,
        endpoints: &[i64],
    ) -> Result<(), sqlx::Error> {
        let probe = sqlx::query("SELECT webhooks.probe_elsewhere($1, $2)").persistent(false);
        let probe = probe.bind(self.membership.id).bind(endpoints);
        probe.execute(transaction.connection()).await.map(drop)
    }

    /// Returns the probes that other processes asked for, the last ones by their ids.
    pub(crate) async fn probes_of_others(&self) -> Result<Vec<(i64, Vec<i64>)>, sqlx::Error> {
        const ASKED: &str = "SELECT id, endpoints FROM webhooks.probes_asked($1)";
        let mut call = self.database.call().await?;
        let asked = sqlx::query_as(ASKED).persistent(call.prepares()).bind(self.membership.id);
        let asked = asked.fetch_all(call.connection()).await?;
        call.commit().await?;
        Ok(asked)
    }

    /// Has this process's worker probe these endpoints, and ask the database for them.
    pub(crate) fn probe(&self, endpoints: &[i64]) {
        self.wake_for(endpoints.iter().copied());
        self.notifier.probe(endpoints.iter().map(|endpoint| row::endpoint_number(*endpoint)));
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

    pub(crate) fn known_due(&self) -> MutexGuard<'_, KnownDue> {
        self.known_due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
