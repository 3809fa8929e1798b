//! Endpoints: registered, changed, paused, disabled, unregistered; and what each means for what waits.

use std::num::NonZeroU32;
use std::time::Duration;

use webhooks_dispatch::{
    history::Query,
    store::{CancelReason, Outcome, Settled},
};
use webhooks_registry::{
    BodyFormat, DisableReason, EndpointKey, EndpointState, HeaderProfile, RateLimit,
    store::{EndpointStoreError, Registered, StateChange},
};

use super::{
    AnyStore, at, cancel, claim, endpoint, endpoint_id, event, ids, key, publish, register,
    register_at, settle, status, tenant,
};

pub(super) async fn set_state(
    store: &impl AnyStore,
    id: &str,
    change: StateChange,
) -> Option<EndpointState> {
    let before = store.set_state(key(id), change, at(5)).await.expect("it is registered");
    before.map(|before| before.state)
}

async fn state(store: &impl AnyStore, id: &str) -> EndpointState {
    let found = store.get(key(id)).await.expect("a store that works");
    found.expect("it is registered").state
}

pub async fn endpoints_are_stored_as_they_were_registered(store: impl AnyStore) {
    let two = NonZeroU32::MIN.saturating_add(1);
    let rich = webhooks_registry::Endpoint::new(
        "https://example.com/hook?a=1",
        &format!("whsec_{}", "A".repeat(32)),
    )
    .expect("a valid endpoint")
    .events(["user.*"])
    .expect("valid patterns")
    .profiles([HeaderProfile::Svix, HeaderProfile::XWebhook])
    .expect("they fit the secret")
    .body(BodyFormat::Payload)
    .tenant(tenant("acme"))
    .rate_limited(RateLimit { calls: two, per: Duration::from_secs(60 * 60), burst: two })
    .ordered();
    register(&store, "b", rich.clone()).await;
    let b = EndpointKey::new(tenant("acme"), endpoint_id("b"));
    let found = store.get(b.clone()).await.expect("a store that works");
    assert_eq!(found.expect("it is registered").endpoint, rich);
}

pub async fn an_id_is_its_tenants_alone(store: impl AnyStore) {
    let acmes = EndpointKey::new(tenant("acme"), endpoint_id("crm"));
    register(&store, "crm", endpoint()).await;
    let added = register_at(&store, "crm", endpoint().tenant(tenant("acme")), at(0)).await;
    assert_eq!(added, Registered::Added);
    publish(&store, &[event("one"), event("two").tenant(tenant("acme"))], at(0)).await;
    let claimed = claim(&store, at(0)).await;
    assert_eq!(claimed.len(), 2);
    assert_ne!(claimed[0].registration.number, claimed[1].registration.number);
    for claimed in &claimed {
        assert_eq!(claimed.event.tenant, claimed.registration.endpoint.tenant);
        let _kept = settle(&store, claimed, Outcome::Delivered, at(0)).await;
    }
    let statistics = store.statistics(acmes.clone(), at(0)).await.expect("a store that works");
    assert_eq!(statistics.delivered, 1);
    store.unregister(key("crm"), at(5)).await.expect("it is registered");
    assert!(store.get(acmes).await.expect("a store that works").is_some());
    publish(&store, &[event("three"), event("four").tenant(tenant("acme"))], at(1)).await;
    assert_eq!(ids(&claim(&store, at(1)).await), ["four"]);
}

pub async fn registering_an_equal_endpoint_changes_nothing(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    let before = store.get(key("a")).await.expect("a store that works");
    publish(&store, &[event("one"), event("two")], at(0)).await;
    let claimed = claim(&store, at(0)).await;
    let _kept = settle(&store, &claimed[0], Outcome::Failed, at(5)).await;
    let again = register_at(&store, "a", endpoint(), at(6)).await;
    assert_eq!(again, Registered::Unchanged);
    assert_eq!(store.get(key("a")).await.expect("a store that works"), before);
    let statistics = store.statistics(key("a"), at(0)).await.expect("a store that works");
    assert_eq!(statistics.failing_since, Some(at(5)), "its failures are not forgotten");
    let settled = settle(&store, &claimed[1], Outcome::Delivered, at(6)).await;
    assert!(matches!(settled, Settled::Recorded { .. }), "its claims go on");
    // Neither the same settings nor others change what was done to the state.
    set_state(&store, "a", StateChange::Disable(DisableReason::Gone)).await;
    register(&store, "a", endpoint()).await;
    register(&store, "a", endpoint().ordered()).await;
    assert_eq!(state(&store, "a").await, EndpointState::Disabled(DisableReason::Gone));
    // But the wish to be active, or not, does.
    register(&store, "a", endpoint().inactive()).await;
    register(&store, "a", endpoint()).await;
    assert_eq!(state(&store, "a").await, EndpointState::Active);
}

pub async fn states_change_as_operators_say(store: impl AnyStore) {
    use EndpointState::{Active, Disabled, Paused};

    let gone = DisableReason::Gone;
    register(&store, "a", endpoint()).await;
    for (change, before, after) in [
        (StateChange::Enable, None, Active),
        (StateChange::Resume, None, Active),
        (StateChange::Pause, Some(Active), Paused),
        (StateChange::Pause, None, Paused),
        (StateChange::Enable, None, Paused),
        (StateChange::Resume, Some(Paused), Active),
        (StateChange::Disable(gone), Some(Active), Disabled(gone)),
        (StateChange::Disable(DisableReason::Manual), None, Disabled(gone)),
        (StateChange::Enable, Some(Disabled(gone)), Active),
        (StateChange::Pause, Some(Active), Paused),
        (
            StateChange::Disable(DisableReason::Manual),
            Some(Paused),
            Disabled(DisableReason::Manual),
        ),
    ] {
        assert_eq!(set_state(&store, "a", change).await, before, "{change:?}");
        assert_eq!(state(&store, "a").await, after, "{change:?}");
    }
    for change in [StateChange::Pause, StateChange::Resume] {
        let error = store.set_state(key("a"), change, at(5)).await.expect_err("it is disabled");
        assert!(matches!(error, EndpointStoreError::IsDisabled(_)), "{error:?}");
        let error = store.set_state(key("nobody"), change, at(5)).await.expect_err("there is none");
        assert!(matches!(error, EndpointStoreError::Unknown(_)), "{error:?}");
    }
}

pub async fn what_is_published_for_a_paused_endpoint_waits(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    publish(&store, &[event("flying"), event("waiting")], at(0)).await;
    let claimed = claim(&store, at(0)).await;
    let _kept = settle(&store, &claimed[1], Outcome::Released, at(0)).await;
    set_state(&store, "a", StateChange::Pause).await;
    assert!(claim(&store, at(1)).await.is_empty());
    let published = publish(&store, &[event("later")], at(1)).await;
    assert_eq!(published[0].deliveries, 1);
    let settled = settle(&store, &claimed[0], Outcome::Retrying { due_at: at(2) }, at(2)).await;
    assert!(matches!(settled, Settled::Recorded { .. }), "what had started is finished");
    assert!(claim(&store, at(100)).await.is_empty());
    assert_eq!(status(&store, claimed[1].claim.delivery).await, "pending");
    // New settings do not resume it.
    register(&store, "a", endpoint().events(["user.*"]).expect("a valid pattern")).await;
    assert!(claim(&store, at(100)).await.is_empty());
    set_state(&store, "a", StateChange::Resume).await;
    let mut resumed = ids(&claim(&store, at(100)).await);
    resumed.sort();
    assert_eq!(resumed, ["flying", "later", "waiting"]);
}

pub async fn a_disabled_endpoint_gets_nothing_until_it_is_enabled(store: impl AnyStore) {
    let gone = StateChange::Disable(DisableReason::Gone);
    register(&store, "a", endpoint()).await;
    publish(&store, &[event("a")], at(0)).await;
    set_state(&store, "a", gone).await;
    assert_eq!(publish(&store, &[event("b")], at(1)).await[0].deliveries, 0);
    assert!(claim(&store, at(10_000)).await.is_empty());
    set_state(&store, "a", StateChange::Enable).await;
    assert!(claim(&store, at(10_000)).await.is_empty(), "what was cancelled stays so");
    publish(&store, &[event("c")], at(10_000)).await;
    assert_eq!(ids(&claim(&store, at(10_000)).await), ["c"]);
}

pub async fn an_endpoint_that_goes_cancels_what_waits_for_it(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    register(&store, "b", endpoint()).await;
    publish(&store, &[event("a"), event("b")], at(0)).await;
    let flying = claim(&store, at(0)).await;
    let flying = flying.iter().find(|claimed| claimed.registration.id.as_str() == "a");
    let flying = flying.expect("one of a's").clone();
    let removed = store.unregister(key("a"), at(5)).await.expect("it is registered");
    assert_eq!(removed.id.as_str(), "a");
    assert_eq!(settle(&store, &flying, Outcome::Delivered, at(1)).await, Settled::LeaseLost);
    let left = claim(&store, at(10_000)).await;
    assert!(left.iter().all(|claimed| claimed.registration.id.as_str() == "b"));
    let error = store.unregister(key("a"), at(5)).await.expect_err("it is gone");
    assert!(error.to_string().contains("\"a\""), "{error}");
    // The endpoint does not find the cancelled deliveries when it comes back.
    register(&store, "a", endpoint()).await;
    let left = claim(&store, at(20_000)).await;
    assert!(left.iter().all(|claimed| claimed.registration.id.as_str() == "b"));
    publish(&store, &[event("c")], at(20_000)).await;
    assert_eq!(claim(&store, at(20_000)).await.len(), 2);
}

pub async fn a_cancelled_delivery_has_its_reason(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    publish(&store, &[event("manual"), event("expired"), event("disabled")], at(0)).await;
    for claimed in claim(&store, at(0)).await {
        match &*claimed.event.id.to_string() {
            "manual" => cancel(&store, claimed.claim.delivery, at(1)).await.expect("it is open"),
            "expired" => {
                let settled = settle(&store, &claimed, Outcome::Expired, at(1)).await;
                assert!(matches!(settled, Settled::Recorded { .. }));
            }
            _ => {}
        }
    }
    set_state(&store, "a", StateChange::Disable(DisableReason::Manual)).await;
    set_state(&store, "a", StateChange::Enable).await;
    publish(&store, &[event("unregistered")], at(2)).await;
    store.unregister(key("a"), at(5)).await.expect("it is registered");
    let page = store.deliveries(Query::default()).await.expect("a store that works");
    assert_eq!(page.items.len(), 4);
    for found in page.items {
        let expected = CancelReason::from_word(&found.event.to_string());
        assert_eq!((found.status.as_str(), found.cancelled), ("cancelled", expected));
        assert_eq!(found.due_at, None);
    }
}

pub async fn an_ordered_head_waits_for_its_retry_through_a_change(store: impl AnyStore) {
    register(&store, "a", endpoint().ordered()).await;
    publish(&store, &[event("a"), event("b")], at(0)).await;
    let head = claim(&store, at(0)).await.remove(0);
    let _kept = settle(&store, &head, Outcome::Retrying { due_at: at(900) }, at(0)).await;
    register(&store, "a", endpoint().ordered()).await;
    register(&store, "a", endpoint().ordered().timeout(Duration::from_secs(9))).await;
    assert!(claim(&store, at(899)).await.is_empty());
    assert_eq!(ids(&claim(&store, at(900)).await), ["a"]);
}
