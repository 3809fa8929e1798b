//! Settling: kept as a whole, health told, endpoints that go away.

use webhooks_core::Timestamp;
use webhooks_dispatch::{Health, OperationError, Outcome, Settled};
use webhooks_registry::{DisableReason, EndpointStoreError, HeaderProfile};

use super::{
    AnyStore, at, claim, endpoint, endpoint_id, event, publish, register, settle, settlement,
    status, tenant,
};

pub(super) async fn exercise<S: AnyStore, Fut: Future<Output = S>>(factory: &impl Fn() -> Fut) {
    each_outcome_has_its_status(factory().await).await;
    what_is_released_is_due_as_it_was(factory().await).await;
    a_batch_is_settled_in_one_step_and_answered_in_order(factory().await).await;
    health_follows_the_attempts(factory().await).await;
    cancelling_ends_what_waits_or_flies_and_nothing_else(factory().await).await;
    an_endpoint_that_goes_cancels_what_waits_for_it(factory().await).await;
    a_disabled_endpoint_gets_nothing_until_it_is_registered_anew(factory().await).await;
    endpoints_are_kept_as_they_were_registered(factory().await).await;
}

async fn each_outcome_has_its_status(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    for (id, outcome, expected) in [
        ("a", Outcome::Delivered, "delivered"),
        ("b", Outcome::Failed, "failed"),
        ("c", Outcome::Cancelled, "cancelled"),
        ("d", Outcome::Retrying { due_at: at(5_000) }, "retrying"),
        ("e", Outcome::Released, "pending"),
    ] {
        publish(&store, &[event(id)], at(0)).await;
        let claimed = claim(&store, at(0)).await.remove(0);
        assert_eq!(status(&store, claimed.claim.delivery).await, "pending");
        let settled = settle(&store, &claimed, outcome, at(1)).await;
        assert!(matches!(settled, Settled::Kept { .. }), "{outcome:?}");
        assert_eq!(status(&store, claimed.claim.delivery).await, expected);
    }
}

async fn what_is_released_is_due_as_it_was(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    publish(&store, &[event("a"), event("b")], at(0)).await;
    let claimed = claim(&store, at(0)).await;
    let _kept = settle(&store, &claimed[0], Outcome::Released, at(1)).await;
    let again = claim(&store, at(1)).await;
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].claim.delivery, claimed[0].claim.delivery);
    assert_eq!(again[0].progress, claimed[0].progress);
}

async fn a_batch_is_settled_in_one_step_and_answered_in_order(store: impl AnyStore) {
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

async fn health_follows_the_attempts(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    let events: Vec<_> = (0..7).map(|n| event(&format!("event-{n}"))).collect();
    publish(&store, &events, at(0)).await;
    let claimed = claim(&store, at(0)).await;
    let failing = |since: Timestamp| Settled::Kept { health: Health::Failing { since } };
    for (n, outcome, expected) in [
        (1, Outcome::Delivered, Settled::Kept { health: Health::Well }),
        (2, Outcome::Failed, failing(at(2))),
        (3, Outcome::Retrying { due_at: at(9_000) }, failing(at(2))),
        (4, Outcome::Cancelled, Settled::Kept { health: Health::Well }),
        (5, Outcome::Delivered, Settled::Kept { health: Health::Recovered }),
        (6, Outcome::Delivered, Settled::Kept { health: Health::Well }),
        (7, Outcome::Failed, failing(at(7))),
    ] {
        let index = usize::try_from(n - 1).expect("a small number");
        assert_eq!(settle(&store, &claimed[index], outcome, at(n)).await, expected, "{n}");
    }
    let statistics = store.statistics(endpoint_id("a"), at(0)).await.expect("a store that works");
    assert_eq!(statistics.failing_since, Some(at(7)));
    assert_eq!((statistics.delivered, statistics.failed, statistics.retrying), (3, 2, 1));
}

async fn cancelling_ends_what_waits_or_flies_and_nothing_else(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    publish(&store, &[event("a"), event("b")], at(0)).await;
    let claimed = claim(&store, at(0)).await;
    let (waiting, flying) = (claimed[0].clone(), claimed[1].clone());
    let _kept = settle(&store, &waiting, Outcome::Released, at(0)).await;
    for claimed in [&waiting, &flying] {
        let delivery = claimed.claim.delivery;
        store.cancel(delivery, at(1)).await.expect("it is open");
        assert_eq!(status(&store, delivery).await, "cancelled");
        let again = store.cancel(delivery, at(2)).await.expect_err("it has ended");
        assert!(matches!(again, OperationError::Status { .. }), "{again:?}");
    }
    assert_eq!(settle(&store, &flying, Outcome::Delivered, at(2)).await, Settled::LeaseLost);
    assert!(claim(&store, at(10_000)).await.is_empty());
    let unknown = webhooks_core::DeliveryId::from_u64(999_999);
    let error = store.cancel(unknown, at(2)).await.expect_err("there is none");
    assert!(matches!(error, OperationError::UnknownDelivery { .. }), "{error:?}");
}

async fn an_endpoint_that_goes_cancels_what_waits_for_it(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    register(&store, "b", endpoint()).await;
    publish(&store, &[event("a"), event("b")], at(0)).await;
    let flying = claim(&store, at(0)).await;
    let flying = flying.iter().find(|claimed| claimed.registration.id.as_str() == "a");
    let flying = flying.expect("one of a's").clone();
    let removed = store.unregister(endpoint_id("a")).await.expect("it is registered");
    assert_eq!(removed.id.as_str(), "a");
    assert_eq!(settle(&store, &flying, Outcome::Delivered, at(1)).await, Settled::LeaseLost);
    let left = claim(&store, at(10_000)).await;
    assert!(left.iter().all(|claimed| claimed.registration.id.as_str() == "b"));
    let error = store.unregister(endpoint_id("a")).await.expect_err("it is gone");
    assert!(error.to_string().contains("\"a\""), "{error}");
    // One that comes back under the id is another: nothing is left over for it.
    register(&store, "a", endpoint()).await;
    let left = claim(&store, at(20_000)).await;
    assert!(left.iter().all(|claimed| claimed.registration.id.as_str() == "b"));
    publish(&store, &[event("c")], at(20_000)).await;
    assert_eq!(claim(&store, at(20_000)).await.len(), 2);
}

async fn a_disabled_endpoint_gets_nothing_until_it_is_registered_anew(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    publish(&store, &[event("a")], at(0)).await;
    let gone = DisableReason::Gone;
    assert!(store.disable(endpoint_id("a"), gone).await.expect("it is registered"));
    assert!(!store.disable(endpoint_id("a"), gone).await.expect("it is registered"), "twice");
    let registration = store.get(endpoint_id("a")).await.expect("a store that works");
    let registration = registration.expect("it is registered still");
    assert_eq!((registration.endpoint.active, registration.disabled), (false, Some(gone)));
    assert_eq!(publish(&store, &[event("b")], at(1)).await[0].deliveries, 0);
    assert!(claim(&store, at(10_000)).await.is_empty());
    register(&store, "a", endpoint()).await;
    publish(&store, &[event("c")], at(10_000)).await;
    assert_eq!(claim(&store, at(10_000)).await.len(), 1);
    let error = store.disable(endpoint_id("nobody"), gone).await.expect_err("there is none");
    assert!(matches!(error, EndpointStoreError::Unknown(_)), "{error:?}");
}

async fn endpoints_are_kept_as_they_were_registered(store: impl AnyStore) {
    let rich = webhooks_registry::Endpoint::new(
        "https://example.com/hook?a=1",
        &format!("whsec_{}", "A".repeat(32)),
    )
    .expect("a valid endpoint")
    .events(["user.*"])
    .expect("valid patterns")
    .profiles([HeaderProfile::Svix, HeaderProfile::XWebhook])
    .expect("they fit the secret")
    .tenant(tenant("acme"))
    .ordered();
    register(&store, "b", rich.clone()).await;
    register(&store, "a", endpoint()).await;
    register(&store, "c", endpoint().inactive()).await;
    let found = store.get(endpoint_id("b")).await.expect("a store that works");
    assert_eq!(found.expect("it is registered").endpoint, rich);
    let list = |tenant, after: Option<&str>, limit| {
        let (store, after) = (store.clone(), after.map(endpoint_id));
        async move {
            let list = store.list(tenant, after, limit).await.expect("a store that works");
            list.iter().map(|found| found.id.to_string()).collect::<Vec<_>>()
        }
    };
    assert_eq!(list(None, None, 2).await, ["a", "b"]);
    assert_eq!(list(None, Some("b"), 2).await, ["c"]);
    assert_eq!(list(Some(tenant("acme")), None, 9).await, ["b"]);
    let error = store.register(endpoint_id("b"), endpoint()).await.expect_err("acme's");
    assert!(matches!(error, EndpointStoreError::Register(_)), "{error:?}");
}
