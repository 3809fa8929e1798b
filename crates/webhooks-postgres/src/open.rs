//! Opening a store: the schema, the settings in it, and the keys of the secrets.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use webhooks_registry::seal::SealingKeys;

use crate::endpoint_row;
use crate::error::{OpenError, UnreadableEndpoint};
use crate::import::check_finished;
use crate::migrate::{self, check_encoding};
use crate::options::PostgresOptions;
use crate::row;
use crate::state::PostgresInner;
use crate::store::PostgresStore;

/// The number of endpoints that are read at a time.
const PAGE: i64 = 1_000;

/// The maximum of unreadable endpoints that a store reports.
const MAX_UNREADABLE: usize = 100;

/// The start of the transaction that opens a store. It may take long, and wait for another one that
/// does the same.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";
const NO_TIMEOUT: &str = "SET LOCAL statement_timeout = 0";

impl PostgresStore {
    /// Opens the store in this database, and makes or migrates its schema.
    ///
    /// # Errors
    /// [`OpenError`] when `url` is not the URL of a PostgreSQL database, or the database cannot be
    /// used.
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        PostgresOptions::new(url)?.open().await
    }
}

impl PostgresOptions {
    /// Opens the store, and makes or migrates its schema.
    ///
    /// # Errors
    /// [`OpenError`] when the database cannot be used.
    pub async fn open(self) -> Result<PostgresStore, OpenError> {
        let mut connection = self.connect(&self.database).establish(self.server_patience).await?;
        let mut transaction = connection.begin_with(BEGIN).await?;
        sqlx::raw_sql(NO_TIMEOUT).execute(&mut *transaction).await?;
        check_encoding(&mut transaction).await?;
        if self.must_exist && migrate::version(&mut transaction).await? == 0 {
            return Err(OpenError::NoStore);
        }
        migrate::run(&mut transaction).await?;
        check_finished(&mut transaction).await?;
        self.store_settings(&mut transaction).await?;
        let ahead = sqlx::query("SELECT webhooks.ensure_ahead()").persistent(false);
        ahead.execute(&mut *transaction).await?;
        let unreadable = seal_anew(&mut transaction, &self.keys).await?;
        transaction.commit().await?;
        connection.close().await?;
        Ok(self.start(unreadable))
    }

    /// Returns the version of the server, without a change to the database: for a check of the way to it.
    ///
    /// # Errors
    /// [`OpenError`] when the server refuses the connection or does not answer within 10 s.
    pub async fn server_version(&self) -> Result<String, OpenError> {
        let mut connection = self.connect(&self.database).establish(Duration::ZERO).await?;
        check_encoding(&mut connection).await?;
        let found = sqlx::query_scalar("SHOW server_version").persistent(false);
        let version = found.fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(version)
    }

    /// Stores the settings that callers in SQL share with programs.
    async fn store_settings(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        const STORE: &str = "UPDATE webhooks.settings
            SET partition_width = coalesce($1 * interval '1 microsecond', partition_width),
                max_body = coalesce($2, max_body)
            WHERE partition_width <> $1 * interval '1 microsecond' OR max_body <> $2";
        if self.partition_width.is_none() && self.max_body.is_none() {
            return Ok(());
        }
        let store =
            sqlx::query(STORE).persistent(false).bind(self.partition_width.map(row::micros));
        store.bind(self.max_body.map(row::int4)).execute(connection).await.map(drop)
    }

    /// Returns a store with its tasks.
    pub(crate) fn start(self, unreadable: Vec<UnreadableEndpoint>) -> PostgresStore {
        let (database, listen_pool) = (self.database(), self.listen_pool());
        let inner = PostgresInner::new(database, self.keys, self.heartbeat);
        PostgresStore::start(inner, listen_pool, unreadable)
    }
}

/// Encrypts the secrets that the first key has not encrypted yet; returns the endpoints that cannot
/// be read, at most the first [`MAX_UNREADABLE`].
async fn seal_anew(
    connection: &mut PgConnection,
    keys: &SealingKeys,
) -> Result<Vec<UnreadableEndpoint>, OpenError> {
    let select = format!(
        "{} WHERE is_current AND number > $1 ORDER BY number LIMIT $2",
        endpoint_row::SELECT
    );
    let (mut unreadable, mut after) = (Vec::new(), 0_i64);
    loop {
        let select = sqlx::query(AssertSqlSafe(select.as_str())).persistent(false);
        let rows = select.bind(after).bind(PAGE).fetch_all(&mut *connection).await?;
        let Some(last) = rows.last() else { return Ok(unreadable) };
        after = last.try_get(0)?;
        for row in &rows {
            let unreadable_because = match endpoint_row::registration(row, keys) {
                Ok(_) => seal_row(connection, row, keys).await?.err(),
                Err(error) => Some(error.into()),
            };
            if let Some(source) = unreadable_because.filter(|_| unreadable.len() < MAX_UNREADABLE) {
                unreadable.push(UnreadableEndpoint { endpoint: row.try_get(2)?, source });
            }
        }
    }
}

/// Encrypts the secrets of a row of [`endpoint_row::SELECT`], unless the first key has encrypted
/// them.
async fn seal_row(
    connection: &mut PgConnection,
    row: &PgRow,
    keys: &SealingKeys,
) -> Result<Result<(), Box<dyn std::error::Error + Send + Sync>>, sqlx::Error> {
    const UPDATE: &str = "UPDATE webhooks.endpoints SET secrets = $3
        WHERE number = $1 AND secrets = $2";
    let (number, secrets): (i64, &[u8]) = (row.try_get(0)?, row.try_get(4)?);
    let key = endpoint_row::key(row)?.to_string();
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
