//! Messages as answers show them.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use utoipa::ToSchema;
use webhooks_core::{Event, EventId, Payload, Timestamp};
use webhooks_dispatch::history::{EventRecord, EventSummary, HistoryStore as _};

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
    /// Returns a stored message, with an empty payload unless `has_payload`.
    pub(crate) fn new(record: &EventRecord, has_payload: bool) -> Self {
        let EventSummary { id, event_type, channels, tags, accepted_at, deliver_at, .. } =
            &record.summary;
        // The content of one that was expunged is gone, its eventId with it.
        let event = record.event().ok().filter(|_| record.summary.expunged_at.is_none());
        let (payload, event_id) = match event {
            Some(Event { payload, source, .. }) => (shown(&payload, has_payload), source),
            None => (constant(r#"{"expired":true}"#), None),
        };
        Self {
            id: id.to_string(),
            event_id,
            event_type: event_type.to_string(),
            payload,
            channels: texts(channels),
            tags: texts(tags),
            deliver_at: *deliver_at,
            timestamp: *accepted_at,
        }
    }

    /// Returns a message that was accepted just now, as its publisher knows it.
    pub(crate) fn accepted(
        event: Event,
        deliver_at: Option<Timestamp>,
        accepted_at: Timestamp,
        has_payload: bool,
    ) -> Self {
        Self {
            id: event.id.to_string(),
            event_id: event.source,
            event_type: event.event_type.to_string(),
            payload: shown(&event.payload, has_payload),
            channels: texts(&event.channels),
            tags: texts(&event.tags),
            deliver_at,
            timestamp: accepted_at,
        }
    }
}

fn shown(payload: &Payload, has_payload: bool) -> Box<RawValue> {
    // A copy: it is not parsed again.
    if has_payload { to_raw_value(payload).unwrap_or_default() } else { constant("{}") }
}

fn constant(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap_or_default()
}

/// Returns labels as texts, if there are any.
fn texts<T: ToString>(labels: &[T]) -> Option<Vec<String>> {
    (!labels.is_empty()).then(|| labels.iter().map(T::to_string).collect())
}

/// The most bytes of bodies that one page holds; it may hold one body that is larger.
pub(crate) const MAX_PAGE_BYTES: usize = 8 * 1024 * 1024;

/// Returns the record of a message.
pub(crate) async fn record(
    service: &Service,
    app: &App,
    id: &EventId,
) -> Result<EventRecord, ApiError> {
    let found = service.engine().history().event(app.tenant.clone(), id.clone()).await?;
    found.ok_or_else(|| ApiError::unknown("message"))
}
