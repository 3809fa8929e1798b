//! Order: strict where an endpoint asks for it, and its affair alone.

use webhooks_dispatch::{Replay, Undelivered, history::Query, store::Outcome};

use super::replay::replay;
use super::{
    AnyStore, at, cancel, claim, endpoint, event, ids, key, next_due, publish, register, settle,
};

pub async fn an_ordered_endpoint_gets_one_at_a_time_in_order_of_acceptance(store: impl AnyStore) {
    register(&store, "ordered", endpoint().ordered()).await;
    publish(&store, &[event("a"), event("b")], at(0)).await;
    publish(&store, &[event("c")], at(1)).await;
    register(&store, "free", endpoint()).await;
    publish(&store, &[event("d")], at(1)).await;

    let claimed = claim(&store, at(1)).await;
    assert_eq!(claimed.len(), 2, "the head, and the other endpoint's");
    let head = claimed.iter().find(|claimed| claimed.registration.id.as_str() == "ordered");
    let head = head.expect("the head").clone();
    assert_eq!(head.event.id.to_string(), "a");
    // The head is tried again; nothing overtakes it.
    let _kept = settle(&store, &head, Outcome::Retrying { due_at: at(500) }, at(2)).await;
    assert!(claim(&store, at(60)).await.is_empty());
    publish(&store, &[event("e")], at(60)).await;
    assert_eq!(claim(&store, at(60)).await.len(), 1, "the other endpoint goes on");
    let mut order = Vec::new();
    loop {
        let now = at(500);
        let claimed = claim(&store, now).await;
        let Some(head) = claimed.into_iter().find(|claimed| claimed.registration.endpoint.ordered)
        else {
            break;
        };
        order.extend(ids(std::slice::from_ref(&head)));
        // Whether it is given up or taken, the next one follows; released, it stays the head.
        let outcome = match order.len() {
            1 => Outcome::Released,
            3 => Outcome::Failed,
            _ => Outcome::Delivered,
        };
        let _kept = settle(&store, &head, outcome, now).await;
    }
    assert_eq!(order, ["a", "a", "b", "c", "d", "e"]);
}

pub async fn an_endpoint_can_become_ordered_with_a_backlog(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    publish(&store, &[event("a"), event("b"), event("c")], at(0)).await;
    let claimed = claim(&store, at(0)).await;
    let _kept = settle(&store, &claimed[0], Outcome::Retrying { due_at: at(9_000) }, at(0)).await;
    for claimed in &claimed[1..] {
        let _kept = settle(&store, claimed, Outcome::Released, at(0)).await;
    }
    register(&store, "a", endpoint().ordered()).await;
    let claimed = claim(&store, at(1)).await;
    assert_eq!(ids(&claimed), ["a"], "acceptance counts, not when a retry was due");
    let _kept = settle(&store, &claimed[0], Outcome::Delivered, at(1)).await;
    register(&store, "a", endpoint()).await;
    assert_eq!(ids(&claim(&store, at(1)).await), ["b", "c"], "and back");
    assert!(next_due(&store, at(1)).await > Some(at(1)));
}

pub async fn the_next_one_follows_a_head_that_is_cancelled(store: impl AnyStore) {
    register(&store, "a", endpoint().ordered()).await;
    publish(&store, &[event("a"), event("b"), event("c")], at(0)).await;
    let head = claim(&store, at(0)).await.remove(0);
    let _kept = settle(&store, &head, Outcome::Retrying { due_at: at(9_000) }, at(0)).await;
    let page = store.deliveries(Query::default()).await.expect("a store that works");
    let third = page.items.iter().find(|found| found.event.to_string() == "c").expect("it waits");
    cancel(&store, third.id, at(1)).await.expect("it waits");
    assert!(claim(&store, at(1)).await.is_empty(), "the head still waits for its retry");
    cancel(&store, head.claim.delivery, at(1)).await.expect("it waits");
    assert!(next_due(&store, at(1)).await.is_some_and(|due| due <= at(1)));
    assert_eq!(ids(&claim(&store, at(1)).await), ["b"]);
}

/// A replayed delivery comes before one that waits for its retry. If the replayed one is cancelled,
// the other one still waits.
pub async fn no_retry_is_made_early_because_another_delivery_is_cancelled(store: impl AnyStore) {
    register(&store, "a", endpoint().ordered()).await;
    publish(&store, &[event("a"), event("b"), event("c")], at(0)).await;
    let first = claim(&store, at(0)).await.remove(0);
    let _kept = settle(&store, &first, Outcome::Failed, at(0)).await;
    let second = claim(&store, at(0)).await.remove(0);
    let _kept = settle(&store, &second, Outcome::Retrying { due_at: at(500) }, at(0)).await;
    assert_eq!(replay(&store, Replay::Delivery(first.claim.delivery), 1).await, 1);
    cancel(&store, first.claim.delivery, at(2)).await.expect("it waits");
    assert!(claim(&store, at(499)).await.is_empty());
    assert_eq!(ids(&claim(&store, at(500)).await), ["b"]);
}

/// A retry is not to be made if it was cancelled, also behind what was replayed, or made already: by a
/// clock that was ahead, and is set back.
pub async fn nobody_waits_for_a_retry_that_is_not_to_be_made(store: impl AnyStore) {
    const AHEAD: u64 = 7_200;
    register(&store, "a", endpoint().ordered()).await;
    publish(&store, &[event("a"), event("b"), event("c")], at(0)).await;
    let first = claim(&store, at(0)).await.remove(0);
    let _kept = settle(&store, &first, Outcome::Failed, at(0)).await;
    let second = claim(&store, at(0)).await.remove(0);
    let due_at = at(9_000);
    let _kept = settle(&store, &second, Outcome::Retrying { due_at }, at(0)).await;
    assert_eq!(replay(&store, Replay::Delivery(first.claim.delivery), 1).await, 1);
    cancel(&store, second.claim.delivery, at(2)).await.expect("it waits");
    let first = claim(&store, at(2)).await.remove(0);
    assert_eq!(first.event.id.to_string(), "a");

    let due_at = at(AHEAD + 5);
    let _kept = settle(&store, &first, Outcome::Retrying { due_at }, at(AHEAD)).await;
    store.hasten(at(10)).await.expect("a store that works");
    assert!(claim(&store, at(AHEAD)).await.is_empty(), "retries go by the wall clock");
    let again = claim(&store, at(AHEAD + 5)).await.remove(0);
    let _kept = settle(&store, &again, Outcome::Delivered, at(AHEAD + 5)).await;
    assert!(claim(&store, at(10)).await.is_empty());
    store.hasten(at(10)).await.expect("a store that works");
    assert_eq!(ids(&claim(&store, at(10)).await), ["c"]);
}

/// Goal: an ordered endpoint has one attempt at a time, however many older deliveries are replayed
/// while a newer one is in flight. Method: a hundred have failed, which is more than a store may
/// look at to find the one in flight.
pub async fn replayed_deliveries_wait_for_the_one_in_flight(store: impl AnyStore) {
    register(&store, "a", endpoint().ordered()).await;
    let older: Vec<_> = (0..100).map(|n| event(&format!("older-{n:03}"))).collect();
    publish(&store, &older, at(0)).await;
    for _ in &older {
        let head = claim(&store, at(0)).await.remove(0);
        let _recorded = settle(&store, &head, Outcome::Failed, at(0)).await;
    }
    publish(&store, &[event("newer")], at(1)).await;
    let in_flight = claim(&store, at(1)).await.remove(0);
    let failed = Replay::of_endpoint(key("a"), Undelivered::FAILED);
    assert_eq!(replay(&store, failed, 2).await, older.len());
    assert!(claim(&store, at(3)).await.is_empty(), "one is in flight");
    let _recorded = settle(&store, &in_flight, Outcome::Delivered, at(4)).await;
    assert_eq!(ids(&claim(&store, at(4)).await), ["older-000"]);
}
