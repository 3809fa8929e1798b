//! What a seed draws before its run: endpoints, settings, faults, and what is done when.

use std::num::NonZeroU32;
use std::time::Duration;

use webhooks_core::{RetryPolicy, TenantId};
use webhooks_dispatch::{BreakerSettings, EngineSettings};
use webhooks_registry::Endpoint;

use super::moods::Mood;

/// How far `Retry-After` can push a retry.
pub(super) const RETRY_AFTER_CAP: Duration = Duration::from_secs(60);

pub(super) const EVENT_TYPES: [&str; 3] = ["order.paid", "order.shipped", "user.created"];

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) settings: EngineSettings,
    pub(super) workers: usize,
    pub(super) endpoints: Vec<EndpointPlan>,
    /// One store call in so many fails or stalls; none if `None`.
    pub(super) store_faults: Option<u32>,
    /// Whether workers are left in peace, and healthy endpoints must be served on time.
    pub(super) is_calm: bool,
    pub(super) steps: Vec<(Duration, Step)>,
}

#[derive(Debug, Clone)]
pub(super) struct EndpointPlan {
    pub(super) endpoint: Endpoint,
    /// How it behaves, each mood until a time; well from then on.
    pub(super) moods: Vec<(Duration, Mood)>,
    /// How long it takes to answer 200, whatever its mood.
    pub(super) pace: Option<Duration>,
}

/// Something done to the engine.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Cancel,
    Crash { worker: usize },
    Publish { tenant: usize, event_type: &'static str, events: usize },
    Register { endpoint: usize },
    ReplayDelivery,
    ReplayFailed { endpoint: usize },
    ReplayMissed { endpoint: usize },
    Shutdown { worker: usize, grace: Duration },
    Start { worker: usize },
    Unregister { endpoint: usize },
}

impl Plan {
    pub(super) fn draw(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let store_faults = (rng.u8(..2) == 0).then(|| rng.u32(3..40));
        let is_calm = store_faults.is_none() && rng.u8(..2) == 0;
        let tenants = rng.usize(1..=3);
        let endpoints: Vec<EndpointPlan> =
            (0..rng.usize(1..=10)).map(|n| EndpointPlan::draw(n, tenants, &mut rng)).collect();
        let workers = if rng.u8(..3) == 0 { 2 } else { 1 };
        let span = rng.u64(5..90);
        let mut steps = Vec::new();
        for _ in 0..rng.usize(1..=25) {
            let tenant = rng.usize(..tenants);
            let event_type = EVENT_TYPES[rng.usize(..EVENT_TYPES.len())];
            let events = if rng.u8(..8) == 0 { rng.usize(1..=40) } else { rng.usize(1..=4) };
            steps.push((at(span, &mut rng), Step::Publish { tenant, event_type, events }));
        }
        if !is_calm {
            for _ in 0..rng.usize(0..=6) {
                disturb(&mut steps, span, workers, endpoints.len(), &mut rng);
            }
        }
        // Equal times keep their order: a sort that is stable.
        steps.sort_by_key(|(at, _)| *at);
        let settings = draw_settings(seed, &mut rng);
        Self { settings, workers, endpoints, store_faults, is_calm, steps }
    }

    /// Returns when all is well from then on: endpoints and store.
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
        patience: Duration::from_millis(rng.u64(50..2_000)),
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

/// Draws something that hinders delivery, and what mends it again.
fn disturb(
    steps: &mut Vec<(Duration, Step)>,
    span: u64,
    workers: usize,
    endpoints: usize,
    rng: &mut fastrand::Rng,
) {
    let (at, later) = (at(span, rng), Duration::from_millis(rng.u64(..20_000)));
    let (worker, endpoint) = (rng.usize(..workers), rng.usize(..endpoints));
    let ends = [
        Step::Crash { worker },
        Step::Shutdown { worker, grace: Duration::from_millis(rng.u64(..10_000)) },
    ];
    match rng.u8(..8) {
        0 | 1 => {
            let which = rng.usize(..2);
            steps.extend([(at, ends[which]), (at + later, Step::Start { worker })]);
        }
        2 => steps.push((at, Step::Register { endpoint })),
        3 => {
            let steps_of_endpoint = [Step::Unregister { endpoint }, Step::Register { endpoint }];
            steps.extend([(at, steps_of_endpoint[0]), (at + later, steps_of_endpoint[1])]);
            if rng.bool() {
                steps.push((at + later, Step::ReplayMissed { endpoint }));
            }
        }
        4 => steps.push((at, Step::ReplayFailed { endpoint })),
        5 => steps.push((at, Step::ReplayDelivery)),
        _ => steps.push((at, Step::Cancel)),
    }
}

/// Returns the tenant with this number.
pub(super) fn tenant(number: usize) -> TenantId {
    TenantId::new(&format!("tenant-{number}")).expect("a valid id")
}

/// Returns the URL of the endpoint with this number, by which the transport knows it.
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
            let [rate, burst] = [rng.u32(1..20), rng.u32(1..6)];
            let [rate, burst] = [rate, burst].map(|n| NonZeroU32::new(n).expect("not zero"));
            endpoint = endpoint.rate_limit(rate, burst);
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

    pub(super) fn mood(&self, now: Duration) -> Mood {
        let current = self.moods.iter().find(|(until, _)| now < *until);
        current.map_or(Mood::Well, |(_, mood)| *mood)
    }

    /// Returns whether it must be served on time, however sick others are.
    pub(super) fn is_prompt(&self) -> bool {
        self.is_always_well() && !self.endpoint.ordered && self.endpoint.rate_limit.is_none()
    }

    pub(super) fn is_always_well(&self) -> bool {
        self.moods.iter().all(|(_, mood)| *mood == Mood::Well)
    }
}
