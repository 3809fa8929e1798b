//! Commands that are committed in groups leave what they leave one by one.
//!
//! Method: two stores get the same commands in the same order. One writer finds many in its queue,
//! and groups them; the other finds one at a time. Answers, claims and all rows must be equal, also
//! after the files are opened again. The writers run in the test's thread.

pub(crate) mod side;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt as _;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestCaseResult, TestError, TestRng, TestRunner};
use rusqlite::types::Value;
use webhooks_core::{DeliveryId, EndpointId};
use webhooks_dispatch::backlog::Window;
use webhooks_dispatch::store::{
    Claim, ClaimRequest, Claimed, DeliveryStore as _, Room, StoreError,
};
use webhooks_registry::{DisableReason, store::StateChange};

use crate::SqliteStore;

use self::side::{Awaited, Bug, Order, Side, answer, at, clocks, key};

#[derive(Debug, Clone)]
enum Step {
    Claim { limit: usize, per_endpoint: usize },
    Drain,
    Extend { held: usize },
    Orders(Vec<Order>),
    Pass { seconds: u64 },
    Reopen,
}

fn order() -> impl Strategy<Value = Order> {
    let endpoint = || 0..3_usize;
    prop_oneof![
        3 => (1..24_u64).prop_map(|delivery| Order::Cancel { delivery }),
        1 => (0..40_u8).prop_map(|event| Order::Expunge { event }),
        1 => Just(Order::Fail),
        2 => (0..40_u8, 0..60_u64)
            .prop_map(|(event, seconds)| Order::Schedule { event, seconds }),
        1 => (0..60_u64).prop_map(|age| Order::Prune { age }),
        8 => (0..40_u8, any::<bool>()).prop_map(|(event, wanted)| Order::Publish { event, wanted }),
        4 => (endpoint(), 0..4_u8, any::<bool>(), 0..4_u8).prop_map(
            |(endpoint, active, ordered, picky)| Order::Register {
                endpoint, active: active > 0, ordered, picky: picky == 0,
            }
        ),
        3 => (0..5_u8, endpoint(), 1..24_u64)
            .prop_map(|(kind, endpoint, delivery)| Order::Replay { kind, endpoint, delivery }),
        4 => (endpoint(), change())
            .prop_map(|(endpoint, change)| Order::SetState { endpoint, change }),
        5 => vec((0..8_usize, 0..5_u8), 1..4).prop_map(|held| Order::Settle { held }),
        2 => (0..40_u8, any::<bool>())
            .prop_map(|(event, is_refused)| Order::Transact { event, is_refused }),
        2 => endpoint().prop_map(|endpoint| Order::Unregister { endpoint }),
    ]
}

fn change() -> impl Strategy<Value = StateChange> {
    prop_oneof![
        2 => Just(StateChange::Disable(DisableReason::Gone)),
        1 => Just(StateChange::Disable(DisableReason::Manual)),
        3 => Just(StateChange::Enable),
        2 => Just(StateChange::Pause),
        2 => Just(StateChange::Resume),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..6_usize, 1..4_usize)
            .prop_map(|(limit, per_endpoint)| Step::Claim { limit, per_endpoint }),
        1 => Just(Step::Drain),
        1 => (0..8_usize).prop_map(|held| Step::Extend { held }),
        8 => vec(order(), 1..8).prop_map(Step::Orders),
        2 => (0..40_u64).prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::Reopen),
    ]
}

/// Shows claimed deliveries without their tokens: the endpoint and its settings, the delivery, its
/// progress.
fn told(claimed: &[Claimed]) -> Vec<String> {
    let mut told: Vec<(&EndpointId, String)> = (claimed.iter())
        .map(|claimed| {
            let Claimed { claim, registration, event, progress, is_failing } = claimed;
            let id = &registration.id;
            let endpoint = &registration.endpoint;
            let delivery = claim.delivery;
            let set = (endpoint.ordered, endpoint.subscriptions.len());
            (id, format!("{id} {set:?} {delivery} {} {progress:?} {is_failing}", event.id))
        })
        .collect();
    // Which endpoint comes first depends on what memory holds of each.
    told.sort_by_key(|(id, _)| *id);
    told.into_iter().map(|(_, told)| told).collect()
}

/// The two stores: one that groups, one that does not.
struct Sides {
    grouped: Side,
    single: Side,
    /// The claims in both stores, the latest last.
    held: Vec<(Claim, Claim)>,
    now: u64,
    is_roomy: bool,
}

impl Sides {
    fn step(mut self, step: &Step) -> Result<Self, TestCaseError> {
        let now = clocks(self.now);
        match step {
            Step::Claim { limit, per_endpoint } if self.is_roomy => {
                let grouped = self.grouped.claim(*limit, *per_endpoint, now);
                let single = self.single.claim(*limit, *per_endpoint, now);
                self.hold(&grouped, &single)?;
            }
            Step::Claim { .. } => {
                let (grouped, single) = (self.grouped.claim_all(now), self.single.claim_all(now));
                self.hold(&grouped, &single)?;
            }
            Step::Drain => {
                prop_assert_eq!(self.grouped.writer.drain(), self.single.writer.drain());
            }
            Step::Extend { held } => {
                if let Some((grouped, single)) = self.held.get(*held).copied() {
                    let extend = |side: &Side, claim| {
                        let lease = Duration::from_secs(40);
                        side.store.extend(vec![claim], lease, now).now_or_never().unwrap().unwrap()
                    };
                    let lost = extend(&self.grouped, grouped).len();
                    prop_assert_eq!(lost, extend(&self.single, single).len());
                }
            }
            Step::Orders(orders) => self.carry_out(orders)?,
            Step::Pass { seconds } => self.now += seconds,
            Step::Reopen => {
                self.grouped = self.grouped.reopened();
                self.single = self.single.reopened();
                self.held.clear();
            }
        }
        prop_assert_eq!(self.grouped.rows(), self.single.rows());
        Ok(self)
    }

    fn hold(&mut self, grouped: &[Claimed], single: &[Claimed]) -> TestCaseResult {
        prop_assert_eq!(told(grouped), told(single));
        let claims: BTreeMap<DeliveryId, Claim> =
            single.iter().map(|claimed| (claimed.claim.delivery, claimed.claim)).collect();
        for claimed in grouped {
            self.held.push((claimed.claim, claims[&claimed.claim.delivery]));
        }
        // The picks reach the last eight.
        let old = self.held.len().saturating_sub(8);
        self.held.drain(..old);
        Ok(())
    }

    fn carry_out(&mut self, orders: &[Order]) -> TestCaseResult {
        let now = at(self.now);
        let (grouped, single): (Vec<Claim>, Vec<Claim>) = self.held.iter().copied().unzip();
        let mut awaited: Vec<Awaited> =
            orders.iter().map(|order| self.grouped.queue(order, &grouped, now)).collect();
        self.grouped.run();
        for (order, awaited) in orders.iter().zip(&mut awaited) {
            let mut alone = self.single.queue(order, &single, now);
            self.single.run();
            prop_assert_eq!(answer(awaited), answer(&mut alone), "{:?}", order);
        }
        Ok(())
    }

    /// Compares what is left, in memory of one and from the disk of the other.
    fn end(mut self) -> TestCaseResult {
        self.grouped.drain();
        self.single.drain();
        prop_assert_eq!(self.grouped.rows(), self.single.rows());
        self.single = self.single.reopened();
        let resume = |endpoint| Order::SetState { endpoint, change: StateChange::Resume };
        self.carry_out(&[0, 1, 2].map(resume))?;
        for _ in 0..100 {
            self.now += 1_000;
            let now = clocks(self.now);
            let (grouped, single) = (self.grouped.claim_all(now), self.single.claim_all(now));
            if grouped.is_empty() && single.is_empty() {
                break;
            }
            self.held.clear();
            self.hold(&grouped, &single)?;
            let held = (0..self.held.len()).map(|n| (n, 0)).collect();
            self.carry_out(&[Order::Settle { held }])?;
        }
        self.grouped.drain();
        self.single.drain();
        let left = self.grouped.rows();
        prop_assert_eq!(&left, &self.single.rows());
        let open = |row: &&Vec<Value>| row.contains(&Value::Text("pending".to_owned()));
        prop_assert_eq!(left["deliveries"].iter().find(open), None, "it waits for ever");
        Ok(())
    }
}

fn check(window: Window, steps: &[Step], ignores_ends: bool) -> TestCaseResult {
    let is_roomy = window.per_endpoint > 100;
    let grouped = Side::new(window, ignores_ends);
    let single = Side::new(window, false);
    let mut sides = Sides { grouped, single, held: Vec::new(), now: 0, is_roomy };
    let register = |endpoint| {
        let (active, ordered, picky) = (true, endpoint == 1, false);
        Order::Register { endpoint, active, ordered, picky }
    };
    for endpoint in 0..2 {
        sides.carry_out(&[register(endpoint)])?;
    }
    for step in steps {
        sides = sides.step(step)?;
    }
    sides.end()
}

const ROOMY: Window = Window { per_endpoint: 1_000, bytes: 1_000_000 };
const NARROW: Window = Window { per_endpoint: 3, bytes: 500 };

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::with_cases(cases)
    }
}

proptest! {
    #![proptest_config(config(60))]
    #[test]
    fn a_group_leaves_what_its_commands_leave_one_by_one(steps in vec(step(), 1..25)) {
        check(ROOMY, &steps, false)?;
    }

    #[test]
    fn it_does_so_when_memory_holds_next_to_nothing(steps in vec(step(), 1..25)) {
        check(NARROW, &steps, false)?;
    }
}

/// Goal: the property above can fail. Method: groups go on behind every command.
#[test]
fn commands_that_should_end_their_group_and_do_not_are_found_out() {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let config = ProptestConfig { max_shrink_iters: 0, ..config(60) };
    let mut runner = TestRunner::new_with_rng(config, rng);
    let found = runner.run(&vec(step(), 1..25), |steps| check(ROOMY, &steps, true));
    assert!(matches!(found, Err(TestError::Fail(..))), "{found:?}");
}

fn publish(event: u8) -> Order {
    Order::Publish { event, wanted: true }
}

fn register(active: bool, ordered: bool) -> Order {
    Order::Register { endpoint: 0, active, ordered, picky: false }
}

/// Each pair of commands comes out as one after the other does; in one group, it would not.
#[test]
fn commands_that_race_come_out_in_an_order() {
    let first = |order| Step::Orders(vec![order]);
    let claim = || Step::Claim { limit: 5, per_endpoint: 5 };
    let unregister = Order::Unregister { endpoint: 0 };
    let set = |change| Order::SetState { endpoint: 0, change };
    let disable = || set(StateChange::Disable(DisableReason::Gone));
    let (enable, pause, resume) =
        (set(StateChange::Enable), set(StateChange::Pause), set(StateChange::Resume));
    let settle = |kind| Order::Settle { held: vec![(0, kind)] };
    let replay = Order::Replay { kind: 0, endpoint: 0, delivery: 1 };
    let cancel = Order::Cancel { delivery: 1 };
    let races = [
        ("cancel, retry", vec![first(publish(1)), claim()], vec![cancel.clone(), settle(3)]),
        ("cancel, deliver", vec![first(publish(1)), claim()], vec![cancel.clone(), settle(0)]),
        ("unregister, register", vec![], vec![unregister, register(true, false)]),
        ("disable, enable", vec![], vec![disable(), enable, publish(1), publish(2), publish(3)]),
        ("disable, register", vec![], vec![disable(), register(true, true)]),
        ("pause, resume", vec![], vec![pause.clone(), resume]),
        ("pause, register", vec![], vec![pause, register(true, true), publish(1)]),
        ("ordered, publish", vec![], vec![register(true, true), publish(1)]),
        ("ordered, retry", vec![first(publish(1)), claim()], vec![register(true, true), settle(3)]),
        (
            "ordered, replay",
            vec![first(publish(1)), claim(), first(settle(1))],
            vec![register(true, true), replay],
        ),
    ];
    for (name, before, race) in races {
        let mut steps = vec![first(Order::Unregister { endpoint: 1 })];
        steps.extend(before);
        steps.push(Step::Orders(race));
        steps.push(Step::Drain);
        steps.push(Step::Reopen);
        let alone = check(ROOMY, &steps, false);
        assert!(alone.is_ok(), "{name}: {alone:?}");
        assert!(check(ROOMY, &steps, true).is_err(), "{name}: it does not matter");
    }
}

/// Goal: a settlement whose group failed before it is asked anew whether its claim holds. Method:
/// the same claim twice in one group, behind a command that fails.
#[test]
fn what_a_failed_group_believed_is_forgotten() {
    let settle = Order::Settle { held: vec![(0, 0)] };
    let steps = [
        Step::Orders(vec![publish(1)]),
        Step::Claim { limit: 1, per_endpoint: 1 },
        Step::Orders(vec![settle.clone(), settle, Order::Fail]),
    ];
    check(ROOMY, &steps, false).unwrap();
}

/// Goal: a writer that dies is not unseen: every call says so, also those that need memory alone.
#[tokio::test]
async fn a_writer_that_panics_is_told_by_every_call() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let first = store.write(Bug).await.unwrap_err();
    // It waits until the thread has ended.
    store.clone().close().await;
    let claims = vec![];
    let told = [
        first,
        store.publish(vec![], at(0)).await.unwrap_err(),
        store.next_due(Room::new(), clocks(0)).await.unwrap_err(),
        store.extend(claims, Duration::ZERO, clocks(0)).await.unwrap_err(),
    ];
    for error in told {
        let StoreError::Unavailable { source } = error else { panic!("{error:?}") };
        assert!(source.to_string().contains("has panicked"), "{source}");
    }
    drop(store);
    assert!(SqliteStore::open(&path).await.is_ok(), "the file is free");
}

/// Goal: what waits for a live row is never cancelled, whoever asks for it.
#[test]
fn a_live_row_is_not_drained() {
    let mut side = Side::new(ROOMY, false);
    let mut orders = vec![register(true, false)];
    orders.extend((0..5).map(publish));
    side.do_all(&orders, at(0));
    let number = side.store.inner.registry.get_of(&key(0)).unwrap().number;
    side.writer.connection.start_draining(number);
    side.drain();
    assert_eq!(side.claim(10, 10, clocks(0)).len(), 5);
    assert_eq!(side.reopened().claim_all(clocks(0)).len(), 5);
}

/// Goal: a backlog that cannot be read now is read later. Meanwhile others go on, nobody is busy, and
/// the error is reported. Method: the table is away for a while.
#[test]
fn a_backlog_that_cannot_be_read_now_is_read_later() {
    let mut side = Side::new(NARROW, false);
    let other = |endpoint| Order::Register { endpoint, active: true, ordered: false, picky: false };
    side.do_all(&[other(0), other(1)], at(0));
    side.do_all(&(0..9).map(publish).collect::<Vec<_>>(), at(0));
    side.execute("ALTER TABLE events RENAME TO away");
    let claimed = side.claim(100, 100, clocks(0));
    assert!((2..18).contains(&claimed.len()), "{}", claimed.len());
    assert!(!side.store.inner.backlog().is_low());
    let due = side.store.next_due(Room::new(), clocks(0)).now_or_never().unwrap().unwrap();
    assert_eq!(due, Some(Duration::from_secs(1)), "nobody asks before");
    let lease = Duration::from_secs(30);
    let (limit, per_endpoint, now) = (9, 9, clocks(0));
    let request =
        ClaimRequest { now, lease, limit, per_endpoint, bytes: usize::MAX, room: Room::new() };
    let told = side.store.claim(request).now_or_never().unwrap().unwrap_err();
    assert!(matches!(told, StoreError::Unavailable { .. }), "{told:?}");
    side.execute("ALTER TABLE away RENAME TO events");
    while side.store.inner.deferred_errors.take().is_some() {}
    assert_eq!(claimed.len() + side.claim_all(clocks(2)).len(), 18);
}
