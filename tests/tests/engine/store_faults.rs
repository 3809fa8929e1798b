//! A store that fails: publishing returns an error, delivering waits, and nothing is lost.

use webhooks_dispatch::{EngineSettings, PublishError};

use crate::{MINUTE, SECOND, endpoint, event, fixture, settings, well};

#[tokio::test(start_paused = true)]
async fn publish_fails_loudly_and_keeps_nothing() {
    let fixture = fixture(settings(), well);
    fixture.register("a", endpoint("a")).await;
    let worker = fixture.engine.start();
    fixture.store.fail("publish", 1);
    let refused = fixture.engine.publish(&event("x")).await;
    assert!(matches!(refused, Err(PublishError::Store(_))), "{refused:?}");
    fixture.pass(MINUTE).await;
    assert_eq!(fixture.receipts(), []);
    let _published = fixture.publish("x").await;
    fixture.pass(SECOND).await;
    assert_eq!(fixture.times("x"), 1);
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn results_do_not_pile_up_when_they_cannot_be_kept() {
    let settings = EngineSettings { max_unsettled: 7, concurrency: 4, ..settings() };
    let fixture = fixture(settings, well);
    fixture.register("a", endpoint("a")).await;
    fixture.store.fail("settle", 20);
    let worker = fixture.engine.start();
    fixture.publish_many(100).await;
    fixture.pass(3 * SECOND).await;
    assert_eq!(fixture.receipts().len(), 7, "flights stop when as many wait to be kept");
    fixture.pass(30 * MINUTE).await;
    assert_eq!((fixture.receipts().len(), fixture.count("delivered").await), (100, 100));
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_asked_again_and_nothing_is_lost() {
    for call in ["claim", "next_due", "settle", "extend"] {
        let fixture = fixture(settings(), well);
        fixture.register("a", endpoint("a")).await;
        fixture.store.fail(call, 5);
        let worker = fixture.engine.start();
        fixture.publish_many(20).await;
        fixture.pass(5 * MINUTE).await;
        assert_eq!(
            (fixture.receipts().len(), fixture.count("delivered").await),
            (20, 20),
            "{call}"
        );
        drop(worker);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_not_asked_without_pause() {
    for call in ["claim", "next_due"] {
        let fixture = fixture(settings(), well);
        fixture.register("a", endpoint("a")).await;
        fixture.store.fail(call, usize::MAX);
        let worker = fixture.engine.start();
        fixture.pass(MINUTE).await;
        let calls = fixture.store.calls(call);
        assert!((60..=130).contains(&calls), "{calls} calls of {call} in a minute");
        drop(worker);
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_leaves_the_store_alone() {
    let fixture = fixture(settings(), well);
    fixture.register("a", endpoint("a")).await;
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    fixture.pass(60 * MINUTE).await;
    let calls = fixture.store.calls("claim");
    assert!(calls <= 300, "{calls} claims in an hour");
    drop(worker);
}
