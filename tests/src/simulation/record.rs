//! What a run writes down: a trace with a hash, and the first promise that was broken.

use std::collections::BTreeMap;
use std::fmt::{self, Arguments, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::leases::Deliveries;
use super::limits::{Limits, Lines};
use super::plan::EndpointPlan;
use super::{Options, Run, Sabotage, Tally};
use crate::SimulatedClock;

/// The number of a worker over the whole run; a worker that starts again is another one. Number 0
/// is the publisher.
pub(super) type WorkerNumber = usize;

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
    pub(super) tally: Tally,
    pub(super) endpoints: Vec<EndpointPlan>,
    pub(super) deliveries: Deliveries,
    pub(super) workers: Vec<WorkerRecord>,
    pub(super) limits: Limits,
    /// What each worker has in flight at each endpoint.
    pub(super) lines: BTreeMap<(WorkerNumber, usize), Lines>,
    /// One store call in so many fails or stalls.
    pub(super) store_faults: Option<u32>,
    pub(super) is_healed: bool,
    /// How healthy endpoints are served at the latest, if that is promised.
    pub(super) on_time: Option<Duration>,
    violation: Option<String>,
    log: Log,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WorkerRecord {
    pub(super) has_ended: bool,
    pub(super) in_flight: usize,
    pub(super) most_in_flight: usize,
    /// How many exchanges were made, or are, whose results the store has not answered for.
    pub(super) unsettled: usize,
    /// How many of its store calls fail or stall at present, and when one last did.
    pub(super) faults: usize,
    pub(super) last_fault: Option<Duration>,
}

/// A hash of all lines (FNV-1a), and the lines if wanted.
#[derive(Debug)]
struct Log {
    hash: u64,
    lines: Option<Vec<String>>,
}

impl World {
    pub(super) fn new(seed: u64, options: Options, clock: SimulatedClock) -> Self {
        let record = Record {
            options,
            rng: fastrand::Rng::with_seed(!seed),
            tally: Tally::default(),
            endpoints: Vec::new(),
            deliveries: Deliveries::default(),
            workers: vec![WorkerRecord::default()],
            limits: Limits::default(),
            lines: BTreeMap::new(),
            store_faults: None,
            is_healed: false,
            on_time: None,
            violation: None,
            log: Log { hash: 0xcbf2_9ce4_8422_2325, lines: options.verbose.then(Vec::new) },
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
        self.record().note(self.now(), line);
    }

    pub(super) fn violate(&self, line: Arguments<'_>) {
        self.record().violate(self.now(), line);
    }

    pub(super) fn is_violated(&self) -> bool {
        self.record().violation.is_some()
    }

    pub(super) fn finish(&self) -> Run {
        let mut record = self.record();
        let (tally, hash) = (record.tally, record.log.hash);
        let trace = record.log.lines.take().unwrap_or_default();
        Run { violation: record.violation.clone(), hash, tally, trace }
    }
}

impl WorkerRecord {
    /// Returns whether its store failed or stalled since then.
    pub(super) fn had_fault_since(&self, then: Duration) -> bool {
        self.faults > 0 || self.last_fault.is_some_and(|last| last >= then)
    }
}

impl Record {
    pub(super) fn note(&mut self, now: Duration, line: Arguments<'_>) {
        // Neither fails: nothing is written anywhere but to memory.
        let _infallible = write!(Hasher(&mut self.log.hash), "{} {line}", now.as_micros());
        if let Some(lines) = &mut self.log.lines {
            lines.push(format!("{:>12.6} {line}", now.as_secs_f64()));
        }
    }

    /// Notes that a promise was broken; the first one counts.
    pub(super) fn violate(&mut self, now: Duration, line: Arguments<'_>) {
        self.note(now, format_args!("VIOLATION {line}"));
        let seconds = now.as_secs_f64();
        self.violation.get_or_insert_with(|| format!("{line} (after {seconds:.6} s)"));
    }

    pub(super) fn sabotages(&self, sabotage: Sabotage) -> bool {
        self.options.sabotage == Some(sabotage)
    }
}

struct Hasher<'h>(&'h mut u64);

impl fmt::Write for Hasher<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            *self.0 = (*self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}
