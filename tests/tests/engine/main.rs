//! The promises of the engine, one test for each, under a simulated clock.
#![expect(clippy::unwrap_used, reason = "tests")]

mod clocks;
mod containment;
mod leases;
mod limits;
mod notices;
mod operations;
mod publications;
mod retry;
mod sent;
mod setup;
mod shutdown;
mod store_faults;
mod switched;
mod updates;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use webhooks_core::{DeliveryId, EndpointId, Event, EventId, RetryPolicy, TenantId, Timestamp};
use webhooks_dispatch::{
    Engine, EngineSettings, Published,
    clock::Clock as _,
    history::{HistoryStore as _, Query},
    observer::{EndpointChange, Observer, Occurrence},
    transport::{ErrorClass, Request, Response, Transport, TransportError},
};
use webhooks_registry::{Endpoint, EndpointKey};
use webhooks_tests::SimulatedClock;

use self::switched::Switched;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// The reaction of a receiver to a request.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Status(u16),
    /// A status code, and the number of seconds to wait.
    Wait(u16, u64),
    After(Duration, u16),
    Reset,
    Busy,
    Panic,
}

/// A request that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Receipt {
    at: Duration,
    endpoint: String,
    event: String,
    /// The number of requests for this event that the endpoint has got, including this one.
    time: usize,
}

/// All receivers. They answer as a closure returns, and record the requests.
#[derive(Clone)]
struct Receivers {
    clock: SimulatedClock,
    answer: Arc<dyn Fn(&Receipt) -> Answer + Send + Sync>,
    log: Arc<Mutex<Log>>,
}

#[derive(Debug, Default)]
struct Log {
    receipts: Vec<Receipt>,
    told: Vec<String>,
    in_flight: BTreeMap<String, usize>,
    most_in_flight: BTreeMap<String, usize>,
}

impl Log {
    fn enter(&mut self, name: &str) {
        let in_flight = self.in_flight.entry(name.to_owned()).or_default();
        *in_flight += 1;
        let most = self.most_in_flight.entry(name.to_owned()).or_default();
        *most = (*most).max(*in_flight);
    }
}

/// Counts an attempt while it lasts, for its endpoint and for all.
struct Exchange {
    endpoint: String,
    log: Arc<Mutex<Log>>,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut log = self.log.lock().unwrap();
        for name in [&*self.endpoint, "all"] {
            *log.in_flight.get_mut(name).unwrap() -= 1;
        }
    }
}

impl Transport for Receivers {
    async fn send(&self, request: Request) -> Result<Response, TransportError> {
        let endpoint = request.url.as_str().rsplit('/').next().unwrap().to_owned();
        let event = request.headers["x-webhook-event-id"].to_str().unwrap().to_owned();
        let receipt = {
            let mut log = self.log.lock().unwrap();
            let same = |old: &&Receipt| old.endpoint == endpoint && old.event == event;
            let time = log.receipts.iter().filter(same).count() + 1;
            let receipt = Receipt { at: self.clock.elapsed(), endpoint, event, time };
            log.receipts.push(receipt.clone());
            log.enter(&receipt.endpoint);
            log.enter("all");
            receipt
        };
        let answer = (self.answer)(&receipt);
        let _exchange = Exchange { endpoint: receipt.endpoint, log: Arc::clone(&self.log) };
        let response = |status| Response { status, ..Response::default() };
        match answer {
            Answer::Status(status) => Ok(response(status)),
            Answer::Wait(status, seconds) => {
                let mut response = response(status);
                response.headers.insert("retry-after", seconds.into());
                Ok(response)
            }
            Answer::After(wait, status) => {
                self.clock.sleep(wait).await;
                Ok(response(status))
            }
            Answer::Busy => Err(TransportError::new(ErrorClass::Busy)),
            Answer::Reset => Err(TransportError::new(ErrorClass::Reset)),
            Answer::Panic => std::panic::resume_unwind(Box::new("a planned panic")),
        }
    }
}

/// Records each occurrence as a short text.
#[derive(Debug)]
struct Watcher(Arc<Mutex<Log>>);

impl Observer for Watcher {
    fn observe(&self, occurrence: &Occurrence<'_>) {
        let line = match occurrence {
            Occurrence::Published { event, deliveries, .. } => {
                format!("{event} published {deliveries}")
            }
            Occurrence::Delivered { delivery, .. } => {
                format!("{} delivered by {}", delivery.event, delivery.attempt)
            }
            Occurrence::AttemptFailed { delivery, failure, .. } => {
                format!("{} failed by {}: {}", delivery.event, delivery.attempt, failure.error)
            }
            Occurrence::DeliveryFailed { delivery, failure, .. } => {
                format!("{} exhausted by {}: {}", delivery.event, delivery.attempt, failure.error)
            }
            Occurrence::Expired { delivery, .. } => format!("{} expired", delivery.event),
            Occurrence::LeaseLost { delivery } => format!("{} lost its lease", delivery.event),
            Occurrence::TransportBusy { delivery } => format!("{} found no room", delivery.event),
            Occurrence::EndpointChanged { endpoint, change, .. } => match change {
                EndpointChange::Disabled(reason) => format!("{endpoint} disabled: {reason:?}"),
                change => format!("{endpoint} {}", change.as_str()),
            },
            Occurrence::BreakerOpened { endpoint, pause, .. } => {
                format!("{endpoint} opened for {pause:?}")
            }
            Occurrence::BreakerClosed { endpoint, .. } => format!("{endpoint} closed"),
            Occurrence::EndpointFailing { endpoint, .. } => format!("{endpoint} failing"),
            Occurrence::EndpointRecovered { endpoint, .. } => format!("{endpoint} recovered"),
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().told.push(line);
    }
}

/// An engine, its receivers, and the records of both.
struct Fixture {
    engine: Engine<Switched, Receivers, SimulatedClock>,
    store: Switched,
    clock: SimulatedClock,
    log: Arc<Mutex<Log>>,
}

/// Returns an engine whose receivers answer with `answer`.
fn fixture(
    settings: EngineSettings,
    answer: impl Fn(&Receipt) -> Answer + Send + Sync + 'static,
) -> Fixture {
    let clock = SimulatedClock::start();
    fixture_over(Switched::new(clock), clock, settings, answer)
}

/// Returns an engine over a store that exists already.
fn fixture_over(
    store: Switched,
    clock: SimulatedClock,
    settings: EngineSettings,
    answer: impl Fn(&Receipt) -> Answer + Send + Sync + 'static,
) -> Fixture {
    let log = Arc::new(Mutex::new(Log::default()));
    let receivers = Receivers { clock, answer: Arc::new(answer), log: Arc::clone(&log) };
    let engine = Engine::builder(store.clone(), receivers)
        .clock(clock)
        .settings(EngineSettings { seed: Some(7), ..settings })
        .observer(Watcher(Arc::clone(&log)))
        .build();
    Fixture { engine, store, clock, log }
}

fn well(_receipt: &Receipt) -> Answer {
    Answer::Status(200)
}

fn settings() -> EngineSettings {
    EngineSettings::default()
}

/// Returns an endpoint that retries twice, 10 s apart.
fn endpoint(id: &str) -> Endpoint {
    let endpoint = Endpoint::new(&format!("https://example.com/{id}"), "my-secret-key").unwrap();
    endpoint.retry(RetryPolicy::fixed(10 * SECOND, 2).without_jitter())
}

fn event(id: &str) -> Event {
    let event = Event::new("created", id).unwrap().id(EventId::new(id).unwrap());
    event.timestamp(Timestamp::from_unix_seconds(1_767_225_600))
}

fn tenant(id: &str) -> TenantId {
    TenantId::new(id).unwrap()
}

impl Fixture {
    async fn register(&self, id: &str, endpoint: Endpoint) {
        self.engine.endpoints().register(id, endpoint).await.unwrap();
    }

    async fn publish(&self, id: &str) -> Published {
        self.engine.publish(&event(id)).await.unwrap()
    }

    /// Publishes `event-0` and so on.
    async fn publish_many(&self, events: usize) {
        for number in 0..events {
            let _published = self.publish(&format!("event-{number}")).await;
        }
    }

    /// Lets simulated time pass.
    async fn pass(&self, duration: Duration) {
        self.clock.sleep(duration).await;
    }

    fn receipts(&self) -> Vec<Receipt> {
        self.log.lock().unwrap().receipts.clone()
    }

    /// Returns how many times an event arrived.
    fn times(&self, event: &str) -> usize {
        self.receipts().iter().filter(|receipt| receipt.event == event).count()
    }

    /// Returns the times at which requests arrived at an endpoint, in whole seconds.
    fn seconds(&self, endpoint: &str) -> Vec<u64> {
        let receipts = self.receipts().into_iter().filter(|receipt| receipt.endpoint == endpoint);
        receipts.map(|receipt| receipt.at.as_secs()).collect()
    }

    fn told(&self) -> Vec<String> {
        self.log.lock().unwrap().told.clone()
    }

    /// Returns the lines that observers were told since the last call.
    fn told_since(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap().told)
    }

    #[track_caller]
    fn assert_told(&self, line: &str) {
        assert!(self.told().iter().any(|told| told == line), "{line:?} in {:#?}", self.told());
    }

    fn most_in_flight(&self, endpoint: &str) -> usize {
        self.log.lock().unwrap().most_in_flight.get(endpoint).copied().unwrap_or_default()
    }

    async fn delivery(&self, event: &str) -> DeliveryId {
        let event = Some(EventId::new(event).unwrap());
        let query = Query { event, ..Query::default() };
        self.engine.history().deliveries(query).await.unwrap().items[0].id
    }

    async fn statuses(&self, event: &str) -> Vec<&'static str> {
        let event = Some(EventId::new(event).unwrap());
        let query = Query { event, ..Query::default() };
        let found = self.engine.history().deliveries(query).await.unwrap().items;
        found.iter().map(|delivery| delivery.status.as_str()).collect()
    }

    async fn count(&self, status: &str) -> usize {
        let query = Query { limit: 1_000, ..Query::default() };
        let found = self.engine.history().deliveries(query).await.unwrap().items;
        found.iter().filter(|delivery| delivery.status.as_str() == status).count()
    }
}

fn key(id: &str) -> EndpointKey {
    EndpointKey::of_default_tenant(EndpointId::new(id).unwrap())
}

/// Checks that two lists are the same, whatever their order.
#[track_caller]
fn assert_same<T: Debug + Ord>(mut found: Vec<T>, mut expected: Vec<T>) {
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}
