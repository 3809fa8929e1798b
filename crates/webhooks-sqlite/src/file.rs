//! The file of a store: its one path, and the lock that makes it one process's.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use crate::OpenError;

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
