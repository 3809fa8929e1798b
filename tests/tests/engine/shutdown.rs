//! The end of workers, and of their claims.

use webhooks_dispatch::EngineSettings;

use crate::{Answer, MINUTE, Receipt, SECOND, endpoint, fixture, settings, well};

#[tokio::test(start_paused = true)]
async fn flights_finish_and_the_rest_is_handed_back_at_once() {
    let settings = EngineSettings { concurrency: 2, ..settings() };
    let fixture = fixture(settings, |_| Answer::After(SECOND / 2, 200));
    fixture.register("a", endpoint("a")).await;
    let worker = fixture.engine.start();
    fixture.publish_many(10).await;
    fixture.pass(SECOND / 4).await;
    let report = worker.shutdown(30 * SECOND).await;
    let elapsed = fixture.clock.elapsed();
    assert!(elapsed < SECOND / 2 + SECOND / 50, "no longer than the flights: {elapsed:?}");
    assert_eq!((report.broken_off, report.unsettled), (0, 0));
    assert!(report.released > 0);
    assert_eq!(fixture.count("delivered").await, 2);
    let worker = fixture.engine.start();
    fixture.pass(SECOND / 100).await;
    assert_eq!(fixture.receipts().len(), 4, "the rest is due at once");
    fixture.pass(MINUTE).await;
    assert_eq!((fixture.receipts().len(), fixture.count("delivered").await), (10, 10));
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn what_outlasts_the_grace_time_is_broken_off_and_due_again() {
    let answer = |receipt: &Receipt| match receipt.time {
        1 => Answer::After(20 * SECOND, 200),
        _ => Answer::Status(200),
    };
    let fixture = fixture(settings(), answer);
    fixture.register("a", endpoint("a")).await;
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    fixture.pass(SECOND).await;
    let report = worker.shutdown(5 * SECOND).await;
    assert_eq!((report.broken_off, report.unsettled), (1, 0));
    assert_eq!(fixture.clock.elapsed(), 6 * SECOND);
    let worker = fixture.engine.start();
    fixture.pass(SECOND).await;
    assert_eq!(fixture.seconds("a"), [0, 6]);
    fixture.assert_told("x delivered by 1");
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_claimed_once_a_worker_stops() {
    let fixture = fixture(settings(), |_| Answer::After(10 * SECOND, 200));
    fixture.register("a", endpoint("a")).await;
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    fixture.pass(SECOND).await;
    let (report, ()) = tokio::join!(worker.shutdown(MINUTE), async {
        fixture.pass(SECOND).await;
        let _published = fixture.publish("later").await;
    });
    assert_eq!((report.broken_off, fixture.times("later")), (0, 0));
    assert_eq!(fixture.statuses("later").await, ["pending"]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_worker_is_followed_by_another_when_its_leases_end() {
    let answer = |receipt: &Receipt| match receipt.time {
        1 => Answer::After(30 * SECOND, 200),
        _ => Answer::Status(200),
    };
    let fixture = fixture(EngineSettings { lease: 20 * SECOND, ..settings() }, answer);
    fixture.register("a", endpoint("a")).await;
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    fixture.pass(SECOND).await;
    drop(worker);
    let worker = fixture.engine.start();
    fixture.pass(18 * SECOND).await;
    assert_eq!(fixture.seconds("a"), [0], "it is leased");
    fixture.pass(MINUTE).await;
    assert_eq!(fixture.seconds("a"), [0, 20]);
    assert_eq!(fixture.statuses("x").await, ["delivered"]);
    drop(worker);
}

/// Goal: while a worker shuts down, no other worker takes over its running attempts. Method: an
/// attempt that lasts longer than the lease, and a second worker.
#[tokio::test(start_paused = true)]
async fn leases_are_kept_during_a_shutdown() {
    let fixture = fixture(EngineSettings { lease: 10 * SECOND, ..settings() }, |_| {
        Answer::After(25 * SECOND, 200)
    });
    fixture.register("a", endpoint("a")).await;
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    fixture.pass(SECOND).await;
    let other = fixture.engine.start();
    let report = worker.shutdown(MINUTE).await;
    assert_eq!(report.broken_off, 0);
    fixture.pass(MINUTE).await;
    assert_eq!(fixture.times("x"), 1);
    drop(other);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_in_time_though_the_store_stalls() {
    let calls = ["claim", "next_due", "settle", "extend"];
    for (call, drains) in calls.into_iter().flat_map(|call| [(call, false), (call, true)]) {
        let fixture = fixture(settings(), well);
        fixture.register("a", endpoint("a")).await;
        let worker = fixture.engine.start();
        fixture.pass(SECOND).await;
        fixture.store.slow_down(call, 60 * MINUTE);
        let _published = fixture.publish("x").await;
        fixture.pass(SECOND).await;
        let _report =
            if drains { worker.drain(5 * SECOND).await } else { worker.shutdown(5 * SECOND).await };
        let elapsed = fixture.clock.elapsed();
        assert!(elapsed <= 8 * SECOND, "{call} stalls, {drains}: {elapsed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn results_that_could_not_be_kept_are_told() {
    let fixture = fixture(EngineSettings { lease: 20 * SECOND, ..settings() }, well);
    fixture.register("a", endpoint("a")).await;
    fixture.store.fail("settle", usize::MAX);
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    fixture.pass(SECOND).await;
    let report = worker.shutdown(2 * SECOND).await;
    assert_eq!((report.broken_off, report.unsettled), (0, 1));
    fixture.store.fail("settle", 0);
    let worker = fixture.engine.start();
    fixture.pass(MINUTE).await;
    assert_eq!((fixture.times("x"), fixture.statuses("x").await), (2, vec!["delivered"]));
    drop(worker);
}

/// The README's program: it publishes, and exits.
#[tokio::test(start_paused = true)]
async fn a_drained_worker_has_delivered_what_waited_and_ends_at_once() {
    let fixture = fixture(settings(), |_| Answer::After(SECOND / 2, 200));
    fixture.register("a", endpoint("a")).await;
    let worker = fixture.engine.start();
    fixture.publish_many(100).await;
    let report = worker.drain(MINUTE).await;
    assert_eq!(fixture.count("delivered").await, 100);
    assert_eq!((report.waiting, report.released, report.unsettled), (Some(0), 0, 0));
    assert!(fixture.clock.elapsed() < 5 * SECOND, "{:?}", fixture.clock.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_drains_waits_for_retries_that_come_in_time() {
    let answer = |receipt: &Receipt| Answer::Status(if receipt.time == 1 { 503 } else { 200 });
    let fixture = fixture(settings(), answer);
    fixture.register("a", endpoint("a")).await;
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    let report = worker.drain(MINUTE).await;
    assert_eq!((report.waiting, fixture.seconds("a")), (Some(0), vec![0, 10]));

    // It does not wait for a retry that is due too late.
    let answer = |receipt: &Receipt| Answer::Status(if receipt.time == 1 { 503 } else { 200 });
    let fixture = self::fixture(settings(), answer);
    fixture.register("a", endpoint("a")).await;
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    let report = worker.drain(5 * SECOND).await;
    assert_eq!((report.waiting, fixture.seconds("a")), (Some(1), vec![0]));
    assert!(fixture.clock.elapsed() < SECOND, "{:?}", fixture.clock.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_drains_ends_when_its_time_is_over_and_tells_what_waits() {
    let fixture = fixture(settings(), |_| Answer::After(20 * SECOND, 200));
    fixture.register("a", endpoint("a")).await;
    fixture.register("b", endpoint("b")).await;
    fixture.engine.endpoints().pause("b").await.unwrap();
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    let report = worker.drain(5 * SECOND).await;
    assert_eq!(fixture.clock.elapsed(), 5 * SECOND);
    assert_eq!((report.broken_off, report.waiting), (1, Some(2)), "b is paused");
}

/// Nobody is left who could resume the endpoint.
#[tokio::test(start_paused = true)]
async fn a_worker_that_drains_does_not_wait_for_a_paused_endpoint() {
    let fixture = fixture(settings(), well);
    fixture.register("a", endpoint("a")).await;
    fixture.engine.endpoints().pause("a").await.unwrap();
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    let report = worker.drain(MINUTE).await;
    assert_eq!((report.waiting, fixture.times("x")), (Some(1), 0));
    assert!(fixture.clock.elapsed() < SECOND, "{:?}", fixture.clock.elapsed());
}

/// A receiver may have got a request that the worker stops, and gets it again.
#[tokio::test(start_paused = true)]
async fn a_worker_that_drains_starts_nothing_that_it_would_break_off() {
    let fixture = fixture(settings(), |_| Answer::After(SECOND, 200));
    fixture.register("a", endpoint("a")).await;
    let worker = fixture.engine.start();
    fixture.publish_many(1_000).await;
    let report = worker.drain(10 * SECOND).await;
    assert_eq!((report.broken_off, report.unsettled), (0, 0));
    let delivered = fixture.receipts().len() as u64;
    assert!((32..1_000).contains(&delivered), "{delivered}");
    assert_eq!(report.waiting, Some(1_000 - delivered));
    assert!(fixture.clock.elapsed() < 10 * SECOND, "{:?}", fixture.clock.elapsed());
}
