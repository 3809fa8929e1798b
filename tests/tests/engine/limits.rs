//! Isolation: limits, breakers, order, fairness.

use std::num::NonZeroU32;
use std::time::Duration;

use webhooks_core::RetryPolicy;
use webhooks_dispatch::{BreakerSettings, EngineSettings};
use webhooks_registry::RateLimit;

use crate::{Answer, MINUTE, Receipt, SECOND, endpoint, event, fixture, settings, tenant};

const TENTH: Duration = Duration::from_millis(100);

fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_has_as_many_exchanges_in_flight_as_it_allows() {
    let fixture = fixture(settings(), |_| Answer::After(TENTH, 200));
    fixture.register("a", endpoint("a").max_in_flight(count(5))).await;
    fixture.register("b", endpoint("b").max_in_flight(count(1))).await;
    let worker = fixture.engine.start();
    fixture.publish_many(60).await;
    fixture.pass(MINUTE).await;
    assert_eq!((fixture.most_in_flight("a"), fixture.most_in_flight("b")), (5, 1));
    assert_eq!(fixture.count("delivered").await, 120);
    drop(worker);
}

/// Goal: one endpoint with many deliveries uses the free slots. Method: attempts of 100 ms; 60 of
/// them take 6 s one by one, and there are 8 slots.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_takes_more_gets_more_at_once() {
    let fixture =
        fixture(EngineSettings { concurrency: 8, ..settings() }, |_| Answer::After(TENTH, 200));
    fixture.register("a", endpoint("a")).await;
    fixture.publish_many(60).await;
    let worker = fixture.engine.start();
    fixture.pass(MINUTE).await;
    let last = fixture.receipts().last().unwrap().at;
    assert!(last < 12 * TENTH, "{last:?}");
    assert_eq!(fixture.most_in_flight("a"), 8);
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn exchanges_in_flight_are_bounded_in_all() {
    let settings = EngineSettings { concurrency: 3, ..settings() };
    let fixture = fixture(settings, |_| Answer::After(TENTH, 200));
    for number in 0..10 {
        fixture.register(&number.to_string(), endpoint(&number.to_string())).await;
    }
    let worker = fixture.engine.start();
    fixture.publish_many(5).await;
    fixture.pass(MINUTE).await;
    assert_eq!(fixture.most_in_flight("all"), 3);
    assert_eq!(fixture.count("delivered").await, 50);
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn exchanges_that_last_leave_their_slots_to_others_and_are_bounded_too() {
    let settings = EngineSettings { concurrency: 3, ..settings() };
    let fixture = fixture(settings, |_| Answer::After(20 * SECOND, 200));
    for number in 0..40 {
        fixture.register(&number.to_string(), endpoint(&number.to_string())).await;
    }
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    fixture.pass(SECOND / 2).await;
    assert_eq!(fixture.most_in_flight("all"), 3);
    fixture.pass(10 * MINUTE).await;
    assert_eq!(fixture.most_in_flight("all"), 15);
    assert_eq!(fixture.count("delivered").await, 40);
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_holds() {
    let fixture = fixture(settings(), |_| Answer::Status(200));
    fixture.register("a", endpoint("a").rate_limit(count(2), count(3))).await;
    fixture.register("b", endpoint("b")).await;
    let worker = fixture.engine.start();
    fixture.publish_many(13).await;
    fixture.pass(MINUTE).await;
    assert_eq!(fixture.seconds("a"), [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5]);
    assert_eq!(fixture.seconds("b"), [0; 13], "the limit is its own");
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_of_less_than_one_a_second_holds() {
    let fixture = fixture(settings(), |_| Answer::Status(200));
    let limit = RateLimit { calls: count(2), per: MINUTE, burst: count(1) };
    fixture.register("a", endpoint("a").rate_limited(limit)).await;
    let worker = fixture.engine.start();
    fixture.publish_many(5).await;
    fixture.pass(10 * MINUTE).await;
    assert_eq!(fixture.seconds("a"), [0, 30, 60, 90, 120]);
    drop(worker);
}

/// Goal: an endpoint that refuses its probe is alive, and gets its pending deliveries at once.
/// Method: errors open its breaker, and from then on it refuses everything.
#[tokio::test(start_paused = true)]
async fn a_probe_that_is_refused_closes_the_breaker() {
    let answer =
        |receipt: &Receipt| Answer::Status(if receipt.at < 5 * SECOND { 500 } else { 404 });
    let fixture = fixture(breaker(), answer);
    fixture.register("a", endpoint("a").retry(RetryPolicy::none())).await;
    let worker = fixture.engine.start();
    fixture.publish_many(20).await;
    fixture.pass(MINUTE).await;
    let [early, late]: [Vec<u64>; 2] =
        fixture.seconds("a").into_iter().partition::<Vec<u64>, _>(|at| *at < 5).into();
    assert!(early.len() <= 4, "{early:?}");
    assert_eq!((early.len() + late.len(), late.iter().max()), (20, Some(&10)), "{late:?}");
    drop(worker);
}

/// Goal: an endpoint that is known to fail is known after a restart too. Method: a worker fails
/// once; the next one sends one delivery, and then none for the first pause.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_is_on_probation_after_a_restart() {
    let fixture = fixture(breaker(), |_| Answer::Status(500));
    fixture.register("a", endpoint("a").retry(RetryPolicy::none())).await;
    let worker = fixture.engine.start();
    let _published = fixture.publish("first").await;
    fixture.pass(SECOND).await;
    worker.shutdown(SECOND).await;
    fixture.publish_many(50).await;
    let worker = fixture.engine.start();
    fixture.pass(20 * SECOND).await;
    assert_eq!(fixture.seconds("a"), [0, 1, 11]);
    drop(worker);
}

fn breaker() -> EngineSettings {
    let (first_pause, longest_pause) = (10 * SECOND, 40 * SECOND);
    let breaker = BreakerSettings { failures: 3, first_pause, longest_pause };
    EngineSettings { breaker, ..settings() }
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_burns_no_attempts_but_probes() {
    let answer = |receipt: &Receipt| {
        if receipt.at < 100 * SECOND { Answer::Reset } else { Answer::Status(200) }
    };
    let fixture = fixture(breaker(), answer);
    let retry = RetryPolicy::fixed(SECOND, 3).without_jitter();
    fixture.register("a", endpoint("a").retry(retry).max_in_flight(count(1))).await;
    let worker = fixture.engine.start();
    fixture.publish_many(50).await;
    fixture.pass(10 * MINUTE).await;
    let sick: Vec<u64> = fixture.seconds("a").into_iter().filter(|at| *at < 100).collect();
    assert_eq!(sick, [0, 0, 0, 10, 30, 70], "three failures, then probes ever later");
    assert_eq!(fixture.count("delivered").await, 50, "enough attempts were left");
    let healthy: Vec<u64> = fixture.seconds("a").into_iter().filter(|at| *at >= 100).collect();
    assert!(healthy.len() == 50 && healthy.iter().all(|at| *at <= 112), "it closed: {healthy:?}");
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_opens_at_rate_limited_endpoints_too() {
    let fixture = fixture(breaker(), |_| Answer::After(TENTH, 500));
    let limited = endpoint("a").rate_limit(count(1), count(1));
    fixture.register("a", limited).await;
    let worker = fixture.engine.start();
    fixture.publish_many(50).await;
    fixture.pass(40 * SECOND).await;
    assert_eq!(fixture.seconds("a"), [0, 1, 2, 12, 32]);
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn one_event_that_is_refused_opens_no_breaker() {
    let answer = |receipt: &Receipt| Answer::Status(if receipt.event == "bad" { 400 } else { 200 });
    let fixture = fixture(breaker(), answer);
    let retry = RetryPolicy::fixed(Duration::ZERO, 9);
    fixture.register("a", endpoint("a").retry(retry).ordered()).await;
    let worker = fixture.engine.start();
    for event in ["bad", "good"] {
        let _published = fixture.publish(event).await;
    }
    fixture.pass(SECOND).await;
    assert_eq!((fixture.times("bad"), fixture.times("good")), (10, 1));
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn an_ordered_endpoint_gets_events_in_order_of_acceptance_and_blocks_only_itself() {
    let answer = |receipt: &Receipt| match (&*receipt.endpoint, &*receipt.event, receipt.time) {
        ("a", "event-1", 1 | 2) => Answer::Status(500),
        ("a", "event-3", _) => Answer::Status(500),
        ("a", ..) => Answer::After(TENTH, 200),
        _ => Answer::Status(200),
    };
    let fixture = fixture(settings(), answer);
    fixture.register("a", endpoint("a").ordered()).await;
    fixture.register("b", endpoint("b")).await;
    let worker = fixture.engine.start();
    fixture.publish_many(5).await;
    fixture.pass(2 * MINUTE).await;
    let at_a = fixture.receipts().into_iter().filter(|receipt| receipt.endpoint == "a");
    let events: Vec<String> = at_a.map(|receipt| receipt.event).collect();
    let expected = [0, 1, 1, 1, 2, 3, 3, 3, 4].map(|number| format!("event-{number}"));
    assert_eq!(events, expected);
    assert_eq!(fixture.most_in_flight("a"), 1);
    assert_eq!(fixture.seconds("b"), [0; 5]);
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn many_ordered_endpoints_are_served_side_by_side() {
    // A share of the slots is reserved for endpoints that are known to answer quickly.
    let settings = EngineSettings { concurrency: 27, ..settings() };
    let fixture = fixture(settings, |_| Answer::After(TENTH, 200));
    for number in 0..20 {
        fixture.register(&number.to_string(), endpoint(&number.to_string()).ordered()).await;
    }
    fixture.publish_many(30).await;
    let worker = fixture.engine.start();
    fixture.pass(TENTH / 2).await;
    assert_eq!(fixture.most_in_flight("all"), 20);
    fixture.pass(MINUTE).await;
    assert_eq!(fixture.count("delivered").await, 600);
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn tenants_share_fairly() {
    let settings = EngineSettings { concurrency: 2, ..settings() };
    let fixture = fixture(settings, |_| Answer::After(TENTH, 200));
    for number in 0..10 {
        let id = format!("large-{number}");
        fixture.register(&id, endpoint(&id).tenant(tenant("large"))).await;
    }
    fixture.register("small", endpoint("small").tenant(tenant("small"))).await;
    for number in 0..30 {
        let event = event(&format!("large-{number}")).tenant(tenant("large"));
        let _published = fixture.engine.publish(&event).await.unwrap();
    }
    let worker = fixture.engine.start();
    fixture.pass(2 * SECOND).await;
    for number in 0..5 {
        let event = event(&format!("small-{number}")).tenant(tenant("small"));
        let _published = fixture.engine.publish(&event).await.unwrap();
    }
    fixture.pass(SECOND).await;
    let small = fixture.receipts().into_iter().filter(|receipt| receipt.endpoint == "small");
    let last = small.map(|receipt| receipt.at).nth(4);
    assert!(last.is_some_and(|last| last < 2 * SECOND + 7 * TENTH), "{last:?}");
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn waiting_endpoints_hold_no_slot() {
    let settings = EngineSettings { concurrency: 1, ..settings() };
    let answer =
        |receipt: &Receipt| Answer::Status(if receipt.endpoint == "well" { 200 } else { 500 });
    let fixture = fixture(settings, answer);
    for id in ["sick-1", "sick-2", "sick-3", "well"] {
        fixture.register(id, endpoint(id)).await;
    }
    let worker = fixture.engine.start();
    fixture.publish_many(20).await;
    fixture.pass(SECOND).await;
    assert_eq!(fixture.seconds("well"), [0; 20]);
    drop(worker);
}
