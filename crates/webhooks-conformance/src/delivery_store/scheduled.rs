//! Scheduled events: delivered from a time on, and not before.

use std::collections::BTreeSet;

use webhooks_dispatch::{
    Publication, Replay, Undelivered,
    history::DeliveryRecord,
    store::{ClaimRequest, Claimed, Outcome, PruneRequest, SerializedEvent},
};
use webhooks_registry::{DisableReason, store::StateChange};

use super::endpoints::set_state;
use super::replay::replay;
use super::{
    AnyStore, at, cancel, claim, claim_as, deliveries_of, endpoint, event, ids, key, next_due,
    publish, publish_as, register, request, settle, status,
};

fn later(id: &str, second: u64) -> SerializedEvent {
    Publication::new(&event(id)).deliver_at(at(second)).into_serialized()
}

/// Publishes a scheduled event at the start; returns its only delivery.
async fn schedule(store: &impl AnyStore, id: &str, second: u64) -> DeliveryRecord {
    publish_as(store, vec![later(id, second)], at(0)).await;
    let mut found = deliveries_of(store, id).await;
    assert_eq!(found.len(), 1, "one endpoint");
    found.remove(0)
}

/// Claims one delivery after another, and settles each as delivered; returns the events in order.
async fn drain(store: &impl AnyStore, second: u64) -> Vec<String> {
    let mut order = Vec::new();
    loop {
        let claimed = claim(store, at(second)).await;
        if claimed.is_empty() {
            return order;
        }
        order.extend(ids(&claimed));
        for claimed in claimed {
            let _recorded = settle(store, &claimed, Outcome::Delivered, at(second)).await;
        }
    }
}

pub async fn a_scheduled_delivery_waits_for_its_time(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    let found = schedule(&store, "a", 100).await;
    assert_eq!((found.status.as_str(), found.attempts), ("pending", 0));
    assert_eq!((found.created_at, found.queued_at), (at(0), at(100)));
    assert_eq!((found.due_at, found.ended_at), (Some(at(100)), None));
    assert_eq!(next_due(&store, at(0)).await, Some(at(100)));
    assert!(claim(&store, at(99)).await.is_empty());
    publish(&store, &[event("at-once")], at(99)).await;
    assert_eq!(ids(&claim(&store, at(99)).await), ["at-once"], "it blocks nobody");
    let claimed = claim(&store, at(100)).await.remove(0);
    assert_eq!(claimed.claim.delivery, found.id);
    assert_eq!(claimed.progress.queued_at, at(100), "it grows old from then on");
    assert_eq!(claimed.event.body, later("a", 100).body);
    // Released, it is due as it was.
    let _recorded = settle(&store, &claimed, Outcome::Released, at(100)).await;
    let claimed = claim(&store, at(100)).await.remove(0);
    let _recorded = settle(&store, &claimed, Outcome::Delivered, at(101)).await;
    assert_eq!(status(&store, found.id).await, "delivered");
}

pub async fn a_time_that_has_passed_means_at_once(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    publish_as(&store, vec![later("past", 10), later("now", 50)], at(50)).await;
    let claimed = claim(&store, at(50)).await;
    assert_eq!(ids(&claimed), ["past", "now"]);
    assert!(claimed.iter().all(|claimed| claimed.progress.queued_at == at(50)));
}

/// Goal: due times that people chose are no error of a clock. Method: a scheduled delivery, beside
/// one that a clock that was ahead accepted.
pub async fn a_clock_that_is_set_back_leaves_scheduled_deliveries(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    register(&store, "ordered", endpoint().ordered()).await;
    publish_as(&store, vec![later("scheduled", 5_000)], at(0)).await;
    publish(&store, &[event("ahead")], at(7_200)).await;
    store.hasten(at(10)).await.expect("a store that works");
    assert_eq!(ids(&claim(&store, at(10)).await), ["ahead", "ahead"]);
    assert!(claim(&store, at(4_999)).await.iter().all(|one| one.event.id.to_string() == "ahead"));
    for found in deliveries_of(&store, "scheduled").await {
        assert_eq!((found.due_at, found.queued_at), (Some(at(5_000)), at(5_000)));
    }
    let claimed = claim(&store, at(5_000)).await;
    let scheduled = claimed.iter().filter(|one| one.event.id.to_string() == "scheduled").count();
    assert!(scheduled >= 1, "that of the endpoint without order at least");
}

pub async fn a_replayed_delivery_is_scheduled_no_longer(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    let found = schedule(&store, "a", 100).await;
    let claimed = claim(&store, at(100)).await.remove(0);
    let _recorded = settle(&store, &claimed, Outcome::Failed, at(100)).await;
    assert_eq!(replay(&store, Replay::Delivery(found.id), 7_200).await, 1);
    assert!(claim(&store, at(200)).await.is_empty());
    store.hasten(at(200)).await.expect("a store that works");
    assert_eq!(ids(&claim(&store, at(200)).await), ["a"]);
}

pub async fn a_scheduled_delivery_can_be_cancelled_before(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    register(&store, "ordered", endpoint().ordered()).await;
    publish_as(&store, vec![later("a", 100), later("b", 100)], at(0)).await;
    for found in deliveries_of(&store, "a").await {
        cancel(&store, found.id, at(50)).await.expect("it waits");
        assert_eq!(status(&store, found.id).await, "cancelled");
    }
    assert_eq!(drain(&store, 100).await, ["b", "b"]);
    // One that was cancelled and is replayed is due then.
    let found = deliveries_of(&store, "a").await.remove(0);
    assert_eq!(replay(&store, Replay::Delivery(found.id), 110).await, 1);
    assert_eq!(drain(&store, 110).await, ["a"]);
}

pub async fn an_endpoint_that_goes_cancels_what_is_scheduled_for_it(store: impl AnyStore) {
    for (id, change) in
        [("disabled", Some(StateChange::Disable(DisableReason::Gone))), ("unregistered", None)]
    {
        register(&store, "a", endpoint()).await;
        let found = schedule(&store, id, 100).await;
        match change {
            Some(change) => drop(set_state(&store, "a", change).await),
            None => drop(store.unregister(key("a"), at(5)).await.expect("it is registered")),
        }
        register(&store, "a", endpoint().inactive()).await;
        register(&store, "a", endpoint()).await;
        assert!(claim(&store, at(10_000)).await.is_empty());
        let found = store.delivery(found.id).await.expect("a store that works");
        let found = found.expect("it was published");
        let reason = found.cancelled.map(|reason| reason.to_string());
        assert_eq!((found.status.as_str(), reason.as_deref()), ("cancelled", Some(id)));
    }
}

pub async fn what_is_scheduled_survives_changes_of_its_endpoint(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    let found = schedule(&store, "scheduled", 100).await;
    publish(&store, &[event("first"), event("second")], at(0)).await;
    let due = async || {
        let found = store.delivery(found.id).await.expect("a store that works");
        found.and_then(|found| found.due_at)
    };
    set_state(&store, "a", StateChange::Pause).await;
    assert_eq!(due().await, Some(at(100)));
    register(&store, "a", endpoint().ordered()).await;
    set_state(&store, "a", StateChange::Resume).await;
    assert_eq!(due().await, Some(at(100)));
    assert_eq!(drain(&store, 99).await, ["first", "second"], "one at a time, in order");
    register(&store, "a", endpoint().timeout(std::time::Duration::from_secs(7))).await;
    assert_eq!(due().await, Some(at(100)));
    assert!(claim(&store, at(99)).await.is_empty());
    set_state(&store, "a", StateChange::Pause).await;
    assert!(claim(&store, at(100)).await.is_empty(), "a paused endpoint gets nothing");
    set_state(&store, "a", StateChange::Resume).await;
    let claimed = claim(&store, at(150)).await.remove(0);
    assert_eq!(claimed.progress.queued_at, at(100));
}

pub async fn an_ordered_endpoint_goes_on_before_a_scheduled_delivery(store: impl AnyStore) {
    register(&store, "a", endpoint().ordered()).await;
    publish_as(&store, vec![later("scheduled", 100)], at(0)).await;
    publish(&store, &[event("first"), event("second")], at(0)).await;
    let head = claim(&store, at(0)).await.remove(0);
    assert_eq!(head.event.id.to_string(), "first");
    let _recorded = settle(&store, &head, Outcome::Delivered, at(1)).await;
    assert_eq!(drain(&store, 99).await, ["second"]);
    assert_eq!(next_due(&store, at(99)).await, Some(at(100)));
    let head = claim(&store, at(100)).await.remove(0);
    assert_eq!(
        (head.event.id.to_string().as_str(), head.progress.queued_at),
        ("scheduled", at(100))
    );
    // Its retry holds the endpoint up, as any.
    let _recorded = settle(&store, &head, Outcome::Retrying { due_at: at(500) }, at(100)).await;
    publish(&store, &[event("third")], at(101)).await;
    assert!(claim(&store, at(499)).await.is_empty());
    assert_eq!(drain(&store, 500).await, ["scheduled", "third"]);
}

pub async fn an_ordered_endpoint_gets_a_scheduled_delivery_after_those_that_wait(
    store: impl AnyStore,
) {
    register(&store, "a", endpoint().ordered()).await;
    publish_as(&store, vec![later("scheduled", 100)], at(0)).await;
    publish(&store, &[event("first"), event("second"), event("third")], at(1)).await;
    let head = claim(&store, at(1)).await.remove(0);
    let _recorded = settle(&store, &head, Outcome::Retrying { due_at: at(200) }, at(1)).await;
    assert!(claim(&store, at(150)).await.is_empty(), "the head waits for its retry");
    assert_eq!(drain(&store, 200).await, ["first", "second", "third", "scheduled"]);
}

/// Goal: a schedule larger than any window in memory comes out whole, each at its time. Method: a
/// thousand and two hundred deliveries of one endpoint, the last accepted due first, with others that
/// are due at once in between.
pub async fn a_long_schedule_comes_out_whole_and_in_time(store: impl AnyStore) {
    const EVENTS: u64 = 1_200;
    register(&store, "a", endpoint()).await;
    for start in (0..EVENTS).step_by(100) {
        let events = (start..start + 100).map(|n| {
            let id = format!("event-{n:04}");
            if n % 10 == 0 { SerializedEvent::new(&event(&id)) } else { later(&id, 2_000 - n) }
        });
        publish_as(&store, events.collect(), at(0)).await;
    }
    let mut seen = BTreeSet::new();
    let mut take = |claimed: Vec<Claimed>| {
        for claimed in &claimed {
            assert!(seen.insert(claimed.event.id.to_string()), "{} again", claimed.event.id);
        }
        claimed.len()
    };
    assert_eq!(take(drain_as(&store, 0).await), 120, "those that are due at once");
    for (second, expected) in [(800, 0), (801, 1), (900, 89), (1_500, 540), (2_000, 450)] {
        assert_eq!(take(drain_as(&store, second).await), expected, "until {second}");
    }
    // A store may still remember the end of a lease, at which it wakes its worker for nothing.
    assert!(next_due(&store, at(2_000)).await.is_none_or(|next| next > at(2_000)));
}

/// Claims all that is due, a few at a time, and settles it as delivered.
async fn drain_as(store: &impl AnyStore, second: u64) -> Vec<Claimed> {
    let mut all = Vec::new();
    loop {
        let few = ClaimRequest { limit: 64, ..request(at(second)) };
        let claimed = claim_as(store, few).await;
        if claimed.is_empty() {
            return all;
        }
        for claimed in claimed {
            let _recorded = settle(store, &claimed, Outcome::Delivered, at(second)).await;
            all.push(claimed);
        }
    }
}

pub async fn an_event_that_is_scheduled_is_not_forgotten(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    let found = schedule(&store, "a", 5_000).await;
    let request = PruneRequest { tenant: None, before: at(4_000), limit: 10, now: at(4_000) };
    for tenant in [None, Some(found.tenant.clone())] {
        let request = PruneRequest { tenant, ..request.clone() };
        assert_eq!(store.prune(request).await.expect("a store that works"), 0);
    }
    assert_eq!(drain(&store, 5_000).await, ["a"]);
    assert_eq!(store.prune(request).await.expect("a store that works"), 1);
}

/// An endpoint that missed it gets it no earlier than the others.
pub async fn a_missed_event_that_is_scheduled_waits_for_its_time(store: impl AnyStore) {
    publish_as(&store, vec![later("a", 100)], at(0)).await;
    register(&store, "a", endpoint()).await;
    let missed = Replay::of_endpoint(key("a"), Undelivered::MISSED);
    assert_eq!(replay(&store, missed.clone(), 10).await, 1);
    let found = deliveries_of(&store, "a").await.remove(0);
    assert_eq!((found.created_at, found.queued_at), (at(10), at(100)));
    assert!(claim(&store, at(99)).await.is_empty());
    assert_eq!(ids(&claim(&store, at(100)).await), ["a"]);
    register(&store, "late", endpoint()).await;
    let missed = Replay::of_endpoint(key("late"), Undelivered::MISSED);
    assert_eq!(replay(&store, missed, 200).await, 1);
    let claimed = claim(&store, at(200)).await;
    let late = claimed.iter().find(|one| one.registration.id.as_str() == "late");
    assert_eq!(late.expect("it is due at once").progress.queued_at, at(200));
}
