//! The workers of an engine, which must hear of changes of endpoints.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;
use webhooks_registry::EndpointNumber;

use crate::scheduler::Scheduler;

/// The workers of an engine, for changes of endpoints. Weak, so that a worker that has ended leaves
/// nothing behind.
#[derive(Debug, Default)]
pub(crate) struct WorkerRegistry(Mutex<Vec<Weak<SchedulerHandle>>>);

impl WorkerRegistry {
    pub(crate) fn add(&self, worker: &Arc<SchedulerHandle>) {
        let mut workers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        workers.retain(|worker| worker.strong_count() > 0);
        workers.push(Arc::downgrade(worker));
    }

    /// Stops all workers from starting anything for an endpoint as it was. They release the claims
    /// that wait, and claim again what the endpoint still wants.
    pub(crate) fn release_endpoint(&self, endpoint: EndpointNumber) {
        self.for_each(|worker| worker.release_endpoint(endpoint));
    }

    /// Does the same for an endpoint that was unregistered or disabled. The workers forget it, too.
    pub(crate) fn forget_endpoint(&self, endpoint: EndpointNumber) {
        self.for_each(|worker| worker.forget_endpoint(endpoint));
    }

    /// Makes all workers forget the results of an endpoint's attempts.
    pub(crate) fn reset_health(&self, endpoint: EndpointNumber) {
        self.for_each(|worker| worker.scheduler().reset_health(endpoint));
    }

    fn for_each(&self, change: impl Fn(&SchedulerHandle)) {
        let workers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for worker in workers.iter().filter_map(Weak::upgrade) {
            // The driver must run to release the claims that no lane holds any more.
            change(&worker);
            worker.wake.notify_one();
        }
    }
}

/// The scheduler of a worker, and the signal that wakes the worker's driver.
#[derive(Debug)]
pub(crate) struct SchedulerHandle {
    scheduler: Mutex<Scheduler>,
    pub(crate) wake: Notify,
    /// The endpoints that were changed since the present claim was requested; `None` between
    /// claims.
    changed: Mutex<Option<BTreeSet<EndpointNumber>>>,
}

impl SchedulerHandle {
    pub(crate) fn new(scheduler: Scheduler) -> Self {
        Self { scheduler: Mutex::new(scheduler), wake: Notify::new(), changed: Mutex::default() }
    }

    // A panic under this lock would be a bug; going on does less harm than stopping.
    pub(crate) fn scheduler(&self) -> MutexGuard<'_, Scheduler> {
        self.scheduler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts to collect the endpoints that change while a claim is under way.
    pub(crate) fn begin_claim(&self) {
        *self.changed() = Some(BTreeSet::new());
    }

    /// Returns the endpoints that changed while the claim was under way.
    pub(crate) fn end_claim(&self) -> BTreeSet<EndpointNumber> {
        self.changed().take().unwrap_or_default()
    }

    /// Releases what waits for an endpoint as it was.
    ///
    /// The change is noted before the scheduler is locked: a claim that the store answered before
    /// the change, and that is not yet taken in, then finds the note.
    fn release_endpoint(&self, endpoint: EndpointNumber) {
        self.note_changed_endpoint(endpoint);
        self.scheduler().release_endpoint(endpoint);
    }

    /// Does the same for an endpoint that was unregistered or disabled, and forgets it.
    fn forget_endpoint(&self, endpoint: EndpointNumber) {
        self.note_changed_endpoint(endpoint);
        self.scheduler().forget_endpoint(endpoint);
    }

    fn note_changed_endpoint(&self, endpoint: EndpointNumber) {
        if let Some(changed) = &mut *self.changed() {
            changed.insert(endpoint);
        }
    }

    fn changed(&self) -> MutexGuard<'_, Option<BTreeSet<EndpointNumber>>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
