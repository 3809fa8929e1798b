//! Expunctions: the content of an event goes, its history stays.

use webhooks_core::{EventId, TenantId};
use webhooks_dispatch::{
    OperationError, Replay, Undelivered,
    history::Query,
    store::{
        CancelReason, Claimed, ExpungeRequest, Outcome, ReplayMode, ReplayRequest, SerializedEvent,
        Settled,
    },
};

use super::replay::replay;
use super::{
    AnyStore, at, claim, deliveries_of, endpoint, event, ids, key, next_due, publish, register,
    settle, status, tenant,
};

fn of_event(id: &str, second: u64) -> ExpungeRequest {
    let event = Some(EventId::new(id).expect("a valid id"));
    ExpungeRequest { tenant: TenantId::default(), event, after: None, limit: 1, now: at(second) }
}

async fn expunge(store: &impl AnyStore, id: &str, second: u64) -> usize {
    let expunged = store.expunge(of_event(id, second)).await.expect("it was published");
    assert_eq!(expunged.next, None, "there is one such event");
    expunged.events
}

/// Settles the claim of an event.
async fn end(store: &impl AnyStore, claimed: &[Claimed], id: &str, outcome: Outcome) -> Settled {
    let found = claimed.iter().find(|claimed| claimed.event.id.to_string() == id);
    settle(store, found.expect("it was claimed"), outcome, at(3)).await
}

/// Goal: an expunction deletes the content and ends what waits, in every state. Method: an event for
/// each state of a delivery; the history tells the same as before, except for the content.
pub async fn an_expunction_leaves_the_history_without_content(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    let names = ["delivered", "failed", "flying", "retrying", "waiting", "kept"];
    publish(&store, &names.map(event), at(0)).await;
    let claimed = claim(&store, at(0)).await;
    let retrying = Outcome::Retrying { due_at: at(50) };
    for (id, outcome) in [
        ("delivered", Outcome::Delivered),
        ("failed", Outcome::Failed),
        ("retrying", retrying),
        ("waiting", Outcome::Released),
        ("kept", retrying),
    ] {
        let _recorded = end(&store, &claimed, id, outcome).await;
    }
    let before = store.attempts(Query::default()).await.expect("a store that works").items;
    for (id, expected) in [
        ("delivered", "delivered"),
        ("failed", "failed"),
        ("flying", "cancelled"),
        ("retrying", "cancelled"),
        ("waiting", "cancelled"),
    ] {
        assert_eq!(expunge(&store, id, 10).await, 1);
        assert_eq!(expunge(&store, id, 11).await, 0, "it has no content left");
        let found = deliveries_of(&store, id).await.remove(0);
        assert_eq!(found.status.as_str(), expected);
        let reason = (expected == "cancelled").then_some(CancelReason::Expunged);
        assert_eq!((found.cancelled, found.due_at, found.is_claimed), (reason, None, false));
        let event = EventId::new(id).expect("a valid id");
        let found = store.event(TenantId::default(), event).await.expect("a store that works");
        let found = found.expect("its history stays");
        assert_eq!((found.body.len(), found.summary.body_len), (0, 0));
        assert_eq!(found.summary.expunged_at, Some(at(10)));
        assert_eq!((found.summary.deliveries, found.summary.accepted_at), (1, at(0)));
        assert!(found.event().is_err(), "nothing is left to read");
    }
    let lost = end(&store, &claimed, "flying", Outcome::Delivered).await;
    assert_eq!(lost, Settled::LeaseLost);
    let after = store.attempts(Query::default()).await.expect("a store that works").items;
    assert_eq!(after.len(), before.len());
    for (mut before, after) in before.into_iter().zip(after) {
        if after.event.to_string() != "kept" {
            before.attempt.response_headers.clear();
            before.attempt.response = bytes::Bytes::new();
        }
        assert_eq!(after, before);
    }
    let kept = store.event(TenantId::default(), event("kept").id).await;
    let kept = kept.expect("a store that works").expect("it was published");
    assert_eq!((kept.summary.expunged_at, kept.event().ok()), (None, Some(event("kept"))));
    assert_eq!(ids(&claim(&store, at(10_000)).await), ["kept"], "nothing else is delivered");
    let error = store.expunge(of_event("unheard", 20)).await.expect_err("there is none");
    assert!(matches!(error, OperationError::UnknownEvent { .. }), "{error:?}");
}

/// Goal: the response to one attempt goes alone, from a delivery that waits and from one that ended.
/// Method: an attempt that failed, then one that succeeded; each is expunged in turn.
pub async fn the_response_to_one_attempt_is_expunged(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    publish(&store, &[event("one")], at(0)).await;
    let claimed = claim(&store, at(0)).await;
    let _recorded = end(&store, &claimed, "one", Outcome::Retrying { due_at: at(5) }).await;
    let claimed = claim(&store, at(5)).await;
    let _recorded = end(&store, &claimed, "one", Outcome::Delivered).await;
    let delivery = claimed[0].claim.delivery;
    let attempts =
        async || store.attempts(Query::default()).await.expect("a store that works").items;
    let expunge =
        async |number| store.expunge_response(delivery, number).await.expect("a store that works");
    let mut expected = attempts().await;
    assert_eq!(expected.len(), 2);
    for number in [1, 2] {
        assert!(expunge(number).await);
        assert!(!expunge(number).await, "none is left");
        let attempt = expected.iter_mut().find(|attempt| attempt.number == number);
        let attempt = &mut attempt.expect("there are two").attempt;
        (attempt.response_headers, attempt.response) = (String::new(), bytes::Bytes::new());
        assert_eq!(attempts().await, expected, "nothing else is changed");
    }
    assert!(!expunge(3).await, "there is no such attempt");
    let event = store.event(TenantId::default(), event("one").id).await;
    let event = event.expect("a store that works").expect("it was published");
    assert_eq!(event.summary.expunged_at, None);
}

pub async fn an_expunction_is_of_one_tenant(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    register(&store, "a", endpoint().tenant(tenant("acme"))).await;
    publish(&store, &[event("one"), event("one").tenant(tenant("acme"))], at(0)).await;
    assert_eq!(expunge(&store, "one", 1).await, 1);
    let claimed = claim(&store, at(1)).await;
    assert_eq!((claimed.len(), &claimed[0].event.tenant), (1, &tenant("acme")));
    assert_eq!(claimed[0].event.body, event("one").to_json());
}

pub async fn an_expunged_id_stays_taken(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    publish(&store, &[event("one")], at(0)).await;
    assert_eq!(expunge(&store, "one", 1).await, 1);
    for again in [event("one"), event("one").source("elsewhere")] {
        let batch = vec![SerializedEvent::new(&again), SerializedEvent::new(&event("two"))];
        let mut published = store.publish(batch, at(2)).await.expect("a store that works");
        assert!(published.remove(1).is_ok(), "others are published");
        assert_eq!(published.remove(0).expect_err("a conflict").event, again.id);
    }
    assert_eq!(ids(&claim(&store, at(3)).await), ["two"]);
    assert_eq!(deliveries_of(&store, "one").await.len(), 1);
}

pub async fn an_expunged_event_is_not_replayed(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    publish(&store, &[event("one"), event("two")], at(0)).await;
    for claimed in claim(&store, at(0)).await {
        let _recorded = settle(&store, &claimed, Outcome::Failed, at(0)).await;
    }
    register(&store, "late", endpoint()).await;
    assert_eq!(expunge(&store, "one", 1).await, 1);
    let one = deliveries_of(&store, "one").await[0].id;
    let two = deliveries_of(&store, "two").await[0].id;
    let request = ReplayRequest {
        replay: Replay::Delivery(one),
        limit: 2,
        started_at: at(2),
        now: at(2),
        after: None,
        mode: ReplayMode::Replay,
    };
    let error = store.replay(request).await.expect_err("nothing is left to send");
    let OperationError::Expunged { event: found } = error else { panic!("{error:?}") };
    assert_eq!(found, event("one").id);
    let (all, one_id) = (Undelivered::ALL, event("one").id);
    assert_eq!(replay(&store, Replay::of_event(TenantId::default(), one_id, all), 3).await, 0);
    assert_eq!(replay(&store, Replay::of_endpoint(key("late"), all), 4).await, 1, "two is missed");
    assert_eq!(replay(&store, Replay::Deliveries(vec![one, two]), 5).await, 1);
    let _failed = claim(&store, at(5)).await;
    assert_eq!(replay(&store, Replay::of_endpoint(key("a"), all), 6).await, 0);
    assert_eq!(status(&store, one).await, "failed");
}

pub async fn the_next_one_follows_an_ordered_head_that_is_expunged(store: impl AnyStore) {
    register(&store, "a", endpoint().ordered()).await;
    publish(&store, &["a", "b", "c", "d"].map(event), at(0)).await;
    let head = claim(&store, at(0)).await.remove(0);
    let _recorded = settle(&store, &head, Outcome::Retrying { due_at: at(9_000) }, at(0)).await;
    assert_eq!(expunge(&store, "c", 1).await, 1);
    assert!(claim(&store, at(1)).await.is_empty(), "the head still waits for its retry");
    assert_eq!(expunge(&store, "a", 2).await, 1);
    assert!(next_due(&store, at(2)).await.is_some_and(|due| due <= at(2)));
    let flying = claim(&store, at(2)).await.remove(0);
    assert_eq!(flying.event.id.to_string(), "b");
    assert_eq!(expunge(&store, "b", 3).await, 1);
    assert_eq!(settle(&store, &flying, Outcome::Delivered, at(3)).await, Settled::LeaseLost);
    assert_eq!(ids(&claim(&store, at(3)).await), ["d"]);
}

/// Goal: all of a tenant's content goes, however much there is. Method: portions of every size from
/// one upwards, each for a tenant of its own, of which one event is expunged before and one is accepted
/// after the expunction began.
pub async fn a_tenants_content_is_expunged_in_portions(store: impl AnyStore) {
    register(&store, "a", endpoint().tenant(tenant("other"))).await;
    publish(&store, &[event("others").tenant(tenant("other"))], at(0)).await;
    for limit in [1, 2, 3, 6, 7, 8, 100] {
        let name = tenant(&format!("tenant-{limit}"));
        register(&store, "a", endpoint().tenant(name.clone())).await;
        let publish = async |id: String, second| {
            publish(&store, &[event(&id).tenant(name.clone())], at(second)).await;
        };
        for n in 0..7 {
            publish(format!("event-{n}"), n).await;
        }
        publish("later".to_owned(), 11).await;
        let first = ExpungeRequest { tenant: name.clone(), ..of_event("event-2", 9) };
        assert_eq!(store.expunge(first).await.expect("it was published").events, 1);
        let all =
            ExpungeRequest { tenant: name.clone(), event: None, after: None, limit, now: at(10) };
        let (mut request, mut expunged, mut portions) = (all.clone(), 0, 0);
        loop {
            let portion = store.expunge(request).await.expect("a store that works");
            assert!(portion.events <= limit);
            expunged += portion.events;
            portions += 1;
            assert!(portions < 20, "it ends");
            let Some(next) = portion.next else { break };
            request = ExpungeRequest { after: Some(next), ..all.clone() };
        }
        assert_eq!(expunged, 6, "all that was accepted and had content, {limit} at a time");
        let query = Query { tenant: Some(name.clone()), ..Query::default() };
        for found in store.events(query).await.expect("a store that works").items {
            let expected = match &*found.id.to_string() {
                "later" => None,
                "event-2" => Some(at(9)),
                _ => Some(at(10)),
            };
            assert_eq!(found.expunged_at, expected, "{}", found.id);
        }
        let again = store.expunge(all).await.expect("a store that works");
        assert_eq!(again.events, 0);
    }
    let nobodys = ExpungeRequest { tenant: tenant("nobody"), event: None, ..of_event("a", 10) };
    let none = store.expunge(nobodys).await.expect("a store that works");
    assert_eq!((none.events, none.next), (0, None));
    let left = claim(&store, at(11)).await;
    let later = left.iter().filter(|claimed| claimed.event.id.to_string() == "later").count();
    assert_eq!((left.len(), later), (8, 7));
}
