//! A publication: an event, and how it is to be delivered.

use webhooks_core::{EndpointId, Event, EventId, Timestamp, TraceContext};

use crate::serialized_event::SerializedEvent;

/// An event, and how it is to be delivered. An event alone is delivered at once, to all endpoints
/// that want it.
///
/// # Example
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use webhooks_core::{EndpointId, Event, Timestamp};
/// use webhooks_dispatch::{Engine, FnTransport, MemoryStore, Publication};
/// use webhooks_registry::Endpoint;
///
/// let engine = Engine::new(MemoryStore::new(), FnTransport::new(|_, _, _, _| async { (200, "") }));
/// engine.endpoints().register("crm", Endpoint::new("https://example.com/", "my-secret-key")?).await?;
/// let event = Event::new("ping", 1)?;
/// let tomorrow = Timestamp::now() + Duration::from_secs(24 * 60 * 60);
/// let publication = Publication::new(&event).deliver_at(tomorrow).only([EndpointId::new("crm")?]);
/// assert_eq!(engine.publish(publication).await?.deliveries, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "only `Engine::publish` publishes it"]
pub struct Publication {
    pub(crate) event: SerializedEvent,
}

impl Publication {
    /// Returns the publication of an event, at once and to all endpoints that want it.
    pub fn new(event: &Event) -> Self {
        Self { event: SerializedEvent::new(event) }
    }

    /// Returns the id of the event.
    pub fn id(&self) -> &EventId {
        &self.event.id
    }

    /// Sets the time before which nothing is delivered, up to 90 days ahead. A time in the past means
    /// at once. Deliveries grow old from then on, and can be cancelled before as any other.
    ///
    /// An ordered endpoint gets the event when nothing else waits for it, at that time or later.
    pub fn deliver_at(mut self, time: Timestamp) -> Self {
        self.event.deliver_at = Some(time);
        self
    }

    /// Sets the endpoints of the event's tenant that get it, whatever they subscribe to: for test
    /// events. No other endpoint counts as having missed it.
    pub fn only(mut self, endpoints: impl IntoIterator<Item = EndpointId>) -> Self {
        self.event.only = Some(endpoints.into_iter().collect());
        self
    }

    /// Sets the place of the event in a distributed trace. Each delivery passes it on in the headers
    /// `traceparent` and `tracestate`, in place of headers of these names that its endpoint adds. It is
    /// no part of the event's content: if the event is published again, the first one stays.
    pub fn trace(mut self, trace: TraceContext) -> Self {
        self.event.trace = Some(trace);
        self
    }

    /// Returns the event in the form in which stores take it.
    #[must_use]
    pub fn into_serialized(self) -> SerializedEvent {
        self.event
    }
}

impl From<&Event> for Publication {
    fn from(event: &Event) -> Self {
        Self::new(event)
    }
}
