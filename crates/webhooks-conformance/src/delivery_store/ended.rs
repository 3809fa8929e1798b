//! Ended attempts: those of a tenant, in the order of their ends.

use std::time::Duration;

use webhooks_core::{EventId, TenantId};
use webhooks_dispatch::history::{AttemptRecord, EndedPage, EndedPlace, EndedRequest};
use webhooks_dispatch::store::Outcome;
use webhooks_dispatch::{Replay, store::Claimed};

use super::replay::replay;
use super::{
    AnyStore, at, claim, endpoint, event, ids, key, publish, register, settlement, tenant,
};

/// Settles an attempt of some seconds that ends at a time.
async fn attempt(
    store: &impl AnyStore,
    claimed: &Claimed,
    outcome: Outcome,
    (start, end): (u64, u64),
) {
    let mut settlement = settlement(claimed, outcome);
    if let Some(attempt) = &mut settlement.attempt {
        (attempt.started_at, attempt.duration) = (at(start), Duration::from_secs(end - start));
    }
    let _settled = store.settle(vec![settlement], at(end)).await.expect("a store that works");
}

async fn page(store: &impl AnyStore, request: EndedRequest) -> EndedPage {
    store.ended_attempts(request).await.expect("a store that works")
}

/// Returns the attempts of a page that is the last one.
async fn ended(store: &impl AnyStore, request: EndedRequest) -> Vec<AttemptRecord> {
    let page = page(store, request.clone()).await;
    assert!(page.is_last, "{page:?}");
    let last = page.items.last().map_or(request.after, AttemptRecord::ended_place);
    assert!(page.next >= last, "{page:?}");
    page.items
}

fn since(second: u64) -> EndedRequest {
    let (tenant, after) = (TenantId::default(), EndedPlace::since(at(second)));
    EndedRequest { tenant, after, limit: 1_000 }
}

/// Returns the events, the numbers and the ends of attempts.
fn shown(found: &[AttemptRecord]) -> Vec<(String, u32, u64)> {
    let second = |found: &AttemptRecord| found.ended_at().saturating_since(at(0)).as_secs();
    found.iter().map(|found| (found.event.to_string(), found.number, second(found))).collect()
}

pub async fn ended_attempts_are_all_attempts_by_their_ends(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    for id in ["slow", "well", "lost"] {
        publish(&store, &[event(id)], at(0)).await;
    }
    let all = claim(&store, at(0)).await;
    assert_eq!(ids(&all), ["slow", "well", "lost"]);
    let [slow, well, lost] = &all[..] else { return };
    attempt(&store, slow, Outcome::Retrying { due_at: at(10) }, (1, 9)).await;
    attempt(&store, well, Outcome::Delivered, (2, 3)).await;
    attempt(&store, lost, Outcome::Failed, (3, 4)).await;
    let entry = |event: &str, number, end| (event.to_owned(), number, end);
    let first = [entry("well", 1, 3), entry("lost", 1, 4), entry("slow", 1, 9)];
    let found = ended(&store, since(0)).await;
    assert_eq!(shown(&found), first);
    for found in &found {
        let one = store.attempt(found.delivery, found.number).await.expect("a store that works");
        assert_eq!(one.as_ref(), Some(found));
    }
    assert_eq!((&found[0].endpoint, &found[0].tenant), (&key("a").id, &key("a").tenant));
    // The start of the time belongs to it.
    assert_eq!(shown(&ended(&store, since(4)).await), first[1..]);
    let retry = claim(&store, at(10)).await.remove(0);
    attempt(&store, &retry, Outcome::Delivered, (10, 11)).await;
    // Attempts of one that is replayed stay where they were.
    for delivery in [well.claim.delivery, lost.claim.delivery] {
        assert_eq!(replay(&store, Replay::Delivery(delivery), 12).await, 1);
    }
    let later = [&first[..], &[entry("slow", 2, 11)]].concat();
    assert_eq!(shown(&ended(&store, since(0)).await), later);
    assert_eq!(shown(&ended(&store, since(12)).await), []);
}

pub async fn ended_attempts_come_in_pages(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    for number in 0..9 {
        publish(&store, &[event(&format!("event-{number}"))], at(0)).await;
    }
    // The last comes first, and three have each time.
    for (place, claimed) in claim(&store, at(0)).await.iter().enumerate() {
        let end = 9 - u64::try_from(place / 3).unwrap_or_default();
        let outcome =
            if place % 2 == 0 { Outcome::Delivered } else { Outcome::Retrying { due_at: at(90) } };
        attempt(&store, claimed, outcome, (1, end)).await;
    }
    let whole = ended(&store, since(0)).await;
    assert_eq!(whole.len(), 9);
    assert!(whole.is_sorted_by_key(|found| (found.ended_at(), found.delivery)));
    for limit in 1..=9 {
        let (mut request, mut found) = (EndedRequest { limit, ..since(0) }, Vec::new());
        loop {
            let page = page(&store, request.clone()).await;
            assert!(page.items.len() <= limit);
            request.after = page.next;
            found.extend(page.items);
            if page.is_last {
                break;
            }
        }
        assert_eq!(found, whole, "{limit}");
    }
}

pub async fn ended_attempts_are_those_of_a_tenant(store: impl AnyStore) {
    let tenants = ["one", "two"].map(tenant);
    for tenant in &tenants {
        register(&store, "a", endpoint().tenant(tenant.clone())).await;
    }
    for number in 0..6 {
        let [one, two] = &tenants;
        let tenant = if number % 3 == 0 { one } else { two };
        let event = event(&format!("event-{number}")).tenant(tenant.clone());
        publish(&store, &[event], at(number)).await;
    }
    // All end at the same time. Half of them are the last attempts of their deliveries.
    let ending = ["event-0", "event-2", "event-4"];
    let is_last = |event: &EventId| ending.contains(&&*event.to_string());
    for claimed in claim(&store, at(10)).await {
        let retrying = Outcome::Retrying { due_at: at(90) };
        let outcome = if is_last(&claimed.event.id) { Outcome::Delivered } else { retrying };
        attempt(&store, &claimed, outcome, (10, 11)).await;
    }
    for (tenant, count) in tenants.into_iter().zip([2, 4]) {
        let request = EndedRequest { tenant: tenant.clone(), ..since(0) };
        let whole = ended(&store, request.clone()).await;
        assert_eq!(whole.len(), count);
        assert!(whole.iter().all(|found| found.tenant == tenant), "{whole:?}");
        let (first, rest) = whole.split_first().expect("some");
        let behind = EndedRequest { after: first.ended_place(), ..request };
        assert_eq!(ended(&store, behind).await, rest);
    }
    // An attempt stays its tenant's when its delivery is replayed.
    let request = EndedRequest { tenant: tenant("two"), ..since(0) };
    let before = ended(&store, request.clone()).await;
    for found in &before {
        if is_last(&found.event) {
            assert_eq!(replay(&store, Replay::Delivery(found.delivery), 12).await, 1);
        }
    }
    assert_eq!(ended(&store, request).await, before);
    assert_eq!(ended(&store, since(0)).await, []);
}
