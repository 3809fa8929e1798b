//! Jobs of the service itself, which go on after the answer and after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use webhooks_admin::{
    Actor, AdminError, Application, Entry, IdKind, JobClaim, ServiceJob, ServiceJobState,
    ServiceWork,
};
use webhooks_core::{TenantId, Timestamp};
use webhooks_dispatch::clock::{Clock as _, SystemClock};
use webhooks_dispatch::figures::{FiguresQuery, FiguresStep};
use webhooks_dispatch::monitor::MonitorStore as _;
use webhooks_dispatch::store::{OperationError, StoreError};
use webhooks_registry::{EndpointStoreError, Subscription};

use crate::broadcast::BroadcastError;
use crate::endpoint_walk::EndpointWalk;
use crate::error::ApiError;
use crate::idempotent::RequestNumber;
use crate::service::Service;

/// The jobs, or applications, of one step.
const STEP: usize = 100;

/// How long a job and its result are kept.
const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The most bytes of a result.
const MAX_RESULT: usize = 1024 * 1024;

/// The reason why a job did not end.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Broadcast(#[from] BroadcastError),
    #[error(transparent)]
    Endpoints(#[from] EndpointStoreError),
    #[error(transparent)]
    Operation(#[from] OperationError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the result has more than 1 MiB; ask about fewer applications")]
    TooLong,
}

/// The deliveries of an application.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Usage {
    app_id: String,
    app_uid: Option<String>,
    message_destinations: u64,
}

/// The event types that an application's endpoints subscribe to.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Subscribed {
    app_id: String,
    explicitly_subscribed_event_types: BTreeSet<String>,
    has_catch_all_endpoint: bool,
}

impl Service {
    /// Starts a job in a task of its own.
    ///
    /// # Errors
    /// [`ApiError`] when as many run as this process runs at once, or the store fails.
    pub(crate) async fn start_job(
        &self,
        work: ServiceWork,
        application: Option<TenantId>,
        actor: &Actor,
        number: RequestNumber,
    ) -> Result<Entry<ServiceJob>, ApiError> {
        let (id, now) = (number.id(IdKind::Task), Self::now());
        // A killed process may have started it.
        if number.is_again()
            && let Some(job) = self.admin().jobs().look_up(&id, now).await?
        {
            return Ok(job);
        }
        let Some(permit) = self.job_permit() else {
            return Err(ApiError::conflict(
                "Too many background tasks run; wait until one of them has ended.",
            ));
        };
        let (state, result, until) = (ServiceJobState::Running, Value::Null, now + KEPT);
        let job = ServiceJob { application, work, state, result, until };
        let claim = match self.admin().start_job(id.clone(), job, actor, now).await {
            // Another run of the request has started it meanwhile.
            Err(AdminError::Exists { .. }) => return Ok(self.admin().jobs().get(&id, now).await?),
            started => started?,
        };
        let (service, entry) = (self.clone(), claim.job.clone());
        tokio::spawn(async move {
            service.finish_job(claim).await;
            drop(permit);
        });
        Ok(entry)
    }

    /// Does the jobs that a process has left that is dead, in a task of its own, as long as the service is
    /// used.
    pub(crate) fn follow_jobs(&self) {
        let pause = JobClaim::EXTEND_AFTER;
        self.repeat(pause, "jobs that are left are done later", |service| async move {
            service.finish_jobs().await
        });
    }

    async fn finish_jobs(&self) -> Result<(), AdminError> {
        while let Some(claim) = self.admin().claim_job(Self::now()).await? {
            let service = self.clone();
            let job = claim.job.id.clone();
            // A panic must not end the loop: there are other jobs.
            let done = tokio::spawn(async move { service.finish_job(claim).await }).await;
            if done.is_err() {
                tracing::error!(job, "a job panicked; it is done again when its lease has ended");
            }
        }
        Ok(())
    }

    /// Does the work of a job and records its result, unless another process has claimed it meanwhile.
    async fn finish_job(&self, claim: JobClaim) {
        let job = &claim.job;
        let result = tokio::select! {
            result = self.result_of(job) => result,
            () = self.extend(&claim) => return,
        };
        let outcome = match result {
            Ok(result) => (ServiceJobState::Finished, result),
            Err(failure) => {
                let error = &failure as &dyn std::error::Error;
                tracing::error!(error, job = job.id, "a job failed");
                (ServiceJobState::Failed, json!({ "error": failure.to_string() }))
            }
        };
        if let Err(error) = self.admin().finish_job(&claim, outcome, Self::now()).await {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, job = job.id, "a job is left, and is done again");
        }
    }

    /// Extends a claim until it is lost.
    async fn extend(&self, claim: &JobClaim) {
        loop {
            SystemClock.sleep(JobClaim::EXTEND_AFTER).await;
            match self.admin().extend_job(claim, Self::now()).await {
                Ok(()) => {}
                Err(AdminError::Changed) => return,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, job = claim.job.id, "a lease was not extended");
                }
            }
        }
    }

    async fn result_of(&self, job: &Entry<ServiceJob>) -> Result<Value, Failure> {
        let result = match (&job.value.work, &job.value.application) {
            (ServiceWork::Broadcast(message), _) => self.broadcast(&job.id, message).await?,
            (ServiceWork::ExpungeAll { until }, Some(tenant)) => {
                // Another start may go on with it, and must not delete what came later.
                let expunged = self.engine().expunge_tenant_until(tenant.clone(), *until).await?;
                self.admin().forget_all_poller_responses(tenant, *until, Self::now()).await?;
                json!({ "messagesPurged": expunged })
            }
            (ServiceWork::CountDeliveries { since, until, applications }, _) => {
                json!({ "appStats": self.usage(*since, *until, applications.as_deref()).await? })
            }
            (ServiceWork::ListSubscriptions, _) => {
                json!({ "event_types": self.subscribed().await? })
            }
            // One of another version, or without its application: there is nothing to do.
            _ => Value::Null,
        };
        check_len(result.to_string().len())?;
        Ok(result)
    }

    /// Counts the deliveries of applications in a time.
    async fn usage(
        &self,
        since: Timestamp,
        until: Timestamp,
        ids: Option<&[String]>,
    ) -> Result<Vec<Usage>, Failure> {
        let (applications, mut found) = (self.admin().applications(), Vec::new());
        if let Some(ids) = ids {
            for id in ids {
                // It may have been deleted meanwhile.
                if let Some(entry) = applications.look_up(id, Self::now()).await? {
                    found.push(self.usage_of(entry, since, until).await?);
                }
            }
            return Ok(found);
        }
        let mut walk = applications.walk(STEP);
        while let Some(page) = walk.next(Self::now()).await? {
            for entry in page {
                found.push(self.usage_of(entry, since, until).await?);
            }
            check_len(found.len() * size_of::<Usage>())?;
        }
        Ok(found)
    }

    async fn usage_of(
        &self,
        Entry { id: app_id, value, .. }: Entry<Application>,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Usage, Failure> {
        let tenant = TenantId::new(&app_id).ok();
        let (endpoint, step) = (None, FiguresStep::Whole);
        let query = FiguresQuery { tenant, endpoint, since, until, step };
        let rows = self.engine().monitor().figures(query).await?;
        let message_destinations = rows.iter().map(|row| row.figures.accepted).sum();
        Ok(Usage { app_id, app_uid: value.uid, message_destinations })
    }

    /// Lists the event types that the open endpoints of each application subscribe to.
    async fn subscribed(&self) -> Result<Vec<Subscribed>, Failure> {
        let (mut walk, mut bytes) = (EndpointWalk::new(), 0);
        let mut found: BTreeMap<TenantId, Subscribed> = BTreeMap::new();
        while let Some(page) = walk.next(self).await? {
            for registration in page.iter().filter(|found| found.state.is_open()) {
                let tenant = &registration.endpoint.tenant;
                let of = found.entry(tenant.clone()).or_insert_with(|| {
                    bytes += size_of::<Subscribed>();
                    Subscribed { app_id: tenant.to_string(), ..Subscribed::default() }
                });
                let subscriptions = &registration.endpoint.subscriptions;
                let is_all = |text: &Subscription| text.as_str() == "*";
                of.has_catch_all_endpoint |=
                    subscriptions.is_empty() || subscriptions.iter().any(is_all);
                let named = subscriptions.iter().filter(|text| !is_all(text));
                for text in named.map(Subscription::to_string) {
                    let len = text.len();
                    if of.explicitly_subscribed_event_types.insert(text) {
                        bytes += len;
                    }
                }
            }
            check_len(bytes)?;
        }
        Ok(found.into_values().collect())
    }
}

fn check_len(bytes: usize) -> Result<(), Failure> {
    if bytes > MAX_RESULT { Err(Failure::TooLong) } else { Ok(()) }
}
