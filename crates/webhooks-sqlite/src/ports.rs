//! The ports that the engine calls, and those of operations: each call is a command to the writer, or a
//! look into memory.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use webhooks_core::{DeliveryId, TenantId, Timestamp};
use webhooks_dispatch::{
    Conflict, OperationError, Published,
    clock::Now,
    observer::WorkerReport,
    store::{
        ChangeListener, Claim, ClaimRequest, Claimed, DeliveryStore, ExpungeRequest, Expunged,
        OperationStore, PruneRequest, ReplayRequest, Replayed, Room, SerializedEvent, Settled,
        Settlement, StoreError, TryNow,
    },
};
use webhooks_registry::{
    EndpointKey, Registration,
    store::{
        EndpointPage, EndpointQuery, EndpointStore, EndpointStoreError, RegisterRequest,
        Registered, StateChange,
    },
};

use crate::SqliteStore;
use crate::command::Wakeup;
use crate::endpoints::{Register, SetState, Unregister};
use crate::expunge::{Expunge, ExpungeResponse};
use crate::operations::{Cancel, Hasten};
use crate::publish::Publish;
use crate::replay::Replaying;
use crate::retention::{self, Prune, PruneFound};
use crate::roll_up::RollUp;
use crate::settle::Settle;
use crate::try_now::TryingNow;

/// The number of small commands that one call of `prune` makes for each of its two works.
const MAX_PRUNES: usize = 20;

impl DeliveryStore for SqliteStore {
    async fn publish(
        &self,
        events: Vec<SerializedEvent>,
        now: Timestamp,
    ) -> Result<Vec<Result<Published, Conflict>>, StoreError> {
        self.write(Publish::new(events, now)).await?
    }

    /// Claims from memory: one process owns the file, so its claims may end with it.
    ///
    /// A claim that finds nothing returns an error of the writer's own work, one per call: a delivery
    /// that cannot be read and is passed over, or a backlog that cannot be read now.
    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, StoreError> {
        self.inner.check_open()?;
        let mut backlog = self.inner.backlog();
        let claimed = backlog.claim(&request);
        let is_low = backlog.is_low();
        drop(backlog);
        if is_low {
            // If the queue is full, nothing is lost: the writer refills after each group.
            let _full = self.commands.try_send(Box::new(Wakeup));
        }
        let error = if claimed.is_empty() { self.inner.deferred_errors.take() } else { None };
        error.map_or(Ok(claimed), Err)
    }

    async fn settle(
        &self,
        settlements: Vec<Settlement>,
        now: Timestamp,
    ) -> Result<Vec<Settled>, StoreError> {
        self.write(Settle::new(settlements, now)).await
    }

    async fn extend(
        &self,
        claims: Vec<Claim>,
        lease: Duration,
        now: Now,
    ) -> Result<Vec<Claim>, StoreError> {
        self.inner.check_open()?;
        let until = now.monotonic + lease;
        let mut backlog = self.inner.backlog();
        Ok(claims.into_iter().filter(|claim| !backlog.extend(*claim, until)).collect())
    }

    async fn next_due(&self, room: Room, now: Now) -> Result<Option<Duration>, StoreError> {
        self.inner.check_open()?;
        Ok(self.inner.backlog().next_due(&room, now))
    }

    async fn hasten(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut next = Some((None, None));
        while let Some(from) = next {
            next = self.write(Hasten::new(now, from)).await?;
        }
        Ok(())
    }

    async fn prune(&self, request: PruneRequest) -> Result<usize, StoreError> {
        let PruneRequest { tenant, before, limit, now } = request;
        if let Some(tenant) = tenant {
            return self.prune_tenant(tenant, before, limit, now).await;
        }
        self.roll_up(now).await?;
        let mut deleted = 0;
        // Other commands come in between. The next call goes on with the rest.
        for _ in 0..MAX_PRUNES {
            let pruned = self.write(Prune::new(before, limit - deleted)).await?;
            deleted += pruned.deleted;
            if !pruned.is_more || deleted >= limit {
                break;
            }
        }
        Ok(deleted)
    }

    async fn report(
        &self,
        worker: u64,
        report: Option<WorkerReport>,
        _now: Now,
    ) -> Result<(), StoreError> {
        let mut reports = self.inner.reports();
        match report {
            Some(report) => reports.insert(worker, report),
            None => reports.remove(&worker),
        };
        Ok(())
    }

    fn changes(&self) -> ChangeListener {
        self.inner.notifier.listen()
    }
}

impl SqliteStore {
    /// Deletes old events of a tenant. They are searched beside the writer, since many may still wait.
    async fn prune_tenant(
        &self,
        tenant: TenantId,
        before: Timestamp,
        limit: usize,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let find = move |connection: &Connection| {
            retention::old_of_tenant(connection, &tenant, before, limit, now)
        };
        let mut left = self.read_rows(find).await?;
        let mut deleted = 0;
        while !left.is_empty() {
            let pruned = self.write(PruneFound::new(left)).await?;
            deleted += pruned.deleted;
            left = pruned.left;
        }
        Ok(deleted)
    }

    /// Adds up old figures by the hour, in batches between which other commands come.
    async fn roll_up(&self, now: Timestamp) -> Result<(), StoreError> {
        for _ in 0..MAX_PRUNES {
            if !self.write(RollUp::new(now)).await? {
                break;
            }
        }
        Ok(())
    }
}

impl OperationStore for SqliteStore {
    async fn cancel(
        &self,
        deliveries: Vec<DeliveryId>,
        now: Timestamp,
    ) -> Result<Vec<Result<(), OperationError>>, StoreError> {
        self.write(Cancel::new(deliveries, now)).await
    }

    async fn replay(&self, request: ReplayRequest) -> Result<Replayed, OperationError> {
        self.write(Replaying::new(request)).await?
    }

    async fn try_now(
        &self,
        delivery: DeliveryId,
        now: Timestamp,
    ) -> Result<TryNow, OperationError> {
        self.write(TryingNow::new(delivery, now)).await?
    }

    async fn expunge(&self, request: ExpungeRequest) -> Result<Expunged, OperationError> {
        self.write(Expunge::new(request)).await?
    }

    async fn expunge_response(
        &self,
        delivery: DeliveryId,
        number: u32,
    ) -> Result<bool, StoreError> {
        self.write(ExpungeResponse::new(delivery, number)).await
    }
}

impl EndpointStore for SqliteStore {
    async fn register(&self, request: RegisterRequest) -> Result<Registered, EndpointStoreError> {
        self.write(Register::new(request)).await.map_err(of_endpoints)?
    }

    async fn unregister(
        &self,
        key: EndpointKey,
        now: Timestamp,
    ) -> Result<Arc<Registration>, EndpointStoreError> {
        self.write(Unregister::new(key, now)).await.map_err(of_endpoints)?
    }

    async fn set_state(
        &self,
        key: EndpointKey,
        change: StateChange,
        now: Timestamp,
    ) -> Result<Option<Arc<Registration>>, EndpointStoreError> {
        self.write(SetState::new(key, change, now)).await.map_err(of_endpoints)?
    }

    /// Fails, with the reason, for an endpoint whose row could not be read when the store was opened.
    async fn get(&self, key: EndpointKey) -> Result<Option<Arc<Registration>>, EndpointStoreError> {
        match self.inner.unreadable_error(&key) {
            Some(error) => Err(error),
            None => Ok(self.inner.registry.get_of(&key)),
        }
    }

    async fn list(&self, query: EndpointQuery) -> Result<EndpointPage, EndpointStoreError> {
        Ok(query.page_in(&self.inner.registry)?)
    }

    async fn count(&self, query: EndpointQuery, max: usize) -> Result<usize, EndpointStoreError> {
        Ok(query.count_in(&self.inner.registry, max))
    }
}

fn of_endpoints(error: StoreError) -> EndpointStoreError {
    EndpointStoreError::Unavailable { source: error.into() }
}
