//! The store: its tasks, and its ports.
//!
//! The methods of the ports are in the files above. `publish`, `claim`, `settle`, `replay`, `try_now`
//! and `expunge` are in the files of their names, `extend` is in `settle`, `next_due` in `claim`,
//! `prune` in `retention`, and `hasten` and `cancel` are in `operations`. Those of `EndpointStore`
//! are in `endpoints` and `endpoint_list`, and those of `HistoryStore`, `MonitorStore` and
//! `JobStore` in `history`, `monitor` and `jobs`.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use webhooks_core::{DeliveryId, EventId, TenantId, Timestamp};
use webhooks_dispatch::{
    Conflict, OperationError, Published,
    clock::Now,
    figures::{FiguresQuery, FiguresRow},
    history::{
        AttemptRecord, Cursor, DeliveryRecord, EndedPage, EndedRequest, EventRecord, EventSummary,
        FeedPage, FeedRequest, HistoryStore, Page, Query, SearchPage, SearchRequest, Trouble,
        TroubleRequest,
    },
    jobs::{
        Job, JobAdvance, JobChange, JobError, JobId, JobQuery, JobState, JobStore, LeasedJob,
        NewJob,
    },
    monitor::{EndpointHealth, MonitorStore, QueueDepth, Statistics, StoreActivity},
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

use crate::call::with_retries;
use crate::error::{UnreadableEndpoint, store_error};
use crate::publish::{PublishRequest, Publisher};
use crate::state::PostgresInner;
use crate::tasks::{self, lasting};

/// A store of endpoints, events and deliveries in a PostgreSQL database that any number of
/// processes share.
///
/// An answer `Ok` means that the change is committed. Cheap to clone; all clones are one store, and
/// one worker among those of other processes. Open it in the tokio runtime that it is used in.
/// Dropping the last clone ends it; [`close`](Self::close) also releases the deliveries that were
/// claimed for this process and that no worker has taken yet, and notifies the other workers.
///
/// # Example
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use webhooks_dispatch::{Engine, FnTransport};
/// use webhooks_postgres::PostgresStore;
///
/// let store = PostgresStore::open("postgres://shop@db.internal/shop").await?;
/// let engine = Engine::new(store, FnTransport::new(|_, _, _, _| async { (200, "") }));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PostgresStore {
    inner: Arc<PostgresInner>,
    unreadable: Arc<[UnreadableEndpoint]>,
    publish_requests: mpsc::Sender<PublishRequest>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl PostgresStore {
    /// Starts the tasks of a store. `listen_pool` makes the pool of the connection to listen on.
    pub(crate) fn start(
        inner: PostgresInner,
        listen_pool: impl Fn() -> PgPool + Send + Sync + 'static,
        unreadable: Vec<UnreadableEndpoint>,
    ) -> Self {
        let inner = Arc::new(inner);
        let (publisher, sender) = Publisher::new(Arc::clone(&inner));
        let mut tasks = JoinSet::new();
        tasks.spawn(publisher.run());
        let of = |inner: &Arc<PostgresInner>| Arc::clone(inner);
        let (listening, beating, releasing) = (of(&inner), of(&inner), of(&inner));
        let listen_pool = Arc::new(listen_pool);
        tasks.spawn(lasting(move || tasks::listen(of(&listening), Arc::clone(&listen_pool))));
        tasks.spawn(lasting(move || tasks::beat(of(&beating))));
        tasks.spawn(lasting(move || tasks::release_stale(of(&releasing))));
        let tasks = Arc::new(Mutex::new(tasks));
        Self { inner, unreadable: unreadable.into(), publish_requests: sender, tasks }
    }

    /// Returns the endpoints that could not be read when the store was opened, at most the first
    /// hundred, and the reasons.
    ///
    /// This process delivers nothing to such an endpoint, and lists leave it out. Its deliveries go
    /// on when a process with the right key claims them, or when the endpoint is registered again;
    /// [`unregister`](EndpointStore::unregister) removes it.
    #[must_use]
    pub fn unreadable(&self) -> &[UnreadableEndpoint] {
        &self.unreadable
    }

    /// Returns the store's pool of connections, for rows of the application in the same database: its
    /// own tables, those of `PostgresSeenStore` of webhooks-receive, and events with
    /// [`publish_in`](crate::publish_in) in the transaction that changes these rows.
    ///
    /// The store publishes, claims and settles over the same connections. A transaction holds one of
    /// them until it ends. Deliveries wait behind long transactions, or many at once. For these, open
    /// a pool of your own; [`publish_in`](crate::publish_in) takes any connection.
    /// [`close`](Self::close) closes this pool.
    ///
    /// The sessions have the settings of the store: a statement may take 15 s
    /// ([`PostgresOptions::statement_timeout`](crate::PostgresOptions::statement_timeout)), and
    /// transactions are read committed. Behind a pooler they have no settings of their own.
    ///
    /// # Example
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use webhooks_core::Event;
    /// use webhooks_postgres::{PostgresStore, publish_in};
    ///
    /// let store = PostgresStore::open("postgres://shop@db.internal/shop").await?;
    /// let mut transaction = store.pool().begin().await?;
    /// sqlx::query("INSERT INTO orders (id) VALUES (17)").execute(&mut *transaction).await?;
    /// publish_in(&mut transaction, &Event::new("order.placed", 17)?).await?;
    /// transaction.commit().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.inner.database.pool
    }

    /// Closes all connections. Before that, the worker of this process leaves the others, as one
    /// that is shut down does. Other clones of this store, such as an engine's, are closed with it:
    /// all their later calls fail.
    pub async fn close(self) {
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        self.inner.stop_preclaiming().await;
        self.inner.leave().await;
        self.inner.database.close().await;
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("worker", &self.inner.membership.id)
            .finish_non_exhaustive()
    }
}

impl DeliveryStore for PostgresStore {
    async fn publish(
        &self,
        events: Vec<SerializedEvent>,
        now: Timestamp,
    ) -> Result<Vec<Result<Published, Conflict>>, StoreError> {
        PublishRequest::send(&self.publish_requests, events, now).await
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, StoreError> {
        self.inner.claim(request).await
    }

    /// # Cancellation
    /// A dropped future may or may not have settled.
    async fn settle(
        &self,
        settlements: Vec<Settlement>,
        now: Timestamp,
    ) -> Result<Vec<Settled>, StoreError> {
        self.inner.membership.record_work();
        self.inner.settle(settlements, now).await
    }

    async fn extend(
        &self,
        claims: Vec<Claim>,
        lease: Duration,
        now: Now,
    ) -> Result<Vec<Claim>, StoreError> {
        self.inner.membership.record_work();
        self.inner.extend(claims, lease, now).await
    }

    async fn next_due(&self, room: Room, now: Now) -> Result<Option<Duration>, StoreError> {
        with_retries(|| self.inner.next_due(&room, now)).await.map_err(store_error)
    }

    async fn hasten(&self, now: Timestamp) -> Result<(), StoreError> {
        Box::pin(self.inner.hasten(now)).await.map_err(store_error)
    }

    /// For all tenants, whole partitions are dropped, of a day each unless set otherwise. An event
    /// goes when its partition has ended before that time, and stays as long as a delivery of that
    /// partition waits. For one tenant, events are deleted one by one; each call looks at a bounded
    /// number of events of all tenants.
    async fn prune(&self, request: PruneRequest) -> Result<usize, StoreError> {
        self.inner.prune(request).await
    }

    /// The database's clock tells which reports are old, and not `now`.
    async fn report(
        &self,
        worker: u64,
        report: Option<WorkerReport>,
        _now: Now,
    ) -> Result<(), StoreError> {
        self.inner.report(worker, report).await
    }

    async fn refresh(&self) {
        self.inner.known_due().forget();
    }

    async fn release_preclaimed(&self) -> usize {
        let count = self.inner.stop_preclaiming().await;
        // Another worker of this process joins again with its next claim.
        self.inner.membership.end();
        self.inner.leave_if_ended().await;
        count
    }

    fn changes(&self) -> ChangeListener {
        self.inner.notifier.listen()
    }
}

impl OperationStore for PostgresStore {
    async fn cancel(
        &self,
        deliveries: Vec<DeliveryId>,
        now: Timestamp,
    ) -> Result<Vec<Result<(), OperationError>>, StoreError> {
        self.inner.cancel(&deliveries, now).await
    }

    async fn replay(&self, request: ReplayRequest) -> Result<Replayed, OperationError> {
        self.inner.replay(request).await
    }

    async fn try_now(
        &self,
        delivery: DeliveryId,
        now: Timestamp,
    ) -> Result<TryNow, OperationError> {
        self.inner.try_now(delivery, now).await
    }

    async fn expunge(&self, request: ExpungeRequest) -> Result<Expunged, OperationError> {
        self.inner.expunge(request).await
    }

    async fn expunge_response(
        &self,
        delivery: DeliveryId,
        number: u32,
    ) -> Result<bool, StoreError> {
        let expunge = Box::pin(with_retries(|| self.inner.expunge_response(delivery, number)));
        expunge.await.map_err(store_error)
    }
}

impl EndpointStore for PostgresStore {
    async fn register(&self, request: RegisterRequest) -> Result<Registered, EndpointStoreError> {
        self.inner.register(request).await
    }

    /// An endpoint that cannot be read is removed as well. The result is then a stand-in with its
    /// id, tenant and state, and the URL `https://unreadable.invalid/`.
    async fn unregister(
        &self,
        key: EndpointKey,
        now: Timestamp,
    ) -> Result<Arc<Registration>, EndpointStoreError> {
        self.inner.unregister(key, now).await
    }

    async fn set_state(
        &self,
        key: EndpointKey,
        change: StateChange,
        now: Timestamp,
    ) -> Result<Option<Arc<Registration>>, EndpointStoreError> {
        self.inner.set_state(key, change, now).await
    }

    async fn get(&self, key: EndpointKey) -> Result<Option<Arc<Registration>>, EndpointStoreError> {
        self.inner.endpoint(key).await
    }

    async fn list(&self, query: EndpointQuery) -> Result<EndpointPage, EndpointStoreError> {
        self.inner.endpoints(&query).await
    }

    async fn count(&self, query: EndpointQuery, max: usize) -> Result<usize, EndpointStoreError> {
        self.inner.count_endpoints(&query, max).await
    }
}

impl HistoryStore for PostgresStore {
    async fn event(
        &self,
        tenant: TenantId,
        id: EventId,
    ) -> Result<Option<EventRecord>, StoreError> {
        self.inner.event(tenant, id).await
    }

    async fn events(&self, query: Query) -> Result<Page<EventSummary>, StoreError> {
        self.inner.events(query).await
    }

    async fn search(&self, request: SearchRequest) -> Result<SearchPage, StoreError> {
        self.inner.search(request).await
    }

    async fn feed(&self, request: FeedRequest) -> Result<FeedPage, StoreError> {
        self.inner.feed(request).await
    }

    async fn feed_end(&self) -> Result<Cursor, StoreError> {
        self.inner.feed_end().await
    }

    async fn troubles(&self, request: TroubleRequest) -> Result<Vec<Trouble>, StoreError> {
        self.inner.troubles(request).await
    }

    async fn ended_attempts(&self, request: EndedRequest) -> Result<EndedPage, StoreError> {
        self.inner.ended_attempts(request).await
    }

    async fn deliveries(&self, query: Query) -> Result<Page<DeliveryRecord>, StoreError> {
        self.inner.deliveries(query).await
    }

    async fn attempts(&self, query: Query) -> Result<Page<AttemptRecord>, StoreError> {
        self.inner.attempts(query).await
    }
}

impl MonitorStore for PostgresStore {
    async fn ping(&self) -> Result<(), StoreError> {
        self.inner.ping().await
    }

    async fn waiting(&self, limit: u64) -> Result<u64, StoreError> {
        self.inner.waiting(limit).await
    }

    async fn statistics(
        &self,
        endpoint: EndpointKey,
        since: Timestamp,
    ) -> Result<Statistics, StoreError> {
        self.inner.statistics(endpoint, since).await
    }

    async fn depth(&self, tenant: Option<TenantId>, max: u64) -> Result<QueueDepth, StoreError> {
        self.inner.depth(tenant, max).await
    }

    async fn health(
        &self,
        endpoints: Vec<EndpointKey>,
        max: u64,
    ) -> Result<Vec<EndpointHealth>, StoreError> {
        self.inner.health(endpoints, max).await
    }

    async fn workers(&self) -> Result<Vec<WorkerReport>, StoreError> {
        self.inner.workers().await
    }

    async fn figures(&self, query: FiguresQuery) -> Result<Vec<FiguresRow>, StoreError> {
        self.inner.figures(query).await
    }

    async fn activity(&self) -> Result<StoreActivity, StoreError> {
        Ok(self.inner.database.activity())
    }
}

impl JobStore for PostgresStore {
    async fn create_job(&self, job: NewJob, now: Timestamp) -> Result<Job, StoreError> {
        self.inner.create_job(job, now).await
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.inner.job(id).await
    }

    async fn jobs(&self, query: JobQuery) -> Result<Vec<Job>, StoreError> {
        self.inner.jobs(query).await
    }

    async fn change_job(
        &self,
        id: JobId,
        change: JobChange,
        now: Timestamp,
    ) -> Result<Job, JobError> {
        self.inner.change_job(id, change, now).await
    }

    async fn lease_job(&self, lease: Duration, now: Now) -> Result<Option<LeasedJob>, StoreError> {
        self.inner.lease_job(lease, now).await
    }

    async fn advance_job(
        &self,
        advance: JobAdvance,
        lease: Duration,
        now: Now,
    ) -> Result<Option<JobState>, StoreError> {
        self.inner.advance_job(advance, lease, now).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;
    use webhooks_dispatch::{
        clock::{Clock as _, SystemClock},
        store::Outcome,
    };

    use super::*;
    use crate::PostgresOptions;
    use crate::membership::IDLE_TIMEOUT;

    /// Goal: a worker without room for more stays one as long as it works. Method: it claims once,
    /// and then only settles and extends, each a little before it would count as idle.
    #[tokio::test(start_paused = true)]
    async fn a_worker_that_only_settles_or_extends_stays_one() {
        // Nothing listens there.
        let options = PostgresOptions::new("postgres://nobody@127.0.0.1:1/none").unwrap();
        let store = options.start(Vec::new());
        let (membership, database) = (&store.inner.membership, &store.inner.database);
        let now = || SystemClock.clocks();
        store.extend(Vec::new(), IDLE_TIMEOUT, now()).await.unwrap_err();
        assert!(!membership.is_active(), "it never claimed");
        membership.members(database).await.unwrap_err();
        let claim = Claim { delivery: DeliveryId::from_u64(1), token: 1 };
        let settlement = Settlement { claim, outcome: Outcome::Delivered, attempt: None };
        // The calls, which fail, take their time too.
        let nearly = IDLE_TIMEOUT * 3 / 4;
        for _ in 0..3 {
            advance(nearly).await;
            assert!(membership.is_active());
            store.extend(vec![claim], IDLE_TIMEOUT, now()).await.unwrap_err();
            advance(nearly).await;
            assert!(membership.is_active());
            store.settle(vec![settlement.clone()], Timestamp::now()).await.unwrap_err();
        }
        advance(IDLE_TIMEOUT).await;
        assert!(!membership.is_active());
    }
}
