//! A worker: it claims deliveries, makes attempts, settles the results, and waits for more.

// In the order of reading.
mod attempts;
mod disabler;

mod settler;

mod ending;

mod driver;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use webhooks_registry::store::EndpointStore;

use self::driver::Driver;
use crate::clock::Clock;
use crate::engine_shared::EngineShared;
use crate::history::HistoryStore;
use crate::observer::{Occurrence, WorkerPart};
use crate::scheduler::Scheduler;
use crate::store::DeliveryStore;
use crate::transport::Transport;
use crate::worker_registry::SchedulerHandle;

/// A handle to the tasks that deliver what is due, until it is shut down.
///
/// Dropping it stops the worker at once. Deliveries in flight are then sent again when their leases
/// end.
#[must_use = "a worker ends when it is dropped, also by `let _ =`: keep it in a variable"]
pub struct Worker {
    stop: Option<oneshot::Sender<Stop>>,
    driver: JoinHandle<ShutdownReport>,
}

/// The way in which a worker is to end.
#[derive(Debug, Clone, Copy)]
enum Stop {
    /// An end when all attempts in flight have ended, or this time is over.
    Grace(Duration),
    /// An end when nothing is left to deliver, or this time is over.
    Drained(Duration),
}

/// A report of how a worker ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// The number of deliveries whose claims were released before an attempt started.
    pub released: usize,
    /// The number of attempts that were broken off when the grace time ended. Their deliveries are
    /// due again, and the receiver may have got them.
    pub broken_off: usize,
    /// The number of results that could not be settled: the store failed to the end, or the grace
    /// time was shorter than `linger`. Their deliveries are due again: at once if the store then
    /// takes the release, else when their leases end.
    pub unsettled: usize,
    /// The number of deliveries that still wait in the store, for any worker: at most 10,000 are
    /// counted. `None` if the store failed.
    pub waiting: Option<u64>,
    /// The number of times that a part of the worker panicked and the worker went on.
    pub failures: u64,
    /// Set if the worker had ended by itself before, because of a bug. Its deliveries are due again
    /// when their leases end. The other numbers are unknown then, and zero.
    pub had_died: bool,
}

impl Worker {
    pub(crate) fn start<S, T, C>(engine: Arc<EngineShared<S, T, C>>) -> Self
    where
        S: DeliveryStore + EndpointStore + HistoryStore,
        T: Transport,
        C: Clock,
    {
        let (stop, stopped) = oneshot::channel();
        let driver = tokio::spawn(Driver::new(engine).run(stopped));
        Self { stop: Some(stop), driver }
    }

    /// Stops claiming, lets attempts in flight end within `grace`, settles them, and releases all
    /// other claims at once. The last calls to the store may take half a second each beyond
    /// `grace`, 2.5 s in all.
    ///
    /// # Cancellation
    /// Dropping the future stops the worker at once.
    pub async fn shutdown(self, grace: Duration) -> ShutdownReport {
        self.end(Stop::Grace(grace)).await
    }

    /// Delivers what waits, and ends when nothing more falls due within three quarters of `grace`:
    /// for programs that publish and exit.
    ///
    /// In the last quarter of `grace` it starts nothing, so that attempts in flight can end. Later
    /// retries, and deliveries for paused endpoints, stay in the store for the next worker;
    /// [`ShutdownReport::waiting`] counts them. The last calls to the store may take as long beyond
    /// `grace` as those of [`shutdown`](Self::shutdown).
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

    /// Returns whether the worker is running. It ends by itself only because of a bug that it could
    /// not contain, or with its runtime.
    pub fn is_running(&self) -> bool {
        !self.driver.is_finished()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The driver owns all other tasks in `JoinSet`s, which end them when they are dropped.
        self.driver.abort();
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

/// The state that the tasks of a worker share.
struct WorkerShared<S, T, C> {
    engine: Arc<EngineShared<S, T, C>>,
    scheduling: Arc<SchedulerHandle>,
    /// A permit for each attempt in flight and each result that is not settled yet.
    permits: Arc<Semaphore>,
    /// The number of times that a part panicked.
    failures: AtomicU64,
    /// The number of calls that the store answered. If it moves while one result keeps failing, the
    /// fault lies in that result and not in the whole store.
    answers: AtomicU64,
}

impl<S, T, C> WorkerShared<S, T, C> {
    fn scheduler(&self) -> MutexGuard<'_, Scheduler> {
        self.scheduling.scheduler()
    }

    fn tell_failure(&self, part: WorkerPart) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.engine.observers.notify(&Occurrence::WorkerFailed { part });
    }

    fn count_answer(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }
}
