//! A worker: claims, carries out, settles, and waits for more.

mod attempts;
mod disabler;
mod driver;
mod settler;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use webhooks_registry::store::EndpointStore;

use self::driver::Driver;
use crate::clock::Clock;
use crate::history::HistoryStore;
use crate::observer::{Occurrence, WorkerPart};
use crate::parts::EngineParts;
use crate::scheduler::Scheduler;
use crate::store::DeliveryStore;
use crate::transport::Transport;
use crate::worker_registry::SchedulerHandle;

/// Delivers what is due until it is shut down. Dropping it stops it at once: what is in flight is
/// then sent again when its lease ends.
#[must_use = "a worker ends when it is dropped, also by `let _ =`: keep it in a variable"]
pub struct Worker {
    stop: Option<oneshot::Sender<Stop>>,
    driver: JoinHandle<ShutdownReport>,
}

/// How a worker is to end.
#[derive(Debug, Clone, Copy)]
enum Stop {
    /// When what is in flight has ended, or this time is over.
    Grace(Duration),
    /// When nothing is left to do, or this time is over.
    Drained(Duration),
}

/// Says how a worker ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// How many deliveries were handed back before they started.
    pub released: usize,
    /// How many exchanges were broken off when the grace time ended. They are due again, and the
    /// receiver may have got them.
    pub broken_off: usize,
    /// How many results could not be settled: the store failed to the end, or the grace time was
    /// shorter than results are gathered (`linger`). They are due again when their leases end.
    pub unsettled: usize,
    /// How many deliveries still wait in the store, for whichever worker: 10,000 at most are counted.
    /// `None` if the store failed to tell.
    pub waiting: Option<u64>,
    /// How often a part of the worker panicked, and it went on.
    pub failures: u64,
    /// Whether the worker had ended by itself before, because of a bug. What it had claimed is due again
    /// when its leases end; the other numbers are unknown then, and zero.
    pub had_died: bool,
}

impl Worker {
    pub(crate) fn start<S, T, C>(parts: Arc<EngineParts<S, T, C>>) -> Self
    where
        S: DeliveryStore + EndpointStore + HistoryStore,
        T: Transport,
        C: Clock,
    {
        let (stop, stopped) = oneshot::channel();
        let driver = tokio::spawn(Driver::new(parts).run(stopped));
        Self { stop: Some(stop), driver }
    }

    /// Stops claiming, lets exchanges in flight finish within the grace time, settles them, and
    /// hands the rest back at once.
    ///
    /// # Cancellation
    /// Dropping the future stops the worker at once.
    pub async fn shutdown(self, grace: Duration) -> ShutdownReport {
        self.end(Stop::Grace(grace)).await
    }

    /// Delivers what waits, and ends when nothing more falls due within the grace time: for programs
    /// that publish and exit. In the last quarter of that time it starts nothing, so that what is in
    /// flight can end. What is to be retried later, and what waits for a paused endpoint, stays in
    /// the store for the next worker; [`ShutdownReport::waiting`] tells how much.
    ///
    /// # Cancellation
    /// Dropping the future stops the worker at once.
    pub async fn drain(self, grace: Duration) -> ShutdownReport {
        self.end(Stop::Drained(grace)).await
    }

    async fn end(mut self, how: Stop) -> ShutdownReport {
        if let Some(stop) = self.stop.take() {
            // The driver is gone only if it panicked; then there is nothing left to stop.
            let _gone = stop.send(how);
        }
        let died = |_panic| ShutdownReport { had_died: true, ..ShutdownReport::default() };
        (&mut self.driver).await.unwrap_or_else(died)
    }

    /// Returns whether the worker delivers. It ends by itself only because of a bug that it could not
    /// contain, or with its runtime.
    pub fn is_running(&self) -> bool {
        !self.driver.is_finished()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

/// What the tasks of a worker share.
struct WorkerParts<S, T, C> {
    parts: Arc<EngineParts<S, T, C>>,
    scheduling: Arc<SchedulerHandle>,
    /// Room for exchanges in flight and results that are not settled yet.
    room: Arc<Semaphore>,
    /// How often a part panicked.
    failures: AtomicU64,
    /// How often the store did as it was asked: what fails in between is not the whole store's fault.
    answers: AtomicU64,
}

impl<S, T, C> WorkerParts<S, T, C> {
    fn scheduler(&self) -> MutexGuard<'_, Scheduler> {
        self.scheduling.scheduler()
    }

    fn tell_failure(&self, part: WorkerPart) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.parts.observers.notify(&Occurrence::WorkerFailed { part });
    }

    fn has_answered(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }
}
