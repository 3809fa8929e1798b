//! Remembering: lists that filter and page, and forgetting in time.

use webhooks_core::{DeliveryId, DeliveryStatus, Event, EventId, TenantId};
use webhooks_dispatch::{
    PublishStatus,
    history::Query,
    store::{CancelReason, Outcome, PruneRequest, SerializedEvent},
};
use webhooks_registry::{DisableReason, Subscription, store::StateChange};

use super::{
    AnyStore, at, claim, endpoint, endpoint_id, event, key, publish, register, settle, tenant,
};

fn query() -> Query {
    Query { limit: 3, ..Query::default() }
}

pub async fn pages_are_stable_while_others_write(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    for n in 0..10 {
        publish(&store, &[event(&format!("event-{n}"))], at(n)).await;
    }
    for claimed in claim(&store, at(10)).await {
        let _kept = settle(&store, &claimed, Outcome::Delivered, at(10)).await;
    }
    let (mut events, mut deliveries, mut attempts) = (Vec::new(), Vec::new(), Vec::new());
    let (mut pages, mut queries) = (0, [query(), query(), query()]);
    loop {
        let page = store.events(queries[0].clone()).await.expect("a store that works");
        events.extend(page.items.iter().map(|found| found.id.to_string()));
        let found = store.deliveries(queries[1].clone()).await.expect("a store that works");
        deliveries.extend(found.items.iter().map(|found| found.event.to_string()));
        let tried = store.attempts(queries[2].clone()).await.expect("a store that works");
        attempts.extend(tried.items.iter().map(|found| found.delivery));
        pages += 1;
        let next = [page.next, found.next, tried.next];
        let [Some(_), Some(_), Some(_)] = next else {
            assert_eq!(next, [None; 3]);
            break;
        };
        for (query, next) in queries.iter_mut().zip(next) {
            query.after = next;
        }
        let late = format!("late-{pages}");
        publish(&store, &[event(&late)], at(20)).await;
        for claimed in claim(&store, at(20)).await {
            let _kept = settle(&store, &claimed, Outcome::Delivered, at(20)).await;
        }
    }
    let newest_first: Vec<String> = (0..10).rev().map(|n| format!("event-{n}")).collect();
    assert_eq!(events, newest_first);
    assert_eq!(deliveries, newest_first);
    assert_eq!((attempts.len(), pages), (10, 4));
    assert!(attempts.is_sorted_by(|a, b| a > b));
}

pub async fn every_filter_filters(store: impl AnyStore) {
    let acme = tenant("acme");
    register(&store, "a", endpoint()).await;
    register(&store, "b", endpoint().events(["user.deleted"]).expect("a valid pattern")).await;
    register(&store, "c", endpoint().tenant(acme.clone())).await;
    publish(&store, &[event("one")], at(0)).await;
    let deleted = Event::new("user.deleted", 2).expect("a valid event");
    let two = deleted.id.clone();
    publish(&store, &[deleted], at(1)).await;
    publish(&store, &[event("three").tenant(acme.clone())], at(2)).await;
    for claimed in claim(&store, at(3)).await {
        let is_b = claimed.registration.id.as_str() == "b";
        let outcome = if is_b { Outcome::Failed } else { Outcome::Delivered };
        let _kept = settle(&store, &claimed, outcome, at(3)).await;
    }
    let pattern = Subscription::new("user.deleted").expect("a valid pattern");
    for (query, events, deliveries) in [
        (Query::default(), 3, 4),
        (Query { tenant: Some(acme), ..Query::default() }, 1, 1),
        (Query { tenant: Some(tenant("nobody")), ..Query::default() }, 0, 0),
        (Query { endpoint: Some(endpoint_id("a")), ..Query::default() }, 2, 2),
        (Query { endpoint: Some(endpoint_id("b")), ..Query::default() }, 1, 1),
        (Query { event: Some(two), ..Query::default() }, 1, 2),
        (Query { statuses: vec![DeliveryStatus::Failed], ..Query::default() }, 1, 1),
        (Query { statuses: vec![DeliveryStatus::Pending], ..Query::default() }, 0, 0),
        (Query { event_type: Some(pattern), ..Query::default() }, 1, 2),
        (Query { event_type: Subscription::new("user.*").ok(), ..Query::default() }, 3, 4),
        (Query { event_type: Subscription::new("user").ok(), ..Query::default() }, 0, 0),
        (Query { since: Some(at(1)), ..Query::default() }, 2, 3),
        (Query { until: Some(at(1)), ..Query::default() }, 1, 1),
        (Query { since: Some(at(1)), until: Some(at(2)), ..Query::default() }, 1, 2),
    ] {
        let found = store.events(query.clone()).await.expect("a store that works");
        assert_eq!(found.items.len(), events, "events of {query:?}");
        let found = store.deliveries(query.clone()).await.expect("a store that works");
        assert_eq!(found.items.len(), deliveries, "deliveries of {query:?}");
        let found = store.attempts(query.clone()).await.expect("a store that works");
        assert_eq!(found.items.len(), deliveries, "attempts of {query:?}, one a delivery");
    }
    let found = store.deliveries(Query::default()).await.expect("a store that works");
    let newest = store.delivery(found.items[0].id).await.expect("a store that works");
    assert_eq!(newest.as_ref(), Some(&found.items[0]));
    let unknown = store.delivery(DeliveryId::from_u64(u64::MAX >> 1)).await;
    assert_eq!(unknown.expect("a store that works"), None);
    let delivery = Some(found.items[0].id);
    let found = store.attempts(Query { delivery, ..Query::default() }).await;
    assert_eq!(found.expect("a store that works").items.len(), 1);
}

pub async fn an_attempt_is_kept_with_all_that_is_known(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    let original = event("a").source("crm");
    publish(&store, std::slice::from_ref(&original), at(0)).await;
    let mut expected = Vec::new();
    for (n, outcome) in [(0, Outcome::Retrying { due_at: at(1) }), (1, Outcome::Delivered)] {
        let claimed = claim(&store, at(n)).await.remove(0);
        let mut settlement = super::settlement(&claimed, outcome);
        if let Some(attempt) = &mut settlement.attempt
            && n == 0
        {
            attempt.status_code = None;
            attempt.error_class = Some(webhooks_dispatch::transport::ErrorClass::Tls);
            attempt.response_headers.clear();
            attempt.response = bytes::Bytes::from_static(&[0xff, 0, 0xfe]);
        }
        expected.insert(0, settlement.attempt.clone().expect("it was tried"));
        let _kept = store.settle(vec![settlement], at(n)).await.expect("a store that works");
    }
    let page = store.attempts(Query::default()).await.expect("a store that works");
    let found: Vec<_> = page.items.iter().map(|found| found.attempt.clone()).collect();
    assert_eq!(found, expected);
    let numbers: Vec<u32> = page.items.iter().map(|found| found.number).collect();
    assert_eq!((numbers, page.items[0].endpoint.as_str()), (vec![2, 1], "a"));
    let found = store.event(TenantId::default(), original.id.clone()).await;
    let found = found.expect("a store that works").expect("it was published");
    assert_eq!(found.event().expect("the event's body"), original);
    assert_eq!(found.summary.accepted_at, at(0));
    let nobody = store.event(tenant("nobody"), EventId::new("a").expect("a valid id")).await;
    assert_eq!(nobody.expect("a store that works"), None);
    let page = store.deliveries(Query::default()).await.expect("a store that works");
    assert_eq!((page.items[0].attempts, page.items[0].due_at), (2, None));
}

pub async fn what_is_old_and_ended_is_forgotten(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    for n in 0..6 {
        publish(&store, &[event(&format!("event-{n}"))], at(n)).await;
    }
    for (limit, expected) in [(10, 6), (4, 4), (0, 0)] {
        assert_eq!(store.waiting(limit).await.expect("a store that works"), expected);
    }
    for claimed in claim(&store, at(10)).await {
        let is_open = claimed.event.id.to_string() == "event-1";
        let outcome =
            if is_open { Outcome::Retrying { due_at: at(9_000) } } else { Outcome::Delivered };
        let _kept = settle(&store, &claimed, outcome, at(10)).await;
    }
    let mut forgotten = 0;
    loop {
        let request = PruneRequest { tenant: None, before: at(4), limit: 2, now: at(10) };
        let few = store.prune(request).await.expect("a store that works");
        assert!(few <= 2);
        if few == 0 {
            break;
        }
        forgotten += few;
    }
    assert_eq!(forgotten, 3, "0, 2 and 3; 1 still waits, 4 and 5 are younger");
    let left = store.events(Query::default()).await.expect("a store that works");
    let left: Vec<String> = left.items.iter().map(|found| found.id.to_string()).collect();
    assert_eq!(left, ["event-5", "event-4", "event-1"]);
    for page in [
        store.deliveries(Query::default()).await.expect("a store that works").items.len(),
        store.attempts(Query::default()).await.expect("a store that works").items.len(),
    ] {
        assert_eq!(page, 3);
    }
    assert_eq!(store.waiting(10).await.expect("a store that works"), 1);
    assert_eq!(claim(&store, at(9_000)).await.len(), 1, "what waits is delivered still");
    // An id that was forgotten can be published anew.
    let again = publish(&store, &[event("event-0")], at(9_000)).await;
    assert_eq!(again[0].status, PublishStatus::Created);
}

/// Goal: an event that was kept before its payload was refused, or by whatever way around the check, is
/// listed and repeated like all others. Method: its body is made by hand.
pub async fn a_payload_that_is_refused_by_now_keeps_no_page_from_others(store: impl AnyStore) {
    publish(&store, &[event("before")], at(0)).await;
    for payload in [r#""\ud800""#, "1e999"] {
        let made = event(payload.trim_matches(['"', '\\']));
        let place = |payload: &str| format!(r#""payload":{payload}"#);
        let body = made.to_json().replace(&place(made.payload.as_str()), &place(payload));
        let made = SerializedEvent { body: body.into(), ..SerializedEvent::new(&made) };
        for status in [PublishStatus::Created, PublishStatus::Duplicate] {
            let published = store.publish(vec![made.clone()], at(1)).await;
            let published = published.expect("a store that works").remove(0);
            assert_eq!(published.expect("no conflict").status, status);
        }
        let found = store.event(TenantId::default(), made.id).await.expect("a store that works");
        let found = found.expect("it was published").event().expect("the event's body");
        assert_eq!(found.payload.as_str(), payload);
    }
    let found = store.events(Query::default()).await.expect("a store that works");
    assert_eq!(found.items.len(), 3);
}

pub async fn what_waits_for_a_closed_endpoint_is_not_counted(store: impl AnyStore) {
    for id in ["a", "b", "c"] {
        register(&store, id, endpoint()).await;
    }
    // More than is cancelled together with the change.
    let events: Vec<Event> = (0..1_500).map(|n| event(&format!("event-{n}"))).collect();
    publish(&store, &events, at(0)).await;
    assert_eq!(store.waiting(10_000).await.expect("a store that works"), 4_500);
    let disable = StateChange::Disable(DisableReason::Gone);
    store.set_state(key("a"), disable, at(5)).await.expect("a store that works");
    store.unregister(key("b"), at(5)).await.expect("a store that works");
    assert_eq!(store.waiting(10_000).await.expect("a store that works"), 1_500);
    // They were cancelled when it was disabled, whatever follows.
    store.unregister(key("a"), at(6)).await.expect("a store that works");
    for (id, reason) in [("a", CancelReason::Disabled), ("b", CancelReason::Unregistered)] {
        let mut query = Query { endpoint: Some(endpoint_id(id)), limit: 1_000, ..query() };
        let mut found = Vec::new();
        loop {
            let page = store.deliveries(query.clone()).await.expect("a store that works");
            found.extend(page.items.iter().map(|found| (found.cancelled, found.ended_at)));
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        assert_eq!(found, [(Some(reason), Some(at(5)))].repeat(1_500), "{id}");
    }
}
