//! `bench`: the speed of publishing, delivering and settling on this machine.

mod bare;
mod receiver;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore};
use webhooks_core::{Event, Payload};
use webhooks_dispatch::clock::{Clock as _, SystemClock};
use webhooks_dispatch::observer::{Observer, Occurrence};
use webhooks_dispatch::{Engine, EngineSettings};
use webhooks_http::{AddressPolicy, HttpTransport};
use webhooks_registry::{Endpoint, Secret};
use webhooks_sqlite::SqliteStore;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::Output;

use receiver::Receiver;

/// The number of events per call, and how far publishing may run ahead of delivery.
const BATCH: usize = 64;
const AHEAD: usize = 2_048;

/// The number of rounds whose medians are compared.
const ROUNDS: usize = 3;

/// The longest time without a delivery.
const STALLED: Duration = Duration::from_secs(30);

/// Measure how many events per second this machine delivers
///
/// An event counts when it was published, delivered and settled.
/// Everything is in this process: a receiver on loopback, and a temporary SQLite file.
/// `--compare-bare` sends the same bodies in a bare loop of requests, and prints the ratio, which says more than the
/// number of a machine.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  webhooks bench
  webhooks bench --compare-bare
  webhooks bench --events 5000 --endpoints 4 --size 2000 --json")]
pub(crate) struct BenchArgs {
    /// Events to publish
    #[arg(long, value_name = "NUMBER", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    events: u32,
    /// Endpoints that get each event, 1 to 1000
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    endpoints: u32,
    /// Size of a payload in bytes, 32 to 524288
    #[arg(long, value_name = "BYTES", default_value_t = 500, value_parser = clap::value_parser!(u32).range(32..=524_288))]
    size: u32,
    /// Requests in flight at once, 1 to 1024
    #[arg(long, value_name = "NUMBER", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    concurrency: u32,
    /// Also send the same bodies in a bare loop of requests, and print the ratio
    #[arg(long)]
    compare_bare: bool,
}

/// The sizes of a round.
#[derive(Debug, Clone, Copy)]
struct Round {
    events: usize,
    endpoints: usize,
    concurrency: usize,
}

pub(crate) async fn run(args: BenchArgs, context: &Context) -> Result<(), Failure> {
    let mut signals = context.interruption.take();
    // The folder is removed when the future is dropped.
    tokio::select! {
        measured = measure(&args, context) => measured,
        () = signals.next() => Err(Failure::new(Exit::Interrupted, "interrupted")),
    }
}

async fn measure(args: &BenchArgs, context: &Context) -> Result<(), Failure> {
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let round = Round {
        events: count(args.events),
        endpoints: count(args.endpoints),
        concurrency: count(args.concurrency),
    };
    let payload = payload(count(args.size))?;
    let output = context.output;
    let receiver = Receiver::start()?;
    let deliveries = round.events.saturating_mul(round.endpoints);
    output.note(format!(
        "{} events of {} bytes to {} endpoints, {} in flight, on {}",
        args.events,
        args.size,
        args.endpoints,
        args.concurrency,
        machine()
    ));
    if cfg!(debug_assertions) {
        Output::warn("this is a debug build: its figures mean nothing; build with --release");
    }
    let body = event(&payload)?.to_json();
    let rounds = if args.compare_bare {
        // Warms up connections and caches.
        let warm = deliveries.div_ceil(4);
        let _warm = bare::measure(&receiver.url, body.clone(), warm, round.concurrency).await?;
        ROUNDS
    } else {
        1
    };
    let (mut bares, mut ratios, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=rounds {
        output.progress(format!("round {number} of {rounds}"));
        if args.compare_bare {
            let sent = bare::measure(&receiver.url, body.clone(), deliveries, round.concurrency);
            bares.push(per_second(deliveries, sent.await?));
        }
        let took = engine(&receiver.url, &payload, round).await?;
        times.push(took.as_secs_f64());
        // Each round is compared with the bare one just before it.
        ratios.extend(bares.last().map(|bare| per_second(deliveries, took) / bare));
    }
    output.end_progress();
    let took = Duration::from_secs_f64(median(times).unwrap_or_default());
    let (events, delivered) = (per_second(round.events, took), per_second(deliveries, took));
    let (bare, ratio) = (median(bares), median(ratios));
    if output.is_json() {
        let rounded = |number: f64| (number * 1_000.0).round() / 1_000.0;
        return Ok(output.json(&json!({
            "eventsPerSecond": rounded(events), "deliveriesPerSecond": rounded(delivered),
            "barePerSecond": bare.map(rounded), "overBare": ratio.map(rounded), "events": args.events,
            "endpoints": args.endpoints, "size": args.size, "concurrency": args.concurrency,
            "machine": machine(), "folder": std::env::temp_dir(),
        }))?);
    }
    output.line(format!("{events:.0} events/s  ({delivered:.0} deliveries/s)"))?;
    if let (Some(bare), Some(ratio)) = (bare, ratio) {
        output.line(format!("{bare:.0} requests/s in a bare loop; ratio {ratio:.2}"))?;
    } else {
        output.hint("the ratio to a bare loop of requests: webhooks bench --compare-bare");
    }
    Ok(())
}

/// Publishes all events, delivers and settles them; returns the time that it took.
async fn engine(url: &str, payload: &Payload, round: Round) -> Result<Duration, Failure> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        Failure::new(Exit::Failed, "the benchmark failed").because(error)
    };
    let folder = tempfile::Builder::new().prefix("webhooks-bench-").tempdir();
    let folder = folder.map_err(|error| {
        Failure::file("make a folder in", std::env::temp_dir().display(), error)
    })?;
    let store = SqliteStore::open(folder.path().join("bench.db")).await;
    let store = store.map_err(|error| failed(error.into()))?;
    let progress = Progress::new(round.endpoints);
    let settings = EngineSettings { concurrency: round.concurrency, ..EngineSettings::default() };
    let engine = Engine::builder(store.clone(), transport(round.concurrency)?).settings(settings);
    let engine = engine.observer(progress.clone()).build();
    let flights = u32::try_from(round.concurrency).ok().and_then(NonZeroU32::new);
    for number in 0..round.endpoints {
        let endpoint =
            Endpoint::new(url, Secret::generate()).map_err(|error| failed(error.into()))?;
        let endpoint = endpoint.max_in_flight(flights.unwrap_or(NonZeroU32::MIN));
        let registered = engine.endpoints().register(&format!("receiver-{number}"), endpoint).await;
        registered.map_err(|error| failed(error.into()))?;
    }
    let worker = engine.start();
    let start = SystemClock.monotonic();
    let publishing = async {
        let mut left = round.events;
        while left > 0 {
            let size = left.min(BATCH);
            progress.make_room(size).await;
            let batch = (0..size).map(|_| event(payload)).collect::<Result<Vec<_>, _>>()?;
            let published = engine.publish_all(&batch).await;
            for outcome in published.map_err(|error| failed(error.into()))? {
                let _accepted = outcome.map_err(|error| failed(error.into()))?;
            }
            left -= size;
        }
        Ok(())
    };
    let deliveries = round.events.saturating_mul(round.endpoints);
    tokio::try_join!(publishing, progress.wait(deliveries))?;
    let took = SystemClock.monotonic().saturating_since(start);
    worker.shutdown(Duration::from_secs(5)).await;
    store.close().await;
    Ok(took)
}

/// Returns the transport of the service, which may reach this machine alone.
fn transport(concurrency: usize) -> Result<HttpTransport, Failure> {
    let loopback = ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0), 8);
    let policy = AddressPolicy::public().allow_network(loopback.into());
    let transport = HttpTransport::builder().address_policy(policy).max_per_host(concurrency);
    let transport = transport.max_idle_per_host(concurrency).build();
    transport
        .map_err(|error| Failure::new(Exit::Failed, "cannot set up the transport").because(error))
}

/// Counts what is settled, and says when more may be published.
#[derive(Debug, Clone)]
struct Progress(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    settled: AtomicU64,
    failed: AtomicU64,
    more: Notify,
    /// The number of deliveries for which there is room.
    room: Semaphore,
    endpoints: usize,
}

impl Progress {
    fn new(endpoints: usize) -> Self {
        let (settled, failed, more) = (AtomicU64::new(0), AtomicU64::new(0), Notify::new());
        let room = Semaphore::new(AHEAD.max(BATCH * endpoints));
        Self(Arc::new(Counts { settled, failed, more, room, endpoints }))
    }

    /// Waits until there is room for `events` events.
    async fn make_room(&self, events: usize) {
        let deliveries = u32::try_from(events * self.0.endpoints).unwrap_or(u32::MAX);
        // It is never closed.
        if let Ok(room) = self.0.room.acquire_many(deliveries).await {
            room.forget();
        }
    }

    /// Waits until `deliveries` deliveries are settled.
    async fn wait(&self, deliveries: usize) -> Result<(), Failure> {
        let read = |count: &AtomicU64| usize::try_from(count.load(Ordering::Relaxed));
        let mut before = 0;
        loop {
            let more = tokio::time::timeout(STALLED, self.0.more.notified()).await;
            let settled = read(&self.0.settled).unwrap_or(usize::MAX);
            if read(&self.0.failed) != Ok(0) {
                return Err(Failure::new(Exit::Failed, "a delivery on loopback failed")
                    .hint("is the machine out of ports or of descriptors? try --concurrency 8"));
            }
            if settled >= deliveries {
                return Ok(());
            }
            if more.is_err() && settled == before {
                let text = format!("nothing was delivered for {} s", STALLED.as_secs());
                return Err(Failure::new(Exit::TimedOut, text));
            }
            before = settled;
        }
    }
}

impl Observer for Progress {
    fn observe(&self, occurrence: &Occurrence<'_>) {
        match occurrence {
            Occurrence::Delivered { .. } => {
                self.0.settled.fetch_add(1, Ordering::Relaxed);
                self.0.room.add_permits(1);
                self.0.more.notify_one();
            }
            Occurrence::AttemptFailed { .. } | Occurrence::DeliveryFailed { .. } => {
                self.0.failed.fetch_add(1, Ordering::Relaxed);
                self.0.more.notify_one();
            }
            _ => {}
        }
    }
}

fn event(payload: &Payload) -> Result<Event, Failure> {
    Event::new("order.paid", payload)
        .map_err(|error| Failure::new(Exit::Failed, "cannot make an event").because(error))
}

/// Returns a payload of this many bytes.
fn payload(size: usize) -> Result<Payload, Failure> {
    let empty = json!({ "order": 17, "text": "" }).to_string().len();
    let text = "x".repeat(size.saturating_sub(empty));
    let payload: Value = json!({ "order": 17, "text": text });
    Payload::from_value(payload)
        .map_err(|error| Failure::new(Exit::Failed, "cannot make a payload").because(error))
}

fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

#[expect(clippy::cast_precision_loss, reason = "a count is far below 2^52")]
fn per_second(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64().max(f64::EPSILON)
}

/// Returns the machine in a few words.
fn machine() -> String {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.and_then(|line| line.split_once(": ")).map(|(_, name)| name.trim());
    let model = model.unwrap_or(std::env::consts::ARCH);
    format!("{processors} processors ({model}), {}", std::env::consts::OS)
}
