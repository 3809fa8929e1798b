//! What everything in a simulated run shares: its clock, its checker, and what fails when.

use std::fmt::Arguments;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::plan::EndpointPlan;
use super::{Options, Run, Sabotage};
use crate::SimulatedClock;
use crate::invariants::{Checker, Terms};

/// What everything in a run shares.
#[derive(Debug)]
pub(super) struct World {
    pub(super) clock: SimulatedClock,
    record: Mutex<Record>,
}

#[derive(Debug)]
pub(super) struct Record {
    pub(super) options: Options,
    pub(super) rng: fastrand::Rng,
    /// Its worker number 0 is the publisher.
    pub(super) checker: Checker,
    pub(super) endpoints: Vec<EndpointPlan>,
    /// One store call in so many fails or stalls.
    pub(super) store_faults: Option<u32>,
    pub(super) is_healed: bool,
    /// How late healthy endpoints are served at most, if that is promised.
    pub(super) on_time: Option<Duration>,
}

impl World {
    pub(super) fn new(seed: u64, options: Options, clock: SimulatedClock) -> Self {
        let mut checker = Checker::new(options.verbose);
        checker.add_worker();
        let record = Record {
            options,
            rng: fastrand::Rng::with_seed(!seed),
            checker,
            endpoints: Vec::new(),
            store_faults: None,
            is_healed: false,
            on_time: None,
        };
        Self { clock, record: Mutex::new(record) }
    }

    pub(super) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.elapsed()
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

    pub(super) fn finish(&self) -> Run {
        let checker = &mut self.record().checker;
        let trace = checker.take_trace();
        let violation = checker.violation.clone();
        Run { violation, hash: checker.hash(), tally: checker.tally, trace }
    }
}

impl Record {
    /// Adds an endpoint, with the next number.
    pub(super) fn add_endpoint(&mut self, plan: EndpointPlan) {
        let on_time = self.on_time.filter(|_| plan.is_prompt());
        self.checker.endpoints.push(Terms { endpoint: plan.endpoint.clone(), on_time });
        self.endpoints.push(plan);
    }

    pub(super) fn sabotages(&self, sabotage: Sabotage) -> bool {
        self.options.sabotage == Some(sabotage)
    }
}
