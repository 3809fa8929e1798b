//! The plan that a seed draws before its run: endpoints, settings, faults, and the time of each
//! step.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use webhooks_core::{RetryPolicy, TenantId};
use webhooks_dispatch::backlog::Window;
use webhooks_dispatch::{BreakerSettings, EngineSettings, Undelivered};
use webhooks_registry::{DisableReason, Endpoint, RateLimit, store::StateChange};

use super::moods::Mood;

/// The longest delay of a retry that `Retry-After` can ask for.
pub(super) const RETRY_AFTER_CAP: Duration = Duration::from_secs(60);

/// The time that a healthy endpoint takes to answer in an outage.
pub(super) const OUTAGE_PACE: Duration = Duration::from_millis(5);

pub(super) const EVENT_TYPES: [&str; 3] = ["order.paid", "order.shipped", "user.created"];

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) settings: EngineSettings,
    pub(super) workers: usize,
    pub(super) endpoints: Vec<EndpointPlan>,
    /// One in this number of store calls fails or stalls; none if `None`.
    pub(super) store_faults: Option<u32>,
    /// The number of pending deliveries that a store on disk reads into memory.
    pub(super) window: Window,
    /// Whether workers are not disturbed, and healthy endpoints must be served on time.
    pub(super) is_calm: bool,
    /// Whether most endpoints hang.
    pub(super) is_outage: bool,
    pub(super) steps: Vec<(Duration, Step)>,
}

#[derive(Debug, Clone)]
pub(super) struct EndpointPlan {
    pub(super) endpoint: Endpoint,
    /// Its behaviour, each mood until a time; well after the last one.
    pub(super) moods: Vec<(Duration, Mood)>,
    /// The time that it takes to answer 200, whatever its mood.
    pub(super) pace: Option<Duration>,
}

/// A change of the engine, or of its surroundings.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// From now on the wall clock is off by `off` seconds.
    Clock {
        off: i64,
        is_believed: bool,
    },
    Crash {
        worker: usize,
    },
    /// The process of the whole run ends after `groups` more groups are committed.
    CrashStore {
        groups: usize,
    },
    Full(bool),
    Operate(Operation),
    Publish {
        tenant: usize,
        event_type: &'static str,
        events: usize,
    },
    Shutdown {
        worker: usize,
        grace: Duration,
    },
    Start {
        worker: usize,
    },
    /// Pending deliveries become unreadable, or readable again.
    Unread(bool),
}

/// An operation of an operator.
#[derive(Debug, Clone, Copy)]
pub(super) enum Operation {
    Cancel,
    /// Cancels the delivery whose attempt fails next, while its result is on its way to the store.
    CancelFailing,
    Change {
        endpoint: usize,
        change: StateChange,
    },
    Register {
        endpoint: usize,
        active: bool,
        /// Whether its order differs from the plan.
        ordered: bool,
        narrow: bool,
    },
    ReplayDeliveries,
    ReplayDelivery,
    ReplayEndpoint {
        endpoint: usize,
        which: Undelivered,
    },
    ReplayEvent {
        which: Undelivered,
    },
    Unregister {
        endpoint: usize,
    },
}

const HOUR: i64 = 3_600;
pub(super) const TEN_YEARS: i64 = 10 * 365 * 24 * HOUR;

/// The longest time for which the clock may be right without anybody looking: a call can stall for
/// as long.
const GLIMPSE: Duration = Duration::from_secs(100);

/// The time after which a step of the wall clock may be believed.
const BELIEVED_AFTER: Duration = Duration::from_secs(290);

impl Plan {
    pub(super) fn draw(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let store_faults = (rng.u8(..2) == 0).then(|| rng.u32(3..40));
        let is_calm = store_faults.is_none() && rng.u8(..2) == 0;
        let tenants = rng.usize(1..=3);
        let is_outage = rng.u8(..16) == 0;
        let endpoints: Vec<EndpointPlan> = if is_outage {
            // More endpoints than slots.
            (0..rng.usize(60..=120))
                .map(|n| EndpointPlan::draw_outage(n, tenants, &mut rng))
                .collect()
        } else {
            (0..rng.usize(1..=10)).map(|n| EndpointPlan::draw(n, tenants, &mut rng)).collect()
        };
        let workers = if rng.u8(..3) == 0 { 2 } else { 1 };
        // Long enough for retention, or until a step of the clock is believed.
        let is_long = !is_outage && rng.u8(..6) == 0;
        let span = if is_long { rng.u64(600..2_400) } else { rng.u64(5..90) };
        let mut steps = Vec::new();
        for _ in 0..rng.usize(1..=25) {
            let tenant = rng.usize(..tenants);
            let event_type = EVENT_TYPES[rng.usize(..EVENT_TYPES.len())];
            let most = if is_outage { 8 } else { 40 };
            let events = if rng.u8(..8) == 0 { rng.usize(1..=most) } else { rng.usize(1..=4) };
            steps.push((at(span, &mut rng), Step::Publish { tenant, event_type, events }));
        }
        if !is_calm {
            for _ in 0..rng.usize(0..=6) {
                disturb(&mut steps, span, workers, &mut rng);
            }
            operate(&mut steps, span, endpoints.len(), &mut rng);
        }
        if rng.u8(..4) == 0 {
            shift_clock(&mut steps, span, &mut rng);
        }
        // Equal times stay in their order, because the sort is stable.
        steps.sort_by_key(|(at, _)| *at);
        note_beliefs(&mut steps);
        let mut settings = draw_settings(seed, &mut rng);
        if is_outage {
            // With fewer than eight slots, none is reserved.
            settings.concurrency = rng.usize(8..=12);
            settings.max_unsettled = settings.concurrency * rng.usize(6..=8);
            settings.slow_after = settings.slow_after.min(Duration::from_millis(300));
        }
        if is_long {
            settings.retention = Duration::from_secs(rng.u64(300..900));
        }
        let window = match rng.u8(..3) {
            0 => Window { per_endpoint: 1_024, bytes: 1 << 20 },
            _ => Window { per_endpoint: rng.usize(1..6), bytes: rng.usize(200..5_000) },
        };
        Self { settings, workers, endpoints, store_faults, window, is_calm, is_outage, steps }
    }

    /// Returns the time from which endpoints and store are well.
    pub(super) fn heals_at(&self) -> Duration {
        let last_step = self.steps.last().map_or(Duration::ZERO, |(at, _)| *at);
        let moods = self.endpoints.iter().filter_map(|endpoint| endpoint.moods.last());
        moods.map(|(until, _)| *until).chain([last_step]).max().unwrap_or_default()
    }
}

fn at(span: u64, rng: &mut fastrand::Rng) -> Duration {
    Duration::from_millis(rng.u64(..span * 1_000))
}

fn draw_settings(seed: u64, rng: &mut fastrand::Rng) -> EngineSettings {
    let concurrency = rng.usize(1..=12);
    let first_pause = Duration::from_secs(rng.u64(1..20));
    EngineSettings {
        concurrency,
        slow_after: Duration::from_millis(rng.u64(50..2_000)),
        lease: Duration::from_secs(rng.u64(4..60)),
        linger: Duration::from_millis(rng.u64(0..10)),
        max_unsettled: concurrency * rng.usize(1..=8),
        breaker: BreakerSettings {
            failures: rng.u32(1..8),
            first_pause,
            longest_pause: first_pause * rng.u32(1..4),
        },
        disable_after: (rng.u8(..4) == 0).then(|| Duration::from_secs(rng.u64(20..120))),
        seed: Some(seed),
        ..EngineSettings::default()
    }
}

/// Draws a step that disturbs delivery, and the step that mends it.
fn disturb(steps: &mut Vec<(Duration, Step)>, span: u64, workers: usize, rng: &mut fastrand::Rng) {
    let (at, later) = (at(span, rng), Duration::from_millis(rng.u64(..20_000)));
    let worker = rng.usize(..workers);
    match rng.u8(..8) {
        0 | 1 => {
            steps.extend([(at, Step::Crash { worker }), (at + later, Step::Start { worker })]);
        }
        2 | 3 => {
            let grace = Duration::from_millis(rng.u64(..10_000));
            let shutdown = Step::Shutdown { worker, grace };
            steps.extend([(at, shutdown), (at + later, Step::Start { worker })]);
        }
        4 => steps.extend([(at, Step::Full(true)), (at + later, Step::Full(false))]),
        5 => steps.extend([(at, Step::Unread(true)), (at + later, Step::Unread(false))]),
        _ => {
            steps.push((at, Step::CrashStore { groups: rng.usize(..3) }));
            steps.extend((0..workers).map(|worker| (at + later, Step::Start { worker })));
        }
    }
}

/// Draws the operations of operators: alone, and several at once.
fn operate(
    steps: &mut Vec<(Duration, Step)>,
    span: u64,
    endpoints: usize,
    rng: &mut fastrand::Rng,
) {
    for _ in 0..rng.usize(0..=6) {
        let at = at(span, rng);
        let endpoint = rng.usize(..endpoints);
        let burst = if rng.bool() { 1 } else { rng.usize(2..=6) };
        for _ in 0..burst {
            let soon = Duration::from_millis(if rng.bool() { 0 } else { rng.u64(..40) });
            steps.push((at + soon, Step::Operate(Operation::draw(endpoint, rng))));
        }
        if rng.bool() {
            // A closed endpoint is opened again, and its missed events are replayed.
            let later = at + Duration::from_millis(rng.u64(..20_000));
            let which = draw_undelivered(rng);
            let (change, narrow) = (StateChange::Enable, false);
            steps.extend(
                [
                    (later, Operation::Change { endpoint, change }),
                    (later, Operation::Register { endpoint, active: true, ordered: false, narrow }),
                    (later, Operation::Change { endpoint, change: StateChange::Resume }),
                    (later + Duration::from_secs(1), Operation::ReplayEndpoint { endpoint, which }),
                ]
                .map(|(at, operation)| (at, Step::Operate(operation))),
            );
        }
    }
}

/// Draws the times at which the wall clock is off, and the offsets.
fn shift_clock(steps: &mut Vec<(Duration, Step)>, span: u64, rng: &mut fastrand::Rng) {
    let mut steps_of_clock = vec![2 * HOUR, -2 * HOUR, 2 * HOUR, TEN_YEARS];
    for _ in 0..rng.usize(1..=3) {
        // Ten years only once, and for a moment: nothing may become as old as that.
        let off = steps_of_clock.swap_remove(rng.usize(..steps_of_clock.len()));
        let longest = if off == TEN_YEARS { 280_000 } else { 900_000 };
        let at = at(span, rng);
        let lasts = Duration::from_millis(rng.u64(100..longest));
        steps.push((at, Step::Clock { off, is_believed: false }));
        steps.push((at + lasts, Step::Clock { off: 0, is_believed: false }));
    }
}

/// Notes which steps of the wall clock may be believed, of all steps in order. Two steps by the
/// same offset count as one if the time between them is too short for anybody to look at the clock.
fn note_beliefs(steps: &mut [(Duration, Step)]) {
    let mut spells: BTreeMap<i64, (Duration, Duration)> = BTreeMap::new();
    let mut ends_at = Duration::MAX;
    let mut clocks = Vec::new();
    for (at, step) in steps.iter_mut().rev() {
        if let Step::Clock { off, is_believed } = step {
            clocks.push((*at, ends_at, *off, is_believed));
            ends_at = *at;
        }
    }
    for (at, ends_at, off, is_believed) in clocks.into_iter().rev() {
        let before =
            spells.get(&off).filter(|(_, ended_at)| at.saturating_sub(*ended_at) < GLIMPSE);
        let begun_at = before.map_or(at, |(begun_at, _)| *begun_at);
        spells.insert(off, (begun_at, ends_at));
        *is_believed = off != 0 && ends_at.saturating_sub(begun_at) >= BELIEVED_AFTER;
    }
}

fn draw_undelivered(rng: &mut fastrand::Rng) -> Undelivered {
    let which =
        [Undelivered::ALL, Undelivered::FAILED, Undelivered::CANCELLED, Undelivered::MISSED];
    which[rng.usize(..4)]
}

impl Operation {
    fn draw(endpoint: usize, rng: &mut fastrand::Rng) -> Self {
        let change = [
            StateChange::Disable(DisableReason::Manual),
            StateChange::Enable,
            StateChange::Pause,
            StateChange::Resume,
        ][rng.usize(..4)];
        match rng.u8(..16) {
            0..5 => Self::Change { endpoint, change },
            5..8 => Self::Register {
                endpoint,
                active: rng.u8(..4) > 0,
                ordered: rng.bool(),
                narrow: rng.u8(..4) == 0,
            },
            8 => Self::ReplayDeliveries,
            9 => Self::ReplayDelivery,
            10 => Self::ReplayEndpoint { endpoint, which: draw_undelivered(rng) },
            11 => Self::ReplayEvent { which: draw_undelivered(rng) },
            12 | 13 => Self::Unregister { endpoint },
            14 => Self::CancelFailing,
            _ => Self::Cancel,
        }
    }
}

/// Returns the tenant with this number.
pub(super) fn tenant(number: usize) -> TenantId {
    TenantId::new(&format!("tenant-{number}")).expect("a valid id")
}

/// Returns the URL of the endpoint with this number. The transport finds the endpoint by it.
pub(super) fn url(number: usize) -> String {
    format!("https://example.com/e{number}")
}

/// Returns the number at the end of an id.
pub(super) fn number(id: &str) -> usize {
    id.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number")
}

impl EndpointPlan {
    fn draw(number: usize, tenants: usize, rng: &mut fastrand::Rng) -> Self {
        let milliseconds = |rng: &mut fastrand::Rng, range| Duration::from_millis(rng.u64(range));
        let retry = match rng.u8(..4) {
            0 => RetryPolicy::none(),
            1 => RetryPolicy::fixed(milliseconds(rng, 0..5_000), rng.u32(1..6)),
            2 => RetryPolicy::schedule([100, 2_000, 30_000].map(Duration::from_millis)),
            _ => {
                let (initial, cap) =
                    (milliseconds(rng, 100..2_000), milliseconds(rng, 100..30_000));
                RetryPolicy::exponential(initial, cap, rng.u32(1..8))
            }
        };
        let subscriptions: &[&str] = match rng.u8(..4) {
            0 => &["order.*"],
            1 => &["order.paid", "user.created"],
            _ => &[],
        };
        let endpoint = Endpoint::new(&url(number), "my-secret-key").expect("a valid endpoint");
        let mut endpoint = (endpoint.events(subscriptions).expect("valid subscriptions"))
            .tenant(tenant(rng.usize(..tenants)))
            .retry(retry.retry_after_cap(RETRY_AFTER_CAP))
            .timeout(milliseconds(rng, 500..8_000))
            .max_in_flight(NonZeroU32::new(rng.u32(1..=8)).expect("not zero"));
        if rng.u8(..4) == 0 {
            endpoint = endpoint.ordered();
        }
        if rng.u8(..5) == 0 {
            let [calls, burst] = [rng.u32(1..20), rng.u32(1..6)];
            let [calls, burst] = [calls, burst].map(|n| NonZeroU32::new(n).expect("not zero"));
            // Sometimes less than one per second.
            let per = Duration::from_secs(if rng.bool() { 1 } else { rng.u64(2..10) });
            endpoint = endpoint.rate_limited(RateLimit { calls, per, burst });
        }
        if rng.u8(..5) == 0 {
            endpoint = endpoint.max_age(milliseconds(rng, 1_000..60_000));
        }
        let mut moods = Vec::new();
        let mut until = Duration::ZERO;
        if rng.u8(..3) > 0 {
            for _ in 0..rng.usize(1..=4) {
                until += milliseconds(rng, 100..40_000);
                let is_well = rng.u8(..3) == 0;
                moods.push((until, if is_well { Mood::Well } else { Mood::draw_sick(rng) }));
            }
        }
        Self { endpoint, moods, pace: None }
    }

    /// Draws an endpoint of an outage: it hangs, except one in eight.
    fn draw_outage(number: usize, tenants: usize, rng: &mut fastrand::Rng) -> Self {
        let mut plan = Self::draw(number, tenants, rng);
        let is_well = rng.u8(..8) == 0;
        let until = Duration::from_millis(rng.u64(10_000..90_000));
        if !is_well {
            plan.moods = vec![(until, Mood::Hanging)];
            plan.endpoint.timeout = Duration::from_secs(rng.u64(10..30));
            return plan;
        }
        plan.moods = Vec::new();
        plan.pace = Some(OUTAGE_PACE);
        plan
    }

    pub(super) fn mood(&self, now: Duration) -> Mood {
        let current = self.moods.iter().find(|(until, _)| now < *until);
        current.map_or(Mood::Well, |(_, mood)| *mood)
    }

    /// Returns whether it must be served on time, however many others are sick.
    pub(super) fn is_prompt(&self) -> bool {
        self.is_always_well() && !self.endpoint.ordered && self.endpoint.rate_limit.is_none()
    }

    pub(super) fn is_always_well(&self) -> bool {
        self.moods.iter().all(|(_, mood)| *mood == Mood::Well)
    }
}
