//! Messages by what is in them, and what was sent of them.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use webhooks_admin::{Action, ServiceWork};
use webhooks_core::{Channel, EventType};
use webhooks_dispatch::history::SentRequest;
use webhooks_registry::EndpointQuery;
use webhooks_registry::store::{PagePlace, StateKind};

use super::attempt::attempt;
use super::message::MessagePath;
use super::message_out::record;
use super::task::TaskOut;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Body, Path};
use crate::idempotent::RequestNumber;
use crate::schema::{EventTypeName, Label};
use crate::service::Service;

/// The most messages that one request expunges.
const MAX_EXPUNGED: usize = 250;

/// The endpoints of a page of a precheck.
const STEP: usize = 250;

#[derive(Serialize, ToSchema)]
pub(crate) struct RawOut {
    /// The payload as a text of JSON, byte for byte as it was published.
    payload: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PrecheckIn {
    /// The event type of the message.
    #[schema(value_type = EventTypeName)]
    event_type: String,
    /// The channels of the message, at most 16; none by default.
    #[schema(value_type = Option<Vec<Label>>, max_items = 16)]
    channels: Option<Vec<String>>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct PrecheckOut {
    /// Whether at least one endpoint would get the message; one that is paused counts.
    active: bool,
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct BulkExpungeIn {
    /// The ids or eventIds of the messages, at most 250.
    #[serde(default)]
    #[schema(max_items = 250)]
    ids: Vec<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct BulkExpungeOut {
    /// The outcome by id, as the request names it: `expunged` or `not-found`.
    #[schema(value_type = BTreeMap<String, String>)]
    results: BTreeMap<String, &'static str>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AttemptHeadersOut {
    /// The headers of the request, without the values of sensitive ones.
    sent_headers: BTreeMap<String, String>,
    /// The headers of the response: pairs of a name and a value.
    #[schema(value_type = Vec<Vec<String>>)]
    response_headers: Vec<(String, String)>,
    /// The names of headers whose values are not shown.
    sensitive: Vec<String>,
}

/// Answers with the payload as a text, byte for byte as it was published.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/msg/{msg_id}/raw",
    operation_id = "v1.message.get-raw-payload", tag = "Message",
    responses((status = 200, body = RawOut), (status = 409)),
)]
pub(crate) async fn raw(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): MessagePath,
) -> Result<Json<RawOut>, ApiError> {
    let app = service.app(&caller, &app, Action::ReadPayloads).await?;
    let found = record(&service, &app, &Service::message_id(&app, &name)?).await?;
    let event = found.event().ok().filter(|_| found.summary.expunged_at.is_none());
    let event = event.ok_or_else(|| ApiError::conflict("The message's content was deleted."))?;
    Ok(Json(RawOut { payload: event.payload.as_str().to_owned() }))
}

/// Answers whether an endpoint would get a message.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/msg/precheck/active",
    operation_id = "v1.message.precheck", tag = "Message", request_body = PrecheckIn,
    responses((status = 200, body = PrecheckOut)),
)]
pub(crate) async fn precheck(
    State(service): State<Service>,
    caller: Caller,
    Path(app): Path<String>,
    Body(input): Body<PrecheckIn>,
) -> Result<Json<PrecheckOut>, ApiError> {
    let app = service.app(&caller, &app, Action::Publish).await?;
    let event_type =
        EventType::new(&input.event_type).map_err(|error| ApiError::value("eventType", error))?;
    let channels = Channel::list(input.channels.iter().flatten())
        .map_err(|error| ApiError::value("channels", error))?;
    let mut query = EndpointQuery {
        event_type: Some(event_type),
        states: vec![StateKind::Active, StateKind::Paused],
        limit: STEP,
        ..EndpointQuery::default()
    };
    loop {
        let page = service.endpoints(&app).list(query.clone()).await?;
        if page.items.iter().any(|found| found.endpoint.listens_to(&channels)) {
            return Ok(Json(PrecheckOut { active: true }));
        }
        let Some(next) = page.next else { return Ok(Json(PrecheckOut { active: false })) };
        query.place = Some(PagePlace::After(next));
    }
}

/// Deletes the content of all messages that were accepted so far, in the background.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/msg/expunge-all-contents",
    operation_id = "v1.message.expunge-all-contents", tag = "Message",
    responses((status = 202, body = TaskOut)),
)]
pub(crate) async fn expunge_all(
    State(service): State<Service>,
    caller: Caller,
    Path(app): Path<String>,
    number: RequestNumber,
) -> Result<impl IntoResponse, ApiError> {
    let app = service.app(&caller, &app, Action::Expunge).await?;
    let work = ServiceWork::ExpungeAll { until: Service::now() };
    let job = service.start_job(work, Some(app.tenant), &caller.actor(), number).await?;
    Ok((StatusCode::ACCEPTED, Json(TaskOut::from(&job))))
}

/// Deletes the content of several messages.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/msg/bulk-expunge",
    operation_id = "v1.message.bulk-expunge", tag = "Message", request_body = BulkExpungeIn,
    responses((status = 200, body = BulkExpungeOut)),
)]
pub(crate) async fn expunge(
    State(service): State<Service>,
    caller: Caller,
    Path(app): Path<String>,
    Body(BulkExpungeIn { ids }): Body<BulkExpungeIn>,
) -> Result<Json<BulkExpungeOut>, ApiError> {
    let app = service.app(&caller, &app, Action::Expunge).await?;
    if ids.len() > MAX_EXPUNGED {
        return Err(ApiError::value("ids", "there are more than 250"));
    }
    let mut results = BTreeMap::new();
    for name in ids {
        let is_known = match Service::message_id(&app, &name) {
            Ok(id) => service.expunge_message::<ApiError>(&app.tenant, &id).await?,
            Err(_unknown) => false,
        };
        let word = if is_known { "expunged" } else { "not-found" };
        if word == "expunged" {
            let thing = ("message", app.tenant.as_str(), &*name);
            service.admin().log(&caller.actor(), thing, (None, None), Service::now()).await?;
        }
        results.insert(name, word);
    }
    Ok(Json(BulkExpungeOut { results }))
}

/// Answers with the headers of an attempt.
///
/// Those that were sent are made again from the endpoint as it is now.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/msg/{msg_id}/attempt/{attempt_id}/headers",
    operation_id = "v1.message-attempt.get-headers", tag = "Message Attempt",
    responses((status = 200, body = AttemptHeadersOut), (status = 409)),
)]
pub(crate) async fn attempt_headers(
    State(service): State<Service>,
    caller: Caller,
    Path((app, message, id)): Path<(String, String, String)>,
) -> Result<Json<AttemptHeadersOut>, ApiError> {
    let app = service.app(&caller, &app, Action::ReadPayloads).await?;
    let event = record(&service, &app, &Service::message_id(&app, &message)?).await?;
    let found = attempt(&service, &app, &message, &id).await?;
    let endpoint = service.endpoints(&app).get(found.endpoint.as_str()).await?;
    let endpoint = endpoint.ok_or_else(|| ApiError::unknown("endpoint"))?;
    let sent = SentRequest::new(&endpoint.endpoint, &event, found.attempt.started_at)
        .map_err(|error| ApiError::conflict(format!("Not known any more: {error}.")))?;
    let (mut sent_headers, mut sensitive) = (BTreeMap::new(), Vec::new());
    for (name, value) in sent.shown_headers() {
        if sent.headers.get(name).is_some_and(http::HeaderValue::is_sensitive) {
            sensitive.push(name.to_string());
        } else {
            sent_headers.insert(name.to_string(), value.into_owned());
        }
    }
    let lines = found.attempt.response_headers.lines();
    let response_headers = lines.filter_map(|line| line.split_once(": "));
    let response_headers = response_headers.map(|(name, value)| (name.into(), value.into()));
    Ok(Json(AttemptHeadersOut {
        sent_headers,
        response_headers: response_headers.collect(),
        sensitive,
    }))
}
