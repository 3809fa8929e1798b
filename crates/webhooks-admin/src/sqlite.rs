//! Records in the file of a [`SqliteStore`].

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use webhooks_core::Timestamp;
use webhooks_sqlite::rusqlite::{self, Connection, ErrorCode, OptionalExtension as _, Row, params};
use webhooks_sqlite::{SqliteStore, Transaction, TransactionError};

use crate::column::{at, micros, signed, unsigned};
use crate::record::{
    Record, RecordChange, RecordError, RecordKind, RecordName, RecordPlace, RecordQuery,
    RecordStore,
};
use crate::record_cache::RecordCache;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS admin_records (
        kind       TEXT NOT NULL,
        scope      TEXT NOT NULL,
        key        TEXT NOT NULL,
        alias      TEXT,
        version    INTEGER NOT NULL,
        created_at INTEGER NOT NULL,    -- microseconds since 1970, as all times
        updated_at INTEGER NOT NULL,
        expires_at INTEGER,
        body       TEXT NOT NULL,       -- JSON
        PRIMARY KEY (kind, scope, key)
    ) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX IF NOT EXISTS admin_records_alias ON admin_records (kind, scope, alias)
        WHERE alias IS NOT NULL;
    CREATE INDEX IF NOT EXISTS admin_records_expires ON admin_records (expires_at)
        WHERE expires_at IS NOT NULL;";

/// The columns that [`read`] reads, with the kind and scope in front.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT key, alias, version, created_at, updated_at, expires_at, body
             FROM admin_records
             WHERE kind = ?1 AND scope = ?2 AND (expires_at IS NULL OR expires_at > ?3) AND ",
            $rest
        )
    };
}

/// Keeps records in a table of its own, `admin_records`, in the file of a store.
///
/// Clones share the records that were read in the last second: each request needs its key and its
/// application. A write through any clone is seen at once, one past it a second later.
#[derive(Debug, Clone)]
pub struct SqliteRecordStore {
    store: SqliteStore,
    cache: RecordCache,
}

impl SqliteRecordStore {
    /// Uses the file of a store, and makes the table if it does not exist.
    ///
    /// # Errors
    /// [`RecordError::Unavailable`] when the file cannot be written.
    pub async fn new(store: SqliteStore) -> Result<Self, RecordError> {
        let made = store.transaction(|transaction| transaction.execute_batch(SCHEMA)).await;
        made.map_err(unavailable)?;
        Ok(Self { store, cache: RecordCache::default() })
    }
}

impl RecordStore for SqliteRecordStore {
    fn get(
        &self,
        kind: RecordKind,
        scope: String,
        name: RecordName,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Option<Record>, RecordError>> {
        let cached = (kind, scope.clone(), name.clone());
        let find = move |connection: &Connection| {
            let (statement, name) = match &name {
                RecordName::Key(key) => (select!("key = ?4"), key),
                RecordName::Alias(alias) => (select!("alias = ?4"), alias),
            };
            let mut statement = connection.prepare_cached(statement)?;
            let parameters = params![kind.as_str(), scope, micros(now), name];
            statement.query_row(parameters, |row| read(row, kind, &scope)).optional()
        };
        async move {
            if let Some(record) = self.cache.get(&cached, now) {
                return Ok(Some(record));
            }
            let generation = self.cache.begin_read();
            let found = self.store.read(find).await.map_err(unavailable)?;
            if let Some(record) = &found {
                self.cache.add(generation, cached, record, now);
            }
            Ok(found)
        }
        .boxed()
    }

    fn list(&self, query: RecordQuery) -> BoxFuture<'_, Result<Vec<Record>, RecordError>> {
        let RecordQuery { kind, scope, after, is_descending, limit, now } = query;
        let find = move |connection: &Connection| {
            let statement = match (is_descending, &after) {
                (false, _) => select!("key > ?4 ORDER BY key LIMIT ?5"),
                (true, Some(_)) => select!("key < ?4 ORDER BY key DESC LIMIT ?5"),
                (true, None) => select!("key > ?4 ORDER BY key DESC LIMIT ?5"),
            };
            let after = after.as_deref().unwrap_or_default();
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let mut statement = connection.prepare_cached(statement)?;
            let parameters = params![kind.as_str(), scope, micros(now), after, limit];
            let rows = statement.query_map(parameters, |row| read(row, kind, &scope))?;
            rows.collect::<rusqlite::Result<Vec<Record>>>()
        };
        async move { self.store.read(find).await.map_err(unavailable) }.boxed()
    }

    fn write(
        &self,
        changes: Vec<RecordChange>,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<(), RecordError>> {
        let begun = self.cache.begin_write();
        let write = move |transaction: &mut Transaction<'_>| {
            const EXPIRED: &str = "DELETE FROM admin_records WHERE (kind, scope, key) IN (
                SELECT kind, scope, key FROM admin_records WHERE expires_at <= ? LIMIT 16)";
            // It ends with this closure, after the commit and before the answer.
            let _begun = &begun;
            transaction.execute(EXPIRED, [micros(now)]).map_err(of_sqlite)?;
            let mut numbered = changes.iter().enumerate();
            numbered.try_for_each(|(number, change)| apply(transaction, change, number, now))
        };
        async move {
            self.store.transaction(write).await.map_err(|error| match error {
                TransactionError::Refused(error) => error,
                error => unavailable(error),
            })
        }
        .boxed()
    }
}

fn apply(
    transaction: &mut Transaction<'_>,
    change: &RecordChange,
    number: usize,
    now: Timestamp,
) -> Result<(), RecordError> {
    const EXPIRED: &str = "DELETE FROM admin_records
        WHERE kind = ?1 AND scope = ?2 AND (key = ?3 OR alias = ?4) AND expires_at <= ?5";
    const INSERT: &str = "INSERT INTO admin_records
        (kind, scope, key, alias, version, created_at, updated_at, expires_at, body)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
    const REPLACE: &str = "UPDATE admin_records SET alias = ?4, version = ?5, created_at = ?6,
            updated_at = ?7, expires_at = ?8, body = ?9
        WHERE kind = ?1 AND scope = ?2 AND key = ?3 AND version = ?5 - 1";
    const DELETE: &str = "DELETE FROM admin_records WHERE kind = ? AND scope = ? AND key = ?";
    let (place, record) = match change {
        RecordChange::Insert(record) | RecordChange::Replace(record) => {
            (&record.place, Some(record))
        }
        RecordChange::Delete(place) => (place, None),
    };
    let RecordPlace { kind, scope, key } = place;
    let Some(record) = record else {
        let deleted = transaction.execute(DELETE, params![kind.as_str(), scope, key]);
        return deleted.map(drop).map_err(of_sqlite);
    };
    // Expired records give their names away.
    let expired = params![kind.as_str(), scope, key, record.alias, micros(now)];
    transaction.execute(EXPIRED, expired).map_err(of_sqlite)?;
    let is_new = matches!(change, RecordChange::Insert(_));
    let row = params![
        kind.as_str(),
        scope,
        key,
        record.alias,
        signed(record.version),
        micros(record.created_at),
        micros(record.updated_at),
        record.expires_at.map(micros),
        record.body,
    ];
    let changed = transaction.execute(if is_new { INSERT } else { REPLACE }, row);
    match changed {
        Ok(0) => Err(RecordError::Changed { change: number }),
        Ok(_) => Ok(()),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            Err(RecordError::Exists { change: number })
        }
        Err(error) => Err(of_sqlite(error)),
    }
}

fn read(row: &Row<'_>, kind: RecordKind, scope: &str) -> rusqlite::Result<Record> {
    let place = RecordPlace { kind, scope: scope.to_owned(), key: row.get(0)? };
    let time = |column| -> rusqlite::Result<Timestamp> { row.get(column).map(at) };
    Ok(Record {
        place,
        alias: row.get(1)?,
        version: unsigned(row.get(2)?),
        created_at: time(3)?,
        updated_at: time(4)?,
        expires_at: row.get::<_, Option<i64>>(5)?.map(at),
        body: row.get(6)?,
    })
}

fn of_sqlite(error: rusqlite::Error) -> RecordError {
    RecordError::Unavailable { source: error.into() }
}

fn unavailable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> RecordError {
    RecordError::Unavailable { source: error.into() }
}
