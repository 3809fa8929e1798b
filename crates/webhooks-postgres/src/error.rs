//! The errors of a store, and the meaning of PostgreSQL's errors.

use std::io;

use thiserror::Error;
use webhooks_dispatch::store::StoreError;

/// The reason why a store cannot be opened. No error shows a password.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The database cannot hold every character: its encoding is not UTF-8.
    #[error("the database has the encoding {found:?}, and the store needs UTF8")]
    Encoding {
        /// The encoding of the database.
        found: String,
    },
    /// A later version of this program made or changed the schema.
    #[error(
        "the store has schema version {found}, and this program knows versions up to {known}; update it"
    )]
    Newer {
        /// The version of the schema.
        found: i32,
        /// The latest version that is known here.
        known: i32,
    },
    /// There is no store in the database, and none was to be made.
    #[error("there is no store in the database")]
    NoStore,
    /// The database refuses the connection or the schema.
    #[error("cannot open the store")]
    Sql {
        /// The error of PostgreSQL.
        source: sqlx::Error,
    },
    /// TLS failed: a certificate or key cannot be read, or one side refuses the other.
    #[error("cannot secure the connection to the database at {address:?}")]
    Tls {
        /// The host and port.
        address: String,
        /// The error of TLS.
        source: sqlx::Error,
    },
    /// An import was cut off, and the store does not have everything yet.
    #[error(
        "an import into the store is not finished; make it again from the same source, and it goes on"
    )]
    Unfinished,
    /// No server answers at the address.
    #[error("cannot reach the database at {address:?}")]
    Unreachable {
        /// The host and port, or the folder of the socket.
        address: String,
        /// The error of the network.
        source: io::Error,
    },
    /// The text is not the URL of a PostgreSQL database. The error does not repeat it, since it may
    /// hold a password.
    #[error(
        "the URL is not like \"postgres://user:password@host:port/database\", with '/', '#', '?', '@' \
         and '%' in user and password as %2F, %23, %3F, %40 and %25"
    )]
    Url {
        /// The fault of the text.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl From<sqlx::Error> for OpenError {
    fn from(source: sqlx::Error) -> Self {
        Self::Sql { source }
    }
}

/// An endpoint whose settings or secrets cannot be read, and the reason. It shows nothing of them.
#[derive(Debug, Error)]
#[error("cannot read endpoint {endpoint:?} of the store")]
#[non_exhaustive]
pub struct UnreadableEndpoint {
    /// The endpoint's id.
    pub endpoint: String,
    /// The reason.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Returns whether the server ended a statement that took too long.
pub(crate) fn is_cancelled(error: &sqlx::Error) -> bool {
    has_code(error, "57014")
}

/// Returns whether a statement waited for a lock in vain.
pub(crate) fn is_lock_timeout(error: &sqlx::Error) -> bool {
    has_code(error, "55P03")
}

/// Returns whether a table does not exist.
pub(crate) fn is_missing_table(error: &sqlx::Error) -> bool {
    has_code(error, "42P01")
}

pub(crate) fn has_code(error: &sqlx::Error, code: &str) -> bool {
    let found = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    found.as_deref() == Some(code)
}

/// Returns whether the same call may succeed on another connection, or a moment later.
pub(crate) fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            // Broken connections (08), shutdowns and restarts of the server (57P0), deadlocks and
            // the like (40), and a server that is no longer the primary (25006): PostgreSQL, "Error
            // Codes".
            code.starts_with("08")
                || code.starts_with("57P0")
                || code.starts_with("40")
                || code == "25006"
        }),
        _ => false,
    }
}

/// Translates an error of PostgreSQL for the callers of the store.
pub(crate) fn store_error(source: sqlx::Error) -> StoreError {
    if matches!(source, sqlx::Error::PoolTimedOut) {
        return StoreError::Unavailable { source: NoConnection(source).into() };
    }
    let code = source.as_database_error().and_then(sqlx::error::DatabaseError::code);
    match code.as_deref().unwrap_or_default() {
        "53100" => StoreError::Full { source: source.into() },
        "XX001" | "XX002" => StoreError::Corrupt { source: source.into() },
        _ if matches!(source, sqlx::Error::ColumnDecode { .. }) => {
            StoreError::Corrupt { source: source.into() }
        }
        _ => StoreError::Unavailable { source: source.into() },
    }
}

/// A call waited for a connection in vain. The pool does not report the errors of its tries.
#[derive(Debug, Error)]
#[error("no connection in time: the database cannot be reached, or all connections are in use")]
struct NoConnection(#[source] sqlx::Error);

/// Returns the error of a call to a store that was closed.
pub(crate) fn closed() -> StoreError {
    StoreError::Unavailable { source: io::Error::other("the store is closed").into() }
}

/// Returns the error of a publish whose task ended without an answer.
pub(crate) fn lost() -> StoreError {
    let why = "the store was closed, or has a bug; whether it was published is not known";
    StoreError::Unavailable { source: io::Error::other(why).into() }
}

/// A row holds a value that no row should hold.
#[derive(Debug, Error)]
#[error("{what} of the store cannot be read")]
pub(crate) struct BadRow {
    what: &'static str,
}

impl BadRow {
    pub(crate) fn of(what: &'static str) -> Self {
        Self { what }
    }

    /// Returns this as the error of a column.
    pub(crate) fn in_column(self, column: usize) -> sqlx::Error {
        sqlx::Error::ColumnDecode { index: column.to_string(), source: self.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_a_connection_in_vain_is_told_as_such() {
        let StoreError::Unavailable { source } = store_error(sqlx::Error::PoolTimedOut) else {
            panic!("another error")
        };
        assert!(source.to_string().contains("cannot be reached, or all"), "{source}");
        assert!(source.source().is_some_and(<dyn std::error::Error>::is::<sqlx::Error>));
    }
}
