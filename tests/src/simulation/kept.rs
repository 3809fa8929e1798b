//! The stores of runs, as one type.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use webhooks_core::{DeliveryId, EndpointId, EventId, TenantId, Timestamp};
use webhooks_dispatch::{
    Conflict, MemoryStore, OperationError, Published,
    clock::Now,
    history::{AttemptRecord, DeliveryRecord, EventRecord, HistoryStore, Page, Query, Statistics},
    store::{
        ChangeListener, Claim, ClaimRequest, Claimed, DeliveryStore, ReplayRequest, Replayed,
        SerializedEvent, Settled, Settlement, StoreError,
    },
};
use webhooks_registry::{
    Endpoint, EndpointKey, EndpointNumber, Registration,
    store::{EndpointStore, EndpointStoreError, Registered, StateChange},
};
use webhooks_sqlite::SqliteStore;

/// A store.
#[derive(Debug, Clone)]
pub(super) enum Kept {
    Memory(MemoryStore),
    Sqlite(SqliteStore),
}

/// Calls a method of whichever store there is.
macro_rules! of_either {
    ($kept:expr, $store:ident => $call:expr) => {
        match $kept {
            Kept::Memory($store) => $call.await,
            Kept::Sqlite($store) => $call.await,
        }
    };
}

impl Kept {
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
    pub(super) async fn all_events(&self) -> Result<Vec<EventRecord>, StoreError> {
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

impl DeliveryStore for Kept {
    async fn publish(
        &self,
        events: Vec<SerializedEvent>,
        now: Timestamp,
    ) -> Result<Vec<Result<Published, Conflict>>, StoreError> {
        of_either!(self, store => store.publish(events, now))
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, StoreError> {
        of_either!(self, store => store.claim(request))
    }

    async fn settle(
        &self,
        settlements: Vec<Settlement>,
        now: Timestamp,
    ) -> Result<Vec<Settled>, StoreError> {
        of_either!(self, store => store.settle(settlements, now))
    }

    async fn extend(
        &self,
        claims: Vec<Claim>,
        lease: Duration,
        now: Now,
    ) -> Result<Vec<Claim>, StoreError> {
        of_either!(self, store => store.extend(claims, lease, now))
    }

    async fn next_due(
        &self,
        busy: Arc<BTreeSet<EndpointNumber>>,
        now: Now,
    ) -> Result<Option<Duration>, StoreError> {
        of_either!(self, store => store.next_due(busy, now))
    }

    async fn hasten(&self, now: Timestamp) -> Result<(), StoreError> {
        of_either!(self, store => store.hasten(now))
    }

    async fn cancel(&self, delivery: DeliveryId, now: Timestamp) -> Result<(), OperationError> {
        of_either!(self, store => store.cancel(delivery, now))
    }

    async fn replay(&self, request: ReplayRequest) -> Result<Replayed, OperationError> {
        of_either!(self, store => store.replay(request))
    }

    fn changes(&self) -> ChangeListener {
        match self {
            Self::Memory(store) => store.changes(),
            Self::Sqlite(store) => store.changes(),
        }
    }
}

impl EndpointStore for Kept {
    async fn register(
        &self,
        id: EndpointId,
        endpoint: Endpoint,
    ) -> Result<Registered, EndpointStoreError> {
        of_either!(self, store => store.register(id, endpoint))
    }

    async fn unregister(&self, key: EndpointKey) -> Result<Arc<Registration>, EndpointStoreError> {
        of_either!(self, store => store.unregister(key))
    }

    async fn set_state(
        &self,
        key: EndpointKey,
        change: StateChange,
    ) -> Result<Option<Arc<Registration>>, EndpointStoreError> {
        of_either!(self, store => store.set_state(key, change))
    }

    async fn get(&self, key: EndpointKey) -> Result<Option<Arc<Registration>>, EndpointStoreError> {
        of_either!(self, store => store.get(key))
    }

    async fn list(
        &self,
        tenant: Option<TenantId>,
        after: Option<EndpointKey>,
        limit: usize,
    ) -> Result<Vec<Arc<Registration>>, EndpointStoreError> {
        of_either!(self, store => store.list(tenant, after, limit))
    }
}

impl HistoryStore for Kept {
    async fn event(
        &self,
        tenant: TenantId,
        id: EventId,
    ) -> Result<Option<EventRecord>, StoreError> {
        of_either!(self, store => store.event(tenant, id))
    }

    async fn events(&self, query: Query) -> Result<Page<EventRecord>, StoreError> {
        of_either!(self, store => store.events(query))
    }

    async fn deliveries(&self, query: Query) -> Result<Page<DeliveryRecord>, StoreError> {
        of_either!(self, store => store.deliveries(query))
    }

    async fn attempts(&self, query: Query) -> Result<Page<AttemptRecord>, StoreError> {
        of_either!(self, store => store.attempts(query))
    }

    async fn statistics(
        &self,
        endpoint: EndpointKey,
        since: Timestamp,
    ) -> Result<Statistics, StoreError> {
        of_either!(self, store => store.statistics(endpoint, since))
    }

    async fn waiting(&self, limit: u64) -> Result<u64, StoreError> {
        of_either!(self, store => store.waiting(limit))
    }

    async fn prune(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        of_either!(self, store => store.prune(before, limit))
    }
}
