//! Transactions of the application: its own rows and its events in one commit.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rusqlite::{Connection, ErrorCode, Params, Row, ffi};
use webhooks_core::Timestamp;
use webhooks_dispatch::{Publication, Published, store::StoreError};

use crate::command::WriteCommand;
use crate::error::{OnlyReserve, PublishInError, TransactionError, store_error};
use crate::inner::SqliteInner;
use crate::publish::Publish;
use crate::write_connection::WriteConnection;

const DENIED: &str = "the statement is not allowed in a transaction of the store: it must not begin or \
    end a transaction, set a savepoint, attach a file, use temporary tables, change settings, or \
    change the store's own tables; to roll back, return an error";

const SLOW: &str = "the statement took longer than 30 s, and everybody who writes waited for it; \
    do the work in smaller transactions";

/// A transaction in the file of a store, for the closure of
/// [`SqliteStore::transaction`](crate::SqliteStore::transaction).
///
/// Its statements may read every table, and change all except those of the store: `attempts`,
/// `counters`, `deliveries`, `endpoints`, `events`, `figures` and `jobs`. They may also create tables,
/// indexes, triggers and views. Statements are prepared once for all transactions.
///
/// The writer begins and commits. So `BEGIN`, `COMMIT`, `ROLLBACK`, `SAVEPOINT`, `ATTACH`, temporary
/// tables, and pragmas that change settings fail, with an error that says so. To roll back, return an
/// error from the closure.
///
/// A statement may take 30 s.
///
/// After an error, the transaction can go on without the statement that failed. Some errors make SQLite
/// end the whole transaction, as a full disk does; then every later call fails.
pub struct Transaction<'t> {
    connection: &'t mut WriteConnection,
    inner: &'t SqliteInner,
    now: Timestamp,
    published: Vec<Publish>,
    /// The error with which SQLite ended the transaction.
    ended: Option<rusqlite::Error>,
}

impl Transaction<'_> {
    /// Runs a statement; returns the number of rows that it changed.
    ///
    /// # Errors
    /// [`rusqlite::Error`] when the statement fails, returns rows, or is not allowed here.
    pub fn execute(&mut self, sql: &str, parameters: impl Params) -> rusqlite::Result<usize> {
        self.run(|connection| connection.prepare_cached(&application(sql))?.execute(parameters))
    }

    /// Runs several statements without parameters, such as those of a migration.
    ///
    /// # Errors
    /// [`rusqlite::Error`] of the first statement that fails or is not allowed here. Those before it
    /// have run.
    pub fn execute_batch(&mut self, sql: &str) -> rusqlite::Result<()> {
        self.run(|connection| connection.execute_batch(sql))
    }

    /// Returns what `read` makes of each row of a query. All are in memory at once, so give a query
    /// that can find many rows a `LIMIT`.
    ///
    /// # Errors
    /// [`rusqlite::Error`] when the query fails or is not allowed here, or that of `read`.
    pub fn query<T>(
        &mut self,
        sql: &str,
        parameters: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        self.run(|connection| {
            let mut statement = connection.prepare_cached(&application(sql))?;
            statement.query_map(parameters, read)?.collect()
        })
    }

    /// Returns what `read` makes of the first row of a query.
    ///
    /// # Errors
    /// [`rusqlite::Error::QueryReturnedNoRows`] without a row (see
    /// [`OptionalExtension`](rusqlite::OptionalExtension)); otherwise as for [`query`](Self::query).
    pub fn query_row<T>(
        &mut self,
        sql: &str,
        parameters: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.run(|connection| {
            connection.prepare_cached(&application(sql))?.query_row(parameters, read)
        })
    }

    /// Returns the number of the row that was inserted last.
    pub fn last_insert_rowid(&self) -> i64 {
        self.connection.sqlite().last_insert_rowid()
    }

    /// Publishes an event in this transaction: it is accepted when the transaction is committed, and
    /// never sent if that is rolled back.
    ///
    /// A [`Publication`] says more about the deliveries than an event alone. An endpoint of
    /// [`Publication::only`] that is not registered, or is disabled, gets nothing.
    ///
    /// An event that is published again, with the same id and content, changes nothing, and the first
    /// result is returned. Observers of an engine get no
    /// [`Occurrence::Published`](webhooks_dispatch::observer::Occurrence::Published) for it.
    ///
    /// # Errors
    /// [`PublishInError`] when the event was not stored. The transaction is still committed, unless the
    /// closure returns an error.
    pub fn publish(
        &mut self,
        publication: impl Into<Publication>,
    ) -> Result<Published, PublishInError> {
        let event = publication.into().into_serialized();
        let (len, max) = (event.body.len(), self.inner.max_body);
        if len > max {
            return Err(PublishInError::TooLarge { len, max });
        }
        event.check_labels()?;
        if event.is_too_far_ahead(self.now) {
            return Err(PublishInError::TooFarAhead);
        }
        self.check_open().map_err(store_error)?;
        let mut publish = Publish::new(vec![event], self.now);
        let inner = self.inner;
        // An event without all its deliveries must not be committed, even if the closure goes on.
        let written = self.connection.savepoint_for_rows(|part| publish.write_rows(part, inner));
        written.map_err(|error| store_error(self.record(error)))?;
        let published = publish.only_outcome()?;
        self.published.push(publish);
        Ok(published)
    }

    fn run<T>(
        &mut self,
        statement: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.check_open()?;
        let guard = self.connection.guard.turn_on();
        let outcome = statement(self.connection.sqlite());
        drop(guard);
        outcome.map_err(|error| self.record(error))
    }

    /// Fails once SQLite has ended the transaction: a statement would be committed by itself.
    fn check_open(&self) -> rusqlite::Result<()> {
        if self.connection.is_writing() { Ok(()) } else { Err(ended()) }
    }

    /// Explains an error of the guard, and remembers one that ended the transaction.
    fn record(&mut self, error: rusqlite::Error) -> rusqlite::Error {
        let error = match error.sqlite_error_code() {
            Some(ErrorCode::AuthorizationForStatementDenied) => failure(ffi::SQLITE_AUTH, DENIED),
            Some(ErrorCode::OperationInterrupted) => failure(ffi::SQLITE_INTERRUPT, SLOW),
            _ => error,
        };
        if !self.connection.is_writing() && self.ended.is_none() {
            self.ended = Some(match &error {
                rusqlite::Error::SqliteFailure(code, text) => {
                    rusqlite::Error::SqliteFailure(*code, text.clone())
                }
                _ => ended(),
            });
        }
        error
    }
}

impl fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").field("now", &self.now).finish_non_exhaustive()
    }
}

/// Marks a statement of the application in the cache of prepared statements. Without it, `COMMIT` would
/// find the writer's own statement there, which is not asked about again.
fn application(sql: &str) -> String {
    format!("/* application */ {sql}")
}

fn ended() -> rusqlite::Error {
    failure(ffi::SQLITE_ABORT, "an earlier error has ended the transaction; return an error")
}

fn failure(code: i32, text: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(text.to_owned()))
}

/// Runs a closure of the application in a part of the writer's transaction that can fail alone.
pub(crate) struct Transact<F, T, E> {
    work: F,
    now: Timestamp,
    /// The outcome of the last run; before the first, a stand-in.
    outcome: Result<T, TransactionError<E>>,
    published: Vec<Publish>,
}

impl<F, T, E> Transact<F, T, E> {
    pub(crate) fn new(work: F, now: Timestamp) -> Self {
        Self { work, now, outcome: Err(TransactionError::Panicked), published: Vec::new() }
    }
}

impl<F, T, E> WriteCommand for Transact<F, T, E>
where
    F: FnMut(&mut Transaction<'_>) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    type Answer = Result<T, TransactionError<E>>;

    // Others may follow it, as they follow `Publish`: it adds deliveries to the backlog, and the guard
    // keeps it from the store's tables.
    const ENDS_GROUP: bool = false;

    fn write(
        &mut self,
        connection: &mut WriteConnection,
        inner: &SqliteInner,
    ) -> rusqlite::Result<()> {
        self.published.clear();
        let room = connection.room()?;
        let numbers = connection.begin_part()?;
        let (now, published) = (self.now, Vec::new());
        let mut transaction = Transaction { connection, inner, now, published, ended: None };
        let worked = catch_unwind(AssertUnwindSafe(|| (self.work)(&mut transaction)));
        let Transaction { connection, published, ended: error, .. } = transaction;
        if !connection.is_writing() {
            // The whole group is lost, and is tried again one by one.
            return Err(error.unwrap_or_else(ended));
        }
        // The application's rows leave the reserve to accepted events, too. A full file can be made smaller.
        let is_too_much = match (room, connection.room()?) {
            (Some(before), Some(after)) => after.events < before.events.min(0),
            _ => false,
        };
        self.outcome = match worked {
            Ok(Ok(_)) if is_too_much => {
                Err(TransactionError::Store(StoreError::Full { source: OnlyReserve.into() }))
            }
            Ok(outcome) => outcome.map_err(TransactionError::Refused),
            Err(_panic) => Err(TransactionError::Panicked),
        };
        if self.outcome.is_err() {
            return connection.undo_part(numbers);
        }
        for publish in &published {
            publish.count(connection);
        }
        self.published = published;
        connection.keep_part()
    }

    fn after_commit(self, connection: &mut WriteConnection, inner: &SqliteInner) -> Self::Answer {
        for publish in self.published {
            // The closure has its result already.
            let _result = publish.after_commit(connection, inner);
        }
        self.outcome
    }
}

#[cfg(test)]
mod tests;
