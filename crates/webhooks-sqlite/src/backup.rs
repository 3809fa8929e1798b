//! Copies of a store's file: a backup while the store is in use, and the way back.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode};
use thiserror::Error;

use crate::file::{self, beside};
use crate::{OpenError, connection, migrate};

/// The ends of the names of SQLite's own files beside a database. SQLite applies the first two to whatever file has
/// the name of the database.
const BESIDE: [&str; 3] = ["-wal", "-journal", "-shm"];

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

/// The reason why a copy was not made. The file that was in its place is unchanged, and so are SQLite's files beside
/// it, unless the reason is [`Write`](Self::Write).
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
    /// There is a file in the place of the copy, or the log of one.
    #[error("{path:?} exists already")]
    Exists {
        /// The file that is there.
        path: PathBuf,
    },
    /// The place of the copy is in use by a store.
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
    /// The place of the copy is the file that is copied.
    #[error("{path:?} is the file that is to be copied")]
    Same {
        /// The file.
        path: PathBuf,
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
/// which only its owner can read, and it is on disk when the call returns. Secrets are encrypted in the copy as they
/// are in the store.
///
/// `to` has its old content or the whole copy, at every time. A copy that is cut off leaves a file `<to>.part`, which
/// the next one overwrites. If the file `to` is a database with a log, the log is deleted once the copy is on disk,
/// just before the copy gets its name. A call that is cut off between these two leaves the old database without
/// its latest changes, and the whole copy in `<to>.part`; call it again.
///
/// A copy that replaces a file locks it as a store does, and leaves the file `<to>-lock`.
///
/// The call blocks, and a store that is in use writes its log without checkpoints as long as it runs.
///
/// # Errors
/// [`BackupError`] when `path` is not the file of a store, `to` or a log beside it exists and is to be kept, or `to`
/// is in use or is `path` itself.
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
    if path.canonicalize().is_ok_and(|path| path == to) {
        return Err(BackupError::Same { path: to });
    }
    // A copy that is new has no lock file beside it: it must not be there when the copy gets its name.
    let _lock = match existing {
        Existing::Replace => Some(lock(&to)?),
        Existing::Keep if is_locked(&to) => return Err(BackupError::InUse { path: to }),
        Existing::Keep => None,
    };
    copy(&source, path, &to)?.finish(&to, existing)
}

/// Copies a backup to the place of a store, after a check of the whole backup, and returns the bytes of the copy.
///
/// No store may be open in `path`. As for [`backup`], the old store and its log are whole until the copy is on disk.
///
/// # Errors
/// [`BackupError`] when `from` is damaged or not the file of a store, `path` exists and is to be kept, or a store
/// is open in it.
pub fn restore(from: &Path, path: &Path, existing: Existing) -> Result<u64, BackupError> {
    let source = open(from)?;
    check(&source, from)?;
    let path = place(path, existing)?;
    if from.canonicalize().is_ok_and(|from| from == path) {
        return Err(BackupError::Same { path });
    }
    let _lock = lock(&path)?;
    copy(&source, from, &path)?.finish(&path, existing)
}

/// Opens the file of a store to read it.
pub(crate) fn open(path: &Path) -> Result<Connection, BackupError> {
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

/// Returns the canonical path of a copy, if what is there may be replaced.
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
    if existing == Existing::Keep {
        refuse_logs(&path)?;
    }
    Ok(path)
}

/// Refuses a place beside which the log of another database is: SQLite would apply it to the copy.
fn refuse_logs(path: &Path) -> Result<(), BackupError> {
    let mut logs = BESIDE[..2].iter().map(|end| beside(path, end));
    logs.find(|log| log.exists()).map_or(Ok(()), |path| Err(BackupError::Exists { path }))
}

/// Locks a file: no store opens it meanwhile.
pub(crate) fn lock(path: &Path) -> Result<File, BackupError> {
    file::lock(path).map_err(|error| match error {
        OpenError::Lock { path, source } => BackupError::Write { path, source },
        _ => BackupError::InUse { path: path.to_owned() },
    })
}

/// Returns whether a store has this file open. No lock file is made.
fn is_locked(path: &Path) -> bool {
    let lock = File::open(beside(path, "-lock"));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
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
    // Another process has finished its copy since this file was opened: it has its name, and must stay whole.
    if !is_at(&file, &path).map_err(failed)? {
        return Err(BackupError::Busy { path });
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
    /// Gives the copy its name, and returns its bytes. The file in its place stays whole until the copy is on disk.
    fn finish(self, to: &Path, existing: Existing) -> Result<u64, BackupError> {
        let Self { path, file } = self;
        let failed = |source| BackupError::Write { path: to.to_owned(), source };
        file.sync_all().and_then(|()| sync_folder(to)).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        if existing == Existing::Keep && to.exists() {
            // The next copy would overwrite it, too.
            let _still_there = fs::remove_file(&path);
            return Err(BackupError::Exists { path: to.to_owned() });
        }
        remove_beside(to)?;
        fs::rename(&path, to).and_then(|()| sync_folder(to)).map_err(failed)?;
        Ok(bytes)
    }
}

/// Removes SQLite's files beside a file, and returns when they are gone from the disk: a log that came back after a
/// loss of power would be applied to the copy.
fn remove_beside(path: &Path) -> Result<(), BackupError> {
    let mut is_removed = false;
    for old in BESIDE.map(|end| beside(path, end)) {
        match fs::remove_file(&old) {
            Ok(()) => is_removed = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(BackupError::Write { path: old, source }),
        }
    }
    if is_removed {
        let failed = |source| BackupError::Write { path: path.to_owned(), source };
        sync_folder(path).map_err(failed)?;
    }
    Ok(())
}

/// Writes the names in the folder of a file to disk.
#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Returns whether an open file still has this name.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;

    let opened = file.metadata()?;
    match fs::metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino()) == (opened.dev(), opened.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_got_another_name_is_no_longer_at_its_first() {
        let folder = tempfile::tempdir().unwrap();
        let (part, to) = (folder.path().join("w.db.part"), folder.path().join("w.db"));
        let file = File::create(&part).unwrap();
        assert!(is_at(&file, &part).unwrap());
        fs::rename(&part, &to).unwrap();
        assert!(!is_at(&file, &part).unwrap(), "there is none");
        File::create(&part).unwrap();
        assert!(!is_at(&file, &part).unwrap(), "there is another");
    }

    #[test]
    fn files_of_another_database_are_gone_before_the_copy_has_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("w.db");
        for end in BESIDE {
            fs::write(beside(&to, end), "old").unwrap();
        }
        assert!(matches!(refuse_logs(&to), Err(BackupError::Exists { .. })));
        remove_beside(&to).unwrap();
        assert!(refuse_logs(&to).is_ok());
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }
}
