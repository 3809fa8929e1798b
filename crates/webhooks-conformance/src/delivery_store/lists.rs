//! Lists of endpoints: filters, orders, pages in both directions, and counts.

use std::collections::{BTreeMap, BTreeSet};

use webhooks_core::EventType;
use webhooks_registry::{
    DisableReason, EndpointKey,
    store::{
        EndpointCursor, EndpointOrder, EndpointPage, EndpointQuery, EndpointStoreError, PagePlace,
        StateChange, StateKind,
    },
};

use super::{AnyStore, at, endpoint, endpoint_id, key, register, register_at, tenant};

async fn list(store: &impl AnyStore, query: EndpointQuery) -> EndpointPage {
    store.list(query).await.expect("a store that works")
}

fn ids(page: &EndpointPage) -> Vec<String> {
    page.items.iter().map(|found| found.id.to_string()).collect()
}

/// Returns a cursor as callers get it back: from its text.
fn from_text(cursor: &EndpointCursor) -> EndpointCursor {
    cursor.to_string().parse().expect("a cursor's own text")
}

pub async fn endpoints_are_listed_by_tenant_and_id(store: impl AnyStore) {
    for id in ["b", "a", "C"] {
        register(&store, id, endpoint()).await;
        register(&store, id, endpoint().tenant(tenant("acme"))).await;
    }
    let page = list(&store, EndpointQuery::default()).await;
    let keys: Vec<EndpointKey> = page.items.iter().map(|found| found.key()).collect();
    let acmes = |id| EndpointKey::new(tenant("acme"), endpoint_id(id));
    let expected = [acmes("C"), acmes("a"), acmes("b"), key("C"), key("a"), key("b")];
    assert_eq!(keys, expected, "by bytes, and tenants first");
    assert_eq!((page.next, page.previous), (None, None));
    for found in &page.items {
        let single = store.get(found.key()).await.expect("a store that works");
        assert_eq!(single.as_ref(), Some(found));
    }
}

pub async fn every_filter_of_endpoints_filters(store: impl AnyStore) {
    let acme = tenant("acme");
    let wants = |patterns: &[&str]| endpoint().events(patterns).expect("valid patterns");
    let elsewhere = webhooks_registry::Endpoint::new("https://example.org/In", "my-secret-key");
    let elsewhere = elsewhere.expect("a valid endpoint").description("50% off_, a\\b");
    register(&store, "all", endpoint().name("Payments of Größe")).await;
    register(&store, "users", wants(&["user.*"]).metadata("team", "crm")).await;
    let paid = wants(&["invoice.paid"]).metadata("team", "crm").metadata("env", "test");
    register(&store, "paid", paid).await;
    register(&store, "elsewhere", elsewhere.clone().tenant(acme.clone())).await;
    register(&store, "off", elsewhere.inactive()).await;
    store.set_state(key("users"), StateChange::Pause, at(1)).await.expect("it is registered");

    let event_type = |name: &str| EventType::new(name).ok();
    let text = |text: &str| EndpointQuery { text: Some(text.into()), ..Default::default() };
    let metadata = |entries: &[(&str, &str)]| EndpointQuery {
        metadata: entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        ..Default::default()
    };
    let states =
        |states: &[StateKind]| EndpointQuery { states: states.to_vec(), ..Default::default() };
    let url = |url: &str| EndpointQuery { url: Some(url.into()), ..Default::default() };
    let wanting = |name| EndpointQuery { event_type: event_type(name), ..Default::default() };
    let of_tenant = |tenant| EndpointQuery { tenant: Some(tenant), ..Default::default() };
    let (active, paused, disabled) = (StateKind::Active, StateKind::Paused, StateKind::Disabled);
    let both = EndpointQuery { tenant: Some(acme.clone()), ..states(&[active]) };
    for (query, expected) in [
        (EndpointQuery::default(), vec!["elsewhere", "all", "off", "paid", "users"]),
        (of_tenant(acme), vec!["elsewhere"]),
        (of_tenant(tenant("nobody")), vec![]),
        (states(&[active]), vec!["elsewhere", "all", "paid"]),
        (states(&[paused]), vec!["users"]),
        (states(&[disabled, paused]), vec!["off", "users"]),
        (both, vec!["elsewhere"]),
        (url("https://example.org/In"), vec!["elsewhere", "off"]),
        (url("https://example.org/"), vec![]),
        (url("https://example.org/in"), vec![]),
        (wanting("user.created"), vec!["elsewhere", "all", "off", "users"]),
        (wanting("invoice.paid"), vec!["elsewhere", "all", "off", "paid"]),
        (wanting("nobody.cares"), vec!["elsewhere", "all", "off"]),
        (text("PAY"), vec!["all"]),
        (text("größe"), vec!["all"]),
        (text("example.ORG"), vec!["elsewhere", "off"]),
        (text("USER"), vec!["users"]),
        (text("50% off_"), vec!["elsewhere", "off"]),
        (text("50%_off"), vec![]),
        (text("a\\b"), vec!["elsewhere", "off"]),
        (text("_aid"), vec![]),
        (text("%"), vec!["elsewhere", "off"]),
        (metadata(&[("team", "crm")]), vec!["paid", "users"]),
        (metadata(&[("team", "crm"), ("env", "test")]), vec!["paid"]),
        (metadata(&[("team", "CRM")]), vec![]),
        (metadata(&[("crm", "team")]), vec![]),
    ] {
        assert_eq!(ids(&list(&store, query.clone()).await), expected, "{query:?}");
        let count = store.count(query.clone(), 100).await.expect("a store that works");
        assert_eq!(count, expected.len(), "{query:?}");
        let newest = EndpointQuery { order: EndpointOrder::NewestFirst, ..query.clone() };
        let newest: BTreeSet<String> = ids(&list(&store, newest).await).into_iter().collect();
        let expected: BTreeSet<String> = expected.into_iter().map(str::to_owned).collect();
        assert_eq!(newest, expected, "the newest first of {query:?}");
    }
}

pub async fn the_newest_endpoints_come_first_if_asked_for(store: impl AnyStore) {
    for (id, second) in [("b", 1), ("c", 3), ("a", 2), ("d", 2)] {
        register_at(&store, id, endpoint(), at(second)).await;
    }
    // Changes do not make it newer.
    register_at(&store, "b", endpoint().ordered(), at(9)).await;
    let disable = StateChange::Disable(DisableReason::Gone);
    for change in [disable, StateChange::Enable] {
        store.set_state(key("b"), change, at(9)).await.expect("it is registered");
    }
    let newest = EndpointQuery { order: EndpointOrder::NewestFirst, ..Default::default() };
    assert_eq!(ids(&list(&store, newest.clone()).await), ["c", "d", "a", "b"]);
    // One that is registered anew is new.
    store.unregister(key("b"), at(10)).await.expect("it is registered");
    register_at(&store, "b", endpoint(), at(11)).await;
    assert_eq!(ids(&list(&store, newest).await), ["b", "c", "d", "a"]);
}

/// Goal: pages have no gap and no repeat while others are added and removed. Method: each order is
/// read to its end and back, by cursors as texts. After each page, an endpoint is added at each end
/// of the order, and one that was read already is removed.
pub async fn pages_of_endpoints_are_stable_in_both_directions(store: impl AnyStore) {
    for (round, order) in [EndpointOrder::ById, EndpointOrder::NewestFirst].into_iter().enumerate()
    {
        let tenant_id = tenant(&format!("tenant-{round}"));
        let mine = || endpoint().tenant(tenant_id.clone());
        let key = |id: &str| EndpointKey::new(tenant_id.clone(), endpoint_id(id));
        for n in 10..20 {
            // Pairs are created at the same time.
            register_at(&store, &format!("e-{n}"), mine(), at(100 + n / 2)).await;
        }
        let query = EndpointQuery {
            tenant: Some(tenant_id.clone()),
            order,
            limit: 3,
            ..Default::default()
        };
        let mut seen = Vec::new();
        let mut place = None;
        for step in 0.. {
            let page = list(&store, EndpointQuery { place, ..query.clone() }).await;
            assert_eq!(page.previous.is_some(), step > 0);
            seen.extend(ids(&page).into_iter().filter(|id| id.starts_with("e-")));
            let Some(next) = page.next else { break };
            place = Some(PagePlace::After(from_text(&next)));
            register_at(&store, &format!("a-{step}"), mine(), at(900 + step)).await;
            register_at(&store, &format!("z-{step}"), mine(), at(step)).await;
            let removed = seen[usize::try_from(step).expect("a small number")].clone();
            store.unregister(key(&removed), at(950)).await.expect("it is registered");
        }
        let mut expected: Vec<String> = (10..20).map(|n| format!("e-{n}")).collect();
        if order == EndpointOrder::NewestFirst {
            expected.reverse();
        }
        assert_eq!(seen, expected, "{order:?}");

        // And back from the end, by pages that are filled towards the cursor.
        let all = list(&store, EndpointQuery { limit: 1_000, ..query.clone() }).await;
        let last = all.items.last().map(|last| query.cursor(last)).expect("some are left");
        let (mut back, mut place) = (Vec::new(), Some(PagePlace::Before(from_text(&last))));
        for step in 0.. {
            let page = list(&store, EndpointQuery { place, ..query.clone() }).await;
            assert!(page.next.is_some(), "the entry of the cursor follows");
            back.splice(0..0, ids(&page));
            let Some(previous) = page.previous else { break };
            assert_eq!(page.items.len(), 3, "only the first page may be short");
            place = Some(PagePlace::Before(from_text(&previous)));
            // Of those that come later in the order, one is removed.
            let gone = ids(&all)[ids(&all).len() - 1 - step].clone();
            store.unregister(key(&gone), at(990)).await.expect("it is registered");
        }
        let all = ids(&all);
        assert_eq!(back, all[..all.len() - 1], "{order:?} backwards");
    }
}

pub async fn a_page_of_no_endpoints_leads_nowhere(store: impl AnyStore) {
    for order in [EndpointOrder::ById, EndpointOrder::NewestFirst] {
        let query = EndpointQuery { order, ..Default::default() };
        let page = list(&store, query).await;
        assert_eq!((page.items, page.next, page.previous), (vec![], None, None));
    }
}

pub async fn a_cursor_of_endpoints_in_another_order_is_refused(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    let by_id = EndpointCursor::ById(key("a"));
    let by_creation = EndpointCursor::ByCreation(at(0), key("a"));
    for (order, cursor) in [(EndpointOrder::ById, by_creation), (EndpointOrder::NewestFirst, by_id)]
    {
        for place in [PagePlace::After(cursor.clone()), PagePlace::Before(cursor.clone())] {
            let query = EndpointQuery { order, place: Some(place), ..Default::default() };
            let error = store.list(query).await.expect_err("another order");
            assert!(matches!(error, EndpointStoreError::Cursor(_)), "{error:?}");
        }
    }
}

pub async fn endpoints_are_counted_up_to_a_bound(store: impl AnyStore) {
    for n in 0..5 {
        register(&store, &format!("endpoint-{n}"), endpoint()).await;
    }
    let place = Some(PagePlace::After(EndpointCursor::ById(key("endpoint-3"))));
    let later = EndpointQuery { place, limit: 1, ..Default::default() };
    for query in [EndpointQuery::default(), later] {
        for (max, expected) in [(0, 0), (3, 3), (5, 5), (6, 5), (usize::MAX, 5)] {
            let count = store.count(query.clone(), max).await.expect("a store that works");
            assert_eq!(count, expected, "{max} at most");
        }
    }
    let none = EndpointQuery {
        metadata: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        ..Default::default()
    };
    assert_eq!(store.count(none, 3).await.expect("a store that works"), 0);
    let two = EndpointQuery { limit: 2, ..Default::default() };
    assert_eq!(list(&store, two).await.items.len(), 2);
    // A limit beyond the bounds is one within them.
    let none = EndpointQuery { limit: 0, ..Default::default() };
    assert_eq!(list(&store, none).await.items.len(), 1);
}
