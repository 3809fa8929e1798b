//! The wall clock steps: nothing is lost, expires or is disabled by it.

use std::time::Duration;

use webhooks_core::RetryPolicy;
use webhooks_dispatch::EngineSettings;
use webhooks_registry::EndpointState;

use crate::{
    Answer, Fixture, MINUTE, Receipt, SECOND, endpoint, fixture, fixture_over, settings, well,
};

const HOUR: i64 = 3_600;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const TEN_YEARS: i64 = 10 * 365 * 24 * HOUR;

/// Offsets that a clock can have for long without reaching the end of the retention.
const STEPS: [i64; 3] = [-2 * HOUR, 2 * HOUR, -TEN_YEARS];

fn first_fails(receipt: &Receipt) -> Answer {
    Answer::Status(if receipt.time == 1 { 500 } else { 200 })
}

async fn state(fixture: &Fixture, id: &str) -> EndpointState {
    fixture.engine.endpoints().get(id).await.unwrap().unwrap().state
}

#[tokio::test(start_paused = true)]
async fn a_step_moves_no_retry_and_stops_nothing() {
    for step in STEPS {
        let fixture = fixture(settings(), first_fails);
        fixture.register("a", endpoint("a")).await;
        let worker = fixture.engine.start();
        let _published = fixture.publish("before").await;
        fixture.pass(SECOND).await;
        fixture.clock.step(step);
        let _published = fixture.publish("after").await;
        fixture.pass(MINUTE).await;
        assert_eq!(fixture.seconds("a"), [0, 1, 10, 11], "{step}");
        // The offset lasts and is believed: due deliveries do not wait for it any more.
        fixture.pass(10 * MINUTE).await;
        let _published = fixture.publish("later").await;
        fixture.pass(MINUTE).await;
        assert_eq!(fixture.seconds("a")[4..], [661, 671], "{step}");
        assert_eq!(fixture.count("delivered").await, 3);
        drop(worker);
    }
}

#[tokio::test(start_paused = true)]
async fn a_leap_for_a_moment_expires_disables_and_forgets_nothing() {
    let settings = EngineSettings { disable_after: Some(DAY), ..settings() };
    let answer = |receipt: &Receipt| {
        Answer::Status(if receipt.endpoint == "a" && receipt.time < 4 { 500 } else { 200 })
    };
    let fixture = fixture(settings, answer);
    let patient = RetryPolicy::fixed(MINUTE, 100).without_jitter();
    fixture.register("a", endpoint("a").retry(patient).max_age(DAY)).await;
    fixture.register("b", endpoint("b")).await;
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    fixture.pass(90 * SECOND).await;
    fixture.clock.step(TEN_YEARS);
    fixture.pass(2 * MINUTE).await;
    fixture.clock.step(0);
    fixture.pass(10 * MINUTE).await;
    assert_eq!(fixture.seconds("a"), [0, 60, 120, 180]);
    assert_eq!(fixture.statuses("x").await, ["delivered", "delivered"]);
    assert_eq!(state(&fixture, "a").await, EndpointState::Active);
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn a_leap_that_lasts_is_believed() {
    let fixture = fixture(settings(), |_| Answer::Status(500));
    let patient = RetryPolicy::fixed(MINUTE, 100).without_jitter();
    fixture.register("a", endpoint("a").retry(patient).max_age(DAY)).await;
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    fixture.pass(30 * SECOND).await;
    fixture.clock.step(48 * HOUR);
    fixture.pass(4 * MINUTE).await;
    assert_eq!(fixture.statuses("x").await, ["retrying"]);
    fixture.pass(3 * MINUTE).await;
    assert_eq!(fixture.statuses("x").await, ["cancelled"]);
    fixture.assert_told("x expired");
    drop(worker);
}

/// Goal: a step of the clock makes nothing be sent twice. Method: attempts that last through steps,
/// and a lease that is shorter than the step.
#[tokio::test(start_paused = true)]
async fn a_step_ends_no_lease() {
    for step in STEPS {
        let fixture = fixture(settings(), |_| Answer::After(25 * SECOND, 200));
        fixture.register("a", endpoint("a")).await;
        let worker = fixture.engine.start();
        let _published = fixture.publish("x").await;
        fixture.pass(5 * SECOND).await;
        fixture.clock.step(step);
        fixture.pass(10 * MINUTE).await;
        assert_eq!(fixture.times("x"), 1, "{step}");
        assert_eq!(fixture.statuses("x").await, ["delivered"]);
        drop(worker);
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_starts_with_a_wrong_clock_gives_nothing_up_before_it_is_sure() {
    let first = fixture(settings(), well);
    first.register("a", endpoint("a").max_age(DAY)).await;
    let _published = first.publish("x").await;
    first.clock.step(TEN_YEARS);
    let second = fixture_over(first.store.clone(), first.clock, settings(), well);
    let worker = second.engine.start();
    second.pass(MINUTE).await;
    assert_eq!(second.statuses("x").await, ["delivered"]);
    drop(worker);
}

/// Goal: an accepted event is due at once, whichever clock accepted it. Method: it waits for an
/// endpoint that is paused while the clock is two hours ahead. The clock is then set back, under a
/// worker or before the next one starts.
#[tokio::test(start_paused = true)]
async fn what_was_accepted_by_a_clock_that_was_ahead_is_delivered_at_once() {
    for starts_again in [false, true] {
        let before = fixture(settings(), well);
        before.clock.step(2 * HOUR);
        let fixture = fixture_over(before.store.clone(), before.clock, settings(), well);
        fixture.register("a", endpoint("a")).await;
        let mut worker = fixture.engine.start();
        fixture.engine.endpoints().pause("a").await.unwrap();
        let _published = fixture.publish("x").await;
        fixture.pass(MINUTE).await;
        fixture.clock.step(0);
        let again = fixture_over(fixture.store.clone(), fixture.clock, settings(), well);
        if starts_again {
            worker.shutdown(SECOND).await;
            worker = again.engine.start();
        }
        fixture.pass(10 * MINUTE).await;
        fixture.engine.endpoints().resume("a").await.unwrap();
        fixture.pass(SECOND).await;
        assert_eq!(fixture.statuses("x").await, ["delivered"], "starts again: {starts_again}");
        drop(worker);
    }
}
