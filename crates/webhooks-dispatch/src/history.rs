//! For operators: the history of a store, which applications read and implementors provide.
//!
//! Records have no wire form: an application selects the fields that it shows, and their format.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use webhooks_core::{
    DeliveryId, DeliveryStatus, EndpointId, Event, EventId, EventType, TenantId, Timestamp,
};
use webhooks_registry::{EndpointKey, Subscription};

use crate::store::{CancelReason, StoreError};

pub use crate::response_record::Excerpt;
pub use crate::store::Attempt;

/// The history of a store, the newest entries first, and a way to forget old ones.
///
/// A page goes on where the one before ended, also if entries were added in between: no entry comes
/// twice, and none that was there at the first page is left out.
pub trait HistoryStore: Send + Sync + 'static {
    /// Returns an event of a tenant.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    fn event(
        &self,
        tenant: TenantId,
        id: EventId,
    ) -> impl Future<Output = Result<Option<EventRecord>, StoreError>> + Send;

    /// Returns a page of events.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    fn events(
        &self,
        query: Query,
    ) -> impl Future<Output = Result<Page<EventRecord>, StoreError>> + Send;

    /// Returns a page of deliveries.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    fn deliveries(
        &self,
        query: Query,
    ) -> impl Future<Output = Result<Page<DeliveryRecord>, StoreError>> + Send;

    /// Returns a delivery of any tenant.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    fn delivery(
        &self,
        id: DeliveryId,
    ) -> impl Future<Output = Result<Option<DeliveryRecord>, StoreError>> + Send {
        let query = Query { delivery: Some(id), limit: 1, ..Query::default() };
        async move { Ok(self.deliveries(query).await?.items.pop()) }
    }

    /// Returns a page of attempts.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    fn attempts(
        &self,
        query: Query,
    ) -> impl Future<Output = Result<Page<AttemptRecord>, StoreError>> + Send;

    /// Counts the deliveries of an endpoint that were accepted or last replayed at `since` or
    /// later.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    fn statistics(
        &self,
        endpoint: EndpointKey,
        since: Timestamp,
    ) -> impl Future<Output = Result<Statistics, StoreError>> + Send;

    /// Returns the number of deliveries of all tenants that wait for their first attempt or a
    /// retry; at most `limit` are counted.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    fn waiting(&self, limit: u64) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Forgets at most `limit` events that were accepted before `before`, with their deliveries and
    /// attempts, unless one of their deliveries still waits; returns the number of events.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    fn prune(
        &self,
        before: Timestamp,
        limit: usize,
    ) -> impl Future<Output = Result<usize, StoreError>> + Send;
}

/// The events, deliveries or attempts to list: all of them, unless a field is set.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "callers and tests build it")]
pub struct Query {
    /// Those of this tenant.
    pub tenant: Option<TenantId>,
    /// Those of the endpoints with this id, of any tenant unless one is named. In a list of events,
    /// those that such an endpoint has a delivery of.
    pub endpoint: Option<EndpointId>,
    /// Those of this event.
    pub event: Option<EventId>,
    /// Those of this delivery.
    pub delivery: Option<DeliveryId>,
    /// Those whose delivery has this status.
    pub status: Option<DeliveryStatus>,
    /// Those whose event type matches.
    pub event_type: Option<Subscription>,
    /// Those whose event was accepted at this time or later.
    pub since: Option<Timestamp>,
    /// Those whose event was accepted before this time.
    pub until: Option<Timestamp>,
    /// Those after the page that ended with this.
    pub after: Option<Cursor>,
    /// The largest number of entries, from 1 to 1,000.
    pub limit: usize,
}

impl Query {
    /// The largest number of entries of a page.
    pub const MAX_LIMIT: usize = 1_000;

    /// Returns the number of entries asked for, within the limits.
    pub fn page_size(&self) -> usize {
        self.limit.clamp(1, Self::MAX_LIMIT)
    }
}

impl Default for Query {
    /// Returns a query for the newest hundred of all.
    fn default() -> Self {
        Self {
            tenant: None,
            endpoint: None,
            event: None,
            delivery: None,
            status: None,
            event_type: None,
            since: None,
            until: None,
            after: None,
            limit: 100,
        }
    }
}

/// The place at which a page ended. As text: `17-2`, for URLs and callers that store it.
///
/// # Example
/// ```
/// use webhooks_dispatch::history::Cursor;
///
/// let cursor = Cursor { key: 17, attempt: 2 };
/// assert_eq!(cursor.to_string(), "17-2");
/// assert_eq!("17-2".parse::<Cursor>()?, cursor);
/// # Ok::<(), webhooks_dispatch::history::CursorError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct Cursor {
    /// The number of the last event or delivery.
    pub key: u64,
    /// The number of the last attempt; zero if the page is not of attempts.
    pub attempt: u32,
}

/// An error: a text is no cursor of a page.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("this is no cursor of a page; write it like 17-2")]
#[non_exhaustive]
pub struct CursorError;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.key, self.attempt)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (key, attempt) = text.split_once('-').ok_or(CursorError)?;
        let key = key.parse().map_err(|_not_a_number| CursorError)?;
        let attempt = attempt.parse().map_err(|_not_a_number| CursorError)?;
        let cursor = Self { key, attempt };
        // A number can be written in several ways; a cursor has one text.
        if cursor.to_string() == text { Ok(cursor) } else { Err(CursorError) }
    }
}

/// A part of a list, the newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// The value of [`Query::after`] for the next page; `None` after the last.
    pub next: Option<Cursor>,
}

/// An event of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct EventRecord {
    /// The event.
    pub event: Event,
    /// The time at which it was accepted.
    pub accepted_at: Timestamp,
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
    /// The reason why it was cancelled, if it was.
    pub cancelled: Option<CancelReason>,
    /// The number of attempts.
    pub attempts: u32,
    /// The time at which it was accepted, or last replayed.
    pub queued_at: Timestamp,
    /// The time at which it is due, if it waits.
    pub due_at: Option<Timestamp>,
}

/// An attempt of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct AttemptRecord {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The number of the attempt, from 1.
    pub number: u32,
    /// The attempt.
    pub attempt: Attempt,
}

/// The numbers of an endpoint's deliveries by status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct Statistics {
    /// Deliveries without an attempt yet.
    pub pending: u64,
    /// Deliveries that the endpoint took.
    pub delivered: u64,
    /// Deliveries that failed: no retry is left, or none would help.
    pub failed: u64,
    /// Deliveries that wait for a retry.
    pub retrying: u64,
    /// Deliveries that were cancelled.
    pub cancelled: u64,
    /// The time of the first failure since the endpoint's last success, if it is failing.
    pub failing_since: Option<Timestamp>,
}

impl Statistics {
    /// Counts deliveries of a status.
    pub fn count(&mut self, status: DeliveryStatus, deliveries: u64) {
        match status {
            DeliveryStatus::Pending => self.pending += deliveries,
            DeliveryStatus::Delivered => self.delivered += deliveries,
            DeliveryStatus::Failed => self.failed += deliveries,
            DeliveryStatus::Retrying => self.retrying += deliveries,
            DeliveryStatus::Cancelled => self.cancelled += deliveries,
            // A status that is not counted yet.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_from_its_text_alone() {
        let last = Cursor { key: u64::MAX, attempt: u32::MAX };
        for cursor in [Cursor { key: 0, attempt: 0 }, last] {
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for text in [
            "",
            "-",
            "17",
            "17-",
            "-2",
            "17-2-3",
            "17--2",
            "a-2",
            "17-4294967296",
            "+17-2",
            "17-+2",
            "017-2",
            "17-02",
            " 17-2",
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(CursorError), "{text:?}");
        }
    }
}
