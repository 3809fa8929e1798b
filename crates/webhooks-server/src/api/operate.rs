//! What operators do with deliveries: resend, recover, count.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use webhooks_admin::{Action, IdKind};
use webhooks_core::Timestamp;
use webhooks_dispatch::history::{HistoryStore as _, Query};
use webhooks_dispatch::jobs::{Job, JobState, JobWork, NewJob};
use webhooks_dispatch::monitor::{MonitorStore as _, Statistics};
use webhooks_dispatch::store::OperationError;
use webhooks_dispatch::{Replay, Undelivered};

use super::endpoint::EndpointPath;
use super::message_out::record;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Body, Params};
use crate::service::{AppEndpoint, Service};

#[derive(Deserialize)]
pub(crate) struct RecoverIn {
    since: Timestamp,
    until: Option<Timestamp>,
}

/// A task that goes on after the answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TaskOut {
    id: String,
    status: &'static str,
    task: &'static str,
    updated_at: Timestamp,
}

#[derive(Serialize)]
pub(crate) struct StatsOut {
    success: u64,
    pending: u64,
    sending: u64,
    fail: u64,
    canceled: u64,
}

/// Delivers a message to an endpoint once more.
pub(crate) async fn resend(
    State(service): State<Service>,
    caller: Caller,
    Path((app, message, endpoint)): Path<(String, String, String)>,
) -> Result<impl IntoResponse, ApiError> {
    let found = service.endpoint(&caller, (&app, &endpoint), Action::Operate).await?;
    let id = Service::message_id(&found.app, &message)?;
    let event = record(&service, &found.app, &id).await?;
    let query = Query {
        tenant: Some(found.app.tenant.clone()),
        endpoint: Some(found.id().clone()),
        event: Some(id),
        limit: 1,
        ..Query::default()
    };
    let delivery = service.engine().history().deliveries(query).await?.items.pop();
    let Some(delivery) = delivery else {
        return Err(ApiError::conflict(
            "The message did not go to this endpoint: it does not want its type or channel, or came \
             later.",
        ));
    };
    match service.engine().replay(Replay::Delivery(delivery.id)).await {
        Ok(_) => {}
        // It will be delivered anyway.
        Err(OperationError::WrongStatus { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let thing = ("message", found.app.tenant.as_str(), &*event.summary.id.to_string());
    let to = serde_json::json!({ "resentTo": found.id().as_str() });
    service.admin().log(&caller.actor(), thing, (None, Some(to)), Service::now()).await?;
    Ok((StatusCode::ACCEPTED, Json(serde_json::json!({}))))
}

/// Delivers what an endpoint did not get since a time: failed and cancelled deliveries.
pub(crate) async fn recover(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
    Body(RecoverIn { since, until }): Body<RecoverIn>,
) -> Result<impl IntoResponse, ApiError> {
    let found = service.endpoint(&caller, (&app, &name), Action::Operate).await?;
    if until.is_some_and(|until| until <= since) {
        return Err(ApiError::value("until", "it is not later than since"));
    }
    let which = Undelivered { failed: true, cancelled: true, missed: false };
    let task = start(&service, &caller, &found, which, (since, until)).await?;
    Ok((StatusCode::ACCEPTED, Json(TaskOut::new(&task, "endpoint.recover"))))
}

async fn start(
    service: &Service,
    caller: &Caller,
    found: &AppEndpoint,
    which: Undelivered,
    (since, until): (Timestamp, Option<Timestamp>),
) -> Result<Job, ApiError> {
    let AppEndpoint { app, registration, .. } = found;
    if !registration.state.is_open() {
        return Err(ApiError::conflict("The endpoint is disabled; enable it first."));
    }
    let endpoint = registration.key();
    let replay = Replay::Endpoint { endpoint, which, since, until };
    let (tenant, work) = (Some(app.tenant.clone()), JobWork::Replay(replay));
    let job = service.engine().jobs().create(NewJob { tenant, work, rate: None }).await?;
    let thing = ("endpoint", app.tenant.as_str(), registration.id.as_str());
    let started = serde_json::json!({ "task": task_id(&job) });
    service.admin().log(&caller.actor(), thing, (None, Some(started)), Service::now()).await?;
    Ok(job)
}

fn task_id(job: &Job) -> String {
    IdKind::Task.id(job.id.as_u64().into())
}

impl TaskOut {
    fn new(job: &Job, task: &'static str) -> Self {
        let status = match job.state {
            JobState::Running => "running",
            JobState::Finished => "finished",
            JobState::Stopped | JobState::Failed => "failed",
        };
        Self { id: task_id(job), status, task, updated_at: job.updated_at }
    }
}

/// Counts the deliveries of an endpoint by status.
pub(crate) async fn stats(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
    params: Params,
) -> Result<Json<StatsOut>, ApiError> {
    let found = service.endpoint(&caller, (&app, &name), Action::ReadEvents).await?;
    let (since, until) = (params.time("since")?, params.time("until")?);
    let count =
        |since: Timestamp| service.engine().monitor().statistics(found.registration.key(), since);
    let since = count(since.unwrap_or(Timestamp::UNIX_EPOCH)).await?;
    let later = match until {
        Some(until) => count(until).await?,
        None => Statistics::default(),
    };
    Ok(Json(StatsOut {
        success: since.delivered.saturating_sub(later.delivered),
        pending: since.pending.saturating_sub(later.pending),
        sending: since.retrying.saturating_sub(later.retrying),
        fail: since.failed.saturating_sub(later.failed),
        canceled: since.cancelled.saturating_sub(later.cancelled),
    }))
}
