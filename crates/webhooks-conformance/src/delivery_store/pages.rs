//! Pages of histories: forward and back, the same entries.

use webhooks_core::{DeliveryStatus, EventId};
use webhooks_dispatch::{
    history::{Cursor, Page, Query},
    store::Outcome,
};

use super::{AnyStore, at, claim, endpoint, endpoint_id, event, publish, register, settle};

/// A list of a history, whose entries are told by short texts.
#[derive(Debug, Clone, Copy)]
enum List {
    Events,
    Deliveries,
    Attempts,
}

const LISTS: [List; 3] = [List::Events, List::Deliveries, List::Attempts];

fn told<T>(page: Page<T>, tell: impl Fn(T) -> String) -> Page<String> {
    let Page { items, next, previous } = page;
    Page { items: items.into_iter().map(tell).collect(), next, previous }
}

async fn read(store: &impl AnyStore, list: List, query: Query) -> Page<String> {
    match list {
        List::Events => {
            let page = store.events(query).await.expect("a store that works");
            told(page, |found| found.id.to_string())
        }
        List::Deliveries => {
            let page = store.deliveries(query).await.expect("a store that works");
            told(page, |found| found.id.to_string())
        }
        List::Attempts => {
            let page = store.attempts(query).await.expect("a store that works");
            told(page, |found| format!("{} {}", found.delivery, found.number))
        }
    }
}

/// Returns a cursor as callers get it back: from its text.
fn from_text(cursor: Cursor) -> Cursor {
    cursor.to_string().parse().expect("a cursor's own text")
}

/// Stores ten events with two deliveries each, of which every third is attempted twice.
async fn histories(store: &impl AnyStore) {
    register(store, "a", endpoint()).await;
    register(store, "b", endpoint()).await;
    for n in 0..10 {
        publish(store, &[event(&format!("event-{n}"))], at(n)).await;
    }
    for (n, claimed) in (0..).zip(claim(store, at(10)).await) {
        let retrying = Outcome::Retrying { due_at: at(20) };
        let outcome = if n % 3 == 0 { retrying } else { Outcome::Delivered };
        let _recorded = settle(store, &claimed, outcome, at(10)).await;
    }
    for claimed in claim(store, at(20)).await {
        let _recorded = settle(store, &claimed, Outcome::Failed, at(20)).await;
    }
}

/// Reads a list to its end; returns its pages.
async fn forward(store: &impl AnyStore, list: List, query: &Query) -> Vec<Page<String>> {
    let mut pages: Vec<Page<String>> = Vec::new();
    loop {
        let after = pages.last().and_then(|page| page.next).map(from_text);
        let page = read(store, list, Query { after, ..query.clone() }).await;
        let is_last = page.next.is_none();
        assert!(page.items.len() <= query.limit);
        pages.push(page);
        if is_last {
            return pages;
        }
    }
}

/// Goal: a page is the same from both sides. Method: each list, filtered and not, is read forward by
/// pages of several sizes; from each page but the first, the page before is read.
pub async fn pages_forward_and_back_are_the_same(store: impl AnyStore) {
    histories(&store).await;
    let filters = [
        Query::default(),
        Query { endpoint: Some(endpoint_id("a")), ..Query::default() },
        Query { statuses: vec![DeliveryStatus::Failed], ..Query::default() },
        Query { status_codes: Some(500..=599), since: Some(at(1)), ..Query::default() },
        Query { event: EventId::new("event-7").ok(), ..Query::default() },
    ];
    for list in LISTS {
        for filter in &filters {
            let all = read(&store, list, Query { limit: 1_000, ..filter.clone() }).await;
            assert_eq!(all.next, None);
            assert!(!all.items.is_empty(), "{list:?} {filter:?}");
            for limit in [1, 2, 3, 7, all.items.len(), 1_000] {
                let query = Query { limit, ..filter.clone() };
                let pages = forward(&store, list, &query).await;
                let items: Vec<&String> = pages.iter().flat_map(|page| &page.items).collect();
                assert_eq!(items, all.items.iter().collect::<Vec<_>>(), "{list:?} {query:?}");
                for two in pages.windows(2) {
                    let before = two[1].previous.map(from_text);
                    assert!(before.is_some(), "a page that is not empty");
                    let page = read(&store, list, Query { before, ..query.clone() }).await;
                    assert_eq!(page, two[0], "{list:?} {query:?} before {before:?}");
                }
            }
        }
    }
}

/// Goal: reading back leaves no entry out, however the pages were cut. Method: all is read from the
/// end to the start, one and two and so on at a time, and the page before the first is empty until
/// an entry is added.
pub async fn pages_lead_back_to_the_start_and_to_what_came_since(store: impl AnyStore) {
    histories(&store).await;
    for (round, list) in LISTS.into_iter().enumerate() {
        let all = read(&store, list, Query { limit: 1_000, ..Query::default() }).await;
        let first = all.previous.map(from_text);
        for limit in 1..6 {
            let last = Query { limit: 1_000, ..Query::default() };
            let pages = forward(&store, list, &Query { limit: 1, ..last }).await;
            let end = pages.last().and_then(|page| page.previous).map(from_text);
            let (mut back, mut before) = (Vec::new(), end);
            loop {
                let page = read(&store, list, Query { before, limit, ..Query::default() }).await;
                assert!(page.items.len() <= limit);
                if page.items.is_empty() {
                    assert_eq!((page.next, page.previous), (None, None));
                    break;
                }
                assert!(page.next.is_some(), "the entry of the cursor follows");
                before = page.previous.map(from_text);
                back.splice(0..0, page.items);
            }
            assert_eq!(back, all.items[..all.items.len() - 1], "{list:?}, {limit} at a time");
            assert_eq!(before, first);
        }
        let id = format!("since-{round}");
        publish(&store, &[event(&id)], at(100)).await;
        for claimed in claim(&store, at(100)).await {
            let _recorded = settle(&store, &claimed, Outcome::Delivered, at(100)).await;
        }
        let newer = read(&store, list, Query { before: first, ..Query::default() }).await;
        let expected = if matches!(list, List::Events) { 1 } else { 2 };
        assert_eq!(newer.items.len(), expected, "{list:?}");
        let next = newer.next.map(from_text);
        let again =
            read(&store, list, Query { after: next, limit: 1_000, ..Query::default() }).await;
        assert_eq!(again.items, all.items, "{list:?}");
    }
}

pub async fn both_cursors_bound_a_page(store: impl AnyStore) {
    histories(&store).await;
    for list in LISTS {
        let pages = forward(&store, list, &Query { limit: 2, ..Query::default() }).await;
        let (first, third) = (&pages[0], &pages[2]);
        let between = Query { after: first.next, before: third.previous, ..Query::default() };
        let page = read(&store, list, between).await;
        assert_eq!(page.items, pages[1].items, "{list:?}");
    }
}

pub async fn a_page_of_nothing_leads_nowhere(store: impl AnyStore) {
    let nothing = async |query: Query| {
        for list in LISTS {
            let page = read(&store, list, query.clone()).await;
            let expected = Page { items: vec![], next: None, previous: None };
            assert_eq!(page, expected, "{list:?} {query:?}");
        }
    };
    nothing(Query::default()).await;
    nothing(Query { before: Some(Cursor { key: 0, attempt: 0 }), ..Query::default() }).await;
    histories(&store).await;
    let beyond = Some(Cursor { key: u64::MAX, attempt: u32::MAX });
    nothing(Query { before: beyond, ..Query::default() }).await;
    nothing(Query { after: Some(Cursor { key: 0, attempt: 0 }), ..Query::default() }).await;
    nothing(Query { event: EventId::new("nobody").ok(), ..Query::default() }).await;
    // From beyond all, everything follows.
    for list in LISTS {
        let page = read(&store, list, Query { after: beyond, ..Query::default() }).await;
        let all = read(&store, list, Query::default()).await;
        assert_eq!(page, all, "{list:?}");
    }
}
