//! The checks of each request when it reaches the receiver, and when its attempt ends.

use std::collections::BTreeMap;
use std::time::Duration;

use webhooks_core::Timestamp;
use webhooks_dispatch::{BreakerSettings, EngineSettings};

use super::checker::{Checker, Terms, WorkerNumber};
use super::leases::Key;

/// The bounds of a worker.
#[derive(Debug, Clone, Default)]
pub(crate) struct Limits {
    pub(crate) in_flight: usize,
    pub(crate) max_unsettled: usize,
    pub(crate) breaker: BreakerSettings,
    /// The longest delay of a retry that `Retry-After` can ask for.
    pub(crate) retry_after_cap: Duration,
    /// The largest time between the decision to send and the arrival of the request.
    pub(crate) lag: Duration,
    /// Whether the wall clock was off for long enough to change due times and ages.
    pub(crate) is_wall_off: bool,
}

impl Limits {
    /// Returns the bounds that the settings promise.
    pub(crate) fn of(settings: &EngineSettings) -> Self {
        Self {
            in_flight: settings.concurrency * 5,
            max_unsettled: settings.max_unsettled,
            breaker: settings.breaker,
            ..Self::default()
        }
    }
}

/// The state of one endpoint at one worker.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    in_flight: u32,
    /// The tokens in its bucket, and the time of that count.
    bucket: Option<(f64, Duration)>,
    /// The end of the pause that the endpoint asked for.
    quiet_until: Duration,
    troubles: u32,
    /// The earliest end of the breaker's pause.
    open_until: Duration,
    /// The end of the time in which failures do not count: they are of attempts that were in flight
    /// when the breaker opened.
    deaf_until: Duration,
    /// Whether its health may have been reset, in which case failures count again.
    may_hear: bool,
    /// The earliest time at which the breaker forgets its failures, if there are no more.
    forgets_at: Duration,
    /// The time at which the endpoint last asked for a pause, or the breaker opened. An attempt
    /// that starts at the same moment cannot know of it.
    closed_at: Option<Duration>,
    is_probing: bool,
    /// `Terms::wishes` when a request was last sent in spite of a pause.
    granted: u32,
}

/// The result of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Answered {
        status: u16,
        retry_after: Option<u64>,
    },
    /// The transport failed or panicked.
    Broken,
    /// The engine dropped it, because of its timeout or because its worker ended.
    Dropped,
}

impl Checker {
    /// Notes that a request arrived, and checks that it was allowed; returns the claim by which it
    /// was sent.
    pub(crate) fn on_send(
        &mut self,
        worker: WorkerNumber,
        key: Key,
        (now, time): (Duration, Timestamp),
    ) -> Option<usize> {
        self.note(now, format_args!("worker {worker} sends {key}"));
        self.counters.attempts += 1;
        self.check_bounds(worker, key, now);
        self.check_rate(worker, key, now);
        self.check_breaker(worker, key, now);
        self.check_order(key, now);
        self.check_claim(worker, key, (now, time))
    }

    fn check_bounds(&mut self, worker: WorkerNumber, key: Key, now: Duration) {
        let record = &mut self.workers[worker];
        record.in_flight += 1;
        record.unsettled += 1;
        record.most_in_flight = record.most_in_flight.max(record.in_flight);
        let (in_flight, unsettled) = (record.in_flight, record.unsettled);
        let most = self.limits.in_flight;
        if in_flight > most {
            self.violate(now, format_args!("bounded in all: {in_flight} in flight of {most}"));
        }
        let most = self.limits.max_unsettled;
        if unsettled > most {
            self.violate(now, format_args!("results are bounded: {unsettled} of {most} unsettled"));
        }
        let lines = self.lines.entry((worker, key.endpoint)).or_default();
        lines.in_flight += 1;
        let in_flight = lines.in_flight;
        let most = self.endpoints[key.endpoint].endpoint.max_in_flight.get();
        if in_flight > most {
            let line = format_args!("{in_flight} in flight at e{} of {most}", key.endpoint);
            self.violate(now, format_args!("bounded per endpoint: {line}"));
        }
    }

    fn check_rate(&mut self, worker: WorkerNumber, key: Key, now: Duration) {
        let Some(limit) = self.endpoints[key.endpoint].endpoint.rate_limit else { return };
        let rate = f64::from(limit.calls.get()) / limit.per.as_secs_f64();
        let burst = f64::from(limit.burst.get());
        let lines = self.lines.entry((worker, key.endpoint)).or_default();
        let (tokens, at) = lines.bucket.unwrap_or((burst, now));
        let tokens = (tokens + now.saturating_sub(at).as_secs_f64() * rate).min(burst) - 1.0;
        lines.bucket = Some((tokens, now));
        if tokens < -0.001 {
            let line = format_args!("e{} gets more than {rate}/s past {burst}", key.endpoint);
            self.violate(now, format_args!("rate limits hold: {line}"));
        }
    }

    fn check_breaker(&mut self, worker: WorkerNumber, key: Key, now: Duration) {
        let wishes = self.endpoints[key.endpoint].wishes;
        let lines = self.lines.entry((worker, key.endpoint)).or_default();
        lines.age(now);
        let is_known = lines.closed_at.is_some_and(|closed_at| closed_at < now);
        let is_held = is_known && now < lines.quiet_until.max(lines.open_until);
        if is_held && lines.granted < wishes {
            lines.grant(wishes);
        }
        let quiet = is_known && now < lines.quiet_until;
        let open = is_known && now < lines.open_until;
        let probes = if lines.is_probing && is_known { lines.in_flight } else { 1 };
        let endpoint = key.endpoint;
        if quiet {
            self.violate(now, format_args!("Retry-After holds: e{endpoint} asked for a pause"));
        }
        if open {
            self.violate(now, format_args!("an open breaker burns nothing: {key} is sent"));
        }
        if probes > 1 {
            self.violate(now, format_args!("one probe at a time: e{endpoint} gets {probes}"));
        }
    }

    /// Order of acceptance: nothing is sent while an earlier accepted delivery is open.
    fn check_order(&mut self, key: Key, now: Duration) {
        if !self.endpoints[key.endpoint].endpoint.ordered {
            return;
        }
        let Some(delivery) = self.deliveries.by_key.get(&key) else { return };
        let place = delivery.earliest;
        // A delivery from before the endpoint became ordered may be in flight.
        let from = self.endpoints[key.endpoint].ordered_from;
        let earlier = (self.deliveries.by_key.iter())
            .find(|(other, earlier)| {
                other.endpoint == key.endpoint
                    && earlier.is_open
                    && earlier.earliest > from
                    && !earlier.may_have_ended
                    && earlier.latest.is_some_and(|latest| latest < place)
                    && !earlier.was_replayed
            })
            .map(|(earlier, _)| *earlier);
        // A late duplicate after a lost lease may come at any time; it was sent in order before.
        let is_repeat = !delivery.is_open || delivery.was_replayed;
        if let Some(earlier) = earlier.filter(|_| !is_repeat) {
            self.violate(now, format_args!("order: {key} is sent before {earlier} has ended"));
        }
    }

    fn check_claim(
        &mut self,
        worker: WorkerNumber,
        key: Key,
        (now, time): (Duration, Timestamp),
    ) -> Option<usize> {
        let delivery = self.deliveries.by_key.get_mut(&key)?;
        let (was_taken, due_at) = (delivery.was_taken, delivery.due_at);
        let is_uncertain = delivery.is_uncertain;
        let is_first = !delivery.claims.iter().any(|claim| claim.is_sent);
        let waited = now.saturating_sub(delivery.accepted_at);
        let Terms { on_time, must_be_known, known_at, .. } = self.endpoints[key.endpoint];
        let is_promised = !must_be_known || known_at.is_some_and(|at| at < delivery.accepted_at);
        let on_time = on_time.filter(|_| is_first && is_promised);
        let is_late = on_time.is_some_and(|most| waited > most);
        self.counters.beside_outage += u64::from(must_be_known && on_time.is_some());
        let index = (delivery.claims.iter())
            .rposition(|claim| claim.worker == worker && !claim.is_sent && claim.settled.is_none());
        let Some(index) = index else {
            self.violate(now, format_args!("one attempt a claim: {key} is sent without one"));
            return None;
        };
        let claim = &mut delivery.claims[index];
        claim.is_sent = true;
        let (is_allowed, until) = (claim.is_allowed, claim.until);
        // Another worker may have had it, and settled it for a later retry.
        let is_due = due_at.is_none_or(|due_at| due_at <= time) || claim.is_doubtful();
        let is_due = is_due || self.limits.is_wall_off;
        self.counters.duplicates += u64::from(was_taken);
        if until + self.limits.lag <= time && !is_uncertain {
            self.violate(now, format_args!("leases fence: {key} is sent after its lease ended"));
        }
        if !is_allowed && !is_uncertain {
            self.violate(now, format_args!("retries are bounded: {key} is sent once too often"));
        }
        if !is_due && !is_uncertain {
            self.violate(now, format_args!("retries wait: {key} is sent before it is due"));
        }
        if is_late {
            let line = format_args!("{key} after {:.3} s", waited.as_secs_f64());
            self.violate(now, format_args!("the healthy are served on time: {line}"));
        }
        Some(index)
    }

    /// Notes the result of an attempt.
    pub(crate) fn on_end(
        &mut self,
        worker: WorkerNumber,
        key: Key,
        claim: Option<usize>,
        ending: Ending,
        now: Duration,
    ) {
        self.note(now, format_args!("worker {worker} ends {key}: {ending:?}"));
        self.workers[worker].in_flight -= 1;
        self.counters.broken_off += u64::from(ending == Ending::Dropped);
        let claims = self.deliveries.by_key.get(&key).map(|delivery| &delivery.claims);
        let sent_by = claim.zip(claims).and_then(|(index, claims)| claims.get(index));
        // The endpoint may have been closed, and a new one registered that knows nothing of it.
        let is_closed = sent_by.is_some_and(|claim| claim.is_closed);
        let is_sign_of_life =
            matches!(ending, Ending::Answered { status, .. } if status != 429 && status < 500);
        let limits = &self.limits;
        let lines = self.lines.entry((worker, key.endpoint)).or_default();
        lines.in_flight = lines.in_flight.saturating_sub(1);
        let opened = (is_sign_of_life || !is_closed) && lines.learn(ending, limits, now);
        self.counters.openings += u64::from(opened);
        let Ending::Answered { status, .. } = ending else { return };
        let is_success = (200..300).contains(&status);
        self.counters.successes += u64::from(is_success);
        if is_success {
            self.endpoints[key.endpoint].known_at.get_or_insert(now);
        }
        let Some(delivery) = self.deliveries.by_key.get_mut(&key) else { return };
        delivery.was_taken |= is_success;
        if let Some(claim) = claim.and_then(|index| delivery.claims.get_mut(index)) {
            claim.status = Some(status);
        }
    }

    /// Notes that the store answered, with success or not, for the results of `exchanges` attempts.
    pub(crate) fn on_answered(&mut self, worker: WorkerNumber, exchanges: usize) {
        let unsettled = &mut self.workers[worker].unsettled;
        *unsettled = unsettled.saturating_sub(exchanges);
    }

    /// Notes that an endpoint's health may have been reset, because the endpoint may be mended. If
    /// it was not reset, its breaker still ignores the attempts in flight.
    pub(crate) fn forgive(&mut self, endpoint: usize) {
        for ((_, of), lines) in &mut self.lines {
            if *of == endpoint {
                let Lines { in_flight, bucket, deaf_until, granted, .. } = *lines;
                let may_hear = true;
                *lines =
                    Lines { in_flight, bucket, deaf_until, may_hear, granted, ..Lines::default() };
            }
        }
    }

    /// Notes that an operator wants an endpoint to be tried at once: each worker may send one request to it
    /// in spite of a pause, as a probe.
    pub(crate) fn wish(&mut self, endpoint: usize) {
        self.endpoints[endpoint].wishes += 1;
    }

    /// Forgets the state of a worker that ended.
    pub(crate) fn on_worker_ended(&mut self, worker: WorkerNumber) {
        self.workers[worker].has_ended = true;
        let lines: BTreeMap<_, _> = std::mem::take(&mut self.lines);
        self.lines = lines.into_iter().filter(|((of, _), _)| *of != worker).collect();
    }
}

impl Lines {
    /// Forgets old failures.
    fn age(&mut self, now: Duration) {
        if now >= self.forgets_at {
            (self.troubles, self.is_probing) = (0, false);
        }
    }

    /// Ends all pauses with a probe that an operator wants. If it fails, the breaker opens again.
    fn grant(&mut self, wishes: u32) {
        self.granted = wishes;
        (self.quiet_until, self.open_until) = (Duration::ZERO, Duration::ZERO);
        self.deaf_until = Duration::ZERO;
    }

    /// Follows the breaker as far as it is promised: after the set number of failures in a row
    /// nothing is sent for the first pause, and then one request at a time until one is answered
    /// without trouble. Returns whether the breaker opened.
    fn learn(&mut self, ending: Ending, limits: &Limits, now: Duration) -> bool {
        self.age(now);
        let is_trouble = match ending {
            Ending::Answered { status, retry_after } => {
                let is_trouble = status == 429 || status >= 500;
                let asked = Duration::from_secs(retry_after.unwrap_or_default());
                if is_trouble && retry_after.is_some() {
                    self.closed_at = Some(now);
                    self.quiet_until =
                        self.quiet_until.max(now + asked.min(limits.retry_after_cap));
                }
                if !is_trouble {
                    (self.troubles, self.is_probing) = (0, false);
                    (self.deaf_until, self.may_hear) = (Duration::ZERO, false);
                }
                is_trouble
            }
            Ending::Broken | Ending::Dropped => true,
        };
        let breaker = &limits.breaker;
        if !is_trouble || now < self.deaf_until {
            if is_trouble && self.may_hear {
                self.deaf_until = self.deaf_until.max(now + breaker.first_pause);
            }
            return false;
        }
        self.may_hear = false;
        self.forgets_at = now + breaker.longest_pause * 2;
        self.troubles += 1;
        if !self.is_probing && self.troubles < breaker.failures {
            return false;
        }
        self.closed_at = Some(now);
        let was_probing = std::mem::replace(&mut self.is_probing, true);
        self.open_until = now + breaker.first_pause.min(breaker.longest_pause);
        self.deaf_until = self.open_until;
        !was_probing
    }
}
