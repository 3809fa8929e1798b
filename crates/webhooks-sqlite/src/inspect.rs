//! A look at the file of a store, which changes nothing and needs no lock.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};

use crate::readers::{is_past, until};
use crate::{OpenError, connection, migrate};

/// The number of steps of SQLite between two looks at the time: about a millisecond.
const CHECK_STEPS: i32 = 100_000;

/// The most faults that an inspection names.
const MAX_FAULTS: u32 = 20;

/// The result of an [`inspect`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Inspection {
    /// The file is sound.
    Sound,
    /// The file is damaged.
    Damaged {
        /// The first faults, as SQLite describes them.
        faults: Vec<String>,
    },
    /// The time was over before the whole file was read; no fault was found before that.
    Unfinished,
}

/// Checks whether the file of a store is sound, by SQLite's `quick_check`, for `patience` at most.
///
/// It only reads, and needs no lock: a service may use the file at the same time.
///
/// # Errors
/// [`OpenError`] when the file cannot be read, is no database, or is of a later version.
///
/// # Example
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use webhooks_sqlite::{Inspection, SqliteStore, inspect};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("webhooks.db");
/// let store = SqliteStore::open(&path).await?;
/// assert_eq!(inspect(&path, Duration::from_secs(10)).await?, Inspection::Sound);
/// # store.close().await;
/// # Ok(())
/// # }
/// ```
pub async fn inspect(
    path: impl Into<PathBuf>,
    patience: Duration,
) -> Result<Inspection, OpenError> {
    let path = path.into();
    let looked = tokio::task::spawn_blocking(move || look(path, patience)).await;
    looked.unwrap_or_else(|panic| Err(OpenError::Thread { source: std::io::Error::other(panic) }))
}

fn look(path: PathBuf, patience: Duration) -> Result<Inspection, OpenError> {
    let opened = connection::open_for_reading(&path).and_then(|connection| {
        let found = migrate::version(&connection)?;
        Ok((connection, found))
    });
    let (mut connection, found) = match opened {
        Ok(opened) => opened,
        Err(source) => return Err(OpenError::Sqlite { path, source }),
    };
    if found > migrate::KNOWN {
        return Err(OpenError::Newer { path, found, known: migrate::KNOWN });
    }
    match faults(&mut connection, patience) {
        Ok(faults) if faults.is_empty() => Ok(Inspection::Sound),
        Ok(faults) => Ok(Inspection::Damaged { faults }),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            Ok(Inspection::Unfinished)
        }
        Err(source) => Err(OpenError::Sqlite { path, source }),
    }
}

fn faults(connection: &mut Connection, patience: Duration) -> rusqlite::Result<Vec<String>> {
    let end = until(patience);
    connection.progress_handler(CHECK_STEPS, Some(move || is_past(end)))?;
    let mut statement = connection.prepare(&format!("PRAGMA quick_check({MAX_FAULTS})"))?;
    let rows = statement.query_map((), |row| row.get(0))?;
    let rows: Vec<String> = rows.collect::<Result<_, _>>()?;
    Ok(rows.into_iter().filter(|row| row != "ok").collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;
    use crate::SqliteStore;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_store_in_use_can_be_inspected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let store = SqliteStore::open(&path).await.unwrap();
        assert_eq!(inspect(&path, PATIENCE).await.unwrap(), Inspection::Sound);
        store.close().await;
        assert_eq!(inspect(&path, PATIENCE).await.unwrap(), Inspection::Sound);
    }

    #[tokio::test]
    async fn a_damaged_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        SqliteStore::open(&path).await.unwrap().close().await;
        // The pages move from the log into the file.
        let log = Connection::open(&path).unwrap();
        log.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        drop(log);
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        // All pages after the first one, which says what the file is.
        let len = usize::try_from(file.metadata().unwrap().len()).unwrap();
        file.write_all_at(&vec![0xAA; len - 4096], 4096).unwrap();
        let found = inspect(&path, PATIENCE).await;
        let is_told = matches!(&found, Ok(Inspection::Damaged { faults }) if !faults.is_empty())
            || matches!(&found, Err(OpenError::Sqlite { .. }));
        assert!(is_told, "{found:?}");
    }

    #[tokio::test]
    async fn what_is_no_database_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        assert!(matches!(inspect(&path, PATIENCE).await, Err(OpenError::Sqlite { .. })));
        assert!(!path.exists(), "nothing is made");
        std::fs::write(&path, "a text, which is no database at all").unwrap();
        assert!(matches!(inspect(&path, PATIENCE).await, Err(OpenError::Sqlite { .. })));
    }
}
