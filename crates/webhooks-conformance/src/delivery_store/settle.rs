//! Settling: kept as a whole, health told.

use std::time::Duration;

use webhooks_dispatch::{
    OperationError,
    store::{Failing, Health, Outcome, Settled},
};

use super::{
    AnyStore, at, cancel, claim, endpoint, event, key, publish, register, settle, settlement,
    status,
};

pub async fn each_outcome_has_its_status(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    for (id, outcome, expected) in [
        ("a", Outcome::Delivered, "delivered"),
        ("b", Outcome::Failed, "failed"),
        ("c", Outcome::Expired, "cancelled"),
        ("d", Outcome::Retrying { due_at: at(5_000) }, "retrying"),
        ("e", Outcome::Released, "pending"),
    ] {
        publish(&store, &[event(id)], at(0)).await;
        let claimed = claim(&store, at(0)).await.remove(0);
        assert_eq!(status(&store, claimed.claim.delivery).await, "pending");
        let settled = settle(&store, &claimed, outcome, at(1)).await;
        assert!(matches!(settled, Settled::Recorded { .. }), "{outcome:?}");
        assert_eq!(status(&store, claimed.claim.delivery).await, expected);
    }
}

pub async fn what_is_released_is_due_as_it_was(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    publish(&store, &[event("a"), event("b")], at(0)).await;
    let claimed = claim(&store, at(0)).await;
    let _kept = settle(&store, &claimed[0], Outcome::Released, at(1)).await;
    let again = claim(&store, at(1)).await;
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].claim.delivery, claimed[0].claim.delivery);
    assert_eq!(again[0].progress, claimed[0].progress);
}

pub async fn a_batch_is_settled_in_one_step_and_answered_in_order(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    publish(&store, &[event("a"), event("b"), event("c")], at(0)).await;
    let mut claimed = claim(&store, at(0)).await;
    claimed[1].claim.token += 1_000;
    let batch = claimed.iter().map(|claimed| settlement(claimed, Outcome::Delivered));
    let mut batch: Vec<_> = batch.collect();
    batch.push(batch[0].clone());
    let settled = store.settle(batch, at(1)).await.expect("a store that works");
    let is_kept: Vec<bool> = settled.iter().map(|one| *one != Settled::LeaseLost).collect();
    assert_eq!(is_kept, [true, false, true, false], "a stranger's token, and a second settle");
}

pub async fn health_follows_the_attempts(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    let events: Vec<_> = (0..7).map(|n| event(&format!("event-{n}"))).collect();
    publish(&store, &events, at(0)).await;
    let claimed = claim(&store, at(0)).await;
    let first = |now| {
        let (failing, before) = (Failing::first(now), Duration::ZERO);
        Settled::Recorded { health: Health::Failing { failing, before } }
    };
    let failing = Failing::first(at(2)).again(at(3));
    let second = Settled::Recorded { health: Health::Failing { failing, before: Duration::ZERO } };
    for (n, outcome, expected) in [
        (1, Outcome::Delivered, Settled::Recorded { health: Health::Healthy }),
        (2, Outcome::Failed, first(at(2))),
        (3, Outcome::Retrying { due_at: at(9_000) }, second),
        (4, Outcome::Expired, Settled::Recorded { health: Health::Healthy }),
        (5, Outcome::Delivered, Settled::Recorded { health: Health::Recovered }),
        (6, Outcome::Delivered, Settled::Recorded { health: Health::Healthy }),
        (7, Outcome::Failed, first(at(7))),
    ] {
        let index = usize::try_from(n - 1).expect("a small number");
        assert_eq!(settle(&store, &claimed[index], outcome, at(n)).await, expected, "{n}");
    }
    let statistics = store.statistics(key("a"), at(0)).await.expect("a store that works");
    assert_eq!(statistics.failing_since, Some(at(7)));
    assert_eq!((statistics.delivered, statistics.failed, statistics.retrying), (3, 2, 1));
}

/// Goal: an endpoint that has had two hiccups a week apart has not failed for a week. Method: failures
/// with pauses of an hour, a day and a week; the store remembers, and tells with a claim that it fails.
pub async fn time_without_attempts_counts_for_nothing(store: impl AnyStore) {
    const HOUR: u64 = 3_600;
    register(&store, "a", endpoint()).await;
    let mut now = 0;
    for (hours, tried_for) in [(0, 0), (1, 1), (24, 25), (24 * 7, 25), (2, 27)] {
        now += hours * HOUR;
        publish(&store, &[event(&format!("event-{now}"))], at(now)).await;
        let claimed = claim(&store, at(now)).await.remove(0);
        assert_eq!(claimed.is_failing, now > 0);
        let settled = settle(&store, &claimed, Outcome::Failed, at(now)).await;
        let failing = match settled {
            Settled::Recorded { health: Health::Failing { failing, .. } } => Some(failing),
            _ => None,
        };
        let failing = failing.expect("an endpoint that fails");
        assert_eq!(failing.tried_for, Duration::from_secs(tried_for * HOUR));
        assert_eq!((failing.since, failing.last), (at(0), at(now)));
    }
    publish(&store, &[event("last")], at(now)).await;
    let claimed = claim(&store, at(now)).await.remove(0);
    let settled = settle(&store, &claimed, Outcome::Delivered, at(now)).await;
    assert_eq!(settled, Settled::Recorded { health: Health::Recovered });
    publish(&store, &[event("well")], at(now)).await;
    assert!(!claim(&store, at(now)).await.remove(0).is_failing);
}

pub async fn cancelling_ends_what_waits_or_flies_and_nothing_else(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    publish(&store, &[event("a"), event("b")], at(0)).await;
    let claimed = claim(&store, at(0)).await;
    let (waiting, flying) = (claimed[0].clone(), claimed[1].clone());
    let _kept = settle(&store, &waiting, Outcome::Released, at(0)).await;
    for claimed in [&waiting, &flying] {
        let delivery = claimed.claim.delivery;
        cancel(&store, delivery, at(1)).await.expect("it is open");
        assert_eq!(status(&store, delivery).await, "cancelled");
        let again = cancel(&store, delivery, at(2)).await.expect_err("it has ended");
        assert!(matches!(again, OperationError::WrongStatus { .. }), "{again:?}");
    }
    assert_eq!(settle(&store, &flying, Outcome::Delivered, at(2)).await, Settled::LeaseLost);
    assert!(claim(&store, at(10_000)).await.is_empty());
    let unknown = webhooks_core::DeliveryId::from_u64(999_999);
    let error = cancel(&store, unknown, at(2)).await.expect_err("there is none");
    assert!(matches!(error, OperationError::UnknownDelivery { .. }), "{error:?}");
}
