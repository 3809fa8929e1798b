//! The workers of an engine, which must hear of changes of endpoints.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Notify, Semaphore};
use webhooks_core::Timestamp;
use webhooks_registry::EndpointNumber;

use crate::clock::Now;
use crate::gauges::Gauges;
use crate::report::WorkerReport;
use crate::scheduler::Scheduler;

/// The workers of an engine, for changes of endpoints. Weak, so that a worker that has ended leaves
/// nothing behind.
#[derive(Debug, Default)]
pub(crate) struct WorkerRegistry {
    workers: Mutex<Vec<Weak<SchedulerHandle>>>,
    /// The number of workers that were ever added.
    added: AtomicU64,
}

impl WorkerRegistry {
    /// Adds a worker; returns its number, from 1.
    pub(crate) fn add(&self, worker: &Arc<SchedulerHandle>) -> u64 {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.retain(|worker| worker.strong_count() > 0);
        workers.push(Arc::downgrade(worker));
        self.added.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Returns the workers that live.
    pub(crate) fn live(&self) -> Vec<Arc<SchedulerHandle>> {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.iter().filter_map(Weak::upgrade).collect()
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
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        for worker in workers.iter().filter_map(Weak::upgrade) {
            // The driver must run to release the claims that no lane holds any more.
            change(&worker);
            worker.wake.notify_one();
        }
    }
}

/// The scheduler of a worker, the signal that wakes the worker's driver, and the permits of its
/// attempts.
#[derive(Debug)]
pub(crate) struct SchedulerHandle {
    scheduler: Mutex<Scheduler>,
    started_at: Timestamp,
    pub(crate) wake: Notify,
    /// A permit for each attempt in flight and each result that is not settled yet.
    pub(crate) permits: Arc<Semaphore>,
    max_unsettled: usize,
    /// The endpoints that were changed since the present claim was requested; `None` between
    /// claims.
    changed: Mutex<Option<BTreeSet<EndpointNumber>>>,
}

impl SchedulerHandle {
    pub(crate) fn new(scheduler: Scheduler, max_unsettled: usize, started_at: Timestamp) -> Self {
        Self {
            scheduler: Mutex::new(scheduler),
            started_at,
            wake: Notify::new(),
            permits: Arc::new(Semaphore::new(max_unsettled)),
            max_unsettled,
            changed: Mutex::default(),
        }
    }

    /// Returns the present numbers of the worker.
    pub(crate) fn gauges(&self) -> Gauges {
        self.with_unsettled(self.scheduler().gauges())
    }

    /// Returns a report of the worker.
    pub(crate) fn report(&self, now: Now) -> WorkerReport {
        let (gauges, endpoints) = {
            let mut scheduler = self.scheduler();
            // First: it moves the time forward.
            let endpoints = scheduler.endpoint_reports(now.monotonic);
            (scheduler.gauges(), endpoints)
        };
        let gauges = self.with_unsettled(gauges);
        WorkerReport { started_at: self.started_at, at: now.wall, gauges, endpoints }
    }

    pub(crate) fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// Adds the results that are not settled: the permits that no attempt in flight holds. Both are
    /// read one after the other, so the number may be off by those that started or ended between.
    fn with_unsettled(&self, gauges: Gauges) -> Gauges {
        let held = self.max_unsettled.saturating_sub(self.permits.available_permits());
        let held = u64::try_from(held).unwrap_or(u64::MAX);
        Gauges { unsettled: held.saturating_sub(gauges.in_flight), ..gauges }
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
