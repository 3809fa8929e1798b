//! Planned faults of the writer, for the project's own simulation.

use rusqlite::ffi;

/// What is to fail.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// How many of the next transactions fail when they are to be committed.
    pub(crate) commits: u32,
    /// Whether what waits cannot be read into memory.
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
