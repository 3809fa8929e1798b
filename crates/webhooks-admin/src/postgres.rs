//! Records in the database of a [`PostgresStore`].

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgPool, Row as _};
use webhooks_core::Timestamp;
use webhooks_postgres::PostgresStore;

use crate::column::{at, micros, signed, unsigned};
use crate::record::{
    Record, RecordChange, RecordError, RecordKind, RecordName, RecordPlace, RecordQuery,
    RecordStore,
};

/// Asked first, since a role may have the right to use the table but none to create one.
const IS_THERE: &str = "SELECT to_regclass('webhooks.admin_records') IS NOT NULL";

/// The lock is there because two concurrent `CREATE TABLE IF NOT EXISTS` can fail.
const SCHEMA: &str = r#"
    BEGIN;
    SELECT pg_advisory_xact_lock(7305000, 6);
    CREATE TABLE IF NOT EXISTS webhooks.admin_records (
        kind       text COLLATE "C" NOT NULL,
        scope      text COLLATE "C" NOT NULL,
        key        text COLLATE "C" NOT NULL,
        alias      text COLLATE "C",
        version    bigint NOT NULL,
        created_at bigint NOT NULL,     -- microseconds since 1970, as all times
        updated_at bigint NOT NULL,
        expires_at bigint,
        body       text NOT NULL,       -- JSON; a jsonb could not hold "\u0000"
        PRIMARY KEY (kind, scope, key)
    );
    CREATE UNIQUE INDEX IF NOT EXISTS admin_records_alias
        ON webhooks.admin_records (kind, scope, alias) WHERE alias IS NOT NULL;
    CREATE INDEX IF NOT EXISTS admin_records_expires ON webhooks.admin_records (expires_at)
        WHERE expires_at IS NOT NULL;
    COMMIT;"#;

/// The character that no text of PostgreSQL can have.
const NUL: char = '\0';

/// The columns that [`read`] reads, with the kind and scope in front.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT key, alias, version, created_at, updated_at, expires_at, body
             FROM webhooks.admin_records
             WHERE kind = $1 AND scope = $2 AND (expires_at IS NULL OR expires_at > $3) AND ",
            $rest
        )
    };
}

/// Keeps records in a table of its own, `webhooks.admin_records`, beside those of a store.
#[derive(Debug, Clone)]
pub struct PostgresRecordStore {
    pool: PgPool,
}

impl PostgresRecordStore {
    /// The script that makes the table of the records unless it is there, in the schema of a store.
    pub const SCHEMA: &str = SCHEMA;

    /// Uses the database of a store, and makes the table if it does not exist.
    ///
    /// # Errors
    /// [`RecordError::Unavailable`] when the database cannot be reached, or refuses the table.
    pub async fn new(store: &PostgresStore) -> Result<Self, RecordError> {
        let pool = store.pool().clone();
        let is_there = sqlx::query_scalar(IS_THERE).fetch_one(&pool).await;
        if !is_there.map_err(unavailable)? {
            sqlx::raw_sql(SCHEMA).execute(&pool).await.map_err(unavailable)?;
        }
        Ok(Self { pool })
    }
}

impl RecordStore for PostgresRecordStore {
    fn get(
        &self,
        kind: RecordKind,
        scope: String,
        name: RecordName,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Option<Record>, RecordError>> {
        async move {
            let (statement, name) = match name {
                RecordName::Key(key) => (select!("key = $4"), key),
                RecordName::Alias(alias) => (select!("alias = $4"), alias),
            };
            // PostgreSQL accepts no NUL in a text, so nothing has such a name.
            if name.contains(NUL) {
                return Ok(None);
            }
            let query = sqlx::query(statement).bind(kind.as_str()).bind(&scope);
            let query = query.bind(micros(now)).bind(name);
            let row = query.fetch_optional(&self.pool).await.map_err(unavailable)?;
            row.map(|row| read(&row, kind, &scope)).transpose().map_err(unavailable)
        }
        .boxed()
    }

    fn list(&self, query: RecordQuery) -> BoxFuture<'_, Result<Vec<Record>, RecordError>> {
        let RecordQuery { kind, scope, after, is_descending, limit, now } = query;
        async move {
            let statement = match (is_descending, &after) {
                (false, _) => select!("key > $4 ORDER BY key LIMIT $5"),
                (true, Some(_)) => select!("key < $4 ORDER BY key DESC LIMIT $5"),
                (true, None) => select!("key > $4 ORDER BY key DESC LIMIT $5"),
            };
            let query = sqlx::query(statement).bind(kind.as_str()).bind(&scope);
            let after = after.map(|after| without_nul(after, is_descending));
            let query = query.bind(micros(now)).bind(after.unwrap_or_default());
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let rows = query.bind(limit).fetch_all(&self.pool).await.map_err(unavailable)?;
            let records = rows.iter().map(|row| read(row, kind, &scope));
            records.collect::<Result<_, _>>().map_err(unavailable)
        }
        .boxed()
    }

    fn write(
        &self,
        changes: Vec<RecordChange>,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<(), RecordError>> {
        async move {
            const EXPIRED: &str = "DELETE FROM webhooks.admin_records
                WHERE (kind, scope, key) IN (
                    SELECT kind, scope, key FROM webhooks.admin_records
                    WHERE expires_at <= $1 LIMIT 16 FOR UPDATE SKIP LOCKED)";
            let mut transaction = self.pool.begin().await.map_err(unavailable)?;
            let expired = sqlx::query(EXPIRED).bind(micros(now)).execute(&mut *transaction);
            expired.await.map_err(unavailable)?;
            for (number, change) in changes.iter().enumerate() {
                apply(&mut transaction, change, number, now).await?;
            }
            transaction.commit().await.map_err(unavailable)
        }
        .boxed()
    }
}

/// Returns the text without NUL that has the same keys before and behind it, since no key has a NUL.
fn without_nul(mut text: String, is_descending: bool) -> String {
    if let Some(at) = text.find(NUL) {
        text.truncate(at);
        // The text up to there is before it, and no other key is between the two.
        if is_descending {
            text.push('\u{1}');
        }
    }
    text
}

async fn apply(
    connection: &mut PgConnection,
    change: &RecordChange,
    number: usize,
    now: Timestamp,
) -> Result<(), RecordError> {
    const EXPIRED: &str = "DELETE FROM webhooks.admin_records
        WHERE kind = $1 AND scope = $2 AND (key = $3 OR alias = $4) AND expires_at <= $5";
    const INSERT: &str = "INSERT INTO webhooks.admin_records
        (kind, scope, key, alias, version, created_at, updated_at, expires_at, body)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    const REPLACE: &str = "UPDATE webhooks.admin_records SET alias = $4, version = $5,
            created_at = $6, updated_at = $7, expires_at = $8, body = $9
        WHERE kind = $1 AND scope = $2 AND key = $3 AND version = $5 - 1";
    const DELETE: &str =
        "DELETE FROM webhooks.admin_records WHERE kind = $1 AND scope = $2 AND key = $3";
    let (place, record) = match change {
        RecordChange::Insert(record) | RecordChange::Replace(record) => {
            (&record.place, Some(record))
        }
        RecordChange::Delete(place) => (place, None),
    };
    let at = |statement| {
        let RecordPlace { kind, scope, key } = place;
        sqlx::query(statement).bind(kind.as_str()).bind(scope).bind(key)
    };
    let Some(record) = record else {
        return at(DELETE).execute(connection).await.map(drop).map_err(unavailable);
    };
    // Expired records give their names away.
    let expired = at(EXPIRED).bind(&record.alias).bind(micros(now));
    expired.execute(&mut *connection).await.map_err(unavailable)?;
    let is_new = matches!(change, RecordChange::Insert(_));
    let query = at(if is_new { INSERT } else { REPLACE })
        .bind(&record.alias)
        .bind(signed(record.version))
        .bind(micros(record.created_at))
        .bind(micros(record.updated_at))
        .bind(record.expires_at.map(micros))
        .bind(&record.body);
    match query.execute(connection).await {
        Ok(done) if done.rows_affected() == 0 => Err(RecordError::Changed { change: number }),
        Ok(_) => Ok(()),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
            Err(RecordError::Exists { change: number })
        }
        Err(error) => Err(unavailable(error)),
    }
}

fn read(row: &PgRow, kind: RecordKind, scope: &str) -> Result<Record, sqlx::Error> {
    let place = RecordPlace { kind, scope: scope.to_owned(), key: row.try_get(0)? };
    Ok(Record {
        place,
        alias: row.try_get(1)?,
        version: unsigned(row.try_get(2)?),
        created_at: row.try_get(3).map(at)?,
        updated_at: row.try_get(4).map(at)?,
        expires_at: row.try_get::<Option<i64>, _>(5)?.map(at),
        body: row.try_get(6)?,
    })
}

fn unavailable(error: sqlx::Error) -> RecordError {
    RecordError::Unavailable { source: error.into() }
}
