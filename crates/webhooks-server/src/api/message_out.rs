//! Messages as answers show them.

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use webhooks_core::{Channel, EventId, Tag, Timestamp};
use webhooks_dispatch::Publication;
use webhooks_dispatch::history::{EventRecord, EventSummary, HistoryStore as _};

use webhooks_dispatch::store::SerializedEvent;

use crate::error::ApiError;
use crate::find::App;
use crate::schema::{EventTypeName, Label, Time};
use crate::service::Service;

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MessageOut {
    /// The id of the message, and the `webhook-id` of its deliveries.
    id: String,
    /// The caller's id for the message; absent if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    /// The event type.
    #[schema(value_type = EventTypeName)]
    event_type: String,
    /// The payload; an empty object if it is not shown, and `{"expired": true}` if it was deleted.
    #[schema(value_type = Object)]
    payload: Box<RawValue>,
    /// The channels of the message; absent if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Label>>)]
    channels: Option<Vec<String>>,
    /// The tags of the message; absent if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Label>>)]
    tags: Option<Vec<String>>,
    /// The time before which it is not delivered; absent if it was not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Time>)]
    deliver_at: Option<Timestamp>,
    /// The time at which the message was accepted.
    #[schema(value_type = Time)]
    timestamp: Timestamp,
}

impl MessageOut {
    /// Returns a message, with an empty payload unless `has_payload`.
    pub(crate) fn new(record: &EventRecord, has_payload: bool) -> Self {
        let EventSummary { id, event_type, channels, tags, accepted_at, deliver_at, .. } =
            &record.summary;
        // The content of one that was expunged is gone, its eventId with it.
        let event = record.event().ok().filter(|_| record.summary.expunged_at.is_none());
        let payload = match &event {
            Some(event) if has_payload => event.payload.as_str(),
            Some(_) => "{}",
            None => r#"{"expired":true}"#,
        };
        let payload = RawValue::from_string(payload.to_owned());
        let channels: Vec<String> = channels.iter().map(Channel::to_string).collect();
        let tags: Vec<String> = tags.iter().map(Tag::to_string).collect();
        Self {
            id: id.to_string(),
            event_id: event.and_then(|event| event.source),
            event_type: event_type.to_string(),
            payload: payload.unwrap_or_default(),
            channels: Some(channels).filter(|channels| !channels.is_empty()),
            tags: Some(tags).filter(|tags| !tags.is_empty()),
            deliver_at: *deliver_at,
            timestamp: *accepted_at,
        }
    }
}

/// The most bytes of bodies that one page holds; it may hold one body that is larger.
pub(crate) const MAX_PAGE_BYTES: usize = 8 * 1024 * 1024;

/// Returns the record of a message that was accepted just now, as far as its publisher knows it.
pub(crate) fn as_accepted(
    publication: Publication,
    deliveries: usize,
    accepted_at: Timestamp,
) -> EventRecord {
    let SerializedEvent { id, event_type, tenant, body, channels, tags, deliver_at, only, trace } =
        publication.into_serialized();
    let (body_len, expunged_at) = (body.len(), None);
    let summary = EventSummary {
        id,
        event_type,
        tenant,
        channels,
        tags,
        accepted_at,
        deliver_at,
        only,
        deliveries,
        body_len,
        expunged_at,
        trace,
    };
    EventRecord { summary, body }
}

/// Returns the record of a message.
pub(crate) async fn record(
    service: &Service,
    app: &App,
    id: &EventId,
) -> Result<EventRecord, ApiError> {
    let found = service.engine().history().event(app.tenant.clone(), id.clone()).await?;
    found.ok_or_else(|| ApiError::unknown("message"))
}
