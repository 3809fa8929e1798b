//! The entries of a history, and pages of them.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use webhooks_core::{
    Channel, DeliveryId, DeliveryStatus, EndpointId, Event, EventId, EventType, Tag, TenantId,
    Timestamp, TraceContext,
};

use super::query::Cursor;
use crate::store::{Attempt, CancelReason};
use crate::transport::ErrorClass;

/// A part of a list, the newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// The value of [`Query::after`](super::Query::after) for the next page; `None` after the last.
    pub next: Option<Cursor>,
    /// The value of [`Query::before`](super::Query::before) for the page before, which may have come
    /// into being since; `None` if this page is empty.
    pub previous: Option<Cursor>,
}

/// An event of the history without its body, for lists.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct EventSummary {
    /// The id.
    pub id: EventId,
    /// Its type.
    pub event_type: EventType,
    /// Its tenant.
    pub tenant: TenantId,
    /// Its channels.
    pub channels: Vec<Channel>,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// The time at which it was accepted.
    pub accepted_at: Timestamp,
    /// The time before which nothing was to be delivered, if it was scheduled.
    pub deliver_at: Option<Timestamp>,
    /// The endpoints that it was published to alone, if it was.
    pub only: Option<Vec<EndpointId>>,
    /// The number of its deliveries when it was accepted.
    pub deliveries: usize,
    /// The length of its body in bytes; 0 once it is expunged.
    pub body_len: usize,
    /// The time at which its content was deleted, if it was.
    pub expunged_at: Option<Timestamp>,
    /// Its place in a distributed trace, if it was published with one.
    pub trace: Option<TraceContext>,
}

/// An event of the history with its body.
#[derive(Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct EventRecord {
    /// All except the body.
    pub summary: EventSummary,
    /// The event's JSON object; empty if the event is expunged. It is the body that endpoints got,
    /// except those with another [`BodyFormat`](webhooks_registry::BodyFormat):
    /// [`SentRequest`](super::SentRequest) has theirs.
    pub body: Bytes,
}

impl EventRecord {
    /// Returns the event, read from its body.
    ///
    /// # Errors
    /// The parser's error when the event is expunged, or its body was damaged.
    pub fn event(&self) -> Result<Event, serde_json::Error> {
        let mut event = Event::from_stored(&self.body, self.summary.tenant.clone())?;
        event.channels.clone_from(&self.summary.channels);
        event.tags.clone_from(&self.summary.tags);
        Ok(event)
    }
}

impl fmt::Debug for EventRecord {
    /// Leaves out the body, which is private to sender and receiver.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventRecord").field("summary", &self.summary).finish_non_exhaustive()
    }
}

/// A delivery of the history, in its present state.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct DeliveryRecord {
    /// The delivery.
    pub id: DeliveryId,
    /// Its event.
    pub event: EventId,
    /// The event's type.
    pub event_type: EventType,
    /// The event's tenant.
    pub tenant: TenantId,
    /// Its endpoint.
    pub endpoint: EndpointId,
    /// Its status.
    pub status: DeliveryStatus,
    /// The reason why it was cancelled, if it was. The reason why it failed is the error of its last
    /// attempt.
    pub cancelled: Option<CancelReason>,
    /// The number of attempts in all.
    pub attempts: u32,
    /// The number of attempts before it was last replayed, or tried by
    /// [`try_now`](crate::store::OperationStore::try_now).
    pub attempts_before_replay: u32,
    /// The time at which it came into being: with its event, or by a replay of missed events.
    pub created_at: Timestamp,
    /// The time from which it grows old: of acceptance or of the last replay; of a scheduled
    /// delivery, the time for which it is scheduled.
    pub queued_at: Timestamp,
    /// The time at which it is due, if it waits.
    pub due_at: Option<Timestamp>,
    /// Whether a worker has claimed it: an attempt may be under way.
    pub is_claimed: bool,
    /// The time at which it ended, if it did.
    pub ended_at: Option<Timestamp>,
    /// The last attempt, if one was recorded.
    pub last_attempt: Option<LastAttempt>,
}

/// The last attempt of a delivery, without the response.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct LastAttempt {
    /// The time at which it started.
    pub started_at: Timestamp,
    /// The time that it took.
    pub duration: Duration,
    /// The status code of the response, if there was one (RFC 9110 §15).
    pub status_code: Option<u16>,
    /// The kind of failure, if there was no response.
    pub error_class: Option<ErrorClass>,
    /// The reason why it failed, in a sentence.
    pub error: Option<String>,
}

impl From<&Attempt> for LastAttempt {
    fn from(attempt: &Attempt) -> Self {
        Self {
            started_at: attempt.started_at,
            duration: attempt.duration,
            status_code: attempt.status_code,
            error_class: attempt.error_class,
            error: attempt.error.clone(),
        }
    }
}

/// An attempt of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct AttemptRecord {
    /// The delivery.
    pub delivery: DeliveryId,
    /// Its event.
    pub event: EventId,
    /// The event's type.
    pub event_type: EventType,
    /// The event's tenant.
    pub tenant: TenantId,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The number of the attempt, from 1.
    pub number: u32,
    /// The attempt.
    pub attempt: Attempt,
}

/// A request to search the bodies of events, the newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "callers and tests build it")]
pub struct SearchRequest {
    /// The events to look at, and the size of the page.
    pub query: super::Query,
    /// The text that a body must have, byte for byte. JSON may write a character in several ways: a
    /// body has the one that its publisher chose.
    pub text: String,
    /// The largest number of bodies to look at, from 1 to 10,000: a search for a rare text ends then,
    /// and says how far it looked.
    pub max_looked: usize,
}

impl SearchRequest {
    /// The largest number of bodies that one search looks at.
    pub const MAX_LOOKED: usize = 10_000;

    /// Returns the number of bodies to look at, within the limits.
    pub fn looks(&self) -> usize {
        self.max_looked.clamp(1, Self::MAX_LOOKED)
    }
}

/// A part of the result of a search, the newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct SearchPage {
    /// The events whose bodies have the text.
    pub items: Vec<EventSummary>,
    /// The value of [`Query::after`](super::Query::after) with which the search goes on; `None` if all
    /// events were looked at.
    pub next: Option<Cursor>,
    /// The time at which the oldest event was accepted that was looked at; `None` if none was.
    pub looked_to: Option<Timestamp>,
}
