//! Connections to the file, with the settings of SQLite: one that writes, and several that read.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::limit::Limit;
use crate::{OpenError, migrate};

/// The settings of SQLite, and why:
/// * `journal_mode=WAL`, set in [`use_log`]: with a write-ahead log, readers don't wait for the
///   writer, and a commit is one append.
/// * `synchronous=FULL`: a commit is on disk before it is answered. `NORMAL` would lose the last
///   commits when the power fails.
/// * `wal_autocheckpoint`: 16 MiB of log before it is copied to the database, since a checkpoint
///   syncs both; the default of 4 MiB does so four times as often.
/// * `journal_size_limit`: the log is cut back after a burst.
/// * `temp_store`: sorting needs no files.
const SETTINGS: &str = "
    PRAGMA synchronous = FULL;
    PRAGMA wal_autocheckpoint = 4096;
    PRAGMA journal_size_limit = 67108864;
    PRAGMA temp_store = MEMORY;
";

/// The size of the log at which it is copied to the database: 4,096 pages.
pub(crate) const LOG_BYTES: u64 = 16 * 1024 * 1024;

/// Sets the memory for pages of the file: 4 MiB. The pages that a publish, a claim and a settlement touch lie
/// at the ends of the tables and indexes, and fit. A larger cache fills with pages that are not read again:
/// 64 MiB were not faster with a million waiting deliveries (`bench deliver`). The cache is set after the
/// endpoints are read, since their rows would fill it, too.
pub(crate) fn set_cache(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("PRAGMA cache_size = -4096;")
}

/// The time that a statement waits for a lock of another program, in milliseconds. A person who
/// looks at the file with `sqlite3` locks it for a short time.
pub(crate) const BUSY_TIMEOUT: u32 = 5_000;

/// The number of statements that a connection holds prepared.
const STATEMENT_CACHE: usize = 64;

/// Opens the connection that writes, with the schema up to date.
pub(crate) fn open_for_writing(
    path: &Path,
    max_bytes: Option<u64>,
) -> Result<(Connection, Option<Limit>), OpenError> {
    let failed = |source| OpenError::Sqlite { path: path.to_owned(), source };
    let mut connection = Connection::open(path).map_err(failed)?;
    // Before anything is written: a file of a later version, or of no database, stays as it was.
    let found = migrate::version(&connection).map_err(failed)?;
    if found > migrate::KNOWN {
        let (path, known) = (path.to_owned(), migrate::KNOWN);
        return Err(OpenError::Newer { path, found, known });
    }
    connection.pragma_update(None, "busy_timeout", BUSY_TIMEOUT).map_err(failed)?;
    connection.execute_batch(SETTINGS).map_err(failed)?;
    let mode = use_log(&connection).map_err(failed)?;
    if mode != "wal" {
        return Err(OpenError::Journal { path: path.to_owned(), mode });
    }
    migrate::run(&mut connection).map_err(failed)?;
    let limit = max_bytes.map(|max_bytes| Limit::set(&connection, max_bytes));
    let limit = limit.transpose().map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    Ok((connection, limit))
}

/// Asks for the write-ahead log; returns the mode that SQLite uses from now on.
fn use_log(connection: &Connection) -> rusqlite::Result<String> {
    connection.query_row("PRAGMA journal_mode = WAL", (), |row| row.get(0))
}

/// Opens a connection that only reads.
pub(crate) fn open_for_reading(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.pragma_update(None, "busy_timeout", BUSY_TIMEOUT)?;
    connection.execute_batch("PRAGMA temp_store = MEMORY;")?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_on_disk_before_it_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        let (connection, _) = open_for_writing(&folder.path().join("store.db"), None).unwrap();
        let pragma = |name: &str| -> String {
            let value = format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}");
            connection.query_row(&value, (), |row| row.get(0)).unwrap()
        };
        assert_eq!(pragma("journal_mode"), "wal");
        assert_eq!(pragma("synchronous"), "2", "FULL");
    }

    #[test]
    fn a_file_that_can_have_no_log_is_refused() {
        // A database in memory is the one that has no log wherever the test runs.
        let error = open_for_writing(Path::new(":memory:"), None).unwrap_err();
        assert!(matches!(&error, OpenError::Journal { mode, .. } if mode == "memory"), "{error:?}");
    }
}
