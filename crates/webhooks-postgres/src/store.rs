//! The store: its ports, each a call of one of the schema's functions or a statement.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, PgPool, Postgres};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use webhooks_core::{DeliveryId, Timestamp};
use webhooks_dispatch::{
    Conflict, OperationError, Published,
    clock::Now,
    store::{
        ChangeListener, ChangeNotifier, Claim, ClaimRequest, Claimed, DeliveryStore, ReplayRequest,
        Replayed, SerializedEvent, Settled, Settlement, StoreError,
    },
};
use webhooks_registry::{EndpointNumber, seal::SealingKeys};

use crate::claim::{Dues, Registrations, Turns};
use crate::error::{attempt, persistently, store_error};
use crate::handed::Lanes;
use crate::notify::lasting;
use crate::publish::{Publisher, Request};
use crate::workers::Workers;
use crate::{OpenError, PostgresOptions, UnreadableEndpoint, notify};

/// Keeps endpoints, events and deliveries in a PostgreSQL database that any number of processes
/// share.
///
/// What was answered is committed. Cheap to clone; all clones are one store, and one worker among
/// those of other processes. Open it in the tokio runtime that it is used in. Dropping the last
/// clone ends it; [`close`](Self::close) also hands back what was claimed for this process and not
/// taken by a worker yet, and tells the other workers.
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
    pub(crate) shared: Arc<Shared>,
    unreadable: Arc<[UnreadableEndpoint]>,
    publisher: mpsc::Sender<Request>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

/// What the store shares with its tasks.
pub(crate) struct Shared {
    /// For all that must go on.
    pool: PgPool,
    /// For what people ask, which may take long: they keep nobody else waiting.
    reading: PgPool,
    pub(crate) keys: SealingKeys,
    pub(crate) workers: Workers,
    pub(crate) registrations: Mutex<Registrations>,
    /// Held while a claim is made: two at once would pass over each other's rows.
    pub(crate) claiming: tokio::sync::Mutex<Turns>,
    /// What was claimed when it was published, and waits for the next claims.
    pub(crate) handed: Mutex<Lanes>,
    /// What is due next, as the last claim found it.
    pub(crate) dues: Mutex<Dues>,
    /// Counts what may change what is due.
    changes: AtomicU64,
    pub(crate) notifier: ChangeNotifier,
    /// How a transaction begins: with the settings that a session has otherwise.
    begin: Arc<str>,
    needs_transactions: bool,
    prepares: bool,
}

impl Shared {
    /// Has whoever waits look for something to claim.
    pub(crate) fn wake(&self) {
        self.change();
        self.notifier.notify();
    }

    /// Notes that something else may be due next.
    pub(crate) fn change(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    pub(crate) fn registrations(&self) -> MutexGuard<'_, Registrations> {
        self.registrations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a transaction; on another connection if the first one turns out to be broken.
    pub(crate) async fn begin(&self) -> Result<Call, sqlx::Error> {
        persistently(|| self.transaction(&self.pool)).await
    }

    /// Begins a call that may be made again.
    pub(crate) async fn call(&self) -> Result<Call, sqlx::Error> {
        self.call_of(&self.pool).await
    }

    /// Begins a call that reads for people.
    pub(crate) async fn reading_call(&self) -> Result<Call, sqlx::Error> {
        self.call_of(&self.reading).await
    }

    async fn call_of(&self, pool: &PgPool) -> Result<Call, sqlx::Error> {
        if self.needs_transactions {
            return self.transaction(pool).await;
        }
        let connection = pool.acquire().await?;
        Ok(Call { connection, state: State::Statement, prepares: self.prepares })
    }

    /// Tells the other workers that this one is gone. If that fails, they notice it a little later.
    async fn leave(&self) {
        let _noticed_later = attempt(self.workers.leave(self)).await;
    }

    /// Does so if this one ends and nothing of it is in flight any more.
    pub(crate) async fn leave_at_last(&self) {
        if self.workers.has_ended() {
            self.leave().await;
        }
    }

    async fn transaction(&self, pool: &PgPool) -> Result<Call, sqlx::Error> {
        let connection = pool.acquire().await?;
        let mut call = Call { connection, state: State::Transaction, prepares: self.prepares };
        sqlx::raw_sql(AssertSqlSafe(Arc::clone(&self.begin))).execute(call.on()).await?;
        Ok(call)
    }
}

/// What a single statement runs on: a connection, or a transaction of its own behind a pooler that
/// would otherwise part what belongs together.
///
/// One that is dropped before its end failed or was given up. Its connection is closed then: it may
/// lead to a server that is gone or no longer the primary, and the pool would wait for its answer.
pub(crate) struct Call {
    connection: PoolConnection<Postgres>,
    state: State,
    prepares: bool,
}

/// What is open on a connection.
#[derive(PartialEq)]
enum State {
    Statement,
    Transaction,
    Ended,
}

impl Call {
    pub(crate) fn on(&mut self) -> &mut sqlx::PgConnection {
        &mut self.connection
    }

    /// Returns whether statements may stay prepared on the connection.
    pub(crate) fn prepares(&self) -> bool {
        self.prepares
    }

    /// Ends the call, and commits its transaction if it is one.
    pub(crate) async fn end(self) -> Result<(), sqlx::Error> {
        self.end_by("COMMIT").await
    }

    /// Ends a call that was refused, on a connection that others can go on with.
    pub(crate) async fn abandon(self) -> Result<(), sqlx::Error> {
        self.end_by("ROLLBACK").await
    }

    /// Ends a call because of this error, which is not the connection's.
    pub(crate) async fn refuse<E>(self, error: E) -> E {
        // If that fails, the connection is closed, and the server ends the transaction.
        let _closed = self.abandon().await;
        error
    }

    async fn end_by(mut self, command: &'static str) -> Result<(), sqlx::Error> {
        if self.state == State::Transaction {
            sqlx::raw_sql(command).execute(self.on()).await?;
        }
        self.state = State::Ended;
        Ok(())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.state != State::Ended {
            self.connection.close_on_drop();
        }
    }
}

impl PostgresStore {
    /// Opens the store in this database, making or migrating its schema.
    ///
    /// # Errors
    /// [`OpenError`] when the URL is none, or the database cannot be used.
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        PostgresOptions::new(url)?.open().await
    }

    pub(crate) fn start(
        options: PostgresOptions,
        pool: PgPool,
        unreadable: Vec<UnreadableEndpoint>,
    ) -> Self {
        let listening = options.listening();
        let shared = Arc::new(Shared {
            pool,
            reading: options.reading_pool(),
            begin: options.begin().into(),
            needs_transactions: options.needs_transactions(),
            prepares: options.prepares(),
            keys: options.keys,
            workers: Workers::new(options.heartbeat),
            registrations: Mutex::default(),
            claiming: tokio::sync::Mutex::default(),
            handed: Mutex::default(),
            dues: Mutex::default(),
            changes: AtomicU64::new(0),
            notifier: ChangeNotifier::new(),
        });
        let (publisher, requests) = Publisher::new(Arc::clone(&shared));
        let mut tasks = JoinSet::new();
        tasks.spawn(publisher.run());
        let of = |shared: &Arc<Shared>| Arc::clone(shared);
        let (listener, beating, tidying) = (of(&shared), of(&shared), of(&shared));
        let listening = Arc::new(listening);
        tasks.spawn(lasting(move || notify::listen(of(&listener), Arc::clone(&listening))));
        tasks.spawn(lasting(move || notify::beat(of(&beating))));
        tasks.spawn(lasting(move || notify::tidy(of(&tidying))));
        let tasks = Arc::new(Mutex::new(tasks));
        Self { shared, unreadable: unreadable.into(), publisher: requests, tasks }
    }

    /// Returns the endpoints that could not be read when the store was opened, the first hundred of
    /// them, and why.
    ///
    /// Nothing is delivered to such an endpoint by this process, and lists pass over it. What waits
    /// for it goes on when a process with the right key claims it, or when the endpoint is registered
    /// anew; [`unregister`](webhooks_registry::store::EndpointStore::unregister) removes it.
    #[must_use]
    pub fn unreadable(&self) -> &[UnreadableEndpoint] {
        &self.unreadable
    }

    /// Tells the other workers that this one is gone, as a worker that is shut down does, and closes all
    /// connections. Other clones of
    /// this store, such as an engine's, are closed with it: their calls fail from then on.
    pub async fn close(self) {
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        self.shared.stop().await;
        self.shared.leave().await;
        tokio::join!(self.shared.pool.close(), self.shared.reading.close());
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("worker", &self.shared.workers.id)
            .finish_non_exhaustive()
    }
}

impl DeliveryStore for PostgresStore {
    async fn publish(
        &self,
        events: Vec<SerializedEvent>,
        now: Timestamp,
    ) -> Result<Vec<Result<Published, Conflict>>, StoreError> {
        Request::send(&self.publisher, events, now).await
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, StoreError> {
        self.shared.claim(request).await
    }

    /// # Cancellation
    /// A dropped future may or may not have settled.
    async fn settle(
        &self,
        settlements: Vec<Settlement>,
        now: Timestamp,
    ) -> Result<Vec<Settled>, StoreError> {
        self.shared.workers.work();
        self.shared.settle(settlements, now).await
    }

    async fn extend(
        &self,
        claims: Vec<Claim>,
        lease: Duration,
        now: Now,
    ) -> Result<Vec<Claim>, StoreError> {
        self.shared.workers.work();
        self.shared.extend(claims, lease, now).await
    }

    async fn next_due(
        &self,
        busy: Arc<BTreeSet<EndpointNumber>>,
        now: Now,
    ) -> Result<Option<Duration>, StoreError> {
        persistently(|| self.shared.next_due(&busy, now)).await.map_err(store_error)
    }

    async fn hasten(&self, now: Timestamp) -> Result<(), StoreError> {
        Box::pin(self.shared.hasten(now)).await.map_err(store_error)
    }

    async fn cancel(&self, delivery: DeliveryId, _now: Timestamp) -> Result<(), OperationError> {
        self.shared.cancel(delivery).await
    }

    async fn replay(&self, request: ReplayRequest) -> Result<Replayed, OperationError> {
        self.shared.replay(request).await
    }

    async fn release_held(&self) -> usize {
        let count = self.shared.stop().await;
        // Another worker of this process joins again with its next claim.
        self.shared.workers.end();
        self.shared.leave_at_last().await;
        count
    }

    fn changes(&self) -> ChangeListener {
        self.shared.notifier.listen()
    }
}
