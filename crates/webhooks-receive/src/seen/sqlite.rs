//! The seen store in a file of SQLite.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::Mutex;
use webhooks_core::Timestamp;

use super::{BeginOutcome, SeenClaim, SeenError, SeenId, SeenStore};

/// `synchronous = FULL` puts the write-ahead log on disk before a commit returns, so that an id that is
/// done stays done. `busy_timeout` is for other processes that use the file.
const SCHEMA: &str = "
    PRAGMA busy_timeout = 5000;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS webhooks_seen (
        scope TEXT NOT NULL,         -- of the guard, and the tenant if there are tenants
        id TEXT NOT NULL,
        is_done INTEGER NOT NULL,    -- 0 while it is being handled
        expires_at INTEGER NOT NULL, -- microseconds since 1970
        PRIMARY KEY (scope, id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS webhooks_seen_expires_at ON webhooks_seen (expires_at);
";

/// Each claim adds a row and removes up to eight that have expired, so that none is left for long.
const PRUNE: &str = "
    DELETE FROM webhooks_seen WHERE (scope, id) IN (
        SELECT scope, id FROM webhooks_seen WHERE expires_at <= ?1 ORDER BY expires_at LIMIT 8
    )";

const CLAIM: &str = "
    INSERT INTO webhooks_seen (scope, id, is_done, expires_at) VALUES (?1, ?2, 0, ?3)
    ON CONFLICT DO NOTHING";

const FIND: &str = "SELECT is_done, expires_at FROM webhooks_seen WHERE scope = ?1 AND id = ?2";

const TAKE_OVER: &str = "
    UPDATE webhooks_seen SET is_done = 0, expires_at = ?3 WHERE scope = ?1 AND id = ?2";

const DONE: &str = "
    INSERT INTO webhooks_seen (scope, id, is_done, expires_at) VALUES (?1, ?2, 1, ?3)
    ON CONFLICT DO UPDATE SET is_done = 1, expires_at = excluded.expires_at";

const RELEASE: &str = "
    DELETE FROM webhooks_seen WHERE scope = ?1 AND id = ?2 AND is_done = 0 AND expires_at = ?3";

/// Remembers ids in a file, which several processes on one machine may share. Clones are one store.
///
/// The ids survive restarts. A claim is one commit, and its end another. The table is
/// `webhooks_seen`; the file may contain other tables.
///
/// Give it a file of its own if `SqliteStore` of webhooks-sqlite runs in the same process. Both may
/// use one file, and lose nothing. But each commit of one waits for the lock of the other, and SQLite
/// serves those who wait in no order: under load a call can take some hundred milliseconds, and it fails
/// after 5 s. In one file, implement [`SeenStore`] with `SqliteStore::transaction` instead, so that one
/// thread commits everything; `tests/tests/receive_seen.rs` of the repository has such a store.
#[derive(Clone)]
pub struct SqliteSeenStore {
    connection: Arc<Mutex<Connection>>,
}

impl SqliteSeenStore {
    /// Opens the file. It makes the file and the table if they do not exist.
    ///
    /// # Errors
    /// [`SeenError::Unavailable`] when the file cannot be used.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, SeenError> {
        let path = path.into();
        let opened = blocking(move || {
            let connection = Connection::open(path)?;
            connection.execute_batch(SCHEMA)?;
            Ok(connection)
        });
        Ok(Self { connection: Arc::new(Mutex::new(opened.await?)) })
    }

    async fn run<T: Send + 'static>(
        &self,
        command: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, SeenError> {
        // The lock is awaited here and not in `blocking`, where waiting would take a thread.
        let mut connection = Arc::clone(&self.connection).lock_owned().await;
        blocking(move || command(&mut connection)).await
    }
}

impl SeenStore for SqliteSeenStore {
    async fn begin(&self, claim: SeenClaim, now: Timestamp) -> Result<BeginOutcome, SeenError> {
        self.run(move |connection| begin(connection, &claim, now)).await
    }

    async fn done(&self, id: SeenId, until: Timestamp) -> Result<(), SeenError> {
        self.run(move |connection| execute(connection, DONE, &id, until)).await
    }

    async fn release(&self, claim: SeenClaim) -> Result<(), SeenError> {
        self.run(move |connection| execute(connection, RELEASE, &claim.id, claim.until)).await
    }
}

fn begin(
    connection: &mut Connection,
    claim: &SeenClaim,
    now: Timestamp,
) -> rusqlite::Result<BeginOutcome> {
    let behavior = rusqlite::TransactionBehavior::Immediate;
    let transaction = connection.transaction_with_behavior(behavior)?;
    transaction.prepare_cached(PRUNE)?.execute([microseconds(now)])?;
    let SeenClaim { id, until } = claim;
    let begun = match execute_counted(&transaction, CLAIM, id, *until)? {
        1 => BeginOutcome::Claimed,
        _ => {
            let found = transaction
                .prepare_cached(FIND)?
                .query_row(params![id.scope, id.id], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            match found {
                Some((_, expires_at)) if expires_at <= microseconds(now) => {
                    execute_counted(&transaction, TAKE_OVER, id, *until)?;
                    BeginOutcome::Claimed
                }
                Some((true, _)) => BeginOutcome::Done,
                Some((false, expires_at)) => {
                    BeginOutcome::InProgress { until: timestamp(expires_at) }
                }
                None => BeginOutcome::Claimed,
            }
        }
    };
    transaction.commit()?;
    Ok(begun)
}

fn execute(connection: &Connection, sql: &str, id: &SeenId, at: Timestamp) -> rusqlite::Result<()> {
    execute_counted(connection, sql, id, at).map(drop)
}

fn execute_counted(
    connection: &Connection,
    sql: &str,
    id: &SeenId,
    at: Timestamp,
) -> rusqlite::Result<usize> {
    connection.prepare_cached(sql)?.execute(params![id.scope, id.id, microseconds(at)])
}

fn microseconds(at: Timestamp) -> i64 {
    i64::try_from(at.as_unix_microseconds()).unwrap_or(i64::MAX)
}

fn timestamp(microseconds: i64) -> Timestamp {
    Timestamp::from_unix_microseconds(microseconds.unsigned_abs())
}

/// Runs work that waits for the disk on a thread for blocking work.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, SeenError> {
    let unavailable = |source| SeenError::Unavailable { source };
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|panic| unavailable(panic.into()))?.map_err(|error| unavailable(error.into()))
}

impl fmt::Debug for SqliteSeenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteSeenStore").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_has_expired_is_removed_bit_by_bit() {
        let store = SqliteSeenStore::open(":memory:").await.unwrap();
        let at = Timestamp::from_unix_seconds;
        for number in 0..20 {
            store.done(SeenId::new("standard", &number.to_string()), at(10)).await.unwrap();
        }
        let mut left = Vec::new();
        for number in 20..24 {
            let claim =
                SeenClaim { id: SeenId::new("standard", &number.to_string()), until: at(99) };
            store.begin(claim, at(10)).await.unwrap();
            let rows = "SELECT count(*) FROM webhooks_seen WHERE expires_at = 10000000";
            let count = |connection: &mut Connection| -> rusqlite::Result<i64> {
                connection.query_row(rows, (), |row| row.get(0))
            };
            left.push(store.run(count).await.unwrap());
        }
        assert_eq!(left, [12, 4, 0, 0]);
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seen.db");
        std::fs::write(&path, "certainly not a database, whatever its name says").unwrap();
        let refused = SqliteSeenStore::open(&path).await.unwrap_err();
        assert!(std::error::Error::source(&refused).is_some());
    }
}
