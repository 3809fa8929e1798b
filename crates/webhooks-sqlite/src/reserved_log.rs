//! The space of the write-ahead log, taken before it is needed.
//!
//! A commit that makes the log longer changes the size of a file, and the file system must write that to its own
//! journal before the commit is on disk. A commit that overwrites a part of the log waits for one write of the
//! disk. Each log is overwritten once SQLite has copied it to the database; this makes it so from the start.

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::file::beside;

/// The zeros of one write.
const BLOCK: usize = 256 * 1024;

/// Fills the log behind its end with zeros, up to this size. Readers of a log stop at the first frame whose
/// checksum is wrong, as behind the end of any log that is overwritten (SQLite, "WAL-mode File Format", 4.1).
///
/// Without room on the disk, the log stays as it was: this makes commits faster, and nothing else.
pub(crate) fn reserve(
    connection: &mut Connection,
    path: &Path,
    bytes: u64,
) -> rusqlite::Result<()> {
    // Nobody else, such as a person with `sqlite3`, may append to the log meanwhile.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let _as_it_was = fill(&beside(path, "-wal"), bytes, write_zeros);
    transaction.rollback()
}

fn fill(
    log: &Path,
    bytes: u64,
    write: impl FnOnce(&mut File, u64) -> std::io::Result<()>,
) -> std::io::Result<()> {
    // SQLite has no locks on this file, which a second descriptor would end.
    let mut log = OpenOptions::new().write(true).open(log)?;
    let end = log.seek(SeekFrom::End(0))?;
    let filled = write(&mut log, bytes.saturating_sub(end)).and_then(|()| log.sync_data());
    if filled.is_err() {
        log.set_len(end)?;
    }
    filled
}

fn write_zeros(log: &mut File, mut count: u64) -> std::io::Result<()> {
    let zeros = vec![0; BLOCK];
    while count > 0 {
        let part = usize::try_from(count).unwrap_or(BLOCK).min(BLOCK);
        log.write_all(&zeros[..part])?;
        count -= part as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::open_for_writing;

    const RESERVED: u64 = 1024 * 1024;

    fn size(path: &Path) -> u64 {
        beside(path, "-wal").metadata().unwrap().len()
    }

    #[test]
    fn the_log_keeps_its_size_until_it_is_used_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let (mut connection, _) = open_for_writing(&path, None).unwrap();
        assert!(size(&path) < RESERVED);
        reserve(&mut connection, &path, RESERVED).unwrap();
        assert_eq!(size(&path), RESERVED);
        connection.execute_batch("CREATE TABLE t (n); INSERT INTO t VALUES (17);").unwrap();
        assert_eq!(size(&path), RESERVED, "it was overwritten");
        reserve(&mut connection, &path, RESERVED / 2).unwrap();
        assert_eq!(size(&path), RESERVED, "it only grows");
    }

    #[test]
    fn rows_behind_a_crash_are_read_from_a_reserved_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let (mut connection, _) = open_for_writing(&path, None).unwrap();
        reserve(&mut connection, &path, RESERVED).unwrap();
        connection.execute_batch("CREATE TABLE t (n); INSERT INTO t VALUES (17);").unwrap();
        // A crash leaves the two files, and nobody has closed them.
        let copy = folder.path().join("copy.db");
        std::fs::copy(&path, &copy).unwrap();
        std::fs::copy(beside(&path, "-wal"), beside(&copy, "-wal")).unwrap();
        let (connection, _) = open_for_writing(&copy, None).unwrap();
        let n: i64 = connection.query_row("SELECT n FROM t", (), |row| row.get(0)).unwrap();
        assert_eq!(n, 17);
        let whole: String =
            connection.query_row("PRAGMA integrity_check", (), |row| row.get(0)).unwrap();
        assert_eq!(whole, "ok");
    }

    #[test]
    fn a_log_without_room_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let (mut connection, _) = open_for_writing(&path, None).unwrap();
        let before = size(&path);
        let full = |log: &mut File, _| {
            log.write_all(&[0; 4096])?;
            Err(std::io::ErrorKind::StorageFull.into())
        };
        fill(&beside(&path, "-wal"), RESERVED, full).unwrap_err();
        assert_eq!(size(&path), before);
        reserve(&mut connection, &path, RESERVED).unwrap();
        assert_eq!(size(&path), RESERVED);
    }
}
