//! The calls of an application: publish, cancel, replay, read.

use std::num::NonZeroU32;

use webhooks_core::{RetryPolicy, Timestamp};
use webhooks_dispatch::jobs::{JobState, JobWork, NewJob};
use webhooks_dispatch::{
    BreakerSettings, EngineSettings, OperationError, PublishError, PublishStatus, Replay, TryNow,
    Undelivered,
    history::{HistoryStore as _, Query},
    monitor::{MonitorStore as _, RestReason, Sending},
};

use crate::{Answer, MINUTE, Receipt, SECOND, endpoint, event, fixture, key, settings, well};

#[tokio::test(start_paused = true)]
async fn an_event_that_is_too_large_is_refused() {
    let len = event("x").to_json().len();
    let fixture = fixture(EngineSettings { max_body: len, ..settings() }, well);
    fixture.register("a", endpoint("a")).await;
    let large = event("larger");
    let refused = fixture.engine.publish_all([&event("x"), &large]).await;
    let (found, max) = (large.to_json().len(), len);
    match refused {
        Err(PublishError::TooLarge { len, max: most }) => assert_eq!((len, most), (found, max)),
        other => unreachable!("{other:?}"),
    }
    assert_eq!(fixture.statuses("x").await, Vec::<&str>::new(), "nothing was kept");
    assert_eq!(fixture.publish("x").await.deliveries, 1);
}

#[tokio::test(start_paused = true)]
async fn publishing_again_does_nothing_and_other_content_is_a_conflict() {
    let fixture = fixture(settings(), well);
    fixture.register("a", endpoint("a")).await;
    let worker = fixture.engine.start();
    assert_eq!(fixture.publish("x").await.status, PublishStatus::Created);
    fixture.pass(SECOND).await;
    let again = fixture.publish("x").await;
    assert_eq!((again.status, again.deliveries), (PublishStatus::Duplicate, 1));
    let other = fixture.engine.publish(&event("x").source("another")).await;
    assert!(matches!(other, Err(PublishError::Conflict(_))), "{other:?}");
    fixture.pass(MINUTE).await;
    assert_eq!(fixture.times("x"), 1);
    let published = fixture.told().iter().filter(|told| *told == "x published 1").count();
    assert_eq!(published, 1);
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn many_are_published_in_one_step() {
    let fixture = fixture(settings(), well);
    fixture.register("a", endpoint("a")).await;
    let taken = event("0").source("another");
    let _published = fixture.engine.publish(&taken).await.unwrap();
    let events: Vec<_> = (0..3).map(|number| event(&number.to_string())).collect();
    let published = fixture.engine.publish_all(&events).await.unwrap();
    let kept: Vec<bool> = published.iter().map(Result::is_ok).collect();
    assert_eq!(kept, [false, true, true]);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_delivery_is_not_sent_any_more() {
    let fixture = fixture(settings(), |_| Answer::Status(500));
    fixture.register("a", endpoint("a")).await;
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    fixture.pass(SECOND).await;
    let delivery = fixture.delivery("x").await;
    fixture.engine.cancel(delivery).await.unwrap();
    fixture.pass(MINUTE).await;
    assert_eq!((fixture.seconds("a"), fixture.statuses("x").await), (vec![0], vec!["cancelled"]));
    let again = fixture.engine.cancel(delivery).await;
    assert!(matches!(again, Err(OperationError::WrongStatus { .. })), "{again:?}");
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_cancelled_in_flight_stays_cancelled() {
    let fixture = fixture(settings(), |_| Answer::After(5 * SECOND, 500));
    fixture.register("a", endpoint("a")).await;
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    fixture.pass(SECOND).await;
    fixture.engine.cancel(fixture.delivery("x").await).await.unwrap();
    fixture.pass(MINUTE).await;
    assert_eq!((fixture.times("x"), fixture.statuses("x").await), (1, vec!["cancelled"]));
    fixture.assert_told("x lost its lease");
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn an_unregistered_endpoint_gets_nothing_more() {
    let fixture = fixture(settings(), |_| Answer::Status(500));
    fixture.register("a", endpoint("a")).await;
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    fixture.pass(SECOND).await;
    fixture.engine.endpoints().unregister("a").await.unwrap();
    assert_eq!(fixture.publish("y").await.deliveries, 0);
    fixture.pass(MINUTE).await;
    assert_eq!((fixture.receipts().len(), fixture.statuses("x").await), (1, vec!["cancelled"]));
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn a_replayed_delivery_has_its_retries_from_the_start() {
    let answer = |receipt: &Receipt| Answer::Status(if receipt.time < 5 { 500 } else { 200 });
    let fixture = fixture(settings(), answer);
    fixture.register("a", endpoint("a")).await;
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    fixture.pass(MINUTE).await;
    assert_eq!(fixture.statuses("x").await, ["failed"]);
    let delivery = fixture.delivery("x").await;
    assert_eq!(fixture.engine.replay(Replay::Delivery(delivery)).await.unwrap(), 1);
    fixture.pass(MINUTE).await;
    assert_eq!(fixture.seconds("a"), [0, 10, 20, 60, 70]);
    fixture.assert_told("x delivered by 5");
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn all_that_failed_is_replayed_however_much() {
    let answer = |receipt: &Receipt| Answer::Status(if receipt.at < MINUTE { 400 } else { 200 });
    let fixture = fixture(settings(), answer);
    fixture.register("a", endpoint("a")).await;
    let worker = fixture.engine.start();
    for number in 0..1_200 {
        let _published = fixture.publish(&format!("event-{number}")).await;
    }
    fixture.pass(2 * MINUTE).await;
    let failed = Replay::of_endpoint(key("a"), Undelivered::FAILED);
    let replayed = fixture.engine.replay(failed).await.unwrap();
    assert_eq!(replayed, 1_200, "in portions of 500");
    fixture.pass(MINUTE).await;
    let monitor = fixture.engine.monitor();
    let statistics = monitor.statistics(key("a"), Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!((statistics.delivered, statistics.failed), (1_200, 0));
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn events_that_came_before_the_endpoint_are_replayed() {
    let fixture = fixture(settings(), well);
    let worker = fixture.engine.start();
    fixture.publish_many(3).await;
    fixture.register("a", endpoint("a")).await;
    let replay = Replay::of_endpoint(key("a"), Undelivered::MISSED);
    assert_eq!(fixture.engine.replay(replay.clone()).await.unwrap(), 3);
    fixture.pass(SECOND).await;
    assert_eq!(fixture.receipts().len(), 3);
    assert_eq!(fixture.engine.replay(replay).await.unwrap(), 0, "they are there now");
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn the_history_tells_of_every_attempt() {
    let answer = |receipt: &Receipt| match receipt.time {
        1 => Answer::Reset,
        2 => Answer::Status(503),
        _ => Answer::After(SECOND, 200),
    };
    let fixture = fixture(settings(), answer);
    fixture.register("a", endpoint("a")).await;
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    fixture.pass(MINUTE).await;
    let found = fixture.engine.history().attempts(Query::default()).await.unwrap().items;
    let told: Vec<_> = (found.iter())
        .map(|found| {
            let attempt = &found.attempt;
            let class = attempt.error_class.map(|class| class.to_string());
            (found.number, attempt.status_code, class, attempt.duration.as_secs())
        })
        .collect();
    let expected =
        [(3, Some(200), None, 1), (2, Some(503), None, 0), (1, None, Some("reset".to_owned()), 0)];
    assert_eq!(told, expected);
    drop(worker);
}

/// Goal: a change of an endpoint holds at once, also for deliveries that a worker has claimed
/// already. Method: attempts of a second, two at a time, with ten claimed; then the endpoint goes.
#[tokio::test(start_paused = true)]
async fn nothing_starts_for_an_endpoint_that_is_gone() {
    let fixture = fixture(settings(), |_| Answer::After(SECOND, 200));
    fixture.register("a", endpoint("a").max_in_flight(NonZeroU32::new(2).unwrap())).await;
    fixture.publish_many(10).await;
    let worker = fixture.engine.start();
    fixture.pass(SECOND / 2).await;
    fixture.engine.endpoints().unregister("a").await.unwrap();
    fixture.pass(MINUTE).await;
    assert_eq!(fixture.receipts().len(), 2, "those in flight");
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_registered_anew_does_not_wait_for_its_breaker() {
    let answer =
        |receipt: &Receipt| if receipt.at < SECOND { Answer::Reset } else { Answer::Status(200) };
    let fixture = fixture(settings(), answer);
    let patient = RetryPolicy::fixed(SECOND / 10, 100).without_jitter();
    fixture.register("a", endpoint("a").retry(patient)).await;
    fixture.publish_many(20).await;
    let worker = fixture.engine.start();
    fixture.pass(5 * SECOND).await;
    assert_eq!(fixture.count("delivered").await, 0, "its breaker is open");
    fixture.register("a", endpoint("a")).await;
    fixture.pass(SECOND).await;
    assert_eq!(fixture.count("delivered").await, 20);
    drop(worker);
}

/// Goal: an operator who has mended a receiver does not wait for its breaker, whether a delivery waits for its
/// retry, is due, or has failed. Method: breakers open within a second, and nothing would be sent for minutes.
#[tokio::test(start_paused = true)]
async fn a_delivery_that_is_tried_or_replayed_does_not_wait_for_the_breaker() {
    let mended = 5 * SECOND;
    let answer = move |receipt: &Receipt| {
        if receipt.at < mended { Answer::Reset } else { Answer::Status(200) }
    };
    for policy in [RetryPolicy::fixed(SECOND / 10, 100), RetryPolicy::fixed(SECOND / 10, 4)] {
        let breaker = BreakerSettings { first_pause: 5 * MINUTE, ..BreakerSettings::default() };
        let fixture = fixture(EngineSettings { breaker, ..settings() }, answer);
        fixture.register("a", endpoint("a").retry(policy.without_jitter())).await;
        let worker = fixture.engine.start();
        let _published = fixture.publish("x").await;
        fixture.pass(SECOND).await;
        let _published = fixture.publish("y").await;
        let found = fixture.engine.endpoints().get("a").await.unwrap();
        let number = found.unwrap().number;
        let held = fixture.engine.sending(number).await.unwrap();
        let Sending::Held { by: RestReason::Failures, failures: 5, workers: 1, .. } = held else {
            panic!("{held:?}");
        };
        fixture.pass(5 * SECOND).await;
        let delivery = fixture.delivery("x").await;
        match fixture.engine.try_now(delivery).await {
            Ok(tried) => assert_eq!(tried, TryNow::Waiting),
            Err(OperationError::WrongStatus { .. }) => {
                assert_eq!(fixture.engine.replay(Replay::Delivery(delivery)).await.unwrap(), 1);
            }
            Err(error) => panic!("{error}"),
        }
        fixture.pass(SECOND).await;
        assert_eq!(fixture.count("delivered").await, 2, "the others follow the probe");
        assert_eq!(fixture.engine.sending(number).await.unwrap(), Sending::Free);
        drop(worker);
    }
}

/// Goal: an endpoint that is still down gets one attempt for one wish, also of a replay in portions, and at most
/// one in a second.
#[tokio::test(start_paused = true)]
async fn a_wish_costs_an_endpoint_that_is_down_one_attempt() {
    let fixture = fixture(settings(), |_| Answer::Reset);
    fixture.register("a", endpoint("a").retry(RetryPolicy::fixed(60 * MINUTE, 1))).await;
    let worker = fixture.engine.start();
    for n in 0..5 {
        let _published = fixture.publish(&format!("x{n}")).await;
    }
    fixture.pass(2 * SECOND).await;
    let delivery = fixture.delivery("x0").await;
    assert_eq!(fixture.receipts().len(), 5);
    for wish in 1..=3 {
        for _ in 0..10 {
            let _tried = fixture.engine.try_now(delivery).await.unwrap();
        }
        fixture.pass(2 * SECOND).await;
        assert_eq!(fixture.receipts().len(), 5 + wish);
    }
    drop(worker);
}

/// Goal: a job that replays many at a rate asks once for a probe, and not with each of its portions.
#[tokio::test(start_paused = true)]
async fn a_job_costs_an_endpoint_that_is_down_one_attempt() {
    let breaker = BreakerSettings { first_pause: 60 * MINUTE, ..BreakerSettings::default() };
    let fixture = fixture(EngineSettings { breaker, ..settings() }, |_| Answer::Status(500));
    fixture.register("a", endpoint("a").retry(RetryPolicy::fixed(60 * MINUTE, 1))).await;
    let worker = fixture.engine.start();
    for n in 0..30 {
        let _published = fixture.publish(&format!("x{n}")).await;
    }
    fixture.pass(2 * SECOND).await;
    assert_eq!(fixture.receipts().len(), 5);
    for n in 0..30 {
        let _cancelled = fixture.engine.cancel(fixture.delivery(&format!("x{n}")).await).await;
    }
    let work = JobWork::ReplayFound(Query::default());
    let job = NewJob { tenant: None, work, rate: NonZeroU32::new(2), request: None };
    let job = fixture.engine.jobs().create(job).await.unwrap();
    fixture.pass(5 * MINUTE).await;
    let job = fixture.engine.jobs().get(job.id).await.unwrap().unwrap();
    assert!(job.state == JobState::Finished && job.progress.done > 20, "{job:?}");
    assert_eq!(fixture.receipts().len(), 6);
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_waits_is_made_now_and_those_after_it_start_anew() {
    let fixture = fixture(settings(), |_| Answer::Status(500));
    fixture.register("a", endpoint("a")).await;
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    fixture.pass(5 * SECOND).await;
    let delivery = fixture.delivery("x").await;
    assert_eq!(fixture.engine.try_now(delivery).await.unwrap(), TryNow::Due);
    fixture.pass(MINUTE).await;
    assert_eq!(fixture.seconds("a"), [0, 5, 15, 25]);
    let ended = fixture.engine.try_now(delivery).await;
    assert!(matches!(ended, Err(OperationError::WrongStatus { .. })), "{ended:?}");
    drop(worker);
}
