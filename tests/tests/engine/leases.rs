//! Leases: they are extended while a worker lives, and fence it off when it loses them.

use webhooks_dispatch::EngineSettings;

use crate::{Answer, MINUTE, Receipt, SECOND, endpoint, fixture, settings};

fn short() -> EngineSettings {
    EngineSettings { lease: 8 * SECOND, concurrency: 2, ..settings() }
}

#[tokio::test(start_paused = true)]
async fn a_long_exchange_keeps_its_lease() {
    let fixture = fixture(short(), |_| Answer::After(60 * SECOND, 200));
    fixture.register("a", endpoint("a").timeout(2 * MINUTE)).await;
    let workers = [fixture.engine.start(), fixture.engine.start()];
    let _published = fixture.publish("x").await;
    fixture.pass(5 * MINUTE).await;
    assert_eq!((fixture.times("x"), fixture.statuses("x").await), (1, vec!["delivered"]));
    drop(workers);
}

#[tokio::test(start_paused = true)]
async fn a_long_queue_keeps_its_leases() {
    let fixture = fixture(short(), |_| Answer::After(SECOND / 2, 200));
    fixture.register("a", endpoint("a").ordered()).await;
    fixture.register("b", endpoint("b").max_in_flight(std::num::NonZeroU32::MIN)).await;
    let workers = [fixture.engine.start(), fixture.engine.start()];
    fixture.publish_many(60).await;
    fixture.pass(10 * MINUTE).await;
    assert_eq!((fixture.receipts().len(), fixture.count("delivered").await), (120, 120));
    drop(workers);
}

#[tokio::test(start_paused = true)]
async fn a_failure_to_extend_is_made_up_for() {
    for failures in 1..=3 {
        let fixture = fixture(short(), |_| Answer::After(15 * SECOND, 200));
        fixture.register("a", endpoint("a")).await;
        fixture.store.fail("extend", failures);
        let workers = [fixture.engine.start(), fixture.engine.start()];
        let _published = fixture.publish("x").await;
        fixture.pass(MINUTE).await;
        assert_eq!(fixture.times("x"), 1, "{failures} failures");
        drop(workers);
    }
}

/// Goal: a claim whose answer comes after its lease has ended is not sent. Method: the store takes
/// longer to answer a claim than the lease lasts, once.
#[tokio::test(start_paused = true)]
async fn a_claim_that_comes_too_late_is_not_sent() {
    let fixture = fixture(short(), |_| Answer::Status(200));
    fixture.register("a", endpoint("a")).await;
    let _published = fixture.publish("x").await;
    fixture.store.slow_down("answer", 20 * SECOND);
    let late = fixture.engine.start();
    fixture.pass(SECOND).await;
    fixture.store.slow_down("answer", std::time::Duration::ZERO);
    let prompt = fixture.engine.start();
    fixture.pass(MINUTE).await;
    assert_eq!(fixture.seconds("a"), [8], "the other one sent it when the lease had ended");
    drop((late, prompt));
}

/// Goal: a worker that lost its lease changes nothing. Method: the store stalls until another
/// worker takes over; the first worker's result comes late.
#[tokio::test(start_paused = true)]
async fn a_late_result_is_rejected() {
    let answer = |receipt: &Receipt| match receipt.time {
        1 => Answer::After(20 * SECOND, 500),
        _ => Answer::Status(200),
    };
    let fixture = fixture(short(), answer);
    fixture.register("a", endpoint("a")).await;
    let _published = fixture.publish("x").await;
    let first = fixture.engine.start();
    fixture.pass(SECOND).await;
    fixture.store.fail("extend", usize::MAX);
    let second = fixture.engine.start();
    fixture.pass(2 * MINUTE).await;
    assert_eq!((fixture.times("x"), fixture.statuses("x").await), (2, vec!["delivered"]));
    fixture.assert_told("x lost its lease");
    drop((first, second));
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_no_time_stops_no_worker() {
    let fixture = fixture(
        EngineSettings { lease: std::time::Duration::from_millis(3), ..settings() },
        |_| Answer::Status(200),
    );
    fixture.register("a", endpoint("a")).await;
    let worker = fixture.engine.start();
    fixture.pass(SECOND).await;
    let _published = fixture.publish("x").await;
    fixture.pass(MINUTE).await;
    assert_eq!(fixture.statuses("x").await, ["delivered"]);
    drop(worker);
}

/// Goal: after a change of an endpoint is answered, no attempt starts with the old settings.
/// Method: the store carries out a claim, but the worker gets the answer only after the endpoint
/// has changed.
#[tokio::test(start_paused = true)]
async fn what_was_claimed_before_a_change_and_heard_of_after_it_goes_where_the_endpoint_is_now() {
    let fixture = fixture(settings(), |_| Answer::Status(200));
    fixture.register("id", endpoint("a")).await;
    fixture.store.slow_down("answer", 5 * SECOND);
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    fixture.pass(SECOND).await;
    fixture.register("id", endpoint("b")).await;
    fixture.pass(MINUTE).await;
    assert!(fixture.seconds("a").is_empty());
    assert_eq!(fixture.statuses("x").await, ["delivered"]);
    drop(worker);
}
