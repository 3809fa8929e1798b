//! Leases of the jobs of the service: one process does a job at a time, and another one goes on when it dies.
//!
//! A lease ends by the wall clocks of the processes. If these differ by more than a lease, two may work on a job
//! at once; the token fences, so that only one of them records a result.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use webhooks_core::Timestamp;

use crate::admin::Admin;
use crate::audit::Actor;
use crate::collection::{AdminError, Collection, ListQuery, audit_row};
use crate::public_id::IdKind;
use crate::record::{RecordChange, RecordError, RecordKind};
use crate::resource::{Entry, Resource};
use crate::service_job::{ServiceJob, ServiceJobState};

/// The time after which another process may go on with a job of a process that is dead.
const LEASE: Duration = Duration::from_secs(60);

/// The most jobs that are found at once.
const MAX_FOUND: usize = 1_000;

/// The lease of a job that is not done. Its key is that of the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobLease {
    /// The token of the claim that has it.
    pub token: String,
    /// The time at which it ends, unless it is extended.
    pub until: Timestamp,
}

impl JobLease {
    fn new(now: Timestamp) -> Self {
        Self { token: IdKind::Task.generate(), until: now + LEASE }
    }
}

impl Resource for JobLease {
    const KIND: RecordKind = RecordKind::JobLease;
}

/// The right to do a job, as long as its lease lasts.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct JobClaim {
    /// The job.
    pub job: Entry<ServiceJob>,
    token: String,
}

impl JobClaim {
    /// The time after which a claim is to be extended: a third of its lease.
    pub const EXTEND_AFTER: Duration = Duration::from_secs(LEASE.as_secs() / 3);
}

impl Admin {
    /// Adds a job, and claims it in the same write.
    ///
    /// # Errors
    /// [`AdminError::Exists`] when there is a job of this id.
    pub async fn start_job(
        &self,
        id: String,
        job: ServiceJob,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<JobClaim, AdminError> {
        let job = Entry::new(id, job, now);
        let lease = Entry::new(job.id.clone(), JobLease::new(now), now);
        let states = (None, Some(job.value.shown()?));
        let changes = vec![
            RecordChange::Insert(self.jobs().record(&job)?),
            RecordChange::Insert(self.job_leases().record(&lease)?),
            audit_row(actor, (ServiceJob::KIND.as_str(), "", &job.id), states, now)?,
        ];
        match self.records.write(changes, now).await {
            Err(RecordError::Exists { .. }) => Err(Collection::exists(&job.id, &job.value)),
            written => {
                written?;
                Ok(JobClaim { job, token: lease.value.token })
            }
        }
    }

    /// Claims one of the jobs that nobody works on, if there is one.
    ///
    /// # Errors
    /// [`AdminError`] when the store fails.
    pub async fn claim_job(&self, now: Timestamp) -> Result<Option<JobClaim>, AdminError> {
        let query = ListQuery { limit: MAX_FOUND, ..ListQuery::default() };
        let leases = self.job_leases().list(query, now).await?.items;
        for before in leases.into_iter().filter(|lease| lease.value.until <= now) {
            let lease = Entry { value: JobLease::new(now), ..before };
            let replace = RecordChange::Replace(self.job_leases().record_after(&lease, now)?);
            match self.records.write(vec![replace], now).await {
                Ok(()) => {}
                // Another process was faster.
                Err(RecordError::Changed { .. }) => continue,
                Err(error) => return Err(error.into()),
            }
            if let Some(job) = self.jobs().look_up(&lease.id, now).await? {
                return Ok(Some(JobClaim { job, token: lease.value.token }));
            }
            // The job is forgotten.
            let delete = RecordChange::Delete(self.job_leases().place(lease.id));
            self.records.write(vec![delete], now).await?;
        }
        Ok(None)
    }

    /// Extends the lease of a claim.
    ///
    /// # Errors
    /// [`AdminError::Changed`] when the claim is lost, and [`AdminError`] when the store fails.
    pub async fn extend_job(&self, claim: &JobClaim, now: Timestamp) -> Result<(), AdminError> {
        let lease = self.lease_of(claim, now).await?;
        let until = now + LEASE;
        let lease = Entry { value: JobLease { until, ..lease.value }, ..lease };
        let replace = RecordChange::Replace(self.job_leases().record_after(&lease, now)?);
        Ok(self.records.write(vec![replace], now).await?)
    }

    /// Records the result of a job, and ends its lease in the same write.
    ///
    /// # Errors
    /// [`AdminError::Changed`] when the claim is lost, and [`AdminError`] when the store fails.
    pub async fn finish_job(
        &self,
        claim: &JobClaim,
        (state, result): (ServiceJobState, Value),
        now: Timestamp,
    ) -> Result<(), AdminError> {
        let (lease, job) = (self.lease_of(claim, now).await?, claim.job.clone());
        let before = job.value.shown()?;
        let work = job.value.work.clone().forgotten();
        let after = Entry { value: ServiceJob { work, state, result, ..job.value }, ..job };
        let states = (Some(before), Some(after.value.shown()?));
        let changes = vec![
            // It is replaced first: that fails if another one has it meanwhile.
            RecordChange::Replace(self.job_leases().record_after(&lease, now)?),
            RecordChange::Delete(self.job_leases().place(lease.id)),
            RecordChange::Replace(self.jobs().record_after(&after, now)?),
            audit_row(&Actor::service(), (ServiceJob::KIND.as_str(), "", &after.id), states, now)?,
        ];
        Ok(self.records.write(changes, now).await?)
    }

    async fn lease_of(
        &self,
        claim: &JobClaim,
        now: Timestamp,
    ) -> Result<Entry<JobLease>, AdminError> {
        let found = self.job_leases().look_up(&claim.job.id, now).await?;
        found.filter(|lease| lease.value.token == claim.token).ok_or(AdminError::Changed)
    }

    fn job_leases(&self) -> Collection<'_, JobLease> {
        self.collection(String::new())
    }
}
