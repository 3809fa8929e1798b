//! Figures for Prometheus.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use webhooks_dispatch::clock::{Clock as _, MonotonicTime, SystemClock};
use webhooks_dispatch::monitor::{
    ConnectionGauges, DurationCounts, DurationHistogram, StoreActivity,
};
use webhooks_dispatch::observer::{Failure, Gauges, Observer, Occurrence};

use crate::hint::Hints;

/// The results of attempts that are counted, each by itself: no label has values that a caller chooses.
const RESULTS: [&str; 7] = ["1xx", "2xx", "3xx", "4xx", "5xx", "error", "busy"];

/// The time after which the store counts as well if it did not fail again: workers ask it more often.
const WELL_AFTER: Duration = Duration::from_secs(10);

/// The time for which the calls of workers must fail before the store counts as down. A call that fails now
/// and then is made again, and nobody needs to know.
const DOWN_AFTER: Duration = Duration::from_secs(5);

/// Counts what the workers of one process do, and tells the service of what operational endpoints are told.
/// Give it to the engine as an observer, and to the service. Without it, they are told of changes that
/// requests make, and of the rest when a service starts.
///
/// Clones share the counters.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    published: AtomicU64,
    attempts: [AtomicU64; RESULTS.len()],
    delivered: AtomicU64,
    failed: AtomicU64,
    expired: AtomicU64,
    store_failures: AtomicU64,
    mismatches_published: AtomicU64,
    mismatches_refused: AtomicU64,
    /// The first and the last failure of the store, with no long time between any two.
    failing: Mutex<Option<(MonotonicTime, MonotonicTime)>>,
    workers_started: AtomicU64,
    refused_keys: AtomicU64,
    held_off: AtomicU64,
    shed: AtomicU64,
    exchanges: DurationHistogram,
    ages: DurationHistogram,
    hints: Hints,
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Writes the lines of a histogram: the number of durations within each bound, in seconds.
fn write_histogram(
    text: &mut String,
    name: &str,
    help: &str,
    counts: &DurationCounts,
) -> std::fmt::Result {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram")?;
    let mut sum = 0;
    for (bound, count) in counts.buckets() {
        sum += count;
        match bound {
            Some(bound) => {
                writeln!(text, "{name}_bucket{{le=\"{}\"}} {sum}", bound.as_secs_f64())?;
            }
            None => writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {sum}")?,
        }
    }
    writeln!(text, "{name}_sum {}\n{name}_count {sum}", counts.sum.as_secs_f64())
}

/// Writes the work of the store in this process; nothing of one that has none.
fn write_activity(text: &mut String, activity: &StoreActivity) -> std::fmt::Result {
    if activity.connections.is_empty() {
        return Ok(());
    }
    let help = "The times of commits of the store.";
    write_histogram(text, "webhooks_store_commit_seconds", help, &activity.commits)?;
    let name = "webhooks_store_calls_total";
    writeln!(text, "# HELP {name} Calls that these commits stored; a commit stores a group.")?;
    writeln!(text, "# TYPE {name} counter\n{name} {}", activity.calls)?;
    let name = "webhooks_store_connections";
    writeln!(text, "# HELP {name} Connections of the store by use.\n# TYPE {name} gauge")?;
    for ConnectionGauges { purpose, idle, in_use, .. } in &activity.connections {
        writeln!(text, "{name}{{purpose=\"{purpose}\",state=\"idle\"}} {idle}")?;
        writeln!(text, "{name}{{purpose=\"{purpose}\",state=\"in_use\"}} {in_use}")?;
    }
    for (word, help) in [
        ("max", "The most connections of the store by use."),
        ("waiting", "Calls that wait for a connection of the store."),
    ] {
        writeln!(text, "# HELP {name}_{word} {help}\n# TYPE {name}_{word} gauge")?;
        for found in &activity.connections {
            let value = if word == "max" { found.max } else { found.waiting };
            writeln!(text, "{name}_{word}{{purpose=\"{}\"}} {value}", found.purpose)?;
        }
    }
    Ok(())
}

impl Counters {
    fn attempt(&self, status_code: Option<u16>, duration: Duration) {
        let class = status_code.map(|code| usize::from(code / 100));
        // The classes from 1 to 5 are the first five results.
        let result = class.filter(|class| (1..=5).contains(class)).map_or(5, |class| class - 1);
        add(&self.attempts[result]);
        self.exchanges.record(duration);
    }

    fn store_failure(&self, now: MonotonicTime) {
        add(&self.store_failures);
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = failing.filter(|(_, last)| now.saturating_since(*last) < WELL_AFTER);
        *failing = Some((before.map_or(now, |(first, _)| first), now));
    }

    fn failure(&self, failure: &Failure<'_>) {
        self.attempt(failure.status_code, failure.duration);
    }
}

impl Observer for Metrics {
    fn observe(&self, occurrence: &Occurrence<'_>) {
        let counters = &*self.0;
        counters.hints.note(occurrence);
        match occurrence {
            Occurrence::Published { .. } => add(&counters.published),
            Occurrence::Delivered { duration, age, status_code, .. } => {
                counters.attempt(*status_code, *duration);
                counters.ages.record(*age);
                add(&counters.delivered);
            }
            Occurrence::AttemptFailed { failure, .. } => counters.failure(failure),
            Occurrence::DeliveryFailed { failure, .. } => {
                counters.failure(failure);
                add(&counters.failed);
            }
            Occurrence::Expired { .. } => add(&counters.expired),
            Occurrence::TransportBusy { .. } => add(&counters.attempts[6]),
            Occurrence::StoreFailed { .. } => counters.store_failure(SystemClock.monotonic()),
            Occurrence::WorkerStarted { .. } => add(&counters.workers_started),
            _ => {}
        }
    }
}

impl Metrics {
    /// Counts an event that was published although its payload does not match the schema.
    pub(crate) fn mismatch_published(&self) {
        add(&self.0.mismatches_published);
    }

    /// Counts an event that was refused because its payload does not match the schema.
    pub(crate) fn mismatch_refused(&self) {
        add(&self.0.mismatches_refused);
    }

    pub(crate) fn hints(&self) -> &Hints {
        &self.0.hints
    }

    pub(crate) fn note_refused_key(&self) {
        add(&self.0.refused_keys);
    }

    pub(crate) fn note_held_off(&self) {
        add(&self.0.held_off);
    }

    /// Returns whether the calls of workers have failed for some seconds.
    pub(crate) fn store_is_down(&self, now: MonotonicTime) -> bool {
        let failing = *self.0.failing.lock().unwrap_or_else(PoisonError::into_inner);
        failing.is_some_and(|(first, last)| {
            now.saturating_since(last) < WELL_AFTER && last.saturating_since(first) >= DOWN_AFTER
        })
    }

    /// Returns whether this process has had a worker.
    pub(crate) fn had_worker(&self) -> bool {
        self.0.workers_started.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn note_shed(&self) {
        add(&self.0.shed);
    }

    /// Writes all figures in the text format of Prometheus: the counters, the present numbers of the
    /// workers, the depth of the queue, how late the workers are, and the work of the store.
    pub(crate) fn write(&self, text: &mut String, present: &Present) -> std::fmt::Result {
        self.write_counters(text)?;
        present.write(text)?;
        let counters = &*self.0;
        let help = "The time from a request to the end of its response.";
        let exchanges = counters.exchanges.read();
        write_histogram(text, "webhooks_exchange_seconds", help, &exchanges)?;
        let help = "The time from acceptance to the answer of the receiver.";
        let ages = counters.ages.read();
        write_histogram(text, "webhooks_delivery_age_seconds", help, &ages)?;
        write_activity(text, &present.activity)
    }

    fn write_counters(&self, text: &mut String) -> std::fmt::Result {
        let counters = &*self.0;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (name, help, value) in [
            ("published_total", "Events that were accepted.", read(&counters.published)),
            ("delivered_total", "Deliveries that were taken.", read(&counters.delivered)),
            ("failed_total", "Deliveries without a retry left.", read(&counters.failed)),
            ("expired_total", "Deliveries that grew too old.", read(&counters.expired)),
            (
                "store_failures_total",
                "Calls of workers that failed.",
                read(&counters.store_failures),
            ),
            (
                "schema_mismatches_published_total",
                "Events that were published although they do not match their schema.",
                read(&counters.mismatches_published),
            ),
            (
                "schema_mismatches_refused_total",
                "Events that were refused because they do not match their schema.",
                read(&counters.mismatches_refused),
            ),
            ("refused_keys_total", "Keys that were refused.", read(&counters.refused_keys)),
            (
                "held_off_total",
                "Requests of addresses with too many refused keys.",
                read(&counters.held_off),
            ),
            ("shed_total", "Requests beyond those that may be in work.", read(&counters.shed)),
        ] {
            writeln!(text, "# HELP webhooks_{name} {help}\n# TYPE webhooks_{name} counter")?;
            writeln!(text, "webhooks_{name} {value}")?;
        }
        let name = "webhooks_attempts_total";
        writeln!(text, "# HELP {name} Attempts by result.\n# TYPE {name} counter")?;
        for (result, counter) in RESULTS.iter().zip(&counters.attempts) {
            writeln!(text, "{name}{{result=\"{result}\"}} {}", read(counter))?;
        }
        Ok(())
    }
}

/// The present state of the service.
#[derive(Debug)]
pub(crate) struct Present {
    pub(crate) gauges: Gauges,
    /// The number of deliveries that wait or are in flight.
    pub(crate) waiting: u64,
    /// The time for which workers are late.
    pub(crate) late: Duration,
    pub(crate) activity: StoreActivity,
}

impl Present {
    fn write(&self, text: &mut String) -> std::fmt::Result {
        let Self { gauges, waiting, late, .. } = self;
        for (name, help, value) in [
            (
                "queue_deliveries",
                "Deliveries that wait or are in flight, at most 1000000.",
                *waiting,
            ),
            ("workers", "Workers of this process.", gauges.workers),
            ("in_flight", "Attempts in flight.", gauges.in_flight),
            ("in_flight_slow", "Attempts in flight for long.", gauges.slow),
            ("slots", "Attempts that may be in flight.", gauges.slots),
            ("unsettled", "Results that are not stored yet.", gauges.unsettled),
            ("open_breakers", "Circuit breakers that are not closed.", gauges.open_breakers),
        ] {
            writeln!(text, "# HELP webhooks_{name} {help}\n# TYPE webhooks_{name} gauge")?;
            writeln!(text, "webhooks_{name} {value}")?;
        }
        let name = "webhooks_queue_late_seconds";
        let help =
            "The time for which the first delivery is due that a worker should have attempted.";
        writeln!(text, "# HELP {name} {help}")?;
        writeln!(text, "# TYPE {name} gauge\n{name} {}", late.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_down_while_it_fails_again_and_again() {
        let (metrics, at) = (Metrics::default(), |seconds| {
            MonotonicTime::from_origin(Duration::from_secs(seconds))
        });
        assert!(!metrics.store_is_down(at(0)));
        for (failed_at, is_down) in [(0, false), (4, false), (5, true), (14, true), (24, false)] {
            metrics.0.store_failure(at(failed_at));
            assert_eq!(metrics.store_is_down(at(failed_at)), is_down, "{failed_at}");
        }
        for second in 24..30 {
            metrics.0.store_failure(at(second));
        }
        assert!(metrics.store_is_down(at(38)));
        assert!(!metrics.store_is_down(at(39)), "nothing failed since");
    }
}
