//! How far retention has come in its search for old events.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension as _};
use webhooks_core::DeliveryId;

use crate::row;

/// How many events are remembered that are to be looked at again, at most.
pub(crate) const MAX_AGAIN: usize = if cfg!(test) { 2_000 } else { 10_000 };

/// How far the search for old events has come. It begins anew when the store is opened.
///
/// Events are numbered in the order of acceptance, so that the search goes on where it ended. It
/// passes over old events that still wait, however many; each comes back when a delivery of it ends.
#[derive(Debug, Default)]
pub(crate) struct RetentionSearch {
    /// The first event that was not looked at.
    pub(crate) next: i64,
    /// The last event that was passed over because it still waited; 0 if none was.
    pub(crate) passed: i64,
    /// Events before `next` to look at once more, each with the time at which it was accepted if
    /// that was in the future.
    pub(crate) again: BTreeSet<(i64, i64)>,
    /// When the first event was accepted that is not among these for want of room, if there is one.
    pub(crate) dropped: Option<i64>,
}

impl RetentionSearch {
    /// Has everything looked at once more.
    pub(crate) fn restart(&mut self) {
        *self = Self::default();
    }

    /// Has an event from the future looked at when it is old. If there are too many, the search begins
    /// anew then, so that they keep no other from being found.
    pub(crate) fn look_later(&mut self, time: i64, event: i64) {
        if self.again.len() < MAX_AGAIN / 2 {
            self.again.insert((time, event));
        } else {
            self.dropped = Some(self.dropped.map_or(time, |first| first.min(time)));
        }
    }

    pub(crate) fn look_again(&mut self, time: i64, event: i64) {
        self.again.insert((time, event));
        if self.again.len() > MAX_AGAIN {
            self.restart();
        }
    }

    /// Notes that a delivery has ended: if its event was passed over, it may be old and ended now.
    pub(crate) fn on_ended(
        &mut self,
        connection: &Connection,
        delivery: DeliveryId,
    ) -> rusqlite::Result<()> {
        const EVENT: &str = "SELECT event FROM deliveries WHERE number = ?";
        // Hardly any event is so old and still waits, so that this costs nothing as a rule.
        if self.passed == 0 {
            return Ok(());
        }
        let mut statement = connection.prepare_cached(EVENT)?;
        let event: Option<i64> =
            statement.query_row([row::number(delivery)], |row| row.get(0)).optional()?;
        if let Some(event) = event.filter(|event| *event <= self.passed) {
            self.look_again(0, event);
        }
        Ok(())
    }

    /// Notes that some deliveries of any events have ended.
    pub(crate) fn on_many_ended(&mut self) {
        if self.passed > 0 {
            self.restart();
        }
    }
}
