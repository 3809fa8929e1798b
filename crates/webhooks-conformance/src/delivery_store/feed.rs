//! Feeds: readers that follow the events of a store.

use std::collections::BTreeSet;

use webhooks_core::Event;
use webhooks_dispatch::history::{Cursor, FeedPage, FeedRequest};
use webhooks_dispatch::store::ExpungeRequest;

use super::{AnyStore, at, event, publish, tenant};

fn all() -> FeedRequest {
    FeedRequest { tenant: None, after: None, since: None, limit: 1_000, max_bytes: usize::MAX }
}

async fn feed(store: &impl AnyStore, request: &FeedRequest) -> FeedPage {
    store.feed(request.clone()).await.expect("a store that works")
}

fn ids(page: &FeedPage) -> Vec<String> {
    page.items.iter().map(|(_, event)| event.summary.id.to_string()).collect()
}

fn numbered(count: usize) -> Vec<Event> {
    (0..count).map(|number| event(&format!("event-{number:03}"))).collect()
}

pub async fn a_feed_has_the_events_in_order_as_they_are_read_one_by_one(store: impl AnyStore) {
    publish(&store, &numbered(3), at(0)).await;
    publish(&store, &[event("last")], at(1)).await;
    let page = feed(&store, &all()).await;
    assert_eq!(ids(&page), ["event-000", "event-001", "event-002", "last"]);
    assert!(page.is_last);
    assert_eq!(Some(page.next), page.items.last().map(|(cursor, _)| *cursor));
    for (_, found) in &page.items {
        let (tenant, id) = (found.summary.tenant.clone(), found.summary.id.clone());
        let one = store.event(tenant, id).await.expect("a store that works");
        assert_eq!(one.as_ref(), Some(found));
    }
    let behind = feed(&store, &FeedRequest { after: Some(page.next), ..all() }).await;
    assert_eq!(behind, FeedPage { items: Vec::new(), next: page.next, is_last: true });
}

pub async fn a_page_of_a_feed_is_bounded_in_events_and_in_bytes(store: impl AnyStore) {
    publish(&store, &numbered(10), at(0)).await;
    let whole = feed(&store, &all()).await;
    let body = whole.items.first().map_or(0, |(_, event)| event.body.len());
    for (limit, max_bytes, size) in [
        (1, usize::MAX, 1),
        (3, usize::MAX, 3),
        (1_000, 0, 1),
        (1_000, body, 1),
        (4, 2 * body + 1, 3),
    ] {
        let (mut request, mut found) = (FeedRequest { limit, max_bytes, ..all() }, Vec::new());
        loop {
            let page = feed(&store, &request).await;
            let left = whole.items.len() - found.len();
            assert_eq!(page.items.len(), size.min(left), "{limit} {max_bytes}");
            request.after = Some(page.next);
            found.extend(page.items);
            if page.is_last {
                break;
            }
        }
        assert_eq!(found, whole.items, "{limit} {max_bytes}");
    }
}

pub async fn a_feed_is_of_one_tenant_and_from_a_time_on(store: impl AnyStore) {
    let of = |name: &str, id: &str| event(id).tenant(tenant(name));
    publish(&store, &[of("acme", "a-0"), of("shop", "s-0")], at(0)).await;
    publish(&store, &[of("shop", "s-1"), of("acme", "a-1"), of("acme", "a-2")], at(10)).await;
    let acme = FeedRequest { tenant: Some(tenant("acme")), ..all() };
    assert_eq!(ids(&feed(&store, &acme).await), ["a-0", "a-1", "a-2"]);
    let later = FeedRequest { since: Some(at(10)), ..acme.clone() };
    assert_eq!(ids(&feed(&store, &later).await), ["a-1", "a-2"]);
    let none = FeedRequest { since: Some(at(11)), ..acme };
    assert!(feed(&store, &none).await.is_last);
    let everything = FeedRequest { since: Some(at(10)), ..all() };
    assert_eq!(ids(&feed(&store, &everything).await), ["s-1", "a-1", "a-2"]);
}

pub async fn the_end_of_a_feed_is_before_what_comes_later(store: impl AnyStore) {
    let start = store.feed_end().await.expect("a store that works");
    assert_eq!(start, Cursor { key: 0, attempt: 0 });
    publish(&store, &numbered(3), at(0)).await;
    let end = store.feed_end().await.expect("a store that works");
    let behind = FeedRequest { after: Some(end), ..all() };
    assert!(feed(&store, &behind).await.items.is_empty());
    publish(&store, &[event("later")], at(1)).await;
    assert_eq!(ids(&feed(&store, &behind).await), ["later"]);
}

/// Goal: a reader that follows a feed while others publish gets each event once. Method: four publishers
/// at once, and a reader that never goes back.
pub async fn a_reader_of_a_feed_misses_nothing_while_others_publish(store: impl AnyStore) {
    const EACH: usize = 50;
    let publishing = async |publisher: &str| {
        for number in 0..EACH {
            publish(&store, &[event(&format!("{publisher}-{number}"))], at(0)).await;
        }
    };
    let reading = async {
        let (mut request, mut read) = (FeedRequest { limit: 7, ..all() }, Vec::new());
        while read.len() < 4 * EACH {
            let page = feed(&store, &request).await;
            assert!(request.after.is_none_or(|after| after <= page.next), "it goes forward");
            request.after = Some(page.next);
            read.extend(ids(&page));
        }
        read
    };
    let (.., read) =
        tokio::join!(publishing("a"), publishing("b"), publishing("c"), publishing("d"), reading);
    assert_eq!(read.iter().collect::<BTreeSet<_>>().len(), 4 * EACH, "{read:?}");
}

pub async fn a_feed_has_events_that_were_expunged_without_their_bodies(store: impl AnyStore) {
    publish(&store, &numbered(2), at(0)).await;
    let first = event("event-000");
    let (tenant, event) = (first.tenant, Some(first.id));
    let request = ExpungeRequest { tenant, event, after: None, limit: 1, now: at(1) };
    let expunged = store.expunge(request).await.expect("a store that works");
    assert_eq!(expunged.events, 1);
    let page = feed(&store, &all()).await;
    assert_eq!(ids(&page), ["event-000", "event-001"]);
    let is_empty = page.items.iter().map(|(_, found)| found.body.is_empty());
    assert_eq!(is_empty.collect::<Vec<_>>(), [true, false]);
}
