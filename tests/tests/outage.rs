//! A mass outage: thousands of endpoints fail, with the default settings, and the others are not
//! affected.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use webhooks_core::{Event, EventId, TenantId};
use webhooks_dispatch::{
    Engine, EngineSettings, FnTransport, MemoryStore,
    clock::Clock as _,
    store::{ClaimRequest, DeliveryStore as _, Outcome, Room, Settlement},
    transport::Transport,
};
use webhooks_registry::{Endpoint, HeaderProfile};
use webhooks_tests::SimulatedClock;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The time that a healthy endpoint takes to answer.
const QUICK: Duration = Duration::from_millis(20);

/// The time that a slow endpoint takes to answer.
const SLOW: Duration = Duration::from_secs(5);

/// The interval of events for healthy endpoints; for slow and for sick ones, in multiples of it.
const EVERY: Duration = Duration::from_millis(100);
const SLOW_EVERY: usize = 50;
const SICK_EVERY: usize = 100;

/// The number of events for the healthy endpoints.
const EVENTS: usize = 400;

/// The number of events that are pending for each sick endpoint at the start.
const BACKLOG: usize = 3;

/// The failures of sick endpoints.
#[derive(Debug, Clone, Copy)]
enum Failure {
    Hang,
    Refuse,
    ErrorAfter(Duration),
}

/// The owner of the sick endpoints.
#[derive(Debug, Clone, Copy)]
enum Whose {
    Healthy,
    OneEach,
}

/// The knowledge of the worker and its store at the start.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Known {
    /// The store knows that they fail; the worker knows nothing, because it has just started.
    ByStore,
    /// Nobody knows: they are new, and an event has been pending for them for a while.
    New,
    /// Nobody knows: they are new, and several events were published for them just now.
    Backlog,
}

#[derive(Debug, Clone, Copy)]
struct Outage {
    sick: usize,
    healthy: usize,
    slow: usize,
    failure: Failure,
    whose: Whose,
    known: Known,
}

const OUTAGE: Outage = Outage {
    sick: 3_000,
    healthy: 1,
    slow: 0,
    failure: Failure::Hang,
    whose: Whose::Healthy,
    known: Known::ByStore,
};

/// The latencies of deliveries from publish to receipt, sorted.
#[derive(Debug, Default)]
struct Waits {
    healthy: Vec<Duration>,
    slow: Vec<Duration>,
}

fn event(kind: &str, number: usize, tenant: &TenantId) -> Event {
    let id = EventId::new(&format!("{kind}-{number}-{tenant}")).unwrap();
    Event::new(kind, number).unwrap().id(id).tenant(tenant.clone())
}

/// The receivers, which note the latencies of deliveries.
struct Receivers {
    outage: Outage,
    clock: SimulatedClock,
    published: Arc<Mutex<BTreeMap<String, Duration>>>,
    waits: Arc<Mutex<Waits>>,
}

impl Receivers {
    fn transport(&self) -> impl Transport {
        let (clock, failure) = (self.clock, self.outage.failure);
        let (published, waits) = (Arc::clone(&self.published), Arc::clone(&self.waits));
        FnTransport::new(move |url, _, headers, _| {
            let id = headers["webhook-id"].to_str().unwrap().to_owned();
            let (published, waits) = (Arc::clone(&published), Arc::clone(&waits));
            async move {
                let takes = match failure {
                    _ if url.contains("healthy") => QUICK,
                    _ if url.contains("slow") => SLOW,
                    Failure::Hang => Duration::from_secs(3_600),
                    Failure::Refuse => Duration::ZERO,
                    Failure::ErrorAfter(after) => after,
                };
                clock.sleep(takes).await;
                let Some(since) = published.lock().unwrap().get(&id).copied() else {
                    return (500, "");
                };
                let mut waits = waits.lock().unwrap();
                let waits = if takes == QUICK { &mut waits.healthy } else { &mut waits.slow };
                waits.push(clock.elapsed().saturating_sub(since));
                (200, "")
            }
        })
    }
}

impl Outage {
    fn tenants(self) -> Vec<TenantId> {
        match self.whose {
            Whose::Healthy => vec![TenantId::default()],
            Whose::OneEach => (0..self.sick)
                .map(|number| TenantId::new(&format!("tenant-{number}")).unwrap())
                .collect(),
        }
    }

    /// Goal: measure the latencies of healthy and of slow endpoints beside the sick ones. Method: a
    /// worker that has just started; a backlog is pending for the sick endpoints, and more is
    /// published for all.
    async fn run(self) -> Waits {
        let clock = SimulatedClock::start();
        let receivers =
            Receivers { outage: self, clock, published: Arc::default(), waits: Arc::default() };
        let settings = EngineSettings { seed: Some(1), ..EngineSettings::default() };
        let transport = receivers.transport();
        let engine =
            Engine::builder(MemoryStore::new(), transport).clock(clock).settings(settings).build();
        let tenants = self.tenants();
        self.register(&engine, &tenants).await;
        for number in 0..BACKLOG {
            for tenant in &tenants {
                let _published = engine.publish(&event("sick", number, tenant)).await.unwrap();
            }
        }
        if self.known == Known::ByStore {
            fail_once(&engine, &clock).await;
        }
        let has_waited = self.known != Known::Backlog;
        clock.sleep(Duration::from_secs(if has_waited { 60 } else { 0 })).await;
        let worker = engine.start();
        for number in 0..EVENTS {
            let tenant = TenantId::default();
            let slow = (number % SLOW_EVERY == 0).then_some("slow");
            for kind in ["healthy"].into_iter().chain(slow) {
                let event = event(kind, number, &tenant);
                let id = event.id.to_string();
                receivers.published.lock().unwrap().insert(id, clock.elapsed());
                let _published = engine.publish(&event).await.unwrap();
            }
            for tenant in tenants.iter().filter(|_| number % SICK_EVERY == 0) {
                let event = event("sick", BACKLOG + number, tenant);
                let _published = engine.publish(&event).await.unwrap();
            }
            clock.sleep(EVERY).await;
        }
        clock.sleep(Duration::from_secs(60)).await;
        drop(worker);
        let mut waits = std::mem::take(&mut *receivers.waits.lock().unwrap());
        waits.healthy.sort();
        waits
    }

    /// Registers all endpoints; the healthy ones are neither the first nor the last.
    async fn register<T: Transport>(
        self,
        engine: &Engine<MemoryStore, T, SimulatedClock>,
        tenants: &[TenantId],
    ) {
        let half = self.sick / 2;
        let sick = |number: usize| ("sick", number, tenants[number % tenants.len()].clone());
        let well = |kind, count| (0..count).map(move |number| (kind, number, TenantId::default()));
        let endpoints = (0..half).map(sick).chain(well("healthy", self.healthy));
        let endpoints = endpoints.chain(well("slow", self.slow)).chain((half..self.sick).map(sick));
        for (kind, number, tenant) in endpoints {
            let endpoint = Endpoint::new(&format!("https://example.com/{kind}/{number}"), SECRET);
            let endpoint = endpoint.unwrap().events([kind]).unwrap().tenant(tenant);
            let endpoint = endpoint.profiles([HeaderProfile::Standard]).unwrap();
            engine.endpoints().register(&format!("{kind}-{number}"), endpoint).await.unwrap();
        }
    }

    async fn check(self) {
        let alone = Self { sick: 0, whose: Whose::Healthy, ..self }.run().await;
        let beside = self.run().await;
        assert_eq!(beside.healthy.len(), EVENTS * self.healthy, "all of them arrived, once");
        let (usual, now) = (p99(&alone.healthy), p99(&beside.healthy));
        let longest = beside.healthy.last().unwrap();
        assert!(
            now <= usual * 2,
            "{self:?}: {now:?} beside the sick ({longest:?}), else {usual:?}"
        );
        assert_eq!(beside.slow.len(), alone.slow.len(), "those that work slowly get theirs");
    }
}

/// Makes one attempt fail at each endpoint with pending deliveries, as an earlier worker would
/// have.
async fn fail_once(
    engine: &Engine<MemoryStore, impl Transport, SimulatedClock>,
    clock: &SimulatedClock,
) {
    let request = ClaimRequest {
        now: clock.clocks(),
        lease: Duration::from_secs(60),
        limit: usize::MAX,
        per_endpoint: 1,
        bytes: usize::MAX,
        room: Room::new(),
    };
    let claimed = engine.store().claim(request).await.unwrap();
    let due_at = clock.now();
    let attempt = webhooks_dispatch::store::Attempt {
        started_at: due_at,
        duration: Duration::from_secs(30),
        status_code: None,
        error_class: Some(webhooks_dispatch::transport::ErrorClass::Timeout),
        error: None,
        response_headers: String::new(),
        response: bytes::Bytes::new(),
    };
    let settlement = |claim| {
        let outcome = Outcome::Retrying { due_at };
        Settlement { claim, outcome, attempt: Some(attempt.clone()) }
    };
    let settlements = claimed.iter().map(|claimed| settlement(claimed.claim)).collect();
    let _settled = engine.store().settle(settlements, due_at).await.unwrap();
}

fn p99(waits: &[Duration]) -> Duration {
    waits[waits.len() * 99 / 100]
}

#[tokio::test(start_paused = true)]
async fn thousands_that_hang_hold_back_no_healthy_one_of_their_tenant_after_a_restart() {
    OUTAGE.check().await;
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_that_hang_with_a_tenant_each_hold_back_no_healthy_one_after_a_restart() {
    Outage { sick: 10_000, whose: Whose::OneEach, ..OUTAGE }.check().await;
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_that_hang_hold_back_no_healthy_one_of_their_tenant_after_a_restart() {
    Outage { sick: 10_000, ..OUTAGE }.check().await;
}

#[tokio::test(start_paused = true)]
async fn thousands_of_which_nothing_is_known_hold_back_no_healthy_one() {
    for whose in [Whose::Healthy, Whose::OneEach] {
        for known in [Known::New, Known::Backlog] {
            Outage { whose, known, ..OUTAGE }.check().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn thousands_that_refuse_or_fail_slowly_hold_back_no_healthy_one() {
    for failure in [Failure::Refuse, Failure::ErrorAfter(Duration::from_secs(10))] {
        for known in [Known::ByStore, Known::New] {
            Outage { failure, known, ..OUTAGE }.check().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn those_that_work_slowly_are_served_beside_thousands_that_hang() {
    for known in [Known::ByStore, Known::New] {
        Outage { healthy: 100, slow: 20, known, ..OUTAGE }.check().await;
    }
}
