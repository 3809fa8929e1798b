//! Reading: connections beside the writer's, with limits on their number and on the time of a read.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, ffi};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use webhooks_dispatch::monitor::{ConnectionGauges, Waiting};
use webhooks_dispatch::store::StoreError;

use crate::connection::open_for_reading;
use crate::error::{Closed, SlowRead, store_error, unavailable};
use crate::file::beside;

/// The number of reads at once; further ones wait.
const MAX_READERS: u32 = 4;

/// The time that a read may take.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The number of steps of SQLite between two checks whether a read should go on: about a millisecond.
const CHECK_STEPS: i32 = 100_000;

/// The size of the log in bytes from which a read first waits until it is emptied.
const LONG_LOG: u64 = 64 * 1024 * 1024;

/// The connections that read.
pub(crate) struct Readers {
    path: PathBuf,
    /// The idle connections of each [`Reader`].
    idle: [Mutex<Vec<Connection>>; 2],
    /// Whether connections are closed after each read.
    is_closing: AtomicBool,
    turns: Arc<Semaphore>,
    waiting: Waiting,
    timeout: Duration,
    /// Whether reads block their callers, so that a run can be repeated exactly.
    #[cfg(feature = "sabotage")]
    pub(crate) is_inline: AtomicBool,
}

/// The party whose statements a connection runs. An application's settings of its connections, such as
/// temporary tables, must not change the reads of the store.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reader {
    Application,
    Store,
}

/// The caller of a read. Dropping it ends the read.
struct Caller(Arc<AtomicBool>);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Readers {
    pub(crate) fn new(path: &Path) -> Self {
        let turns = usize::try_from(MAX_READERS).unwrap_or(1);
        let turns = Arc::new(Semaphore::new(turns));
        Self {
            path: path.to_owned(),
            idle: Default::default(),
            is_closing: AtomicBool::new(false),
            turns,
            waiting: Waiting::default(),
            timeout: READ_TIMEOUT,
            #[cfg(feature = "sabotage")]
            is_inline: AtomicBool::new(false),
        }
    }

    /// Waits for a turn to read. The turn ends when it is dropped.
    pub(crate) async fn turn(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        let turns = Arc::clone(&self.turns);
        let _waiting = self.waiting.begin();
        turns.acquire_owned().await.map_err(closed)
    }

    /// Closes the connections, before the writer closes its own: the last one that is closed removes the log,
    /// and one that only reads cannot. A read that goes on closes its connection at its end.
    pub(crate) fn close(&self) {
        for reader in [Reader::Application, Reader::Store] {
            let mut idle = self.idle(reader);
            self.is_closing.store(true, Ordering::Relaxed);
            idle.clear();
        }
    }

    pub(crate) fn gauges(&self) -> ConnectionGauges {
        let max = u64::from(MAX_READERS);
        let idle =
            [Reader::Application, Reader::Store].map(|reader| self.idle(reader).len() as u64);
        ConnectionGauges {
            purpose: "read",
            max,
            idle: idle.iter().sum(),
            in_use: max.saturating_sub(self.turns.available_permits() as u64),
            waiting: self.waiting.read(),
        }
    }

    /// If the log is long, waits until nobody reads, and returns a permit that keeps others from
    /// reading while the log is emptied. SQLite can write the log from its start again only while
    /// nobody reads, so reads that always overlap would let it grow without end.
    pub(crate) async fn exclusive_turn(&self) -> Result<Option<OwnedSemaphorePermit>, StoreError> {
        if !self.is_log_long() {
            return Ok(None);
        }
        let turns = Arc::clone(&self.turns);
        let all = {
            let _waiting = self.waiting.begin();
            turns.acquire_many_owned(MAX_READERS).await.map_err(closed)?
        };
        // Of several callers that waited here, the first has emptied the log.
        Ok(self.is_log_long().then_some(all))
    }

    fn is_log_long(&self) -> bool {
        std::fs::metadata(beside(&self.path, "-wal")).is_ok_and(|log| log.len() > LONG_LOG)
    }

    /// Reads in a thread that may block. Ends the read when its caller is gone, or after 30 s.
    pub(crate) async fn read<T: Send + 'static>(
        self: Arc<Self>,
        turn: OwnedSemaphorePermit,
        reader: Reader,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        #[cfg(feature = "sabotage")]
        if self.is_inline.load(Ordering::Relaxed) {
            let is_over = Arc::default();
            return self.read_now(turn, reader, is_over, read).map_err(read_error);
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let _caller = Caller(Arc::clone(&is_over));
        let read =
            tokio::task::spawn_blocking(move || self.read_now(turn, reader, is_over, read)).await;
        let read = read.map_err(|panic| StoreError::Unavailable { source: panic.into() })?;
        read.map_err(read_error)
    }

    fn read_now<T>(
        &self,
        _turn: OwnedSemaphorePermit,
        reader: Reader,
        is_over: Arc<AtomicBool>,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let idle = self.idle(reader).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => open_for_reading(&self.path)?,
        };
        // SQLite calls this while it reads: a blocking read cannot be cancelled from outside.
        let until = until(self.timeout);
        let was_ended = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&was_ended);
        let is_over = move || {
            let is_over = is_over.load(Ordering::Relaxed) || is_past(until);
            ends.fetch_or(is_over, Ordering::Relaxed);
            is_over
        };
        connection.progress_handler(CHECK_STEPS, Some(is_over))?;
        let found = read(&connection);
        connection.progress_handler(CHECK_STEPS, None::<fn() -> bool>)?;
        if !connection.is_autocommit() {
            // A transaction that stays open would keep the log from being emptied.
            connection.execute_batch("ROLLBACK")?;
        }
        let mut idle = self.idle(reader);
        if !self.is_closing.load(Ordering::Relaxed) {
            idle.push(connection);
        }
        drop(idle);
        // An application's closure may have hidden the error.
        let is_whole = !was_ended.load(Ordering::Relaxed);
        if is_whole { found } else { Err(interrupted()) }
    }

    fn idle(&self, reader: Reader) -> MutexGuard<'_, Vec<Connection>> {
        let [application, store] = &self.idle;
        let idle = match reader {
            Reader::Application => application,
            Reader::Store => store,
        };
        idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::disallowed_methods, reason = "a file has no other clock")]
pub(crate) fn until(timeout: Duration) -> Instant {
    Instant::now() + timeout
}

#[expect(clippy::disallowed_methods, reason = "a file has no other clock")]
pub(crate) fn is_past(until: Instant) -> bool {
    Instant::now() > until
}

fn interrupted() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_INTERRUPT), None)
}

fn read_error(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => unavailable(SlowRead),
        _ => store_error(error),
    }
}

fn closed(_: AcquireError) -> StoreError {
    unavailable(Closed)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::task::Poll;

    use futures_util::future::{join_all, poll_fn};
    use webhooks_core::Timestamp;
    use webhooks_dispatch::{
        history::{HistoryStore as _, Query},
        store::{DeliveryStore as _, SerializedEvent},
    };

    use super::*;
    use crate::SqliteStore;

    /// A read that runs until it is ended.
    const ENDLESS: &str = "
        WITH RECURSIVE n(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM n)
        SELECT count(*) FROM n";

    /// Polls once, and expects that the future goes on.
    async fn begin<F: Future + Unpin>(future: &mut F) {
        poll_fn(|context| {
            assert!(std::pin::Pin::new(&mut *future).poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn no_log_is_left_of_a_store_that_was_read_and_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let store = SqliteStore::open(&path).await.unwrap();
        store.events(Query::default()).await.unwrap();
        store.close().await;
        assert!(path.exists() && !folder.path().join("store.db-wal").exists());
    }

    #[tokio::test]
    async fn a_read_whose_caller_is_gone_ends() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
        let (began, begins) = mpsc::channel();
        let reads = (0..MAX_READERS).map(|_| {
            let (store, began) = (store.clone(), began.clone());
            Box::pin(async move {
                let endless = move |connection: &Connection| {
                    began.send(()).unwrap();
                    connection.query_row(ENDLESS, (), |row| row.get::<_, i64>(0))
                };
                store.read_rows(endless).await
            })
        });
        let mut all = join_all(reads);
        begin(&mut all).await;
        (0..MAX_READERS).for_each(|_| begins.recv().unwrap());
        let mut another = Box::pin(store.events(Query::default()));
        begin(&mut another).await;
        drop(all);
        assert_eq!(another.await.unwrap().items.len(), 0, "there is a turn for it");
    }

    #[tokio::test]
    async fn a_read_that_takes_too_long_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let _store = SqliteStore::open(&path).await.unwrap();
        let readers = Arc::new(Readers { timeout: Duration::ZERO, ..Readers::new(&path) });
        let endless = |connection: &Connection| connection.query_row(ENDLESS, (), |_| Ok(()));
        let turn = readers.turn().await.unwrap();
        let error = Arc::clone(&readers).read(turn, Reader::Store, endless).await.unwrap_err();
        let StoreError::Unavailable { source } = error else { panic!("{error:?}") };
        assert!(source.to_string().contains("took longer"), "{source}");
        let turn = readers.turn().await.unwrap();
        let quick = |connection: &Connection| connection.query_row("SELECT 1", (), |_| Ok(()));
        assert!(
            readers.read(turn, Reader::Store, quick).await.is_ok(),
            "the connection is as good as new"
        );
    }

    /// Goal: reads that overlap don't let the log grow for ever. Method: one read goes on while more
    /// is written than the log should hold; then two more come.
    #[tokio::test]
    async fn a_long_log_is_emptied_before_more_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let store = SqliteStore::open(&path).await.unwrap();
        let (end, ends) = mpsc::channel::<()>();
        let (began, begins) = mpsc::channel();
        let mut first = Box::pin(store.read_rows(move |connection| {
            let count = "SELECT count(*) FROM events";
            let mut statement = connection.prepare(count)?;
            let mut rows = statement.query(())?;
            let _row = rows.next()?;
            began.send(()).unwrap();
            ends.recv().unwrap();
            Ok(())
        }));
        begin(&mut first).await;
        begins.recv().unwrap();
        let large = "x".repeat(8 << 20);
        for n in 0..9 {
            let event = webhooks_core::Event::new("created", format!("{n}{large}")).unwrap();
            let published =
                store.publish(vec![SerializedEvent::new(&event)], Timestamp::UNIX_EPOCH);
            assert!(published.await.unwrap()[0].is_ok());
        }
        let log = || std::fs::metadata(folder.path().join("store.db-wal")).unwrap().len();
        assert!(log() > LONG_LOG);
        let mut others = join_all((0..2).map(|_| Box::pin(store.events(Query::default()))));
        begin(&mut others).await;
        end.send(()).unwrap();
        first.await.unwrap();
        for page in others.await {
            assert_eq!(page.unwrap().items.len(), 9);
        }
        assert_eq!(log(), 0);
    }
}
