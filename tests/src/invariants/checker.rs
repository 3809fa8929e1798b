//! The record of a run: a trace with a hash, and the first promise that was broken.

use std::collections::BTreeMap;
use std::fmt::{self, Arguments, Write as _};
use std::time::Duration;

use webhooks_registry::Endpoint;

use super::Counters;
use super::leases::Deliveries;
use super::limits::{Limits, Lines};

/// The number of a worker over the whole run; a worker that starts again is another one.
pub(crate) type WorkerNumber = usize;

/// Follows a run.
#[derive(Debug)]
pub(crate) struct Checker {
    pub(crate) counters: Counters,
    /// The endpoints, by their numbers.
    pub(crate) endpoints: Vec<Terms>,
    pub(crate) deliveries: Deliveries,
    pub(crate) workers: Vec<WorkerRecord>,
    pub(crate) limits: Limits,
    /// The attempts that each worker has in flight at each endpoint.
    pub(super) lines: BTreeMap<(WorkerNumber, usize), Lines>,
    pub(crate) violation: Option<String>,
    log: Log,
}

/// The promises to an endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) endpoint: Endpoint,
    /// The largest delay with which it is served, if a delay is promised.
    pub(crate) on_time: Option<Duration>,
    /// Whether that delay is promised only for events accepted after its first answer.
    pub(crate) must_be_known: bool,
    /// The time of its first answer.
    pub(super) known_at: Option<Duration>,
    /// The number of times that an operator wanted it to be tried at once.
    pub(super) wishes: u32,
    /// The place from which on its deliveries are in order, if it is ordered.
    pub(super) ordered_from: usize,
}

impl Terms {
    /// Returns the terms of an endpoint that has these settings from the start.
    pub(crate) fn new(endpoint: Endpoint, on_time: Option<Duration>) -> Self {
        Self { endpoint, on_time, must_be_known: false, known_at: None, wishes: 0, ordered_from: 0 }
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WorkerRecord {
    pub(crate) has_ended: bool,
    pub(crate) in_flight: usize,
    pub(crate) most_in_flight: usize,
    /// The number of attempts made or running whose results the store has not answered.
    pub(crate) unsettled: usize,
    /// The number of its store calls that fail or stall at present, and the end of the last one.
    pub(crate) faults: usize,
    pub(crate) last_fault: Option<Duration>,
}

/// A hash of all lines (FNV-1a), and the lines themselves if wanted.
#[derive(Debug)]
struct Log {
    hash: u64,
    lines: Option<Vec<String>>,
}

impl WorkerRecord {
    /// Returns whether its store failed or stalled since `then`.
    pub(super) fn had_fault_since(&self, then: Duration) -> bool {
        self.faults > 0 || self.last_fault.is_some_and(|last| last >= then)
    }
}

impl Checker {
    /// Returns a checker for a run that begins; `verbose` records the trace as text.
    pub(crate) fn new(verbose: bool) -> Self {
        Self {
            counters: Counters::default(),
            endpoints: Vec::new(),
            deliveries: Deliveries::default(),
            workers: Vec::new(),
            limits: Limits::default(),
            lines: BTreeMap::new(),
            violation: None,
            log: Log { hash: 0xcbf2_9ce4_8422_2325, lines: verbose.then(Vec::new) },
        }
    }

    /// Returns the number of a worker that starts.
    pub(crate) fn add_worker(&mut self) -> WorkerNumber {
        self.workers.push(WorkerRecord::default());
        self.workers.len() - 1
    }

    /// Notes that an endpoint's settings change now.
    pub(crate) fn change(&mut self, endpoint: usize, settings: Endpoint) {
        let place = self.deliveries.place();
        let Some(terms) = self.endpoints.get_mut(endpoint) else { return };
        if settings.ordered && !terms.endpoint.ordered {
            terms.ordered_from = place;
        }
        terms.endpoint = settings;
    }

    pub(crate) fn note(&mut self, now: Duration, line: Arguments<'_>) {
        // Neither fails: both write to memory only.
        let _infallible = write!(Hasher(&mut self.log.hash), "{} {line}", now.as_micros());
        if let Some(lines) = &mut self.log.lines {
            lines.push(format!("{:>12.6} {line}", now.as_secs_f64()));
        }
    }

    /// Notes that a promise was broken; the first one counts.
    pub(crate) fn violate(&mut self, now: Duration, line: Arguments<'_>) {
        self.note(now, format_args!("VIOLATION {line}"));
        let seconds = now.as_secs_f64();
        self.violation.get_or_insert_with(|| format!("{line} (after {seconds:.6} s)"));
    }

    /// Returns the hash of the trace.
    pub(crate) fn hash(&self) -> u64 {
        self.log.hash
    }

    /// Returns the trace, if it was recorded.
    pub(crate) fn take_trace(&mut self) -> Vec<String> {
        self.log.lines.take().unwrap_or_default()
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
