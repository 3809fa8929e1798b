//! Half of all endpoints hang, and the others are not affected.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use webhooks_core::{Event, EventId, TenantId};
use webhooks_dispatch::{Engine, EngineSettings, FnTransport, MemoryStore, clock::Clock as _};
use webhooks_registry::{Endpoint, HeaderProfile};
use webhooks_tests::SimulatedClock;

const ENDPOINTS: usize = 200;
const WAITING: usize = 100_000;
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The interval of events for all healthy endpoints, and the number of events.
const EVERY: Duration = Duration::from_millis(100);
const PACED: usize = 600;

/// Returns the latencies of healthy deliveries from publish to receipt, sorted.
///
/// Goal: they do not depend on the sick half. Method: 100 endpoints get an event every 50 ms, each
/// of which takes 20 ms; the other 100, of the same tenant or another, hang until their timeout,
/// and 1,000 deliveries are pending for each of them.
async fn healthy(hangs_from: Option<Duration>, tenants: [&str; 2]) -> Vec<Duration> {
    let clock = SimulatedClock::start();
    let published: Arc<Mutex<BTreeMap<String, Duration>>> = Arc::default();
    let waits: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let (times, seen) = (Arc::clone(&published), Arc::clone(&waits));
    let transport = FnTransport::new(move |url, _, headers, _| {
        let id = headers["webhook-id"].to_str().unwrap().to_owned();
        let is_sick = url.contains("sick");
        let hangs = is_sick && hangs_from.is_some_and(|from| clock.elapsed() >= from);
        let (times, seen) = (Arc::clone(&times), Arc::clone(&seen));
        async move {
            clock.sleep(Duration::from_millis(if hangs { 3_600_000 } else { 20 })).await;
            if !is_sick && let Some(at) = times.lock().unwrap().get(&id) {
                seen.lock().unwrap().push(clock.elapsed().saturating_sub(*at));
            }
            (200, "")
        }
    });
    let settings = EngineSettings { seed: Some(1), ..EngineSettings::default() };
    let engine =
        Engine::builder(MemoryStore::new(), transport).clock(clock).settings(settings).build();
    for number in 0..ENDPOINTS {
        let is_sick = number % 2 == 1;
        let kind = if is_sick { "sick" } else { "healthy" };
        let url = format!("https://example.com/{kind}/{number}");
        let endpoint = Endpoint::new(&url, SECRET).unwrap().events([kind]).unwrap();
        let endpoint = endpoint.profiles([HeaderProfile::Standard]).unwrap();
        let endpoint = endpoint.tenant(TenantId::new(tenants[number % 2]).unwrap());
        engine.endpoints().register(&format!("endpoint-{number}"), endpoint).await.unwrap();
    }
    let event = |kind: &str, number: usize, tenant: &str| {
        let id = EventId::new(&format!("{kind}-{number}")).unwrap();
        Event::new(kind, number).unwrap().id(id).tenant(TenantId::new(tenant).unwrap())
    };
    if hangs_from.is_some() {
        let waiting: Vec<Event> = (0..WAITING / (ENDPOINTS / 2))
            .map(|number| event("sick", number, tenants[1]))
            .collect();
        engine.publish_all(&waiting).await.unwrap();
    }
    let worker = engine.start();
    for number in 0..PACED {
        let event = event("healthy", number, tenants[0]);
        published.lock().unwrap().insert(event.id.to_string(), clock.elapsed());
        let _published = engine.publish(&event).await.unwrap();
        clock.sleep(EVERY).await;
    }
    clock.sleep(Duration::from_secs(30)).await;
    drop(worker);
    let mut waits = std::mem::take(&mut *waits.lock().unwrap());
    assert_eq!(waits.len(), PACED * ENDPOINTS / 2, "all of them arrived, once");
    waits.sort();
    waits
}

fn p99(waits: &[Duration]) -> Duration {
    waits[waits.len() * 99 / 100]
}

async fn check(tenants: [&str; 2]) {
    let alone = p99(&healthy(None, tenants).await);
    let beside = p99(&healthy(Some(Duration::ZERO), tenants).await);
    assert!(beside <= alone * 2, "{beside:?} beside the sick half, {alone:?} without");
}

#[tokio::test(start_paused = true)]
async fn endpoints_of_one_tenant_that_hang_hold_back_no_other() {
    check(["one", "one"]).await;
}

#[tokio::test(start_paused = true)]
async fn endpoints_of_another_tenant_that_hang_hold_back_nobody() {
    check(["one", "two"]).await;
}

/// Goal: even if endpoints that have proved to take many requests begin to hang all at once, they
/// delay others for no more than a few times `slow_after` (1 s). Method: they hang after half a
/// second.
#[tokio::test(start_paused = true)]
async fn endpoints_that_begin_to_hang_all_at_once_hold_back_others_for_seconds_at_most() {
    let waits = healthy(Some(Duration::from_millis(500)), ["one", "one"]).await;
    let longest = waits.last().copied().unwrap();
    assert!(longest < Duration::from_secs(5), "{longest:?}");
}
