//! Copies of a store's file: a backup while the store is in use, and the way back.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode};
use thiserror::Error;

use crate::{OpenError, connection, file, migrate};

/// The tables that every store has.
const TABLES: [&str; 3] = ["deliveries", "endpoints", "events"];

/// The treatment of a file that is in the place of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a file stays, or it does not")]
pub enum Existing {
    /// The file stays, and the copy is refused.
    Keep,
    /// The copy replaces the file.
    Replace,
}

/// The reason why a copy was not made. The file that was in its place is unchanged, unless the reason is
/// [`Write`](Self::Write).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BackupError {
    /// Another process makes a copy in the same place.
    #[error("another process writes {path:?}")]
    Busy {
        /// The unfinished copy.
        path: PathBuf,
    },
    /// SQLite found damage in the file.
    #[error("{path:?} is damaged: {why}")]
    Damaged {
        /// The file that was checked.
        path: PathBuf,
        /// The first damage, as SQLite describes it.
        why: String,
    },
    /// There is a file in the place of the copy.
    #[error("{path:?} exists already")]
    Exists {
        /// The place of the copy.
        path: PathBuf,
    },
    /// The place of the copy is in use by a store, or is the file that is copied.
    #[error("{path:?} is the file of a store that is in use")]
    InUse {
        /// The place of the copy.
        path: PathBuf,
    },
    /// A later version of this program made the file.
    #[error("{path:?} has schema version {found}, and this program knows versions up to {known}")]
    Newer {
        /// The file that was checked.
        path: PathBuf,
        /// The version of the file.
        found: i64,
        /// The latest version that this program knows.
        known: i64,
    },
    /// The file is a database of another program, or none.
    #[error("{path:?} is not the file of a store")]
    NoStore {
        /// The file that was checked.
        path: PathBuf,
        /// The error of SQLite, if it is no database.
        source: Option<rusqlite::Error>,
    },
    /// The file cannot be read.
    #[error("cannot read {path:?}")]
    Read {
        /// The file to copy.
        path: PathBuf,
        /// The error of SQLite.
        source: rusqlite::Error,
    },
    /// The copy cannot be written.
    #[error("cannot write {path:?}")]
    Write {
        /// The file that was written.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// Copies the file of a store, which this or another process may have open, and returns the bytes of the copy.
///
/// The copy has everything that was accepted before the call, and is one state of the store. It is one file,
/// which only its owner can read, and it is on disk when the call returns. Until then, `to` is what it was: a copy
/// that is cut off leaves a file `<to>.part`, which the next one overwrites. Secrets are encrypted in the copy as
/// they are in the store.
///
/// The call blocks, and a store that is in use writes its log without checkpoints as long as it runs.
///
/// # Errors
/// [`BackupError`] when `path` is not the file of a store, `to` exists and is to be kept, or `to` is in use.
///
/// # Example
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use webhooks_sqlite::{Existing, SqliteStore, backup, restore};
///
/// # let folder = tempfile::tempdir()?;
/// # let (path, copy, other) =
/// #     (folder.path().join("w.db"), folder.path().join("copy.db"), folder.path().join("other.db"));
/// let store = SqliteStore::open(&path).await?;
/// backup(&path, &copy, Existing::Keep)?; // while the store is in use
/// restore(&copy, &other, Existing::Keep)?;
/// SqliteStore::open(&other).await?;
/// # Ok(())
/// # }
/// ```
pub fn backup(path: &Path, to: &Path, existing: Existing) -> Result<u64, BackupError> {
    let source = open(path)?;
    let to = place(to, existing)?;
    let is_same = path.canonicalize().is_ok_and(|path| path == to);
    if is_same || is_locked(&to) {
        return Err(BackupError::InUse { path: to });
    }
    let part = copy(&source, path, &to)?;
    part.finish(&to)
}

/// Copies a backup to the place of a store, after a check of the whole backup, and returns the bytes of the copy.
///
/// No store may be open in `path`. As for [`backup`], `path` is what it was until the copy is on disk.
///
/// # Errors
/// [`BackupError`] when `from` is damaged or not the file of a store, `path` exists and is to be kept, or a store
/// is open in it.
pub fn restore(from: &Path, path: &Path, existing: Existing) -> Result<u64, BackupError> {
    let source = open(from)?;
    check(&source, from)?;
    let path = place(path, existing)?;
    let old_log = beside(&path, "-wal");
    // SQLite would write the rest of another database over the copy.
    if existing == Existing::Keep && old_log.exists() {
        return Err(BackupError::Exists { path: old_log });
    }
    if from.canonicalize().is_ok_and(|from| from == path) {
        return Err(BackupError::InUse { path });
    }
    // No store opens the file meanwhile.
    let _lock = file::lock(&path).map_err(|error| match error {
        OpenError::Lock { path, source } => BackupError::Write { path, source },
        _ => BackupError::InUse { path: path.clone() },
    })?;
    let part = copy(&source, from, &path)?;
    // After the copy: until here, the old store is whole.
    for old in [old_log, beside(&path, "-shm")] {
        match fs::remove_file(&old) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(BackupError::Write { path: old, source });
            }
            _ => {}
        }
    }
    part.finish(&path)
}

/// Opens the file of a store to read it.
fn open(path: &Path) -> Result<Connection, BackupError> {
    const COUNT: &str = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?";
    let failed = |source: rusqlite::Error| {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => BackupError::NoStore { path, source: Some(source) },
            Some(ErrorCode::DatabaseCorrupt) => {
                BackupError::Damaged { path, why: source.to_string() }
            }
            _ => BackupError::Read { path, source },
        }
    };
    let source = connection::open_for_reading(path).map_err(failed)?;
    let found = migrate::version(&source).map_err(failed)?;
    if found > migrate::KNOWN {
        return Err(BackupError::Newer { path: path.to_owned(), found, known: migrate::KNOWN });
    }
    for table in TABLES {
        let count: i64 = source.query_row(COUNT, [table], |row| row.get(0)).map_err(failed)?;
        if count == 0 {
            return Err(BackupError::NoStore { path: path.to_owned(), source: None });
        }
    }
    Ok(source)
}

/// Checks each page and each index of a file.
fn check(source: &Connection, path: &Path) -> Result<(), BackupError> {
    let found = source.query_row("PRAGMA integrity_check(1)", (), |row| row.get::<_, String>(0));
    let why = match found {
        Ok(text) if text == "ok" => return Ok(()),
        Ok(text) => text,
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => {
            error.to_string()
        }
        Err(source) => return Err(BackupError::Read { path: path.to_owned(), source }),
    };
    Err(BackupError::Damaged { path: path.to_owned(), why })
}

/// Returns the canonical path of a copy.
fn place(to: &Path, existing: Existing) -> Result<PathBuf, BackupError> {
    let failed = |source| BackupError::Write { path: to.to_owned(), source };
    let path = if to.exists() {
        if existing == Existing::Keep {
            return Err(BackupError::Exists { path: to.to_owned() });
        }
        to.canonicalize().map_err(failed)?
    } else {
        let name = to.file_name().ok_or(io::ErrorKind::InvalidFilename);
        let name = name.map_err(|kind| failed(kind.into()))?;
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| Path::new(".")).canonicalize().map_err(failed)?;
        folder.join(name)
    };
    if path.is_dir() {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    Ok(path)
}

/// Returns whether a store has this file open. No lock file is made.
fn is_locked(path: &Path) -> bool {
    let lock = File::open(beside(path, "-lock"));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// A copy under its temporary name.
struct Part {
    path: PathBuf,
    file: File,
}

/// Writes a copy beside its place.
fn copy(source: &Connection, from: &Path, to: &Path) -> Result<Part, BackupError> {
    let path = beside(to, ".part");
    let failed = |source| BackupError::Write { path: path.clone(), source };
    let file = file::private().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(BackupError::Busy { path }),
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    // The rest of a copy that was cut off. SQLite accepts an empty file.
    file.set_len(0).map_err(failed)?;
    let Some(name) = path.to_str() else {
        return Err(failed(io::Error::other("SQLite needs a path in UTF-8")));
    };
    if let Err(source) = source.execute("VACUUM INTO ?", [name]) {
        let is_full = source.sqlite_error_code() == Some(ErrorCode::DiskFull);
        // The error of the copy is the one that matters; the next copy removes the file, too.
        let _still_there = fs::remove_file(&path);
        return Err(if is_full {
            failed(io::Error::new(io::ErrorKind::StorageFull, source))
        } else {
            BackupError::Read { path: from.to_owned(), source }
        });
    }
    Ok(Part { path, file })
}

impl Part {
    /// Gives the copy its name, once it is on disk.
    fn finish(self, to: &Path) -> Result<u64, BackupError> {
        let Self { path, file } = self;
        let finish = || {
            file.sync_all()?;
            let bytes = file.metadata()?.len();
            fs::rename(&path, to)?;
            // The new name is on disk once its folder is.
            #[cfg(unix)]
            if let Some(folder) = to.parent() {
                File::open(folder)?.sync_all()?;
            }
            Ok(bytes)
        };
        finish().map_err(|source| BackupError::Write { path: to.to_owned(), source })
    }
}
