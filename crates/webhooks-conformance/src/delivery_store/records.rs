//! Records of deliveries: all that is told of one, in each state.

use std::time::Duration;

use webhooks_core::{DeliveryId, DeliveryStatus};
use webhooks_dispatch::{
    Replay, Undelivered,
    history::{DeliveryRecord, LastAttempt, Query},
    store::{CancelReason, Claimed, ExpungeRequest, Outcome},
};
use webhooks_registry::{DisableReason, store::StateChange};

use super::endpoints::set_state;
use super::replay::replay;
use super::{
    AnyStore, at, cancel, claim, deliveries_of, endpoint, endpoint_id, event, key, publish,
    register, settle, settlement, tenant,
};

async fn record(store: &impl AnyStore, id: DeliveryId) -> DeliveryRecord {
    let found = store.delivery(id).await.expect("a store that works").expect("it was published");
    let query = Query { delivery: Some(id), ..Query::default() };
    let page = store.deliveries(query).await.expect("a store that works");
    assert_eq!(page.items, std::slice::from_ref(&found), "a list tells the same");
    found
}

/// Publishes an event for an endpoint `a`; returns the record of the delivery.
async fn published(store: &impl AnyStore, id: &str, second: u64) -> DeliveryRecord {
    publish(store, &[event(id)], at(second)).await;
    let delivery = deliveries_of(store, id).await[0].id;
    record(store, delivery).await
}

/// Returns the last attempt as records have it after an outcome.
fn last_attempt(claimed: &Claimed, outcome: Outcome) -> Option<LastAttempt> {
    settlement(claimed, outcome).attempt.as_ref().map(LastAttempt::from)
}

pub async fn a_record_tells_the_state_of_a_delivery(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    let pending = published(&store, "a", 10).await;
    let expected = DeliveryRecord {
        id: pending.id,
        event: event("a").id,
        event_type: event("a").event_type,
        tenant: event("a").tenant,
        endpoint: endpoint_id("a"),
        status: DeliveryStatus::Pending,
        cancelled: None,
        attempts: 0,
        attempts_before_replay: 0,
        created_at: at(10),
        queued_at: at(10),
        due_at: Some(at(10)),
        is_claimed: false,
        ended_at: None,
        last_attempt: None,
    };
    assert_eq!(pending, expected);

    let claimed = claim(&store, at(10)).await.remove(0);
    let in_flight = record(&store, pending.id).await;
    assert!(in_flight.is_claimed, "an attempt may be under way");
    assert_eq!((in_flight.status, in_flight.ended_at), (DeliveryStatus::Pending, None));
    let outcome = Outcome::Retrying { due_at: at(100) };
    let _recorded = settle(&store, &claimed, outcome, at(12)).await;
    let retrying = DeliveryRecord {
        status: DeliveryStatus::Retrying,
        attempts: 1,
        due_at: Some(at(100)),
        last_attempt: last_attempt(&claimed, outcome),
        ..expected
    };
    assert_eq!(record(&store, pending.id).await, retrying);

    let claimed = claim(&store, at(100)).await.remove(0);
    let in_flight = record(&store, pending.id).await;
    assert!(in_flight.is_claimed);
    assert_eq!((in_flight.status, in_flight.attempts), (DeliveryStatus::Retrying, 1));
    let _recorded = settle(&store, &claimed, Outcome::Delivered, at(101)).await;
    let delivered = DeliveryRecord {
        status: DeliveryStatus::Delivered,
        attempts: 2,
        due_at: None,
        ended_at: Some(at(101)),
        last_attempt: last_attempt(&claimed, Outcome::Delivered),
        ..retrying
    };
    assert_eq!(record(&store, pending.id).await, delivered);
}

pub async fn a_failed_record_has_its_last_attempt(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    let pending = published(&store, "a", 0).await;
    let claimed = claim(&store, at(0)).await.remove(0);
    let mut failing = settlement(&claimed, Outcome::Failed);
    let attempt = failing.attempt.as_mut().expect("it was tried");
    attempt.started_at = at(7);
    attempt.duration = Duration::from_millis(1_234);
    attempt.status_code = None;
    attempt.error_class = Some(webhooks_dispatch::transport::ErrorClass::Timeout);
    attempt.error = Some("no answer within 10 s".to_owned());
    let last = LastAttempt::from(&*attempt);
    let _recorded = store.settle(vec![failing], at(17)).await.expect("a store that works");
    let expected = DeliveryRecord {
        status: DeliveryStatus::Failed,
        attempts: 1,
        due_at: None,
        ended_at: Some(at(17)),
        last_attempt: Some(last),
        ..pending
    };
    assert_eq!(record(&store, pending.id).await, expected);
}

pub async fn a_released_record_is_as_before(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    let pending = published(&store, "a", 0).await;
    let claimed = claim(&store, at(3)).await.remove(0);
    let _recorded = settle(&store, &claimed, Outcome::Released, at(4)).await;
    let released = record(&store, pending.id).await;
    assert_eq!(released, pending);
}

pub async fn a_cancelled_record_tells_the_reason_and_the_time(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    let check = async |pending: &DeliveryRecord, reason, ended| {
        let expected = DeliveryRecord {
            status: DeliveryStatus::Cancelled,
            cancelled: Some(reason),
            due_at: None,
            // A store may have claimed it in advance.
            is_claimed: false,
            ended_at: Some(at(ended)),
            ..pending.clone()
        };
        assert_eq!(record(&store, pending.id).await, expected, "{reason}");
    };
    let manual = published(&store, "manual", 0).await;
    let expired = published(&store, "expired", 0).await;
    for claimed in claim(&store, at(0)).await {
        if claimed.claim.delivery == manual.id {
            cancel(&store, manual.id, at(20)).await.expect("it is in flight");
        } else {
            let _recorded = settle(&store, &claimed, Outcome::Expired, at(30)).await;
        }
    }
    check(&manual, CancelReason::Manual, 20).await;
    check(&expired, CancelReason::Expired, 30).await;

    let expunged = published(&store, "expunged", 40).await;
    let request = ExpungeRequest {
        tenant: expunged.tenant.clone(),
        event: Some(expunged.event.clone()),
        after: None,
        limit: 1,
        now: at(41),
    };
    let _one = store.expunge(request).await.expect("it was published");
    check(&expunged, CancelReason::Expunged, 41).await;

    let disabled = published(&store, "disabled", 50).await;
    let disable = StateChange::Disable(DisableReason::Gone);
    store.set_state(key("a"), disable, at(51)).await.expect("it is registered");
    check(&disabled, CancelReason::Disabled, 51).await;
    store.set_state(key("a"), StateChange::Enable, at(52)).await.expect("it is registered");
    check(&disabled, CancelReason::Disabled, 51).await;

    let unregistered = published(&store, "unregistered", 60).await;
    store.unregister(key("a"), at(61)).await.expect("it is registered");
    check(&unregistered, CancelReason::Unregistered, 61).await;
    register(&store, "a", endpoint()).await;
    check(&unregistered, CancelReason::Unregistered, 61).await;
}

pub async fn a_replayed_record_begins_anew_and_remembers(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    let pending = published(&store, "a", 0).await;
    let mut last = None;
    for (second, outcome) in [(0, Outcome::Retrying { due_at: at(5) }), (5, Outcome::Failed)] {
        let claimed = claim(&store, at(second)).await.remove(0);
        let _recorded = settle(&store, &claimed, outcome, at(second)).await;
        last = last_attempt(&claimed, outcome);
    }
    let failed = record(&store, pending.id).await;
    assert_eq!((failed.attempts, failed.ended_at), (2, Some(at(5))));
    assert_eq!(replay(&store, Replay::Delivery(pending.id), 100).await, 1);
    let replayed = DeliveryRecord {
        attempts: 2,
        attempts_before_replay: 2,
        queued_at: at(100),
        due_at: Some(at(100)),
        last_attempt: last,
        ..pending.clone()
    };
    assert_eq!(record(&store, pending.id).await, replayed, "created as it was");
    cancel(&store, pending.id, at(110)).await.expect("it waits");
    assert_eq!(replay(&store, Replay::Delivery(pending.id), 120).await, 1);
    let again = DeliveryRecord { queued_at: at(120), due_at: Some(at(120)), ..replayed };
    assert_eq!(record(&store, pending.id).await, again, "without reason and end");
    let claimed = claim(&store, at(120)).await.remove(0);
    let _recorded = settle(&store, &claimed, Outcome::Delivered, at(121)).await;
    let delivered = record(&store, pending.id).await;
    let counts = (delivered.attempts, delivered.attempts_before_replay);
    assert_eq!((counts, delivered.created_at, delivered.ended_at), ((3, 2), at(0), Some(at(121))));
}

pub async fn a_record_of_a_missed_event_is_created_by_the_replay(store: impl AnyStore) {
    publish(&store, &[event("a")], at(10)).await;
    register(&store, "a", endpoint()).await;
    let missed = Replay::of_endpoint(key("a"), Undelivered::MISSED);
    assert_eq!(replay(&store, missed, 500).await, 1);
    let found = deliveries_of(&store, "a").await.remove(0);
    let found = record(&store, found.id).await;
    assert_eq!(
        (found.created_at, found.queued_at, found.due_at),
        (at(500), at(500), Some(at(500)))
    );
    assert_eq!((found.attempts, found.attempts_before_replay), (0, 0));
    let claimed = claim(&store, at(500)).await.remove(0);
    let _recorded = settle(&store, &claimed, Outcome::Failed, at(501)).await;
    assert_eq!(replay(&store, Replay::Delivery(found.id), 900).await, 1);
    let found = record(&store, found.id).await;
    assert_eq!((found.created_at, found.queued_at), (at(500), at(900)));
}

pub async fn an_ordered_record_is_due_when_it_was_queued(store: impl AnyStore) {
    register(&store, "a", endpoint().ordered()).await;
    let first = published(&store, "first", 10).await;
    let second = published(&store, "second", 20).await;
    assert_eq!((first.due_at, second.due_at), (Some(at(10)), Some(at(20))));
    let head = claim(&store, at(20)).await.remove(0);
    assert_eq!(head.claim.delivery, first.id);
    assert!(record(&store, first.id).await.is_claimed);
    assert!(!record(&store, second.id).await.is_claimed);
    set_state(&store, "a", StateChange::Pause).await;
    assert_eq!(record(&store, second.id).await, second, "a pause changes nothing");
}

pub async fn single_records_are_found_by_their_numbers(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    register(&store, "a", endpoint().tenant(tenant("acme"))).await;
    publish(&store, &[event("a"), event("a").tenant(tenant("acme"))], at(0)).await;
    for (second, outcome) in [(0, Outcome::Retrying { due_at: at(1) }), (1, Outcome::Delivered)] {
        for claimed in claim(&store, at(second)).await {
            let _recorded = settle(&store, &claimed, outcome, at(second)).await;
            let id = claimed.claim.delivery;
            let found = record(&store, id).await;
            assert_eq!(found.tenant, claimed.event.tenant);
            let number = found.attempts;
            let tried = store.attempt(id, number).await.expect("a store that works");
            let tried = tried.expect("it was tried");
            assert_eq!((tried.delivery, tried.number), (id, number));
            assert_eq!((tried.tenant, tried.event), (found.tenant, found.event));
            assert_eq!((tried.endpoint, tried.event_type), (found.endpoint, found.event_type));
            assert_eq!(Some(tried.attempt), settlement(&claimed, outcome).attempt);
            for number in [0, number + 1, u32::MAX] {
                let none = store.attempt(id, number).await.expect("a store that works");
                assert_eq!(none, None, "attempt {number}");
            }
        }
    }
    let nobodys = DeliveryId::from_u64(424_242);
    assert_eq!(store.delivery(nobodys).await.expect("a store that works"), None);
    assert_eq!(store.attempt(nobodys, 1).await.expect("a store that works"), None);
}
