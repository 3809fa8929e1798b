//! Retention: what is old and has ended is deleted, in small batches.

use std::collections::BTreeSet;

use rusqlite::OptionalExtension as _;
use webhooks_core::{DeliveryId, Timestamp};

use crate::row;
use crate::store::Shared;
use crate::tables::Tables;
use crate::writer::Write;

/// How many events one command looks at, at most: a millisecond or two.
const VISITS: usize = if cfg!(test) { 100 } else { 1_000 };

/// How many deliveries one command deletes, at most.
const ROWS: usize = if cfg!(test) { 20 } else { 2_000 };

/// How many events are remembered that are to be looked at again, at most.
const AGAIN: usize = if cfg!(test) { 2_000 } else { 10_000 };

/// How far the search for old events has come. It begins anew when the store is opened.
///
/// Events are numbered in the order of acceptance, so that the search goes on where it ended. It
/// passes over old events that still wait, however many; each comes back when a delivery of it ends.
#[derive(Debug, Default)]
pub(crate) struct Search {
    /// The first event that was not looked at.
    next: i64,
    /// The last event that was passed over because it still waited; 0 if none was.
    passed: i64,
    /// Events before `next` to look at once more, each with the time at which it was accepted if
    /// that was in the future.
    again: BTreeSet<(i64, i64)>,
    /// When the first event was accepted that is not among these for want of room, if there is one.
    dropped: Option<i64>,
}

impl Search {
    /// Has everything looked at once more.
    pub(crate) fn restart(&mut self) {
        *self = Self::default();
    }

    /// Has an event from the future looked at when it is old. If there are too many, the search begins
    /// anew then, so that they keep no other from being found.
    fn look_later(&mut self, time: i64, event: i64) {
        if self.again.len() < AGAIN / 2 {
            self.again.insert((time, event));
        } else {
            self.dropped = Some(self.dropped.map_or(time, |first| first.min(time)));
        }
    }

    fn look_again(&mut self, time: i64, event: i64) {
        self.again.insert((time, event));
        if self.again.len() > AGAIN {
            self.restart();
        }
    }
}

impl Tables {
    /// Notes that a delivery has ended: if its event was passed over, it may be old and ended now.
    pub(crate) fn ended(&mut self, delivery: DeliveryId) -> rusqlite::Result<()> {
        const EVENT: &str = "SELECT event FROM deliveries WHERE number = ?";
        // Hardly any event is so old and still waits, so that this costs nothing as a rule.
        if self.search.passed == 0 {
            return Ok(());
        }
        let event: Option<i64> = {
            let mut statement = self.connection().prepare_cached(EVENT)?;
            statement.query_row([row::number(delivery)], |row| row.get(0)).optional()?
        };
        if let Some(event) = event.filter(|event| *event <= self.search.passed) {
            self.search.look_again(0, event);
        }
        Ok(())
    }

    /// Notes that some deliveries of any events have ended.
    pub(crate) fn many_ended(&mut self) {
        if self.search.passed > 0 {
            self.search.restart();
        }
    }
}

/// What a [`Prune`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pruned {
    /// How many events were deleted.
    pub(crate) deleted: usize,
    /// How many were looked at.
    pub(crate) visited: usize,
    /// Whether there may be more to delete.
    pub(crate) is_more: bool,
}

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
    fn find(&mut self, tables: &mut Tables) -> rusqlite::Result<Vec<i64>> {
        let mut search = std::mem::take(&mut tables.search);
        if search.dropped.is_some_and(|time| row::time(time) < self.before) {
            search.restart();
        }
        let old = self.find_again(tables, &mut search).and_then(|mut old| {
            self.find_next(tables, &mut search, &mut old)?;
            Ok(old)
        });
        // If it failed, the search begins anew when the transaction is rolled back.
        tables.search = search;
        old
    }

    fn is_full(&mut self, old: &[i64]) -> bool {
        self.pruned.is_more = old.len() >= self.limit || self.pruned.visited >= VISITS;
        self.pruned.is_more
    }

    fn find_again(&mut self, tables: &Tables, search: &mut Search) -> rusqlite::Result<Vec<i64>> {
        const EVENT: &str = "SELECT accepted_at, EXISTS (SELECT 1 FROM deliveries
            WHERE event = events.number AND due_at IS NOT NULL) FROM events WHERE number = ?";
        let mut old = Vec::new();
        let mut statement = tables.connection().prepare_cached(EVENT)?;
        while !self.is_full(&old)
            && let Some((time, event)) = search.again.first().copied()
            && row::time(time) < self.before
        {
            search.again.pop_first();
            self.pruned.visited += 1;
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            match statement.query_row([event], read).optional()? {
                // One from the future, before another that was passed over.
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
        tables: &Tables,
        search: &mut Search,
        old: &mut Vec<i64>,
    ) -> rusqlite::Result<()> {
        const EVENTS: &str = "
            SELECT number, accepted_at, EXISTS (SELECT 1 FROM deliveries
                WHERE event = events.number AND due_at IS NOT NULL)
            FROM events WHERE number >= ? ORDER BY number";
        const LAST: &str = "SELECT accepted_at FROM events ORDER BY number DESC LIMIT 1";
        let mut statement = tables.connection().prepare_cached(EVENTS)?;
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
                    None => tables.connection().query_row(LAST, (), |row| row.get(0))?,
                };
                last = Some(newest);
                // The first young event ends the search, unless it comes from the future: the
                // clock was ahead when it was accepted, and older ones may follow.
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

    /// Deletes events with their deliveries and attempts; those that are too much for one command
    /// are looked at again.
    fn delete(&mut self, tables: &mut Tables, old: Vec<i64>) -> rusqlite::Result<()> {
        const ATTEMPTS: &str = "DELETE FROM attempts WHERE delivery IN (
            SELECT number FROM deliveries WHERE event = ?1 ORDER BY number LIMIT ?2)";
        const DELIVERIES: &str = "DELETE FROM deliveries WHERE number IN (
            SELECT number FROM deliveries WHERE event = ?1 ORDER BY number LIMIT ?2)";
        if !old.is_empty() {
            tables.save_counters()?;
        }
        let mut room = ROWS;
        for event in old {
            let limit = row::count(room);
            if room > 0 {
                tables.execute(ATTEMPTS, [event, limit])?;
                let deleted = tables.execute(DELIVERIES, [event, limit])?;
                room = room.saturating_sub(deleted);
            }
            if room > 0 {
                tables.execute("DELETE FROM events WHERE number = ?", [event])?;
                self.pruned.deleted += 1;
            } else {
                tables.search.look_again(0, event);
                self.pruned.is_more = true;
            }
        }
        Ok(())
    }
}

impl Write for Prune {
    type Answer = Pruned;

    // It changes nothing in memory but the search, in `write`: so a `Settle` or another `Prune` that
    // follows finds it. What it deletes has ended, so that no lane and no lease knows of it.
    const ENDS_GROUP: bool = false;

    fn write(&mut self, tables: &mut Tables, _: &Shared) -> rusqlite::Result<()> {
        self.pruned = Pruned::default();
        let old = self.find(tables)?;
        self.delete(tables, old)
    }

    fn finish(self, _: &mut Tables, _: &Shared) -> Pruned {
        self.pruned
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
            assert!(pruned.visited <= VISITS);
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
        let many = u32::try_from(AGAIN).unwrap() + 10;
        publish(&mut side, 0..many, "other", at(1_000_000));
        publish(&mut side, many..many + 5, "other", at(1));
        assert_eq!(prune(&mut side, at(2)).0, 5);
        assert_eq!(prune(&mut side, at(1_000_001)).0, AGAIN + 10, "their time comes too");
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
        assert_eq!(rows(&side), [2, 100 - ROWS, 100 - ROWS]);
        assert_eq!(prune(&mut side, at(1)).0, 2);
        assert_eq!(rows(&side), [0, 0, 0]);
    }
}
