//! Retention: deleting old events that have ended, in small batches.

use rusqlite::{Connection, OptionalExtension as _};
use webhooks_core::{TenantId, Timestamp};

use crate::command::WriteCommand;
use crate::inner::SqliteInner;
use crate::retention_search::RetentionSearch;
use crate::row;
use crate::write_connection::WriteConnection;

/// The number of events that one command looks at: a millisecond or two.
const MAX_VISITS: usize = if cfg!(test) { 100 } else { 1_000 };

/// The number of deliveries that one command deletes.
const MAX_ROWS: usize = if cfg!(test) { 20 } else { 2_000 };

/// The result of a [`Prune`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pruned {
    /// The number of events that were deleted.
    pub(crate) deleted: usize,
    /// The number of events that were looked at.
    pub(crate) visited: usize,
    /// Whether there may be more to delete.
    pub(crate) is_more: bool,
}

/// Deletes up to `limit` events that have ended and were accepted before `before`.
pub(crate) struct Prune {
    before: Timestamp,
    limit: usize,
    pruned: Pruned,
}

impl Prune {
    pub(crate) fn new(before: Timestamp, limit: usize) -> Self {
        Self { before, limit, pruned: Pruned::default() }
    }

    /// Returns events that are old and have ended.
    fn find(&mut self, connection: &mut WriteConnection) -> rusqlite::Result<Vec<i64>> {
        let mut search = std::mem::take(&mut connection.search);
        if search.dropped.is_some_and(|time| row::time(time) < self.before) {
            search.restart();
        }
        let old = self.find_again(connection, &mut search).and_then(|mut old| {
            self.find_next(connection, &mut search, &mut old)?;
            Ok(old)
        });
        // After an error, the rollback restarts the search.
        connection.search = search;
        old
    }

    fn is_full(&mut self, old: &[i64]) -> bool {
        self.pruned.is_more = old.len() >= self.limit || self.pruned.visited >= MAX_VISITS;
        self.pruned.is_more
    }

    fn find_again(
        &mut self,
        connection: &WriteConnection,
        search: &mut RetentionSearch,
    ) -> rusqlite::Result<Vec<i64>> {
        const EVENT: &str = "SELECT accepted_at, EXISTS (SELECT 1 FROM deliveries
            WHERE event = events.number AND due_at IS NOT NULL) FROM events WHERE number = ?";
        let mut old = Vec::new();
        let mut statement = connection.sqlite().prepare_cached(EVENT)?;
        while !self.is_full(&old)
            && let Some((time, event)) = search.again.first().copied()
            && row::time(time) < self.before
        {
            search.again.pop_first();
            self.pruned.visited += 1;
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            match statement.query_row([event], read).optional()? {
                // An event from the future with a lower number than one that was passed over. `on_ended`
                // cannot tell the two apart.
                Some((time, _)) if row::time(time) >= self.before => search.look_later(time, event),
                Some((_, false)) => old.push(event),
                Some((_, true)) => search.passed = search.passed.max(event),
                None => {}
            }
        }
        Ok(old)
    }

    fn find_next(
        &mut self,
        connection: &WriteConnection,
        search: &mut RetentionSearch,
        old: &mut Vec<i64>,
    ) -> rusqlite::Result<()> {
        const EVENTS: &str = "
            SELECT number, accepted_at, EXISTS (SELECT 1 FROM deliveries
                WHERE event = events.number AND due_at IS NOT NULL)
            FROM events WHERE number >= ? ORDER BY number";
        const LAST: &str = "SELECT accepted_at FROM events ORDER BY number DESC LIMIT 1";
        let mut statement = connection.sqlite().prepare_cached(EVENTS)?;
        let mut rows = statement.query([search.next])?;
        let mut last = None;
        while !self.is_full(old)
            && let Some(row) = rows.next()?
        {
            let (event, time): (i64, i64) = (row.get(0)?, row.get(1)?);
            self.pruned.visited += 1;
            if row::time(time) >= self.before {
                let newest = match last {
                    Some(newest) => newest,
                    None => connection.sqlite().query_row(LAST, (), |row| row.get(0))?,
                };
                last = Some(newest);
                // The first young event ends the search, unless it comes from the future: the
                // clock was ahead when it was accepted, and older events may follow.
                if time <= newest {
                    return Ok(());
                }
                search.look_later(time, event);
            } else if row.get(2)? {
                search.passed = event;
            } else {
                old.push(event);
            }
            search.next = event + 1;
        }
        Ok(())
    }

    /// Deletes events with their deliveries and attempts. Events with too many deliveries for one
    /// command are looked at again.
    fn delete(&mut self, connection: &mut WriteConnection, old: Vec<i64>) -> rusqlite::Result<()> {
        if !old.is_empty() {
            connection.save_numbers()?;
        }
        let mut room = MAX_ROWS;
        for event in old {
            if delete(connection, event, &mut room)? {
                self.pruned.deleted += 1;
            } else {
                connection.search.look_again(0, event);
                self.pruned.is_more = true;
            }
        }
        Ok(())
    }
}

/// Deletes an event with its deliveries and attempts, or a part of these if there is no `room` for more
/// rows. Returns whether the event is deleted.
fn delete(connection: &WriteConnection, event: i64, room: &mut usize) -> rusqlite::Result<bool> {
    const ATTEMPTS: &str = "DELETE FROM attempts WHERE delivery IN (
        SELECT number FROM deliveries WHERE event = ?1 ORDER BY number LIMIT ?2)";
    const DELIVERIES: &str = "DELETE FROM deliveries WHERE number IN (
        SELECT number FROM deliveries WHERE event = ?1 ORDER BY number LIMIT ?2)";
    if *room > 0 {
        let limit = row::count(*room);
        connection.execute(ATTEMPTS, [event, limit])?;
        let deleted = connection.execute(DELIVERIES, [event, limit])?;
        *room = room.saturating_sub(deleted);
    }
    if *room > 0 {
        connection.execute("DELETE FROM events WHERE number = ?", [event])?;
    }
    Ok(*room > 0)
}

impl WriteCommand for Prune {
    type Answer = Pruned;

    // Others may follow it. In memory it changes only the search, and does so in `write`, where a
    // `Settle` or another `Prune` behind it finds the change. It deletes deliveries that have ended, which
    // have no place in a queue and no lease.
    const ENDS_GROUP: bool = false;

    fn write(&mut self, connection: &mut WriteConnection, _: &SqliteInner) -> rusqlite::Result<()> {
        self.pruned = Pruned::default();
        let old = self.find(connection)?;
        self.delete(connection, old)
    }

    fn after_commit(self, _: &mut WriteConnection, _: &SqliteInner) -> Pruned {
        self.pruned
    }
}

/// Returns up to `limit` events of a tenant that were accepted before `before` and have ended.
pub(crate) fn old_of_tenant(
    connection: &Connection,
    tenant: &TenantId,
    before: Timestamp,
    limit: usize,
    now: Timestamp,
) -> rusqlite::Result<Vec<i64>> {
    const EVENTS: &str = "
        SELECT number, accepted_at, EXISTS (SELECT 1 FROM deliveries
            WHERE event = events.number AND due_at IS NOT NULL)
        FROM events INDEXED BY events_tenant WHERE tenant = ? ORDER BY number";
    let mut statement = connection.prepare_cached(EVENTS)?;
    let mut rows = statement.query([tenant.as_str()])?;
    let mut old = Vec::new();
    while old.len() < limit
        && let Some(row) = rows.next()?
    {
        let accepted_at = row::time(row.get(1)?);
        if accepted_at >= before {
            // As in `find_next`, an event from the future does not end the search.
            if accepted_at > now {
                continue;
            }
            break;
        }
        if !row.get::<_, bool>(2)? {
            old.push(row.get(0)?);
        }
    }
    Ok(old)
}

/// Deletes events that a search beside the writer found, unless a delivery of theirs waits again.
pub(crate) struct PruneFound {
    events: Vec<i64>,
    pruned: PrunedFound,
}

/// The result of a [`PruneFound`].
#[derive(Debug, Clone, Default)]
pub(crate) struct PrunedFound {
    /// The number of events that were deleted.
    pub(crate) deleted: usize,
    /// The events that are left for another command.
    pub(crate) left: Vec<i64>,
}

impl PruneFound {
    pub(crate) fn new(events: Vec<i64>) -> Self {
        Self { events, pruned: PrunedFound::default() }
    }
}

impl WriteCommand for PruneFound {
    type Answer = PrunedFound;

    // Others may follow it, as they follow `Prune`.
    const ENDS_GROUP: bool = false;

    fn write(&mut self, connection: &mut WriteConnection, _: &SqliteInner) -> rusqlite::Result<()> {
        const WAITS: &str =
            "SELECT EXISTS (SELECT 1 FROM deliveries WHERE event = ? AND due_at IS NOT NULL)";
        self.pruned = PrunedFound::default();
        connection.save_numbers()?;
        let mut room = MAX_ROWS;
        for event in &self.events {
            let mut waits = connection.sqlite().prepare_cached(WAITS)?;
            if waits.query_row([event], |row| row.get(0))? {
                continue;
            }
            if delete(connection, *event, &mut room)? {
                self.pruned.deleted += 1;
            } else {
                self.pruned.left.push(*event);
            }
        }
        Ok(())
    }

    fn after_commit(self, _: &mut WriteConnection, _: &SqliteInner) -> PrunedFound {
        self.pruned
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retention_search::MAX_AGAIN;
    use crate::writer::tests::side::{Order, Side, at, clocks};

    const WINDOW: webhooks_dispatch::backlog::Window =
        webhooks_dispatch::backlog::Window { per_endpoint: 10_000, bytes: 10_000_000 };

    fn rows(side: &Side) -> Vec<usize> {
        let rows = side.rows();
        ["events", "deliveries", "attempts"].iter().map(|table| rows[*table].len()).collect()
    }

    /// Prunes until there is no more; returns how many events were deleted and looked at.
    fn prune(side: &mut Side, before: Timestamp) -> (usize, usize) {
        let (mut deleted, mut visited) = (0, 0);
        loop {
            let pruned = side.write(Prune::new(before, 50));
            assert!(pruned.visited <= MAX_VISITS);
            deleted += pruned.deleted;
            visited += pruned.visited;
            if !pruned.is_more {
                return (deleted, visited);
            }
        }
    }

    fn publish(side: &mut Side, names: std::ops::Range<u32>, event_type: &str, now: Timestamp) {
        for name in names {
            side.publish(&format!("event-{name}"), event_type, now);
        }
    }

    /// Goal: what is old and still waits costs retention once, and is deleted when it has ended.
    #[test]
    fn what_waits_is_passed_over_once() {
        let mut side = Side::new(WINDOW, false);
        let picky = Order::Register { endpoint: 0, active: true, ordered: false, picky: true };
        side.do_all(&[picky], at(0));
        publish(&mut side, 0..1_000, "wanted", at(0));
        publish(&mut side, 1_000..1_100, "other", at(0));
        assert_eq!(prune(&mut side, at(10)), (100, 1_100), "no delivery waits for the others");
        publish(&mut side, 2_000..2_010, "other", at(20));
        assert_eq!(prune(&mut side, at(10)), (0, 1), "the first young one ends the search");
        assert_eq!(prune(&mut side, at(30)), (10, 10));

        let claimed = side.claim(3, 3, clocks(30));
        side.settle(&claimed, at(30));
        assert_eq!(prune(&mut side, at(30)), (3, 3));
        side.do_all(&[Order::Cancel { delivery: 9 }], at(30));
        assert_eq!(prune(&mut side, at(30)), (1, 1));
        side.do_all(&[Order::Fail], at(30));
        assert_eq!(
            prune(&mut side, at(30)),
            (0, 996),
            "after a failure all are looked at once more"
        );
        assert_eq!(prune(&mut side, at(30)), (0, 0));
        side.do_all(&[Order::Unregister { endpoint: 0 }], at(30));
        side.drain();
        assert_eq!(prune(&mut side, at(30)).0, 996);
        assert_eq!(rows(&side), [0, 0, 0]);
    }

    /// Goal: an event that ends with its endpoint is found at once, although deliveries of others are
    /// still to be cancelled.
    #[test]
    fn what_a_closed_endpoint_ends_is_found_bit_by_bit() {
        let mut side = Side::new(WINDOW, false);
        let picky = Order::Register { endpoint: 0, active: true, ordered: false, picky: true };
        side.do_all(&[picky], at(0));
        publish(&mut side, 0..5, "wanted", at(0));
        assert_eq!(prune(&mut side, at(1)).0, 0, "all wait");
        side.do_all(&[Order::Unregister { endpoint: 0 }], at(1));
        assert_eq!(prune(&mut side, at(1)).0, 2, "two are cancelled with it");
        assert!(side.writer.drain());
        assert_eq!(prune(&mut side, at(1)), (2, 2));
        side.drain();
        assert_eq!(prune(&mut side, at(1)), (1, 1));
    }

    #[test]
    fn an_event_from_the_future_stops_nothing() {
        let mut side = Side::new(WINDOW, false);
        publish(&mut side, 0..5, "other", at(0));
        publish(&mut side, 5..8, "other", at(1_000_000));
        publish(&mut side, 8..10, "other", at(1));
        assert_eq!(prune(&mut side, at(1)).0, 5);
        assert_eq!(prune(&mut side, at(2)).0, 2);
        publish(&mut side, 10..11, "other", at(5));
        assert_eq!(prune(&mut side, at(3)).0, 0);
        assert_eq!(prune(&mut side, at(1_000_000)).0, 1);
        assert_eq!(prune(&mut side, at(1_000_001)).0, 3, "their time comes too");
    }

    #[test]
    fn an_event_from_the_future_is_not_forgotten_with_those_that_were_passed_over() {
        let mut side = Side::new(WINDOW, false);
        let picky = Order::Register { endpoint: 0, active: true, ordered: false, picky: true };
        side.do_all(&[picky], at(0));
        publish(&mut side, 0..1, "wanted", at(1_000_000));
        publish(&mut side, 1..2, "wanted", at(1));
        assert_eq!(prune(&mut side, at(2)).0, 0, "both wait");
        side.do_all(&[Order::Cancel { delivery: 1 }, Order::Cancel { delivery: 2 }], at(2));
        assert_eq!(prune(&mut side, at(3)).0, 1);
        assert_eq!(rows(&side)[0], 1, "the one from the future");
        assert_eq!(prune(&mut side, at(1_000_001)).0, 1);
    }

    #[test]
    fn many_events_from_the_future_keep_no_other_from_being_found() {
        let mut side = Side::new(WINDOW, false);
        let many = u32::try_from(MAX_AGAIN).unwrap() + 10;
        publish(&mut side, 0..many, "other", at(1_000_000));
        publish(&mut side, many..many + 5, "other", at(1));
        assert_eq!(prune(&mut side, at(2)).0, 5);
        assert_eq!(prune(&mut side, at(1_000_001)).0, MAX_AGAIN + 10, "their time comes too");
    }

    /// Goal: an event with many deliveries is deleted in portions.
    #[test]
    fn an_event_for_many_is_deleted_bit_by_bit() {
        let mut side = Side::new(WINDOW, false);
        side.register_many(50);
        publish(&mut side, 0..2, "other", at(0));
        let claimed = side.claim(1_000, 10, clocks(0));
        assert_eq!(claimed.len(), 100);
        side.settle(&claimed, at(0));
        assert_eq!(rows(&side), [2, 100, 100]);
        assert_eq!(side.write(Prune::new(at(1), 50)).deleted, 0);
        assert_eq!(rows(&side), [2, 100 - MAX_ROWS, 100 - MAX_ROWS]);
        assert_eq!(prune(&mut side, at(1)).0, 2);
        assert_eq!(rows(&side), [0, 0, 0]);
    }
}
