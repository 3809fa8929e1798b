//! Opening a store: the connections, the schema, the keys of the secrets.

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, PgConnection, PgPool, Row as _};
use webhooks_registry::{SealingKey, SealingKeys};

use crate::{OpenError, PostgresStore, migrate};

/// How many connections a store has at most, unless set: one publishes, one claims, one settles,
/// and the others are for those who look.
const CONNECTIONS: u32 = 8;

/// How long a call waits for a free connection, or for a server that starts.
const PATIENCE: Duration = Duration::from_secs(10);

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
/// use webhooks_registry::SealingKey;
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
    partition_width: Option<Duration>,
    pub(crate) keys: SealingKeys,
    pub(crate) heartbeat: Duration,
}

/// How to connect. Its debug form shows neither address nor password.
#[derive(Clone)]
struct Connect(PgConnectOptions);

impl std::fmt::Debug for Connect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connect").finish_non_exhaustive()
    }
}

impl Connect {
    fn parse(url: &str) -> Result<Self, OpenError> {
        let options =
            PgConnectOptions::from_str(url).map_err(|source| OpenError::Url { source })?;
        Ok(Self::new(options))
    }

    fn new(options: PgConnectOptions) -> Self {
        // Poolers refuse parameters that they don't know, and we have no floats.
        Self(options.extra_float_digits(None).application_name("webhooks"))
    }
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
            partition_width: None,
            keys: SealingKeys::default(),
            heartbeat: HEARTBEAT,
        }
    }

    /// Encrypts the secrets of endpoints by the first of these keys; the others open what was
    /// encrypted by them before. Secrets that are not encrypted by the first key yet are, when the
    /// store is opened.
    pub fn sealing_keys(self, keys: impl IntoIterator<Item = SealingKey>) -> Self {
        Self { keys: SealingKeys::new(keys), ..self }
    }

    /// Sets how many connections the store has at most: 8 unless set, at least 2.
    pub fn connections(self, connections: u32) -> Self {
        Self { connections: connections.max(2), ..self }
    }

    /// Sets by which URL to listen, if the other one leads to a pooler that hands connections on
    /// after each transaction: notifications need a connection that stays.
    ///
    /// # Errors
    /// [`OpenError::Url`] when it is no URL of a PostgreSQL database.
    pub fn listen_url(self, url: &str) -> Result<Self, OpenError> {
        Ok(Self { listen: Some(Connect::parse(url)?), ..self })
    }

    /// Prepares no statements and makes each call in a transaction, for poolers that keep no
    /// prepared statements: PgBouncer before 1.21, or with `max_prepared_statements = 0`.
    pub fn without_prepared_statements(self) -> Self {
        Self { prepares: false, ..self }
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

    /// Opens the store, making or migrating its schema.
    ///
    /// # Errors
    /// [`OpenError`] when the database cannot be used.
    pub async fn open(self) -> Result<PostgresStore, OpenError> {
        let pool = self.pool(&self.database, self.connections);
        let mut transaction = pool.begin().await?;
        migrate::run(&mut transaction).await?;
        if let Some(width) = self.partition_width {
            let update =
                "UPDATE webhooks.settings SET partition_width = $1 * interval '1 microsecond'
                WHERE partition_width <> $1 * interval '1 microsecond'";
            let width = i64::try_from(width.as_micros()).unwrap_or(i64::MAX);
            sqlx::query(update).persistent(false).bind(width).execute(&mut *transaction).await?;
        }
        let ahead = sqlx::query("SELECT webhooks.ensure_ahead()").persistent(false);
        ahead.execute(&mut *transaction).await?;
        seal_anew(&mut transaction, &self.keys).await?;
        transaction.commit().await?;
        let listening = self.pool(self.listen.as_ref().unwrap_or(&self.database), 1);
        Ok(PostgresStore::start(self, pool, listening))
    }

    fn pool(&self, connect: &Connect, connections: u32) -> PgPool {
        let mut connect = connect.0.clone();
        if !self.prepares {
            connect = connect.statement_cache_capacity(0);
        }
        PgPoolOptions::new()
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
            .connect_lazy_with(connect)
    }

    /// Returns whether calls must not rely on prepared statements.
    pub(crate) fn needs_transactions(&self) -> bool {
        !self.prepares
    }
}

/// Encrypts the secrets that the first key has not encrypted yet.
async fn seal_anew(connection: &mut PgConnection, keys: &SealingKeys) -> Result<(), OpenError> {
    const SELECT: &str = "SELECT number, id, secrets FROM webhooks.endpoints
        WHERE is_current ORDER BY number";
    const UPDATE: &str = "UPDATE webhooks.endpoints SET secrets = $3
        WHERE number = $1 AND secrets = $2";
    for row in sqlx::query(SELECT).persistent(false).fetch_all(&mut *connection).await? {
        let (number, id, secrets): (i64, String, Vec<u8>) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if keys.is_current(&id, &secrets) {
            continue;
        }
        let sealed = keys.open(&id, &secrets).and_then(|opened| keys.seal(&id, &opened));
        let sealed = sealed.map_err(|source| OpenError::Seal { endpoint: id, source })?;
        let update = sqlx::query(UPDATE).persistent(false).bind(number).bind(secrets).bind(sealed);
        update.execute(&mut *connection).await?;
    }
    Ok(())
}
