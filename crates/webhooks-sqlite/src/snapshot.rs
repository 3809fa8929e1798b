//! One state of a store's file, while no store uses it: to copy it into a store of another kind.

use std::fs::File;
use std::path::Path;

use rusqlite::Connection;

use crate::BackupError;
use crate::backup;

/// One state of the file of a store. No store opens the file as long as this exists.
///
/// # Example
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use webhooks_sqlite::{BackupError, Snapshot, SqliteStore};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("w.db");
/// let store = SqliteStore::open(&path).await?;
/// assert!(matches!(Snapshot::open(&path), Err(BackupError::InUse { .. })));
/// store.close().await;
/// let snapshot = Snapshot::open(&path)?;
/// let count = "SELECT count(*) FROM events";
/// let count: i64 = snapshot.connection().query_row(count, (), |row| row.get(0))?;
/// assert_eq!(count, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Snapshot {
    connection: Connection,
    /// Freed when it is dropped.
    _lock: File,
}

impl Snapshot {
    /// Opens the file of a store to read it. The file stays as it is; a lock file is made beside it, as each
    /// store does.
    ///
    /// # Errors
    /// [`BackupError`] when a store has the file open, or it cannot be read or is no file of a store.
    pub fn open(path: &Path) -> Result<Self, BackupError> {
        // It finds a file that does not exist, which a lock file must not stand beside.
        let connection = backup::open(path)?;
        let failed = |source| BackupError::Read { path: path.to_owned(), source };
        let canonical = path.canonicalize();
        let canonical =
            canonical.map_err(|source| BackupError::Write { path: path.to_owned(), source })?;
        let lock = backup::lock(&canonical)?;
        // The first read fixes the state that all others see.
        connection.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema").map_err(failed)?;
        Ok(Self { connection, _lock: lock })
    }

    /// Returns the connection. It is in a transaction that only reads.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }
}
