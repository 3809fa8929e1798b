//! For operators: bulk replays and bulk cancellations as durable jobs, with progress; they go on after
//! a restart.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use webhooks_core::{TenantId, Timestamp};

use crate::clock::Now;
use crate::history::Query;
use crate::store::{Replay, StoreError};

/// A durable store of jobs.
///
/// A worker leases a job, works on it portion by portion, and records its progress after each. If the
/// worker dies, another one goes on where the last record says. All methods have defaults, which
/// return [`StoreError::Unsupported`].
pub trait JobStore: Send + Sync + 'static {
    /// Adds a job that runs; returns it, or the one that was added with the same [`NewJob::request`] before.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails, or runs no jobs.
    #[expect(unused_variables, reason = "a default does nothing")]
    fn create_job(
        &self,
        job: NewJob,
        now: Timestamp,
    ) -> impl Future<Output = Result<Job, StoreError>> + Send {
        std::future::ready(Err(StoreError::Unsupported { call: "create_job" }))
    }

    /// Returns a job of any tenant.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    #[expect(unused_variables, reason = "a default does nothing")]
    fn job(&self, id: JobId) -> impl Future<Output = Result<Option<Job>, StoreError>> + Send {
        std::future::ready(Err(StoreError::Unsupported { call: "job" }))
    }

    /// Returns jobs, the newest first.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    #[expect(unused_variables, reason = "a default does nothing")]
    fn jobs(&self, query: JobQuery) -> impl Future<Output = Result<Vec<Job>, StoreError>> + Send {
        std::future::ready(Err(StoreError::Unsupported { call: "jobs" }))
    }

    /// Stops a running job or resumes a stopped or failed one; returns it. A finished job stays so, and
    /// so does one that is as wanted already.
    ///
    /// # Errors
    /// [`JobError`] when there is no such job, or the store fails.
    #[expect(unused_variables, reason = "a default does nothing")]
    fn change_job(
        &self,
        id: JobId,
        change: JobChange,
        now: Timestamp,
    ) -> impl Future<Output = Result<Job, JobError>> + Send {
        let unsupported = StoreError::Unsupported { call: "change_job" };
        std::future::ready(Err(JobError::Store(unsupported)))
    }

    /// Leases a job that runs and that nobody works on: the one that waits longest. Returns `None` if
    /// there is none.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    #[expect(unused_variables, reason = "a default does nothing")]
    fn lease_job(
        &self,
        lease: Duration,
        now: Now,
    ) -> impl Future<Output = Result<Option<LeasedJob>, StoreError>> + Send {
        std::future::ready(Ok(None))
    }

    /// Records the progress of a leased job, and extends its lease or ends it. Returns the state of the
    /// job then: it may have been stopped. `None` if the lease was lost; nothing is recorded then.
    ///
    /// # Errors
    /// [`StoreError`] when nothing was recorded.
    #[expect(unused_variables, reason = "a default does nothing")]
    fn advance_job(
        &self,
        advance: JobAdvance,
        lease: Duration,
        now: Now,
    ) -> impl Future<Output = Result<Option<JobState>, StoreError>> + Send {
        std::future::ready(Ok(None))
    }
}

/// Identifies a job: a number that its store counts up. As text: `job_17`.
///
/// # Example
/// ```
/// use webhooks_dispatch::jobs::JobId;
///
/// assert_eq!("job_17".parse(), Ok(JobId::from_u64(17)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(u64);

/// An error: a text is no id of a job.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("this is no id of a job; write it like job_17")]
#[non_exhaustive]
pub struct JobIdError;

impl JobId {
    /// Returns the id with this number.
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job_{}", self.0)
    }
}

impl FromStr for JobId {
    type Err = JobIdError;

    fn from_str(text: &str) -> Result<Self, JobIdError> {
        let number = text.strip_prefix("job_").and_then(|number| number.parse().ok());
        number.map(Self).filter(|id| id.to_string() == text).ok_or(JobIdError)
    }
}

/// The work of a job. Its JSON is what stores record. The places of a query bound what it finds, and
/// its limit does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum JobWork {
    /// Cancels the deliveries that a query finds and that wait or are in flight.
    Cancel(Query),
    /// Replays deliveries that an endpoint, or the endpoints of an event, did not get.
    Replay(Replay),
    /// Replays the ended deliveries that a query finds, of any endpoints. Deliveries whose endpoint is
    /// disabled or unregistered are left out.
    ReplayFound(Query),
}

/// A job to add.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "callers and tests build it")]
pub struct NewJob {
    /// The tenant that the job belongs to, for lists; it bounds nothing. `None` for an operator's job.
    pub tenant: Option<TenantId>,
    /// The work.
    pub work: JobWork,
    /// The most deliveries per second; no limit if `None`.
    pub rate: Option<NonZeroU32>,
    /// The number of the request for it, if the request may be made again: all requests of one number create one job.
    pub request: Option<u128>,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct Job {
    /// The id.
    pub id: JobId,
    /// The tenant that it belongs to.
    pub tenant: Option<TenantId>,
    /// The work.
    pub work: JobWork,
    /// The most deliveries per second.
    pub rate: Option<NonZeroU32>,
    /// The state.
    pub state: JobState,
    /// The progress so far.
    pub progress: JobProgress,
    /// The time at which it was created. Deliveries that were accepted or replayed since are left out.
    pub created_at: Timestamp,
    /// The time of the last change, or of the last record of progress.
    pub updated_at: Timestamp,
}

/// The progress of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct JobProgress {
    /// The number of deliveries that were replayed or cancelled.
    pub done: u64,
    /// The place at which it goes on, in a form of the worker's own; `None` at the start.
    pub cursor: Option<String>,
    /// The reason why it failed, if it did.
    pub error: Option<String>,
}

/// The state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "stores must know each")]
pub enum JobState {
    /// A worker works on it, or will.
    Running,
    /// An operator stopped it. It can be resumed.
    Stopped,
    /// It has ended.
    Finished,
    /// It could not go on; its progress tells why. It can be resumed.
    Failed,
}

impl JobState {
    /// All of them, in the order of life.
    pub const ALL: [Self; 4] = [Self::Running, Self::Stopped, Self::Finished, Self::Failed];

    /// Returns the word that stores record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Finished => "finished",
            Self::Failed => "failed",
        }
    }

    /// Returns the state that a word stands for, if it is one.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Returns the state after a change by an operator; `None` if that changes nothing.
    pub fn after(self, change: JobChange) -> Option<Self> {
        match (self, change) {
            (Self::Running, JobChange::Stop) => Some(Self::Stopped),
            (Self::Stopped | Self::Failed, JobChange::Resume) => Some(Self::Running),
            _ => None,
        }
    }
}

/// A change of a job's state by an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "stores must know each")]
pub enum JobChange {
    /// Stops a running job after its present portion.
    Stop,
    /// Resumes a job that was stopped or has failed, where it ended.
    Resume,
}

/// The jobs to list: all of them, unless a field is set.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "callers and tests build it")]
pub struct JobQuery {
    /// Those of this tenant.
    pub tenant: Option<TenantId>,
    /// Those in this state.
    pub state: Option<JobState>,
    /// Those before this one, which are older.
    pub after: Option<JobId>,
    /// The largest number, from 1 to 1,000.
    pub limit: usize,
}

impl JobQuery {
    /// The largest number of jobs of a page.
    pub const MAX_LIMIT: usize = 1_000;

    /// Returns the number of jobs asked for, within the limits.
    pub fn page_size(&self) -> usize {
        self.limit.clamp(1, Self::MAX_LIMIT)
    }
}

impl Default for JobQuery {
    /// Returns a query for the newest hundred of all.
    fn default() -> Self {
        Self { tenant: None, state: None, after: None, limit: 100 }
    }
}

/// A job that a worker has leased.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct LeasedJob {
    /// The job.
    pub job: Job,
    /// The token of the lease. No two leases of a job have the same.
    pub token: u64,
}

/// The progress of a leased job that a worker records.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the engine and tests build it")]
pub struct JobAdvance {
    /// The job.
    pub id: JobId,
    /// The token of the lease.
    pub token: u64,
    /// The progress in all.
    pub progress: JobProgress,
    /// The state: `Running` if the worker goes on, and it ends the lease otherwise.
    pub state: JobState,
}

/// The reason why an operation on a job was not done.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JobError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no such job.
    #[error("there is no job {id}")]
    Unknown {
        /// The id that was asked for.
        id: JobId,
    },
}
