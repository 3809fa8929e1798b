//! The state that everything in a simulated run shares: its clock, its checker, and its faults.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Arguments;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::oracle::{Changed, Oracle};
use super::plan::{EndpointPlan, number};
use super::{Options, Run, Sabotage};
use crate::SimulatedClock;
use crate::invariants::{Checker, Key, Terms};
use tokio::sync::watch;
use webhooks_core::{DeliveryId, Timestamp};
use webhooks_dispatch::{Replay, store::ReplayRequest};
use webhooks_registry::{EndpointKey, EndpointState};

/// The state that everything in a run shares.
#[derive(Debug)]
pub(super) struct World {
    pub(super) clock: SimulatedClock,
    /// The delivery whose attempt failed last.
    pub(super) failures: watch::Sender<Option<Key>>,
    record: Mutex<Record>,
}

#[derive(Debug)]
pub(super) struct Record {
    pub(super) options: Options,
    pub(super) rng: fastrand::Rng,
    /// Its worker number 0 is the publisher.
    pub(super) checker: Checker,
    pub(super) oracle: Oracle,
    pub(super) endpoints: Vec<EndpointPlan>,
    /// The number of events that were made.
    pub(super) events: usize,
    /// One in this number of store calls fails or stalls.
    pub(super) store_faults: Option<u32>,
    pub(super) is_healed: bool,
    /// Whether the store accepts no more events.
    pub(super) is_full: bool,
    pub(super) retention: Duration,
    /// The endpoints that everybody knows to get nothing, and the time since when. An attempt that
    /// starts at the same moment cannot know of it.
    pub(super) silent: BTreeMap<usize, Duration>,
    /// The largest delay of healthy endpoints, if one is promised.
    pub(super) on_time: Option<Duration>,
    /// Whether most endpoints hang: in that case slots are reserved for those that answered.
    pub(super) is_outage: bool,
}

impl World {
    pub(super) fn new(seed: u64, options: Options, clock: SimulatedClock) -> Self {
        let mut checker = Checker::new(options.verbose);
        checker.add_worker();
        let record = Record {
            options,
            rng: fastrand::Rng::with_seed(!seed),
            checker,
            oracle: Oracle::default(),
            endpoints: Vec::new(),
            events: 0,
            store_faults: None,
            is_healed: false,
            is_full: false,
            retention: Duration::MAX,
            silent: BTreeMap::new(),
            on_time: None,
            is_outage: false,
        };
        Self { clock, failures: watch::Sender::default(), record: Mutex::new(record) }
    }

    pub(super) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn options(&self) -> Options {
        self.record().options
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    /// Returns the time by a wall clock that never steps.
    pub(super) fn even(&self) -> Timestamp {
        self.clock.even()
    }

    pub(super) fn note(&self, line: Arguments<'_>) {
        self.record().checker.note(self.now(), line);
    }

    pub(super) fn violate(&self, line: Arguments<'_>) {
        self.record().checker.violate(self.now(), line);
    }

    pub(super) fn is_violated(&self) -> bool {
        self.record().checker.violation.is_some()
    }

    /// Notes which events a store still has.
    pub(super) fn on_pruned(&self, before: Timestamp, count: usize, mut left: Vec<usize>) {
        left.sort_unstable();
        let verdict = self.record().oracle.prune(before, count, &left);
        let mut record = self.record();
        let is_early = before > self.even().saturating_sub(record.retention);
        if is_early && !record.checker.limits.is_wall_off {
            let line = format_args!("a leap forgets nothing: {count} events, too early");
            record.checker.violate(self.now(), line);
        }
        drop(record);
        match verdict {
            Err(why) => self.violate(format_args!("nothing that waits is forgotten: {why}")),
            Ok(forgotten) => {
                let mut record = self.record();
                let pruned = u64::try_from(count).unwrap_or(u64::MAX);
                record.checker.counters.pruned += pruned;
                record.checker.note(self.now(), format_args!("{pruned} events are forgotten"));
                for key in forgotten {
                    record.checker.deliveries.forget(key);
                }
            }
        }
    }

    pub(super) fn finish(&self) -> Run {
        let checker = &mut self.record().checker;
        let trace = checker.take_trace();
        let violation = checker.violation.clone();
        Run { violation, hash: checker.hash(), counters: checker.counters, trace }
    }
}

impl Record {
    /// Adds an endpoint, with the next number.
    pub(super) fn add_endpoint(&mut self, plan: EndpointPlan) {
        let on_time = self.on_time.filter(|_| plan.is_prompt());
        let mut terms = Terms::new(plan.endpoint.clone(), on_time);
        terms.must_be_known = self.is_outage;
        self.checker.endpoints.push(terms);
        self.endpoints.push(plan);
    }

    /// Notes that a delivery is cancelled.
    pub(super) fn cancel(&mut self, delivery: DeliveryId, why: &'static str) {
        let key = self.oracle.key(delivery);
        if let Some(delivery) = key.and_then(|key| self.checker.deliveries.by_key.get_mut(&key)) {
            delivery.cancel(why);
        }
    }

    /// Notes that workers may probe the endpoints of a replay.
    pub(super) fn wish(&mut self, request: &ReplayRequest) {
        if !request.probes() {
            return;
        }
        let of = |id: &DeliveryId| self.oracle.key(*id).map(|key| key.endpoint);
        let endpoints: BTreeSet<usize> = match &request.replay {
            Replay::Delivery(id) => of(id).into_iter().collect(),
            Replay::Deliveries(ids) => ids.iter().filter_map(of).collect(),
            Replay::Endpoint { endpoint, .. } => BTreeSet::from([number(endpoint.id.as_str())]),
            Replay::Event { .. } => (0..self.endpoints.len()).collect(),
        };
        for endpoint in endpoints {
            self.checker.wish(endpoint);
        }
    }

    /// Notes that an endpoint was changed.
    pub(super) fn on_changed(&mut self, key: &EndpointKey, changed: Changed, why: &'static str) {
        self.checker.counters.endpoint_changes += 1;
        let endpoint = number(key.id.as_str());
        self.checker.forgive(endpoint);
        if self.is_active(key) {
            self.silent.remove(&endpoint);
        }
        if let Some(settings) = self.oracle.settings(key) {
            self.checker.change(endpoint, settings.clone());
        }
        for (key, delivery) in &mut self.checker.deliveries.by_key {
            if key.endpoint != endpoint {
                continue;
            }
            if delivery.is_open {
                // After a change of the order, retries may be made at once.
                delivery.due_at = None;
            }
            if changed == Changed::Closed {
                delivery.close(why);
            }
        }
    }

    pub(super) fn is_active(&self, key: &EndpointKey) -> bool {
        self.oracle.state(key) == Some(EndpointState::Active)
    }

    pub(super) fn sabotages(&self, sabotage: Sabotage) -> bool {
        self.options.sabotage == Some(sabotage)
    }
}
