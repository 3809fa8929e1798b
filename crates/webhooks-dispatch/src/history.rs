//! For operators: the history of a store, which applications read and implementors provide.
//!
//! Records have no wire form: an application selects the fields that it shows, and their format.

// In the order of reading.
mod query;

mod record;

mod ended;
mod feed;
mod sent_request;
mod trouble;

use webhooks_core::{DeliveryId, EventId, TenantId};

use crate::store::StoreError;

pub use self::ended::{EndedPage, EndedPlace, EndedRequest};
pub use self::feed::{FeedPage, FeedRequest};
pub use self::query::{Cursor, CursorError, Query};
pub use self::record::{
    AttemptRecord, DeliveryRecord, EventRecord, EventSummary, LastAttempt, Page, SearchPage,
    SearchRequest,
};
pub use self::sent_request::{SentRequest, SentRequestError};
pub use self::trouble::{Trouble, TroubleRequest};
pub use crate::response_record::Excerpt;
pub use crate::store::Attempt;

/// The history of a store, the newest entries first.
///
/// A page goes on where the one before ended, also if entries were added in between: no entry comes
/// twice, and none that was there at the first page is left out.
///
/// The engine calls none of these methods. A method that is added later has a default, which returns
/// [`StoreError::Unsupported`].
pub trait HistoryStore: Send + Sync + 'static {
    /// Returns an event of a tenant with its body.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    fn event(
        &self,
        tenant: TenantId,
        id: EventId,
    ) -> impl Future<Output = Result<Option<EventRecord>, StoreError>> + Send;

    /// Returns a page of events, without their bodies.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    fn events(
        &self,
        query: Query,
    ) -> impl Future<Output = Result<Page<EventSummary>, StoreError>> + Send;

    /// Returns the next events whose bodies have a text, the newest first.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails, or does not search.
    #[expect(unused_variables, reason = "a default refuses every call")]
    fn search(
        &self,
        request: SearchRequest,
    ) -> impl Future<Output = Result<SearchPage, StoreError>> + Send {
        std::future::ready(Err(StoreError::Unsupported { call: "search" }))
    }

    /// Returns the next events of a feed with their bodies, the oldest first.
    ///
    /// No event ever appears behind the place at which a page ended: a reader that goes on from there
    /// gets each event once, also if several processes publish at the same time. So an event of a
    /// transaction that is open holds back those that were accepted after it.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails, or has no feed.
    #[expect(unused_variables, reason = "a default refuses every call")]
    fn feed(
        &self,
        request: FeedRequest,
    ) -> impl Future<Output = Result<FeedPage, StoreError>> + Send {
        std::future::ready(Err(StoreError::Unsupported { call: "feed" }))
    }

    /// Returns the place from which a feed has only events that are accepted from now on.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails, or has no feed.
    fn feed_end(&self) -> impl Future<Output = Result<Cursor, StoreError>> + Send {
        std::future::ready(Err(StoreError::Unsupported { call: "feed_end" }))
    }

    /// Returns the next troubles of all tenants, the oldest first.
    ///
    /// It reads those alone that started since the time of the request, whatever the store has of before. An
    /// attempt is there once it is settled, which may be later than the start of others.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails, or does not list troubles.
    #[expect(unused_variables, reason = "a default refuses every call")]
    fn troubles(
        &self,
        request: TroubleRequest,
    ) -> impl Future<Output = Result<Vec<Trouble>, StoreError>> + Send {
        std::future::ready(Err(StoreError::Unsupported { call: "troubles" }))
    }

    /// Returns the next attempts of a tenant that ended behind a place, in the order of their ends.
    ///
    /// It reads no more than a bounded number of records, whatever the store has of before or of other tenants. An
    /// attempt is there once it is settled, which may be later than the end of others.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails, or does not list attempts in this order.
    #[expect(unused_variables, reason = "a default refuses every call")]
    fn ended_attempts(
        &self,
        request: EndedRequest,
    ) -> impl Future<Output = Result<EndedPage, StoreError>> + Send {
        std::future::ready(Err(StoreError::Unsupported { call: "ended_attempts" }))
    }

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

    /// Returns an attempt of a delivery of any tenant; attempts are numbered from 1.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    fn attempt(
        &self,
        delivery: DeliveryId,
        number: u32,
    ) -> impl Future<Output = Result<Option<AttemptRecord>, StoreError>> + Send {
        // Attempts come the newest first, so this one is the first behind the next number.
        let after = Cursor { key: delivery.as_u64(), attempt: number.saturating_add(1) };
        let query =
            Query { delivery: Some(delivery), after: Some(after), limit: 1, ..Query::default() };
        async move {
            let found = self.attempts(query).await?.items.pop();
            Ok(found.filter(|found| found.number == number))
        }
    }
}
