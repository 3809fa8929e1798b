//! The position of retention in its search for old events.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension as _};
use webhooks_core::DeliveryId;

use crate::row;

/// The number of events that are remembered for another look.
pub(crate) const MAX_AGAIN: usize = if cfg!(test) { 2_000 } else { 10_000 };

/// The position of the search for old events. The search begins anew when the store is opened.
///
/// Events are numbered in the order of acceptance, so that the search goes on where it ended. It
/// passes over old events that still wait, however many; each is looked at again when a delivery of it
/// ends.
#[derive(Debug, Default)]
pub(crate) struct RetentionSearch {
    /// The first event that was not looked at.
    pub(crate) next: i64,
    /// The last event that was passed over because it still waited; 0 if none was.
    pub(crate) passed: i64,
    /// Events before `next` to look at once more. Each has the time of its acceptance before it if that
    /// was in the future, else 0.
    pub(crate) again: BTreeSet<(i64, i64)>,
    /// The earliest time of acceptance among the events that did not fit into `again`.
    pub(crate) dropped: Option<i64>,
}

impl RetentionSearch {
    /// Begins the search anew.
    pub(crate) fn restart(&mut self) {
        *self = Self::default();
    }

    /// Plans a look at an event from the future for the time when it is old. If there are too many
    /// such events, the search begins anew at that time. They use half of the room, so that events
    /// that were passed over fit beside them.
    pub(crate) fn look_later(&mut self, time: i64, event: i64) {
        if self.again.len() < MAX_AGAIN / 2 {
            self.again.insert((time, event));
        } else {
            self.dropped = Some(self.dropped.map_or(time, |first| first.min(time)));
        }
    }

    /// Plans a look at an event now. If there are too many, the search begins anew.
    pub(crate) fn look_again(&mut self, time: i64, event: i64) {
        self.again.insert((time, event));
        if self.again.len() > MAX_AGAIN {
            self.restart();
        }
    }

    /// Notes that a delivery has ended. If its event may have been passed over, it is looked at again.
    pub(crate) fn on_ended(
        &mut self,
        connection: &Connection,
        delivery: DeliveryId,
    ) -> rusqlite::Result<()> {
        const EVENT: &str = "SELECT event FROM deliveries WHERE number = ?";
        // The usual case: no event is old and still waits. Then settling pays nothing for retention.
        if self.passed == 0 {
            return Ok(());
        }
        let mut statement = connection.prepare_cached(EVENT)?;
        let event: Option<i64> =
            statement.query_row([row::number(delivery)], |row| row.get(0)).optional()?;
        if let Some(event) = event {
            self.on_event_ended(event);
        }
        Ok(())
    }

    /// Notes that a delivery of an event has ended.
    pub(crate) fn on_event_ended(&mut self, event: i64) {
        if event <= self.passed {
            self.look_again(0, event);
        }
    }
}
