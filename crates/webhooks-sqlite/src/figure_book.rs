//! The figures of a transaction: counted while its commands write, and recorded with its commit.

use rusqlite::{Connection, params};
use webhooks_core::Timestamp;
use webhooks_dispatch::figures::{FigureCount, FigureKind, FiguresTally};
use webhooks_dispatch::store::Settlement;
use webhooks_registry::EndpointNumber;

use crate::row;

/// The number of counts that wait for room in a full file. Later ones are dropped.
const MAX_WAITING: usize = 10_000;

/// The counts of the present transaction.
#[derive(Debug, Default)]
pub(crate) struct FigureBook {
    tally: FiguresTally,
    /// Counts of transactions that were committed when the file had no room for new rows of figures.
    waiting: Vec<FigureCount>,
}

impl FigureBook {
    /// Counts deliveries of a kind.
    pub(crate) fn count(
        &mut self,
        endpoint: EndpointNumber,
        kind: FigureKind,
        count: usize,
        now: Timestamp,
    ) {
        self.tally.count(endpoint, kind, count as u64, now);
    }

    /// Counts a settlement that was recorded.
    pub(crate) fn settled(
        &mut self,
        endpoint: EndpointNumber,
        settlement: &Settlement,
        now: Timestamp,
    ) {
        self.tally.settled(endpoint, settlement, now);
    }

    /// Returns whether there is nothing to record.
    pub(crate) fn is_empty(&self) -> bool {
        self.tally.is_empty() && self.waiting.is_empty()
    }

    /// Records the counts in the present transaction. Returns them if there is no room; then they wait
    /// for a later one, since a full file must still take the outcomes of deliveries.
    pub(crate) fn record(
        &mut self,
        connection: &Connection,
        has_room: bool,
    ) -> rusqlite::Result<Vec<FigureCount>> {
        const ADD: &str = "INSERT INTO figures (endpoint, at, kind, count) VALUES (?, ?, ?, ?)
            ON CONFLICT DO UPDATE SET count = count + excluded.count";
        let counted = self.tally.take();
        let mut counts: Vec<FigureCount> = self.waiting.iter().copied().chain(counted).collect();
        if !has_room {
            counts.truncate(MAX_WAITING);
            return Ok(counts);
        }
        let mut add = connection.prepare_cached(ADD)?;
        for FigureCount { endpoint, at, kind, count } in counts {
            let (at, kind) = (row::micros(at), kind.to_string());
            add.execute(params![row::endpoint(endpoint), at, kind, row::integer(count)])?;
        }
        Ok(Vec::new())
    }

    /// Sets the counts that wait, after the commit of all others.
    pub(crate) fn after_commit(&mut self, waiting: Vec<FigureCount>) {
        self.waiting = waiting;
    }

    /// Forgets the counts of a transaction that was rolled back.
    pub(crate) fn roll_back(&mut self) {
        self.tally.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rusqlite::types::Value;
    use webhooks_dispatch::backlog::Window;
    use webhooks_dispatch::store::Claim;
    use webhooks_registry::{DisableReason, store::StateChange};

    use super::*;
    use crate::roll_up::RollUp;
    use crate::writer::tests::side::{Order, Side, at, clocks};

    /// Returns the sums of the figures by kind, without the durations of attempts.
    fn sums(side: &Side) -> BTreeMap<String, i64> {
        let mut sums = BTreeMap::new();
        for row in &side.rows()["figures"] {
            let [_, _, Value::Text(kind), Value::Integer(count)] = row.as_slice() else {
                panic!("{row:?}")
            };
            if !kind.starts_with("within") {
                *sums.entry(kind.clone()).or_default() += *count;
            }
        }
        sums
    }

    fn expected(kinds: &[(&str, i64)]) -> BTreeMap<String, i64> {
        kinds.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect()
    }

    fn side() -> Side {
        let mut side = Side::new(Window::ALL, false);
        let (active, ordered, picky) = (true, false, false);
        side.do_all(&[Order::Register { endpoint: 0, active, ordered, picky }], at(0));
        side
    }

    fn publish(event: u8) -> Order {
        Order::Publish { event, wanted: true }
    }

    /// Goal: what a group counted is forgotten with it, and counted once when its commands are tried
    /// alone. Method: groups with a command that fails.
    #[test]
    fn a_group_that_was_rolled_back_is_counted_once() {
        let mut side = side();
        side.do_all(&[publish(1), publish(2), Order::Fail, publish(3), publish(1)], at(1));
        assert_eq!(sums(&side), expected(&[("accepted", 3)]));
        let held: Vec<Claim> = side.claim(2, 2, clocks(1)).iter().map(|held| held.claim).collect();
        let settle = Order::Settle { held: vec![(0, 0), (1, 3)] };
        for order in [settle.clone(), Order::Fail, settle, Order::Cancel { delivery: 3 }] {
            let _answer = side.queue(&order, &held, at(2));
        }
        side.run();
        let kinds = [("accepted", 3), ("cancelled", 1), ("delivered", 1), ("failure:2xx", 1)];
        assert_eq!(sums(&side), expected(&kinds));
        let mut side = side.reopened();
        side.do_all(&[publish(4)], at(3));
        let kinds = [("accepted", 4), ("cancelled", 1), ("delivered", 1), ("failure:2xx", 1)];
        assert_eq!(sums(&side), expected(&kinds));
    }

    /// Goal: deliveries that are cancelled in batches count for the time at which their endpoint was
    /// closed.
    #[test]
    fn deliveries_of_a_closed_endpoint_are_counted_as_they_are_cancelled() {
        let mut side = side();
        side.do_all(&(0..9).map(publish).collect::<Vec<_>>(), at(0));
        let change = StateChange::Disable(DisableReason::Gone);
        // The start of a minute.
        let closed_at = at(140);
        side.do_all(&[Order::SetState { endpoint: 0, change }], closed_at);
        let mut side = side.reopened();
        side.drain();
        assert_eq!(sums(&side), expected(&[("accepted", 9), ("cancelled", 9)]));
        let at_closing = Value::Integer(row::micros(closed_at));
        let is_in_time = |row: &Vec<Value>| {
            row[2] != Value::Text("cancelled".to_owned()) || row[1] == at_closing
        };
        assert!(side.rows()["figures"].iter().all(is_in_time), "{:?}", side.rows()["figures"]);
    }

    #[test]
    fn counts_wait_for_room_in_a_full_file() {
        let file = Connection::open_in_memory().unwrap();
        file.execute_batch(include_str!("../migrations/0001_start.sql")).unwrap();
        let (endpoint, now) = (EndpointNumber::from_u64(1), at(0));
        let mut book = FigureBook::default();
        for (has_room, is_committed) in [(false, true), (true, false), (true, true)] {
            book.count(endpoint, FigureKind::Accepted, 1, now);
            file.execute_batch("BEGIN").unwrap();
            let waiting = book.record(&file, has_room).unwrap();
            if is_committed {
                file.execute_batch("COMMIT").unwrap();
                book.after_commit(waiting);
            } else {
                file.execute_batch("ROLLBACK").unwrap();
                book.roll_back();
            }
        }
        let sum = "SELECT sum(count) FROM figures";
        let sum: i64 = file.query_row(sum, (), |row| row.get(0)).unwrap();
        assert_eq!(sum, 2, "all except the one that was rolled back");
        assert!(book.is_empty());
    }

    /// Goal: old minutes become hours, in batches, and none is lost. Method: an event every ten minutes
    /// for a day; then the clock goes on.
    #[test]
    fn old_minutes_become_hours() {
        const HOUR: u64 = 60 * 60;
        // The start of an hour.
        let after = |seconds| at(800 + seconds);
        let mut side = side();
        for n in 0..144_u8 {
            side.do_all(&[publish(n)], after(u64::from(n) * 600));
        }
        let rows = |side: &Side| side.rows()["figures"].len();
        assert_eq!(rows(&side), 144);
        let mut roll_up = |now| while side.write(RollUp::new(now)) {};
        roll_up(after(48 * HOUR + 90 * 60));
        assert_eq!(rows(&side), 1 + 23 * 6, "of the hours that are old as a whole");
        let mut roll_up = |now| while side.write(RollUp::new(now)) {};
        roll_up(after(72 * HOUR));
        assert_eq!((rows(&side), sums(&side)), (24, expected(&[("accepted", 144)])));
        let mut roll_up = |now| while side.write(RollUp::new(now)) {};
        roll_up(after((90 * 24 + 12) * HOUR));
        assert_eq!((rows(&side), sums(&side)), (12, expected(&[("accepted", 72)])));
    }
}
