//! The store: each call is a command to the writer, a look into memory, or a read.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};
use webhooks_core::{DeliveryId, EndpointId, TenantId, Timestamp};
use webhooks_dispatch::{
    Conflict, OperationError, Published,
    clock::Now,
    store::{
        ChangeListener, Claim, ClaimRequest, Claimed, DeliveryStore, ReplayRequest, Replayed,
        SerializedEvent, Settled, Settlement, StoreError,
    },
};
use webhooks_registry::{
    Endpoint, EndpointKey, EndpointNumber, Registration,
    store::{EndpointStore, EndpointStoreError, Registered, StateChange},
};

use crate::checkpoint::Checkpoint;
use crate::command::{BoxedCommand, Command, Wakeup, WriteCommand};
use crate::endpoints::{Register, SetState, Unregister};
use crate::error::{Closed, Panicked, unavailable};
use crate::inner::SqliteInner;
use crate::operations::{Cancel, Hasten};
use crate::publish::Publish;
use crate::replay::Replaying;
use crate::settle::Settle;

/// A store of endpoints, events and deliveries in one SQLite file, which one process owns.
///
/// One thread writes, and commits all waiting commands at once. An answer means that the change is on
/// disk. Cloning is cheap; all clones are one store. The store ends, and frees its file, when the last
/// clone is dropped, or with [`close`](Self::close).
///
/// # Example
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use webhooks_dispatch::{Engine, FnTransport};
/// use webhooks_sqlite::SqliteStore;
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("webhooks.db");
/// let store = SqliteStore::open(path).await?;
/// let engine = Engine::new(store, FnTransport::new(|_, _, _, _| async { (200, "") }));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SqliteStore {
    pub(crate) inner: Arc<SqliteInner>,
    pub(crate) commands: mpsc::Sender<BoxedCommand>,
}

impl SqliteStore {
    /// Sends a command to the writer, and returns its answer.
    pub(crate) async fn write<W: WriteCommand>(&self, write: W) -> Result<W::Answer, StoreError> {
        let (reply, answer) = oneshot::channel();
        let command: BoxedCommand = Box::new(Command::new(write, reply));
        if self.commands.send(command).await.is_err() {
            self.inner.check_open()?;
            // The writer takes no more commands, and is about to end.
            return Err(unavailable(Closed));
        }
        // The writer answers every command that it took, unless it panics.
        answer.await.map_err(|_gone| unavailable(Panicked))?
    }

    /// Reads on a connection that only reads. A read fails after 30 s, and ends when its caller is gone.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let readers = &self.inner.readers;
        // The exclusive turn has all permits, so it must end before this read waits for its own.
        if let Some(_exclusive) = readers.exclusive_turn().await? {
            self.write(Checkpoint).await?;
        }
        let turn = readers.turn().await?;
        Arc::clone(readers).read(turn, read).await
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.inner.path).finish_non_exhaustive()
    }
}

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

    async fn next_due(
        &self,
        busy: Arc<BTreeSet<EndpointNumber>>,
        now: Now,
    ) -> Result<Option<Duration>, StoreError> {
        self.inner.check_open()?;
        Ok(self.inner.backlog().next_due(&busy, now))
    }

    async fn hasten(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut next = Some((None, None));
        while let Some(from) = next {
            next = self.write(Hasten::new(now, from)).await?;
        }
        Ok(())
    }

    async fn cancel(&self, delivery: DeliveryId, _now: Timestamp) -> Result<(), OperationError> {
        self.write(Cancel::new(delivery)).await?
    }

    async fn replay(&self, request: ReplayRequest) -> Result<Replayed, OperationError> {
        self.write(Replaying::new(request)).await?
    }

    fn changes(&self) -> ChangeListener {
        self.inner.notifier.listen()
    }
}

impl EndpointStore for SqliteStore {
    async fn register(
        &self,
        id: EndpointId,
        endpoint: Endpoint,
    ) -> Result<Registered, EndpointStoreError> {
        let registration = Registration::new(EndpointNumber::default(), id, endpoint);
        self.write(Register::new(registration)).await.map_err(of_endpoints)?
    }

    async fn unregister(&self, key: EndpointKey) -> Result<Arc<Registration>, EndpointStoreError> {
        self.write(Unregister::new(key)).await.map_err(of_endpoints)?
    }

    async fn set_state(
        &self,
        key: EndpointKey,
        change: StateChange,
    ) -> Result<Option<Arc<Registration>>, EndpointStoreError> {
        self.write(SetState::new(key, change)).await.map_err(of_endpoints)?
    }

    /// Fails, with the reason, for an endpoint whose row could not be read when the store was opened.
    async fn get(&self, key: EndpointKey) -> Result<Option<Arc<Registration>>, EndpointStoreError> {
        match self.inner.unreadable_error(&key) {
            Some(error) => Err(error),
            None => Ok(self.inner.registry.get_of(&key)),
        }
    }

    async fn list(
        &self,
        tenant: Option<TenantId>,
        after: Option<EndpointKey>,
        limit: usize,
    ) -> Result<Vec<Arc<Registration>>, EndpointStoreError> {
        Ok(self.inner.registry.page(tenant.as_ref(), after.as_ref(), limit))
    }
}

fn of_endpoints(error: StoreError) -> EndpointStoreError {
    EndpointStoreError::Unavailable { source: error.into() }
}
