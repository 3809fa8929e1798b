//! Claiming: exclusive, bounded, fair, and for a time.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use webhooks_core::{DeliveryId, Event, EventId};
use webhooks_dispatch::{
    Replay,
    store::{ClaimRequest, Claimed, Outcome, Room, Settled},
};

use super::replay::replay;
use super::{
    AnyStore, LEASE, at, cancel, claim, claim_as, clocks, endpoint, event, ids, key, next_due,
    publish, register, request, settle, settlement, tenant,
};

/// Goal: exclusivity under concurrency. Method: eight claimers of 400 deliveries, seven at a time;
/// each delivery is seen exactly once.
pub async fn a_delivery_is_claimed_once_whoever_asks(store: impl AnyStore) {
    for n in 0..4 {
        register(&store, &format!("endpoint-{n}"), endpoint()).await;
    }
    let events: Vec<_> = (0..100).map(|n| event(&format!("event-{n}"))).collect();
    publish(&store, &events, at(0)).await;
    let mut claimers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let store = store.clone();
        claimers.spawn(async move {
            let mut seen = Vec::new();
            loop {
                let few = ClaimRequest { limit: 7, ..request(at(0)) };
                let claimed = claim_as(&store, few).await;
                if claimed.is_empty() {
                    return seen;
                }
                assert!(claimed.len() <= 7);
                seen.extend(claimed.iter().map(|claimed| claimed.claim.delivery));
                tokio::task::yield_now().await;
            }
        });
    }
    let seen: Vec<DeliveryId> = claimers.join_all().await.into_iter().flatten().collect();
    assert_eq!(seen.len(), 400);
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 400);
}

pub async fn a_lease_that_ends_frees_the_delivery_and_fences_its_holder(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    publish(&store, &[event("a")], at(0)).await;
    let first = claim(&store, at(0)).await.remove(0);
    assert!(claim(&store, at(59)).await.is_empty(), "the lease lasts a minute");
    assert_eq!(next_due(&store, at(59)).await, Some(at(0) + LEASE));
    let second = claim(&store, at(60)).await.remove(0);
    assert_eq!(second.claim.delivery, first.claim.delivery);
    assert_ne!(second.claim.token, first.claim.token);
    assert_eq!(second.progress.attempts, 0, "a lost claim is no attempt");
    assert_eq!(settle(&store, &first, Outcome::Failed, at(61)).await, Settled::LeaseLost);
    let lost = store.extend(vec![first.claim, second.claim], LEASE * 5, clocks(at(61))).await;
    assert_eq!(lost.expect("a store that works"), [first.claim]);
    let settled = settle(&store, &second, Outcome::Delivered, at(62)).await;
    assert!(matches!(settled, Settled::Recorded { .. }));
    assert_eq!(settle(&store, &second, Outcome::Failed, at(63)).await, Settled::LeaseLost);
    assert!(claim(&store, at(10_000)).await.is_empty());
}

pub async fn an_extended_lease_lasts(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    publish(&store, &[event("a")], at(0)).await;
    let claimed = claim(&store, at(0)).await.remove(0);
    let lost = store.extend(vec![claimed.claim], LEASE, clocks(at(40))).await;
    assert_eq!(lost.expect("a store that works"), []);
    assert!(claim(&store, at(99)).await.is_empty());
    assert_eq!(claim(&store, at(100)).await.len(), 1);
}

pub async fn busy_endpoints_and_limits_are_kept(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    register(&store, "b", endpoint()).await;
    let events: Vec<_> = (0..10).map(|n| event(&format!("event-{n}"))).collect();
    publish(&store, &events, at(0)).await;
    let a = store.get(key("a")).await.expect("a store that works").expect("it is registered");
    let room = Room::from_iter([a.number]);
    let others = ClaimRequest { per_endpoint: 3, room: room.clone(), ..request(at(0)) };
    let claimed = claim_as(&store, others).await;
    assert!((1..=3).contains(&claimed.len()));
    assert!(claimed.iter().all(|claimed| claimed.registration.id.as_str() == "b"));
    let both = ClaimRequest { limit: 5, per_endpoint: 3, ..request(at(0)) };
    let claimed = claim_as(&store, both).await;
    assert!((1..=5).contains(&claimed.len()));
    for endpoint in ["a", "b"] {
        let is_its = |claimed: &&Claimed| claimed.registration.id.as_str() == endpoint;
        assert!(claimed.iter().filter(is_its).count() <= 3);
    }
    while !claim_as(&store, ClaimRequest { room: room.clone(), ..request(at(0)) }).await.is_empty()
    {
    }
    let due = store.next_due(room, clocks(at(0))).await.expect("a store that works");
    assert_eq!(due, Some(LEASE), "what waits for a busy endpoint is not due");
}

/// Goal: a store that remembers which endpoints are busy follows their changes. Method: one room for
/// all claims, in which two endpoints take turns.
pub async fn the_room_of_a_worker_may_change_between_claims(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    register(&store, "b", endpoint()).await;
    let number = async |id: &str| {
        let found = store.get(key(id)).await.expect("a store that works");
        found.expect("it is registered").number
    };
    let (a, b) = (number("a").await, number("b").await);
    let events: Vec<_> = (0..9).map(|n| event(&format!("event-{n}"))).collect();
    publish(&store, &events, at(0)).await;
    let room = Room::new();
    for (free, busy, name) in [(a, b, "a"), (b, a, "b"), (a, b, "a")] {
        room.set(busy, Some(0));
        room.set(free, Some(2));
        let claimed = claim_as(&store, ClaimRequest { room: room.clone(), ..request(at(0)) }).await;
        assert_eq!(claimed.len(), 2);
        assert!(claimed.iter().all(|claimed| claimed.registration.id.as_str() == name));
    }
    room.set(a, None);
    room.set(b, None);
    let mut rest = 0;
    while rest < 12 {
        let all = ClaimRequest { room: room.clone(), ..request(at(0)) };
        let claimed = claim_as(&store, all).await;
        assert!(!claimed.is_empty(), "all have room now");
        rest += claimed.len();
    }
    assert_eq!(rest, 12);
}

/// Goal: large bodies come a few at a time, and all of them come.
pub async fn a_claim_ends_when_its_bytes_are_used_up(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    register(&store, "b", endpoint().ordered()).await;
    let large = |n: usize| {
        let event = Event::new("user.created", "x".repeat(1_000)).expect("a valid event");
        event.id(EventId::new(&format!("event-{n}")).expect("a valid id"))
    };
    publish(&store, &(0..10).map(large).collect::<Vec<_>>(), at(0)).await;
    let mut seen = 0;
    loop {
        let bytes = 2_500;
        let claimed = claim_as(&store, ClaimRequest { bytes, ..request(at(0)) }).await;
        let Some(last) = claimed.last() else { break };
        let sum: usize = claimed.iter().map(|claimed| claimed.event.body.len()).sum();
        assert!(sum - last.event.body.len() < bytes, "{} deliveries", claimed.len());
        seen += claimed.len();
    }
    assert_eq!(seen, 11, "all of one, and the first one of the other");
}

pub async fn a_claim_brings_what_a_rate_allows_within_a_second(store: impl AnyStore) {
    let count = |number| NonZeroU32::new(number).expect("not zero");
    register(&store, "a", endpoint().rate_limit(count(5), count(2))).await;
    let events: Vec<_> = (0..20).map(|n| event(&format!("event-{n}"))).collect();
    publish(&store, &events, at(0)).await;
    let mut seen = 0;
    while seen < 20 {
        let claimed = claim_as(&store, request(at(0))).await;
        assert!((1..=7).contains(&claimed.len()), "{} at once", claimed.len());
        seen += claimed.len();
    }
}

/// Goal: a tenant with much to deliver does not keep another waiting. Method: ten endpoints with
/// ten deliveries each for one, a single one for the other, accepted last.
pub async fn tenants_take_turns(store: impl AnyStore) {
    for n in 0..10 {
        register(&store, &format!("large-{n}"), endpoint().tenant(tenant("large"))).await;
    }
    register(&store, "small", endpoint().tenant(tenant("small"))).await;
    for n in 0..10 {
        publish(&store, &[event(&format!("event-{n}")).tenant(tenant("large"))], at(n)).await;
    }
    publish(&store, &[event("last").tenant(tenant("small"))], at(50)).await;
    let mut claims = 0;
    loop {
        claims += 1;
        let few = ClaimRequest { limit: 4, per_endpoint: 2, ..request(at(50)) };
        if ids(&claim_as(&store, few).await).contains(&"last".to_owned()) {
            break;
        }
    }
    assert!(claims <= 2, "the small tenant got its turn after {claims} claims");
}

pub async fn what_is_not_due_waits(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    assert_eq!(next_due(&store, at(0)).await, None);
    publish(&store, &[event("a")], at(0)).await;
    let claimed = claim(&store, at(0)).await.remove(0);
    let retrying = Outcome::Retrying { due_at: at(1_000) };
    let _kept = settle(&store, &claimed, retrying, at(5)).await;
    assert_eq!(next_due(&store, at(5)).await, Some(at(1_000)));
    assert!(claim(&store, at(999)).await.is_empty());
    let claimed = claim(&store, at(1_000)).await.remove(0);
    assert_eq!(claimed.progress.attempts, 1);
    assert_eq!(claimed.progress.queued_at, at(0));
}

/// Goal: a backlog larger than any window in memory comes out whole, in order, once, with retries
/// and new arrivals in between. Method: 1,500 deliveries of one endpoint, every tenth retried.
pub async fn a_large_backlog_is_handed_out_whole_and_once(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    let events: Vec<_> = (0..1_500).map(|n| event(&format!("event-{n}"))).collect();
    for (n, batch) in (0..).zip(events.chunks(100)) {
        publish(&store, batch, at(n)).await;
    }
    let (mut delivered, mut last) = (BTreeSet::new(), None);
    let mut retried = 0;
    loop {
        let claimed = claim_as(&store, ClaimRequest { limit: 64, ..request(at(100)) }).await;
        if claimed.is_empty() {
            break;
        }
        for claimed in claimed {
            let id = claimed.claim.delivery;
            if claimed.progress.attempts == 0 {
                assert!(last < Some(id), "{id} comes after {last:?}");
                last = Some(id);
                if claimed.event.id.to_string().ends_with('0') {
                    let outcome = Outcome::Retrying { due_at: at(200) };
                    let _kept = settle(&store, &claimed, outcome, at(100)).await;
                    retried += 1;
                    continue;
                }
            }
            assert!(delivered.insert(claimed.event.id.to_string()));
            let _kept = settle(&store, &claimed, Outcome::Delivered, at(100)).await;
        }
    }
    assert_eq!((delivered.len(), retried), (1_350, 150));
    for claimed in claim(&store, at(200)).await {
        assert!(delivered.insert(claimed.event.id.to_string()));
    }
    assert_eq!(delivered.len(), 1_500);
}

pub async fn a_change_wakes_whoever_waits(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    let mut changes = store.changes();
    publish(&store, &[event("a")], at(0)).await;
    changes.changed().await;
    let claimed = claim(&store, at(0)).await.remove(0);
    let mut changes = store.changes();
    let _kept = settle(&store, &claimed, Outcome::Released, at(0)).await;
    changes.changed().await;
    assert_eq!(claim(&store, at(0)).await.len(), 1);
}

/// Goal: a clock that was set back delays nothing but retries. Method: a backlog larger than what a store
/// holds in memory, of which one was released, one is in flight, one waits for a retry, one was
/// replayed.
pub async fn what_was_accepted_by_a_clock_that_was_ahead_need_not_wait_for_it(
    store: impl AnyStore,
) {
    const AHEAD: u64 = 7_200;
    const EVENTS: usize = 1_200;
    register(&store, "a", endpoint()).await;
    let events: Vec<_> = (0..EVENTS).map(|n| event(&format!("event-{n}"))).collect();
    publish(&store, &events, at(AHEAD)).await;
    let mut held = Vec::new();
    while held.len() < 4 {
        let one = ClaimRequest { limit: 1, ..request(at(AHEAD)) };
        held.extend(claim_as(&store, one).await);
    }
    let due_at = at(AHEAD + 60);
    let outcomes = [Outcome::Released, Outcome::Retrying { due_at }, Outcome::Failed];
    for (claimed, outcome) in held.iter().zip(outcomes) {
        let _kept = settle(&store, claimed, outcome, at(AHEAD)).await;
    }
    assert_eq!(replay(&store, Replay::Delivery(held[2].claim.delivery), AHEAD + 1).await, 1);
    assert!(claim(&store, at(0)).await.is_empty(), "by this clock it is not due");

    store.hasten(at(0)).await.expect("a store that works");
    let claimed = claim(&store, at(0)).await;
    assert_eq!(claimed.len(), EVENTS - 2, "not the retry, nor what is in flight");
    let retry = held[1].claim.delivery;
    assert!(claimed.iter().all(|claimed| claimed.claim.delivery != retry));
    let released = claimed.iter().chain([&held[3]]);
    let released = released.map(|claimed| settlement(claimed, Outcome::Released)).collect();
    let settled = store.settle(released, at(1)).await.expect("a store that works");
    assert!(settled.iter().all(|settled| matches!(settled, Settled::Recorded { .. })));
    // One after another is found where it waits now.
    let some = claimed.iter().step_by(100).chain([&held[1], &held[3]]);
    let some: Vec<DeliveryId> = some.map(|claimed| claimed.claim.delivery).collect();
    for delivery in &some {
        cancel(&store, *delivery, at(2)).await.expect("it waits");
    }
    assert_eq!(claim(&store, due_at).await.len(), EVENTS - some.len());
}
