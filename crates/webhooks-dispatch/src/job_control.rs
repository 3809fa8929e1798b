//! The jobs of an engine, and the operations that people make on them.

use std::fmt;

use tokio::sync::Notify;
use webhooks_core::Timestamp;

use crate::jobs::{Job, JobChange, JobError, JobId, JobQuery, JobStore, JobWork, NewJob};
use crate::store::StoreError;

/// The jobs of an engine: bulk replays and bulk cancellations. Workers work on them, those of other
/// processes included, and go on after a restart.
///
/// # Example
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use webhooks_core::DeliveryStatus;
/// use webhooks_dispatch::history::Query;
/// use webhooks_dispatch::jobs::{JobState, JobWork, NewJob};
/// use webhooks_dispatch::{Engine, FnTransport, MemoryStore};
///
/// let engine = Engine::new(MemoryStore::new(), FnTransport::new(|_, _, _, _| async { (200, "") }));
/// let failed = Query { statuses: vec![DeliveryStatus::Failed], ..Query::default() };
/// let work = JobWork::ReplayFound(failed);
/// let job = engine.jobs().create(NewJob { tenant: None, work, rate: None, request: None }).await?;
/// let worker = engine.start();
/// let mut state = job.state;
/// while state == JobState::Running {
///     tokio::task::yield_now().await;
///     state = engine.jobs().get(job.id).await?.map_or(JobState::Failed, |job| job.state);
/// }
/// assert_eq!(state, JobState::Finished);
/// worker.shutdown(Duration::from_secs(30)).await;
/// # Ok(())
/// # }
/// ```
pub struct Jobs<'e, S> {
    pub(crate) store: &'e S,
    pub(crate) changed: &'e Notify,
    pub(crate) now: Box<dyn Fn() -> Timestamp + Send + Sync + 'e>,
}

impl<S: JobStore> Jobs<'_, S> {
    /// Creates a job, which a worker begins at once.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails, or runs no jobs.
    pub async fn create(&self, mut job: NewJob) -> Result<Job, StoreError> {
        if let JobWork::Replay(replay) = job.work {
            job.work = JobWork::Replay(replay.each_once());
        }
        let created = self.store.create_job(job, (self.now)()).await?;
        self.changed.notify_one();
        Ok(created)
    }

    /// Returns a job of any tenant, with its progress.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn get(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.store.job(id).await
    }

    /// Returns jobs, the newest first.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn list(&self, query: JobQuery) -> Result<Vec<Job>, StoreError> {
        self.store.jobs(query).await
    }

    /// Stops a job after its present portion; returns it. The progress can still grow by that portion.
    /// A job that has ended stays so.
    ///
    /// # Errors
    /// [`JobError`] when there is no such job, or the store fails.
    pub async fn stop(&self, id: JobId) -> Result<Job, JobError> {
        self.store.change_job(id, JobChange::Stop, (self.now)()).await
    }

    /// Resumes a job that was stopped or has failed, where it ended; returns it.
    ///
    /// # Errors
    /// [`JobError`] when there is no such job, or the store fails.
    pub async fn resume(&self, id: JobId) -> Result<Job, JobError> {
        let job = self.store.change_job(id, JobChange::Resume, (self.now)()).await?;
        self.changed.notify_one();
        Ok(job)
    }
}

impl<S: fmt::Debug> fmt::Debug for Jobs<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs").field("store", &self.store).finish_non_exhaustive()
    }
}
