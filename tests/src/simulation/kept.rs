//! The stores of runs, as one type.

use webhooks_dispatch::{
    BoxedStore, MemoryStore, forward_store,
    history::{DeliveryRecord, EventSummary, HistoryStore as _, Query},
    store::StoreError,
};
use webhooks_sqlite::SqliteStore;

/// A store.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    inner: BoxedStore,
    /// Whether it is the one in memory, which has no bound.
    pub(super) is_memory: bool,
}

impl Kept {
    pub(super) fn memory(store: MemoryStore) -> Self {
        Self { inner: BoxedStore::new(store), is_memory: true }
    }

    pub(super) fn sqlite(store: SqliteStore) -> Self {
        Self { inner: BoxedStore::new(store), is_memory: false }
    }

    /// Returns all deliveries that match.
    pub(super) async fn all(&self, mut query: Query) -> Result<Vec<DeliveryRecord>, StoreError> {
        query.limit = Query::MAX_LIMIT;
        let mut all = Vec::new();
        loop {
            let page = self.deliveries(query.clone()).await?;
            all.extend(page.items);
            query.after = page.next;
            if query.after.is_none() {
                return Ok(all);
            }
        }
    }

    /// Returns all events.
    pub(super) async fn all_events(&self) -> Result<Vec<EventSummary>, StoreError> {
        let mut query = Query { limit: Query::MAX_LIMIT, ..Query::default() };
        let mut all = Vec::new();
        loop {
            let page = self.events(query.clone()).await?;
            all.extend(page.items);
            query.after = page.next;
            if query.after.is_none() {
                return Ok(all);
            }
        }
    }
}

forward_store!(
    Kept => inner:
    DeliveryStore, EndpointStore, OperationStore, HistoryStore, MonitorStore, JobStore
);
