//! The file that is copied.

use std::path::Path;

use thiserror::Error;
use webhooks_postgres::LastNumbers;
use webhooks_sqlite::rusqlite::{self, InterruptHandle};
use webhooks_sqlite::{BackupError, Snapshot};

use super::batch::{self, Batch, ReadError};
use super::check::{self, Check};
use super::position::Position;
use super::schema;

/// Why a file cannot be copied.
#[derive(Debug, Error)]
pub(crate) enum SourceError {
    #[error(transparent)]
    Open(#[from] BackupError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("this program does not know how to copy the column {column} of the file")]
    Unknown { column: String },
}

impl From<rusqlite::Error> for SourceError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Read(error.into())
    }
}

/// The file that is copied. No service can use it meanwhile.
#[derive(Debug)]
pub(crate) struct Source {
    snapshot: Snapshot,
    /// The tables that are not of a store, and stay behind.
    pub(crate) others: Vec<String>,
}

impl Source {
    pub(crate) fn open(path: &Path) -> Result<Self, SourceError> {
        let snapshot = Snapshot::open(path)?;
        let others = schema::check_source(snapshot.connection())?;
        let others = others.map_err(|column| SourceError::Unknown { column })?;
        Ok(Self { snapshot, others })
    }

    /// Returns a handle that ends what is being read.
    pub(crate) fn interrupt_handle(&self) -> InterruptHandle {
        self.snapshot.connection().get_interrupt_handle()
    }

    /// Returns the counts and sums of all tables.
    pub(crate) fn checks(&self) -> Result<Vec<Check>, SourceError> {
        Ok(check::of_source(self.snapshot.connection())?)
    }

    /// Returns the last numbers that the file has given, those of deleted rows included.
    pub(crate) fn last_numbers(&self) -> Result<LastNumbers, SourceError> {
        const LAST: &str = "SELECT (SELECT ifnull(max(number), 0) FROM endpoints),
            max((SELECT ifnull(max(number), 0) FROM events),
                (SELECT next - 1 FROM counters WHERE name = 'event')),
            (SELECT ifnull(max(number), 0) FROM jobs)";
        let read = |row: &rusqlite::Row<'_>| {
            Ok(LastNumbers { endpoint: row.get(0)?, event: row.get(1)?, job: row.get(2)? })
        };
        Ok(self.snapshot.connection().query_row(LAST, (), read)?)
    }

    /// Reads the next rows.
    pub(crate) fn read(&self, position: &Position, limit: usize) -> Result<Batch, SourceError> {
        Ok(batch::read(self.snapshot.connection(), position, limit)?)
    }
}
