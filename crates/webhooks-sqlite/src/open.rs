//! Opening a store: the lock, the settings of SQLite, the schema, what waits.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use webhooks_dispatch::backlog::Window;
use webhooks_registry::seal::{SealingKey, SealingKeys};

use crate::limit::Limit;
use crate::{OpenError, SqliteStore, migrate};

/// How many deliveries of one endpoint are held in memory, of those that wait.
const PER_ENDPOINT: usize = 1_024;

/// How many bytes of bodies that wait are held in memory.
const WINDOW_BYTES: usize = 64 * 1024 * 1024;

/// The settings of SQLite, and why:
/// * `journal_mode=WAL`, by [`use_log`]: with a write-ahead log, readers don't wait for the writer, and a commit is one
///   append.
/// * `synchronous=FULL`: a commit is on disk before it is answered. `NORMAL` would lose the last
///   commits when the power fails.
/// * `wal_autocheckpoint`: 16 MiB of log before it is copied to the database, since a checkpoint
///   syncs both; the default of 4 MiB does so four times as often.
/// * `cache_size`: 64 MiB, so that the indexes of a large backlog stay in memory.
/// * `journal_size_limit`: the log is cut back after a burst.
/// * `temp_store`: sorting needs no files.
const SETTINGS: &str = "
    PRAGMA synchronous = FULL;
    PRAGMA wal_autocheckpoint = 4096;
    PRAGMA cache_size = -65536;
    PRAGMA journal_size_limit = 67108864;
    PRAGMA temp_store = MEMORY;
";

/// How long a statement waits for others, in milliseconds: somebody may look at the file with another
/// program, which locks it shortly.
pub(crate) const BUSY_TIMEOUT: u32 = 5_000;

/// Statements of one connection that stay prepared.
const STATEMENTS: usize = 64;

/// How to open a store.
///
/// # Example
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use webhooks_registry::seal::SealingKey;
/// use webhooks_sqlite::SqliteOptions;
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("webhooks.db");
/// let key = SealingKey::from_hex(&"0f".repeat(32))?;
/// let store = SqliteOptions::new(path).sealing_keys([key]).open().await?;
/// store.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "options do nothing before `open`"]
pub struct SqliteOptions {
    pub(crate) path: PathBuf,
    pub(crate) keys: SealingKeys,
    pub(crate) window: Window,
    pub(crate) max_bytes: Option<u64>,
}

impl SqliteOptions {
    /// Returns the options for a store in this file, which is made if it does not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let window = Window { per_endpoint: PER_ENDPOINT, bytes: WINDOW_BYTES };
        Self { path: path.into(), keys: SealingKeys::default(), window, max_bytes: None }
    }

    /// Encrypts the secrets of endpoints by the first of these keys; the others open what was
    /// encrypted by them before. Secrets that are not encrypted by the first key yet are, when the
    /// store is opened.
    pub fn sealing_keys(self, keys: impl IntoIterator<Item = SealingKey>) -> Self {
        Self { keys: SealingKeys::new(keys), ..self }
    }

    /// Sets how much of what waits is held in memory: 1,024 deliveries of an endpoint and 64 MiB of
    /// bodies unless set.
    pub fn window(self, window: Window) -> Self {
        Self { window, ..self }
    }

    /// Sets how large the file may become, in bytes; as large as the disk allows unless set. The log
    /// beside it takes 64 MiB more.
    ///
    /// Publishing fails with [`StoreError::Full`](webhooks_dispatch::store::StoreError::Full) when an event
    /// and its deliveries would leave less than an eighth of it. That reserve is for what was
    /// accepted: settling and cancelling, registering and replaying may use it. When less than a
    /// thirty-second is left, outcomes are kept without their attempts.
    pub fn max_bytes(self, max_bytes: u64) -> Self {
        Self { max_bytes: Some(max_bytes), ..self }
    }

    /// Opens the store, making or migrating its schema.
    ///
    /// # Errors
    /// [`OpenError`] when the file cannot be used; it is then as it was.
    pub async fn open(self) -> Result<SqliteStore, OpenError> {
        let opened = tokio::task::spawn_blocking(move || SqliteStore::open_blocking(self)).await;
        opened.unwrap_or_else(|panic| {
            let source = std::io::Error::other(panic);
            Err(OpenError::Thread { source })
        })
    }
}

/// Returns the one path of a store's file, by whatever path it is named; makes the file if there is
/// none. The lock and SQLite's own files beside it go by this path.
pub(crate) fn locate(path: &Path) -> Result<PathBuf, OpenError> {
    let text = path.as_os_str().to_string_lossy();
    // To SQLite, these are no names of files: the database would be in memory, or a URI.
    if text.is_empty() || text == ":memory:" || text.starts_with("file:") {
        return Err(OpenError::NoFile { path: path.to_owned() });
    }
    let failed = |source| OpenError::File { path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    // A file that is there is not opened: SQLite's locks on it would end when it is closed.
    if !path.exists() {
        let made = options.write(true).create(true).truncate(false).open(path);
        made.map_err(failed)?;
    }
    let path = path.canonicalize().map_err(failed)?;
    if names(&path).map_err(failed)? > 1 {
        return Err(OpenError::HardLinks { path });
    }
    Ok(path)
}

/// Returns how many names a file has.
#[cfg(unix)]
fn names(path: &Path) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;

    let metadata = path.metadata()?;
    Ok(if metadata.is_file() { metadata.nlink() } else { 1 })
}

#[cfg(not(unix))]
fn names(_: &Path) -> std::io::Result<u64> {
    Ok(1)
}

/// Locks the store for this process; the lock ends with the file.
pub(crate) fn lock(path: &Path) -> Result<File, OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push("-lock");
    let lock_path = PathBuf::from(name);
    let failed = |source| OpenError::Lock { path: lock_path.clone(), source };
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(&lock_path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // The number is a courtesy: without it, the error is still clear.
            let _unread = file.take(32).read_to_string(&mut holder);
            let holder = match holder.trim() {
                "" => "another process".to_owned(),
                number if number.parse() == Ok(std::process::id()) => {
                    "another store in this process, or a process of another container".to_owned()
                }
                number => format!("process {number}"),
            };
            return Err(OpenError::InUse { path: path.to_owned(), holder });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    file.set_len(0).map_err(failed)?;
    file.rewind().map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}

/// Opens the connection that writes, with the schema up to date.
pub(crate) fn writing(
    path: &Path,
    max_bytes: Option<u64>,
) -> Result<(Connection, Option<Limit>), OpenError> {
    let failed = |source| OpenError::Sqlite { path: path.to_owned(), source };
    let mut connection = Connection::open(path).map_err(failed)?;
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
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok((connection, limit))
}

/// Asks for the write-ahead log; returns the mode that SQLite uses now.
fn use_log(connection: &Connection) -> rusqlite::Result<String> {
    connection.query_row("PRAGMA journal_mode = WAL", (), |row| row.get(0))
}

/// Opens a connection that only reads.
pub(crate) fn reading(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.pragma_update(None, "busy_timeout", BUSY_TIMEOUT)?;
    connection.execute_batch("PRAGMA temp_store = MEMORY;")?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_on_disk_before_it_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        let (connection, _) = writing(&folder.path().join("store.db"), None).unwrap();
        let pragma = |name: &str| -> String {
            let value = format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}");
            connection.query_row(&value, (), |row| row.get(0)).unwrap()
        };
        assert_eq!(pragma("journal_mode"), "wal");
        assert_eq!(pragma("synchronous"), "2", "FULL");
    }

    #[test]
    fn a_file_that_can_have_no_log_is_refused() {
        // What SQLite takes for a name of no file is the one place where it has none.
        let error = writing(Path::new(":memory:"), None).unwrap_err();
        assert!(matches!(&error, OpenError::Journal { mode, .. } if mode == "memory"), "{error:?}");
    }
}
