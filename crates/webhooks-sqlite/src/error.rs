//! What SQLite's errors mean.

use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode;
use thiserror::Error;
use webhooks_core::DeliveryId;
use webhooks_dispatch::StoreError;
use webhooks_registry::SealError;

/// Says why a store cannot be opened. Its file is as it was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file can be neither found nor made.
    #[error("cannot find or make store {path:?}")]
    File {
        /// The path that was given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file has several names (hard links). SQLite keeps a log beside each, and the lock cannot
    /// tell that they are one file.
    #[error("store {path:?} has several names; remove the other hard links")]
    HardLinks {
        /// The store's file.
        path: PathBuf,
    },
    /// Another process, or another store in this one, has the file open.
    #[error("store {path:?} is in use by {holder}; stop it first, or use another file")]
    InUse {
        /// The store's file.
        path: PathBuf,
        /// Who, as far as is known.
        holder: String,
    },
    /// SQLite cannot keep a write-ahead log beside the file, as on some network file systems.
    #[error("store {path:?} cannot have a write-ahead log: its journal mode is {mode:?}")]
    Journal {
        /// The store's file.
        path: PathBuf,
        /// The mode that SQLite uses instead.
        mode: String,
    },
    /// The file beside the store that locks it cannot be made or locked.
    #[error("cannot lock store {path:?}")]
    Lock {
        /// The file that locks the store.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A later version of this program made or changed the store.
    #[error(
        "store {path:?} has schema version {found}, and this program knows versions up to {known}; update it"
    )]
    Newer {
        /// The store's file.
        path: PathBuf,
        /// The version of the file.
        found: i64,
        /// The latest version that is known here.
        known: i64,
    },
    /// The path names no file: it is empty, `:memory:` or a URI. A store is a file, since everything
    /// that it accepts must outlive the process.
    #[error("{path:?} is no file; a store needs one (for a store in memory, use `MemoryStore`)")]
    NoFile {
        /// The path that was given.
        path: PathBuf,
    },
    /// The secrets of endpoints cannot be decrypted: no key is configured, or none of the keys opens
    /// any of them.
    #[error("cannot decrypt the secrets of endpoint {endpoint:?} of store {path:?}")]
    Seal {
        /// The store's file.
        path: PathBuf,
        /// The endpoint's id.
        endpoint: String,
        /// Why.
        source: SealError,
    },
    /// SQLite cannot open the file: it is missing its folder, not permitted, damaged, or no
    /// database.
    #[error("cannot open store {path:?}")]
    Sqlite {
        /// The store's file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The thread that writes cannot be started.
    #[error("cannot start a thread")]
    Thread {
        /// What the system said.
        source: io::Error,
    },
}

/// Returns what an error of SQLite means to whoever uses the store.
pub(crate) fn store_error(source: rusqlite::Error) -> StoreError {
    match source.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full { source: source.into() },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Corrupt { source: source.into() }
        }
        _ => StoreError::Unavailable { source: source.into() },
    }
}

/// Returns the error of a store that cannot serve a call now.
pub(crate) fn unavailable(source: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Unavailable { source: source.into() }
}

/// Says that the store's writer has ended.
#[derive(Debug, Error)]
#[error("the store is closed")]
pub(crate) struct Closed;

/// Says that a read was ended.
#[derive(Debug, Error)]
#[error("the read took longer than 30 s; ask for a shorter span, or for one endpoint")]
pub(crate) struct SlowRead;

/// Says that the store's writer has panicked.
#[derive(Debug, Error)]
#[error("the thread that writes has panicked, which is a bug; open the store again")]
pub(crate) struct Panicked;

/// Says that what is left of the file's size is kept for what was accepted.
#[derive(Debug, Error)]
#[error("the file has come to its limit, but for the reserve for what was accepted")]
pub(crate) struct OnlyReserve;

/// Says that outcomes were kept without their attempts.
#[derive(Debug, Error)]
#[error("{count} attempts were not recorded; the outcomes of their deliveries were")]
pub(crate) struct LostAttempts {
    pub(crate) count: usize,
    pub(crate) source: Option<rusqlite::Error>,
}

/// Says that a delivery's outcome could not be kept.
#[derive(Debug, Error)]
#[error("the outcome of {delivery} was not kept; it is due again when its lease ends")]
pub(crate) struct LostOutcome {
    pub(crate) delivery: DeliveryId,
    pub(crate) source: rusqlite::Error,
}

/// Says that an endpoint gets nothing, because its row cannot be read.
#[derive(Debug, Error)]
#[error("endpoint {endpoint:?} cannot be read and is inactive: {why}")]
pub(crate) struct UnreadableEndpoint {
    pub(crate) endpoint: String,
    pub(crate) why: String,
}

/// Says that a delivery is passed over.
#[derive(Debug, Error)]
#[error("{delivery} cannot be read, and is passed over until the store is opened again")]
pub(crate) struct UnreadableDelivery {
    pub(crate) delivery: DeliveryId,
    pub(crate) source: rusqlite::Error,
}

/// Says that a row holds what no row should.
#[derive(Debug, Error)]
#[error("{what} of the store cannot be read")]
pub(crate) struct BadRow {
    what: &'static str,
}

impl BadRow {
    pub(crate) fn of(what: &'static str) -> Self {
        Self { what }
    }

    /// As an error of the column that was read.
    pub(crate) fn in_column(self, column: usize) -> rusqlite::Error {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, self.into())
    }
}
