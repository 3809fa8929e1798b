//! Planned faults of the writer, for the project's own simulation.

use rusqlite::ffi;

/// The operations that are to fail.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// The number of next transactions whose commits fail.
    pub(crate) commits: u32,
    /// Whether refills fail.
    pub(crate) refills: bool,
}

impl Faults {
    pub(super) fn take_commit(&mut self) -> rusqlite::Result<()> {
        match self.commits.checked_sub(1) {
            None => Ok(()),
            Some(left) => {
                self.commits = left;
                Err(failed())
            }
        }
    }

    pub(super) fn take_refill(&self) -> rusqlite::Result<()> {
        if self.refills { Err(failed()) } else { Ok(()) }
    }
}

fn failed() -> rusqlite::Error {
    let error = ffi::Error::new(ffi::SQLITE_IOERR);
    rusqlite::Error::SqliteFailure(error, Some("a planned fault".to_owned()))
}
