//! Messages: the events of an application.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use webhooks_admin::{Action, IdKind, check_name};
use webhooks_core::{Event, EventId, EventType, Payload, Timestamp};
use webhooks_dispatch::Publication;
use webhooks_dispatch::clock::{Clock as _, SystemClock};
use webhooks_dispatch::history::{EventSummary, HistoryStore as _, Query};

use super::application::{ApplicationIn, find_or_add};
use super::message_out::{MessageOut, record};
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Body, Params, Path};
use crate::find::{App, own_message_id};
use crate::idempotent::RequestNumber;
use crate::paging::{List, Place, filtered, place};
use crate::parameters::{Content, History, Page};
use crate::schema::{EventTypeName, Label, Name, Time};
use crate::service::Service;

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MessageIn {
    #[schema(value_type = EventTypeName)]
    event_type: String,
    #[schema(value_type = Object)]
    payload: Box<RawValue>,
    #[schema(value_type = Option<Name>)]
    event_id: Option<String>,
    #[schema(value_type = Option<Vec<Label>>, max_items = 16)]
    channels: Option<Vec<String>>,
    #[schema(value_type = Option<Vec<Label>>, max_items = 16)]
    tags: Option<Vec<String>>,
    #[schema(value_type = Option<Time>)]
    deliver_at: Option<Timestamp>,
    application: Option<ApplicationIn>,
}

/// The ids or uids of an application and a message.
pub(crate) type MessagePath = Path<(String, String)>;

impl MessageIn {
    fn event(self, app: &App, number: Option<u128>) -> Result<Event, ApiError> {
        let payload = self.payload.get();
        if !payload.starts_with('{') {
            return Err(ApiError::value("payload", "it must be an object"));
        }
        let payload = Payload::from_json(payload.to_owned())
            .map_err(|error| ApiError::value("payload", error))?;
        let event_type = EventType::new(&self.event_type)
            .map_err(|error| ApiError::value("eventType", error))?;
        let id = match (&self.event_id, number) {
            (Some(event_id), _) => {
                check_name("eventId", event_id)?;
                own_message_id(&app.tenant, event_id)
            }
            // A request that is made again publishes nothing new, even after a crash.
            (None, Some(number)) => IdKind::Event.id(number),
            (None, None) => IdKind::Event.generate(),
        };
        let id = EventId::new(&id).map_err(|error| ApiError::value("eventId", error))?;
        let event = Event::new(event_type, payload)
            .map_err(|error| ApiError::value("payload", error))?
            .id(id)
            .tenant(app.tenant.clone())
            .channels(self.channels.iter().flatten())
            .map_err(|error| ApiError::value("channels", error))?
            .tags(self.tags.iter().flatten())
            .map_err(|error| ApiError::value("tags", error))?;
        // The origin of a message is the owner's id for it.
        Ok(match self.event_id {
            Some(event_id) => event.source(event_id),
            None => event,
        })
    }
}

/// Publishes a message to the endpoints of an application.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/msg",
    operation_id = "v1.message.create", tag = "Message", params(Content), request_body = MessageIn,
    responses((status = 202, body = MessageOut), (status = 429)),
)]
pub(crate) async fn create(
    State(service): State<Service>,
    caller: Caller,
    Path(app): Path<String>,
    params: Params,
    number: RequestNumber,
    Body(mut input): Body<MessageIn>,
) -> Result<impl IntoResponse, ApiError> {
    let made = input.application.take();
    let app = find_or_add(&service, &caller, &app, made, Action::Publish).await?;
    if let Some(rate) = app.entry.value.throttle_rate {
        let passed = service.throttle().pass(&app.tenant, rate, SystemClock.monotonic());
        passed.map_err(ApiError::too_many)?;
    }
    let has_payload = has_payload(&params)?;
    let deliver_at = input.deliver_at;
    let event = input.event(&app, number.0)?;
    let publication = Publication::new(&event);
    let publication = match deliver_at {
        Some(at) => publication.deliver_at(at),
        None => publication,
    };
    service.engine().publish(publication).await?;
    let shown = record(&service, &app, &event.id).await?;
    Ok((StatusCode::ACCEPTED, Json(MessageOut::new(&shown, has_payload))))
}

/// Lists the messages of an application, the newest first.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/msg",
    operation_id = "v1.message.list", tag = "Message", params(Page, History),
    responses((status = 200, body = List<MessageOut>)),
)]
pub(crate) async fn list(
    State(service): State<Service>,
    caller: Caller,
    Path(app): Path<String>,
    params: Params,
) -> Result<Json<List<MessageOut>>, ApiError> {
    let app = service.app(&caller, &app, Action::ReadEvents).await?;
    let has_payload = has_payload(&params)? && caller.may(Action::ReadPayloads, &app.tenant);
    let filter = HistoryFilter::read(&params, &app)?;
    let read = |at: Place| service.engine().history().events(filter.query(at));
    let keep = |found: &EventSummary| filter.keeps(&found.event_type);
    let mut list = filtered(place(&params)?, read, keep).await?;
    let mut shown = Vec::new();
    for found in list.take() {
        // One that was forgotten meanwhile is left out.
        if let Some(found) = service.engine().history().event(found.tenant, found.id).await? {
            shown.push(MessageOut::new(&found, has_payload));
        }
    }
    Ok(Json(list.with(shown)))
}

/// Returns a message.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/msg/{msg_id}",
    operation_id = "v1.message.get", tag = "Message", params(Content),
    responses((status = 200, body = MessageOut)),
)]
pub(crate) async fn read(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): MessagePath,
    params: Params,
) -> Result<Json<MessageOut>, ApiError> {
    let app = service.app(&caller, &app, Action::ReadEvents).await?;
    let has_payload = has_payload(&params)? && caller.may(Action::ReadPayloads, &app.tenant);
    let found = record(&service, &app, &Service::message_id(&app, &name)?).await?;
    Ok(Json(MessageOut::new(&found, has_payload)))
}

/// Deletes the content of a message: its payload and the responses to it.
#[utoipa::path(
    delete,
    path = "/api/v1/app/{app_id}/msg/{msg_id}/content",
    operation_id = "v1.message.expunge-content", tag = "Message", responses((status = 204)),
)]
pub(crate) async fn expunge(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): MessagePath,
) -> Result<StatusCode, ApiError> {
    let app = service.app(&caller, &app, Action::Expunge).await?;
    let id = Service::message_id(&app, &name)?;
    service.engine().expunge(app.tenant.clone(), id.clone()).await?;
    let thing = ("message", app.tenant.as_str(), &*id.to_string());
    service.admin().log(&caller.actor(), thing, (None, None), Service::now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Reads whether payloads are wanted: yes unless the caller says no.
pub(crate) fn has_payload(params: &Params) -> Result<bool, ApiError> {
    Ok(params.flag("with_content")?.unwrap_or(true))
}

/// The filter of most lists of the history.
pub(crate) struct HistoryFilter {
    pub(crate) query: Query,
    event_types: Vec<EventType>,
}

impl HistoryFilter {
    pub(crate) fn read(params: &Params, app: &App) -> Result<Self, ApiError> {
        let event_types = params.texts("event_types").map(EventType::new);
        let event_types: Vec<EventType> = event_types
            .collect::<Result<_, _>>()
            .map_err(|error| ApiError::bad_request(format!("event_types: {error}.")))?;
        // One type is found by the store; more are picked here.
        let event_type = match &*event_types {
            [one] => one.as_str().parse().ok(),
            _ => None,
        };
        let query = Query {
            tenant: Some(app.tenant.clone()),
            event_type,
            channel: params.read("channel", "1 to 128 of A-Z, a-z, 0-9, _, ., : and -")?,
            tag: params.read("tag", "1 to 128 of A-Z, a-z, 0-9, _, ., : and -")?,
            since: params.time("after")?,
            until: params.time("before")?,
            ..Query::default()
        };
        Ok(Self { query, event_types })
    }

    pub(crate) fn query(&self, at: Place) -> Query {
        let Place { after, before, limit } = at;
        Query { after, before, limit, ..self.query.clone() }
    }

    pub(crate) fn keeps(&self, event_type: &EventType) -> bool {
        self.event_types.is_empty() || self.event_types.contains(event_type)
    }
}
