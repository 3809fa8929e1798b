//! Attempts that the reader of a poller made at its messages, and reports.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use webhooks_admin::{Action, Entry, ListQuery, Poller, PollerAttempt, Resource as _, check_name};
use webhooks_core::Timestamp;
use webhooks_dispatch::history::EventSummary;

use super::message::has_payload;
use super::message_out::record;
use super::poller::find;
use super::poller_read::wanted;
use super::status::Status;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Body, Params, Path};
use crate::find::App;
use crate::paging::{List, list_query};
use crate::parameters::{Page, PollerAttemptFilter};
use crate::schema::{EventTypeName, Time};
use crate::service::Service;

/// The most attempts at a message that the readers of one poller report.
const MAX_ATTEMPTS: usize = 50;

/// The ids or uids of an application, a poller and a message, and the id of an attempt.
type AttemptPath = Path<(String, String, String, String)>;

/// Unknown fields are refused: a field that is misspelt must not be dropped.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PollerAttemptIn {
    /// The time at which the attempt started.
    #[schema(value_type = Time)]
    timestamp: Timestamp,
    /// The time that the attempt took, in milliseconds: at most 3,600,000 (an hour).
    #[schema(maximum = 3_600_000)]
    response_duration_ms: u32,
    /// The status code of the response: 100 to 599; absent if there was no response.
    #[schema(minimum = 100, maximum = 599)]
    response_status_code: Option<u16>,
    /// The start of the response's body, of 1 KiB at most; without a response, the reason. Empty by default.
    #[serde(default)]
    #[schema(max_length = 1024)]
    response: String,
}

/// An attempt that the reader of a poller reported.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PollerAttemptOut {
    /// The id of the attempt, which the reader chose.
    id: String,
    /// The id of the poller, which may be deleted since.
    poller_id: String,
    /// The id of the message.
    msg_id: String,
    /// The type of the message.
    #[schema(value_type = EventTypeName)]
    event_type: String,
    /// The time at which the message was accepted.
    #[schema(value_type = Time)]
    accepted_at: Timestamp,
    /// The start of the response's body; without a response, the reason. Empty if it was deleted or is not shown.
    response: String,
    /// The status code of the response; 0 if there was no response.
    #[schema(maximum = 599)]
    response_status_code: u16,
    /// The time that the attempt took, in milliseconds.
    #[schema(maximum = 3_600_000)]
    response_duration_ms: u32,
    #[serde(flatten)]
    status: Status,
    /// The time at which the attempt started, by the reader's clock.
    #[schema(value_type = Time)]
    timestamp: Timestamp,
}

impl PollerAttemptOut {
    fn new(attempt: PollerAttempt, sees_content: bool) -> Self {
        let status = if attempt.is_success() { Status::SUCCESS } else { Status::FAIL };
        Self {
            id: attempt.id,
            poller_id: attempt.poller,
            msg_id: attempt.event,
            event_type: attempt.event_type,
            accepted_at: attempt.accepted_at,
            response: if sees_content { attempt.response } else { String::new() },
            response_status_code: attempt.status_code.unwrap_or_default(),
            response_duration_ms: attempt.duration_ms,
            status,
            timestamp: attempt.started_at,
        }
    }
}

/// Records an attempt that the reader of a poller made at one of its messages.
///
/// The reader chooses the id of the attempt. The same report again changes nothing; another one under the same id
/// gets 409. It changes nothing but this list: a poller has no retries, and endpoints are not concerned.
#[utoipa::path(
    put,
    path = "/api/v1/app/{app_id}/poller/{sink_id}/msg/{msg_id}/attempt/{attempt_id}",
    operation_id = "v1.poller-attempt.report", tag = "Poller", request_body = PollerAttemptIn,
    responses((status = 200, body = PollerAttemptOut), (status = 409)),
)]
pub(crate) async fn report(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name, message, id)): AttemptPath,
    Body(input): Body<PollerAttemptIn>,
) -> Result<Json<PollerAttemptOut>, ApiError> {
    let (app, poller) = find(&service, &caller, (&app, &name), Action::Poll).await?;
    ApiError::check_path("attempt_id", &id)?;
    let found = record(&service, &app, &Service::message_id(&app, &message)?).await?.summary;
    // Its reader never got another one.
    if !wanted(&poller)?.has(&found) {
        return Err(ApiError::unknown("message"));
    }
    let attempt = input.attempt(id, &poller, &found, service.retention(&app.tenant));
    attempt.check()?;
    check_room(&service, &app, &attempt).await?;
    let recorded = |before: Option<PollerAttempt>| match before {
        Some(before) if before.tells_same(&attempt) => Ok(before),
        Some(_) => Err(ApiError::conflict(
            "Another attempt was reported under this id; choose another id for each attempt.",
        )),
        None => Ok(attempt.clone()),
    };
    let attempts = service.admin().poller_attempts(&app.tenant);
    let recorded = attempts.advance(&attempt.key(), Service::now(), recorded).await?;
    // One that was there before was reported at another time.
    if recorded == attempt {
        check_bound(&service, &app, &attempt).await?;
    }
    Ok(Json(PollerAttemptOut::new(recorded, true)))
}

impl PollerAttemptIn {
    fn attempt(
        self,
        id: String,
        poller: &Entry<Poller>,
        message: &EventSummary,
        retention: Duration,
    ) -> PollerAttempt {
        let now = Service::now();
        // Deleted content does not come back.
        let response = if message.expunged_at.is_some() { String::new() } else { self.response };
        PollerAttempt {
            id,
            poller: poller.id.clone(),
            event: message.id.to_string(),
            event_type: message.event_type.to_string(),
            accepted_at: message.accepted_at,
            started_at: self.timestamp,
            duration_ms: self.response_duration_ms,
            status_code: self.response_status_code,
            response,
            reported_at: now,
            stored_until: now + retention,
        }
    }
}

/// Checks that a message has not too many attempts, unless this one is among them.
async fn check_room(service: &Service, app: &App, attempt: &PollerAttempt) -> Result<(), ApiError> {
    let keys = keys_beside(service, app, attempt, MAX_ATTEMPTS).await?;
    if keys.len() < MAX_ATTEMPTS || keys.contains(&attempt.key()) {
        return Ok(());
    }
    Err(too_many())
}

/// Deletes an attempt that was just recorded, if others that were reported meanwhile have taken the last places. The
/// last one that is recorded finds all others, so no more stay than may be there.
async fn check_bound(
    service: &Service,
    app: &App,
    attempt: &PollerAttempt,
) -> Result<(), ApiError> {
    let keys = keys_beside(service, app, attempt, MAX_ATTEMPTS + 1).await?;
    if keys.len() <= MAX_ATTEMPTS {
        return Ok(());
    }
    service.admin().delete_poller_attempt(&app.tenant, &attempt.key(), Service::now()).await?;
    Err(too_many())
}

/// Returns the first keys of the attempts of the same poller at the same message.
async fn keys_beside(
    service: &Service,
    app: &App,
    attempt: &PollerAttempt,
    limit: usize,
) -> Result<Vec<String>, ApiError> {
    let PollerAttempt { accepted_at, event, poller, .. } = attempt;
    let prefix = format!("{}{poller}.", PollerAttempt::prefix(*accepted_at, event));
    let query = ListQuery { limit, iterator: Some(prefix.clone()), is_descending: false };
    let page = service.admin().poller_attempts(&app.tenant).list(query, Service::now()).await?;
    let keys = page.items.into_iter().map(|found| found.id);
    Ok(keys.filter(|key| key.starts_with(&prefix)).collect())
}

fn too_many() -> ApiError {
    ApiError::conflict("The poller has reported 50 attempts at this message; these are all.")
}

/// Lists the attempts that readers of pollers reported, those at the newest messages first. Attempts at endpoints
/// are in the lists of message attempts.
///
/// An attempt is there for as long as messages are stored: 30 days unless the service has another time, or
/// `retentionDays` of the application if these are fewer; also after its poller was deleted.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/poller-attempt",
    operation_id = "v1.poller-attempt.list", tag = "Poller", params(Page, PollerAttemptFilter),
    responses((status = 200, body = List<PollerAttemptOut>)),
)]
pub(crate) async fn list(
    State(service): State<Service>,
    caller: Caller,
    Path(app): Path<String>,
    params: Params,
) -> Result<Json<List<PollerAttemptOut>>, ApiError> {
    let app = service.app(&caller, &app, Action::ReadEvents).await?;
    let poller = poller_of(&params)?;
    let sees_content = has_payload(&params)? && caller.may(Action::ReadPayloads, &app.tenant);
    let span = Span::read(&service, &app, &params).await?;
    let mut query = list_query(&params, true)?;
    query.is_descending = true;
    let is_first = query.iterator.is_none();
    query.iterator = query.iterator.or_else(|| span.end.clone());
    let is_back = query.is_back();
    let attempts = service.admin().poller_attempts(&app.tenant);
    let mut page = attempts.list(query, Service::now()).await?;
    let read = page.items.len();
    page.items.retain(|found| span.has(&found.id));
    // The attempts that were asked for end in this page.
    page.is_last |= page.items.len() < read && !is_back;
    page.previous = page.previous.filter(|_| !is_first);
    page.items.retain(|found| poller.is_none_or(|poller| found.value.poller == poller));
    Ok(Json(List::new(page, |found| PollerAttemptOut::new(found.value, sees_content))))
}

/// Returns the poller that a list is about.
fn poller_of(params: &Params) -> Result<Option<&str>, ApiError> {
    let Some(id) = params.text("poller_id") else { return Ok(None) };
    check_name("poller_id", id)
        .map_err(|error| ApiError::bad_request(format!("poller_id: {}.", error.reason)))?;
    Ok(Some(id))
}

/// The attempts of a list: those whose keys lie between two others.
#[derive(Debug, Default)]
struct Span {
    start: Option<String>,
    end: Option<String>,
}

impl Span {
    async fn read(service: &Service, app: &App, params: &Params) -> Result<Self, ApiError> {
        let mut span = Self {
            start: params.time("after")?.map(PollerAttempt::key_at),
            end: params.time("before")?.map(PollerAttempt::key_at),
        };
        if let Some(message) = params.text("msg_id") {
            let id = Service::message_id(app, message)?;
            let found = record(service, app, &id).await?.summary;
            let prefix = PollerAttempt::prefix(found.accepted_at, &id.to_string());
            // `~` follows each letter of a key.
            let end = format!("{prefix}~");
            // No start is before each start.
            span.start = span.start.max(Some(prefix));
            span.end = Some(match span.end {
                Some(before) => before.min(end),
                None => end,
            });
        }
        Ok(span)
    }

    fn has(&self, key: &str) -> bool {
        let is_behind = self.start.as_deref().is_none_or(|start| key >= start);
        is_behind && self.end.as_deref().is_none_or(|end| key < end)
    }
}
