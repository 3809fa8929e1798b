//! Searches for a text in the bodies of events.

use webhooks_core::{Channel, Event, EventId};
use webhooks_dispatch::{
    history::{Query, SearchPage, SearchRequest},
    store::{ExpungeRequest, Outcome},
};

use super::{AnyStore, at, claim, endpoint, endpoint_id, event, publish, register, settle, tenant};

async fn search(store: &impl AnyStore, request: &SearchRequest) -> SearchPage {
    store.search(request.clone()).await.expect("a store that works")
}

fn all(text: &str) -> SearchRequest {
    SearchRequest { query: Query::default(), text: text.to_owned(), max_looked: 1_000 }
}

fn ids(page: &SearchPage) -> Vec<String> {
    page.items.iter().map(|found| found.id.to_string()).collect()
}

fn saying(id: &str, text: &str) -> Event {
    let event = Event::new("user.created", text).expect("a valid event").timestamp(at(0));
    event.id(EventId::new(id).expect("a valid id"))
}

pub async fn a_text_is_found_as_it_is_written(store: impl AnyStore) {
    let texts = [
        ("plain", "an invoice of 100 % for a_b"),
        ("upper", "INVOICE"),
        ("letters", "Größe \u{1f980}"),
        ("quoted", "a \"quote\" and a \\"),
    ];
    let events: Vec<Event> = texts.iter().map(|(id, text)| saying(id, text)).collect();
    publish(&store, &events, at(0)).await;
    for (text, expected) in [
        ("", vec!["quoted", "letters", "upper", "plain"]),
        ("invoice", vec!["plain"]),
        ("INVOICE", vec!["upper"]),
        ("voi", vec!["plain"]),
        ("100 %", vec!["plain"]),
        ("%", vec!["plain"]),
        ("a_b", vec!["plain"]),
        ("_b", vec!["plain"]),
        ("1.0", vec![]),
        ("Größe", vec!["letters"]),
        ("größe", vec![]),
        ("\u{1f980}", vec!["letters"]),
        (r#"\"quote\""#, vec!["quoted"]),
        ("\"quote\"", vec![]),
        (r"\\", vec!["quoted"]),
        ("user.created", vec!["quoted", "letters", "upper", "plain"]),
        (r#""event_id":"plain""#, vec!["plain"]),
        ("nowhere", vec![]),
    ] {
        let page = search(&store, &all(text)).await;
        assert_eq!(ids(&page), expected, "{text:?}");
        assert_eq!((page.next, page.looked_to), (None, Some(at(0))), "{text:?}");
    }
    let listed = store.events(Query::default()).await.expect("a store that works").items;
    assert_eq!(search(&store, &all("")).await.items, listed, "summaries as in a list");
}

pub async fn a_search_looks_at_filtered_events(store: impl AnyStore) {
    let acme = tenant("acme");
    register(&store, "a", endpoint()).await;
    let deleted = Event::new("user.deleted", "needle").expect("a valid event");
    let deleted = deleted.id(EventId::new("deleted").expect("a valid id"));
    let channel = saying("channel", "needle").channels(["eu"]).expect("a valid channel");
    publish(&store, &[saying("first", "needle")], at(0)).await;
    publish(&store, &[saying("acmes", "needle").tenant(acme.clone()), deleted], at(1)).await;
    publish(&store, &[channel, saying("other", "hay")], at(2)).await;
    for claimed in claim(&store, at(2)).await {
        let is_first = claimed.event.id.to_string() == "first";
        let outcome = if is_first { Outcome::Failed } else { Outcome::Delivered };
        let _recorded = settle(&store, &claimed, outcome, at(2)).await;
    }
    for (query, expected) in [
        (Query::default(), vec!["channel", "deleted", "acmes", "first"]),
        (Query { tenant: Some(acme), ..Query::default() }, vec!["acmes"]),
        (Query { since: Some(at(2)), ..Query::default() }, vec!["channel"]),
        (Query { until: Some(at(1)), ..Query::default() }, vec!["first"]),
        (Query { channel: Channel::new("eu").ok(), ..Query::default() }, vec!["channel"]),
        (Query { event: EventId::new("other").ok(), ..Query::default() }, vec![]),
        (Query { status_codes: Some(500..=599), ..Query::default() }, vec!["first"]),
        (
            Query { endpoint: Some(endpoint_id("a")), limit: 2, ..Query::default() },
            vec!["channel", "deleted"],
        ),
    ] {
        let page = search(&store, &SearchRequest { query: query.clone(), ..all("needle") }).await;
        assert_eq!(ids(&page), expected, "{query:?}");
    }
}

/// Goal: a search in portions finds each event once. Method: every third of thirty has the text; the
/// search goes on from `next` until it ends, with bounds on looks and on results from one upwards,
/// while others publish.
pub async fn a_search_goes_on_where_it_ended(store: impl AnyStore) {
    const EVENTS: u64 = 30;
    for n in 0..EVENTS {
        let text = if n % 3 == 0 { "needle" } else { "hay" };
        publish(&store, &[saying(&format!("event-{n:02}"), text)], at(n)).await;
    }
    let expected: Vec<String> =
        (0..EVENTS).rev().filter(|n| n % 3 == 0).map(|n| format!("event-{n:02}")).collect();
    let mut late = 0;
    for max_looked in (1..9).chain([29, 30, 31]) {
        for limit in [1, 2, 4, 100] {
            let query = Query { until: Some(at(EVENTS)), limit, ..Query::default() };
            let mut request = SearchRequest { query, max_looked, ..all("needle") };
            let (mut found, mut looked_to) = (Vec::new(), at(EVENTS));
            let mut portions = 0;
            loop {
                let page = search(&store, &request).await;
                portions += 1;
                assert!(page.items.len() <= limit.min(max_looked));
                let looked = page.looked_to.expect("something was looked at");
                assert!(looked < looked_to, "{looked} after {looked_to}");
                assert!(page.items.iter().all(|found| found.accepted_at >= looked));
                looked_to = looked;
                found.extend(ids(&page));
                let Some(next) = page.next else { break };
                request.query.after = Some(next.to_string().parse().expect("a cursor"));
            }
            late += 1;
            publish(&store, &[saying(&format!("late-{late}"), "needle")], at(1_000)).await;
            assert_eq!(found, expected, "{max_looked} looks, {limit} results");
            assert_eq!(looked_to, at(0));
            assert!(portions >= 30_usize.div_ceil(max_looked), "{max_looked} looks at most");
        }
    }
}

pub async fn a_search_of_nothing_looks_nowhere(store: impl AnyStore) {
    let nothing = SearchPage { items: vec![], next: None, looked_to: None };
    assert_eq!(search(&store, &all("")).await, nothing);
    publish(&store, &[event("a")], at(0)).await;
    let query = Query { tenant: Some(tenant("nobody")), ..Query::default() };
    assert_eq!(search(&store, &SearchRequest { query, ..all("") }).await, nothing);
    // A bound of no looks is one of a look.
    let page = search(&store, &SearchRequest { max_looked: 0, ..all("a") }).await;
    assert_eq!(ids(&page), ["a"]);
}

pub async fn a_search_finds_nothing_in_what_was_expunged(store: impl AnyStore) {
    publish(&store, &[saying("one", "needle"), saying("two", "needle")], at(0)).await;
    let one = saying("one", "needle");
    let (tenant, event) = (one.tenant, Some(one.id));
    let request = ExpungeRequest { tenant, event, after: None, limit: 1, now: at(1) };
    let _one = store.expunge(request).await.expect("it was published");
    assert_eq!(ids(&search(&store, &all("needle")).await), ["two"]);
}
