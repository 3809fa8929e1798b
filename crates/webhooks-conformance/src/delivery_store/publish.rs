//! Publishing: all or nothing, to whoever wants the event, once.

use webhooks_core::Event;
use webhooks_dispatch::{PublishStatus, store::SerializedEvent};

use super::{AnyStore, at, claim, endpoint, event, publish, register, tenant};

pub async fn every_endpoint_that_wants_an_event_gets_a_delivery(store: impl AnyStore) {
    let wants = |patterns: &[&str]| endpoint().events(patterns).expect("valid patterns");
    register(&store, "all", endpoint()).await;
    register(&store, "exact", wants(&["user.created"])).await;
    register(&store, "subtree", wants(&["user.*", "user.created"])).await;
    let overlapping = wants(&["*", "user.*", "user.created", "*", "user.created"]);
    register(&store, "overlapping", overlapping).await;
    register(&store, "other", wants(&["user.deleted"])).await;
    register(&store, "inactive", endpoint().inactive()).await;
    let published = publish(&store, &[event("a")], at(0)).await;
    assert_eq!((published[0].deliveries, published[0].status), (4, PublishStatus::Created));
    let claimed = claim(&store, at(0)).await;
    let mut endpoints: Vec<&str> =
        claimed.iter().map(|claimed| claimed.registration.id.as_str()).collect();
    endpoints.sort_unstable();
    assert_eq!(endpoints, ["all", "exact", "overlapping", "subtree"]);

    let unwanted = Event::new("nobody.cares", 1).expect("a valid event");
    register(&store, "all", wants(&["a"])).await;
    register(&store, "overlapping", wants(&["a"])).await;
    assert_eq!(publish(&store, &[unwanted], at(1)).await[0].deliveries, 0);
}

pub async fn the_bytes_handed_out_are_the_bytes_published(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    let payload = "Größe 1 \u{1f980} \"quoted\" \\ \n \0";
    let event = Event::new("user.created", payload).expect("a valid event").source("crm");
    publish(&store, std::slice::from_ref(&event), at(0)).await;
    let claimed = claim(&store, at(0)).await;
    assert_eq!(*claimed[0].event, SerializedEvent::new(&event));
}

pub async fn publishing_again_gives_the_first_result(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    publish(&store, &[event("a")], at(0)).await;
    register(&store, "b", endpoint()).await;
    // A publisher that starts anew takes a new timestamp for the same thing.
    let again = publish(&store, &[event("a").timestamp(at(9))], at(10)).await;
    assert_eq!((again[0].deliveries, again[0].status), (1, PublishStatus::Duplicate));
    let twice = publish(&store, &[event("b"), event("b")], at(11)).await;
    assert_eq!(
        [twice[0].status, twice[1].status],
        [PublishStatus::Created, PublishStatus::Duplicate]
    );
    assert_eq!(claim(&store, at(11)).await.len(), 1 + 2);
}

pub async fn another_content_under_the_same_id_is_a_conflict(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    publish(&store, &[event("a")], at(0)).await;
    let original = event("a");
    let other_type =
        Event::new("user.updated", "a").expect("a valid event").id(original.id.clone());
    let other_payload =
        Event::new("user.created", "b").expect("a valid event").id(original.id.clone());
    let other_source = event("a").source("elsewhere");
    for other in [other_type, other_payload, other_source] {
        let outcome = store.publish(vec![SerializedEvent::new(&other)], at(1)).await;
        let conflict = outcome.expect("a store that works").remove(0).expect_err("a conflict");
        assert_eq!(conflict.event, original.id);
    }
    assert_eq!(claim(&store, at(1)).await.len(), 1);
}

pub async fn tenants_do_not_share_ids_or_endpoints(store: impl AnyStore) {
    for name in ["acme", "globex"] {
        register(&store, name, endpoint().tenant(tenant(name))).await;
        let event = event("a").tenant(tenant(name)).source(name);
        assert_eq!(publish(&store, &[event], at(0)).await[0].deliveries, 1);
    }
    let claimed = claim(&store, at(0)).await;
    assert_eq!(claimed.len(), 2);
    for claimed in claimed {
        assert_eq!(claimed.event.tenant, claimed.registration.endpoint.tenant);
    }
}

pub async fn one_conflict_in_a_batch_stops_no_other_event(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    publish(&store, &[event("a")], at(0)).await;
    let batch = [event("before"), event("a").source("other"), event("after")];
    let outcome = store.publish(batch.iter().map(SerializedEvent::new).collect(), at(1)).await;
    let is_published: Vec<bool> =
        outcome.expect("a store that works").iter().map(Result::is_ok).collect();
    assert_eq!(is_published, [true, false, true]);
    assert_eq!(claim(&store, at(1)).await.len(), 3);
}

pub async fn many_publishers_of_one_id_publish_it_once(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    let mut publishers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let store = store.clone();
        publishers.spawn(async move { publish(&store, &[event("a")], at(0)).await.remove(0) });
    }
    let published = publishers.join_all().await;
    let new =
        published.iter().filter(|published| published.status == PublishStatus::Created).count();
    assert_eq!((new, claim(&store, at(0)).await.len()), (1, 1));
}
