//! A panic in an adapter costs nothing except the attempt in which it happens.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use webhooks_core::Timestamp;
use webhooks_dispatch::{
    Engine, EngineSettings, MemoryStore,
    clock::{Clock, MonotonicTime},
    observer::{Observer, Occurrence},
    transport::{ErrorClass, Request, Response, Transport, TransportError},
};
use webhooks_tests::SimulatedClock;

use crate::switched::Poison;
use crate::{
    Answer, MINUTE, Receipt, Receivers, SECOND, Watcher, endpoint, event, fixture, settings, well,
};

#[tokio::test(start_paused = true)]
async fn a_panicking_transport_costs_no_slot() {
    let answer = |receipt: &Receipt| match receipt.time {
        1 => Answer::Panic,
        _ => Answer::After(SECOND / 2, 200),
    };
    let settings = EngineSettings { concurrency: 3, ..settings() };
    let fixture = fixture(settings, answer);
    for number in 0..9 {
        fixture.register(&number.to_string(), endpoint(&number.to_string())).await;
    }
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    fixture.pass(MINUTE).await;
    assert_eq!(fixture.count("delivered").await, 9);
    assert_eq!(fixture.most_in_flight("all"), 3, "all slots are in use again");
    fixture.assert_told("x failed by 1: the transport panicked");
    drop(worker);
}

#[derive(Debug)]
struct Panicking;

impl Observer for Panicking {
    fn observe(&self, _occurrence: &Occurrence<'_>) {
        std::panic::resume_unwind(Box::new("a planned panic"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_panicking_observer_costs_nothing_and_others_are_told() {
    let mut fixture = fixture(settings(), well);
    let log = Arc::clone(&fixture.log);
    let (clock, answer) = (fixture.clock, Arc::new(well));
    let receivers = Receivers { clock, answer, log: Arc::clone(&log) };
    fixture.engine = Engine::builder(fixture.store.clone(), receivers)
        .clock(clock)
        .observer(Watcher(Arc::clone(&log)))
        .observer(Panicking)
        .observer(Watcher(log))
        .build();
    fixture.register("a", endpoint("a")).await;
    let worker = fixture.engine.start();
    fixture.publish_many(10).await;
    fixture.pass(SECOND).await;
    assert_eq!(fixture.count("delivered").await, 10);
    let told = fixture.told().iter().filter(|told| *told == "event-9 delivered by 1").count();
    assert_eq!(told, 2, "the one before, and the one after");
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_panics_has_failed_and_the_worker_goes_on() {
    for call in ["claim", "settle", "next_due", "set_state"] {
        let answer = |receipt: &Receipt| match &*receipt.endpoint {
            "gone" => Answer::Status(410),
            _ => Answer::Status(200),
        };
        let fixture = fixture(settings(), answer);
        fixture.store.panic(call, 3);
        fixture.register("a", endpoint("a")).await;
        fixture.register("gone", endpoint("gone").ordered()).await;
        let worker = fixture.engine.start();
        fixture.publish_many(10).await;
        fixture.pass(2 * MINUTE).await;
        assert_eq!(fixture.count("delivered").await, 10, "{call}");
        assert!(worker.is_running());
        let report = worker.shutdown(SECOND).await;
        assert_eq!((report.unsettled, report.had_died), (0, false), "{call}");
        let is_told = |told: &String| told.contains("WorkerFailed") || told.contains("StoreFailed");
        let is_told = fixture.told().iter().any(is_told);
        assert!(is_told, "{call}: {:#?}", fixture.told());
    }
}

/// Goal: if the store can never record a result, the other results are recorded, an observer is
/// told, and the delivery's claim ends. Method: the settlements of one delivery fail, whatever else
/// is in the batch.
#[tokio::test(start_paused = true)]
async fn a_result_that_cannot_be_settled_stops_no_other() {
    let fixture = fixture(EngineSettings { lease: 20 * SECOND, ..settings() }, well);
    fixture.register("a", endpoint("a")).await;
    fixture.publish_many(100).await;
    let bad = fixture.delivery("event-50").await;
    fixture.store.poison(Poison::Delivery(bad));
    let worker = fixture.engine.start();
    fixture.pass(30 * SECOND).await;
    assert_eq!(fixture.count("delivered").await, 99);
    let _published = fixture.publish("later").await;
    fixture.pass(SECOND).await;
    assert_eq!(fixture.statuses("later").await, ["delivered"], "others go on");
    assert_eq!(fixture.times("event-50"), 1);
    fixture.pass(2 * MINUTE).await;
    fixture.assert_told("event-50 lost its lease");
    assert!(fixture.times("event-50") > 1, "it is due again when its lease has ended");
    assert_eq!(fixture.times("event-51"), 1);
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn a_result_whose_texts_the_store_refuses_is_settled_without_them() {
    let fixture = fixture(settings(), |receipt| match &*receipt.event {
        "event-1" => Answer::Reset,
        _ => Answer::Status(200),
    });
    fixture.store.poison(Poison::ErrorText);
    fixture.register("a", endpoint("a").retry(webhooks_core::RetryPolicy::none())).await;
    let worker = fixture.engine.start();
    fixture.publish_many(3).await;
    fixture.pass(MINUTE).await;
    assert_eq!(fixture.statuses("event-1").await, ["failed"]);
    assert_eq!(fixture.count("delivered").await, 2);
    drop(worker);
}

/// Goal: on the day after a long outage, disabling a thousand endpoints delays no result. Method:
/// each takes eight seconds, and one healthy endpoint goes on beside them.
#[tokio::test(start_paused = true)]
async fn disabling_many_endpoints_holds_up_no_result() {
    let answer = |receipt: &Receipt| match &*receipt.endpoint {
        "well" => Answer::Status(200),
        _ => Answer::Status(410),
    };
    let fixture = fixture(settings(), answer);
    fixture.store.slow_down("set_state", 8 * SECOND);
    for number in 0..200 {
        fixture.register(&number.to_string(), endpoint(&number.to_string())).await;
    }
    fixture.register("well", endpoint("well")).await;
    let worker = fixture.engine.start();
    let _published = fixture.publish("x").await;
    fixture.pass(SECOND).await;
    assert_eq!(fixture.count("failed").await, 200);
    let _published = fixture.publish("y").await;
    fixture.pass(SECOND).await;
    assert!(fixture.statuses("y").await.contains(&"delivered"));
    fixture.store.slow_down("set_state", Duration::ZERO);
    fixture.pass(MINUTE).await;
    let disabled = fixture.told().iter().filter(|told| told.ends_with("disabled: Gone")).count();
    assert_eq!(disabled, 200);
    drop(worker);
}

/// Goal: a failure to disable an endpoint is reported, and its next answer disables it again.
/// Method: the store fails or panics once when the engine disables the endpoint.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_could_not_be_disabled_is_told_and_its_next_answer_asks_again() {
    for (is_panic, told) in [(false, "StoreFailed"), (true, "WorkerFailed { part: Disabler }")] {
        let fixture = fixture(settings(), |_| Answer::Status(410));
        if is_panic {
            fixture.store.panic("set_state", 1);
        } else {
            fixture.store.fail("set_state", 1);
        }
        fixture.register("a", endpoint("a")).await;
        let worker = fixture.engine.start();
        let _published = fixture.publish("x").await;
        fixture.pass(MINUTE).await;
        let lines = fixture.told();
        assert!(lines.iter().any(|line| line.contains(told)), "{told}: {lines:#?}");
        assert!(!lines.iter().any(|line| line == "a disabled: Gone"), "{lines:#?}");
        let _published = fixture.publish("y").await;
        fixture.pass(MINUTE).await;
        fixture.assert_told("a disabled: Gone");
        let report = worker.shutdown(SECOND).await;
        assert_eq!(report.failures, u64::from(is_panic));
    }
}

/// An error whose text panics.
#[derive(Debug)]
struct Unspeakable;

impl fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::panic::resume_unwind(Box::new("a planned panic"));
    }
}

impl Error for Unspeakable {}

/// A transport that fails once, with an error that panics when it is formatted.
#[derive(Debug, Default)]
struct Rude(AtomicBool);

impl Transport for Rude {
    async fn send(&self, _: Request) -> Result<Response, TransportError> {
        if self.0.swap(true, Ordering::SeqCst) {
            return Ok(Response { status: 200, ..Response::default() });
        }
        Err(TransportError::new(ErrorClass::Other).caused_by(Unspeakable))
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_panics_when_it_is_told_is_an_attempt_that_failed() {
    let clock = SimulatedClock::start();
    let engine = Engine::builder(MemoryStore::new(), Rude::default()).clock(clock).build();
    engine.endpoints().register("a", endpoint("a")).await.unwrap();
    let worker = engine.start();
    for id in ["x", "y"] {
        let _published = engine.publish(&event(id)).await.unwrap();
    }
    clock.sleep(MINUTE).await;
    let key = crate::key("a");
    let history = webhooks_dispatch::monitor::MonitorStore::statistics;
    let statistics = history(engine.store(), key, Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(statistics.delivered, 2, "{statistics:?}");
    let report = worker.shutdown(SECOND).await;
    assert_eq!((report.failures, report.unsettled), (1, 0));
}

/// A clock that cannot be read for some readings.
#[derive(Debug, Clone)]
struct Flawed {
    inner: SimulatedClock,
    failures: Arc<AtomicUsize>,
}

impl Flawed {
    fn fail(&self) {
        let fewer = |left: usize| left.checked_sub(1);
        if self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer).is_ok() {
            std::panic::resume_unwind(Box::new("a planned panic"));
        }
    }
}

impl Clock for Flawed {
    fn now(&self) -> Timestamp {
        self.fail();
        self.inner.now()
    }

    fn monotonic(&self) -> MonotonicTime {
        self.fail();
        self.inner.monotonic()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        self.inner.sleep(duration)
    }
}

/// Goal: a clock that cannot be read stops neither the process nor a slot nor a delivery. Method:
/// the clock fails for any number of readings during the only attempt that may run.
#[tokio::test(start_paused = true)]
async fn a_clock_that_panics_during_an_exchange_costs_no_slot_and_no_delivery() {
    for failures in 1..12 {
        let (inner, flaw) = (SimulatedClock::start(), Arc::new(AtomicUsize::new(0)));
        let clock = Flawed { inner, failures: Arc::clone(&flaw) };
        let planned = Arc::new(AtomicUsize::new(failures));
        let transport = webhooks_dispatch::FnTransport::new(move |_, _, _, _| {
            let (flaw, planned) = (Arc::clone(&flaw), Arc::clone(&planned));
            async move {
                inner.sleep(SECOND).await;
                flaw.fetch_add(planned.swap(0, Ordering::SeqCst), Ordering::SeqCst);
                (200, "")
            }
        });
        let settings = EngineSettings { concurrency: 1, ..settings() };
        let engine = Engine::builder(MemoryStore::new(), transport);
        let engine = engine.clock(clock).settings(settings).build();
        engine.endpoints().register("a", endpoint("a")).await.unwrap();
        let worker = engine.start();
        for id in ["x", "y"] {
            let _published = engine.publish(&event(id)).await.unwrap();
        }
        inner.sleep(10 * MINUTE).await;
        let history = webhooks_dispatch::monitor::MonitorStore::statistics;
        let since = Timestamp::UNIX_EPOCH;
        let statistics = history(engine.store(), crate::key("a"), since).await.unwrap();
        assert_eq!(statistics.delivered, 2, "{failures} failures: {statistics:?}");
        assert!(worker.is_running());
        let report = worker.shutdown(SECOND).await;
        assert!(report.failures > 0, "{failures} failures: {report:?}");
        assert_eq!((report.unsettled, report.had_died), (0, false), "{failures} failures");
    }
}

/// A clock that stops working.
#[derive(Debug, Clone)]
struct Broken {
    inner: SimulatedClock,
    is_broken: Arc<AtomicBool>,
}

impl Clock for Broken {
    fn now(&self) -> Timestamp {
        self.inner.now()
    }

    fn monotonic(&self) -> MonotonicTime {
        self.inner.monotonic()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        if self.is_broken.load(Ordering::SeqCst) {
            std::panic::resume_unwind(Box::new("a planned panic"));
        }
        self.inner.sleep(duration)
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_has_died_says_so() {
    let (inner, is_broken) = (SimulatedClock::start(), Arc::new(AtomicBool::new(false)));
    let clock = Broken { inner, is_broken: Arc::clone(&is_broken) };
    let transport = webhooks_dispatch::FnTransport::new(|_, _, _, _| async { (200, "") });
    let engine = Engine::builder(MemoryStore::new(), transport).clock(clock).build();
    let worker = engine.start();
    inner.sleep(SECOND).await;
    assert!(worker.is_running());
    is_broken.store(true, Ordering::SeqCst);
    inner.sleep(MINUTE).await;
    assert!(!worker.is_running());
    assert!(worker.shutdown(SECOND).await.had_died);
}
