//! The options of a store, and the connections that they stand for.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, PgPool};
use webhooks_registry::seal::{SealingKey, SealingKeys};

use crate::call::{CALL_TIMEOUT, Database};
use crate::connect::{CONNECT_TIMEOUT, Connect};
use crate::error::OpenError;

/// The most connections of a store, unless set: one each for publishing, claims, settlements and
/// heartbeats, and a quarter of all for history and lists.
const CONNECTIONS: u32 = 8;

/// The longest time that a call waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest time that the server lets a statement take.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(15);

// The server ends a slow statement before the call gives its connection up: see `CALL_TIMEOUT`.
const _: () = assert!(
    ACQUIRE_TIMEOUT.as_secs() + STATEMENT_TIMEOUT.as_secs() < CALL_TIMEOUT.as_secs(),
    "a live server must end its slow statements itself"
);

/// The maximum of [`PostgresOptions::max_body`]: its column is a 32-bit integer.
const MAX_BODY: usize = i32::MAX as usize;

/// The time after which an idle connection is tested before it is used. A call that finds its
/// connection broken is made again, so one in steady use needs no test.
const TEST_AFTER_IDLE: Duration = Duration::from_secs(1);

/// The interval between two heartbeats of a worker, unless set.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// The options of a store: where the database is, and how to use it.
///
/// # Example
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use webhooks_postgres::PostgresOptions;
/// use webhooks_registry::seal::SealingKey;
///
/// let key = SealingKey::from_hex(&"0f".repeat(32))?;
/// let options = PostgresOptions::new("postgres://shop@db.internal/shop?sslmode=verify-full")?;
/// let store = options.sealing_keys([key]).connections(16).open().await?;
/// store.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "options do nothing before `open`"]
pub struct PostgresOptions {
    pub(crate) database: Connect,
    listen: Option<Connect>,
    connections: u32,
    prepares: bool,
    is_pooled: bool,
    statement_timeout: Duration,
    pub(crate) server_patience: Duration,
    pub(crate) partition_width: Option<Duration>,
    pub(crate) max_body: Option<usize>,
    pub(crate) keys: SealingKeys,
    pub(crate) must_exist: bool,
    pub(crate) heartbeat: Duration,
}

impl PostgresOptions {
    /// Returns the options for a store in this database, in the schema `webhooks`, which is made if
    /// it does not exist. Parts that the URL leaves out come from the variables of libpq, such as
    /// `PGHOST`.
    ///
    /// # Errors
    /// [`OpenError::Url`] when `url` is not the URL of a PostgreSQL database.
    pub fn new(url: &str) -> Result<Self, OpenError> {
        Ok(Self::with(Connect::parse(url)?))
    }

    /// Returns the options for a store in the database that these options of sqlx lead to.
    pub fn from_connect_options(options: PgConnectOptions) -> Self {
        Self::with(Connect::new(options))
    }

    fn with(database: Connect) -> Self {
        Self {
            database,
            listen: None,
            connections: CONNECTIONS,
            prepares: true,
            is_pooled: false,
            statement_timeout: STATEMENT_TIMEOUT,
            server_patience: CONNECT_TIMEOUT,
            partition_width: None,
            max_body: None,
            keys: SealingKeys::default(),
            must_exist: false,
            heartbeat: HEARTBEAT,
        }
    }

    /// Encrypts the secrets of endpoints with the first of these keys. The other keys open secrets
    /// that were encrypted with them before. Opening the store encrypts all secrets again that are
    /// not encrypted with the first key. Secrets that no key opens stay as they are, and
    /// [`unreadable`](crate::PostgresStore::unreadable) names their endpoints.
    ///
    /// Every process that shares the store must have a key before the first one encrypts with it:
    /// `docs/operations.md` explains how to rotate keys.
    pub fn sealing_keys(self, keys: impl IntoIterator<Item = SealingKey>) -> Self {
        Self { keys: SealingKeys::new(keys), ..self }
    }

    /// Refuses a database in which there is no store yet.
    pub fn existing(self) -> Self {
        Self { must_exist: true, ..self }
    }

    /// Sets the maximum of connections, besides the one that listens: 8 unless set, at least 3. A
    /// quarter of them, and at least one, serves history and lists only.
    pub fn connections(self, connections: u32) -> Self {
        Self { connections: connections.max(3), ..self }
    }

    /// Sets the longest time that the server lets a statement of the store take: 15 s unless set,
    /// at least 10 ms, and 15 s at most. A statement that takes longer fails as
    /// [`StoreError::Unavailable`](webhooks_dispatch::store::StoreError::Unavailable).
    pub fn statement_timeout(self, timeout: Duration) -> Self {
        let statement_timeout = timeout.clamp(Duration::from_millis(10), STATEMENT_TIMEOUT);
        Self { statement_timeout, ..self }
    }

    /// Sets the URL to listen on, if the other one leads to a pooler that shares connections
    /// between clients, transaction by transaction: notifications need a connection of their own.
    /// It implies [`behind_pooler`](Self::behind_pooler).
    ///
    /// # Errors
    /// [`OpenError::Url`] when `url` is not the URL of a PostgreSQL database.
    pub fn listen_url(self, url: &str) -> Result<Self, OpenError> {
        Ok(Self { listen: Some(Connect::parse(url)?), ..self }.behind_pooler())
    }

    /// Makes each call in a transaction with settings of its own, for poolers that share
    /// connections between clients, transaction by transaction: other clients would get the
    /// settings of a session.
    pub fn behind_pooler(self) -> Self {
        Self { is_pooled: true, ..self }
    }

    /// Prepares no statements, for poolers that do not support them: PgBouncer before 1.21, or with
    /// `max_prepared_statements = 0`. It implies [`behind_pooler`](Self::behind_pooler).
    pub fn without_prepared_statements(self) -> Self {
        Self { prepares: false, ..self }.behind_pooler()
    }

    /// Sets the span of time that a partition holds; a day unless set. Existing partitions stay as
    /// they are.
    pub fn partition_width(self, width: Duration) -> Self {
        Self { partition_width: Some(width), ..self }
    }

    /// Sets the interval between two heartbeats of a worker: 2 s unless set, at least 10 ms. After
    /// five intervals without one, the others count a worker as dead and take its share. Give all
    /// processes that share the store the same interval.
    pub fn heartbeat(self, heartbeat: Duration) -> Self {
        Self { heartbeat: heartbeat.max(Duration::from_millis(10)), ..self }
    }

    /// Sets the maximum of the body of an event, in bytes, for [`publish_in`](crate::publish_in)
    /// and `webhooks.publish`: 1 MiB unless set. It is stored in the database, for every process.
    ///
    /// An engine uses [`EngineSettings::max_body`](webhooks_dispatch::EngineSettings::max_body)
    /// instead, with the same default. Give both the same value.
    pub fn max_body(self, bytes: usize) -> Self {
        Self { max_body: Some(bytes.min(MAX_BODY)), ..self }
    }

    /// Sets the time for which [`open`](Self::open) tries again to reach a server that may be
    /// starting: 10 s unless set. With zero it tries once. The first try may take 10 s in any case.
    ///
    /// A server may be starting if nothing listens at its address, its socket does not exist, the
    /// connection is closed at once, or it answers that it is starting or has no connection left.
    pub fn server_patience(self, patience: Duration) -> Self {
        Self { server_patience: patience, ..self }
    }

    /// Returns the connections of a store.
    pub(crate) fn database(&self) -> Database {
        // A quarter of the connections, so that slow readers never take all of them.
        let readers = (self.connections / 4).max(1);
        Database {
            pool: self.pool(&self.database, self.connections - readers),
            reading: self.pool(&self.database, readers),
            begin_statements: self.begin_statements().into(),
            needs_transactions: self.is_pooled,
            prepares: self.prepares,
            counts: Arc::default(),
        }
    }

    /// Returns a function that makes the connection to listen on, in a new pool each time: sqlx
    /// returns a connection to its pool only when the server has answered, and a lost connection
    /// never does.
    pub(crate) fn listen_pool(&self) -> impl Fn() -> PgPool + Send + Sync + 'static {
        let options = self.clone();
        move || options.pool(options.listen.as_ref().unwrap_or(&options.database), 1)
    }

    /// Returns the statements that begin a transaction. The defaults of the database do not hold in
    /// it.
    fn begin_statements(&self) -> String {
        let timeout = self.statement_timeout.as_millis();
        format!("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = {timeout}")
    }

    /// Returns the settings of a session that no other client shares.
    fn session(&self) -> String {
        let timeout = self.statement_timeout.as_millis();
        format!(
            "SET statement_timeout = {timeout};
            SET default_transaction_isolation = 'read committed'"
        )
    }

    /// Returns the options of a connection, with or without a cache of prepared statements.
    pub(crate) fn connect(&self, connect: &Connect) -> Connect {
        let options = connect.0.clone();
        Connect(if self.prepares { options } else { options.statement_cache_capacity(0) })
    }

    fn pool(&self, connect: &Connect, connections: u32) -> PgPool {
        let session = (!self.is_pooled).then(|| self.session());
        PgPoolOptions::new()
            .after_connect(move |connection, _| {
                let session = session.clone();
                Box::pin(async move {
                    if let Some(session) = session {
                        sqlx::raw_sql(AssertSqlSafe(session)).execute(connection).await?;
                    }
                    Ok(())
                })
            })
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            // An idle connection may lead to a server that is gone.
            .test_before_acquire(false)
            .before_acquire(|connection, known| {
                Box::pin(async move {
                    if known.idle_for >= TEST_AFTER_IDLE {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(self.connect(connect).0)
    }
}
