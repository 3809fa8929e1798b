//! The event, the endpoint and the figures that all benchmarks of deliveries share.

use std::sync::LazyLock;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde_json::{Map, json};
use webhooks_core::{Event, EventType, Payload, Timestamp};
use webhooks_dispatch::store::{Attempt, Claimed, Outcome, Settlement};
use webhooks_registry::Endpoint;

/// The number of requests in flight on every side.
pub(crate) const CONCURRENCY: usize = 32;

/// The figures, by names that do not change.
pub(crate) type Figures = Map<String, serde_json::Value>;

/// The payload of every event. It is made once, because making it is not measured.
static PAYLOAD: LazyLock<Payload> = LazyLock::new(|| {
    let order = json!({
        "order_id": "ord_01J8Z3V5Q2M4N6P8R0T2W4Y6A8", "customer": "cus_5521", "currency": "EUR",
        "total": 12_999, "items": [
            { "sku": "SKU-1001", "quantity": 2, "price": 2_999, "name": "Espresso cup, white" },
            { "sku": "SKU-2040", "quantity": 1, "price": 7_001, "name": "Hand grinder, steel" },
        ], "note": "leave at the door", "channel": "web",
    });
    Payload::from_value(order).unwrap()
});

/// Returns an event that is cheap to make and has a body of about 500 bytes.
pub(crate) fn event(event_type: &EventType) -> Event {
    Event::new(event_type.clone(), &*PAYLOAD).unwrap()
}

/// The type of most events.
pub(crate) static PAID: LazyLock<EventType> =
    LazyLock::new(|| EventType::new("order.paid").unwrap());

pub(crate) fn endpoint(url: &str) -> Endpoint {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    Endpoint::new(url, secret).unwrap().max_in_flight(64.try_into().unwrap())
}

pub(crate) fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

/// Notes a figure under its name.
pub(crate) fn note(figures: &mut Figures, name: &str, figure: f64) {
    figures.insert(name.to_owned(), json!((figure * 1000.0).round() / 1000.0));
}

/// Returns whether this program was started with a flag.
pub(crate) fn has(flag: &str) -> bool {
    std::env::args().any(|argument| argument == flag)
}

/// Returns whether to measure a part: every part, unless `--only=` names another one.
pub(crate) fn only(name: &str) -> bool {
    let filter =
        std::env::args().find_map(|argument| argument.strip_prefix("--only=").map(str::to_owned));
    filter.is_none_or(|filter| filter == name)
}

/// Returns the settlements of claimed deliveries that all succeed.
pub(crate) fn settlements(claimed: &[Claimed], now: Timestamp) -> Vec<Settlement> {
    let settlement = |claimed: &Claimed| Settlement {
        claim: claimed.claim,
        outcome: Outcome::Delivered,
        attempt: Some(Attempt {
            started_at: now,
            duration: Duration::from_millis(3),
            status_code: Some(200),
            error_class: None,
            error: None,
            response_headers: String::new(),
            response: bytes::Bytes::new(),
        }),
    };
    claimed.iter().map(settlement).collect()
}

/// Counts are small enough to be divided without loss.
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
pub(crate) fn float(number: usize) -> f64 {
    number as f64
}

/// Returns the processor time that this process has used, in seconds, including threads that ended.
pub(crate) fn cpu() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    [usage.user_time(), usage.system_time()]
        .map(|time| Duration::from_micros(time.num_microseconds().unsigned_abs()).as_secs_f64())
        .iter()
        .sum()
}
