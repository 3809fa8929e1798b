//! The errors of opening a store, and the sources of the errors of its calls.

use std::fmt;
use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode;
use thiserror::Error;
use webhooks_core::{DeliveryId, LabelError};
use webhooks_dispatch::Conflict;
use webhooks_dispatch::store::StoreError;
use webhooks_registry::seal::SealError;

/// The reason why a store cannot be opened. The events, deliveries and endpoints in its file are
/// unchanged.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file can be neither found nor made.
    #[error("cannot find or make store {path:?}")]
    File {
        /// The path that was given.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file has several names (hard links). SQLite would use a log beside each, and the lock
    /// cannot tell that they are one file.
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
        /// The other process, as far as it is known.
        holder: String,
    },
    /// SQLite cannot use a write-ahead log beside the file, as on some network file systems.
    #[error("store {path:?} cannot have a write-ahead log: its journal mode is {mode:?}")]
    Journal {
        /// The store's file.
        path: PathBuf,
        /// The mode that SQLite uses instead.
        mode: String,
    },
    /// The lock file beside the store cannot be made or locked.
    #[error("cannot lock store {path:?}")]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// The error of the operating system.
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
        /// The latest version that this program knows.
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
        /// The reason.
        source: SealError,
    },
    /// SQLite cannot open the file: its folder is missing, access is denied, or the file is damaged
    /// or no database.
    #[error("cannot open store {path:?}")]
    Sqlite {
        /// The store's file.
        path: PathBuf,
        /// The error of SQLite.
        source: rusqlite::Error,
    },
    /// The thread that writes cannot be started.
    #[error("cannot start a thread")]
    Thread {
        /// The error of the operating system.
        source: io::Error,
    },
}

/// The reason why a [`transaction`](crate::SqliteStore::transaction) was not committed, or a
/// [`read`](crate::SqliteStore::read) failed. Nothing was stored.
#[derive(Debug)]
#[non_exhaustive]
pub enum TransactionError<E> {
    /// The closure panicked, which is a bug in it. The store goes on.
    Panicked,
    /// The closure returned this error.
    Refused(E),
    /// The store failed.
    Store(StoreError),
}

impl<E: fmt::Display> fmt::Display for TransactionError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked => f.write_str("the closure panicked, and nothing of it was stored"),
            Self::Refused(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

/// The closure's error has no source here, so that it may be any type, such as a boxed error. Match
/// [`Refused`](Self::Refused) for more.
impl<E: fmt::Debug + fmt::Display> std::error::Error for TransactionError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Panicked | Self::Refused(_) => None,
            Self::Store(error) => error.source(),
        }
    }
}

impl<E> From<StoreError> for TransactionError<E> {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The reason why an event was not published in a transaction. The transaction can go on, unless
/// SQLite has ended it; then nothing of it is stored.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PublishInError {
    /// Another event has this id already.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The event has too many channels or tags.
    #[error(transparent)]
    Labels(#[from] LabelError),
    /// The store failed, or has no room for the event.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The event is to be delivered more than 90 days from now.
    #[error("an event can be scheduled 90 days ahead at most; publish it later")]
    TooFarAhead,
    /// The event's body is too large.
    #[error("the event's body has {len} bytes; at most {max} are allowed")]
    TooLarge {
        /// The length in bytes.
        len: usize,
        /// The maximum: [`SqliteOptions::max_body`](crate::SqliteOptions::max_body).
        max: usize,
    },
}

/// Returns the error of a call that failed with an error of SQLite.
pub(crate) fn store_error(source: rusqlite::Error) -> StoreError {
    match source.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full { source: source.into() },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Corrupt { source: source.into() }
        }
        _ => StoreError::Unavailable { source: source.into() },
    }
}

/// Returns the error of a call that the store cannot serve now.
pub(crate) fn unavailable(source: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Unavailable { source: source.into() }
}

/// The source of errors after the writer has ended.
#[derive(Debug, Error)]
#[error("the store is closed")]
pub(crate) struct Closed;

/// The source of the error of a read that ran out of time.
#[derive(Debug, Error)]
#[error("the read took longer than 30 s; ask for a shorter span, or for one endpoint")]
pub(crate) struct SlowRead;

/// The source of errors after the writer has panicked.
#[derive(Debug, Error)]
#[error("the thread that writes has panicked, which is a bug; open the store again")]
pub(crate) struct Panicked;

/// The source of the error of a publish that would use the reserve.
#[derive(Debug, Error)]
#[error("the file has reached its limit, except for the reserve for accepted events")]
pub(crate) struct OnlyReserve;

/// The source of the error that reports outcomes recorded without their attempts.
#[derive(Debug, Error)]
#[error("{count} attempts were not recorded; the outcomes of their deliveries were")]
pub(crate) struct UnrecordedAttempts {
    pub(crate) count: usize,
    pub(crate) source: Option<rusqlite::Error>,
}

/// The source of the error that reports a delivery whose outcome could not be recorded.
#[derive(Debug, Error)]
#[error("the outcome of {delivery} was not recorded; it is due again when its lease ends")]
pub(crate) struct UnrecordedOutcome {
    pub(crate) delivery: DeliveryId,
    pub(crate) source: rusqlite::Error,
}

/// The source of the errors about an endpoint whose row cannot be read.
#[derive(Debug, Error)]
#[error("endpoint {endpoint:?} cannot be read and is inactive: {why}")]
pub(crate) struct UnreadableEndpoint {
    pub(crate) endpoint: String,
    pub(crate) why: String,
}

/// The source of the error that reports a delivery that is passed over.
#[derive(Debug, Error)]
#[error("{delivery} cannot be read, and is passed over until the store is opened again")]
pub(crate) struct UnreadableDelivery {
    pub(crate) delivery: DeliveryId,
    pub(crate) source: rusqlite::Error,
}

/// The source of the error of a value that cannot be read.
#[derive(Debug, Error)]
#[error("{what} of the store cannot be read")]
pub(crate) struct BadRow {
    what: &'static str,
}

impl BadRow {
    pub(crate) fn of(what: &'static str) -> Self {
        Self { what }
    }

    /// Makes this the error of a column.
    pub(crate) fn in_column(self, column: usize) -> rusqlite::Error {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, self.into())
    }
}
