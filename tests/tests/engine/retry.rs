//! The step that follows an answer: delivered, retry, failed, disabled.

use std::time::Duration;

use webhooks_core::{EventType, RetryPolicy};
use webhooks_dispatch::EngineSettings;
use webhooks_registry::{DisableReason, Endpoint};

use crate::{Answer, MINUTE, Receipt, SECOND, assert_same, endpoint, fixture, settings, well};

#[tokio::test(start_paused = true)]
async fn success_at_one_endpoint_stands_whatever_another_does() {
    let answer =
        |receipt: &Receipt| Answer::Status(if receipt.endpoint == "a" { 204 } else { 500 });
    let fixture = fixture(settings(), answer);
    fixture.register("a", endpoint("a")).await;
    fixture.register("b", endpoint("b")).await;
    let worker = fixture.engine.start();
    fixture.told_since();
    assert_eq!(fixture.publish("x").await.deliveries, 2);
    fixture.pass(MINUTE).await;
    assert_eq!((fixture.seconds("a"), fixture.seconds("b")), (vec![0], vec![0, 10, 20]));
    assert_same(fixture.statuses("x").await, vec!["delivered", "failed"]);
    assert_same(
        fixture.told(),
        vec![
            "x published 2".to_owned(),
            "x delivered by 1".to_owned(),
            "x failed by 1: endpoint answered 500 Internal Server Error".to_owned(),
            "x failed by 2: endpoint answered 500 Internal Server Error".to_owned(),
            "x exhausted by 3: endpoint answered 500 Internal Server Error".to_owned(),
        ],
    );
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn retry_after_delays_further_never_less_and_up_to_the_cap() {
    for (asked, expected) in [(0, 10), (3, 10), (25, 25), (9_999, 40)] {
        let answer = move |receipt: &Receipt| {
            if receipt.time == 1 { Answer::Wait(503, asked) } else { Answer::Status(200) }
        };
        let fixture = fixture(settings(), answer);
        let policy = RetryPolicy::fixed(10 * SECOND, 2).without_jitter();
        let patient = endpoint("a").retry(policy.retry_after_cap(40 * SECOND));
        fixture.register("a", patient).await;
        let worker = fixture.engine.start();
        let _published = fixture.publish("x").await;
        fixture.pass(2 * MINUTE).await;
        assert_eq!(fixture.seconds("a"), [0, expected], "Retry-After: {asked}");
        drop(worker);
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_asks_for_time_gets_nothing_at_all_meanwhile() {
    let answer = |receipt: &Receipt| {
        if receipt.at < SECOND { Answer::Wait(429, 30) } else { Answer::Status(200) }
    };
    let fixture = fixture(settings(), answer);
    fixture.register("a", endpoint("a")).await;
    let worker = fixture.engine.start();
    fixture.publish_many(20).await;
    fixture.pass(2 * MINUTE).await;
    let seconds = fixture.seconds("a");
    let early = seconds.iter().filter(|second| **second == 0).count();
    assert!(early <= 2, "only what had taken off: {seconds:?}");
    assert!(seconds[early..].iter().all(|second| *second >= 30), "{seconds:?}");
    assert_eq!(fixture.count("delivered").await, 20);
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn a_redirect_is_a_failure_and_is_not_followed() {
    let fixture = fixture(settings(), |_| Answer::Status(301));
    fixture.register("a", endpoint("a")).await;
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    fixture.pass(MINUTE).await;
    assert_eq!(fixture.seconds("a"), [0, 10, 20]);
    assert_eq!(fixture.receipts().len(), 3, "nobody else was called");
    assert_eq!(fixture.statuses("x").await, ["failed"]);
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn gone_disables_the_endpoint_and_cancels_what_waits() {
    let fixture = fixture(settings(), |_| Answer::Status(410));
    fixture.register("a", endpoint("a").ordered()).await;
    fixture.publish_many(3).await;
    let worker = fixture.engine.start();
    fixture.pass(MINUTE).await;
    assert_eq!(fixture.receipts().len(), 1, "nothing more is sent");
    assert_eq!(fixture.statuses("event-0").await, ["failed"]);
    assert_eq!(fixture.count("cancelled").await, 2);
    fixture.assert_told("a disabled: Gone");
    let found = fixture.engine.endpoints().get("a").await.unwrap().unwrap();
    assert_eq!(found.state.disabled(), Some(DisableReason::Gone));
    assert_eq!(fixture.publish("later").await.deliveries, 0);
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn gone_is_heeded_even_if_the_store_fails_meanwhile() {
    let fixture = fixture(settings(), |_| Answer::Status(410));
    fixture.store.fail("set_state", 1);
    fixture.register("a", endpoint("a").ordered()).await;
    fixture.publish_many(3).await;
    let worker = fixture.engine.start();
    fixture.pass(MINUTE).await;
    assert_eq!(fixture.receipts().len(), 2, "the next answer disables it");
    fixture.assert_told("a disabled: Gone");
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_for_long_enough_is_disabled_and_told_of_before() {
    let settings = EngineSettings { disable_after: Some(5 * MINUTE), ..settings() };
    let fixture = fixture(settings, |_| Answer::Reset);
    let hourly = RetryPolicy::fixed(MINUTE, 3).without_jitter();
    fixture.register("a", endpoint("a").retry(hourly)).await;
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    fixture.pass(30 * SECOND).await;
    assert!(!fixture.told().iter().any(|told| told == "a failing"));
    fixture.pass(35 * SECOND).await;
    fixture.assert_told("a failing");
    fixture.pass(9 * MINUTE).await;
    assert_eq!(fixture.statuses("x").await, ["failed"], "tried to its end");
    let _published = fixture.publish("y").await;
    let _published = fixture.publish("z").await;
    fixture.pass(60 * MINUTE).await;
    fixture.assert_told("a disabled: Failing");
    let found = fixture.engine.endpoints().get("a").await.unwrap().unwrap();
    assert_eq!(found.state.disabled(), Some(DisableReason::Failing));
    assert_eq!(fixture.told().iter().filter(|told| *told == "a failing").count(), 1);
    drop(worker);
}

/// Goal: two failures a week apart disable no endpoint, and a retry that would succeed is made.
/// Method: a receiver that fails at its first and its second attempt, six days apart.
#[tokio::test(start_paused = true)]
async fn a_quiet_endpoint_with_two_hiccups_stays_and_its_retry_is_made() {
    const DAY: Duration = Duration::from_secs(24 * 3_600);
    let answer = |receipt: &Receipt| match (&*receipt.event, receipt.time) {
        ("first", _) | ("second", 1) => Answer::Status(503),
        _ => Answer::Status(200),
    };
    let fixture = fixture(settings(), answer);
    let policy = RetryPolicy::fixed(SECOND, 2).without_jitter();
    fixture.register("a", endpoint("a").retry(policy)).await;
    let worker = fixture.engine.start();
    let _published = fixture.publish("first").await;
    fixture.pass(6 * DAY).await;
    assert_eq!(fixture.statuses("first").await, ["failed"]);
    let _published = fixture.publish("second").await;
    fixture.pass(MINUTE).await;
    assert_eq!(fixture.statuses("second").await, ["delivered"]);
    fixture.assert_told("a recovered");
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn a_success_ends_the_span_of_failure_and_is_told() {
    let settings = EngineSettings { disable_after: Some(5 * MINUTE), ..settings() };
    // Every third attempt succeeds.
    let answer =
        |receipt: &Receipt| Answer::Status(if receipt.time.is_multiple_of(3) { 200 } else { 500 });
    let fixture = fixture(settings, answer);
    let patient = RetryPolicy::fixed(MINUTE, 100).without_jitter();
    fixture.register("a", endpoint("a").retry(patient)).await;
    let worker = fixture.engine.start();
    for number in 0..6 {
        let _published = fixture.publish(&format!("event-{number}")).await;
        fixture.pass(3 * MINUTE).await;
    }
    assert_eq!(fixture.count("delivered").await, 6);
    let recovered = fixture.told().iter().filter(|told| *told == "a recovered").count();
    assert_eq!(recovered, 6);
    assert!(fixture.engine.endpoints().get("a").await.unwrap().unwrap().endpoint.active);
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_past_its_age_is_given_up() {
    let fixture = fixture(settings(), |_| Answer::Status(500));
    let policy = RetryPolicy::fixed(10 * SECOND, 100).without_jitter();
    fixture.register("a", endpoint("a").retry(policy).max_age(25 * SECOND)).await;
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    fixture.pass(10 * MINUTE).await;
    assert_eq!(fixture.seconds("a"), [0, 10, 20]);
    assert_eq!(fixture.statuses("x").await, ["cancelled"]);
    fixture.assert_told("x expired");
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_exchange_ends_at_its_timeout() {
    let answer = |receipt: &Receipt| match receipt.time {
        1 => Answer::After(60 * MINUTE, 200),
        _ => Answer::Status(200),
    };
    let fixture = fixture(settings(), answer);
    fixture.register("a", endpoint("a").timeout(15 * SECOND)).await;
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    fixture.pass(MINUTE).await;
    assert_eq!(fixture.seconds("a"), [0, 25]);
    fixture.assert_told("x failed by 1: the exchange was not over in time");
    fixture.assert_told("x delivered by 2");
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn deliveries_that_wait_go_to_where_the_endpoint_is_now() {
    let answer =
        |receipt: &Receipt| Answer::Status(if receipt.endpoint == "a" { 500 } else { 200 });
    let fixture = fixture(settings(), answer);
    fixture.register("id", endpoint("a")).await;
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    fixture.pass(5 * SECOND).await;
    fixture.register("id", endpoint("b")).await;
    fixture.pass(MINUTE).await;
    assert_eq!((fixture.seconds("a"), fixture.seconds("b")), (vec![0], vec![10]));
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_the_old_endpoint_does_not_disable_the_new_one() {
    let answer = |receipt: &Receipt| match &*receipt.endpoint {
        "old" => Answer::After(5 * SECOND, 410),
        _ => well(receipt),
    };
    let fixture = fixture(settings(), answer);
    fixture.register("id", endpoint("old")).await;
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    fixture.pass(SECOND).await;
    fixture.register("id", endpoint("new")).await;
    fixture.pass(MINUTE).await;
    assert!(fixture.engine.endpoints().get("id").await.unwrap().unwrap().endpoint.active);
    drop(worker);
}

/// Goal: an endpoint without retry settings gets its events after a restart of its receiver.
/// Method: the receiver is down for a minute and gets one event, so that no breaker helps.
#[tokio::test(start_paused = true)]
async fn an_endpoint_without_a_policy_gets_what_came_while_it_was_down() {
    let fixture = fixture(settings(), |receipt: &Receipt| match receipt.at {
        at if at < MINUTE => Answer::Reset,
        _ => Answer::Status(200),
    });
    let without_policy = Endpoint::new("https://example.com/a", "my-secret-key").unwrap();
    fixture.register("a", without_policy).await;
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    fixture.pass(MINUTE).await;
    assert_eq!(fixture.statuses("x").await, ["retrying"]);
    fixture.pass(10 * MINUTE).await;
    assert_eq!((fixture.times("x"), fixture.statuses("x").await), (3, vec!["delivered"]));
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn what_the_transport_has_no_room_for_counts_as_no_attempt_and_no_trouble() {
    let answer = |receipt: &Receipt| {
        if receipt.time <= 8 { Answer::Busy } else { Answer::Status(200) }
    };
    let fixture = fixture(settings(), answer);
    let policy = RetryPolicy::fixed(SECOND, 0);
    fixture.register("a", endpoint("a").retry(policy)).await;
    let worker = fixture.engine.start();
    fixture.told_since();
    let _published = fixture.publish("x").await;
    fixture.pass(2 * MINUTE).await;
    assert_eq!(fixture.seconds("a"), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    let mut told = fixture.told();
    assert_eq!(told.iter().filter(|line| *line == "x found no room").count(), 8, "{told:?}");
    told.retain(|line| line != "x found no room");
    assert_eq!(told, ["x published 1", "x delivered by 1"]);
    drop(worker);
}

/// Goal: the policy of an event type counts in place of the engine's, and the endpoint's own before both.
#[tokio::test(start_paused = true)]
async fn an_event_type_is_tried_again_by_a_policy_of_its_own() {
    let of_all = RetryPolicy::fixed(60 * MINUTE, 1).without_jitter();
    let fixture = fixture(EngineSettings { retry: of_all, ..settings() }, |_| Answer::Status(500));
    let plain = Endpoint::new("https://example.com/plain", "my-secret-key").unwrap();
    fixture.register("plain", plain).await;
    fixture.register("own", endpoint("own")).await;
    let created = EventType::new("created").unwrap();
    let of_type = RetryPolicy::fixed(SECOND, 3).without_jitter();
    fixture.engine.retry_by_type(created.clone(), Some(of_type));
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    fixture.pass(MINUTE).await;
    assert_eq!(
        (fixture.seconds("plain"), fixture.seconds("own")),
        (vec![0, 1, 2, 3], vec![0, 10, 20])
    );
    fixture.engine.retry_by_type(created, None);
    let _published = fixture.publish("y").await;
    fixture.pass(30 * MINUTE).await;
    assert_eq!(fixture.seconds("plain"), [0, 1, 2, 3, 60], "the next one is an hour later");
    drop(worker);
}
