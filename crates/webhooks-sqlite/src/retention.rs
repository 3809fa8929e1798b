//! Retention: what is old and has ended is deleted, in small batches.

use webhooks_core::Timestamp;

use crate::row;
use crate::store::Shared;
use crate::tables::Tables;
use crate::writer::Write;

pub(crate) struct Prune {
    before: Timestamp,
    limit: usize,
    deleted: usize,
}

impl Prune {
    pub(crate) fn new(before: Timestamp, limit: usize) -> Self {
        Self { before, limit, deleted: 0 }
    }
}

impl Write for Prune {
    type Answer = usize;

    // It changes nothing in memory: what it deletes has ended, so that no lane and no lease knows
    // of it.
    const ENDS_GROUP: bool = false;

    fn write(&mut self, tables: &mut Tables, _: &Shared) -> rusqlite::Result<()> {
        const EVENTS: &str = "
            SELECT number, accepted_at, EXISTS (SELECT 1 FROM deliveries
                WHERE event = events.number AND due_at IS NOT NULL)
            FROM events ORDER BY number";
        const ATTEMPTS: &str = "DELETE FROM attempts
            WHERE delivery IN (SELECT number FROM deliveries WHERE event = ?)";
        let mut old: Vec<i64> = Vec::new();
        {
            // Events are numbered in the order of acceptance: the first young one ends the search.
            let mut statement = tables.connection().prepare_cached(EVENTS)?;
            let mut rows = statement.query(())?;
            while old.len() < self.limit
                && let Some(row) = rows.next()?
                && row::time(row.get(1)?) < self.before
            {
                if !row.get::<_, bool>(2)? {
                    old.push(row.get(0)?);
                }
            }
        }
        tables.save_counters()?;
        for event in &old {
            tables.execute(ATTEMPTS, [event])?;
            tables.execute("DELETE FROM deliveries WHERE event = ?", [event])?;
            tables.execute("DELETE FROM events WHERE number = ?", [event])?;
        }
        self.deleted = old.len();
        Ok(())
    }

    fn finish(self, _: &mut Tables, _: &Shared) -> usize {
        self.deleted
    }
}
