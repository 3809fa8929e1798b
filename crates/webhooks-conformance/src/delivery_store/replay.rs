//! Replaying: what has ended, what failed, what an endpoint missed.

use webhooks_core::{DeliveryId, Event, EventId, TenantId};
use webhooks_dispatch::{
    OperationError, Replay, Undelivered,
    history::Query,
    store::{Outcome, ReplayMode, ReplayRequest, Settled},
};
use webhooks_registry::{DisableReason, store::StateChange};

use super::endpoints::set_state;
use super::{AnyStore, at, claim, endpoint, event, ids, key, publish, register, settle, status};

fn request(replay: Replay, now: u64) -> ReplayRequest {
    let (now, mode) = (at(now), ReplayMode::Replay);
    ReplayRequest { replay, limit: 2, started_at: now, now, after: None, mode }
}

/// Replays portion by portion and returns how many deliveries that made due, as a dry run told
/// before.
pub(super) async fn replay(store: &impl AnyStore, replay: Replay, now: u64) -> usize {
    let request = request(replay, now);
    let dry = ReplayRequest { mode: ReplayMode::DryRun, ..request.clone() };
    let counted = run(store, dry).await;
    let replayed = run(store, request).await;
    assert_eq!(counted, replayed, "a dry run counts what a replay does");
    replayed
}

async fn run(store: &impl AnyStore, mut request: ReplayRequest) -> usize {
    let mut deliveries = 0;
    loop {
        let portion = store.replay(request.clone()).await.expect("it can be replayed");
        assert!(portion.deliveries <= request.limit);
        deliveries += portion.deliveries;
        let Some(next) = portion.next else { return deliveries };
        // A cursor survives as text.
        request.after = Some(next.to_string().parse().expect("a cursor"));
    }
}

/// Cursors come from callers, as texts.
pub async fn a_cursor_beyond_everything_ends_the_replay(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    for (which, after) in [(Undelivered::FAILED, "ended"), (Undelivered::MISSED, "missed")] {
        let mut request = request(Replay::of_endpoint(key("a"), which), 0);
        request.after = Some(format!("{after}-{}", u64::MAX).parse().expect("a cursor"));
        let portion = store.replay(request).await.expect("it can be replayed");
        assert_eq!((portion.deliveries, portion.next), (0, None));
    }
}

pub async fn a_delivery_that_ended_is_replayed_with_its_retries_anew(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    publish(&store, &[event("a")], at(0)).await;
    for (n, outcome) in [(0, Outcome::Retrying { due_at: at(1) }), (1, Outcome::Failed)] {
        let claimed = claim(&store, at(n)).await.remove(0);
        let _kept = settle(&store, &claimed, outcome, at(n)).await;
    }
    let first = DeliveryId::from_u64(1);
    let page = store.deliveries(Query::default()).await;
    let delivery = page.expect("a store that works").items[0].id;
    assert!(delivery >= first);
    assert_eq!(replay(&store, Replay::Delivery(delivery), 100).await, 1);
    assert_eq!(status(&store, delivery).await, "pending");
    let claimed = claim(&store, at(100)).await.remove(0);
    assert_eq!(claimed.claim.delivery, delivery);
    assert_eq!(claimed.progress.next_attempt(), 3, "attempts are counted on");
    assert_eq!(claimed.progress.next_attempt_in_policy(), 1, "the policy starts anew");
    assert_eq!(claimed.progress.queued_at, at(100));
    let _kept = settle(&store, &claimed, Outcome::Delivered, at(101)).await;
    assert_eq!(replay(&store, Replay::Delivery(delivery), 200).await, 1, "a delivered one too");
}

pub async fn all_failed_of_an_endpoint_are_replayed_in_portions(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    register(&store, "b", endpoint()).await;
    for n in 0..6 {
        publish(&store, &[event(&format!("event-{n}"))], at(n)).await;
    }
    for claimed in claim(&store, at(10)).await {
        let is_fifth = claimed.event.id.to_string() == "event-5";
        let outcome = if is_fifth { Outcome::Delivered } else { Outcome::Failed };
        let _kept = settle(&store, &claimed, outcome, at(10)).await;
    }
    let failed = Replay::of_endpoint(key("a"), Undelivered::FAILED).since(at(1));
    assert_eq!(replay(&store, failed.clone(), 20).await, 4);
    let mut replayed = claim(&store, at(20)).await;
    replayed.sort_by_key(|claimed| claimed.claim.delivery);
    assert_eq!(ids(&replayed), ["event-1", "event-2", "event-3", "event-4"]);
    assert!(replayed.iter().all(|claimed| claimed.registration.id.as_str() == "a"));
    // One that fails again is not replayed by the same call, however long it takes.
    let _kept = settle(&store, &replayed[0], Outcome::Failed, at(20)).await;
    assert_eq!(replay(&store, failed.clone(), 20).await, 0);
    assert_eq!(replay(&store, failed, 21).await, 1);
}

pub async fn an_endpoint_gets_what_it_missed(store: impl AnyStore) {
    let wants = |pattern: &str| endpoint().events([pattern]).expect("a valid pattern");
    register(&store, "changed", wants("user.deleted")).await;
    for n in 0..5 {
        publish(&store, &[event(&format!("event-{n}"))], at(n)).await;
    }
    let deleted = Event::new("user.deleted", 1).expect("a valid event");
    publish(&store, &[deleted], at(5)).await;
    register(&store, "late", endpoint()).await;
    register(&store, "changed", wants("user.*")).await;
    publish(&store, &[event("event-6")], at(6)).await;
    let before = claim(&store, at(6)).await.len();
    assert_eq!(before, 3, "one that was wanted, and the last for both");

    let missed = |id| Replay::of_endpoint(key(id), Undelivered::MISSED).since(at(2));
    assert_eq!(replay(&store, missed("late"), 10).await, 4, "2, 3, 4 and the deleted one");
    assert_eq!(replay(&store, missed("late"), 11).await, 0, "it has them now");
    assert_eq!(replay(&store, missed("changed"), 12).await, 3, "2, 3 and 4");
    let claimed = claim(&store, at(12)).await;
    assert_eq!(claimed.len(), 7);
}

pub async fn what_was_had_before_a_new_registration_is_not_missed(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    publish(&store, &[event("had")], at(0)).await;
    let claimed = claim(&store, at(0)).await.remove(0);
    let _kept = settle(&store, &claimed, Outcome::Delivered, at(0)).await;
    register(&store, "a", endpoint().inactive()).await;
    publish(&store, &[event("missed")], at(1)).await;
    register(&store, "a", endpoint()).await;
    let missed = Replay::of_endpoint(key("a"), Undelivered::MISSED);
    assert_eq!(replay(&store, missed.clone(), 2).await, 1);
    assert_eq!(ids(&claim(&store, at(2)).await), ["missed"]);
    store.unregister(key("a"), at(5)).await.expect("it is registered");
    register(&store, "a", endpoint()).await;
    assert_eq!(replay(&store, missed, 3).await, 0, "nor after it was forgotten in between");
}

/// Goal: whatever an operator does in between, what an endpoint's id did not get can be replayed.
/// Method: one delivery fails, one is cancelled by each way of losing its endpoint, and one event is
/// missed each time; afterwards all of it is replayed at once.
pub async fn an_endpoint_gets_what_it_did_not_get_through_all_its_changes(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    register(&store, "b", endpoint().events(["user.deleted"]).expect("a valid pattern")).await;
    publish(&store, &[event("delivered"), event("failed"), event("disabled")], at(0)).await;
    for claimed in claim(&store, at(0)).await {
        let outcome = match &*claimed.event.id.to_string() {
            "delivered" => Outcome::Delivered,
            "failed" => Outcome::Failed,
            _ => Outcome::Retrying { due_at: at(9_000) },
        };
        let _kept = settle(&store, &claimed, outcome, at(0)).await;
    }
    let failing = StateChange::Disable(DisableReason::Failing);
    set_state(&store, "a", failing).await;
    publish(&store, &[event("missed-while-disabled")], at(1)).await;
    set_state(&store, "a", StateChange::Enable).await;
    publish(&store, &[event("unregistered")], at(2)).await;
    store.unregister(key("a"), at(5)).await.expect("it is registered");
    publish(&store, &[event("missed-while-gone")], at(3)).await;
    register(&store, "a", endpoint()).await;
    let all = Replay::of_endpoint(key("a"), Undelivered::ALL);
    let part = |which| Replay::of_endpoint(key("a"), which);
    for (which, expected) in
        [(Undelivered::FAILED, 1), (Undelivered::CANCELLED, 2), (Undelivered::MISSED, 2)]
    {
        let dry = ReplayRequest { mode: ReplayMode::DryRun, ..request(part(which), 10) };
        assert_eq!(run(&store, dry).await, expected, "{which:?}");
    }
    assert_eq!(replay(&store, all.clone().since(at(1)).until(at(3)), 10).await, 2);
    assert_eq!(replay(&store, all.clone(), 11).await, 3);
    assert_eq!(replay(&store, all, 12).await, 0);
    let mut replayed = claim(&store, at(12)).await;
    replayed.sort_by_key(|claimed| claimed.event.id.clone());
    let expected =
        ["disabled", "failed", "missed-while-disabled", "missed-while-gone", "unregistered"];
    assert_eq!(ids(&replayed), expected);
    for claimed in &replayed {
        let settled = settle(&store, claimed, Outcome::Delivered, at(12)).await;
        assert!(matches!(settled, Settled::Recorded { .. }));
    }
    let statistics = store.statistics(key("a"), at(0)).await.expect("a store that works");
    assert_eq!((statistics.delivered, statistics.failed, statistics.cancelled), (6, 0, 0));
}

pub async fn an_event_is_replayed_to_all_that_did_not_get_it(store: impl AnyStore) {
    for id in ["well", "failing", "disabled", "gone"] {
        register(&store, id, endpoint()).await;
    }
    publish(&store, &[event("one"), event("two")], at(0)).await;
    for claimed in claim(&store, at(0)).await {
        let outcome = match claimed.registration.id.as_str() {
            "well" => Outcome::Delivered,
            _ => Outcome::Failed,
        };
        let _kept = settle(&store, &claimed, outcome, at(0)).await;
    }
    set_state(&store, "disabled", StateChange::Disable(DisableReason::Manual)).await;
    store.unregister(key("gone"), at(5)).await.expect("it is registered");
    register(&store, "late", endpoint()).await;
    register(&store, "later", endpoint()).await;
    let one = event("one").id;
    let all = Replay::of_event(TenantId::default(), one.clone(), Undelivered::ALL);
    assert_eq!(run(&store, ReplayRequest { limit: 9, ..request(all.clone(), 1) }).await, 3);
    let claimed = claim(&store, at(1)).await;
    let mut endpoints: Vec<&str> =
        claimed.iter().map(|claimed| claimed.registration.id.as_str()).collect();
    endpoints.sort_unstable();
    assert_eq!(endpoints, ["failing", "late", "later"]);
    assert!(claimed.iter().all(|claimed| claimed.event.id == one));
    assert_eq!(run(&store, ReplayRequest { limit: 9, ..request(all, 2) }).await, 0);
    let ids: Vec<DeliveryId> = {
        let page = store.deliveries(Query::default()).await.expect("a store that works");
        page.items.iter().map(|found| found.id).collect()
    };
    let replayed = replay(&store, Replay::Deliveries(ids), 3).await;
    assert_eq!(replayed, 3, "both of well's, and the other one of failing's");
}

pub async fn what_cannot_be_replayed_is_said(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    publish(&store, &[event("a")], at(0)).await;
    let claimed = claim(&store, at(0)).await.remove(0);
    let delivery = claimed.claim.delivery;
    let check = async |replay, expected: &str| {
        let error = store.replay(request(replay, 1)).await.expect_err("it cannot be replayed");
        assert_eq!(error.to_string(), expected);
        error
    };
    let error = check(Replay::Delivery(delivery), &format!("delivery {delivery} is pending")).await;
    assert!(matches!(error, OperationError::WrongStatus { .. }));
    let unknown = DeliveryId::from_u64(424_242);
    check(Replay::Delivery(unknown), "there is no delivery dlv_424242").await;
    let nobody = Replay::of_endpoint(key("nobody"), Undelivered::ALL);
    check(nobody, "endpoint default/nobody is not registered").await;
    let unheard = EventId::new("unheard").expect("a valid id");
    let unheard = Replay::of_event(TenantId::default(), unheard, Undelivered::ALL);
    check(unheard, "there is no event unheard").await;
    let _kept = settle(&store, &claimed, Outcome::Failed, at(1)).await;
    set_state(&store, "a", StateChange::Disable(DisableReason::Manual)).await;
    let disabled = "endpoint default/a is disabled; enable it first";
    check(Replay::Delivery(delivery), disabled).await;
    check(Replay::of_endpoint(key("a"), Undelivered::ALL), disabled).await;
}

/// Goal: whoever does not hear the answer to a portion asks again. Method: what it made due is delivered
/// or fails meanwhile.
pub async fn a_portion_that_is_asked_for_again_sends_nothing_twice(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    register(&store, "b", endpoint()).await;
    publish(&store, &[event("x")], at(0)).await;
    let claimed = claim(&store, at(0)).await;
    for claimed in &claimed {
        let _kept = settle(&store, claimed, Outcome::Failed, at(1)).await;
    }
    let ids = claimed.iter().map(|claimed| claimed.claim.delivery).collect();
    let tenant = TenantId::default();
    let id = EventId::new("x").expect("a valid id");
    let of_event = Replay::of_event(tenant, id, Undelivered::FAILED);
    let one = Replay::Delivery(claimed[0].claim.delivery);
    let cases = [(Replay::Deliveries(ids), 2, 10), (of_event, 2, 20), (one, 1, 30)];
    for (replay, deliveries, now) in cases {
        assert_eq!(run(&store, request(replay.clone(), now)).await, deliveries);
        let later = ReplayRequest { now: at(now + 3), ..request(replay.clone(), now) };
        assert_eq!(run(&store, later.clone()).await, 0, "{replay:?} that waits");
        for claimed in claim(&store, at(now)).await {
            let _kept = settle(&store, &claimed, Outcome::Failed, at(now + 1)).await;
        }
        assert_eq!(run(&store, later).await, 0, "{replay:?} that failed again");
        assert!(claim(&store, at(now + 2)).await.is_empty());
    }
    // A replayed delivery ages from its own replay on, not from the start of the whole replay.
    let replay = Replay::of_endpoint(key("a"), Undelivered::FAILED);
    let late = ReplayRequest { now: at(900), ..request(replay, 40) };
    assert_eq!(run(&store, late).await, 1);
    assert_eq!(claim(&store, at(900)).await[0].progress.queued_at, at(900));
}
