//! An event ready for the wire: serialized once, stored and sent as it is.

use std::fmt;

use bytes::Bytes;
use webhooks_core::{Event, EventId, EventType, TenantId};

/// An event and the body that receivers get, made once: the bytes signed are the bytes stored and
/// sent.
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
}

impl SerializedEvent {
    /// Returns the event with its body.
    pub fn new(event: &Event) -> Self {
        Self {
            id: event.id.clone(),
            event_type: event.event_type.clone(),
            tenant: event.tenant.clone(),
            body: Bytes::from(event.to_json()),
        }
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
            .finish()
    }
}
