//! Jobs: rows that the writer changes, and leases in memory.

use std::num::NonZeroU32;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use webhooks_core::{TenantId, Timestamp};
use webhooks_dispatch::{
    clock::{MonotonicTime, Now},
    jobs::{
        Job, JobAdvance, JobChange, JobError, JobId, JobProgress, JobQuery, JobState, JobStore,
        LeasedJob, NewJob,
    },
    store::StoreError,
};

use crate::SqliteStore;
use crate::command::WriteCommand;
use crate::error::BadRow;
use crate::inner::SqliteInner;
use crate::row;
use crate::write_connection::WriteConnection;

/// The columns that [`job`] reads.
const JOB: &str = "number, tenant, work, rate, state, done, cursor, error, created_at, updated_at";

impl JobStore for SqliteStore {
    async fn create_job(&self, job: NewJob, now: Timestamp) -> Result<Job, StoreError> {
        self.write(CreateJob { job, now, id: JobId::from_u64(0), found: None }).await
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.read_rows(move |connection| find(connection, id)).await
    }

    async fn jobs(&self, query: JobQuery) -> Result<Vec<Job>, StoreError> {
        self.read_rows(move |connection| list(connection, &query)).await
    }

    async fn change_job(
        &self,
        id: JobId,
        change: JobChange,
        now: Timestamp,
    ) -> Result<Job, JobError> {
        let job = self.write(ChangeJob { id, change, now, job: None }).await?;
        job.ok_or(JobError::Unknown { id })
    }

    /// Reads nothing while no job runs. If the job cannot be read, its lease goes on: others have their
    /// turns before it is tried again.
    async fn lease_job(&self, lease: Duration, now: Now) -> Result<Option<LeasedJob>, StoreError> {
        self.inner.check_open()?;
        let leased = self.inner.jobs().lease(now.monotonic, now.monotonic + lease);
        let Some((id, token)) = leased else { return Ok(None) };
        let job = self.job(id).await?.filter(|job| job.state == JobState::Running);
        if job.is_none() {
            // It was stopped meanwhile.
            self.inner.jobs().extend(id, token, None);
        }
        Ok(job.map(|job| LeasedJob { job, token }))
    }

    async fn advance_job(
        &self,
        advance: JobAdvance,
        lease: Duration,
        now: Now,
    ) -> Result<Option<JobState>, StoreError> {
        let until = now.monotonic + lease;
        self.write(AdvanceJob { advance, until, now: now.wall, state: None }).await
    }
}

/// Reads the jobs that run into memory.
pub(crate) fn load(connection: &Connection, inner: &SqliteInner) -> rusqlite::Result<()> {
    const RUNNING: &str = "SELECT number, updated_at FROM jobs WHERE state = 'running'";
    let mut statement = connection.prepare(RUNNING)?;
    let mut rows = statement.query(())?;
    while let Some(row) = rows.next()? {
        let id = JobId::from_u64(row::unsigned(row.get(0)?));
        inner.jobs().set(id, true, row::time(row.get(1)?));
    }
    Ok(())
}

fn find(connection: &Connection, id: JobId) -> rusqlite::Result<Option<Job>> {
    let select = format!("SELECT {JOB} FROM jobs WHERE number = ?");
    let mut statement = connection.prepare_cached(&select)?;
    statement.query_row([row::integer(id.as_u64())], job).optional()
}

/// Returns the job that a request has added.
fn find_of(connection: &Connection, request: &[u8; 16]) -> rusqlite::Result<Option<Job>> {
    let select = format!("SELECT {JOB} FROM jobs WHERE request = ?");
    let mut statement = connection.prepare_cached(&select)?;
    statement.query_row([request], job).optional()
}

fn list(connection: &Connection, query: &JobQuery) -> rusqlite::Result<Vec<Job>> {
    let tenant = if query.tenant.is_some() { "tenant = ?1" } else { "?1 IS NULL" };
    // A literal state, so that the index of running jobs serves.
    let state = query.state.map(|state| format!("AND state = '{}'", state.as_str()));
    let state = state.unwrap_or_default();
    let select = format!(
        "SELECT {JOB} FROM jobs WHERE {tenant} {state} AND number < ?2
         ORDER BY number DESC LIMIT ?3"
    );
    let mut statement = connection.prepare_cached(&select)?;
    let parameters = params![
        query.tenant.as_ref().map(TenantId::as_str),
        query.after.map_or(i64::MAX, |after| row::integer(after.as_u64())),
        row::count(query.page_size()),
    ];
    statement.query_map(parameters, job)?.collect()
}

fn job(row: &Row<'_>) -> rusqlite::Result<Job> {
    let tenant: Option<String> = row.get(1)?;
    let tenant = tenant.map(|tenant| TenantId::new(&tenant)).transpose();
    let tenant = tenant.map_err(|_why| BadRow::of("the tenant of a job").in_column(1))?;
    let work = serde_json::from_str(row.get_ref(2)?.as_str()?);
    let work = work.map_err(|_shows_text| BadRow::of("the work of a job").in_column(2))?;
    let state = JobState::from_word(row.get_ref(4)?.as_str()?);
    let state = state.ok_or_else(|| BadRow::of("the state of a job").in_column(4))?;
    let rate: Option<u32> = row.get(3)?;
    Ok(Job {
        id: JobId::from_u64(row::unsigned(row.get(0)?)),
        tenant,
        work,
        rate: rate.and_then(NonZeroU32::new),
        state,
        progress: JobProgress {
            done: row::unsigned(row.get(5)?),
            cursor: row.get(6)?,
            error: row.get(7)?,
        },
        created_at: row::time(row.get(8)?),
        updated_at: row::time(row.get(9)?),
    })
}

// The commands on jobs end their groups: `after_commit` changes the leases, by which `AdvanceJob`
// decides.

/// Adds a job that runs, unless its request has added it.
struct CreateJob {
    job: NewJob,
    now: Timestamp,
    id: JobId,
    /// The job that the request has added before.
    found: Option<Job>,
}

impl WriteCommand for CreateJob {
    type Answer = Job;

    fn write(&mut self, connection: &mut WriteConnection, _: &SqliteInner) -> rusqlite::Result<()> {
        const CREATE: &str =
            "INSERT INTO jobs (tenant, work, rate, request, state, created_at, updated_at)
            VALUES (?1, ?2, ?3, ?4, 'running', ?5, ?5)";
        let NewJob { tenant, work, rate, request } = &self.job;
        let request = request.map(u128::to_be_bytes);
        self.found = match &request {
            Some(request) => find_of(connection.sqlite(), request)?,
            None => None,
        };
        if self.found.is_some() {
            return Ok(());
        }
        let (tenant, now) = (tenant.as_ref().map(TenantId::as_str), row::micros(self.now));
        let rate = rate.map(NonZeroU32::get);
        connection.execute(CREATE, params![tenant, row::json(work)?, rate, request, now])?;
        self.id = JobId::from_u64(row::unsigned(connection.sqlite().last_insert_rowid()));
        Ok(())
    }

    fn after_commit(self, _: &mut WriteConnection, inner: &SqliteInner) -> Job {
        let Self { job: NewJob { tenant, work, rate, .. }, now, id, found } = self;
        if let Some(found) = found {
            return found;
        }
        inner.jobs().set(id, true, now);
        let (state, progress) = (JobState::Running, JobProgress::default());
        Job { id, tenant, work, rate, state, progress, created_at: now, updated_at: now }
    }
}

/// Stops or resumes a job. Answers with the job; `None` if there is no such job.
struct ChangeJob {
    id: JobId,
    change: JobChange,
    now: Timestamp,
    job: Option<Job>,
}

impl WriteCommand for ChangeJob {
    type Answer = Option<Job>;

    fn write(&mut self, connection: &mut WriteConnection, _: &SqliteInner) -> rusqlite::Result<()> {
        const CHANGE: &str = "UPDATE jobs
            SET state = ?2, updated_at = ?3, error = CASE WHEN ?2 = 'running' THEN NULL ELSE error END
            WHERE number = ?1";
        self.job = find(connection.sqlite(), self.id)?;
        let Some(after) = self.job.as_ref().and_then(|job| job.state.after(self.change)) else {
            return Ok(());
        };
        let number = row::integer(self.id.as_u64());
        connection.execute(CHANGE, params![number, after.as_str(), row::micros(self.now)])?;
        self.job = find(connection.sqlite(), self.id)?;
        Ok(())
    }

    fn after_commit(self, _: &mut WriteConnection, inner: &SqliteInner) -> Option<Job> {
        if let Some(job) = &self.job {
            inner.jobs().set(job.id, job.state == JobState::Running, job.updated_at);
        }
        self.job
    }
}

/// Records the progress of a leased job. Answers with its state; `None` if the lease was lost.
struct AdvanceJob {
    advance: JobAdvance,
    until: MonotonicTime,
    now: Timestamp,
    /// The state that was recorded. While it is set, the lease is pinned.
    state: Option<JobState>,
}

impl WriteCommand for AdvanceJob {
    type Answer = Option<JobState>;

    fn write(
        &mut self,
        connection: &mut WriteConnection,
        inner: &SqliteInner,
    ) -> rusqlite::Result<()> {
        const ADVANCE: &str = "UPDATE jobs SET done = ?2, cursor = ?3, error = ?4, updated_at = ?5,
                state = CASE state WHEN 'running' THEN ?6 ELSE state END
            WHERE number = ?1 RETURNING state";
        let JobAdvance { id, token, progress, state } = &self.advance;
        if !inner.jobs().pin(*id, *token) {
            return Ok(());
        }
        self.state = Some(*state);
        let mut statement = connection.sqlite().prepare_cached(ADVANCE)?;
        let parameters = params![
            row::integer(id.as_u64()),
            row::integer(progress.done),
            progress.cursor,
            progress.error,
            row::micros(self.now),
            state.as_str(),
        ];
        let after: String = statement.query_row(parameters, |row| row.get(0))?;
        self.state = JobState::from_word(&after);
        Ok(())
    }

    fn after_commit(self, _: &mut WriteConnection, inner: &SqliteInner) -> Option<JobState> {
        let JobAdvance { id, token, .. } = self.advance;
        let state = self.state?;
        let is_running = state == JobState::Running;
        let mut jobs = inner.jobs();
        jobs.unpin(id);
        jobs.extend(id, token, is_running.then_some(self.until));
        jobs.set(id, is_running, self.now);
        Some(state)
    }

    fn undo(&mut self, inner: &SqliteInner) {
        if self.state.take().is_some() {
            inner.jobs().unpin(self.advance.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use webhooks_dispatch::history::Query;
    use webhooks_dispatch::jobs::JobWork;

    use super::*;
    use crate::writer::tests::side::{at, clocks};

    const LEASE: Duration = Duration::from_secs(30);

    async fn create(store: &SqliteStore, seconds: u64) -> Job {
        let work = JobWork::Cancel(Query::default());
        let job = NewJob { tenant: None, work, rate: NonZeroU32::new(5), request: None };
        store.create_job(job, at(seconds)).await.unwrap()
    }

    fn advance(leased: &LeasedJob, done: u64, state: JobState) -> JobAdvance {
        let cursor = Some(format!("after-{done}"));
        let progress = JobProgress { done, cursor, error: None };
        JobAdvance { id: leased.job.id, token: leased.token, progress, state }
    }

    /// Goal: a job goes on after a restart, where its last record says, and ended jobs are forgotten by
    /// memory alone.
    #[tokio::test]
    async fn a_job_goes_on_after_the_store_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let store = SqliteStore::open(&path).await.unwrap();
        assert_eq!(store.lease_job(LEASE, clocks(0)).await.unwrap(), None);
        let (first, second) = (create(&store, 0).await, create(&store, 1).await);
        let leased = store.lease_job(LEASE, clocks(1)).await.unwrap().unwrap();
        assert_eq!(leased.job, first);
        let progress = advance(&leased, 3, JobState::Running);
        let state = store.advance_job(progress, LEASE, clocks(2)).await.unwrap();
        assert_eq!(state, Some(JobState::Running));
        store.close().await;

        let store = SqliteStore::open(&path).await.unwrap();
        let leased = store.lease_job(LEASE, clocks(3)).await.unwrap().unwrap();
        assert_eq!(leased.job, second, "it waits longest");
        let finished = advance(&leased, 0, JobState::Finished);
        store.advance_job(finished, LEASE, clocks(3)).await.unwrap();
        let leased = store.lease_job(LEASE, clocks(3)).await.unwrap().unwrap();
        assert_eq!((leased.job.id, leased.job.progress.done), (first.id, 3));
        assert_eq!(leased.job.rate, first.rate);
        let failed = advance(&leased, 4, JobState::Failed);
        store.advance_job(failed, LEASE, clocks(4)).await.unwrap();
        assert_eq!(store.lease_job(LEASE, clocks(99)).await.unwrap(), None);
        assert_eq!(format!("{:?}", *store.inner.jobs()).matches("is_running").count(), 0);
    }

    /// Goal: a lease that ends while its progress is being written is not given to another worker.
    #[test]
    fn a_pinned_lease_does_not_end() {
        let mut leases = crate::job_leases::JobLeases::default();
        let id = JobId::from_u64(1);
        leases.set(id, true, at(0));
        let now = |seconds| clocks(seconds).monotonic;
        let (_, token) = leases.lease(now(0), now(10)).unwrap();
        assert!(leases.pin(id, token));
        assert_eq!(leases.lease(now(20), now(30)), None);
        leases.unpin(id);
        let (_, later) = leases.lease(now(20), now(30)).unwrap();
        assert!(!leases.pin(id, token) && leases.pin(id, later));
    }
}
