//! Panics of others cost nothing but the exchange that they happen in.

use webhooks_dispatch::{EngineSettings, Observer, Occurrence};

use crate::{Answer, MINUTE, Receipt, SECOND, endpoint, fixture, settings, well};

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
    let log = std::sync::Arc::clone(&fixture.log);
    fixture.engine = fixture.engine.observer(Panicking).observer(crate::Watcher(log));
    fixture.register("a", endpoint("a")).await;
    let worker = fixture.engine.start();
    fixture.publish_many(10).await;
    fixture.pass(SECOND).await;
    assert_eq!(fixture.count("delivered").await, 10);
    let told = fixture.told().iter().filter(|told| *told == "event-9 delivered by 1").count();
    assert_eq!(told, 2, "the one before, and the one after");
    drop(worker);
}
