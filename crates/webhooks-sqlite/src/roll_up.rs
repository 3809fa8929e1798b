//! Adding up old figures: minutes become hours, and old hours are deleted.

use rusqlite::params;
use webhooks_core::Timestamp;
use webhooks_dispatch::figures::{KEPT, SPANS, start_of};

use crate::command::WriteCommand;
use crate::inner::SqliteInner;
use crate::row;
use crate::write_connection::WriteConnection;

/// The number of figures that one command adds up, and deletes.
const BATCH: usize = if cfg!(test) { 5 } else { 2_000 };

/// Adds up a batch of minutes that are older than 48 hours, and deletes a batch of hours that are older
/// than 90 days. Answers whether there is more of either.
pub(crate) struct RollUp {
    now: Timestamp,
    is_more: bool,
}

impl RollUp {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { now, is_more: false }
    }
}

/// Adds the first minutes to their hours. An hour is old as a whole, or not at all.
const ADD: &str = "INSERT INTO figures (endpoint, at, kind, count)
    SELECT endpoint, at - at % 3600000000, kind, sum(count) FROM (
        SELECT endpoint, at, kind, count FROM figures INDEXED BY figures_minutes
        WHERE at % 3600000000 <> 0 AND at < ?1 ORDER BY at, endpoint, kind LIMIT ?2)
    WHERE true GROUP BY 1, 2, 3
    ON CONFLICT DO UPDATE SET count = count + excluded.count";

/// Deletes the same minutes: [`ADD`] adds none.
const DELETE_MINUTES: &str = "DELETE FROM figures WHERE (endpoint, at, kind) IN (
    SELECT endpoint, at, kind FROM figures INDEXED BY figures_minutes
    WHERE at % 3600000000 <> 0 AND at < ?1 ORDER BY at, endpoint, kind LIMIT ?2)";

const DELETE_HOURS: &str = "DELETE FROM figures WHERE (endpoint, at, kind) IN (
    SELECT endpoint, at, kind FROM figures INDEXED BY figures_hours
    WHERE at % 3600000000 = 0 AND at < ?1 ORDER BY at, endpoint, kind LIMIT ?2)";

impl WriteCommand for RollUp {
    type Answer = bool;

    // Others may follow it: it changes no memory.
    const ENDS_GROUP: bool = false;

    fn write(&mut self, connection: &mut WriteConnection, _: &SqliteInner) -> rusqlite::Result<()> {
        let minutes_from = row::micros(start_of(self.now.saturating_sub(KEPT.0), SPANS.1));
        let hours_from = row::micros(self.now.saturating_sub(KEPT.1));
        let added = connection.execute(ADD, params![minutes_from, row::count(BATCH)])?;
        let mut minutes = 0;
        if added > 0 {
            minutes =
                connection.execute(DELETE_MINUTES, params![minutes_from, row::count(BATCH)])?;
        }
        let hours = connection.execute(DELETE_HOURS, params![hours_from, row::count(BATCH)])?;
        self.is_more = minutes >= BATCH || hours >= BATCH;
        Ok(())
    }

    fn after_commit(self, _: &mut WriteConnection, _: &SqliteInner) -> bool {
        self.is_more
    }
}
