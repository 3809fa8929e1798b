//! The jobs of the store in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use webhooks_core::Timestamp;

use super::MemoryStore;
use crate::clock::{MonotonicTime, Now};
use crate::jobs::{
    Job, JobAdvance, JobChange, JobError, JobId, JobProgress, JobQuery, JobState, JobStore,
    LeasedJob, NewJob,
};
use crate::store::StoreError;

/// Jobs by their ids.
#[derive(Debug, Default)]
pub(super) struct JobTable {
    jobs: BTreeMap<JobId, Entry>,
    /// Their ids by the numbers of the requests for them.
    by_request: BTreeMap<u128, JobId>,
    next_token: u64,
}

#[derive(Debug)]
struct Entry {
    job: Job,
    /// The token of the lease, and its end.
    lease: Option<(u64, MonotonicTime)>,
}

impl JobStore for MemoryStore {
    async fn create_job(&self, new: NewJob, now: Timestamp) -> Result<Job, StoreError> {
        let mut state = self.state();
        let NewJob { tenant, work, rate, request } = new;
        let made = request.and_then(|request| state.jobs.by_request.get(&request)).copied();
        if let Some(made) = made.and_then(|id| state.jobs.jobs.get(&id)) {
            return Ok(made.job.clone());
        }
        let last = state.jobs.jobs.keys().next_back().map_or(0, |id| id.as_u64());
        let job = Job {
            id: JobId::from_u64(last + 1),
            tenant,
            work,
            rate,
            state: JobState::Running,
            progress: JobProgress::default(),
            created_at: now,
            updated_at: now,
        };
        state.jobs.jobs.insert(job.id, Entry { job: job.clone(), lease: None });
        if let Some(request) = request {
            state.jobs.by_request.insert(request, job.id);
        }
        drop(state);
        self.wake();
        Ok(job)
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        Ok(self.state().jobs.jobs.get(&id).map(|entry| entry.job.clone()))
    }

    async fn jobs(&self, query: JobQuery) -> Result<Vec<Job>, StoreError> {
        let state = self.state();
        let before = query.after.unwrap_or(JobId::from_u64(u64::MAX));
        let found = state.jobs.jobs.range(..before).rev().map(|(_, entry)| &entry.job);
        let found = found
            .filter(|job| query.tenant.is_none() || query.tenant == job.tenant)
            .filter(|job| query.state.is_none_or(|state| state == job.state));
        Ok(found.take(query.page_size()).cloned().collect())
    }

    async fn change_job(
        &self,
        id: JobId,
        change: JobChange,
        now: Timestamp,
    ) -> Result<Job, JobError> {
        let mut state = self.state();
        let entry = state.jobs.jobs.get_mut(&id).ok_or(JobError::Unknown { id })?;
        if let Some(after) = entry.job.state.after(change) {
            entry.job.state = after;
            entry.job.updated_at = now;
            if change == JobChange::Resume {
                entry.job.progress.error = None;
            }
        }
        let job = entry.job.clone();
        drop(state);
        self.wake();
        Ok(job)
    }

    async fn lease_job(&self, lease: Duration, now: Now) -> Result<Option<LeasedJob>, StoreError> {
        let mut state = self.state();
        let table = &mut state.jobs;
        table.next_token += 1;
        let token = table.next_token;
        let is_free = |entry: &&mut Entry| {
            entry.job.state == JobState::Running
                && entry.lease.is_none_or(|(_, until)| until <= now.monotonic)
        };
        let free = table.jobs.values_mut().filter(is_free);
        Ok(free.min_by_key(|entry| entry.job.updated_at).map(|entry| {
            entry.lease = Some((token, now.monotonic + lease));
            LeasedJob { job: entry.job.clone(), token }
        }))
    }

    async fn advance_job(
        &self,
        advance: JobAdvance,
        lease: Duration,
        now: Now,
    ) -> Result<Option<JobState>, StoreError> {
        let mut state = self.state();
        let Some(entry) = state.jobs.jobs.get_mut(&advance.id) else { return Ok(None) };
        if entry.lease.is_none_or(|(token, _)| token != advance.token) {
            return Ok(None);
        }
        entry.job.progress = advance.progress;
        entry.job.updated_at = now.wall;
        if entry.job.state == JobState::Running {
            entry.job.state = advance.state;
        }
        let goes_on = entry.job.state == JobState::Running;
        entry.lease = goes_on.then_some((advance.token, now.monotonic + lease));
        Ok(Some(entry.job.state))
    }
}
