//! The file of a store: its one path, and the lock that makes it one process's.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use crate::OpenError;

/// Returns the canonical path of a store's file, and makes the file if there is none. The names of
/// the lock and of SQLite's own files beside it are made from this path.
pub(crate) fn locate(path: &Path) -> Result<PathBuf, OpenError> {
    let text = path.as_os_str().to_string_lossy();
    // SQLite takes these for a database in memory, or for a URI.
    if text.is_empty() || text == ":memory:" || text.starts_with("file:") {
        return Err(OpenError::NoFile { path: path.to_owned() });
    }
    let failed = |source| OpenError::File { path: path.to_owned(), source };
    // An existing file is not opened: when a process closes any descriptor of a file, it loses all its
    // POSIX locks on it (SQLite, "How To Corrupt An SQLite Database File", 2.2).
    if !path.exists() {
        let made = private().write(true).create(true).truncate(false).open(path);
        made.map_err(failed)?;
    }
    let path = path.canonicalize().map_err(failed)?;
    // SQLite names its log after the path. Two names would mean two logs for one file.
    if hard_links(&path).map_err(failed)? > 1 {
        return Err(OpenError::HardLinks { path });
    }
    Ok(path)
}

/// Returns options that make a file for its owner alone, since it holds secrets and payloads. SQLite gives the
/// files beside it the same mode. A file that is there keeps its mode.
#[cfg(unix)]
pub(crate) fn private() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt as _;

    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

#[cfg(not(unix))]
pub(crate) fn private() -> OpenOptions {
    OpenOptions::new()
}

/// Returns the number of hard links to a file.
#[cfg(unix)]
fn hard_links(path: &Path) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;

    let metadata = path.metadata()?;
    Ok(if metadata.is_file() { metadata.nlink() } else { 1 })
}

#[cfg(not(unix))]
fn hard_links(_: &Path) -> std::io::Result<u64> {
    Ok(1)
}

/// Returns the path of a file beside another one, whose name goes on with `end`.
pub(crate) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Locks the store for this process, by a file beside it. The lock ends when the returned file is
/// closed, which the system does also for a process that crashes.
pub(crate) fn lock(path: &Path) -> Result<File, OpenError> {
    let lock_path = beside(path, "-lock");
    let failed = |source| OpenError::Lock { path: lock_path.clone(), source };
    let mut file = open_own(&lock_path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // If the number cannot be read, the error is still clear.
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
    give_to_owner(&file, path);
    Ok(file)
}

/// Opens a file, or makes it; an error if its name is a link. The superuser may open the store of a user who is allowed
/// to put links into the folder, and the file is overwritten.
fn open_own(path: &Path) -> std::io::Result<File> {
    let mut options = private();
    options.read(true).write(true);
    match options.clone().create_new(true).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        made => return made,
    }
    let file = options.open(path)?;
    if is_named(&file, path)? {
        return Ok(file);
    }
    Err(std::io::Error::other("it is a link, and no file of its own"))
}

/// Returns whether a name is that of an open file itself.
#[cfg(unix)]
fn is_named(file: &File, path: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;

    let (opened, named) = (file.metadata()?, path.symlink_metadata()?);
    let is_same = (opened.dev(), opened.ino()) == (named.dev(), named.ino());
    Ok(is_same && named.is_file() && named.nlink() == 1)
}

#[cfg(not(unix))]
fn is_named(_: &File, path: &Path) -> std::io::Result<bool> {
    path.symlink_metadata().map(|named| named.is_file())
}

/// Gives a file to the owner of the store, who must be able to lock it, too. Only the superuser can and needs to.
#[cfg(unix)]
fn give_to_owner(file: &File, store: &Path) {
    use std::os::unix::fs::{MetadataExt as _, fchown};

    let owners = file.metadata().and_then(|own| store.metadata().map(|store| (own, store)));
    if let Ok((own, store)) = owners
        && own.uid() != store.uid()
    {
        let _refused = fchown(file, Some(store.uid()), Some(store.gid()));
    }
}

#[cfg(not(unix))]
fn give_to_owner(_: &File, _: &Path) {}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::SqliteStore;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn files_that_are_made_are_for_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
        let mut names = Vec::new();
        for entry in folder.path().read_dir().unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path), 0o600, "{path:?}");
            names.push(path.file_name().unwrap().to_owned());
        }
        names.sort();
        assert_eq!(names, ["store.db", "store.db-lock", "store.db-shm", "store.db-wal"]);
        store.close().await;
    }

    #[tokio::test]
    async fn a_file_that_is_there_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        SqliteStore::open(&path).await.unwrap().close().await;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let store = SqliteStore::open(&path).await.unwrap();
        assert_eq!(mode(&path), 0o640);
        assert_eq!(mode(&folder.path().join("store.db-wal")), 0o640);
        store.close().await;
    }

    #[tokio::test]
    async fn a_lock_that_is_a_link_is_refused_and_its_target_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (path, target) = (folder.path().join("store.db"), folder.path().join("target"));
        let lock = folder.path().join("store.db-lock");
        std::fs::write(&target, "of somebody else").unwrap();
        let links: [fn(&Path, &Path) -> std::io::Result<()>; 2] = [
            |from, to| std::os::unix::fs::symlink(from, to),
            |from, to| std::fs::hard_link(from, to),
        ];
        for link in links {
            link(&target, &lock).unwrap();
            let refused = SqliteStore::open(&path).await.unwrap_err();
            assert!(matches!(refused, OpenError::Lock { .. }), "{refused:?}");
            assert_eq!(std::fs::read_to_string(&target).unwrap(), "of somebody else");
            std::fs::remove_file(&lock).unwrap();
        }
        SqliteStore::open(&path).await.unwrap().close().await;
    }

    #[tokio::test]
    async fn the_lock_belongs_to_the_owner_of_the_store() {
        use std::os::unix::fs::{MetadataExt as _, chown};

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        SqliteStore::open(&path).await.unwrap().close().await;
        std::fs::remove_file(beside(&path, "-lock")).unwrap();
        // Only the superuser can give a file away; for others, owner and user are the same.
        let _refused = chown(&path, Some(65_534), None);
        SqliteStore::open(&path).await.unwrap().close().await;
        let owner = |path: &Path| path.metadata().unwrap().uid();
        assert_eq!(owner(&beside(&path, "-lock")), owner(&path));
    }
}
