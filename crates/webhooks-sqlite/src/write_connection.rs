//! The connection that writes, and what the writer holds in memory beside it.

use std::collections::HashMap;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _};
use webhooks_core::DeliveryId;
use webhooks_dispatch::backlog::QueueKey;
use webhooks_dispatch::figures::FigureKind;
use webhooks_dispatch::store::Failing;
use webhooks_registry::{EndpointNumber, seal::SealingKeys};

use crate::figure_book::FigureBook;
use crate::guard::Guard;
use crate::inserter::{Inserter, Numbers};
use crate::limit::{Limit, Room};
use crate::retention_search::RetentionSearch;
use crate::row;

/// The number of deliveries of a closed endpoint that are cancelled in one transaction. Other commands
/// come in between.
const DRAIN_BATCH: i64 = if cfg!(test) { 2 } else { 1_000 };

/// A size that no file without a limit will have in a test.
#[cfg(feature = "sabotage")]
const MOST_BYTES: u64 = 1 << 40;

/// The connection that writes, and the writer's memory of rows.
///
/// That memory is read from the rows again after a rollback, so that `write` of a command may change
/// it. Only `draining` is not: commands change it in `after_commit`.
pub(crate) struct WriteConnection {
    connection: Connection,
    pub(crate) guard: Guard,
    pub(crate) keys: SealingKeys,
    next: Numbers,
    /// The health of the endpoints that fail, as in their rows.
    pub(crate) failing: HashMap<EndpointNumber, Failing>,
    pub(crate) search: RetentionSearch,
    /// The figures of the present transaction.
    pub(crate) figures: FigureBook,
    limit: Option<Limit>,
    /// Rows of closed (disabled or unregistered) endpoints whose waiting deliveries are being cancelled.
    draining: Vec<i64>,
}

impl WriteConnection {
    /// Reads the writer's memory from the rows.
    pub(crate) fn new(
        mut connection: Connection,
        limit: Option<Limit>,
        keys: SealingKeys,
    ) -> rusqlite::Result<Self> {
        let guard = Guard::install(&mut connection)?;
        let next = Numbers::load(&connection)?;
        let mut connection = Self {
            connection,
            guard,
            keys,
            next,
            failing: HashMap::new(),
            search: RetentionSearch::default(),
            figures: FigureBook::default(),
            limit,
            draining: Vec::new(),
        };
        connection.load_failing()?;
        connection.draining = connection.left_over()?;
        Ok(connection)
    }

    fn load_numbers(&mut self) -> rusqlite::Result<()> {
        self.next = Numbers::load(&self.connection)?;
        Ok(())
    }

    fn load_failing(&mut self) -> rusqlite::Result<()> {
        const FAILING: &str = "SELECT number, failing_since, failed_at, tried_for FROM endpoints
            WHERE is_current = 1 AND failing_since IS NOT NULL";
        let mut statement = self.connection.prepare(FAILING)?;
        let rows = statement.query_map((), |row| {
            let failing = Failing {
                since: row::time(row.get(1)?),
                last: row::time(row.get(2)?),
                tried_for: Duration::from_micros(row::unsigned(row.get(3)?)),
            };
            Ok((row::endpoint_number(row.get(0)?), failing))
        })?;
        self.failing = rows.collect::<rusqlite::Result<_>>()?;
        Ok(())
    }

    /// Returns the key of the first waiting delivery of an endpoint.
    pub(crate) fn first_key(&self, endpoint: EndpointNumber) -> rusqlite::Result<Option<QueueKey>> {
        const FIRST: &str = "SELECT due_at, number FROM deliveries
            WHERE endpoint = ? AND due_at IS NOT NULL ORDER BY due_at, number LIMIT 1";
        let mut statement = self.connection.prepare_cached(FIRST)?;
        let key = |row: &rusqlite::Row<'_>| {
            Ok(QueueKey { due_at: row::time(row.get(0)?), delivery: row::delivery_id(row.get(1)?) })
        };
        statement.query_row([row::endpoint(endpoint)], key).optional()
    }

    /// Lets the file grow by `more` bytes from its present size; without limit if `None`.
    #[cfg(feature = "sabotage")]
    pub(crate) fn limit_to(&mut self, more: Option<u64>) -> rusqlite::Result<()> {
        let page: i64 = self.connection.query_row("PRAGMA page_size", (), |row| row.get(0))?;
        let used: i64 = self.connection.query_row("PRAGMA page_count", (), |row| row.get(0))?;
        let used = row::unsigned(used.saturating_mul(page));
        let most = more.map_or(MOST_BYTES, |more| used.saturating_add(more));
        let limit = Limit::set(&self.connection, most)?;
        self.limit = more.is_some().then_some(limit);
        Ok(())
    }

    /// Returns whether deliveries are left to cancel.
    #[cfg(feature = "sabotage")]
    pub(crate) fn is_draining(&self) -> bool {
        !self.draining.is_empty()
    }

    pub(crate) fn begin(&mut self) -> rusqlite::Result<()> {
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute(()).map(drop)
    }

    /// Commits the transaction with its figures.
    pub(crate) fn commit(&mut self) -> rusqlite::Result<()> {
        if self.figures.is_empty() {
            return self.connection.prepare_cached("COMMIT")?.execute(()).map(drop);
        }
        let has_room = self.room()?.is_none_or(|room| room.figures > 0);
        let waiting = self.figures.record(&self.connection, has_room)?;
        self.connection.prepare_cached("COMMIT")?.execute(())?;
        self.figures.after_commit(waiting);
        Ok(())
    }

    /// Returns whether a transaction is open. Some errors of SQLite end it.
    pub(crate) fn is_writing(&self) -> bool {
        !self.connection.is_autocommit()
    }

    /// Writes so that a failure undoes this write alone, unless it ends the whole transaction.
    pub(crate) fn savepoint(
        &self,
        write: impl FnOnce() -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        self.begin_part()?;
        let outcome = write();
        self.end_part_of(outcome)
    }

    /// Does the same for a write that inserts events and deliveries.
    pub(crate) fn savepoint_for_rows(
        &mut self,
        write: impl FnOnce(&mut Self) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        let numbers = self.begin_part()?;
        let outcome = write(self);
        if outcome.is_err() {
            self.next = numbers;
        }
        self.end_part_of(outcome)
    }

    fn end_part_of(&self, outcome: rusqlite::Result<()>) -> rusqlite::Result<()> {
        if self.is_writing() && self.end_part(outcome.is_ok()).is_err() {
            // Half of the write must not be committed with the rest of the transaction.
            self.connection.execute_batch("ROLLBACK")?;
        }
        outcome
    }

    /// Begins a part of the transaction that can be undone alone, and returns the next numbers. Parts can
    /// be nested.
    pub(crate) fn begin_part(&self) -> rusqlite::Result<Numbers> {
        self.execute("SAVEPOINT part", ())?;
        Ok(self.next)
    }

    /// Undoes the last part that was begun with these numbers. After an error, the whole transaction must
    /// be rolled back.
    pub(crate) fn undo_part(&mut self, numbers: Numbers) -> rusqlite::Result<()> {
        self.next = numbers;
        self.end_part(false)
    }

    /// Keeps the last part that was begun. After an error, the whole transaction must be rolled back.
    pub(crate) fn keep_part(&self) -> rusqlite::Result<()> {
        self.end_part(true)
    }

    fn end_part(&self, is_kept: bool) -> rusqlite::Result<()> {
        if !is_kept {
            self.execute("ROLLBACK TO part", ())?;
        }
        self.execute("RELEASE part", ()).map(drop)
    }

    /// Returns to the last commit, on disk and in memory.
    pub(crate) fn roll_back(&mut self) {
        if !self.connection.is_autocommit() {
            // If even that fails, SQLite has rolled back by itself, or the next `BEGIN` fails.
            let _rolled_back = self.connection.execute_batch("ROLLBACK");
        }
        self.search.restart();
        self.figures.roll_back();
        // If these fail, some numbers are never used, and the health of an endpoint may count a
        // failure that was not stored.
        let _reread = self.load_numbers().and_then(|()| self.load_failing());
    }

    /// Returns the room below the limit and its reserves; `None` without a limit. Pages that this
    /// transaction has taken count as used.
    pub(crate) fn room(&self) -> rusqlite::Result<Option<Room>> {
        let Some(limit) = self.limit else { return Ok(None) };
        let pragma = |pragma: &str| -> rusqlite::Result<i64> {
            self.connection.prepare_cached(pragma)?.query_row((), |row| row.get(0))
        };
        let used = pragma("PRAGMA page_count")? - pragma("PRAGMA freelist_count")?;
        Ok(Some(limit.room(used)))
    }

    /// Runs a statement that stays prepared; returns the number of rows that it changed.
    pub(crate) fn execute(
        &self,
        statement: &str,
        parameters: impl rusqlite::Params,
    ) -> rusqlite::Result<usize> {
        self.connection.prepare_cached(statement)?.execute(parameters)
    }

    pub(crate) fn sqlite(&self) -> &Connection {
        &self.connection
    }

    pub(crate) fn inserter(&mut self) -> rusqlite::Result<Inserter<'_>> {
        Inserter::prepare(&self.connection, &mut self.next)
    }

    /// Stores the next numbers, before rows with the last ones are deleted.
    pub(crate) fn save_numbers(&self) -> rusqlite::Result<()> {
        self.next.save(&self.connection)
    }

    /// Starts to cancel the deliveries that wait for the row of a closed endpoint.
    pub(crate) fn start_draining(&mut self, endpoint: EndpointNumber) {
        self.failing.remove(&endpoint);
        self.draining.push(row::endpoint(endpoint));
    }

    /// Cancels a batch of deliveries that wait for closed endpoints; returns whether there may be more.
    pub(crate) fn drain(&mut self) -> rusqlite::Result<bool> {
        let Some(endpoint) = self.draining.last().copied() else { return Ok(false) };
        self.begin()?;
        let cancelled = self.cancel_some(endpoint)?;
        self.commit()?;
        if cancelled == 0 {
            self.draining.pop();
        }
        Ok(true)
    }

    /// Cancels a batch of deliveries that wait for a row of `endpoints`; returns how many. It cancels
    /// nothing if the endpoint is not closed: whoever asks, an open endpoint loses no delivery.
    pub(crate) fn cancel_some(&mut self, endpoint: i64) -> rusqlite::Result<usize> {
        const CANCEL: &str = "UPDATE deliveries SET status = 'cancelled', due_at = NULL,
                (cancelled, ended_at) =
                    (SELECT state, state_since FROM endpoints WHERE number = ?1)
            WHERE number IN (
                SELECT number FROM deliveries
                WHERE endpoint = (SELECT number FROM endpoints
                                  WHERE number = ?1 AND state IN ('disabled', 'unregistered'))
                  AND due_at IS NOT NULL LIMIT ?2)
            RETURNING event";
        const SINCE: &str = "SELECT state_since FROM endpoints WHERE number = ?";
        let mut cancel = self.connection.prepare_cached(CANCEL)?;
        let mut rows = cancel.query([endpoint, DRAIN_BATCH])?;
        let mut cancelled = 0;
        while let Some(row) = rows.next()? {
            self.search.on_event_ended(row.get(0)?);
            cancelled += 1;
        }
        if cancelled > 0 {
            let mut since = self.connection.prepare_cached(SINCE)?;
            let since = row::time(since.query_row([endpoint], |row| row.get(0))?);
            let number = row::endpoint_number(endpoint);
            self.figures.count(number, FigureKind::Cancelled, cancelled, since);
        }
        Ok(cancelled)
    }

    /// Notes for retention that a delivery has ended.
    pub(crate) fn on_ended(&mut self, delivery: DeliveryId) -> rusqlite::Result<()> {
        self.search.on_ended(&self.connection, delivery)
    }

    /// Returns the rows of closed endpoints that deliveries still wait for.
    fn left_over(&self) -> rusqlite::Result<Vec<i64>> {
        const LEFT: &str =
            "SELECT number FROM endpoints WHERE state IN ('disabled', 'unregistered')
            AND EXISTS (SELECT 1 FROM deliveries
                        WHERE endpoint = endpoints.number AND due_at IS NOT NULL)";
        let mut statement = self.connection.prepare(LEFT)?;
        statement.query_map((), |row| row.get(0))?.collect()
    }
}
