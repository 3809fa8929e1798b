//! Events: what happened, as it is published and sent.

use std::convert::Infallible;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::{
    Channel, EventId, EventType, EventTypeError, LabelError, Payload, PayloadError, Tag, TenantId,
    Timestamp,
};

/// Something that happened, sent to every endpoint that subscribes to its type. Immutable once
/// published.
///
/// # Example
/// ```
/// use serde_json::json;
/// use webhooks_core::{Event, EventId};
///
/// let event = Event::new("user.created", json!({ "user_id": "123" }))?
///     .id(EventId::new("user-123-created")?)
///     .timestamp("2026-01-01T00:00:00Z".parse()?)
///     .source("user-service");
/// assert_eq!(
///     event.to_json(),
///     concat!(
///         r#"{"event_id":"user-123-created","event_type":"user.created","#,
///         r#""payload":{"user_id":"123"},"source":"user-service","#,
///         r#""timestamp":"2026-01-01T00:00:00Z"}"#,
///     )
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[expect(clippy::struct_field_names, reason = "`event_type` is the word everywhere")]
pub struct Event {
    // The order of the fields is the order of the keys on the wire: sorted.
    /// The id by which receivers deduplicate; the same in every attempt.
    #[serde(rename = "event_id")]
    pub id: EventId,
    /// The type by which endpoints subscribe.
    pub event_type: EventType,
    /// The content, byte for byte.
    pub payload: Payload,
    /// The origin, such as the name of a service; `null` on the wire if there is none.
    #[serde(default)]
    pub source: Option<String>,
    /// The time at which it happened.
    pub timestamp: Timestamp,
    /// The tenant whose endpoints the event goes to. Not on the wire.
    #[serde(skip)]
    pub tenant: TenantId,
    /// The channels, at most 16: an endpoint that names channels gets the events that share one.
    /// Not on the wire.
    #[serde(skip)]
    pub channels: Vec<Channel>,
    /// The tags by which people find it, at most 16. Not on the wire.
    #[serde(skip)]
    pub tags: Vec<Tag>,
}

/// The length in bytes of an event's body without its payload and source: enough for most events,
/// so that the buffer is allocated once and does not grow.
const ENVELOPE_LEN: usize = 224;

/// The reason why an event cannot be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EventError {
    /// The event type is not valid.
    #[error(transparent)]
    EventType(#[from] EventTypeError),
    /// The payload has no JSON form.
    #[error(transparent)]
    Payload(#[from] PayloadError),
}

impl From<Infallible> for EventError {
    /// Never runs: an [`EventType`] given as such is valid already.
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl Event {
    /// Returns an event of this type with a random id, the present time, no source and the default
    /// tenant.
    ///
    /// A [`Payload`] is kept byte for byte; any other value is serialized once, here.
    ///
    /// # Errors
    /// [`EventError`] when the type is not valid or the payload has no JSON form.
    pub fn new<T>(event_type: T, payload: impl Serialize) -> Result<Self, EventError>
    where
        T: TryInto<EventType>,
        EventError: From<T::Error>,
    {
        Ok(Self {
            id: EventId::random(),
            event_type: event_type.try_into()?,
            payload: Payload::from_value(payload)?,
            source: None,
            timestamp: Timestamp::now(),
            tenant: TenantId::default(),
            channels: Vec::new(),
            tags: Vec::new(),
        })
    }

    /// Returns the event of this tenant from the body that a store has kept. The payload is not
    /// checked again: an earlier version of [`Payload`] may have accepted texts that this one
    /// refuses because receivers cannot read them. Channels and tags are not in the body.
    ///
    /// # Errors
    /// The parser's error when it is not the body of an event.
    pub fn from_stored(body: &[u8], tenant: TenantId) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Stored {
            event_id: EventId,
            event_type: EventType,
            payload: Box<RawValue>,
            source: Option<String>,
            timestamp: Timestamp,
        }
        let stored: Stored = serde_json::from_slice(body)?;
        Ok(Self {
            id: stored.event_id,
            event_type: stored.event_type,
            payload: Payload::from_stored(stored.payload),
            source: stored.source,
            timestamp: stored.timestamp,
            tenant,
            channels: Vec::new(),
            tags: Vec::new(),
        })
    }

    /// Sets the id by which receivers deduplicate.
    #[must_use]
    pub fn id(self, id: EventId) -> Self {
        Self { id, ..self }
    }

    /// Sets the origin, such as the name of a service.
    #[must_use]
    pub fn source(self, source: impl Into<String>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// Sets the time at which it happened.
    #[must_use]
    pub fn timestamp(self, timestamp: Timestamp) -> Self {
        Self { timestamp, ..self }
    }

    /// Sets the tenant whose endpoints the event goes to.
    #[must_use]
    pub fn tenant(self, tenant: TenantId) -> Self {
        Self { tenant, ..self }
    }

    /// Sets the channels: at most 16. Endpoints that name channels get the events that share one.
    ///
    /// # Errors
    /// [`LabelError`] when one is malformed, or there are too many.
    pub fn channels<S: AsRef<str>>(
        self,
        channels: impl IntoIterator<Item = S>,
    ) -> Result<Self, LabelError> {
        Ok(Self { channels: Channel::list(channels)?, ..self })
    }

    /// Sets the tags by which people find it: at most 16.
    ///
    /// # Errors
    /// [`LabelError`] when one is malformed, or there are too many.
    pub fn tags<S: AsRef<str>>(
        self,
        tags: impl IntoIterator<Item = S>,
    ) -> Result<Self, LabelError> {
        Ok(Self { tags: Tag::list(tags)?, ..self })
    }

    /// Returns the body that receivers get: a JSON object with the keys `event_id`, `event_type`,
    /// `payload`, `source` and `timestamp`, in this order, without white space of its own.
    ///
    /// The keys inside the payload stay in the order in which the payload has them.
    #[must_use]
    #[expect(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "every field is a text or JSON that was parsed: none can fail"
    )]
    pub fn to_json(&self) -> String {
        let source = self.source.as_ref().map_or(0, String::len);
        let len = self.payload.as_str().len() + source + ENVELOPE_LEN;
        let mut json = Vec::with_capacity(len);
        serde_json::to_writer(&mut json, self).expect("an event is serializable");
        String::from_utf8(json).expect("JSON is UTF-8")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_wire_form_is_one_object_with_sorted_keys() {
        let json = Event::new("created", json!({"z": 1, "a": {"y": 2, "b": 3}})).unwrap().to_json();
        let sorted: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json, sorted.to_string(), "serde_json's own map is sorted");
        let Value::Object(object) = sorted else { panic!("{json}") };
        let keys: Vec<&String> = object.keys().collect();
        assert_eq!(keys, ["event_id", "event_type", "payload", "source", "timestamp"]);
        assert_eq!(object["source"], Value::Null);
    }

    #[test]
    fn a_receiver_reads_back_what_was_sent() {
        let payload = Payload::from_json(r#"{"b": 1.0, "a": "\u00e9"}"#.to_owned()).unwrap();
        let event = Event::new(EventType::UPDATED, payload).unwrap().source("crm");
        let received: Event = serde_json::from_str(&event.to_json()).unwrap();
        assert_eq!(received, event);
    }

    #[test]
    fn a_stored_event_is_read_although_its_payload_would_be_refused() {
        let kept = Event::new("created", "\u{1f980}").unwrap().source("crm").to_json();
        let kept = kept.replace("\u{1f980}", r"\ud83e").into_bytes();
        assert!(serde_json::from_slice::<Event>(&kept).is_err());
        let tenant = TenantId::new("acme").unwrap();
        let event = Event::from_stored(&kept, tenant.clone()).unwrap();
        assert_eq!((event.tenant.clone(), event.payload.as_str()), (tenant, r#""\ud83e""#));
        assert_eq!(event.to_json().into_bytes(), kept);
        for body in ["", "{}", "[]", r#"{"payload": 1}"#] {
            assert!(Event::from_stored(body.as_bytes(), TenantId::default()).is_err(), "{body}");
        }
    }

    #[test]
    fn bad_events_are_refused_on_the_way_in() {
        let error = Event::new("not a type", ()).unwrap_err();
        assert!(matches!(error, EventError::EventType(_)), "{error}");
        let body =
            r#"{"event_id":"","event_type":"a","payload":1,"timestamp":"2026-01-01T00:00:00Z"}"#;
        assert!(
            serde_json::from_str::<Event>(body).unwrap_err().to_string().contains("id is empty")
        );
    }
}
