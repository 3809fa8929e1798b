//! Publications: scheduled events, events for named endpoints, and what is refused before anything is
//! stored.

use webhooks_core::{EndpointId, Event};
use webhooks_dispatch::{
    Engine, MemoryStore, OperationError, Publication, PublishError,
    clock::Clock as _,
    history::{HistoryStore as _, Query},
};

use crate::{
    Answer, Fixture, MINUTE, Receipt, Receivers, SECOND, endpoint, event, fixture, settings,
    tenant, well,
};

const HOUR: std::time::Duration = std::time::Duration::from_secs(3_600);
const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 3_600);

fn id(id: &str) -> EndpointId {
    EndpointId::new(id).unwrap()
}

impl Fixture {
    async fn publish_as(&self, publication: Publication) -> Result<usize, PublishError> {
        Ok(self.engine.publish(publication).await?.deliveries)
    }
}

/// Goal: a scheduled event is delivered at its time, whatever the clock does on the way, and its
/// deliveries do not grow old before.
#[tokio::test(start_paused = true)]
async fn a_scheduled_event_goes_out_at_its_time_and_not_before() {
    let fixture = fixture(settings(), well);
    fixture.register("a", endpoint("a").max_age(HOUR)).await;
    let worker = fixture.engine.start();
    let at = fixture.clock.now() + DAY;
    fixture.publish_as(Publication::new(&event("later")).deliver_at(at)).await.unwrap();
    fixture
        .publish_as(Publication::new(&event("past")).deliver_at(at.saturating_sub(DAY + DAY)))
        .await
        .unwrap();
    fixture.publish("now").await;
    fixture.pass(SECOND).await;
    assert_eq!(fixture.seconds("a"), [0, 0], "what is past is due at once");
    // `hasten` is called when the clock is set back, and leaves it.
    fixture.clock.step(-1_800);
    fixture.pass(10 * MINUTE).await;
    fixture.clock.step(0);
    fixture.pass(23 * HOUR + 49 * MINUTE).await;
    assert_eq!(fixture.times("later"), 0);
    fixture.pass(2 * MINUTE).await;
    assert_eq!(fixture.times("later"), 1);
    fixture.assert_told("later delivered by 1");
    worker.shutdown(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_scheduled_delivery_is_cancelled_as_any_other() {
    let fixture = fixture(settings(), well);
    fixture.register("a", endpoint("a")).await;
    let worker = fixture.engine.start();
    let at = fixture.clock.now() + HOUR;
    fixture.publish_as(Publication::new(&event("later")).deliver_at(at)).await.unwrap();
    let delivery = fixture.delivery("later").await;
    fixture.engine.cancel(delivery).await.unwrap();
    fixture.pass(2 * HOUR).await;
    assert_eq!((fixture.times("later"), fixture.statuses("later").await), (0, vec!["cancelled"]));
    worker.shutdown(SECOND).await;
}

/// Goal: a retry of a scheduled delivery follows its policy from then on.
#[tokio::test(start_paused = true)]
async fn a_scheduled_delivery_that_fails_is_tried_again() {
    let answer = |receipt: &Receipt| Answer::Status(if receipt.time < 3 { 500 } else { 200 });
    let fixture = fixture(settings(), answer);
    for (name, endpoint) in [("a", endpoint("a")), ("b", endpoint("b").ordered())] {
        fixture.register(name, endpoint).await;
    }
    let worker = fixture.engine.start();
    let at = fixture.clock.now() + HOUR;
    fixture.publish_as(Publication::new(&event("later")).deliver_at(at)).await.unwrap();
    fixture.pass(2 * HOUR).await;
    for name in ["a", "b"] {
        assert_eq!(fixture.seconds(name), [3_600, 3_610, 3_620], "{name}");
    }
    worker.shutdown(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_test_event_goes_to_the_named_endpoint_alone() {
    let fixture = fixture(settings(), well);
    fixture.register("a", endpoint("a").events(["never"]).unwrap()).await;
    fixture.register("b", endpoint("b")).await;
    let worker = fixture.engine.start();
    let only = |name: &str| Publication::new(&event(name)).only([id("a")]);
    assert_eq!(fixture.publish_as(only("test")).await.unwrap(), 1);
    fixture.pass(SECOND).await;
    assert_eq!((fixture.seconds("a").len(), fixture.seconds("b").len()), (1, 0));
    // A publisher that did not get the answer tries again, whatever became of the endpoint.
    fixture.engine.endpoints().disable("a").await.unwrap();
    assert_eq!(fixture.publish_as(only("test")).await.unwrap(), 1);
    worker.shutdown(SECOND).await;
}

/// Goal: what cannot be published is refused with the reason, and with it the whole batch.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_published_stores_nothing() {
    let fixture = fixture(settings(), well);
    fixture.register("a", endpoint("a")).await;
    fixture.register("off", endpoint("off").inactive()).await;
    let now = fixture.clock.now();
    let too_late = Publication::new(&event("late")).deliver_at(now + 90 * DAY + SECOND);
    let error = fixture.publish_as(too_late).await.unwrap_err();
    assert!(matches!(error, PublishError::TooFarAhead), "{error:?}");
    for (name, expected) in [("nobody", "is not registered"), ("off", "is disabled")] {
        let only = Publication::new(&event("only")).only([id("a"), id(name)]);
        let PublishError::Endpoint { source } = fixture.publish_as(only).await.unwrap_err() else {
            panic!("another error")
        };
        assert!(source.to_string().contains(expected), "{source}");
        assert!(!matches!(source, OperationError::Store(_)));
    }
    let mut labelled = event("labels");
    labelled.tags = (0..17).map(|n| format!("t{n}").parse().unwrap()).collect();
    let batch = [Publication::new(&event("fine")), Publication::new(&labelled)];
    let error = fixture.engine.publish_all(batch).await.unwrap_err();
    assert_eq!(error.to_string(), "there are 17 tags; at most 16 are allowed");
    let all = fixture.engine.history().events(Query::default()).await.unwrap();
    assert_eq!(all.items, []);
    let in_time = Publication::new(&event("late")).deliver_at(now + 90 * DAY);
    assert_eq!(fixture.publish_as(in_time).await.unwrap(), 1);
}

/// Goal: a tenant's events are forgotten earlier than those of others, if that was asked for.
#[tokio::test(start_paused = true)]
async fn events_are_forgotten_by_the_retention_of_their_tenant() {
    let fixture = fixture(settings(), well);
    let clock = fixture.clock;
    let receivers = Receivers {
        clock,
        answer: std::sync::Arc::new(well),
        log: std::sync::Arc::clone(&fixture.log),
    };
    let engine = Engine::builder(MemoryStore::new(), receivers).clock(clock).build();
    for name in ["brief", "long"] {
        let endpoints = engine.endpoints().tenant(tenant(name));
        endpoints.register("a", endpoint("a")).await.unwrap();
        engine.publish(&event("x").tenant(tenant(name))).await.unwrap();
    }
    engine.retain(tenant("brief"), Some(DAY));
    let worker = engine.start();
    let left = async || {
        let left = engine.history().events(Query::default()).await.unwrap().items;
        left.iter().map(|found| found.tenant.to_string()).collect::<Vec<_>>()
    };
    fixture.pass(23 * HOUR).await;
    assert_eq!(left().await.len(), 2);
    fixture.pass(2 * HOUR).await;
    assert_eq!(left().await, ["long"]);
    fixture.pass(30 * DAY).await;
    assert_eq!(left().await, Vec::<String>::new());
    worker.shutdown(SECOND).await;
}

/// Goal: the content of a tenant's events is gone, in as many portions as it takes, and theirs alone.
#[tokio::test(start_paused = true)]
async fn the_content_of_a_tenant_can_be_deleted() {
    let fixture = fixture(settings(), well);
    let events: Vec<Event> = (0..1_200)
        .map(|n| event(&format!("e-{n}")).tenant(tenant(if n % 2 == 0 { "acme" } else { "other" })))
        .collect();
    fixture.engine.publish_all(&events).await.unwrap();
    assert_eq!(fixture.engine.expunge_tenant(tenant("acme")).await.unwrap(), 600);
    assert_eq!(fixture.engine.expunge_tenant(tenant("acme")).await.unwrap(), 0);
    let history = fixture.engine.history();
    for (name, body_len) in [("acme", true), ("other", false)] {
        let query = Query { tenant: Some(tenant(name)), limit: 1_000, ..Query::default() };
        let found = history.events(query).await.unwrap().items;
        assert_eq!(found.len(), 600);
        assert!(found.iter().all(|found| (found.body_len == 0) == body_len), "{name}");
    }
    let expunged = fixture.engine.publish(&events[0]).await.unwrap_err();
    assert!(matches!(expunged, PublishError::Conflict(_)), "{expunged:?}");
}
