//! Two commands at once have the same result as one after the other.
//!
//! Method: two stores on one database are given random commands, one for each at a time. Their
//! answers and the contents of the database must be those of a memory store after the same commands
//! one by one, in one of the two orders. Due deliveries are claimed after each pair.

use std::collections::BTreeMap;
use std::fmt::Debug;

use webhooks_conformance::delivery_store::AnyStore;
use webhooks_core::DeliveryId;
use webhooks_dispatch::{
    MemoryStore, OperationError, Undelivered,
    clock::MonotonicTime,
    store::{Attempt, Claim},
};
use webhooks_registry::EndpointQuery;

use super::*;

const RUNS: u64 = 12;
const PAIRS: usize = 30;
const ENDPOINTS: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Order {
    Cancel { event: String, endpoint: &'static str },
    Publish { event: String },
    Register { endpoint: &'static str, is_ordered: bool },
    Replay { endpoint: &'static str, which: Undelivered },
    ReplayDelivery { event: String, endpoint: &'static str },
    SetState { endpoint: &'static str, change: StateChange },
    Settle { event: String, endpoint: &'static str, outcome: u8 },
    Unregister { endpoint: &'static str },
}

fn order(random: &mut fastrand::Rng) -> Order {
    let endpoint = ENDPOINTS[random.usize(..ENDPOINTS.len())];
    let event = format!("event-{}", random.u8(..12));
    match random.u8(..22) {
        0..2 => Order::Cancel { event, endpoint },
        2..8 => Order::Publish { event },
        8..11 => Order::Register { endpoint, is_ordered: random.u8(..3) == 0 },
        // In memory, an ordered endpoint gets missed events in another place: behind those that it
        // has.
        11..13 => {
            Order::Replay { endpoint, which: Undelivered { missed: false, ..Undelivered::ALL } }
        }
        13..16 => {
            let changes = [GONE, StateChange::Enable, StateChange::Pause, StateChange::Resume];
            Order::SetState { endpoint, change: changes[random.usize(..4)] }
        }
        16..19 => Order::Settle { event, endpoint, outcome: random.u8(..4) },
        19..21 => Order::ReplayDelivery { event, endpoint },
        _ => Order::Unregister { endpoint },
    }
}

/// Returns the delivery of an event to an endpoint, if there is one.
async fn find(store: &impl AnyStore, event: &str, endpoint: &str) -> Option<DeliveryId> {
    let event = Some(EventId::new(event).unwrap());
    let query = Query { event, endpoint: Some(id(endpoint)), ..Query::default() };
    let found = store.deliveries(query).await.unwrap().items;
    found.first().map(|found| found.id)
}

/// Returns the answer about a delivery as a text without ids, which differ between stores.
fn told(done: Result<impl Debug, OperationError>) -> String {
    match done {
        Ok(done) => format!("{done:?}"),
        Err(OperationError::WrongStatus { status, .. }) => status.to_string(),
        Err(error) => error.to_string(),
    }
}

/// A pair of commands that were given at once, and their time.
type Pair = (u64, [Order; 2]);

/// A store with its two handles, and its claims.
struct World<S> {
    handles: [S; 2],
    held: BTreeMap<(String, String), Claim>,
}

fn clocks_at(seconds: u64) -> Now {
    let monotonic = MonotonicTime::from_origin(Duration::from_secs(seconds));
    Now { wall: Timestamp::from_unix_seconds(1_767_225_600 + seconds), monotonic }
}

impl<S: AnyStore> World<S> {
    fn new(handles: [S; 2]) -> Self {
        Self { handles, held: BTreeMap::new() }
    }

    async fn carry_out(&self, handle: usize, order: &Order, seconds: u64) -> String {
        let (store, now) = (&self.handles[handle], clocks_at(seconds).wall);
        match order.clone() {
            Order::Cancel { event, endpoint } => {
                let found = find(store, &event, endpoint).await;
                let Some(found) = found else { return "none".to_owned() };
                told(store.cancel(vec![found], now).await.unwrap().remove(0))
            }
            Order::Publish { event } => {
                let event = Event::new("created", 1).unwrap().id(EventId::new(&event).unwrap());
                let event = SerializedEvent::new(&event.timestamp(clocks_at(0).wall));
                let published = store.publish(vec![event], now).await.unwrap().remove(0);
                format!("{published:?}")
            }
            Order::Register { endpoint: name, is_ordered } => {
                let mut endpoint = endpoint();
                endpoint.ordered = is_ordered;
                let registered = register(store, name, endpoint).await;
                match registered {
                    Registered::Changed { before } => {
                        format!("was {} {}", before.state.as_str(), before.endpoint.ordered)
                    }
                    other => format!("{other:?}"),
                }
            }
            Order::Replay { endpoint, which } => {
                let request = replay_request(Replay::of_endpoint(key(endpoint), which), now);
                match replay_all(store, request).await {
                    Ok(count) => count.to_string(),
                    Err(error) => error.to_string(),
                }
            }
            Order::ReplayDelivery { event, endpoint } => {
                let found = find(store, &event, endpoint).await;
                let Some(found) = found else { return "none".to_owned() };
                let request = replay_request(Replay::Delivery(found), now);
                told(store.replay(request).await.map(|replayed| replayed.deliveries))
            }
            Order::SetState { endpoint, change } => {
                let changed = store.set_state(key(endpoint), change, Timestamp::now()).await;
                format!("{:?}", changed.map(|before| before.map(|before| before.state)).ok())
            }
            Order::Settle { event, endpoint, outcome } => {
                let Some(claim) = self.held.get(&(event, endpoint.to_owned())).copied() else {
                    return "none".to_owned();
                };
                let retrying = Outcome::Retrying { due_at: now + Duration::from_secs(2) };
                let outcome = [Outcome::Delivered, Outcome::Failed, Outcome::Released, retrying]
                    [usize::from(outcome)];
                let attempt = (outcome != Outcome::Released).then(|| attempt(now));
                let settlement = Settlement { claim, outcome, attempt };
                let settled = store.settle(vec![settlement], now).await.unwrap();
                format!("{}", settled[0] == Settled::LeaseLost)
            }
            Order::Unregister { endpoint } => {
                format!("{:?}", store.unregister(key(endpoint), Timestamp::now()).await.is_ok())
            }
        }
    }

    /// Claims and returns all due deliveries. A shared store may see some only a little later.
    async fn claim(&mut self, seconds: u64) -> Vec<(String, String)> {
        let mut all = Vec::new();
        // If an endpoint has just become ordered, claims put its deliveries into order before they
        // return any.
        for _ in 0..3 {
            let (now, lease) = (clocks_at(seconds), Duration::from_secs(36_000));
            let (limit, per_endpoint, bytes, room) = (1_000, 1_000, usize::MAX, Room::new());
            let request = ClaimRequest { now, lease, limit, per_endpoint, bytes, room };
            for claimed in self.handles[0].claim(request).await.unwrap() {
                let name = (claimed.event.id.to_string(), claimed.registration.id.to_string());
                self.held.insert(name.clone(), claimed.claim);
                all.push(name);
            }
        }
        all.sort();
        all
    }

    /// Returns the endpoints and deliveries of the store.
    async fn rows(&self) -> Vec<String> {
        let store = &self.handles[1];
        let endpoints = store.list(EndpointQuery::default()).await.unwrap().items;
        let mut rows: Vec<String> = (endpoints.iter())
            .map(|found| format!("{} {:?} {}", found.id, found.state, found.endpoint.ordered))
            .collect();
        for found in
            store.deliveries(Query { limit: 1_000, ..Query::default() }).await.unwrap().items
        {
            let (event, endpoint, attempts) = (found.event, found.endpoint, found.attempts);
            let (status, why) = (found.status, found.cancelled);
            rows.push(format!("{event} for {endpoint}: {status} {why:?}, {attempts} attempts"));
        }
        rows.sort();
        // The order in which events were accepted decides what an ordered endpoint gets later.
        let events = store.events(Query { limit: 1_000, ..Query::default() }).await.unwrap().items;
        rows.extend(events.iter().map(|found| found.id.to_string()));
        rows
    }

    /// Returns the answers to a pair, in the order of the pair, and the rows after it.
    async fn one_by_one(&mut self, (seconds, pair): &Pair, first: usize) -> Seen {
        let mut answers = [String::new(), String::new()];
        for nth in [first, 1 - first] {
            answers[nth] = self.carry_out(nth, &pair[nth], *seconds).await;
        }
        Seen { answers, rows: self.rows().await }
    }

    async fn at_once(&mut self, (seconds, pair): &Pair) -> Seen {
        let (one, other) = tokio::join!(
            self.carry_out(0, &pair[0], *seconds),
            self.carry_out(1, &pair[1], *seconds)
        );
        Seen { answers: [one, other], rows: self.rows().await }
    }

    /// Claims until the claims are those that are due after one of the orders; returns that order.
    async fn claim_all(&mut self, seconds: u64, due: &[Option<Due>; 2]) -> Option<usize> {
        let mut ticks = interval(Duration::from_millis(10));
        let mut claimed = Due::new();
        let claiming = async {
            loop {
                let is_all = |due: &Option<Due>| due.as_ref() == Some(&claimed);
                if let Some(order) = due.iter().position(is_all) {
                    return Some(order);
                }
                let is_part = |due: &Due| claimed.is_subset(due);
                due.iter().flatten().find(|due| is_part(due))?;
                claimed.extend(self.claim(seconds).await);
                ticks.tick().await;
            }
        };
        let order = timeout(DEADLINE, claiming).await.ok().flatten();
        assert!(order.is_some(), "{claimed:?} was handed out, due is one of {due:?}");
        order
    }
}

/// The due deliveries: events and endpoints.
type Due = BTreeSet<(String, String)>;

pub(super) fn attempt(started_at: Timestamp) -> Attempt {
    Attempt {
        started_at,
        duration: Duration::from_millis(1),
        status_code: Some(200),
        error_class: None,
        error: None,
        response_headers: String::new(),
        response: bytes::Bytes::new(),
    }
}

#[derive(Debug, PartialEq)]
struct Seen {
    answers: [String; 2],
    rows: Vec<String>,
}

/// Returns a store in memory after pairs in these orders.
async fn memory(history: &[(Pair, usize)]) -> World<MemoryStore> {
    let store = MemoryStore::new();
    let mut world = World::new([store.clone(), store]);
    for (pair, first) in history {
        world.one_by_one(pair, *first).await;
        world.claim(pair.0).await;
    }
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_processes_do_at_once_comes_out_in_an_order() {
    let first_seed = fastrand::u64(..);
    for seed in (first_seed..).take(usize::try_from(RUNS).unwrap()) {
        let mut random = fastrand::Rng::with_seed(seed);
        let url = Cluster::shared().database().await;
        let mut world = World::new([open(&url).await, open(&url).await]);
        simulate_leases(&url).await;
        let mut history: Vec<(Pair, usize)> = Vec::new();
        for seconds in (1..).take(PAIRS) {
            let pair = (seconds, [order(&mut random), order(&mut random)]);
            let seen = Box::pin(world.at_once(&pair)).await;
            let (mut expected, mut due) = (Vec::new(), [None, None]);
            for first in [0, 1] {
                let mut after = memory(&history).await;
                expected.push(after.one_by_one(&pair, first).await);
                if expected[first] == seen {
                    due[first] = Some(after.claim(seconds).await.into_iter().collect());
                }
            }
            println!("seed {seed}, {pair:?}");
            let is_known = expected.contains(&seen);
            assert!(is_known, "{seen:#?} is neither of {expected:#?}");
            let first = world.claim_all(seconds, &due).await.unwrap();
            history.push((pair, first));
        }
    }
}
