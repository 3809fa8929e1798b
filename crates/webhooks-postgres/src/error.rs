//! What PostgreSQL's errors mean.

use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::time::timeout;
use webhooks_dispatch::store::StoreError;

/// Says why a store cannot be opened. No error shows a password.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The database does not hold every character: its encoding is not UTF-8.
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
    /// The database does not let us in, or refuses the schema.
    #[error("cannot open the store")]
    Sql {
        /// What PostgreSQL said.
        source: sqlx::Error,
    },
    /// TLS failed: a certificate or key cannot be read, or one side refuses the other.
    #[error("cannot secure the connection to the database at {address:?}")]
    Tls {
        /// The host and port.
        address: String,
        /// What failed.
        source: sqlx::Error,
    },
    /// Nobody answers there.
    #[error("cannot reach the database at {address:?}")]
    Unreachable {
        /// The host and port, or the folder of the socket.
        address: String,
        /// What the network said.
        source: io::Error,
    },
    /// A text is not the URL of a PostgreSQL database; it is not repeated, since it may hold a
    /// password.
    #[error(
        "the URL is not like \"postgres://user:password@host:port/database\", with '/', '#', '?', '@' \
         and '%' in user and password as %2F, %23, %3F, %40 and %25"
    )]
    Url {
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl From<sqlx::Error> for OpenError {
    fn from(source: sqlx::Error) -> Self {
        Self::Sql { source }
    }
}

/// Says that the settings or secrets of an endpoint cannot be read, and why. It shows nothing of
/// them.
#[derive(Debug, Error)]
#[error("cannot read endpoint {endpoint:?} of the store")]
#[non_exhaustive]
pub struct UnreadableEndpoint {
    /// The endpoint's id.
    pub endpoint: String,
    /// Why.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// How long to wait before a call is made again that failed in passing: a restart or a failover
/// takes some seconds.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(20),
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// How long a call may take. A server that vanished without a word would otherwise keep it, and
/// with it whoever publishes, claims or says that it lives, until the network gives up.
///
/// It is longer than a call waits for a connection and the server for a statement, so that what a
/// server that lives does not finish in time is ended by the server.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes a call once. One that takes too long is given up, which closes its connection.
pub(crate) async fn attempt<T>(
    call: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let elapsed = |_elapsed| {
        let source = io::Error::new(io::ErrorKind::TimedOut, "the database did not answer in time");
        sqlx::Error::Io(source)
    };
    timeout(CALL_TIMEOUT, call).await.map_err(elapsed)?
}

/// Makes a call, and makes it again if the connection broke or another transaction was in the way.
/// For calls that may be made twice.
pub(crate) async fn persistently<T, F>(call: impl Fn() -> F) -> Result<T, sqlx::Error>
where
    F: Future<Output = Result<T, sqlx::Error>>,
{
    while_passing(call, is_passing).await
}

/// As [`persistently`], for calls that read for people: one that took too long is not made again,
/// since it would take as long again.
pub(crate) async fn reading<T, F>(call: impl Fn() -> F) -> Result<T, sqlx::Error>
where
    F: Future<Output = Result<T, sqlx::Error>>,
{
    while_passing(call, |error| is_passing(error) && !is_late(error)).await
}

async fn while_passing<T, F>(
    call: impl Fn() -> F,
    is_passing: impl Fn(&sqlx::Error) -> bool,
) -> Result<T, sqlx::Error>
where
    F: Future<Output = Result<T, sqlx::Error>>,
{
    for pause in PAUSES {
        match attempt(call()).await {
            Err(error) if is_passing(&error) => rest(pause).await,
            outcome => return outcome,
        }
    }
    attempt(call()).await
}

/// Returns whether a call was given up because it took too long.
fn is_late(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut)
}

/// Returns whether the server ended a statement that took too long.
pub(crate) fn is_cancelled(error: &sqlx::Error) -> bool {
    has_code(error, "57014")
}

/// Returns whether a lock was waited for in vain.
pub(crate) fn is_held(error: &sqlx::Error) -> bool {
    has_code(error, "55P03")
}

pub(crate) fn has_code(error: &sqlx::Error, code: &str) -> bool {
    let found = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    found.as_deref() == Some(code)
}

#[expect(clippy::disallowed_methods, reason = "the database and its network have no other clock")]
pub(crate) async fn rest(pause: Duration) {
    tokio::time::sleep(pause).await;
}

/// Returns whether the same call may succeed on another connection, or a moment later.
fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            // Connections that broke, the server's shutdowns and restarts; deadlocks and the like
            // (PostgreSQL, "Error Codes"); and a server that is no longer the primary.
            code.starts_with("08")
                || code.starts_with("57P0")
                || code.starts_with("40")
                || code == "25006"
        }),
        _ => false,
    }
}

/// Returns what an error of PostgreSQL means to whoever uses the store.
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

/// Says that a call waited for a connection in vain. The pool does not tell what its tries met.
#[derive(Debug, Error)]
#[error("no connection in time: the database cannot be reached, or all connections are in use")]
struct NoConnection(#[source] sqlx::Error);

/// Says that the store was closed.
pub(crate) fn closed() -> StoreError {
    StoreError::Unavailable { source: io::Error::other("the store is closed").into() }
}

/// Says that the publisher ended without an answer.
pub(crate) fn lost() -> StoreError {
    let why = "the store was closed, or has a bug; whether it was published is not known";
    StoreError::Unavailable { source: io::Error::other(why).into() }
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
    pub(crate) fn in_column(self, column: usize) -> sqlx::Error {
        sqlx::Error::ColumnDecode { index: column.to_string(), source: self.into() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_never_answered_fails_as_a_broken_connection_does() {
        let outcome = attempt(std::future::pending::<Result<(), _>>()).await;
        assert!(is_passing(&outcome.unwrap_err()));
    }

    #[test]
    fn waiting_for_a_connection_in_vain_is_told_as_such() {
        let StoreError::Unavailable { source } = store_error(sqlx::Error::PoolTimedOut) else {
            panic!("another error")
        };
        assert!(source.to_string().contains("cannot be reached, or all"), "{source}");
        assert!(source.source().is_some_and(<dyn std::error::Error>::is::<sqlx::Error>));
    }

    #[tokio::test(start_paused = true)]
    async fn what_took_too_long_is_made_again_unless_it_reads_for_people() {
        let count = AtomicUsize::new(0);
        let call = || {
            count.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<Result<(), _>>()
        };
        reading(call).await.unwrap_err();
        assert_eq!(count.swap(0, Ordering::SeqCst), 1);
        persistently(call).await.unwrap_err();
        assert_eq!(count.into_inner(), 1 + PAUSES.len());
    }
}
