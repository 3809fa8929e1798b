//! Events for some: by their channels, or for endpoints that are named; and the summaries of events.

use webhooks_core::{Event, EventId, TenantId};
use webhooks_dispatch::{
    Publication, PublishStatus, Replay, Undelivered,
    history::{EventSummary, Query},
    store::{Outcome, SerializedEvent},
};
use webhooks_registry::{DisableReason, Endpoint, store::StateChange};

use super::endpoints::set_state;
use super::replay::replay;
use super::{
    AnyStore, at, claim, endpoint, endpoint_id, event, key, publish, publish_as, register, settle,
    tenant,
};

fn listening(channels: &[&str]) -> Endpoint {
    endpoint().channels(channels).expect("valid channels")
}

fn on(id: &str, channels: &[&str]) -> Event {
    event(id).channels(channels).expect("valid channels")
}

fn only(event: &Event, endpoints: &[&str]) -> SerializedEvent {
    let endpoints = endpoints.iter().map(|id| endpoint_id(id));
    Publication::new(event).only(endpoints).into_serialized()
}

/// Claims all that is due; returns the endpoints and events, sorted.
async fn claimed(store: &impl AnyStore, second: u64) -> Vec<String> {
    let claimed = claim(store, at(second)).await;
    let pair = |endpoint: &str, event: &EventId| format!("{endpoint} {event}");
    let pairs = claimed.iter().map(|one| pair(one.registration.id.as_str(), &one.event.id));
    let mut pairs: Vec<String> = pairs.collect();
    pairs.sort();
    pairs
}

pub async fn an_endpoint_with_channels_gets_events_that_share_one(store: impl AnyStore) {
    register(&store, "all", endpoint()).await;
    register(&store, "eu", listening(&["eu"])).await;
    register(&store, "both", listening(&["us", "eu"])).await;
    let typed = listening(&["eu"]).events(["user.deleted"]).expect("a valid pattern");
    register(&store, "typed", typed).await;
    let events = [
        on("none", &[]),
        on("eu", &["eu", "beta"]),
        on("us", &["us"]),
        on("asia", &["EU", "eu:1"]),
    ];
    let published = publish(&store, &events, at(0)).await;
    let deliveries: Vec<usize> = published.iter().map(|published| published.deliveries).collect();
    assert_eq!(deliveries, [1, 3, 2, 1]);
    let expected = ["all asia", "all eu", "all none", "all us", "both eu", "both us", "eu eu"];
    assert_eq!(claimed(&store, 0).await, expected);
    // A change of the channels counts from then on.
    register(&store, "eu", listening(&["asia"])).await;
    publish(&store, &[on("later", &["eu"])], at(1)).await;
    assert_eq!(claimed(&store, 1).await, ["all later", "both later"]);
}

pub async fn labels_are_no_content_of_an_event(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    publish(&store, &[on("a", &["eu"]).tags(["one"]).expect("valid tags")], at(0)).await;
    let again = publish(&store, &[on("a", &["us"])], at(1)).await;
    assert_eq!(again[0].status, PublishStatus::Duplicate);
    let found = store.events(Query::default()).await.expect("a store that works").items;
    let texts = (found[0].channels[0].as_str(), found[0].tags[0].as_str());
    assert_eq!((found.len(), texts), (1, ("eu", "one")), "the first publication counts");
}

pub async fn an_event_for_named_endpoints_goes_to_them_alone(store: impl AnyStore) {
    register(&store, "all", endpoint()).await;
    let unsubscribed = listening(&["us"]).events(["user.deleted"]).expect("a valid pattern");
    register(&store, "unsubscribed", unsubscribed).await;
    register(&store, "disabled", endpoint().inactive()).await;
    register(&store, "paused", endpoint()).await;
    set_state(&store, "paused", StateChange::Pause).await;
    register(&store, "acmes", endpoint().tenant(tenant("acme"))).await;
    let named = ["unsubscribed", "disabled", "unknown", "acmes", "unsubscribed", "paused"];
    let published = publish_as(&store, vec![only(&event("a"), &named)], at(0)).await;
    assert_eq!(published[0].deliveries, 2, "the open ones of its tenant, each once");
    assert_eq!(claimed(&store, 0).await, ["unsubscribed a"]);
    set_state(&store, "paused", StateChange::Resume).await;
    assert_eq!(claimed(&store, 1).await, ["paused a"]);
    let nobody = publish_as(&store, vec![only(&event("b"), &[])], at(1)).await;
    assert_eq!(nobody[0].deliveries, 0);
    let again = publish(&store, &[event("b")], at(2)).await;
    assert_eq!((again[0].deliveries, again[0].status), (0, PublishStatus::Duplicate));
    assert!(claim(&store, at(2)).await.is_empty());
}

pub async fn nobody_else_misses_an_event_for_named_endpoints(store: impl AnyStore) {
    register(&store, "all", endpoint()).await;
    register(&store, "named", endpoint()).await;
    let events = vec![only(&event("a"), &["named"]), only(&event("b"), &["nobody"])];
    publish_as(&store, events, at(0)).await;
    publish(&store, &[event("c")], at(0)).await;
    register(&store, "late", endpoint()).await;
    for claimed in claim(&store, at(0)).await {
        let _recorded = settle(&store, &claimed, Outcome::Delivered, at(0)).await;
    }
    for (id, expected) in [("all", 0), ("named", 0), ("late", 1)] {
        let missed = Replay::of_endpoint(key(id), Undelivered::MISSED);
        assert_eq!(replay(&store, missed, 1).await, expected, "{id}");
    }
    assert_eq!(claimed(&store, 1).await, ["late c"]);
    for id in ["a", "b"] {
        let event = event(id).id;
        let missed = Replay::of_event(TenantId::default(), event, Undelivered::ALL);
        assert_eq!(replay(&store, missed, 2).await, 0, "{id}");
    }
}

pub async fn a_missed_event_is_one_of_the_endpoints_channels(store: impl AnyStore) {
    publish(&store, &[on("none", &[]), on("eu", &["beta", "eu"]), on("us", &["us"])], at(0)).await;
    register(&store, "eu", listening(&["eu", "asia"])).await;
    register(&store, "us", listening(&["us"])).await;
    let missed = Replay::of_endpoint(key("eu"), Undelivered::MISSED);
    assert_eq!(replay(&store, missed, 1).await, 1);
    assert_eq!(claimed(&store, 1).await, ["eu eu"]);
    for (id, expected) in [("none", 0), ("eu", 0), ("us", 1)] {
        let missed = Replay::of_event(TenantId::default(), event(id).id, Undelivered::MISSED);
        assert_eq!(replay(&store, missed, 2).await, expected, "{id}");
    }
    assert_eq!(claimed(&store, 2).await, ["us us"]);
}

pub async fn a_summary_has_all_except_the_body(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    register(&store, "b", listening(&["us"])).await;
    let payload = "Größe \u{1f980} \"quoted\"\0";
    let rich = Event::new("user.created", payload).expect("a valid event");
    let rich = rich.id(EventId::new("rich").expect("a valid id")).source("crm").timestamp(at(0));
    let rich = rich.channels(["us", "eu"]).expect("valid").tags(["x", "b:1"]).expect("valid");
    let mut summaries = Vec::new();
    let plain = SerializedEvent::new(&event("plain"));
    let scheduled = Publication::new(&event("later")).deliver_at(at(500)).into_serialized();
    let named = only(&event("named"), &["a", "b", "unknown"]);
    let rich = SerializedEvent::new(&rich);
    for (n, (event, deliveries)) in
        [(plain, 1), (rich, 2), (scheduled, 1), (named, 2)].into_iter().enumerate()
    {
        let now = at(n as u64);
        let published = publish_as(&store, vec![event.clone()], now).await;
        assert_eq!(published[0].deliveries, deliveries);
        let summary = EventSummary {
            id: event.id.clone(),
            event_type: event.event_type.clone(),
            tenant: event.tenant.clone(),
            channels: event.channels.clone(),
            tags: event.tags.clone(),
            accepted_at: now,
            deliver_at: event.deliver_at,
            only: event.only.clone(),
            deliveries,
            body_len: event.body.len(),
            expunged_at: None,
            trace: event.trace.clone(),
        };
        let found = store.event(event.tenant.clone(), event.id.clone()).await;
        let found = found.expect("a store that works").expect("it was published");
        assert_eq!(found.body, event.body, "byte for byte");
        assert_eq!(found.summary, summary);
        let read = found.event().expect("the event's body");
        assert_eq!((read.channels, read.tags), (event.channels, event.tags));
        summaries.insert(0, summary);
    }
    let page = store.events(Query::default()).await.expect("a store that works");
    assert_eq!(page.items, summaries);
    // The number of deliveries is that of the publication.
    register(&store, "late", endpoint()).await;
    let missed = Replay::of_endpoint(key("late"), Undelivered::MISSED);
    assert!(replay(&store, missed, 9).await > 0);
    set_state(&store, "a", StateChange::Disable(DisableReason::Manual)).await;
    let page = store.events(Query::default()).await.expect("a store that works");
    assert_eq!(page.items, summaries);
}
