//! Trying now: a delivery that waits for a later time is due at once, and a claim is not touched.

use webhooks_core::DeliveryId;
use webhooks_dispatch::{
    OperationError, Publication, Replay, Undelivered,
    store::{Outcome, ReplayMode, ReplayRequest, Settled, TryNow},
};
use webhooks_registry::{DisableReason, store::StateChange};

use super::endpoints::set_state;
use super::{
    AnyStore, at, claim, deliveries_of, endpoint, event, ids, key, next_due, publish, publish_as,
    register, settle, status,
};

async fn try_now(store: &impl AnyStore, delivery: DeliveryId, second: u64) -> TryNow {
    store.try_now(delivery, at(second)).await.expect("it waits or is in flight")
}

/// Publishes events to the endpoint `a` at the start, and lets the first attempt of each fail. Their
/// retries wait until second 9,000. Returns the deliveries.
async fn retrying(store: &impl AnyStore, events: &[&str]) -> Vec<DeliveryId> {
    publish(store, &events.iter().map(|id| event(id)).collect::<Vec<_>>(), at(0)).await;
    let claimed = claim(store, at(0)).await;
    let due_at = at(9_000);
    for claimed in &claimed {
        let _recorded = settle(store, claimed, Outcome::Retrying { due_at }, at(1)).await;
    }
    assert_eq!(ids(&claimed), events);
    claimed.iter().map(|claimed| claimed.claim.delivery).collect()
}

pub async fn a_retry_that_waits_is_due_at_once_and_more_follow(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    let delivery = retrying(&store, &["a"]).await[0];
    assert!(claim(&store, at(10)).await.is_empty());
    assert_eq!(try_now(&store, delivery, 10).await, TryNow::Due);
    let found = deliveries_of(&store, "a").await.remove(0);
    assert_eq!((found.status.as_str(), found.attempts), ("pending", 1));
    assert_eq!((found.attempts_before_replay, found.due_at), (1, Some(at(10))));
    assert_eq!(next_due(&store, at(10)).await, Some(at(10)));
    let claimed = claim(&store, at(10)).await.remove(0);
    assert_eq!((claimed.claim.delivery, claimed.progress.attempts), (delivery, 1));
    assert_eq!(claimed.progress.queued_at, at(10));
    assert_eq!(claimed.progress.next_attempt_in_policy(), 1, "the retries start anew");
    let due_at = at(5_000);
    let _recorded = settle(&store, &claimed, Outcome::Retrying { due_at }, at(11)).await;
    assert_eq!(status(&store, delivery).await, "retrying");
    assert!(claim(&store, at(4_999)).await.is_empty(), "nothing is left of the first due time");
    let claimed = claim(&store, at(5_000)).await.remove(0);
    assert_eq!(claimed.progress.next_attempt_in_policy(), 2);
    let _recorded = settle(&store, &claimed, Outcome::Delivered, at(5_000)).await;
    assert!(claim(&store, at(10_000)).await.is_empty());
    assert_eq!(deliveries_of(&store, "a").await[0].attempts, 3);
}

pub async fn one_retry_of_many_is_made_at_once(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    let names: Vec<String> = (0..40).map(|n| format!("event-{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let deliveries = retrying(&store, &names).await;
    for place in [39, 0, 20] {
        assert_eq!(try_now(&store, deliveries[place], 10).await, TryNow::Due);
        let claimed = claim(&store, at(10)).await;
        assert_eq!(ids(&claimed), [names[place]]);
        let _recorded = settle(&store, &claimed[0], Outcome::Delivered, at(10)).await;
    }
    assert!(next_due(&store, at(10)).await.is_some_and(|due| due > at(10)));
    assert!(claim(&store, at(8_999)).await.is_empty());
    assert_eq!(claim(&store, at(9_000)).await.len(), 37);
}

pub async fn a_claimed_delivery_is_left_to_its_claim(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    publish(&store, &[event("a")], at(0)).await;
    let claimed = claim(&store, at(0)).await.remove(0);
    let delivery = claimed.claim.delivery;
    assert_eq!(try_now(&store, delivery, 1).await, TryNow::InFlight);
    assert!(claim(&store, at(1)).await.is_empty());
    let outcome = Outcome::Retrying { due_at: at(9_000) };
    let settled = settle(&store, &claimed, outcome, at(2)).await;
    assert!(matches!(settled, Settled::Recorded { .. }), "{settled:?}");
    assert_eq!(try_now(&store, delivery, 3).await, TryNow::Due);
    let again = claim(&store, at(3)).await.remove(0);
    assert_eq!(try_now(&store, delivery, 4).await, TryNow::InFlight);
    assert_eq!(settle(&store, &claimed, Outcome::Delivered, at(4)).await, Settled::LeaseLost);
    let settled = settle(&store, &again, Outcome::Delivered, at(5)).await;
    assert!(matches!(settled, Settled::Recorded { .. }), "{settled:?}");
}

pub async fn a_delivery_that_is_due_waits_on(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    let delivery = retrying(&store, &["a"]).await[0];
    assert_eq!(try_now(&store, delivery, 10).await, TryNow::Due);
    assert_eq!(try_now(&store, delivery, 11).await, TryNow::Waiting);
    let claimed = claim(&store, at(12)).await.remove(0);
    assert_eq!((claimed.progress.queued_at, claimed.progress.attempts), (at(10), 1));
    // Released, it is due as it was.
    let _recorded = settle(&store, &claimed, Outcome::Released, at(12)).await;
    assert_eq!(try_now(&store, delivery, 13).await, TryNow::Waiting);
    assert_eq!(claim(&store, at(13)).await.len(), 1);
}

/// Goal: a worker whose breaker is open hears that somebody wants its endpoint to be tried, also if the delivery
/// is due already; and of a replay in portions only once. Method: no worker runs, so all that is due waits.
pub async fn workers_probe_the_endpoint_of_what_is_tried_or_replayed(store: impl AnyStore) {
    register(&store, "other", endpoint().events(["none"]).expect("a valid pattern")).await;
    register(&store, "a", endpoint()).await;
    let number = store.get(key("a")).await.expect("it works").expect("it is registered").number;
    let delivery = retrying(&store, &["a"]).await[0];
    let mut changes = store.changes();
    for tried in [TryNow::Due, TryNow::Waiting] {
        assert_eq!(try_now(&store, delivery, 10).await, tried);
        assert_eq!(changes.probes(), [number], "{tried:?}");
    }
    publish(&store, &[event("b"), event("c")], at(11)).await;
    for claimed in claim(&store, at(12)).await {
        let _recorded = settle(&store, &claimed, Outcome::Failed, at(12)).await;
    }
    assert!(changes.probes().is_empty());
    let mut request = ReplayRequest {
        replay: Replay::of_endpoint(key("a"), Undelivered::ALL),
        limit: 2,
        started_at: at(20),
        now: at(20),
        after: None,
        mode: ReplayMode::DryRun,
    };
    let counted = store.replay(request.clone()).await.expect("it is registered");
    assert_eq!((counted.deliveries, changes.probes()), (2, Vec::new()), "only counted");
    request.mode = ReplayMode::Replay;
    let portion = store.replay(request.clone()).await.expect("it is registered");
    assert_eq!((portion.deliveries, changes.probes()), (2, vec![number]));
    request.after = portion.next;
    let portion = store.replay(request).await.expect("it is registered");
    assert_eq!((portion.deliveries, changes.probes()), (1, Vec::new()));
}

pub async fn a_delivery_that_has_ended_cannot_be_tried(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    let delivery = retrying(&store, &["a"]).await[0];
    set_state(&store, "a", StateChange::Disable(DisableReason::Manual)).await;
    let refused = store.try_now(delivery, at(2)).await.map_err(|error| error.to_string());
    assert_eq!(refused, Err(format!("delivery {delivery} is cancelled")));
    set_state(&store, "a", StateChange::Enable).await;
    publish(&store, &[event("b")], at(3)).await;
    let claimed = claim(&store, at(3)).await.remove(0);
    let _recorded = settle(&store, &claimed, Outcome::Failed, at(3)).await;
    let delivery = claimed.claim.delivery;
    let refused = store.try_now(delivery, at(4)).await.map_err(|error| error.to_string());
    assert_eq!(refused, Err(format!("delivery {delivery} is failed")));
    let unknown = DeliveryId::from_u64(424_242);
    let refused = store.try_now(unknown, at(4)).await;
    assert!(matches!(refused, Err(OperationError::UnknownDelivery { .. })), "{refused:?}");
    assert!(claim(&store, at(10_000)).await.is_empty());
}

pub async fn a_paused_endpoint_gets_it_when_it_is_resumed(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    let delivery = retrying(&store, &["a"]).await[0];
    set_state(&store, "a", StateChange::Pause).await;
    assert_eq!(try_now(&store, delivery, 10).await, TryNow::Paused);
    assert!(claim(&store, at(20)).await.is_empty());
    set_state(&store, "a", StateChange::Resume).await;
    assert_eq!(ids(&claim(&store, at(20)).await), ["a"]);
}

pub async fn a_scheduled_delivery_is_sent_before_its_time(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    register(&store, "ordered", endpoint().ordered()).await;
    let later = Publication::new(&event("later")).deliver_at(at(5_000)).into_serialized();
    publish_as(&store, vec![later], at(0)).await;
    publish(&store, &[event("behind")], at(1)).await;
    for found in deliveries_of(&store, "later").await {
        assert_eq!(try_now(&store, found.id, 10).await, TryNow::Due);
    }
    for found in deliveries_of(&store, "later").await {
        assert_eq!((found.queued_at, found.due_at), (at(10), Some(at(10))));
    }
    let claimed = claim(&store, at(10)).await;
    let mut to_ordered = claimed.iter().filter(|one| one.registration.endpoint.ordered);
    let head = to_ordered.next().expect("its turn");
    assert_eq!(head.event.id.to_string(), "later", "it was accepted first");
    assert_eq!(claimed.len(), 3, "both to one endpoint, and the first to the other");
    for claimed in &claimed {
        let _recorded = settle(&store, claimed, Outcome::Delivered, at(11)).await;
    }
    assert_eq!(ids(&claim(&store, at(11)).await), ["behind"]);
}

pub async fn an_ordered_endpoint_goes_on_with_the_retry_for_which_it_waits(store: impl AnyStore) {
    register(&store, "a", endpoint().ordered()).await;
    publish(&store, &[event("first"), event("second")], at(0)).await;
    let head = claim(&store, at(0)).await.remove(0);
    let due_at = at(9_000);
    let _recorded = settle(&store, &head, Outcome::Retrying { due_at }, at(1)).await;
    let second = deliveries_of(&store, "second").await[0].id;
    assert_eq!(try_now(&store, second, 10).await, TryNow::Waiting);
    assert!(claim(&store, at(10)).await.is_empty(), "the second one waits behind the first");
    assert_eq!(try_now(&store, head.claim.delivery, 11).await, TryNow::Due);
    let head = claim(&store, at(11)).await.remove(0);
    assert_eq!((head.event.id.to_string().as_str(), head.progress.attempts), ("first", 1));
    assert_eq!(try_now(&store, second, 12).await, TryNow::Waiting);
    assert!(claim(&store, at(12)).await.is_empty());
    let _recorded = settle(&store, &head, Outcome::Retrying { due_at }, at(13)).await;
    assert!(claim(&store, at(13)).await.is_empty(), "it waits for the next retry");
    let head = claim(&store, at(9_000)).await.remove(0);
    assert_eq!(head.event.id.to_string(), "first");
}

pub async fn a_delivery_that_is_tried_now_wakes_a_worker(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    let delivery = retrying(&store, &["a"]).await[0];
    assert!(claim(&store, at(10)).await.is_empty());
    let mut changes = store.changes();
    assert_eq!(try_now(&store, delivery, 10).await, TryNow::Due);
    changes.changed().await;
    assert_eq!(claim(&store, at(10)).await.len(), 1);
}
