//! An event ready for the wire: serialized once, stored and sent as it is.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use webhooks_core::{
    Channel, EndpointId, Event, EventId, EventType, LabelError, Tag, TenantId, Timestamp,
    TraceContext,
};
use webhooks_registry::{BodyFormat, Endpoint, Registration, Registry};

use crate::cloud_event;

/// The longest time from publishing to the deliveries: 90 days.
const MAX_AHEAD: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// An event and its body, made once: the bytes stored are the bytes signed and sent. An endpoint that
/// wants the payload alone gets a part of them.
///
/// # Example
/// ```
/// use webhooks_core::Event;
/// use webhooks_dispatch::store::SerializedEvent;
///
/// let event = Event::new("created", 1)?;
/// assert_eq!(SerializedEvent::new(&event).body, event.to_json());
/// # Ok::<(), webhooks_core::EventError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it of their columns")]
pub struct SerializedEvent {
    /// The id by which receivers deduplicate.
    pub id: EventId,
    /// The type of the event.
    pub event_type: EventType,
    /// The tenant to whose endpoints the event goes.
    pub tenant: TenantId,
    /// The event's JSON object, as [`Event::to_json`] writes it.
    pub body: Bytes,
    /// The channels, by which endpoints filter. Empty in a claim, which needs none, as the three fields
    /// below.
    pub channels: Vec<Channel>,
    /// The tags, by which people find it.
    pub tags: Vec<Tag>,
    /// The time before which nothing is delivered, if it is later than the time of acceptance.
    pub deliver_at: Option<Timestamp>,
    /// The endpoints that get it, whatever they subscribe to; those that want it if `None`. No other
    /// endpoint counts as having missed it.
    pub only: Option<Vec<EndpointId>>,
    /// The place of the event in a distributed trace, which its deliveries pass on; in a claim, too.
    pub trace: Option<TraceContext>,
}

impl SerializedEvent {
    /// Returns the event with its body.
    pub fn new(event: &Event) -> Self {
        Self {
            id: event.id.clone(),
            event_type: event.event_type.clone(),
            tenant: event.tenant.clone(),
            body: Bytes::from(event.to_json()),
            channels: event.channels.clone(),
            tags: event.tags.clone(),
            deliver_at: None,
            only: None,
            trace: None,
        }
    }

    /// Returns the event as a claim holds it, of the columns of a store.
    pub fn claimed(id: EventId, event_type: EventType, tenant: TenantId, body: Bytes) -> Self {
        let (channels, tags) = (Vec::new(), Vec::new());
        let (deliver_at, only, trace) = (None, None, None);
        Self { id, event_type, tenant, body, channels, tags, deliver_at, only, trace }
    }

    /// Returns the body that the endpoint gets; except a structured CloudEvent, it shares its bytes with the stored
    /// body. `None` if the stored body cannot be read.
    pub(crate) fn body_for(&self, endpoint: &Endpoint) -> Option<Bytes> {
        #[derive(Deserialize)]
        struct Stored<'a> {
            #[serde(borrow)]
            payload: &'a RawValue,
        }
        match endpoint.body {
            BodyFormat::Event => Some(self.body.clone()),
            BodyFormat::Payload | BodyFormat::CloudEventBinary => {
                let Stored { payload } = serde_json::from_slice(&self.body).ok()?;
                Some(self.body.slice_ref(payload.get().as_bytes()))
            }
            BodyFormat::CloudEvent => cloud_event::of_stored(&self.body, &self.tenant),
        }
    }

    /// Returns the endpoints that get the event, ordered by id. For stores that have them in memory.
    pub fn recipients(&self, registry: &Registry) -> Vec<Arc<Registration>> {
        match &self.only {
            Some(ids) => registry.named(&self.tenant, ids),
            None => registry.matching_type(&self.tenant, &self.event_type, &self.channels),
        }
    }

    /// Returns the time at which deliveries are due if the event is accepted at `now`, if that is
    /// later than `now`.
    ///
    /// Such deliveries are *scheduled*: they grow old from then on, and
    /// [`hasten`](crate::store::DeliveryStore::hasten) leaves their due times as they are.
    pub fn scheduled_for(&self, now: Timestamp) -> Option<Timestamp> {
        self.deliver_at.filter(|at| *at > now)
    }

    /// Returns an error if there are too many channels or tags: the fields of an [`Event`] are
    /// public, so its lists may have been set without a check.
    ///
    /// # Errors
    /// [`LabelError::TooMany`] then.
    pub fn check_labels(&self) -> Result<(), LabelError> {
        Channel::check_count(&self.channels)?;
        Tag::check_count(&self.tags)
    }

    /// Returns whether the event is to be delivered more than 90 days after `now`, which nobody may ask.
    pub fn is_too_far_ahead(&self, now: Timestamp) -> bool {
        self.deliver_at.is_some_and(|at| at.saturating_since(now) > MAX_AHEAD)
    }

    /// Returns whether a stored body has the same type, payload and source. The timestamp may
    /// differ, since a publisher that tries again often makes the event anew.
    pub fn is_same_content(&self, stored: &[u8]) -> bool {
        if self.body == stored {
            return true;
        }
        let read = |body| Event::from_stored(body, TenantId::default()).ok();
        let content = |event: Event| (event.event_type, event.payload, event.source);
        match (read(&self.body), read(stored)) {
            (Some(mine), Some(stored)) => content(mine) == content(stored),
            _ => false,
        }
    }
}

impl fmt::Debug for SerializedEvent {
    /// Leaves out the body, which is private to sender and receiver.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SerializedEvent")
            .field("id", &self.id)
            .field("event_type", &self.event_type)
            .field("tenant", &self.tenant)
            .field("body_bytes", &self.body.len())
            .field("channels", &self.channels)
            .field("tags", &self.tags)
            .field("deliver_at", &self.deliver_at)
            .field("only", &self.only)
            .field("trace", &self.trace)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use webhooks_core::Payload;

    use super::*;

    fn endpoint(body: BodyFormat) -> Endpoint {
        Endpoint::new("https://example.com/", "plain").unwrap().body(body)
    }

    fn payload_of(stored: &[u8]) -> Option<Bytes> {
        let event = SerializedEvent::new(&Event::new("created", ()).unwrap());
        let event = SerializedEvent { body: Bytes::copy_from_slice(stored), ..event };
        event.body_for(&endpoint(BodyFormat::Payload))
    }

    #[test]
    fn each_body_is_a_part_of_the_stored_one() {
        for text in [
            "{ \"z\": 1.0,\t\"a\" : [1e308 , 0.10],\n \"payload\": {\"payload\":\"\u{e9}\\u00e9 \\\" }\"} }",
            "12345678901234567890123",
            "null",
            "[ ]",
            r#""""#,
        ] {
            let payload = Payload::from_json(format!(" {text}\n")).unwrap();
            let event = Event::new("created", payload).unwrap().source("\"payload\":1");
            let event = SerializedEvent::new(&event);
            let whole = event.body_for(&endpoint(BodyFormat::Event)).unwrap();
            assert_eq!((whole.as_ptr(), whole.len()), (event.body.as_ptr(), event.body.len()));
            let payload = event.body_for(&endpoint(BodyFormat::Payload)).unwrap();
            assert_eq!(payload, text);
            assert!(event.body.as_ptr_range().contains(&payload.as_ptr()), "it was not copied");
        }
    }

    /// An earlier version of [`Payload`] may have accepted texts that this one refuses.
    #[test]
    fn a_stored_payload_is_not_judged_again() {
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        for text in ["1e400", r#"["\ud83e",  -1e999]"#, &deep] {
            let stored = format!(r#"{{"event_id":"a","payload":{text},"source":null}}"#);
            assert_eq!(payload_of(stored.as_bytes()).unwrap(), text);
        }
    }

    #[test]
    fn a_damaged_body_has_no_payload() {
        for stored in [
            &b""[..],
            b"{}",
            b"null",
            br#"{"payload":}"#,
            br#"{"payload":1"#,
            br#"{"payload":1}}"#,
            br#"{"payload":1,"payload":2}"#,
            b"{\"payload\":\"\xff\"}",
        ] {
            assert_eq!(payload_of(stored), None, "{}", String::from_utf8_lossy(stored));
        }
    }
}
