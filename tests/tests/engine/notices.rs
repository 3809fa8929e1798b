//! Observers, gauges and reports: what operators see of a running engine.

use std::sync::Arc;
use std::time::Duration;

use webhooks_core::{RetryPolicy, Timestamp};
use webhooks_dispatch::{
    Engine, EngineSettings, Replay, Undelivered,
    clock::Clock as _,
    observer::{BreakerState, EndpointChange, Gauges, Observer, Occurrence, WorkerReport},
};
use webhooks_registry::{EndpointStoreError, Secret};

use crate::{
    Answer, Fixture, MINUTE, Receipt, Receivers, SECOND, endpoint, fixture, key, settings, tenant,
    well,
};

#[tokio::test(start_paused = true)]
async fn each_change_of_an_endpoint_is_told_once() -> Result<(), EndpointStoreError> {
    let fixture = fixture(settings(), well);
    let endpoints = fixture.engine.endpoints();
    let first = endpoint("a");
    endpoints.register("a", first.clone()).await?;
    assert_eq!(fixture.told_since(), ["a registered"]);
    endpoints.register("a", first.clone()).await?;
    assert_eq!(fixture.told_since(), Vec::<String>::new(), "it is equal");

    let patient = first.clone().timeout(SECOND);
    endpoints.register("a", patient.clone()).await?;
    assert_eq!(fixture.told_since(), ["a updated"]);
    let now = fixture.clock.now();
    let rotated = patient.rotate(Secret::generate(), now + MINUTE, now).unwrap();
    endpoints.register("a", rotated.clone()).await?;
    assert_eq!(fixture.told_since(), ["a secret_rotated"]);
    endpoints.register("a", first.clone().inactive()).await?;
    let all = ["a updated", "a secret_rotated", "a disabled: Manual"];
    assert_eq!(fixture.told_since(), all);
    endpoints.register("a", first).await?;
    assert_eq!(fixture.told_since(), ["a enabled"]);

    for _ in 0..2 {
        endpoints.pause("a").await?;
    }
    assert_eq!(fixture.told_since(), ["a paused"]);
    endpoints.resume("a").await?;
    assert_eq!(fixture.told_since(), ["a resumed"]);
    endpoints.disable("a").await?;
    assert_eq!(fixture.told_since(), ["a disabled: Manual"]);
    endpoints.enable("a").await?;
    assert_eq!(fixture.told_since(), ["a enabled"]);
    endpoints.unregister("a").await?;
    assert!(endpoints.unregister("a").await.is_err());
    assert_eq!(fixture.told_since(), ["a unregistered"]);
    Ok(())
}

#[derive(Debug)]
struct Tenants(Arc<std::sync::Mutex<Vec<String>>>);

impl Observer for Tenants {
    fn observe(&self, occurrence: &Occurrence<'_>) {
        let tenant = match occurrence {
            Occurrence::EndpointChanged { tenant, change: EndpointChange::Registered, .. } => {
                tenant
            }
            Occurrence::Replayed { tenant: Some(tenant), replay: Replay::Event { .. }, .. } => {
                tenant
            }
            Occurrence::BreakerOpened { tenant, .. } => tenant,
            Occurrence::BreakerClosed { tenant, .. } => tenant,
            _ => return,
        };
        self.0.lock().unwrap().push(tenant.to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn the_tenant_is_told() {
    let Fixture { store, clock, log, .. } = fixture(settings(), well);
    let answer = |receipt: &Receipt| Answer::Status(if receipt.at < SECOND { 500 } else { 200 });
    let receivers = Receivers { clock, answer: Arc::new(answer), log };
    let told = Arc::default();
    let engine = Engine::builder(store, receivers).clock(clock);
    let engine = engine.observer(Tenants(Arc::clone(&told))).build();
    let event = crate::event("x").tenant(tenant("acme"));
    engine.publish(&event).await.unwrap();
    let to = endpoint("a").retry(RetryPolicy::fixed(SECOND / 10, 20).without_jitter());
    engine.endpoints().tenant(tenant("acme")).register("a", to).await.unwrap();
    let missed = Replay::of_event(tenant("acme"), event.id, Undelivered::MISSED);
    assert_eq!(engine.replay(missed).await.unwrap(), 1);
    let worker = engine.start();
    clock.sleep(MINUTE).await;
    drop(worker);
    assert_eq!(*told.lock().unwrap(), ["acme"; 4], "registered, replayed, opened, closed");
}

#[tokio::test(start_paused = true)]
async fn cancelling_and_replaying_are_told_if_they_change_something() {
    let fixture = fixture(settings(), |_| Answer::Status(400));
    fixture.register("a", endpoint("a")).await;
    fixture.publish_many(600).await;
    let delivery = fixture.delivery("event-0").await;
    fixture.told_since();
    fixture.engine.cancel(delivery).await.unwrap();
    assert_eq!(fixture.told_since(), [format!("Cancelled {{ delivery: {delivery:?} }}")]);
    fixture.engine.cancel(delivery).await.unwrap_err();

    let worker = fixture.engine.start();
    fixture.pass(MINUTE).await;
    fixture.told_since();
    let replay = Replay::of_endpoint(key("a"), Undelivered::ALL);
    let counted = fixture.engine.replaying(replay.clone()).dry_run().finish().await.unwrap();
    assert_eq!(counted, 600);
    fixture.engine.replay(Replay::of_endpoint(key("a"), Undelivered::MISSED)).await.unwrap();
    assert_eq!(fixture.told_since(), Vec::<String>::new(), "nothing was changed");
    fixture.engine.replay(replay).await.unwrap();
    let told = fixture.told_since();
    let of = |deliveries: &str| {
        told.iter()
            .filter(|line| line.starts_with("Replayed") && line.ends_with(deliveries))
            .count()
    };
    assert_eq!((of("deliveries: 500 }"), of("deliveries: 100 }")), (1, 1), "{told:#?}");
    worker.shutdown(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_breaker_is_told_each_time_it_opens_and_when_it_closes() {
    let answer =
        |receipt: &Receipt| if receipt.time <= 6 { Answer::Reset } else { Answer::Status(200) };
    let fixture = fixture(settings(), answer);
    let patient = RetryPolicy::fixed(SECOND / 10, 100).without_jitter();
    fixture.register("a", endpoint("a").retry(patient)).await;
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    fixture.pass(5 * SECOND).await;
    assert_eq!(fixture.engine.gauges().open_breakers, 1);
    let reports = fixture.engine.reports();
    let open = reports[0].endpoints[0];
    assert!(matches!(open.breaker, BreakerState::Open { remaining } if remaining < 6 * SECOND));
    assert_eq!(WorkerReport::from_json(&reports[0].to_json()).unwrap().gauges, reports[0].gauges);
    fixture.pass(MINUTE).await;
    let told = fixture.told();
    let of_breaker = |line: &&String| line.starts_with("a opened") || *line == "a closed";
    let told: Vec<&String> = told.iter().filter(of_breaker).collect();
    assert_eq!(told, ["a opened for 10s", "a opened for 20s", "a closed"]);
    assert_eq!(fixture.engine.gauges().open_breakers, 0);
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn a_worker_tells_when_it_starts_and_how_it_ends() {
    let fixture = fixture(settings(), well);
    let first = fixture.engine.start();
    let second = fixture.engine.start();
    assert_eq!(fixture.told_since(), [1, 2].map(|n| format!("WorkerStarted {{ worker: {n} }}")));
    let report = first.shutdown(SECOND).await;
    let ended = format!("WorkerEnded {{ worker: 1, report: Some({report:?}) }}");
    assert_eq!(fixture.told_since(), [ended]);
    assert_eq!(fixture.engine.gauges().workers, 1);
    drop(second);
    fixture.pass(SECOND).await;
    assert_eq!(fixture.told_since(), ["WorkerEnded { worker: 2, report: None }"]);
    assert_eq!(fixture.engine.gauges(), Gauges::default());
}

/// Collects the ages of deliveries.
#[derive(Debug, Default)]
struct Ages(std::sync::Mutex<Vec<Duration>>);

impl Observer for Ages {
    fn observe(&self, occurrence: &Occurrence<'_>) {
        if let Occurrence::Delivered { age, .. }
        | Occurrence::DeliveryFailed { age, .. }
        | Occurrence::Expired { age, .. } = occurrence
        {
            self.0.lock().unwrap().push(*age);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_age_of_a_delivery_that_ended_is_told() {
    let Fixture { store, clock, log, .. } = fixture(settings(), well);
    let answer = |receipt: &Receipt| match (&*receipt.endpoint, receipt.time) {
        ("delivered", 1) => Answer::After(3 * SECOND, 500),
        ("delivered", _) => Answer::After(2 * SECOND, 200),
        _ => Answer::After(SECOND, 500),
    };
    let receivers = Receivers { clock, answer: Arc::new(answer), log };
    let ages = Arc::new(Ages::default());
    let engine = Engine::builder(store, receivers).clock(clock);
    let engine = engine.observer(Arc::clone(&ages)).build();
    for (id, max_age) in [("delivered", MINUTE), ("expired", 10 * SECOND), ("failed", MINUTE)] {
        engine.endpoints().register(id, endpoint(id).max_age(max_age)).await.unwrap();
    }
    let worker = engine.start();
    engine.publish(&crate::event("x")).await.unwrap();
    clock.sleep(MINUTE).await;
    drop(worker);
    let seconds: Vec<u64> = ages.0.lock().unwrap().iter().map(Duration::as_secs).collect();
    // 1 + 10, 3 + 10 + 2, and 1 + 10 + 1 + 10 + 1.
    assert_eq!(seconds, [11, 15, 23]);
}

#[tokio::test(start_paused = true)]
async fn gauges_count_what_is_under_way_in_all_workers() {
    let settings =
        EngineSettings { concurrency: 3, slow_after: 2 * SECOND, linger: 5 * SECOND, ..settings() };
    let fixture = fixture(settings, |_| Answer::After(4 * SECOND, 200));
    fixture.register("a", endpoint("a")).await;
    let workers = [fixture.engine.start(), fixture.engine.start()];
    fixture.publish_many(5).await;
    fixture.pass(SECOND).await;
    let gauges = fixture.engine.gauges();
    assert_eq!((gauges.workers, gauges.slots), (2, 6));
    assert_eq!(gauges.in_flight + gauges.waiting, 5, "{gauges:?}");
    assert_eq!((gauges.slow, gauges.unsettled, gauges.open_breakers), (0, 0, 0));
    assert!(gauges.in_flight >= 2 && gauges.lanes >= 1, "{gauges:?}");
    fixture.pass(2 * SECOND).await;
    let later = fixture.engine.gauges();
    assert_eq!(later.slow, gauges.in_flight);
    let reports = fixture.engine.reports();
    assert_eq!(reports.len(), 2);
    assert_eq!(reports[0].started_at, Timestamp::from_unix_seconds(1_767_225_600));
    assert_eq!(reports[0].at, reports[0].started_at + 3 * SECOND);
    let in_flight = reports.iter().flat_map(|report| &report.endpoints);
    assert_eq!(
        in_flight.map(|endpoint| u64::from(endpoint.in_flight)).sum::<u64>(),
        later.in_flight
    );
    fixture.pass(2 * SECOND).await;
    assert!(fixture.engine.gauges().unsettled > 0, "the settler lingers");
    fixture.pass(MINUTE).await;
    let idle = fixture.engine.gauges();
    assert_eq!((idle.in_flight, idle.waiting, idle.unsettled), (0, 0, 0));
    drop(workers);
}
