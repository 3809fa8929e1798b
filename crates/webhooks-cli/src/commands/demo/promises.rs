//! The promises of the service, checked against what came to the receivers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use webhooks_dispatch::clock::MonotonicTime;

use super::receivers::Arrival;

/// The longest time that an event may take to the steady receiver. A dead endpoint rests for 10 s at least: a delivery
/// that waited for it would take longer than this.
const PROMPT: Duration = Duration::from_secs(5);

/// An event that the API accepted.
#[derive(Debug, Clone)]
pub(super) struct Accepted {
    pub(super) id: String,
    /// The time of the request that was answered.
    pub(super) asked_at: MonotonicTime,
}

/// The time from the kill until the service was ready again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outage {
    pub(super) killed_at: MonotonicTime,
    pub(super) ready_at: MonotonicTime,
}

/// The end of the deliveries to the dead receiver.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DeadEnd {
    /// The deliveries that wait.
    pub(super) waiting: u64,
    /// The attempts that were made for all of them.
    pub(super) attempts: usize,
}

/// All that happened.
#[derive(Debug, Clone)]
pub(super) struct Story {
    pub(super) accepted: Vec<Accepted>,
    pub(super) steady: Vec<Arrival>,
    pub(super) flaky: Vec<Arrival>,
    pub(super) dead: DeadEnd,
    pub(super) outage: Outage,
}

/// A promise, and whether it held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Promise {
    pub(super) name: &'static str,
    pub(super) holds: bool,
    pub(super) found: String,
}

impl Story {
    /// Returns how many of the accepted events a receiver has taken.
    pub(super) fn taken(&self, arrivals: &[Arrival]) -> usize {
        self.accepted.len() - self.missing(arrivals).len()
    }

    /// Returns the accepted events that a receiver has not taken.
    fn missing<'s>(&'s self, arrivals: &[Arrival]) -> Vec<&'s str> {
        let taken = arrivals.iter().filter(|arrival| arrival.is_taken);
        let taken: BTreeSet<&str> = taken.map(|arrival| arrival.id.as_str()).collect();
        let ids = self.accepted.iter().map(|accepted| accepted.id.as_str());
        ids.filter(|id| !taken.contains(id)).collect()
    }

    /// Returns the number of requests that brought an event again that had been taken.
    pub(super) fn repeated(arrivals: &[Arrival]) -> usize {
        let taken = arrivals.iter().filter(|arrival| arrival.is_taken);
        let ids: BTreeSet<&str> = taken.clone().map(|arrival| arrival.id.as_str()).collect();
        taken.count() - ids.len()
    }

    /// Returns the times from each request to publish until the event was at the steady receiver, sorted, without the
    /// events for which the kill came between.
    fn delays(&self) -> Vec<Duration> {
        let mut first = BTreeMap::new();
        for arrival in &self.steady {
            first.entry(arrival.id.as_str()).or_insert(arrival.at);
        }
        let times = self.accepted.iter().filter_map(|accepted| {
            let at = *first.get(accepted.id.as_str())?;
            let is_cut = accepted.asked_at < self.outage.ready_at && at > self.outage.killed_at;
            (!is_cut).then(|| at.saturating_since(accepted.asked_at))
        });
        let mut times: Vec<_> = times.collect();
        times.sort_unstable();
        times
    }

    /// Returns the time within which 99 of 100 events were at the steady receiver.
    pub(super) fn p99(&self) -> Duration {
        let delays = self.delays();
        let place = (delays.len() * 99).div_ceil(100).saturating_sub(1);
        delays.get(place).copied().unwrap_or_default()
    }

    /// Checks all promises.
    pub(super) fn promises(&self) -> Vec<Promise> {
        vec![self.nothing_lost(), self.same_ids(), self.signed(), self.prompt(), self.waiting()]
    }

    fn nothing_lost(&self) -> Promise {
        let (steady, flaky) = (self.missing(&self.steady), self.missing(&self.flaky));
        let lost: BTreeSet<&str> = steady.into_iter().chain(flaky).collect();
        let total = self.accepted.len();
        let found = match lost.first() {
            None => format!("{total} of {total} events arrived at steady and at flaky"),
            Some(id) => format!("{} of {total} events did not arrive, such as {id}", lost.len()),
        };
        Promise { name: "an accepted event is never lost", holds: lost.is_empty(), found }
    }

    fn same_ids(&self) -> Promise {
        let ids: BTreeSet<&str> =
            self.accepted.iter().map(|accepted| accepted.id.as_str()).collect();
        let mut bodies = BTreeMap::new();
        let arrivals = || self.steady.iter().chain(&self.flaky);
        let differs = arrivals().find(|arrival| {
            let first = bodies.entry(arrival.id.as_str()).or_insert(&arrival.body);
            !ids.contains(arrival.id.as_str()) || *first != &arrival.body
        });
        let repeated = Self::repeated(&self.steady) + Self::repeated(&self.flaky);
        let found = match differs {
            None => format!("{repeated} came twice, each with the same id and body"),
            Some(arrival) => format!("a request with id {:?} is of no accepted event", arrival.id),
        };
        let name = "what comes again has the same id";
        Promise { name, holds: differs.is_none(), found }
    }

    fn signed(&self) -> Promise {
        let arrivals = || self.steady.iter().chain(&self.flaky);
        let wrong = arrivals().filter(|arrival| !arrival.is_genuine).count();
        let total = arrivals().count();
        let found = format!("{} of {total} signatures are right", total - wrong);
        Promise { name: "each request is signed", holds: wrong == 0, found }
    }

    fn prompt(&self) -> Promise {
        let p99 = self.p99();
        let share = if self.delays().len() < 100 { "each event" } else { "99 % of the events" };
        let found = format!(
            "{share} arrived at steady within {} ms, without those that the kill held up",
            p99.as_millis()
        );
        let name = "a dead endpoint delays no other one";
        Promise { name, holds: p99 < PROMPT, found }
    }

    fn waiting(&self) -> Promise {
        let (DeadEnd { waiting, attempts }, total) = (self.dead, self.accepted.len());
        let found = format!(
            "{waiting} of {total} deliveries to dead wait; {attempts} attempts were made in all"
        );
        let holds = u64::try_from(total).is_ok_and(|total| total == waiting);
        Promise { name: "what a dead endpoint misses is kept for it", holds, found }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn at(millis: u64) -> MonotonicTime {
        MonotonicTime::from_origin(Duration::from_millis(millis))
    }

    fn arrival(id: &str, millis: u64) -> Arrival {
        let (id, body) = (id.to_owned(), Bytes::from_static(b"{}"));
        Arrival { id, body, at: at(millis), is_genuine: true, is_taken: true }
    }

    /// Two events, the first of which came again after the kill.
    fn story() -> Story {
        let accepted = |id: &str, millis| Accepted { id: id.to_owned(), asked_at: at(millis) };
        let refused = Arrival { is_taken: false, ..arrival("a", 5) };
        Story {
            accepted: vec![accepted("a", 0), accepted("b", 1_000)],
            steady: vec![arrival("a", 4), arrival("a", 600), arrival("b", 1_007)],
            flaky: vec![refused, arrival("a", 6), arrival("b", 1_100)],
            dead: DeadEnd { waiting: 2, attempts: 6 },
            outage: Outage { killed_at: at(100), ready_at: at(500) },
        }
    }

    #[track_caller]
    fn broken(story: &Story, promise: &str) {
        let broken = story.promises().into_iter().filter(|promise| !promise.holds);
        assert_eq!(broken.map(|promise| promise.name).collect::<Vec<_>>(), [promise]);
    }

    #[test]
    fn all_promises_hold_of_a_good_story() {
        let story = story();
        assert!(story.promises().iter().all(|promise| promise.holds), "{:?}", story.promises());
        assert_eq!((Story::repeated(&story.steady), Story::repeated(&story.flaky)), (1, 0));
        assert_eq!((story.taken(&story.flaky), story.p99()), (2, Duration::from_millis(7)));
    }

    #[test]
    fn an_event_that_a_receiver_refused_to_the_end_is_lost() {
        let mut story = story();
        story.flaky.retain(|arrival| arrival.id != "a" || !arrival.is_taken);
        assert_eq!(story.taken(&story.flaky), 1);
        broken(&story, "an accepted event is never lost");
    }

    #[test]
    fn a_request_of_no_accepted_event_is_told() {
        let mut story = story();
        story.steady.push(arrival("c", 700));
        broken(&story, "what comes again has the same id");
    }

    #[test]
    fn another_body_under_the_same_id_is_told() {
        let mut story = story();
        story.steady[1].body = Bytes::from_static(b"[]");
        broken(&story, "what comes again has the same id");
    }

    #[test]
    fn a_wrong_signature_is_told() {
        let mut story = story();
        story.flaky[0].is_genuine = false;
        broken(&story, "each request is signed");
    }

    #[test]
    fn an_event_that_waited_for_the_dead_endpoint_is_told() {
        let mut story = story();
        story.steady[2].at = at(11_000);
        broken(&story, "a dead endpoint delays no other one");
    }

    #[test]
    fn an_event_that_the_kill_cut_off_does_not_count_as_delayed() {
        let mut story = story();
        story.outage.ready_at = at(9_000);
        story.steady = vec![arrival("a", 9_001), arrival("b", 9_002)];
        assert_eq!(story.p99(), Duration::ZERO);
    }

    #[test]
    fn an_event_that_does_not_wait_for_the_dead_endpoint_is_told() {
        let story = Story { dead: DeadEnd { waiting: 1, attempts: 6 }, ..story() };
        broken(&story, "what a dead endpoint misses is kept for it");
    }
}
