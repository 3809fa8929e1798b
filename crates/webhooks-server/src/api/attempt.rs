//! Deliveries and attempts: what became of messages.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use webhooks_admin::Action;
use webhooks_core::{DeliveryStatus, EventId, Timestamp};
use webhooks_dispatch::history::{AttemptRecord, DeliveryRecord, HistoryStore as _, Query};

use super::attempt_out::{AttemptOut, AttemptShower, is_success};
use super::endpoint_in::EndpointShown;
use super::message::{HistoryFilter, MessagePath, has_payload};
use super::message_out::{MAX_PAGE_BYTES, MessageOut, record};
use super::status::Status;
use crate::attempt_id::read_id;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Params, Path};
use crate::find::App;
use crate::paging::{List, Place, filtered, place};
use crate::parameters::{AttemptFilter, ByClass, ByEndpoint, ByStatus, History, HistoryOnly, Page};
use crate::schema::Time;
use crate::service::Service;

/// The classes of status codes; 0 has the attempts without a response.
const CLASSES: [u16; 6] = [0, 100, 200, 300, 400, 500];

/// The pages, of 1,000 attempts each, that one count looks at.
const MAX_COUNTED_PAGES: usize = 20;

#[derive(Serialize, ToSchema)]
pub(crate) struct CountOut {
    /// The number of attempts that the filter finds.
    count: u64,
    /// Whether there are more: a count reads 20,000 attempts at most.
    approximated: bool,
}

/// A message, as one endpoint got it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointMessageOut {
    #[serde(flatten)]
    message: MessageOut,
    #[serde(flatten)]
    status: Status,
    /// The status code of the last response; 0 if the last attempt got none, and absent if there was no attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status_code: Option<u16>,
    /// The time of the next attempt; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Time>)]
    next_attempt: Option<Timestamp>,
}

/// An endpoint, as it got one message.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MessageEndpointOut {
    #[serde(flatten)]
    endpoint: EndpointShown,
    #[serde(flatten)]
    status: Status,
    /// The time of the next attempt; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Time>)]
    next_attempt: Option<Timestamp>,
}

/// Lists the attempts to an endpoint.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/attempt/endpoint/{endpoint_id}",
    operation_id = "v1.message-attempt.list-by-endpoint", tag = "Message Attempt",
    params(Page, History, ByStatus, AttemptFilter),
    responses((status = 200, body = List<AttemptOut>)),
)]
pub(crate) async fn of_endpoint(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): Path<(String, String)>,
    params: Params,
) -> Result<Json<List<AttemptOut>>, ApiError> {
    let found = service.endpoint(&caller, (&app, &name), Action::ReadEvents).await?;
    let mut filter = HistoryFilter::read(&params, &found.app)?;
    filter.query.endpoint = Some(found.id().clone());
    attempts(&service, &caller, &found.app, &params, filter).await
}

/// Lists the attempts to deliver a message.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/attempt/msg/{msg_id}",
    operation_id = "v1.message-attempt.list-by-msg", tag = "Message Attempt",
    params(Page, History, ByStatus, AttemptFilter, ByEndpoint),
    responses((status = 200, body = List<AttemptOut>)),
)]
pub(crate) async fn of_message(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): MessagePath,
    params: Params,
) -> Result<Json<List<AttemptOut>>, ApiError> {
    let app = service.app(&caller, &app, Action::ReadEvents).await?;
    let id = known(&service, &app, &name).await?;
    let mut filter = HistoryFilter::read(&params, &app)?;
    filter.query.event = Some(id);
    if let Some(endpoint) = params.text("endpoint_id") {
        let path = (app.tenant.as_str(), endpoint);
        let found = service.endpoint(&caller, path, Action::ReadEvents).await?;
        filter.query.endpoint = Some(found.id().clone());
    }
    attempts(&service, &caller, &app, &params, filter).await
}

/// Counts the attempts to an endpoint.
///
/// 20,000 are looked at, the newest ones; `approximated` tells that there are more.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/attempt/endpoint/{endpoint_id}/count",
    operation_id = "v1.message-attempt.count-by-endpoint", tag = "Message Attempt",
    params(HistoryOnly, ByStatus, ByClass), responses((status = 200, body = CountOut)),
)]
pub(crate) async fn count_of_endpoint(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): Path<(String, String)>,
    params: Params,
) -> Result<Json<CountOut>, ApiError> {
    let found = service.endpoint(&caller, (&app, &name), Action::ReadEvents).await?;
    let mut filter = HistoryFilter::read(&params, &found.app)?;
    filter.query.endpoint = Some(found.id().clone());
    let mut out = CountOut { count: 0, approximated: false };
    let Some(filter) = Wanted::read(&params, filter)? else { return Ok(Json(out)) };
    let mut at = Place { limit: Query::MAX_LIMIT, ..Place::default() };
    for _ in 0..MAX_COUNTED_PAGES {
        let page = service.engine().history().attempts(filter.history.query(at)).await?;
        let wanted = page.items.iter().filter(|found| filter.keeps(found)).count();
        out.count += wanted as u64;
        at.after = page.next;
        out.approximated = page.next.is_some();
        if page.next.is_none() {
            break;
        }
    }
    Ok(Json(out))
}

/// The filter of attempts.
struct Wanted {
    history: HistoryFilter,
    class: Option<u16>,
    success: Option<bool>,
}

impl Wanted {
    /// Reads the filter; `None` if no attempt can be wanted.
    fn read(params: &Params, mut history: HistoryFilter) -> Result<Option<Self>, ApiError> {
        let status: Option<u8> = params.read("status", "a number from 0 to 4")?;
        let expected = "0, 100, 200, 300, 400 or 500";
        let class: Option<u16> = params.read("status_code_class", expected)?;
        if !class.is_none_or(|class| CLASSES.contains(&class)) {
            let told = format!("status_code_class: it must be {expected}.");
            return Err(ApiError::bad_request(told));
        }
        // No attempt has another status than success and fail.
        let success = match status {
            None => None,
            Some(0) => Some(true),
            Some(2) => Some(false),
            Some(1 | 3 | 4) => return Ok(None),
            Some(_) => {
                return Err(ApiError::bad_request("status: it must be a number from 0 to 4."));
            }
        };
        // The class 0 has the attempts that got no response.
        history.query.status_codes =
            class.filter(|class| *class > 0).map(|class| class..=class.saturating_add(99));
        Ok(Some(Self { history, class, success }))
    }

    fn keeps(&self, found: &AttemptRecord) -> bool {
        let is_of_class = self.class != Some(0) || found.attempt.status_code.is_none();
        let is_wanted = self.success.is_none_or(|wanted| wanted == is_success(found));
        is_of_class && is_wanted && self.history.keeps(&found.event_type)
    }
}

async fn attempts(
    service: &Service,
    caller: &Caller,
    app: &App,
    params: &Params,
    filter: HistoryFilter,
) -> Result<Json<List<AttemptOut>>, ApiError> {
    let Some(filter) = Wanted::read(params, filter)? else { return Ok(Json(List::empty())) };
    let sees_content = caller.may(Action::ReadPayloads, &app.tenant);
    let has_content = has_payload(params)? && sees_content;
    let has_messages = params.flag("with_msg")?.unwrap_or_default();
    let keep = |found: &AttemptRecord| filter.keeps(found);
    let read = |at: Place| service.engine().history().attempts(filter.history.query(at));
    let at = place(params)?;
    let mut list = filtered(at, read, keep).await?;
    let mut shower = AttemptShower::new(service, app, has_content);
    let (mut shown, mut bytes) = (Vec::new(), 0);
    for (number, attempt) in list.take().into_iter().enumerate() {
        let mut message = None;
        if has_messages {
            let found = record(service, app, &attempt.event).await?;
            bytes += found.body.len();
            message = Some(MessageOut::new(&found, has_content));
        }
        if number > 0 && bytes > MAX_PAGE_BYTES {
            list = filtered(Place { limit: number, ..at }, read, keep).await?;
            break;
        }
        shown.push(shower.show(attempt, message).await?);
    }
    Ok(Json(list.with(shown)))
}

/// Lists the messages that an endpoint got or is to get.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/msg",
    operation_id = "v1.message-attempt.list-attempted-messages", tag = "Message Attempt",
    params(Page, History, ByStatus),
    responses((status = 200, body = List<EndpointMessageOut>)),
)]
pub(crate) async fn messages_of_endpoint(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): Path<(String, String)>,
    params: Params,
) -> Result<Json<List<EndpointMessageOut>>, ApiError> {
    let found = service.endpoint(&caller, (&app, &name), Action::ReadEvents).await?;
    let has_payload = has_payload(&params)? && caller.may(Action::ReadPayloads, &found.app.tenant);
    let mut filter = HistoryFilter::read(&params, &found.app)?;
    filter.query.endpoint = Some(found.id().clone());
    filter.query.statuses = statuses(&params)?;
    let read = |at: Place| service.engine().history().deliveries(filter.query(at));
    let keep = |delivery: &DeliveryRecord| filter.keeps(&delivery.event_type);
    let at = place(&params)?;
    let mut list = filtered(at, read, keep).await?;
    let (mut shown, mut bytes) = (Vec::new(), 0);
    for (number, delivery) in list.take().into_iter().enumerate() {
        let message = record(&service, &found.app, &delivery.event).await?;
        bytes += message.body.len();
        if number > 0 && bytes > MAX_PAGE_BYTES {
            list = filtered(Place { limit: number, ..at }, read, keep).await?;
            break;
        }
        let message = MessageOut::new(&message, has_payload);
        let (status, next_attempt) = (Status::of(delivery.status), next_attempt(&delivery));
        let last = delivery.last_attempt.as_ref();
        let response_status_code = last.map(|last| last.status_code.unwrap_or_default());
        shown.push(EndpointMessageOut { message, status, response_status_code, next_attempt });
    }
    Ok(Json(list.with(shown)))
}

/// Lists the endpoints that got a message or are to get it.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/msg/{msg_id}/endpoint",
    operation_id = "v1.message-attempt.list-attempted-destinations", tag = "Message Attempt",
    params(Page), responses((status = 200, body = List<MessageEndpointOut>)),
)]
pub(crate) async fn endpoints_of_message(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): MessagePath,
    params: Params,
) -> Result<Json<List<MessageEndpointOut>>, ApiError> {
    let app = service.app(&caller, &app, Action::ReadEvents).await?;
    let id = known(&service, &app, &name).await?;
    let query = |at: Place| {
        let Place { after, before, limit } = at;
        let (tenant, event) = (Some(app.tenant.clone()), Some(id.clone()));
        Query { tenant, event, after, before, limit, ..Query::default() }
    };
    let read = |at: Place| service.engine().history().deliveries(query(at));
    let mut list = filtered(place(&params)?, read, |_| true).await?;
    let mut shown = Vec::new();
    for delivery in list.take() {
        // An endpoint that was deleted is not shown.
        let endpoint = delivery.endpoint.as_str();
        if let Some(registration) = service.endpoints(&app).get(endpoint).await? {
            let entry = service.admin().endpoints(&app.tenant).get(endpoint, Service::now()).await;
            let endpoint =
                EndpointShown::new(&registration, entry.ok().and_then(|entry| entry.value.uid));
            let status = match Status::of(delivery.status) {
                // Here the last attempt counts, which failed.
                Status::SENDING => Status::FAIL,
                status => status,
            };
            let next_attempt = next_attempt(&delivery);
            shown.push(MessageEndpointOut { endpoint, status, next_attempt });
        }
    }
    Ok(Json(list.with(shown)))
}

/// Returns an attempt.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/msg/{msg_id}/attempt/{attempt_id}",
    operation_id = "v1.message-attempt.get", tag = "Message Attempt",
    responses((status = 200, body = AttemptOut)),
)]
pub(crate) async fn read(
    State(service): State<Service>,
    caller: Caller,
    Path((app, message, id)): Path<(String, String, String)>,
) -> Result<Json<AttemptOut>, ApiError> {
    let app = service.app(&caller, &app, Action::ReadEvents).await?;
    let found = attempt(&service, &app, &message, &id).await?;
    let sees_content = caller.may(Action::ReadPayloads, &app.tenant);
    let mut shower = AttemptShower::new(&service, &app, sees_content);
    Ok(Json(shower.show(found, None).await?))
}

/// Deletes the response of an attempt.
#[utoipa::path(
    delete,
    path = "/api/v1/app/{app_id}/msg/{msg_id}/attempt/{attempt_id}/content",
    operation_id = "v1.message-attempt.expunge-content", tag = "Message Attempt",
    responses((status = 204)),
)]
pub(crate) async fn expunge(
    State(service): State<Service>,
    caller: Caller,
    Path((app, message, id)): Path<(String, String, String)>,
) -> Result<StatusCode, ApiError> {
    let app = service.app(&caller, &app, Action::Expunge).await?;
    let found = attempt(&service, &app, &message, &id).await?;
    service.engine().expunge_response(found.delivery, found.number).await?;
    let thing = ("attempt", app.tenant.as_str(), &*id);
    service.admin().log(&caller.actor(), thing, (None, None), Service::now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Finds an attempt of a message.
pub(crate) async fn attempt(
    service: &Service,
    app: &App,
    message: &str,
    id: &str,
) -> Result<AttemptRecord, ApiError> {
    let (delivery, number) = read_id(id)?;
    let event = Service::message_id(app, message)?;
    let found = service.engine().history().attempt(delivery, number).await?;
    let found = found.filter(|found| found.tenant == app.tenant && found.event == event);
    found.ok_or_else(|| ApiError::unknown("attempt"))
}

/// Returns the id of a message that is there.
async fn known(service: &Service, app: &App, name: &str) -> Result<EventId, ApiError> {
    let id = Service::message_id(app, name)?;
    record(service, app, &id).await.map(|_| id)
}

fn statuses(params: &Params) -> Result<Vec<DeliveryStatus>, ApiError> {
    let expected = "a number from 0 to 4";
    let Some(number) = params.read("status", expected)? else { return Ok(Vec::new()) };
    let status = Status::delivery_status(number);
    let status =
        status.ok_or_else(|| ApiError::bad_request(format!("status: it must be {expected}.")));
    Ok(vec![status?])
}

/// Returns the time of the next attempt, if one has failed.
fn next_attempt(delivery: &DeliveryRecord) -> Option<Timestamp> {
    delivery.due_at.filter(|_| Status::of(delivery.status) == Status::SENDING)
}
