//! What a delivery costs, beside a bare loop of HTTP requests to the same receiver.
//!
//! The receiver is a process of its own: this program, started once more. All sides send the same
//! 500 bytes over HTTP/1.1 on loopback with 32 requests in flight, in alternating rounds; the
//! figures are medians, and what counts is their ratios. `--quick` does less of each, `--json`
//! adds one flat object as the last line.
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a benchmark")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

mod allocations;
mod backlog;
mod latency;
mod publish;
mod receiver;
mod throughput;

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde_json::{Map, json};
use tempfile::TempDir;
use webhooks_core::{Event, EventType, Payload};
use webhooks_registry::Endpoint;

use self::receiver::Receiver;

/// How many requests are in flight on every side.
const CONCURRENCY: usize = 32;

/// Figures by the names that stay.
type Figures = Map<String, serde_json::Value>;

fn main() {
    let has = |flag: &str| std::env::args().any(|argument| argument == flag);
    if has("--receiver") {
        return receiver::serve();
    }
    let provider = tokio_rustls::rustls::crypto::ring::default_provider();
    provider.install_default().unwrap();
    let is_quick = has("--quick");
    let only = |name: &str| {
        let filter = std::env::args()
            .find_map(|argument| argument.strip_prefix("--only=").map(str::to_owned));
        filter.is_none_or(|filter| filter == name)
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    // In a task, as a program would: the thread that blocks on it is none of the runtime's own.
    let measured = runtime.spawn(async move {
        let cores = std::thread::available_parallelism().unwrap();
        println!(
            "{cores} processors; SQLite: WAL, synchronous=FULL; in {}",
            folder().path().display()
        );
        let mut figures = Figures::new();
        let receiver = Receiver::start();
        if only("throughput") {
            throughput::measure(&receiver, is_quick, &mut figures).await;
        }
        if only("publish") {
            publish::measure(is_quick, &mut figures).await;
        }
        if only("backlog") {
            backlog::measure(is_quick, &mut figures).await;
        }
        if only("latency") {
            latency::measure(&receiver, is_quick, &mut figures).await;
        }
        figures
    });
    let mut figures = runtime.block_on(measured).unwrap();
    if only("allocations") {
        allocations::measure(&mut figures);
    }
    if has("--json") {
        println!("{}", serde_json::Value::Object(figures));
    }
}

/// Returns a folder on the disk that this program was built on: `/tmp` may be memory.
fn folder() -> TempDir {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tempfile::tempdir_in(target).unwrap()
}

/// The payload of every event, made once: making it is not what is measured.
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

/// Returns an event whose body has about 500 bytes, and that is cheap to make.
fn event(event_type: &EventType) -> Event {
    Event::new(event_type.clone(), &*PAYLOAD).unwrap()
}

/// The type of most events.
static PAID: LazyLock<EventType> = LazyLock::new(|| EventType::new("order.paid").unwrap());

fn endpoint(url: &str) -> Endpoint {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    Endpoint::new(url, secret).unwrap().max_in_flight(64.try_into().unwrap())
}

fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

/// Notes a figure under its name.
fn note(figures: &mut Figures, name: &str, figure: f64) {
    figures.insert(name.to_owned(), json!((figure * 1000.0).round() / 1000.0));
}

/// Counts are small enough for what they are divided into.
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn float(number: usize) -> f64 {
    number as f64
}

/// Returns the processor time that this process has used, in seconds, threads that ended included.
fn cpu() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    [usage.user_time(), usage.system_time()]
        .map(|time| Duration::from_micros(time.num_microseconds().unsigned_abs()).as_secs_f64())
        .iter()
        .sum()
}
