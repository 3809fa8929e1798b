//! Properties: bounds hold in any sequence of steps, and no claimed delivery is stuck.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::slots::SLOW_FACTOR;
use super::*;
use crate::gauges::Gauges;

/// Something that happens to a scheduler; numbers choose among what is there.
#[derive(Debug, Clone)]
enum Step {
    Forget { endpoint: usize },
    Finish { flight: usize, signal: EndpointSignal },
    Lose { held: usize },
    Add { endpoint: usize, deliveries: u64 },
    Pass { milliseconds: u64 },
    SlowDown { flight: usize },
    Take { most: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let longest = (0..200_000_u64).prop_map(|pause| Some(Duration::from_millis(pause)));
    let pause = prop_oneof![Just(None), longest];
    let signal = prop_oneof![
        3 => Just(EndpointSignal::Success),
        1 => Just(EndpointSignal::Refused),
        1 => Just(EndpointSignal::NoRoom),
        1 => Just(EndpointSignal::Nothing),
        2 => pause.prop_map(|pause| EndpointSignal::Unhealthy { pause }),
    ];
    prop_oneof![
        1 => (0..6_usize).prop_map(|endpoint| Step::Forget { endpoint }),
        5 => (any::<usize>(), signal).prop_map(|(flight, signal)| Step::Finish { flight, signal }),
        1 => any::<usize>().prop_map(|held| Step::Lose { held }),
        4 => (0..6_usize, 1..20_u64)
            .prop_map(|(endpoint, deliveries)| Step::Add { endpoint, deliveries }),
        2 => (0..20_000_u64).prop_map(|milliseconds| Step::Pass { milliseconds }),
        3 => any::<usize>().prop_map(|flight| Step::SlowDown { flight }),
        5 => (1..10_usize).prop_map(|most| Step::Take { most }),
    ]
}

/// A scheduler, and what is known of it from outside.
struct Watched {
    scheduler: Scheduler,
    endpoints: Vec<Arc<Registration>>,
    in_flight: Vec<InFlight>,
    /// Claims that were added, and neither taken nor released nor lost.
    waiting: BTreeSet<Claim>,
    now: u64,
    next: u64,
}

impl Watched {
    fn new(concurrency: usize) -> Self {
        let endpoints = (0..6).map(|number| {
            let tenant = TenantId::new(["one", "two"][number % 2]).unwrap();
            let endpoint = endpoint().tenant(tenant).max_in_flight(count(number + 1));
            let is_limited = number == 3;
            let limited = |endpoint: Endpoint| endpoint.rate_limit(count(5), count(2));
            let endpoint = if is_limited { limited(endpoint) } else { endpoint };
            registration(&number.to_string(), endpoint)
        });
        Self {
            scheduler: scheduler(concurrency),
            endpoints: endpoints.collect(),
            in_flight: Vec::new(),
            waiting: BTreeSet::new(),
            now: 0,
            next: 0,
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Forget { endpoint } => {
                self.scheduler.forget_endpoint(self.endpoints[endpoint].number);
                self.scheduler.sweep(at(self.now));
            }
            Step::Finish { flight, signal } => {
                if !self.in_flight.is_empty() {
                    let flight = self.in_flight.swap_remove(flight % self.in_flight.len());
                    self.scheduler.finish(&flight, signal, at(self.now));
                    self.scheduler.forget_claim(&flight.claimed.claim);
                }
            }
            Step::Lose { held } => {
                let held_now = self.scheduler.held();
                if let Some(claim) = held_now.get(held % held_now.len().max(1)) {
                    self.scheduler.drop_lost(&[*claim]);
                    self.waiting.remove(claim);
                }
            }
            Step::Add { endpoint, deliveries } => {
                let to = Arc::clone(&self.endpoints[endpoint]);
                let added = self.next..self.next + deliveries;
                let is_failing = endpoint % 3 == 2;
                let added: Vec<Claimed> =
                    added.map(|number| Claimed { is_failing, ..claimed(number, &to) }).collect();
                self.waiting.extend(added.iter().map(|claimed| claimed.claim));
                self.scheduler.add_claimed(added, at(0) + LEASE);
                self.next += deliveries;
            }
            Step::Pass { milliseconds } => self.now += milliseconds,
            Step::SlowDown { flight } => {
                if !self.in_flight.is_empty() {
                    let flight = flight % self.in_flight.len();
                    self.scheduler.slow_down(&mut self.in_flight[flight]);
                }
            }
            Step::Take { most } => {
                for _ in 0..most {
                    let Some(flight) = self.scheduler.take(at(self.now)) else { break };
                    assert!(self.waiting.remove(&flight.claimed.claim), "it was added, and once");
                    self.in_flight.push(flight);
                }
            }
        }
        for claim in self.scheduler.take_to_release() {
            assert!(self.waiting.remove(&claim), "it was added, and has not finished");
        }
        self.check();
    }

    fn check(&self) {
        let concurrency = self.scheduler.concurrency;
        let slow = self.in_flight.iter().filter(|flight| flight.is_slow).count();
        assert_eq!(self.scheduler.in_flight(), self.in_flight.len());
        assert!(self.in_flight.len() - slow.min(concurrency * SLOW_FACTOR) <= concurrency);
        for registration in &self.endpoints {
            let mine = |flight: &&InFlight| flight.claimed.registration.id == registration.id;
            let mine = self.in_flight.iter().filter(mine).count();
            assert!(mine <= registration.endpoint.max_in_flight.get() as usize);
        }
        let queued: usize = self.scheduler.lanes.iter().map(|lane| lane.queue.len()).sum();
        assert_eq!(queued, self.waiting.len(), "what waits is what was added");
        assert_eq!(queued, self.scheduler.queued);
        let bytes = |lane: &Lane| -> usize {
            lane.queue.iter().map(|claimed| claimed.event.body.len()).sum()
        };
        assert!(self.scheduler.lanes.iter().all(|lane| lane.bytes == bytes(lane)));
        let queued: usize = self.scheduler.lanes.iter().map(bytes).sum();
        assert_eq!(queued, self.scheduler.queued_bytes);
        let is_ready = |lane: &&Lane| lane.state == LaneState::Ready;
        let ready: Vec<&Lane> = self.scheduler.lanes.iter().filter(is_ready).collect();
        assert_eq!(ready.iter().map(|lane| bytes(lane)).sum::<usize>(), self.scheduler.ready_bytes);
        let ready: usize = ready.iter().map(|lane| lane.queue.len()).sum();
        assert_eq!(ready, self.scheduler.ready_deliveries);
        let is_parked = |lane: &&Lane| matches!(lane.state, LaneState::Parked(_));
        let parked: Vec<&Lane> = self.scheduler.lanes.iter().filter(is_parked).collect();
        assert_eq!(parked.len(), self.scheduler.parked.len());
        let parked: usize = parked.iter().map(|lane| lane.queue.len()).sum();
        assert_eq!(parked, self.scheduler.parked_deliveries);
        self.check_gauges(slow);
        // Each lane can be found by number and by key, and no entry leads elsewhere.
        let known = self.scheduler.lanes.len() - self.scheduler.free.len();
        assert_eq!(known, self.scheduler.by_endpoint.len());
        assert_eq!(known, self.scheduler.by_key.len());
    }

    /// Checks what is counted beforehand against a count of everything.
    fn check_gauges(&self, slow: usize) {
        let count = |is: fn(&Lane) -> bool| {
            let lanes = self.scheduler.lanes.iter().filter(|lane| lane.key().is_some());
            u64::try_from(lanes.filter(|lane| is(lane)).count()).unwrap()
        };
        let expected = Gauges {
            workers: 1,
            slots: u64::try_from(self.scheduler.concurrency).unwrap(),
            in_flight: u64::try_from(self.in_flight.len()).unwrap(),
            slow: u64::try_from(slow).unwrap(),
            waiting: u64::try_from(self.waiting.len()).unwrap(),
            unsettled: 0,
            lanes: count(|_| true),
            ready_lanes: count(|lane| lane.state == LaneState::Ready),
            parked_lanes: count(|lane| matches!(lane.state, LaneState::Parked(_))),
            resting_lanes: count(|lane| {
                matches!(lane.state, LaneState::Resting | LaneState::Limited)
            }),
            open_breakers: count(Lane::is_probing),
        };
        assert_eq!(self.scheduler.gauges(), expected);
    }
}

proptest! {
    #[test]
    fn bounds_hold_and_no_claim_is_stuck(
        concurrency in 1..5_usize,
        steps in vec(step(), 1..120),
    ) {
        let mut watched = Watched::new(concurrency);
        for step in &steps {
            watched.step(step);
        }
        // All is well from here on.
        for _ in 0..2_000 {
            watched.step(&Step::Pass { milliseconds: 1_000 });
            watched.step(&Step::Take { most: 100 });
            watched.step(&Step::Finish { flight: 0, signal: EndpointSignal::Success });
            if watched.waiting.is_empty() && watched.in_flight.is_empty() {
                break;
            }
        }
        prop_assert!(watched.waiting.is_empty(), "{:?}", watched.waiting);
        prop_assert_eq!(watched.scheduler.in_flight(), 0);
        prop_assert!(watched.scheduler.held().is_empty());
    }
}
