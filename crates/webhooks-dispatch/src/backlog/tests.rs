//! A backlog with a small window returns the same claims as one that holds everything.

use proptest::collection::vec;
use proptest::prelude::*;
use webhooks_core::{EndpointId, Event, TenantId};
use webhooks_registry::Endpoint;

use super::*;
use crate::serialized_event::SerializedEvent;

const NAMES: [&str; 3] = ["a", "b", "c"];

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix_seconds(1_000 + seconds)
}

fn registration(name: &str, is_ordered: bool) -> Arc<Registration> {
    let endpoint = Endpoint::new("https://example.com/", "my-secret-key").unwrap();
    let endpoint = endpoint.tenant(TenantId::new(if name == "c" { "two" } else { "one" }).unwrap());
    let endpoint = if is_ordered { endpoint.ordered() } else { endpoint };
    let id = EndpointId::new(name).unwrap();
    let number = NAMES.iter().position(|other| *other == name).unwrap();
    Arc::new(Registration::new(number_of(number), id, endpoint))
}

fn number_of(endpoint: usize) -> EndpointNumber {
    EndpointNumber::from_u64(endpoint as u64)
}

fn endpoint_of(number: EndpointNumber) -> usize {
    usize::try_from(number.as_u64()).unwrap()
}

/// Something that happens to a backlog; numbers choose among what is there.
#[derive(Debug, Clone)]
enum Step {
    BeginRefill,
    Claim { limit: usize, per_endpoint: usize },
    ClaimAll,
    Close { endpoint: usize },
    EndRefill,
    FailRefills,
    Hasten { endpoint: usize },
    Extend { held: usize, by: u64 },
    Pass { seconds: u64 },
    Push { endpoint: usize, due_in: u64, bytes: usize, is_scheduled: bool },
    Register { endpoint: usize, is_ordered: bool },
    Remove { waiting: usize },
    JumpClock { forward: bool, seconds: u64 },
    Settle { held: usize, kind: u8, due_in: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::BeginRefill),
        2 => Just(Step::EndRefill),
        1 => Just(Step::FailRefills),
        1 => (0..3_usize).prop_map(|endpoint| Step::Hasten { endpoint }),
        3 => (1..5_usize, 1..4_usize)
            .prop_map(|(limit, per_endpoint)| Step::Claim { limit, per_endpoint }),
        2 => Just(Step::ClaimAll),
        1 => (0..3_usize).prop_map(|endpoint| Step::Close { endpoint }),
        2 => (any::<usize>(), 0..100_u64).prop_map(|(held, by)| Step::Extend { held, by }),
        3 => (0..50_u64).prop_map(|seconds| Step::Pass { seconds }),
        12 => (0..3_usize, 0..20_u64, 0..300_usize, prop::bool::weighted(0.2)).prop_map(
            |(endpoint, due_in, bytes, is_scheduled)| {
                Step::Push { endpoint, due_in, bytes, is_scheduled }
            }
        ),
        1 => (0..3_usize, any::<bool>())
            .prop_map(|(endpoint, is_ordered)| Step::Register { endpoint, is_ordered }),
        2 => any::<usize>().prop_map(|waiting| Step::Remove { waiting }),
        1 => (any::<bool>(), 0..200_u64)
            .prop_map(|(forward, seconds)| Step::JumpClock { forward, seconds }),
        6 => (any::<usize>(), 0..5_u8, 0..60_u64)
            .prop_map(|(held, kind, due_in)| Step::Settle { held, kind, due_in }),
    ]
}

/// The deliveries of one endpoint on disk.
type Rows = BTreeMap<QueueKey, QueuedDelivery>;

/// The deliveries that a refill found, and the first one that was not read.
type Read = (Refill, Vec<(QueueKey, QueuedDelivery)>, Option<QueueKey>);

/// A backlog with a small window and its disk, beside one that holds everything.
struct Pair {
    small: Backlog,
    all: Backlog,
    disk: [Rows; 3],
    ordered: [bool; 3],
    /// The deliveries that were read from disk and not added yet.
    refills: Vec<Read>,
    /// The claims: endpoint, key on disk, claim of the small one, claim of the other.
    held: Vec<(usize, QueueKey, Claim, Claim)>,
    /// The wall clock, which may step, and the one that goes evenly.
    now: u64,
    elapsed: u64,
    next: u64,
}

impl Pair {
    fn new(window: Window) -> Self {
        let mut pair = Self {
            small: Backlog::new(window),
            all: Backlog::new(Window::ALL),
            disk: Default::default(),
            ordered: [false, true, false],
            refills: Vec::new(),
            held: Vec::new(),
            now: 1_000,
            elapsed: 0,
            next: 1,
        };
        for endpoint in 0..3 {
            pair.open(endpoint);
        }
        pair
    }

    fn open(&mut self, endpoint: usize) {
        let registration = registration(NAMES[endpoint], self.ordered[endpoint]);
        self.small.open(&registration, None, Timestamp::UNIX_EPOCH);
        self.all.open(&registration, None, Timestamp::UNIX_EPOCH);
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::BeginRefill => self.begin_refills(),
            Step::Claim { limit, per_endpoint } => self.claim(limit, per_endpoint)?,
            Step::ClaimAll => self.claim_all()?,
            Step::Close { endpoint } => {
                self.small.close(number_of(endpoint));
                self.all.close(number_of(endpoint));
                self.disk[endpoint].clear();
                self.held.retain(|(of, ..)| *of != endpoint);
                self.open(endpoint);
            }
            Step::EndRefill => self.end_refills(),
            Step::FailRefills => {
                for (refill, ..) in std::mem::take(&mut self.refills) {
                    self.small.retry_refill(&refill);
                }
            }
            Step::Hasten { endpoint } => self.hasten(endpoint),
            Step::Extend { held, by } => {
                if let Some((_, _, small, all)) = self.pick(held) {
                    let until = MonotonicTime::from_origin(Duration::from_secs(self.elapsed + by));
                    let extended = self.small.extend(small, until);
                    prop_assert_eq!(extended, self.all.extend(all, until));
                }
            }
            Step::Pass { seconds } => self.pass(seconds),
            Step::Push { endpoint, due_in, bytes, is_scheduled } => {
                self.push(endpoint, due_in, bytes, is_scheduled);
            }
            Step::Register { endpoint, is_ordered } => {
                if is_ordered && !self.ordered[endpoint] {
                    self.change_keys(endpoint, |key, row| {
                        if row.is_scheduled { key.due_at } else { Timestamp::UNIX_EPOCH }
                    });
                }
                self.ordered[endpoint] = is_ordered;
                self.open(endpoint);
            }
            Step::Remove { waiting } => self.remove(waiting),
            Step::JumpClock { forward: true, seconds } => self.now += seconds,
            Step::JumpClock { seconds, .. } => self.now = self.now.saturating_sub(seconds),
            Step::Settle { held, kind, due_in } => self.settle(held, kind, due_in),
        }
        self.check()
    }

    fn pass(&mut self, seconds: u64) {
        self.now += seconds;
        self.elapsed += seconds;
    }

    /// Changes the due times of an endpoint's deliveries on disk, those that are claimed included.
    fn change_keys(
        &mut self,
        endpoint: usize,
        due_at: impl Fn(QueueKey, &QueuedDelivery) -> Timestamp,
    ) {
        let rows = std::mem::take(&mut self.disk[endpoint]).into_iter();
        for (key, row) in rows {
            let changed = QueueKey { due_at: due_at(key, &row), ..key };
            for (_, held, ..) in self.held.iter_mut().filter(|(_, held, ..)| *held == key) {
                *held = changed;
            }
            self.disk[endpoint].insert(changed, row);
        }
    }

    fn push(&mut self, endpoint: usize, due_in: u64, bytes: usize, is_scheduled: bool) {
        let id = DeliveryId::from_u64(self.next);
        self.next += 1;
        let event = Event::new("a", "x".repeat(bytes)).unwrap();
        let deliver_at = is_scheduled.then(|| at(self.now + due_in));
        let event = Arc::new(SerializedEvent { deliver_at, ..SerializedEvent::new(&event) });
        let delivery = QueuedDelivery::new(event, at(self.now));
        let is_late = delivery.is_scheduled;
        let due_at = if is_late { at(self.now + due_in) } else { self.due(endpoint, due_in) };
        // As stores do: first on disk, then in memory.
        self.disk[endpoint].insert(QueueKey { due_at, delivery: id }, delivery.clone());
        // Some are left on disk, as a replay leaves them.
        if bytes.is_multiple_of(3) {
            self.small.push_unread(number_of(endpoint), due_at, id);
        } else {
            self.small.push(number_of(endpoint), due_at, id, delivery.clone());
        }
        self.all.push(number_of(endpoint), due_at, id, delivery);
    }

    /// Makes due now what is due later. (Nothing here has had an attempt.)
    fn hasten(&mut self, endpoint: usize) {
        let now = at(self.now);
        self.change_keys(
            endpoint,
            |key, row| {
                if row.is_scheduled { key.due_at } else { key.due_at.min(now) }
            },
        );
        let last = QueueKey::last_at(at(u64::MAX / 2));
        self.small.hasten(number_of(endpoint), now, last);
        self.all.hasten(number_of(endpoint), now, last);
    }

    fn due(&self, endpoint: usize, due_in: u64) -> Timestamp {
        if self.ordered[endpoint] { Timestamp::UNIX_EPOCH } else { at(self.now + due_in) }
    }

    fn remove(&mut self, waiting: usize) {
        let rows = (0..3).flat_map(|of| self.disk[of].keys().map(move |key| (of, *key)));
        let rows: Vec<(usize, QueueKey)> = rows.collect();
        let Some((endpoint, key)) = rows.get(waiting % rows.len().max(1)).copied() else {
            return;
        };
        self.disk[endpoint].remove(&key);
        self.held.retain(|(_, held, ..)| held.delivery != key.delivery);
        self.small.remove(number_of(endpoint), key.due_at, key.delivery);
        self.all.remove(number_of(endpoint), key.due_at, key.delivery);
        // As stores do, by what is on disk.
        if self.disk[endpoint].first_key_value().is_none_or(|(first, _)| key < *first) {
            self.small.unblock(number_of(endpoint));
            self.all.unblock(number_of(endpoint));
        }
    }

    fn settle(&mut self, held: usize, kind: u8, due_in: u64) {
        let Some((endpoint, key, small, all)) = self.pick(held) else { return };
        let due_at = at(self.now + due_in);
        let outcome = [Outcome::Delivered, Outcome::Released, Outcome::Retrying { due_at }];
        let outcome = outcome[usize::from(kind % 3)];
        let settlement = |claim| Settlement { claim, outcome, attempt: None };
        self.held.retain(|(.., held)| *held != all);
        let is_kept = self.small.pin(small);
        assert_eq!(is_kept, self.all.pin(all), "both know whether the claim holds");
        if !is_kept {
            return;
        }
        if let Some(mut row) = self.disk[endpoint].remove(&key) {
            match outcome {
                Outcome::Retrying { .. } => {
                    row.is_scheduled = false;
                    let due_at = self.due(endpoint, due_in);
                    self.disk[endpoint].insert(QueueKey { due_at, ..key }, row);
                }
                Outcome::Released => {
                    self.disk[endpoint].insert(key, row);
                }
                _ => {}
            }
        }
        self.small.settle(&settlement(small));
        self.all.settle(&settlement(all));
    }

    fn pick(&self, held: usize) -> Option<(usize, QueueKey, Claim, Claim)> {
        self.held.get(held % self.held.len().max(1)).copied()
    }

    fn begin_refills(&mut self) {
        for refill in self.small.refills(2) {
            let found = self.disk[endpoint_of(refill.endpoint)].range(refill.from..);
            let mut bytes = 0;
            let in_bytes = |(_, row): &(&QueueKey, &QueuedDelivery)| {
                let is_more = bytes < refill.bytes;
                bytes += row.event.body.len();
                is_more
            };
            let found = found.take(refill.limit).take_while(in_bytes);
            let found: Vec<_> = found.map(|(key, row)| (*key, row.clone())).collect();
            let last =
                found.last().filter(|_| found.len() >= refill.limit || bytes >= refill.bytes);
            let next = last.map(|(key, _)| key.next());
            self.refills.push((refill, found, next));
        }
    }

    fn end_refills(&mut self) {
        for (refill, found, next) in std::mem::take(&mut self.refills) {
            self.small.refill(&refill, found, next);
        }
    }

    fn clocks(&self) -> Now {
        let monotonic = MonotonicTime::from_origin(Duration::from_secs(self.elapsed));
        Now { wall: at(self.now), monotonic }
    }

    fn request(&self, limit: usize, per_endpoint: usize) -> ClaimRequest {
        let (now, lease) = (self.clocks(), Duration::from_secs(30));
        ClaimRequest { now, lease, limit, per_endpoint, bytes: usize::MAX, room: Room::new() }
    }

    /// Claims a few of the small one, and makes the other hand out the same.
    fn claim(&mut self, limit: usize, per_endpoint: usize) -> Result<(), TestCaseError> {
        let claimed = self.small.claim(&self.request(limit, per_endpoint));
        prop_assert!(claimed.len() <= limit);
        self.follow(claimed)
    }

    /// Claims all that is due, with refills until there is nothing more.
    fn claim_all(&mut self) -> Result<(), TestCaseError> {
        let mut rounds = 0;
        if self.small.retries.first().is_some() {
            self.pass(60);
        }
        loop {
            self.end_refills();
            self.begin_refills();
            self.end_refills();
            let claimed = self.small.claim(&self.request(1_000, 1_000));
            if claimed.is_empty() && !self.small.is_low() {
                break;
            }
            self.follow(claimed)?;
            rounds += 1;
            prop_assert!(rounds < 1_000, "refills come to an end");
        }
        let left = self.all.claim(&self.request(1_000, 1_000));
        let left: Vec<DeliveryId> = left.iter().map(|claimed| claimed.claim.delivery).collect();
        prop_assert!(left.is_empty(), "{left:?} are due, and were not handed out");
        Ok(())
    }

    /// Takes from the backlog that holds everything what the small one handed out.
    fn follow(&mut self, claimed: Vec<Claimed>) -> Result<(), TestCaseError> {
        let mut others = BTreeMap::new();
        for other in self.all.claim(&self.request(1_000, 1_000)) {
            others.insert(other.claim.delivery, other);
        }
        let mut last = BTreeMap::new();
        for Claimed { claim, registration, progress, .. } in claimed {
            let id = claim.delivery;
            let other = others.remove(&id);
            prop_assert!(other.is_some(), "{} is not due, or handed out already", id);
            let Some(other) = other else { continue };
            prop_assert_eq!(progress, other.progress);
            let endpoint = endpoint_of(registration.number);
            let key = self.disk[endpoint].keys().find(|key| key.delivery == id).copied();
            prop_assert!(key.is_some(), "{} has ended", id);
            let Some(key) = key else { continue };
            let before = last.insert(endpoint, key);
            prop_assert!(before < Some(key), "each queue is handed out in order");
            self.held.retain(|(_, held, ..)| held.delivery != id);
            self.held.push((endpoint, key, claim, other.claim));
        }
        for other in others.into_values() {
            let outcome = Outcome::Released;
            self.all.settle(&Settlement { claim: other.claim, outcome, attempt: None });
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let held: usize = self.small.queues.values().map(EndpointQueue::bytes).sum();
        prop_assert_eq!(held, self.small.bytes);
        // Each endpoint holds one delivery in any case, and no body here is longer.
        prop_assert!(held <= self.small.window.bytes + 3 * 500);
        let most = self.small.window.per_endpoint;
        prop_assert!(self.small.queues.values().all(|queue| queue.len() <= most));
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn a_small_window_hands_out_what_one_that_holds_everything_does(
        per_endpoint in 1..6_usize,
        bytes in 0..2_000_usize,
        steps in vec(step(), 1..80),
    ) {
        let mut pair = Pair::new(Window { per_endpoint, bytes });
        for step in &steps {
            pair.step(step)?;
        }
        // In the end everything that is left is due, and comes.
        for _ in 0..200 {
            pair.pass(100);
            pair.claim_all()?;
            while !pair.held.is_empty() {
                pair.settle(0, 0, 0);
                pair.check()?;
            }
        }
        prop_assert!(pair.disk.iter().all(BTreeMap::is_empty));
    }
}

/// Goal: a queue that cannot be read is asked for again after a while, ever longer, and makes
/// nobody busy meanwhile; what it holds in memory is handed out all the same.
#[test]
fn a_refill_that_failed_is_tried_again_after_a_pause() {
    let mut pair = Pair::new(Window { per_endpoint: 2, bytes: 1_000 });
    for _ in 0..5 {
        pair.push(0, 0, 1, false);
    }
    let mut pauses = Vec::new();
    pair.claim(2, 2).unwrap();
    while !pair.held.is_empty() {
        pair.settle(0, 0, 0);
    }
    for _ in 0..8 {
        assert!(pair.small.is_low());
        pair.begin_refills();
        assert!(!pair.small.is_low());
        pair.step(&Step::FailRefills).unwrap();
        assert!(!pair.small.is_low(), "it is not asked for at once");
        let due = pair.small.next_due(&Room::new(), pair.clocks()).unwrap();
        pauses.push(due.as_secs());
        assert!(pair.small.claim(&pair.request(9, 9)).is_empty());
        pair.pass(due.as_secs());
        assert!(pair.small.claim(&pair.request(9, 9)).is_empty());
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    pair.claim_all().unwrap();
    assert_eq!(pair.held.len(), 3);
    // A refill that worked starts the pauses anew.
    pair.push(0, 0, 1, false);
    pair.push(0, 0, 1, false);
    pair.push(0, 0, 1, false);
    pair.claim(2, 2).unwrap();
    pair.begin_refills();
    pair.step(&Step::FailRefills).unwrap();
    let due = pair.small.next_due(&Room::new(), pair.clocks());
    assert_eq!(due, Some(Duration::from_secs(1)));
}

/// Goal: endpoints that wait for long leave room in the window to one that is served. Method: many
/// that hold all they can, and a healthy one, whose refills are counted.
#[test]
fn those_that_wait_do_not_fill_the_window() {
    let window = Window { per_endpoint: 1_000, bytes: 100_000 };
    let mut backlog = Backlog::new(window);
    let number = |n: u64| EndpointNumber::from_u64(n);
    let event = Arc::new(SerializedEvent::new(&Event::new("a", "x".repeat(400)).unwrap()));
    let mut next = 0;
    for endpoint in 0..21 {
        let endpoint = Arc::new(Registration::new(
            number(endpoint),
            EndpointId::new(&format!("e{endpoint}")).unwrap(),
            Endpoint::new("https://example.com/", "my-secret-key").unwrap(),
        ));
        backlog.open(&endpoint, None, Timestamp::UNIX_EPOCH);
        // The healthy one is the last, when the window is full.
        for _ in 0..500 {
            next += 1;
            let delivery = QueuedDelivery::new(Arc::clone(&event), at(0));
            backlog.push(endpoint.number, at(0), DeliveryId::from_u64(next), delivery);
        }
    }
    assert!(backlog.bytes <= window.bytes);
    let held = backlog.queues[&number(20)].len();
    let fair = window.bytes / event.body.len() / 21;
    assert!(held >= fair / 2, "{held} of a fair share of {fair}");
    let most = backlog.queues.values().map(EndpointQueue::len).max();
    assert!(most <= Some(4 * fair), "one holds {most:?}");
}

/// A window of none is one of one: what is on disk is found.
#[test]
fn a_window_of_nothing_strands_nothing() {
    let mut pair = Pair::new(Window { per_endpoint: 0, bytes: 0 });
    for _ in 0..5 {
        pair.push(0, 0, 1, false);
    }
    pair.claim_all().unwrap();
    assert_eq!(pair.held.len(), 5);
}

#[test]
fn a_queue_that_is_closed_is_not_asked_for_again() {
    let mut pair = Pair::new(Window { per_endpoint: 1, bytes: 1_000 });
    pair.push(0, 0, 1, false);
    pair.push(0, 0, 1, false);
    pair.claim(1, 1).unwrap();
    pair.begin_refills();
    pair.step(&Step::FailRefills).unwrap();
    pair.small.close(number_of(0));
    assert_eq!(pair.small.next_due(&Room::new(), pair.clocks()), None);
    assert!(pair.small.retries.is_empty());
}
