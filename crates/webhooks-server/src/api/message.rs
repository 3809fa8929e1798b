//! Messages: the events of an application.

use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequest, Request, State};
use axum::response::IntoResponse;
use http::StatusCode;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use webhooks_admin::{Action, Broadcast, IdKind, check_name};
use webhooks_core::{Event, EventId, EventType, TenantId, Timestamp, TraceContext};
use webhooks_dispatch::history::{EventSummary, HistoryStore as _, Query};
use webhooks_dispatch::{Publication, PublishStatus, Published};

use super::application::{ApplicationIn, find_or_add};
use super::cloud_event::{CloudEvent, Mode};
use super::message_out::{MAX_PAGE_BYTES, MessageOut, record};
use crate::auth::Caller;
use crate::content_end::of_hours;
use crate::error::ApiError;
use crate::extract::{Object, Params, Path, object, parse, read_body};
use crate::find::{App, own_message_id};
use crate::idempotent::RequestNumber;
use crate::paging::{List, Place, filtered, place};
use crate::parameters::{Content, History, Page};
use crate::schema::{EventTypeName, Label, Name, Time};
use crate::service::Service;
use crate::trace::RequestTrace;

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MessageIn {
    /// The event type, such as `user.created`. It need not be listed.
    #[schema(value_type = EventTypeName)]
    event_type: String,
    /// The payload, an object of 1 MiB at most. Endpoints get it byte for byte.
    #[schema(value_type = Object)]
    payload: Box<RawValue>,
    /// The caller's id for the message, unique in the application. The same id and content again publishes
    /// nothing new; other content gets 409.
    #[schema(value_type = Option<Name>)]
    event_id: Option<String>,
    /// The channels of the message, at most 16: endpoints with other channels do not get it. None by default.
    #[schema(value_type = Option<Vec<Label>>, max_items = 16)]
    channels: Option<Vec<String>>,
    /// Tags by which lists find the message, at most 16; none by default.
    #[schema(value_type = Option<Vec<Label>>, max_items = 16)]
    tags: Option<Vec<String>>,
    /// The time before which the message is not delivered, at most 90 days ahead; at once if absent.
    #[schema(value_type = Option<Time>)]
    deliver_at: Option<Timestamp>,
    /// The application to make first, if there is none with the id of the path; its `uid` must be that id.
    #[serde(default, deserialize_with = "object")]
    application: Option<ApplicationIn>,
    /// The days after which the payload and the responses are deleted: 1 to 90. Without it, they are deleted with
    /// the message, after 30 days or `retentionDays` of the application. Deliveries that still wait are cancelled.
    #[schema(minimum = 1, maximum = 90)]
    payload_retention_period: Option<u32>,
    /// The same in hours: 1 to 2,160. Give one of the two.
    #[schema(minimum = 1, maximum = 2160)]
    payload_retention_hours: Option<u32>,
    /// Parameters of transformations, which are not offered: a message that has them gets 422.
    #[schema(value_type = Option<Object>)]
    transformations_params: Option<IgnoredAny>,
    /// The time and the trace of a CloudEvent.
    #[serde(skip)]
    #[schema(ignore)]
    cloud_event: (Option<Timestamp>, Option<TraceContext>),
}

/// A message in the body of a request: as JSON of this API, or as a CloudEvent.
pub(crate) struct MessageBody(pub(crate) MessageIn);

impl FromRequest<Service> for MessageBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, service: &Service) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let body = read_body(body, service.settings().max_request).await?;
        Ok(Self(match Mode::of(&parts.headers) {
            None => {
                let Object(message) = parse(&body)?;
                message
            }
            Some(Mode::Structured) => CloudEvent::structured(&body)?.into(),
            Some(Mode::Binary) => CloudEvent::binary(&parts.headers, &body)?.into(),
            Some(Mode::Batch) => {
                return Err(ApiError::field(
                    ["body"],
                    "send a batch to …/msg/batch",
                    "value_error",
                ));
            }
        }))
    }
}

impl From<CloudEvent> for MessageIn {
    fn from(event: CloudEvent) -> Self {
        let CloudEvent { event_type, event_id, data, time, trace } = event;
        Self {
            event_type,
            payload: data,
            event_id: Some(event_id),
            channels: None,
            tags: None,
            deliver_at: None,
            application: None,
            payload_retention_period: None,
            payload_retention_hours: None,
            transformations_params: None,
            cloud_event: (time, trace),
        }
    }
}

/// The longest time for which the content of a message can be asked for: 90 days.
const MAX_RETENTION_HOURS: u32 = 90 * 24;

/// The parts of paths that stand where a message's id stands.
const RESERVED: [&str; 5] = ["batch", "bulk-expunge", "expunge-all-contents", "precheck", "search"];

/// The ids or uids of an application and a message.
pub(crate) type MessagePath = Path<(String, String)>;

impl MessageIn {
    /// Checks the message; returns its event, of no application yet.
    pub(crate) fn event(&self) -> Result<Event, ApiError> {
        // They may hold the body that is to be sent in place of the payload.
        if self.transformations_params.is_some() {
            let reason = "transformations and raw payloads are not offered";
            return Err(ApiError::value("transformationsParams", reason));
        }
        self.check_retention()?;
        // The caller has taken it where it may be there.
        if self.application.is_some() {
            return Err(ApiError::value("application", "none is made here; leave it out"));
        }
        if !self.payload.get().starts_with('{') {
            return Err(ApiError::value("payload", "it must be an object"));
        }
        let event_type = EventType::new(&self.event_type)
            .map_err(|error| ApiError::value("eventType", error))?;
        if let Some(event_id) = &self.event_id {
            check_name("eventId", event_id)?;
            if IdKind::Event.number(event_id).is_ok() || RESERVED.contains(&&**event_id) {
                let reason = "it looks like an id or a path of this service";
                return Err(ApiError::value("eventId", reason));
            }
        }
        // It is checked here, and once: it is part of a body that was parsed.
        let event = Event::new(event_type, &self.payload)
            .map_err(|error| ApiError::value("payload", error))?
            .channels(self.channels.iter().flatten())
            .map_err(|error| ApiError::value("channels", error))?
            .tags(self.tags.iter().flatten())
            .map_err(|error| ApiError::value("tags", error))?;
        let event = match self.cloud_event.0 {
            Some(time) => event.timestamp(time),
            None => event,
        };
        // The origin of a message is the owner's id for it.
        Ok(match &self.event_id {
            Some(event_id) => event.source(event_id),
            None => event,
        })
    }

    /// Returns whether it is to be delivered at a time of its own.
    pub(crate) fn is_scheduled(&self) -> bool {
        self.deliver_at.is_some()
    }

    /// Checks the time after which its content is deleted, if it has one of its own.
    fn check_retention(&self) -> Result<(), ApiError> {
        let (days, hours) = (self.payload_retention_period, self.payload_retention_hours);
        if days.is_some() && hours.is_some() {
            let reason = "give payloadRetentionPeriod or payloadRetentionHours, not both";
            return Err(ApiError::value("payloadRetentionHours", reason));
        }
        if days.is_some_and(|days| !(1..=MAX_RETENTION_HOURS / 24).contains(&days)) {
            return Err(ApiError::value("payloadRetentionPeriod", "it is not 1 to 90 days"));
        }
        if hours.is_some_and(|hours| !(1..=MAX_RETENTION_HOURS).contains(&hours)) {
            return Err(ApiError::value("payloadRetentionHours", "it is not 1 to 2160 hours"));
        }
        if let (Some(after), Some(at)) = (self.retention(), self.deliver_at)
            && at >= Service::now() + after
        {
            let reason = "its content would be deleted before this time";
            return Err(ApiError::value("deliverAt", reason));
        }
        Ok(())
    }

    fn retention_hours(&self) -> Option<u32> {
        let of_days = self.payload_retention_period.map(|days| days.saturating_mul(24));
        of_days.or(self.payload_retention_hours)
    }

    /// Returns the time after which its content is deleted, if it has one of its own.
    pub(crate) fn retention(&self) -> Option<Duration> {
        self.retention_hours().map(of_hours)
    }

    /// Returns the end of its content in an application, if it has a time of its own.
    pub(crate) fn content_end(
        &self,
        app: &App,
        id: &EventId,
    ) -> Option<(TenantId, EventId, Duration)> {
        self.retention().map(|after| (app.tenant.clone(), id.clone(), after))
    }

    /// Returns the publication of its event.
    pub(crate) fn scheduled(&self, event: &Event) -> Publication {
        let publication = Publication::new(event);
        match self.deliver_at {
            Some(at) => publication.deliver_at(at),
            None => publication,
        }
    }

    /// Returns the message for each application.
    pub(crate) fn broadcast(self) -> Broadcast {
        let retention_hours = self.retention_hours();
        let Self { event_type, payload, event_id, channels, tags, deliver_at, .. } = self;
        let payload = payload.get().to_owned();
        let (channels, tags) = (channels.unwrap_or_default(), tags.unwrap_or_default());
        Broadcast { event_type, payload, event_id, channels, tags, deliver_at, retention_hours }
    }

    /// Returns the message's event in an application. A request with a number, for which it is made, has a
    /// message of its own.
    pub(crate) fn event_of(
        &self,
        event: Event,
        app: &App,
        number: Option<u128>,
    ) -> Result<Event, ApiError> {
        let id = match (&self.event_id, number) {
            (Some(event_id), _) => own_message_id(&app.tenant, event_id),
            // A request that is made again publishes nothing new, even after a crash.
            (None, Some(number)) => IdKind::Event.id(number),
            (None, None) => IdKind::Event.generate(),
        };
        let id = EventId::new(&id).map_err(|error| ApiError::value("eventId", error))?;
        Ok(event.id(id).tenant(app.tenant.clone()))
    }

    /// Returns the publication of the message's event.
    pub(crate) fn publication(&self, event: &Event) -> Publication {
        let publication = self.scheduled(event);
        match &self.cloud_event.1 {
            Some(trace) => publication.trace(trace.clone()),
            None => publication,
        }
    }
}

/// Publishes a message to the endpoints of an application.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/msg",
    operation_id = "v1.message.create", tag = "Message", params(Content),
    request_body(content(
        (MessageIn = "application/json"),
        (Object = "application/cloudevents+json"),
    )),
    responses((status = 202, body = MessageOut), (status = 429)),
)]
pub(crate) async fn create(
    State(service): State<Service>,
    caller: Caller,
    Path(app): Path<String>,
    params: Params,
    number: RequestNumber,
    mut trace: RequestTrace,
    MessageBody(mut input): MessageBody,
) -> Result<impl IntoResponse, ApiError> {
    let made = input.application.take();
    let has_payload = has_payload(&params)?;
    // Before an application is made for it.
    let event = input.event()?;
    let app = match made {
        // Another's is unknown, whatever the payload is.
        None => {
            let app = service.app(&caller, &app, Action::Publish).await?;
            service.check_payload(&event).await?;
            app
        }
        made => {
            caller.check(Action::Publish, caller.application())?;
            service.check_payload(&event).await?;
            find_or_add(&service, &caller, &app, made, Action::Publish).await?
        }
    };
    service.pass(&app)?;
    let event = input.event_of(event, &app, number.number())?;
    let publication = trace.with(input.publication(&event));
    let reserved = service.reserve(&app.tenant, &[publication.id()]).await?;
    let published = service.engine().publish_timed(publication).await;
    service.note_publish(published.as_ref().err());
    let (published, now) = published?;
    trace.accepted(&app.tenant, 1, Some(&published.event));
    reserved.accept(&[&published]);
    let Published { event: id, status, .. } = published;
    service.end_content(input.content_end(&app, &id)).await?;
    let stored = match status {
        PublishStatus::Created => None,
        // It is accepted, even if it cannot be read back now.
        PublishStatus::Duplicate => record(&service, &app, &id).await.ok(),
    };
    let shown = match stored {
        Some(stored) => MessageOut::new(&stored, has_payload),
        None => MessageOut::accepted(event, input.deliver_at, now, has_payload),
    };
    Ok((StatusCode::ACCEPTED, Json(shown)))
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
    page(&service, &filter, place(&params)?, has_payload).await
}

/// Returns a page of messages, which is shorter if its payloads are long.
pub(crate) async fn page(
    service: &Service,
    filter: &HistoryFilter,
    at: Place,
    has_payload: bool,
) -> Result<Json<List<MessageOut>>, ApiError> {
    let read = |at: Place| service.engine().history().events(filter.query(at));
    let keep = |found: &EventSummary| filter.keeps(&found.event_type);
    let mut list = filtered(at, read, keep).await?;
    let (mut shown, mut bytes) = (Vec::new(), 0);
    for (number, found) in list.take().into_iter().enumerate() {
        bytes += found.body_len;
        if number > 0 && bytes > MAX_PAGE_BYTES {
            // A shorter page, with the iterator of its end.
            list = filtered(Place { limit: number, ..at }, read, keep).await?;
            break;
        }
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
    if !service.expunge_message::<ApiError>(&app.tenant, &id).await? {
        return Err(ApiError::unknown("message"));
    }
    let thing = ("message", app.tenant.as_str(), &*id.to_string());
    service.admin().log(&caller.actor(), thing, (None, None), Service::now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Reads whether payloads are wanted: yes unless the caller says no.
pub(crate) fn has_payload(params: &Params) -> Result<bool, ApiError> {
    Ok(params.flag("with_content")?.unwrap_or(true))
}

/// Reads the event types that a list is to have; all if there are none.
pub(crate) fn read_event_types(params: &Params) -> Result<Vec<EventType>, ApiError> {
    let read = params.texts("event_types").map(EventType::new).collect::<Result<_, _>>();
    read.map_err(|error| ApiError::bad_request(format!("event_types: {error}.")))
}

/// The filter of most lists of the history.
pub(crate) struct HistoryFilter {
    pub(crate) query: Query,
    pub(crate) event_types: Vec<EventType>,
}

impl HistoryFilter {
    pub(crate) fn read(params: &Params, app: &App) -> Result<Self, ApiError> {
        let event_types = read_event_types(params)?;
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
