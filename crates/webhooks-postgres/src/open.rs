//! Opening a store: the connections, the schema, the keys of the secrets.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, Row as _};
use webhooks_registry::seal::{SealingKey, SealingKeys};

use crate::connect::{Connect, PATIENCE};
use crate::row;
use crate::{OpenError, PostgresStore, UnreadableEndpoint, endpoints, migrate};

/// How many connections a store has at most, unless set: one publishes, one claims, one settles,
/// one says that the worker lives, and a quarter of all is for those who look.
const CONNECTIONS: u32 = 8;

/// How long a statement may take, in the server: together with [`PATIENCE`] less than a call may.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(15);

/// How many endpoints are read at a time when a store is opened, and how many of those that cannot be
/// read are told.
const PAGE: i64 = 1_000;
const MAX_TOLD: usize = 100;

/// How large the body of an event may be, in bytes: as long as its column's type can count.
const MAX_BODY: usize = i32::MAX as usize;

/// How long a connection may be idle before it is tested: as long as calls that failed wait before
/// they are made again.
const UNTESTED: Duration = Duration::from_secs(1);

/// How often a worker says that it lives, unless set.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// How to open a store.
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
    database: Connect,
    listen: Option<Connect>,
    connections: u32,
    prepares: bool,
    is_pooled: bool,
    statement_timeout: Duration,
    server_patience: Duration,
    partition_width: Option<Duration>,
    max_body: Option<usize>,
    pub(crate) keys: SealingKeys,
    pub(crate) heartbeat: Duration,
}

impl PostgresOptions {
    /// Returns the options for a store in this database, in the schema `webhooks`, which is made if
    /// it does not exist. What the URL leaves out comes from the variables of libpq, such as
    /// `PGHOST`.
    ///
    /// # Errors
    /// [`OpenError::Url`] when it is no URL of a PostgreSQL database.
    pub fn new(url: &str) -> Result<Self, OpenError> {
        Ok(Self::with(Connect::parse(url)?))
    }

    /// Returns the options for a store in a database that is reached as sqlx is told.
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
            server_patience: PATIENCE,
            partition_width: None,
            max_body: None,
            keys: SealingKeys::default(),
            heartbeat: HEARTBEAT,
        }
    }

    /// Encrypts the secrets of endpoints by the first of these keys; the others open what was
    /// encrypted by them before. Secrets that are not encrypted by the first key yet are, when the
    /// store is opened; those that no key opens stay as they are, and
    /// [`unreadable`](PostgresStore::unreadable) names them.
    ///
    /// Every process that shares the store must have a key before the first one encrypts by it:
    /// `docs/operations.md` tells how to rotate.
    pub fn sealing_keys(self, keys: impl IntoIterator<Item = SealingKey>) -> Self {
        Self { keys: SealingKeys::new(keys), ..self }
    }

    /// Sets how many connections the store has at most, beside the one that listens: 8 unless set,
    /// at least 3. A quarter of them, and at least one, serves history and lists alone.
    pub fn connections(self, connections: u32) -> Self {
        Self { connections: connections.max(3), ..self }
    }

    /// Sets how long the server lets a statement of the store take: 15 s unless set, at least 10 ms,
    /// and 15 s at most. What takes longer fails, as
    /// [`StoreError::Unavailable`](webhooks_dispatch::store::StoreError::Unavailable).
    pub fn statement_timeout(self, timeout: Duration) -> Self {
        let statement_timeout = timeout.clamp(Duration::from_millis(10), STATEMENT_TIMEOUT);
        Self { statement_timeout, ..self }
    }

    /// Sets by which URL to listen, if the other one leads to a pooler that hands connections on
    /// after each transaction: notifications need a connection that stays. It says
    /// [`behind_pooler`](Self::behind_pooler) too.
    ///
    /// # Errors
    /// [`OpenError::Url`] when it is no URL of a PostgreSQL database.
    pub fn listen_url(self, url: &str) -> Result<Self, OpenError> {
        Ok(Self { listen: Some(Connect::parse(url)?), ..self }.behind_pooler())
    }

    /// Makes each call in a transaction with settings of its own, for poolers that hand connections
    /// on after each transaction: the settings of a session would become those of others.
    pub fn behind_pooler(self) -> Self {
        Self { is_pooled: true, ..self }
    }

    /// Prepares no statements, for poolers that keep none: PgBouncer before 1.21, or with
    /// `max_prepared_statements = 0`. It says [`behind_pooler`](Self::behind_pooler) too.
    pub fn without_prepared_statements(self) -> Self {
        Self { prepares: false, ..self }.behind_pooler()
    }

    /// Sets which span of time a partition holds; a day unless set. Partitions that exist stay.
    pub fn partition_width(self, width: Duration) -> Self {
        Self { partition_width: Some(width), ..self }
    }

    /// Sets how often a worker says that it lives; every 2 s unless set, at least every 10 ms. A
    /// worker that was silent five times as long is taken for dead, and others take its share.
    pub fn heartbeat(self, heartbeat: Duration) -> Self {
        Self { heartbeat: heartbeat.max(Duration::from_millis(10)), ..self }
    }

    /// Sets how large the body of an event may be, in bytes, that [`publish_in`](crate::publish_in)
    /// and `webhooks.publish` take: 1 MiB unless set, the default of
    /// [`EngineSettings::max_body`](webhooks_dispatch::EngineSettings::max_body), which an engine
    /// goes by. Give both the same. It is kept in the database, for every process.
    pub fn max_body(self, bytes: usize) -> Self {
        Self { max_body: Some(bytes.min(MAX_BODY)), ..self }
    }

    /// Sets how long [`open`](Self::open) tries again to reach a server that may be starting: 10 s
    /// unless set. Zero makes one try. The first try may take 10 s in any case.
    ///
    /// A server may be starting if nothing listens at its address, its socket is not there, the
    /// connection is closed at once, or it answers that it starts or has no connection left.
    pub fn server_patience(self, patience: Duration) -> Self {
        Self { server_patience: patience, ..self }
    }

    /// Opens the store, making or migrating its schema.
    ///
    /// # Errors
    /// [`OpenError`] when the database cannot be used.
    pub async fn open(self) -> Result<PostgresStore, OpenError> {
        let mut connection = self.connect(&self.database).establish(self.server_patience).await?;
        let mut transaction = connection.begin_with(BEGIN).await?;
        check_encoding(&mut transaction).await?;
        migrate::run(&mut transaction).await?;
        self.keep_settings(&mut transaction).await?;
        let ahead = sqlx::query("SELECT webhooks.ensure_ahead()").persistent(false);
        ahead.execute(&mut *transaction).await?;
        let unreadable = seal_anew(&mut transaction, &self.keys).await?;
        transaction.commit().await?;
        connection.close().await?;
        let pool = self.pool(&self.database, self.connections - self.readers());
        Ok(PostgresStore::start(self, pool, unreadable))
    }

    /// Keeps the settings that callers in SQL share with programs.
    async fn keep_settings(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        const KEEP: &str = "UPDATE webhooks.settings
            SET partition_width = coalesce($1 * interval '1 microsecond', partition_width),
                max_body = coalesce($2, max_body)
            WHERE partition_width <> $1 * interval '1 microsecond' OR max_body <> $2";
        if self.partition_width.is_none() && self.max_body.is_none() {
            return Ok(());
        }
        let keep = sqlx::query(KEEP).persistent(false).bind(self.partition_width.map(row::micros));
        keep.bind(self.max_body.map(row::limit)).execute(connection).await.map(drop)
    }

    /// Returns how many of the connections serve those who look.
    fn readers(&self) -> u32 {
        (self.connections / 4).max(1)
    }

    /// Returns the connections of those who look.
    pub(crate) fn reading_pool(&self) -> PgPool {
        self.pool(&self.database, self.readers())
    }

    /// Returns what makes the connection to listen on, a pool of its own each time: sqlx gives a
    /// connection back to its pool only when the server has answered, which one that is lost never
    /// does.
    pub(crate) fn listening(&self) -> impl Fn() -> PgPool + Send + 'static {
        let options = self.clone();
        move || options.pool(options.listen.as_ref().unwrap_or(&options.database), 1)
    }

    /// Returns how a transaction begins. What the database sets for sessions does not hold in it.
    pub(crate) fn begin(&self) -> String {
        let timeout = self.statement_timeout.as_millis();
        format!("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = {timeout}")
    }

    /// Returns what a session is set to, if it is ours alone.
    fn session(&self) -> String {
        let timeout = self.statement_timeout.as_millis();
        format!(
            "SET statement_timeout = {timeout};
            SET default_transaction_isolation = 'read committed'"
        )
    }

    /// Returns how to connect, with or without a cache of prepared statements.
    fn connect(&self, connect: &Connect) -> Connect {
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
            .acquire_timeout(PATIENCE)
            // One in steady use is not tested: a call that finds it broken is made again. Others may
            // be left over from a server that is gone.
            .test_before_acquire(false)
            .before_acquire(|connection, known| {
                Box::pin(async move {
                    if known.idle_for >= UNTESTED {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(self.connect(connect).0)
    }

    /// Returns whether each call must be a transaction.
    pub(crate) fn needs_transactions(&self) -> bool {
        self.is_pooled
    }

    /// Returns whether statements may stay prepared.
    pub(crate) fn prepares(&self) -> bool {
        self.prepares
    }
}

/// How the transaction begins that opens a store: it may take long, and wait for another one.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";
const NO_TIMEOUT: &str = "SET LOCAL statement_timeout = 0";

/// Refuses a database that cannot hold every text.
async fn check_encoding(connection: &mut PgConnection) -> Result<(), OpenError> {
    sqlx::raw_sql(NO_TIMEOUT).execute(&mut *connection).await?;
    let found = sqlx::query_scalar("SHOW server_encoding").persistent(false);
    let found: String = found.fetch_one(connection).await?;
    if found == "UTF8" { Ok(()) } else { Err(OpenError::Encoding { found }) }
}

/// Encrypts the secrets that the first key has not encrypted yet; returns the first endpoints that
/// cannot be read.
async fn seal_anew(
    connection: &mut PgConnection,
    keys: &SealingKeys,
) -> Result<Vec<UnreadableEndpoint>, OpenError> {
    let select =
        format!("{} WHERE is_current AND number > $1 ORDER BY number LIMIT $2", endpoints::SELECT);
    let (mut unreadable, mut after) = (Vec::new(), 0_i64);
    loop {
        let select = sqlx::query(AssertSqlSafe(select.as_str())).persistent(false);
        let rows = select.bind(after).bind(PAGE).fetch_all(&mut *connection).await?;
        let Some(last) = rows.last() else { return Ok(unreadable) };
        after = last.try_get(0)?;
        for row in &rows {
            let unread = match endpoints::registration(row, keys) {
                Ok(_) => seal_row(connection, row, keys).await?.err(),
                Err(error) => Some(error.into()),
            };
            if let Some(source) = unread.filter(|_| unreadable.len() < MAX_TOLD) {
                unreadable.push(UnreadableEndpoint { endpoint: row.try_get(2)?, source });
            }
        }
    }
}

/// Encrypts the secrets of a row of [`endpoints::SELECT`], unless the first key has encrypted them.
async fn seal_row(
    connection: &mut PgConnection,
    row: &PgRow,
    keys: &SealingKeys,
) -> Result<Result<(), Box<dyn std::error::Error + Send + Sync>>, sqlx::Error> {
    const UPDATE: &str = "UPDATE webhooks.endpoints SET secrets = $3
        WHERE number = $1 AND secrets = $2";
    let (number, secrets): (i64, &[u8]) = (row.try_get(0)?, row.try_get(4)?);
    let key = endpoints::key(row)?.to_string();
    if keys.is_current(&key, secrets) {
        return Ok(Ok(()));
    }
    let sealed = keys.open(&key, secrets).and_then(|opened| keys.seal(&key, &opened));
    let sealed = match sealed {
        Ok(sealed) => sealed,
        Err(error) => return Ok(Err(error.into())),
    };
    let update = sqlx::query(UPDATE).persistent(false).bind(number).bind(secrets).bind(sealed);
    update.execute(connection).await?;
    Ok(Ok(()))
}
