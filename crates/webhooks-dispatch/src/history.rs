//! The port to what stores remember: for people and programs that look.
//!
//! Records have no wire form: which fields people see, and as what, is for whoever shows them to say.

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

/// Reads what a store remembers, the newest first, and makes it forget.
///
/// A page goes on where the one before ended, whatever was written in between: nothing comes
/// twice, and nothing that was there at the first page is passed over.
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

    /// Returns a delivery, whoever's it is.
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

    /// Counts the deliveries of an endpoint that were accepted since then.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    fn statistics(
        &self,
        endpoint: EndpointKey,
        since: Timestamp,
    ) -> impl Future<Output = Result<Statistics, StoreError>> + Send;

    /// Returns how many deliveries wait, for their first attempt or a retry, of all tenants: `limit` at
    /// most are counted.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    fn waiting(&self, limit: u64) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Forgets at most `limit` events accepted before a time, with their deliveries and attempts,
    /// unless a delivery of theirs still waits; returns how many.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    fn prune(
        &self,
        before: Timestamp,
        limit: usize,
    ) -> impl Future<Output = Result<usize, StoreError>> + Send;
}

/// Which events, deliveries or attempts to list. Everything, unless something is set.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "callers and tests build it")]
pub struct Query {
    /// Those of this tenant.
    pub tenant: Option<TenantId>,
    /// Those of the endpoints with this id, of any tenant unless one is named; events have none, and
    /// are then those that such an endpoint got.
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
    /// How many at most, from 1 to 1,000.
    pub limit: usize,
}

impl Query {
    /// How many entries a page has at most.
    pub const MAX_LIMIT: usize = 1_000;

    /// Returns the number of entries asked for, within the limits.
    pub fn page_size(&self) -> usize {
        self.limit.clamp(1, Self::MAX_LIMIT)
    }
}

impl Default for Query {
    /// Returns a wish for the newest hundred of everything.
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

/// Where a page ended. As text: `17-2`, for URLs and callers that keep it.
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
    /// The number of the last attempt; 0 for what has none.
    pub attempt: u32,
}

/// Says that a text is not where a page ended.
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
        // A number may be written in several ways; a cursor in one.
        if cursor.to_string() == text { Ok(cursor) } else { Err(CursorError) }
    }
}

/// A part of a list, the newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Where the next page starts; `None` after the last.
    pub next: Option<Cursor>,
}

/// An event as it was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct EventRecord {
    /// The event.
    pub event: Event,
    /// When it was accepted.
    pub accepted_at: Timestamp,
}

/// A delivery as it stands.
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
    /// Where it stands.
    pub status: DeliveryStatus,
    /// Why it was cancelled, if it was.
    pub cancelled: Option<CancelReason>,
    /// How many attempts were made.
    pub attempts: u32,
    /// When it was accepted, or last replayed.
    pub queued_at: Timestamp,
    /// When it is due, if it waits.
    pub due_at: Option<Timestamp>,
}

/// An attempt as it was kept.
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

/// How many deliveries of an endpoint stand where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct Statistics {
    /// Not tried yet.
    pub pending: u64,
    /// Taken by the endpoint.
    pub delivered: u64,
    /// Given up after their attempts.
    pub failed: u64,
    /// Waiting for a retry.
    pub retrying: u64,
    /// Given up for another reason.
    pub cancelled: u64,
    /// When the endpoint began to fail without a success since, if it does.
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
