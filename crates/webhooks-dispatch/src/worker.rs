//! A worker: it claims deliveries, makes attempts, settles the results, and waits for more.

// In the order of reading.
mod attempts;
mod disabler;
mod job_runner;
mod lease_keeper;

mod settler;

mod ending;
mod life;

mod driver;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use self::driver::Driver;
use crate::clock::Clock;
use crate::engine_shared::EngineShared;
use crate::observer::{Occurrence, WorkerPart};
use crate::scheduler::Scheduler;
use crate::shutdown_report::ShutdownReport;
use crate::store_ports::Store;
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

impl Worker {
    pub(crate) fn start<S, T, C>(engine: Arc<EngineShared<S, T, C>>) -> Self
    where
        S: Store,
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
