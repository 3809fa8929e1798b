//! Settings that could stop an engine, or make it forget too much, do neither.

use std::time::Duration;

use webhooks_dispatch::EngineSettings;

use crate::{Answer, MINUTE, SECOND, endpoint, fixture, settings, well};

/// Goal: a lease lasts long enough to be extended. Method: an attempt lasts long, each extension
/// takes half a second in the store, and the lease in the settings is zero.
#[tokio::test(start_paused = true)]
async fn a_lease_of_no_time_can_be_kept() {
    let settings = EngineSettings { lease: Duration::ZERO, ..settings() };
    let fixture = fixture(settings, |_| Answer::After(20 * SECOND, 200));
    fixture.store.slow_down("extend", SECOND / 2);
    fixture.register("a", endpoint("a")).await;
    let (first, second) = (fixture.engine.start(), fixture.engine.start());
    let _published = fixture.publish("x").await;
    fixture.pass(MINUTE).await;
    assert_eq!((fixture.times("x"), fixture.statuses("x").await), (1, vec!["delivered"]));
    drop((first, second));
}

#[tokio::test(start_paused = true)]
async fn a_retention_of_no_time_forgets_no_id_at_once() {
    let fixture = fixture(EngineSettings { retention: Duration::ZERO, ..settings() }, well);
    fixture.register("a", endpoint("a")).await;
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    fixture.pass(SECOND * 20).await;
    let _again = fixture.publish("x").await;
    fixture.pass(MINUTE).await;
    assert_eq!(fixture.times("x"), 1, "it was published before");
    fixture.pass(5 * MINUTE).await;
    assert!(fixture.statuses("x").await.is_empty(), "it is forgotten");
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn extreme_settings_stop_no_delivery() {
    let (none, endless) = (Duration::ZERO, Duration::MAX);
    let least = EngineSettings {
        concurrency: 0,
        slow_after: none,
        lease: none,
        linger: none,
        max_unsettled: 0,
        retention: none,
        ..settings()
    };
    let most = EngineSettings {
        concurrency: usize::MAX,
        slow_after: endless,
        lease: endless,
        linger: endless,
        max_unsettled: usize::MAX,
        retention: endless,
        ..settings()
    };
    for settings in [least, most] {
        let fixture = fixture(settings, well);
        fixture.register("a", endpoint("a")).await;
        let worker = fixture.engine.start();
        fixture.publish_many(5).await;
        fixture.pass(MINUTE).await;
        assert_eq!(fixture.count("delivered").await, 5);
        let report = worker.shutdown(SECOND).await;
        assert_eq!((report.failures, report.unsettled), (0, 0));
    }
}
