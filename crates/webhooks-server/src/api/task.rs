//! Background tasks: replays of many messages, which go on after the answer.

use std::fmt::Display;
use std::num::NonZeroU32;
use std::str::FromStr;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use webhooks_admin::{
    Action, Entry, IdKind, ListPage, ListQuery, ServiceJob, ServiceJobState, ServiceWork,
};
use webhooks_core::Timestamp;
use webhooks_dispatch::history::Query;
use webhooks_dispatch::jobs::{Job, JobId, JobQuery, JobState, JobWork, NewJob};
use webhooks_dispatch::{Replay, Undelivered};
use webhooks_registry::Subscription;

use super::endpoint::EndpointPath;
use super::status::Status;
use crate::auth::Caller;
use crate::error::{ApiError, no_page};
use crate::extract::{Body, Params, Path};
use crate::find::AppEndpoint;
use crate::idempotent::RequestNumber;
use crate::paging::{List, limit};
use crate::parameters::{Page, TaskFilter};
use crate::schema::{Label, Pattern, TaskStatus, Time};
use crate::service::Service;

/// The jobs of the service that one page reads: each may have a result of 1 MiB.
const OWN_STEP: usize = 8;

/// The classes of status codes that a response can have.
const CLASSES: [u16; 5] = [100, 200, 300, 400, 500];

/// The most deliveries per second that a request names.
const MAX_RATE: u32 = 10_000;

/// A span of time.
#[derive(Deserialize, ToSchema)]
pub(crate) struct SpanIn {
    /// The start of the time.
    #[schema(value_type = Time)]
    since: Timestamp,
    /// The end of the time; now if absent.
    #[schema(value_type = Option<Time>)]
    until: Option<Timestamp>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BulkReplayIn {
    /// Only messages since this time.
    #[schema(value_type = Time)]
    since: Timestamp,
    /// Only messages before this time; now if absent.
    #[schema(value_type = Option<Time>)]
    until: Option<Timestamp>,
    /// Only messages of this event type or pattern: one at most.
    #[schema(value_type = Option<Vec<Pattern>>, max_items = 1)]
    event_types: Option<Vec<String>>,
    /// Only messages of this channel.
    #[schema(value_type = Option<Label>)]
    channel: Option<String>,
    /// Only messages with this tag.
    #[schema(value_type = Option<Label>)]
    tag: Option<String>,
    /// Only deliveries of this status: 0 success, 1 pending, 2 fail, 3 sending, 4 canceled.
    #[schema(maximum = 4)]
    status: Option<u8>,
    /// Only deliveries whose last response has a status code of this class: 100, 200, 300, 400 or 500.
    #[schema(minimum = 100, maximum = 500, multiple_of = 100)]
    status_code_class: Option<u16>,
    /// The most deliveries per second: 1 to 10,000; as many as can be if absent.
    #[schema(minimum = 1, maximum = 10_000)]
    rate: Option<u32>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CancelIn {
    /// The time before which messages were accepted whose deliveries are cancelled.
    #[schema(value_type = Time)]
    created_before: Timestamp,
}

/// A task, as the answer to the request that started it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TaskOut {
    /// The id of the task.
    id: String,
    /// The state of the task.
    #[schema(value_type = TaskStatus)]
    status: &'static str,
    /// The kind of the task.
    task: &'static str,
    /// The time of the last progress.
    #[schema(value_type = Time)]
    updated_at: Timestamp,
}

/// A task, with its progress.
#[derive(Serialize, ToSchema)]
pub(crate) struct TaskShown {
    #[serde(flatten)]
    task: TaskOut,
    /// The progress or the result of the task, by its kind; `error` if it failed.
    #[schema(value_type = Object)]
    data: Value,
}

impl TaskOut {
    fn new(job: &Job) -> Option<Self> {
        let task = match &job.work {
            JobWork::Replay(Replay::Endpoint { which: Undelivered::MISSED, .. }) => {
                "endpoint.replay"
            }
            JobWork::Replay(_) => "endpoint.recover",
            JobWork::ReplayFound(_) => "endpoint.bulk-replay",
            // Client libraries know no task that cancels.
            _ => return None,
        };
        let status = match job.state {
            JobState::Running => "running",
            JobState::Finished => "finished",
            JobState::Stopped | JobState::Failed => "failed",
        };
        Some(Self { id: task_id(job.id), status, task, updated_at: job.updated_at })
    }
}

impl From<&Entry<ServiceJob>> for TaskOut {
    fn from(entry: &Entry<ServiceJob>) -> Self {
        let task = match entry.value.work {
            ServiceWork::Broadcast(_) => "message.broadcast",
            ServiceWork::CountDeliveries { .. } => "application.stats",
            ServiceWork::ListSubscriptions => "event-type.aggregate",
            _ => "application.purge_content",
        };
        let status = match entry.value.state {
            ServiceJobState::Running => "running",
            ServiceJobState::Finished => "finished",
            ServiceJobState::Failed => "failed",
        };
        Self { id: entry.id.clone(), status, task, updated_at: entry.updated_at }
    }
}

impl From<Entry<ServiceJob>> for TaskShown {
    fn from(entry: Entry<ServiceJob>) -> Self {
        let task = TaskOut::from(&entry);
        let data = if entry.value.result.is_null() { json!({}) } else { entry.value.result };
        Self { task, data }
    }
}

impl TaskShown {
    fn new(job: &Job) -> Option<Self> {
        let mut data = json!({ "deliveries": job.progress.done });
        if let Some(error) = &job.progress.error {
            data["error"] = json!(error);
        }
        Some(Self { task: TaskOut::new(job)?, data })
    }
}

/// Delivers what an endpoint did not get since a time: failed and cancelled deliveries.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/recover",
    operation_id = "v1.endpoint.recover", tag = "Endpoint", request_body = SpanIn,
    responses((status = 202, body = TaskOut)),
)]
pub(crate) async fn recover(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
    number: RequestNumber,
    Body(span): Body<SpanIn>,
) -> Result<impl IntoResponse, ApiError> {
    let which = Undelivered { failed: true, cancelled: true, missed: false };
    replay(&service, &caller, (&app, &name), (which, span), number).await
}

/// Delivers messages that an endpoint missed since a time.
///
/// They came before it was there or wanted them, or while it was disabled.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/replay-missing",
    operation_id = "v1.endpoint.replay-missing", tag = "Endpoint", request_body = SpanIn,
    responses((status = 202, body = TaskOut)),
)]
pub(crate) async fn replay_missing(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
    number: RequestNumber,
    Body(span): Body<SpanIn>,
) -> Result<impl IntoResponse, ApiError> {
    replay(&service, &caller, (&app, &name), (Undelivered::MISSED, span), number).await
}

async fn replay(
    service: &Service,
    caller: &Caller,
    names: (&str, &str),
    (which, SpanIn { since, until }): (Undelivered, SpanIn),
    number: RequestNumber,
) -> Result<impl IntoResponse + use<>, ApiError> {
    let found = service.endpoint(caller, names, Action::Operate).await?;
    check_span(since, until)?;
    let endpoint = found.registration.key();
    let work = JobWork::Replay(Replay::Endpoint { endpoint, which, since, until });
    start(service, caller, &found, (work, None), number).await
}

/// Delivers once more what was found by a filter: ended deliveries of any status.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/bulk-replay",
    operation_id = "v1.endpoint.bulk-replay", tag = "Endpoint", request_body = BulkReplayIn,
    responses((status = 202, body = TaskOut)),
)]
pub(crate) async fn bulk_replay(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
    number: RequestNumber,
    Body(input): Body<BulkReplayIn>,
) -> Result<impl IntoResponse, ApiError> {
    let found = service.endpoint(&caller, (&app, &name), Action::Operate).await?;
    check_span(input.since, input.until)?;
    if !input.status_code_class.is_none_or(|class| CLASSES.contains(&class)) {
        return Err(ApiError::value("statusCodeClass", "it is not 100, 200, 300, 400 or 500"));
    }
    let rate = input.rate.map(|rate| {
        let rate = NonZeroU32::new(rate).filter(|rate| rate.get() <= MAX_RATE);
        rate.ok_or_else(|| ApiError::value("rate", "it is not 1 to 10000"))
    });
    let rate = rate.transpose()?;
    let status = input.status.map(|number| {
        Status::delivery_status(number).ok_or_else(|| ApiError::value("status", "it is not 0 to 4"))
    });
    let event_type = match input.event_types.as_deref().unwrap_or_default() {
        [] => None,
        [one] => {
            Some(Subscription::new(one).map_err(|error| ApiError::value("eventTypes", error))?)
        }
        _ => {
            return Err(ApiError::value(
                "eventTypes",
                "give one; a subtree such as user.* has many",
            ));
        }
    };
    let query = Query {
        tenant: Some(found.app.tenant.clone()),
        endpoint: Some(found.id().clone()),
        statuses: status.transpose()?.into_iter().collect(),
        status_codes: input.status_code_class.map(|class| class..=class.saturating_add(99)),
        event_type,
        channel: read("channel", input.channel)?,
        tag: read("tag", input.tag)?,
        since: Some(input.since),
        until: input.until,
        ..Query::default()
    };
    start(&service, &caller, &found, (JobWork::ReplayFound(query), rate), number).await
}

fn read<T: FromStr<Err: Display>>(name: &str, text: Option<String>) -> Result<Option<T>, ApiError> {
    let read = text.map(|text| text.parse()).transpose();
    read.map_err(|error| ApiError::value(name, error))
}

/// Cancels what waits for an endpoint and was accepted before a time.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/cancel-msgs",
    operation_id = "v1.endpoint.cancel-msgs", tag = "Endpoint", request_body = CancelIn,
    responses((status = 204)),
)]
pub(crate) async fn cancel(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
    number: RequestNumber,
    Body(CancelIn { created_before }): Body<CancelIn>,
) -> Result<StatusCode, ApiError> {
    let found = service.endpoint(&caller, (&app, &name), Action::Operate).await?;
    let query = Query {
        tenant: Some(found.app.tenant.clone()),
        endpoint: Some(found.id().clone()),
        until: Some(created_before),
        ..Query::default()
    };
    create(&service, &caller, &found, (JobWork::Cancel(query), None), number).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn start(
    service: &Service,
    caller: &Caller,
    found: &AppEndpoint,
    work: (JobWork, Option<NonZeroU32>),
    number: RequestNumber,
) -> Result<impl IntoResponse + use<>, ApiError> {
    if !found.registration.state.is_open() {
        return Err(ApiError::conflict("The endpoint is disabled; enable it first."));
    }
    let job = create(service, caller, found, work, number).await?;
    Ok((StatusCode::ACCEPTED, Json(TaskOut::new(&job))))
}

/// Creates the job of a task, and logs it. A request that is made again gets the job that it has created before.
async fn create(
    service: &Service,
    caller: &Caller,
    found: &AppEndpoint,
    (work, rate): (JobWork, Option<NonZeroU32>),
    number: RequestNumber,
) -> Result<Job, ApiError> {
    let AppEndpoint { app, .. } = found;
    let request = number.number();
    let job = NewJob { tenant: Some(app.tenant.clone()), work, rate, request };
    let job = service.engine().jobs().create(job).await?;
    let thing = ("endpoint", app.tenant.as_str(), found.id().as_str());
    let started = json!({ "task": task_id(job.id), "work": job.work });
    service.admin().log(&caller.actor(), thing, (None, Some(started)), Service::now()).await?;
    Ok(job)
}

fn task_id(job: JobId) -> String {
    IdKind::Task.id(job.as_u64().into())
}

fn check_span(since: Timestamp, until: Option<Timestamp>) -> Result<(), ApiError> {
    if until.is_some_and(|until| until <= since) {
        return Err(ApiError::value("until", "it is not later than since"));
    }
    Ok(())
}

/// Lists tasks, the newest first.
#[utoipa::path(
    get,
    path = "/api/v1/background-task",
    operation_id = "v1.background-task.list", tag = "Background Task", params(Page, TaskFilter),
    responses((status = 200, body = List<TaskShown>)),
)]
pub(crate) async fn list(
    State(service): State<Service>,
    caller: Caller,
    params: Params,
) -> Result<Json<List<TaskShown>>, ApiError> {
    caller.check(Action::ReadEvents, caller.application())?;
    let limit = limit(&params)?;
    let after = params.text("iterator").map_or(Ok((None, None)), read_place)?;
    let (status, wanted) = (params.text("status"), params.text("task"));
    let state = match status {
        None => None,
        Some("running") => Some(JobState::Running),
        Some("finished") => Some(JobState::Finished),
        Some("failed") => Some(JobState::Failed),
        Some(_) => {
            return Err(ApiError::bad_request("status: it must be running, finished or failed."));
        }
    };
    let tenant = caller.application().cloned();
    // One more shows whether more follow.
    let query = JobQuery { tenant, state, after: after.0, limit: limit + 1 };
    let jobs = service.engine().jobs().list(query).await?;
    let query = ListQuery { limit: OWN_STEP, iterator: after.1.clone(), is_descending: true };
    let own = service.admin().jobs().list(query, Service::now()).await?;
    let Merged { tasks, next, is_last } = merge(jobs, own, after, limit, &caller);
    let is_wanted = |shown: &TaskShown| {
        wanted.is_none_or(|wanted| shown.task.task == wanted)
            && status.is_none_or(|status| shown.task.status == status)
    };
    Ok(Json(List::of(tasks.into_iter().filter(is_wanted).collect(), next, is_last)))
}

/// The places behind which a page begins: of the jobs of the engine, and of those of the service.
type TaskPlace = (Option<JobId>, Option<String>);

/// A page of tasks.
struct Merged {
    tasks: Vec<TaskShown>,
    next: Option<String>,
    is_last: bool,
}

/// Merges jobs of the engine and of the service, the newest first, into a page of `limit` at most.
fn merge(
    jobs: Vec<Job>,
    own: ListPage<Entry<ServiceJob>>,
    (mut last_job, mut last_own): TaskPlace,
    limit: usize,
    caller: &Caller,
) -> Merged {
    let (mut jobs, mut items) = (jobs.into_iter().peekable(), own.items.into_iter().peekable());
    let mut tasks = Vec::new();
    for _ in 0..limit {
        let is_job = match (jobs.peek(), items.peek()) {
            // An older one of the service may not be newer than the job.
            (_, None) if !own.is_last => break,
            (Some(job), Some(own)) => job.created_at >= own.created_at,
            (job, _) => job.is_some(),
        };
        if is_job && let Some(job) = jobs.next() {
            last_job = Some(job.id);
            tasks.extend(TaskShown::new(&job));
        } else if let Some(own) = items.next() {
            last_own = Some(own.id.clone());
            tasks.extend(is_visible(&own, caller).then(|| own.into()));
        }
    }
    let is_last = jobs.peek().is_none() && items.peek().is_none() && own.is_last;
    let next = (last_job.is_some() || last_own.is_some()).then(|| {
        let job = last_job.map(task_id).unwrap_or_default();
        format!("{job}.{}", last_own.unwrap_or_default())
    });
    Merged { tasks, next, is_last }
}

/// Returns whether a caller may know of a job of the service.
fn is_visible(job: &Entry<ServiceJob>, caller: &Caller) -> bool {
    caller.application().is_none_or(|own| job.value.application.as_ref() == Some(own))
}

/// Returns a task.
#[utoipa::path(
    get,
    path = "/api/v1/background-task/{task_id}",
    operation_id = "v1.background-task.get", tag = "Background Task",
    responses((status = 200, body = TaskShown)),
)]
pub(crate) async fn show(
    State(service): State<Service>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<TaskShown>, ApiError> {
    caller.check(Action::ReadEvents, caller.application())?;
    let Some(id) = read_id(&id)? else {
        let found = service.admin().jobs().get(&id, Service::now()).await?;
        let shown = is_visible(&found, &caller).then(|| found.into());
        return shown.map(Json).ok_or_else(|| ApiError::unknown("task"));
    };
    let found = service.engine().jobs().get(id).await?;
    let is_own =
        |job: &Job| caller.application().is_none_or(|own| job.tenant.as_ref() == Some(own));
    let shown = found.filter(is_own).as_ref().and_then(TaskShown::new);
    shown.map(Json).ok_or_else(|| ApiError::unknown("task"))
}

/// Reads the id of a task: `None` for one of the service, whose number no job of the engine reaches.
fn read_id(id: &str) -> Result<Option<JobId>, ApiError> {
    let number = IdKind::Task.number(id).map_err(|_unreadable| ApiError::unknown("task"))?;
    Ok(u64::try_from(number).ok().map(JobId::from_u64))
}

/// Reads the iterator of a page.
fn read_place(iterator: &str) -> Result<TaskPlace, ApiError> {
    let (job, own) = iterator.split_once('.').ok_or_else(no_page)?;
    let read = |id: &str| read_id(id).map_err(|_unreadable| no_page());
    let job = if job.is_empty() { None } else { Some(read(job)?.ok_or_else(no_page)?) };
    if !own.is_empty() && read(own)?.is_some() {
        return Err(no_page());
    }
    Ok((job, Some(own.to_owned()).filter(|own| !own.is_empty())))
}
