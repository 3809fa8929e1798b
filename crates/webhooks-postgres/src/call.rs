//! Calls to the database: the connections, the time that a call may take, and when it is repeated.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, PgPool, Postgres};
use tokio::time::timeout;
use webhooks_dispatch::{
    clock::{Clock as _, MonotonicTime, SystemClock},
    monitor::{ConnectionGauges, DurationHistogram, StoreActivity, Waiting},
};

use crate::error::is_transient;

/// The pauses before a call that failed is made again, if it may succeed then: a restart or a
/// failover takes some seconds.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(20),
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// The longest time that a call may take. Without it, a server that vanished without closing its
/// connections would block publishing, claims and heartbeats until the network reports an error.
///
/// It is longer than the wait for a connection and the timeout of a statement together
/// (`options.rs` checks that), so that a live server ends its slow statements itself.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The connections to the database.
pub(crate) struct Database {
    /// For publishing, claims, settlements, heartbeats and changes of endpoints.
    pub(crate) pool: PgPool,
    /// For history and lists, which may be slow: they take no connection from the rest.
    pub(crate) reading: PgPool,
    /// The statements that begin a transaction, with the settings that a session has otherwise.
    pub(crate) begin_statements: Arc<str>,
    /// Whether a single statement needs a transaction of its own too, for those settings.
    pub(crate) needs_transactions: bool,
    /// Whether statements may stay prepared on a connection.
    pub(crate) prepares: bool,
    pub(crate) counts: Arc<CallCounts>,
}

/// Counts of calls.
#[derive(Default)]
pub(crate) struct CallCounts {
    /// The commits of calls that may write.
    commits: DurationHistogram,
    /// The publishers that shared a commit with another one.
    sharers: AtomicU64,
    waiting: Waiting,
    waiting_to_read: Waiting,
}

impl Database {
    /// Begins a transaction; on another connection if the first one turns out to be broken.
    pub(crate) async fn begin(&self) -> Result<Call, sqlx::Error> {
        with_retries(|| self.transaction(Purpose::Write)).await
    }

    /// Begins a call of a single statement.
    pub(crate) async fn call(&self) -> Result<Call, sqlx::Error> {
        self.call_on(Purpose::Write).await
    }

    /// Begins a call that reads for history or a list.
    pub(crate) async fn reading_call(&self) -> Result<Call, sqlx::Error> {
        self.call_on(Purpose::Read).await
    }

    /// Begins a call that reads a page of history: a few rows of large tables, in the order of an
    /// index. The planner does not know how few, and might read all rows to join or to sort them. Parallel
    /// workers would lose the order.
    pub(crate) async fn page_call(&self) -> Result<Call, sqlx::Error> {
        const SETTINGS: &str = "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off;
            SET LOCAL enable_sort = off; SET LOCAL enable_seqscan = off;
            SET LOCAL enable_bitmapscan = off; SET LOCAL jit = off;
            SET LOCAL max_parallel_workers_per_gather = 0";
        let mut call = self.transaction(Purpose::Read).await?;
        sqlx::raw_sql(SETTINGS).execute(call.connection()).await?;
        Ok(call)
    }

    /// Notes that one commit published the events of several callers.
    pub(crate) fn note_group(&self, callers: usize) {
        let sharers = callers.saturating_sub(1) as u64;
        self.counts.sharers.fetch_add(sharers, Ordering::Relaxed);
    }

    pub(crate) fn activity(&self) -> StoreActivity {
        let gauges = |purpose, pool: &PgPool, waiting: &Waiting| {
            let idle = pool.num_idle() as u64;
            let max = u64::from(pool.options().get_max_connections());
            let in_use = u64::from(pool.size()).saturating_sub(idle);
            ConnectionGauges { purpose, max, idle, in_use, waiting: waiting.read() }
        };
        let CallCounts { commits, sharers, waiting, waiting_to_read } = &*self.counts;
        let commits = commits.read();
        StoreActivity {
            commits,
            calls: commits.count() + sharers.load(Ordering::Relaxed),
            connections: vec![
                gauges("write", &self.pool, waiting),
                gauges("read", &self.reading, waiting_to_read),
            ],
        }
    }

    /// Closes all connections.
    pub(crate) async fn close(&self) {
        tokio::join!(self.pool.close(), self.reading.close());
    }

    async fn call_on(&self, purpose: Purpose) -> Result<Call, sqlx::Error> {
        if self.needs_transactions {
            return self.transaction(purpose).await;
        }
        self.connect(purpose, State::Statement).await
    }

    async fn connect(&self, purpose: Purpose, state: State) -> Result<Call, sqlx::Error> {
        let (pool, waiting) = match purpose {
            Purpose::Read => (&self.reading, &self.counts.waiting_to_read),
            Purpose::Write => (&self.pool, &self.counts.waiting),
        };
        let connection = {
            let _waiting = waiting.begin();
            pool.acquire().await?
        };
        let write = (purpose == Purpose::Write)
            .then(|| (Arc::clone(&self.counts), SystemClock.monotonic()));
        Ok(Call { connection, state, prepares: self.prepares, write })
    }

    async fn transaction(&self, purpose: Purpose) -> Result<Call, sqlx::Error> {
        let mut call = self.connect(purpose, State::Transaction).await?;
        sqlx::raw_sql(AssertSqlSafe(Arc::clone(&self.begin_statements)))
            .execute(call.connection())
            .await?;
        Ok(call)
    }
}

/// A connection for a single statement, or for a transaction.
///
/// Behind a pooler that hands connections on after each transaction, a single statement is a
/// transaction too.
///
/// If a call is dropped before its end, it has failed, or its caller stopped waiting. Its connection
/// is closed then: it may lead to a server that is gone or no longer the primary, and the pool
/// would wait for an answer of that server.
pub(crate) struct Call {
    connection: PoolConnection<Postgres>,
    state: State,
    prepares: bool,
    /// The counts, and the time since which it has its connection, of a call that may write.
    write: Option<(Arc<CallCounts>, MonotonicTime)>,
}

/// The use of a call, which decides about its pool.
#[derive(Clone, Copy, PartialEq)]
enum Purpose {
    Read,
    Write,
}

/// The state of a call's connection.
#[derive(PartialEq)]
enum State {
    Statement,
    Transaction,
    Ended,
}

impl Call {
    pub(crate) fn connection(&mut self) -> &mut sqlx::PgConnection {
        &mut self.connection
    }

    /// Returns whether statements may stay prepared on the connection.
    pub(crate) fn prepares(&self) -> bool {
        self.prepares
    }

    /// Ends the call, and commits its transaction if it is one.
    pub(crate) async fn commit(mut self) -> Result<(), sqlx::Error> {
        let write = self.write.take();
        self.end("COMMIT").await?;
        if let Some((counts, since)) = write {
            counts.commits.record(SystemClock.monotonic().saturating_since(since));
        }
        Ok(())
    }

    /// Ends the call, and rolls its transaction back if it is one. The connection stays in use.
    pub(crate) async fn rollback(self) -> Result<(), sqlx::Error> {
        self.end("ROLLBACK").await
    }

    /// Ends the call because of an error that is not the connection's, and returns that error.
    pub(crate) async fn refuse<E>(self, error: E) -> E {
        // If that fails, the connection is closed, and the server ends the transaction.
        let _closed = self.rollback().await;
        error
    }

    async fn end(mut self, command: &'static str) -> Result<(), sqlx::Error> {
        if self.state == State::Transaction {
            sqlx::raw_sql(command).execute(self.connection()).await?;
        }
        self.state = State::Ended;
        Ok(())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.state != State::Ended {
            self.connection.close_on_drop();
        }
    }
}

/// Makes a call once, for at most [`CALL_TIMEOUT`]. The future that is dropped then closes its
/// connection.
pub(crate) async fn with_timeout<T>(
    call: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let elapsed = |_elapsed| {
        let source = io::Error::new(io::ErrorKind::TimedOut, "the database did not answer in time");
        sqlx::Error::Io(source)
    };
    timeout(CALL_TIMEOUT, call).await.map_err(elapsed)?
}

/// Makes a call, and makes it again if its connection broke or another transaction was in the way.
/// For calls that may be made twice.
pub(crate) async fn with_retries<T, F>(call: impl Fn() -> F) -> Result<T, sqlx::Error>
where
    F: Future<Output = Result<T, sqlx::Error>>,
{
    retry_if(call, is_transient).await
}

/// As [`with_retries`], for history and lists: a call that timed out is not made again, since it
/// would take as long again.
pub(crate) async fn with_read_retries<T, F>(call: impl Fn() -> F) -> Result<T, sqlx::Error>
where
    F: Future<Output = Result<T, sqlx::Error>>,
{
    retry_if(call, |error| is_transient(error) && !is_timeout(error)).await
}

async fn retry_if<T, F>(
    call: impl Fn() -> F,
    may_succeed: impl Fn(&sqlx::Error) -> bool,
) -> Result<T, sqlx::Error>
where
    F: Future<Output = Result<T, sqlx::Error>>,
{
    for duration in PAUSES {
        match with_timeout(call()).await {
            Err(error) if may_succeed(&error) => pause(duration).await,
            outcome => return outcome,
        }
    }
    with_timeout(call()).await
}

/// Returns whether a call was ended by its timeout.
fn is_timeout(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut)
}

/// Waits for `duration`.
#[expect(clippy::disallowed_methods, reason = "the database and its network have no other clock")]
pub(crate) async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_never_answered_fails_as_a_broken_connection_does() {
        let outcome = with_timeout(std::future::pending::<Result<(), _>>()).await;
        assert!(is_transient(&outcome.unwrap_err()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_took_too_long_is_made_again_unless_it_reads_for_people() {
        let count = AtomicUsize::new(0);
        let call = || {
            count.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<Result<(), _>>()
        };
        with_read_retries(call).await.unwrap_err();
        assert_eq!(count.swap(0, Ordering::SeqCst), 1);
        with_retries(call).await.unwrap_err();
        assert_eq!(count.into_inner(), 1 + PAUSES.len());
    }
}
