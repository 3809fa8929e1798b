//! Counts over applications and their endpoints.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use webhooks_admin::{Action, ServiceWork};
use webhooks_core::{DeliveryStatus, EventType, TenantId, Timestamp};
use webhooks_dispatch::figures::{Figures, FiguresQuery, FiguresStep, start_of};
use webhooks_dispatch::history::{AttemptRecord, Cursor, HistoryStore as _, Page, Query};
use webhooks_dispatch::monitor::MonitorStore as _;
use webhooks_dispatch::store::StoreError;

use super::attempt_out::is_success;
use super::message::read_event_types;
use super::task::TaskOut;
use crate::auth::Caller;
use crate::endpoint_walk::EndpointWalk;
use crate::error::ApiError;
use crate::extract::{Body, Params, Path};
use crate::find::App;
use crate::idempotent::RequestNumber;
use crate::parameters::{AppCount, AttemptSpan, EventTypesParam, StatisticsSpan, WithoutPlay};
use crate::schema::{Name, Period, Time};
use crate::service::Service;

/// The most steps of an answer, and the number without a `startDate`.
const STEPS: (usize, usize) = (1_000, 24);

/// The pages, of 1,000 entries each, that one request counts.
const MAX_PAGES: usize = 50;

/// The most applications that one request names.
const MAX_NAMED: usize = 1_000;

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AttemptStatisticsOut {
    /// The start of the first step.
    #[schema(value_type = Time)]
    start_date: Timestamp,
    /// The end of the time.
    #[schema(value_type = Time)]
    end_date: Timestamp,
    /// The length of a step.
    #[schema(value_type = Period)]
    period: &'static str,
    /// The counts, with one number per step.
    data: AttemptCounts,
}

/// Counts of each step of time.
#[derive(Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the names of the API")]
pub(crate) struct AttemptCounts {
    /// The attempts that succeeded, in each step.
    success_count: Vec<u64>,
    /// The attempts that failed, in each step.
    failure_count: Vec<u64>,
    /// The deliveries that were cancelled, in each step.
    canceled_count: Vec<u64>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct AppAttemptsOut {
    /// The counts by the name of the event type.
    by_event_type: BTreeMap<String, Outcomes>,
    /// The attempts that succeeded, of all event types.
    total_success: u64,
    /// The attempts that failed, of all event types.
    total_failure: u64,
    /// The deliveries that were cancelled, of all event types.
    total_canceled: u64,
    /// The start of the time.
    #[schema(value_type = Time)]
    since: Timestamp,
    /// The end of the time.
    #[schema(value_type = Time)]
    until: Timestamp,
}

/// Attempts that succeeded or failed, and cancelled deliveries.
#[derive(Clone, Copy, Default, Serialize, ToSchema)]
pub(crate) struct Outcomes {
    /// The attempts that succeeded.
    success: u64,
    /// The attempts that failed.
    failure: u64,
    /// The deliveries that were cancelled.
    canceled: u64,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct ActiveAppsOut {
    /// The number of applications.
    count: u64,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct EndpointCountOut {
    /// The endpoints that get messages, those that are paused included.
    active: u64,
    /// The endpoints that are disabled.
    disabled: u64,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UsageIn {
    /// The start of the time.
    #[schema(value_type = Time)]
    since: Timestamp,
    /// The end of the time.
    #[schema(value_type = Time)]
    until: Timestamp,
    /// The ids or uids of applications, at most 1,000; all applications if absent.
    #[schema(value_type = Option<Vec<Name>>, max_items = 1000)]
    app_ids: Option<Vec<String>>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UsageOut {
    #[serde(flatten)]
    task: TaskOut,
    /// The names of `appIds` that no application has.
    unresolved_app_ids: Vec<String>,
}

/// A period of time of the API.
#[derive(Clone, Copy)]
struct Step {
    word: &'static str,
    length: Duration,
    figures: FiguresStep,
}

impl Step {
    const ALL: [Self; 3] = [
        Self { word: "OneDay", length: Duration::from_secs(86_400), figures: FiguresStep::Day },
        Self { word: "OneHour", length: Duration::from_secs(3_600), figures: FiguresStep::Hour },
        Self {
            word: "FiveMinutes",
            length: Duration::from_secs(300),
            figures: FiguresStep::Minute,
        },
    ];

    fn read(params: &Params) -> Result<Self, ApiError> {
        let Some(word) = params.text("period") else { return Ok(Self::ALL[0]) };
        let found = Self::ALL.into_iter().find(|step| step.word == word);
        let told = "period: it must be OneDay, OneHour or FiveMinutes.";
        found.ok_or_else(|| ApiError::bad_request(told))
    }
}

/// Counts the attempts of an application by days, hours or five minutes.
///
/// Minutes are counted for 48 hours and hours for 90 days. With `event_types`, only messages that were
/// accepted in the time count, 50,000 attempts at most.
#[utoipa::path(
    get,
    path = "/api/v1/stats/app/{app_id}/attempt",
    operation_id = "v1.stats.app-attempts", tag = "Statistics",
    params(StatisticsSpan, EventTypesParam),
    responses((status = 200, body = AttemptStatisticsOut)),
)]
pub(crate) async fn app_attempts(
    State(service): State<Service>,
    caller: Caller,
    Path(app): Path<String>,
    params: Params,
) -> Result<Json<AttemptStatisticsOut>, ApiError> {
    let app = service.app(&caller, &app, Action::ReadEvents).await?;
    let step = Step::read(&params)?;
    let end_date = params.time("endDate")?.unwrap_or_else(Service::now);
    let back = step.length * u32::try_from(STEPS.1).unwrap_or_default();
    let default = Timestamp::from_unix_microseconds(
        end_date.as_unix_microseconds().saturating_sub(micros(back)),
    );
    // A step counts as a whole.
    let start_date = start_of(params.time("startDate")?.unwrap_or(default), step.length);
    let span = micros(end_date.saturating_since(start_date));
    let steps = usize::try_from(span.div_ceil(micros(step.length))).unwrap_or(usize::MAX);
    if steps == 0 || steps > STEPS.0 {
        let told = "startDate: it must be before endDate, by at most 1,000 periods.";
        return Err(ApiError::bad_request(told));
    }
    let event_types = read_event_types(&params)?;
    let mut counts = vec![Outcomes::default(); steps];
    let mut add = |at: Timestamp, outcomes: Outcomes| {
        let number = micros(at.saturating_since(start_date)) / micros(step.length);
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        if let Some(found) = counts.get_mut(number).filter(|_| at >= start_date) {
            found.add(outcomes);
        }
    };
    if event_types.is_empty() {
        let (tenant, endpoint) = (Some(app.tenant.clone()), None);
        let (since, until, step) = (start_date, end_date, step.figures);
        let query = FiguresQuery { tenant, endpoint, since, until, step };
        for row in service.engine().monitor().figures(query).await? {
            add(row.at, Outcomes::of(&row.figures));
        }
    } else {
        let counted = |at, _: &EventType, outcomes| add(at, outcomes);
        count(&service, &app, (start_date, end_date), &event_types, counted).await?;
    }
    let of = |part: fn(&Outcomes) -> u64| counts.iter().map(part).collect();
    let data = AttemptCounts {
        success_count: of(|found| found.success),
        failure_count: of(|found| found.failure),
        canceled_count: of(|found| found.canceled),
    };
    Ok(Json(AttemptStatisticsOut { start_date, end_date, period: step.word, data }))
}

/// Counts the attempts at the messages that an application published in a time, by event type.
///
/// 50,000 attempts are counted at most; ask for a shorter time if there are more.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/stats/attempts",
    operation_id = "v1.application.stats.attempts", tag = "Statistics",
    params(AttemptSpan, EventTypesParam),
    responses((status = 200, body = AppAttemptsOut)),
)]
pub(crate) async fn attempts_by_event_type(
    State(service): State<Service>,
    caller: Caller,
    Path(app): Path<String>,
    params: Params,
) -> Result<Json<AppAttemptsOut>, ApiError> {
    let app = service.app(&caller, &app, Action::ReadEvents).await?;
    let needed = |name: &str| {
        let found = params.time(name)?;
        found.ok_or_else(|| ApiError::bad_request(format!("{name}: it is missing.")))
    };
    let (since, until) = (needed("since")?, needed("until")?);
    let event_types = read_event_types(&params)?;
    let mut by_event_type: BTreeMap<String, Outcomes> = BTreeMap::new();
    let mut total = Outcomes::default();
    let counted = |_, event_type: &EventType, outcomes| {
        total.add(outcomes);
        by_event_type.entry(event_type.to_string()).or_default().add(outcomes);
    };
    count(&service, &app, (since, until), &event_types, counted).await?;
    Ok(Json(AppAttemptsOut {
        by_event_type,
        total_success: total.success,
        total_failure: total.failure,
        total_canceled: total.canceled,
        since,
        until,
    }))
}

/// Counts the applications that have an active endpoint.
///
/// At most 200,000 endpoints are looked at.
#[utoipa::path(
    get,
    path = "/api/v1/app/stats/count-active",
    operation_id = "v1.application.count-active", tag = "Statistics", params(WithoutPlay, AppCount),
    responses((status = 200, body = ActiveAppsOut)),
)]
pub(crate) async fn active_apps(
    State(service): State<Service>,
    caller: Caller,
    params: Params,
) -> Result<Json<ActiveAppsOut>, ApiError> {
    caller.check(Action::ReadEndpoints, None)?;
    params.flag("exclude_svix_play")?;
    let needs_open = params.flag("exclude_disabled")?.unwrap_or(true);
    let (mut walk, mut count, mut last) = (EndpointWalk::new(), 0, None::<TenantId>);
    while let Some(page) = walk.next(&service).await? {
        for found in page.iter().filter(|found| !needs_open || found.state.is_open()) {
            let tenant = &found.endpoint.tenant;
            // The endpoints of one application come together.
            if last.as_ref() != Some(tenant) {
                count += 1;
                last = Some(tenant.clone());
            }
        }
    }
    Ok(Json(ActiveAppsOut { count }))
}

/// Counts the endpoints of all applications that are active, and those that are disabled.
///
/// At most 200,000 endpoints are looked at.
#[utoipa::path(
    get,
    path = "/api/v1/stats/endpoint/count",
    operation_id = "v1.statistics.endpoint-count", tag = "Statistics", params(WithoutPlay),
    responses((status = 200, body = EndpointCountOut)),
)]
pub(crate) async fn endpoints(
    State(service): State<Service>,
    caller: Caller,
    params: Params,
) -> Result<Json<EndpointCountOut>, ApiError> {
    caller.check(Action::ReadEndpoints, None)?;
    params.flag("exclude_svix_play")?;
    let mut out = EndpointCountOut { active: 0, disabled: 0 };
    let mut walk = EndpointWalk::new();
    while let Some(page) = walk.next(&service).await? {
        for found in page {
            let count = if found.state.is_open() { &mut out.active } else { &mut out.disabled };
            *count += 1;
        }
    }
    Ok(Json(out))
}

/// Counts the deliveries of applications in a time, in the background.
///
/// A message to two endpoints is two deliveries; further attempts at one are not counted.
#[utoipa::path(
    post,
    path = "/api/v1/stats/usage/app",
    operation_id = "v1.statistics.aggregate-app-stats", tag = "Statistics", request_body = UsageIn,
    responses((status = 202, body = UsageOut)),
)]
pub(crate) async fn usage(
    State(service): State<Service>,
    caller: Caller,
    number: RequestNumber,
    Body(UsageIn { since, until, app_ids }): Body<UsageIn>,
) -> Result<impl IntoResponse, ApiError> {
    caller.check(Action::ReadEvents, None)?;
    if until <= since {
        return Err(ApiError::value("until", "it is not later than since"));
    }
    let (mut known, mut unresolved_app_ids) = (Vec::new(), Vec::new());
    if app_ids.as_ref().is_some_and(|names| names.len() > MAX_NAMED) {
        return Err(ApiError::value("appIds", "there are more than 1000"));
    }
    for name in app_ids.iter().flatten() {
        match service.admin().applications().look_up(name, Service::now()).await? {
            Some(found) if known.contains(&found.id) => {}
            Some(found) => known.push(found.id),
            None => unresolved_app_ids.push(name.clone()),
        }
    }
    let applications = app_ids.map(|_| known);
    let work = ServiceWork::CountDeliveries { since, until, applications };
    let job = service.start_job(work, None, &caller.actor(), number).await?;
    let task = TaskOut::from(&job);
    Ok((StatusCode::ACCEPTED, Json(UsageOut { task, unresolved_app_ids })))
}

/// Lists the event types that the endpoints of each application subscribe to, in the background.
#[utoipa::path(
    put,
    path = "/api/v1/stats/usage/event-types",
    operation_id = "v1.statistics.aggregate-event-types", tag = "Statistics",
    responses((status = 202, body = TaskOut)),
)]
pub(crate) async fn event_types(
    State(service): State<Service>,
    caller: Caller,
    number: RequestNumber,
) -> Result<impl IntoResponse, ApiError> {
    caller.check(Action::ReadEndpoints, None)?;
    let work = ServiceWork::ListSubscriptions;
    let job = service.start_job(work, None, &caller.actor(), number).await?;
    Ok((StatusCode::ACCEPTED, Json(TaskOut::from(&job))))
}

impl Outcomes {
    fn of(figures: &Figures) -> Self {
        let failure = figures.failures.values().sum();
        let success = figures.attempts().saturating_sub(failure);
        Self { success, failure, canceled: figures.cancelled }
    }

    fn add(&mut self, other: Self) {
        self.success += other.success;
        self.failure += other.failure;
        self.canceled += other.canceled;
    }
}

/// Counts the attempts and the cancelled deliveries of the messages that were accepted in a time.
async fn count(
    service: &Service,
    app: &App,
    (since, until): (Timestamp, Timestamp),
    event_types: &[EventType],
    mut counted: impl FnMut(Timestamp, &EventType, Outcomes),
) -> Result<(), ApiError> {
    let history = service.engine().history();
    let query = |after: Option<Cursor>| Query {
        tenant: Some(app.tenant.clone()),
        // One type is found by the store; more are picked here.
        event_type: match event_types {
            [one] => one.as_str().parse().ok(),
            _ => None,
        },
        since: Some(since),
        until: Some(until),
        after,
        limit: Query::MAX_LIMIT,
        ..Query::default()
    };
    let is_wanted = |found: &EventType| event_types.is_empty() || event_types.contains(found);
    let attempts = |after| history.attempts(query(after));
    each(attempts, |found: &AttemptRecord| {
        if is_wanted(&found.event_type) {
            let success = u64::from(is_success(found));
            let outcomes = Outcomes { success, failure: 1 - success, canceled: 0 };
            counted(found.attempt.started_at, &found.event_type, outcomes);
        }
    })
    .await?;
    let cancelled = |after| {
        let statuses = vec![DeliveryStatus::Cancelled];
        history.deliveries(Query { statuses, ..query(after) })
    };
    each(cancelled, |found| {
        if is_wanted(&found.event_type) {
            let outcomes = Outcomes { canceled: 1, ..Outcomes::default() };
            counted(found.ended_at.unwrap_or(found.created_at), &found.event_type, outcomes);
        }
    })
    .await
}

/// Reads all entries of a history, unless there are too many.
async fn each<T, F>(
    read: impl Fn(Option<Cursor>) -> F,
    mut see: impl FnMut(&T),
) -> Result<(), ApiError>
where
    F: Future<Output = Result<Page<T>, StoreError>>,
{
    let mut after = None;
    for _ in 0..MAX_PAGES {
        let page = read(after).await?;
        page.items.iter().for_each(&mut see);
        if page.next.is_none() {
            return Ok(());
        }
        after = page.next;
    }
    Err(ApiError::bad_request(
        "There are more than 50,000 attempts to count; ask for a shorter time, or leave out event_types \
         in /api/v1/stats/app/{app_id}/attempt.",
    ))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
