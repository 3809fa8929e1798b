//! The store: each call is a command to the writer, a look into memory, or a read.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};
use webhooks_core::Timestamp;
use webhooks_dispatch::store::StoreError;

use crate::checkpoint::Checkpoint;
use crate::command::{BoxedCommand, Command, WriteCommand};
use crate::error::{Closed, Panicked, TransactionError, unavailable};
use crate::inner::SqliteInner;
use crate::readers::Reader;
use crate::transaction::{Transact, Transaction};

/// A store of endpoints, events and deliveries in one SQLite file, which one process owns.
///
/// One thread writes, and commits all waiting commands at once. An answer means that the change is on
/// disk. Cloning is cheap; all clones are one store. The store ends, and frees its file, when the last
/// clone is dropped, or with [`close`](Self::close).
///
/// # Example
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use webhooks_dispatch::{Engine, FnTransport};
/// use webhooks_sqlite::SqliteStore;
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("webhooks.db");
/// let store = SqliteStore::open(path).await?;
/// let engine = Engine::new(store, FnTransport::new(|_, _, _, _| async { (200, "") }));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SqliteStore {
    pub(crate) inner: Arc<SqliteInner>,
    pub(crate) commands: mpsc::Sender<BoxedCommand>,
}

impl SqliteStore {
    /// Sends a command to the writer, and returns its answer.
    pub(crate) async fn write<W: WriteCommand>(&self, write: W) -> Result<W::Answer, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(Box::new(Command::new(write, reply)), answer).await
    }

    async fn send<A>(
        &self,
        command: BoxedCommand,
        answer: oneshot::Receiver<Result<A, StoreError>>,
    ) -> Result<A, StoreError> {
        if self.commands.send(command).await.is_err() {
            self.inner.check_open()?;
            // The writer takes no more commands, and is about to end.
            return Err(unavailable(Closed));
        }
        // The writer answers every command that it took, unless it panics.
        answer.await.map_err(|_gone| unavailable(Panicked))?
    }

    /// Runs a closure in a transaction of this file: the application's own rows, and the events that
    /// tell of them, are committed together, or not at all.
    ///
    /// An answer `Ok` means that all of it is on disk, and any worker of this process delivers the
    /// events. If the closure returns an error or panics, nothing of it is stored. Either way, the
    /// commands of other callers, which share the commit, are not affected.
    ///
    /// The closure **may run more than once**. If the commit fails, the writer tries each of its commands
    /// again alone. Only the last run counts, so the closure must have no effect except through the
    /// [`Transaction`]; after an error it may have run to its end, too. It runs in the one thread that
    /// writes, and everybody waits for it. So keep it short, without I/O of its own, and never wait in it
    /// for another call of this store.
    ///
    /// A row of the application may refer to an event by its id. A foreign key to a table of the store
    /// would keep old events from being deleted.
    ///
    /// # Errors
    /// * [`Refused`](TransactionError::Refused) when the closure returned an error.
    /// * [`Panicked`](TransactionError::Panicked) when it panicked.
    /// * [`Store`](TransactionError::Store) when the store failed, a deferred constraint did not hold at
    ///   the commit, or the rows would use the reserve of
    ///   [`SqliteOptions::max_bytes`](crate::SqliteOptions::max_bytes).
    ///
    /// # Cancellation
    /// A dropped future may or may not have committed the transaction.
    ///
    /// # Example
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::error::Error;
    /// use webhooks_core::Event;
    /// use webhooks_sqlite::{SqliteStore, Transaction};
    ///
    /// /// Either the order and its event are stored, or neither.
    /// fn place(transaction: &mut Transaction<'_>, id: i64) -> Result<(), Box<dyn Error + Send + Sync>> {
    ///     transaction.execute("INSERT INTO orders (id) VALUES (?)", [id])?;
    ///     transaction.publish(&Event::new("order.placed", id)?)?;
    ///     Ok(())
    /// }
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("shop.db");
    /// let store = SqliteStore::open(path).await?;
    /// let table = "CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY)";
    /// store.transaction(|transaction| transaction.execute_batch(table)).await?;
    /// store.transaction(|transaction| place(transaction, 17)).await?;
    /// let refused = store.transaction(|transaction| place(transaction, 17)).await;
    /// assert!(refused.is_err(), "there is an order 17");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn transaction<T, E>(
        &self,
        work: impl FnMut(&mut Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, TransactionError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        // The time of acceptance. A worker's `hasten` repairs the due times of a clock that was ahead.
        // Not by `write`, whose future would hold the closure: the compiler then cannot prove that the
        // future of a caller which passes a closure on is `Send`.
        let (reply, answer) = oneshot::channel();
        let transact = Command::new(Transact::new(work, Timestamp::now()), reply);
        self.send(Box::new(transact), answer).await?
    }

    /// Runs a closure that reads the file, such as the application's own tables, on a connection of its
    /// own. It does not wait for the writer, and sees one state of the file: that of the last commit
    /// before its first statement.
    ///
    /// Four reads run at once, those of the store's history included; further ones wait.
    ///
    /// # Errors
    /// * [`Refused`](TransactionError::Refused) when the closure returned an error.
    /// * [`Panicked`](TransactionError::Panicked) when it panicked.
    /// * [`Store`](TransactionError::Store) when the file cannot be read, or SQLite was still busy after
    ///   30 s.
    ///
    /// # Cancellation
    /// The read ends, unless it is busy outside SQLite.
    ///
    /// # Example
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use webhooks_sqlite::SqliteStore;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("shop.db");
    /// let store = SqliteStore::open(path).await?;
    /// let count = "SELECT count(*) FROM events";
    /// let count: i64 = store.read(move |file| file.query_row(count, (), |row| row.get(0))).await?;
    /// assert_eq!(count, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn read<T, E>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, TransactionError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let read = move |connection: &Connection| {
            // `Readers` ends it.
            connection.execute_batch("BEGIN")?;
            Ok(catch_unwind(AssertUnwindSafe(|| work(connection))))
        };
        match self.read_as(Reader::Application, read).await? {
            Ok(outcome) => outcome.map_err(TransactionError::Refused),
            Err(_panic) => Err(TransactionError::Panicked),
        }
    }

    /// Reads the store's own tables. A read fails after 30 s, and ends when its caller is gone.
    pub(crate) async fn read_rows<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.read_as(Reader::Store, read).await
    }

    async fn read_as<T: Send + 'static>(
        &self,
        reader: Reader,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let readers = &self.inner.readers;
        // The exclusive turn has all permits, so it must end before this read waits for its own.
        if let Some(_exclusive) = readers.exclusive_turn().await? {
            self.write(Checkpoint).await?;
        }
        let turn = readers.turn().await?;
        Arc::clone(readers).read(turn, reader, read).await
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.inner.path).finish_non_exhaustive()
    }
}
