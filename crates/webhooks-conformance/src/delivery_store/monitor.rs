//! The present state of a store: depths of queues, and the health of endpoints.

use webhooks_core::{TenantId, Timestamp};
use webhooks_dispatch::{
    monitor::{EndpointHealth, QueueDepth, StoreActivity},
    store::{Failing, Outcome},
};
use webhooks_registry::{
    DisableReason, EndpointKey,
    store::{RegisterRequest, StateChange},
};

use super::{
    AnyStore, at, cancel, claim, deliveries_of, endpoint, endpoint_id, event, key, publish,
    publish_as, register, settle, tenant,
};

async fn depth(store: &impl AnyStore, tenant: Option<&TenantId>, max: u64) -> QueueDepth {
    store.depth(tenant.cloned(), max).await.expect("a store that works")
}

async fn health(store: &impl AnyStore, keys: &[EndpointKey], max: u64) -> Vec<EndpointHealth> {
    let health = store.health(keys.to_vec(), max).await.expect("a store that works");
    assert_eq!(health.len(), keys.len(), "one answer for one endpoint");
    health
}

/// The depth of queues that workers serve.
fn queue(waiting: u64, oldest: Option<u64>) -> QueueDepth {
    QueueDepth { waiting, oldest_due_at: oldest.map(at), oldest_servable_at: oldest.map(at) }
}

async fn servable_since(store: &impl AnyStore) -> Option<Timestamp> {
    let of_all = depth(store, None, 100).await.oldest_servable_at;
    let tenant = TenantId::default();
    assert_eq!(depth(store, Some(&tenant), 100).await.oldest_servable_at, of_all);
    let found = health(store, &["a", "ordered"].map(key), 100).await;
    let first = found.iter().filter_map(|found| found.queue.oldest_servable_at).min();
    assert_eq!(first, of_all);
    of_all
}

pub async fn a_store_that_works_answers(store: impl AnyStore) {
    store.ping().await.expect("a store that works");
    register(&store, "a", endpoint()).await;
    publish(&store, &[event("a")], at(0)).await;
    store.ping().await.expect("a store that works");
    let page = store.events(webhooks_dispatch::history::Query::default()).await;
    assert_eq!(page.expect("a store that works").items.len(), 1, "nothing was added");
}

pub async fn the_depth_of_queues_is_told_by_tenant(store: impl AnyStore) {
    let (acme, default) = (tenant("acme"), TenantId::default());
    for tenant in [None, Some(&acme)] {
        assert_eq!(depth(&store, tenant, 10).await, queue(0, None));
    }
    register(&store, "a", endpoint()).await;
    register(&store, "b", endpoint()).await;
    register(&store, "c", endpoint().ordered().tenant(acme.clone())).await;
    publish(&store, &[event("one")], at(10)).await;
    publish(&store, &[event("two")], at(20)).await;
    for n in 0..3 {
        publish(&store, &[event(&format!("acmes-{n}")).tenant(acme.clone())], at(5 + n)).await;
    }
    assert_eq!(depth(&store, None, 100).await, queue(7, Some(5)));
    assert_eq!(depth(&store, Some(&default), 100).await, queue(4, Some(10)));
    assert_eq!(depth(&store, Some(&acme), 100).await, queue(3, Some(5)));
    assert_eq!(depth(&store, Some(&tenant("nobody")), 100).await, queue(0, None));
    for (max, expected) in [(0, 0), (1, 1), (6, 6), (7, 7), (8, 7)] {
        assert_eq!(depth(&store, None, max).await.waiting, expected, "{max} at most");
    }
    assert_eq!(depth(&store, Some(&acme), 2).await.waiting, 2);

    // Deliveries in flight count, and those that ended do not; a retry waits for its time.
    for claimed in claim(&store, at(20)).await {
        if claimed.event.tenant == default {
            let retrying = Outcome::Retrying { due_at: at(700) };
            let is_one = claimed.event.id.to_string() == "one";
            let outcome = if is_one { retrying } else { Outcome::Failed };
            let _recorded = settle(&store, &claimed, outcome, at(20)).await;
        }
    }
    assert_eq!(depth(&store, Some(&default), 100).await, queue(2, Some(700)));
    assert_eq!(depth(&store, Some(&acme), 100).await.waiting, 3);
    for found in deliveries_of(&store, "one").await {
        cancel(&store, found.id, at(30)).await.expect("it waits");
    }
    assert_eq!(depth(&store, Some(&default), 100).await, queue(0, None));
}

pub async fn a_closed_endpoint_has_no_queue(store: impl AnyStore) {
    for id in ["a", "b", "c", "d"] {
        register(&store, id, endpoint()).await;
    }
    let events: Vec<_> = (0..1_100).map(|n| event(&format!("event-{n}"))).collect();
    publish(&store, &events, at(10)).await;
    let later = webhooks_dispatch::Publication::new(&event("scheduled")).deliver_at(at(500));
    publish_as(&store, vec![later.into_serialized()], at(10)).await;
    let disable = StateChange::Disable(DisableReason::Gone);
    for (id, change) in [("a", disable), ("b", StateChange::Pause)] {
        store.set_state(key(id), change, at(20)).await.expect("it is registered");
    }
    store.unregister(key("c"), at(20)).await.expect("it is registered");
    assert_eq!(depth(&store, None, 10_000).await, queue(2_202, Some(10)));
    let found = health(&store, &["a", "b", "c", "d"].map(key), 10_000).await;
    let queues: Vec<QueueDepth> = found.iter().map(|found| found.queue).collect();
    let (full, none) = (queue(1_101, Some(10)), queue(0, None));
    let paused = QueueDepth { oldest_servable_at: None, ..full };
    assert_eq!(queues, [none, paused, none, full], "a pause leaves what waits");
}

/// Goal: the time since which workers are late tells of what they could have attempted. Method: deliveries
/// wait for a pause to end, for the time for which they are scheduled, and for a retry in order.
pub async fn no_worker_is_late_for_what_must_wait(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    register(&store, "ordered", endpoint().ordered()).await;
    assert_eq!(servable_since(&store).await, None);
    let later = webhooks_dispatch::Publication::new(&event("scheduled")).deliver_at(at(500));
    publish_as(&store, vec![later.into_serialized()], at(10)).await;
    assert_eq!(servable_since(&store).await, Some(at(500)));
    publish(&store, &[event("one")], at(20)).await;
    publish(&store, &[event("two")], at(30)).await;
    assert_eq!(servable_since(&store).await, Some(at(20)));
    for id in ["a", "ordered"] {
        store.set_state(key(id), StateChange::Pause, at(40)).await.expect("it is registered");
    }
    let paused = depth(&store, None, 100).await;
    assert_eq!((paused.oldest_due_at, paused.oldest_servable_at), (Some(at(20)), None));
    store.set_state(key("ordered"), StateChange::Resume, at(50)).await.expect("it is registered");
    assert_eq!(servable_since(&store).await, Some(at(20)));
    let claimed = claim(&store, at(50)).await;
    assert_eq!(claimed.len(), 1, "in order, and the other one is paused");
    let retrying = Outcome::Retrying { due_at: at(300) };
    let _recorded = settle(&store, &claimed[0], retrying, at(60)).await;
    assert_eq!(servable_since(&store).await, Some(at(300)), "the others follow the retry");
    store.set_state(key("a"), StateChange::Resume, at(70)).await.expect("it is registered");
    assert_eq!(servable_since(&store).await, Some(at(20)));
}

/// A store in memory has neither.
pub async fn the_commits_and_connections_of_a_store_are_counted(store: impl AnyStore) {
    let activity = async || store.activity().await.expect("a store that works");
    let before = activity().await;
    register(&store, "a", endpoint()).await;
    publish(&store, &[event("one")], at(0)).await;
    let [claimed] = &claim(&store, at(0)).await[..] else { panic!("one delivery") };
    let _recorded = settle(&store, claimed, Outcome::Delivered, at(1)).await;
    let after = activity().await;
    if after == StoreActivity::default() {
        return;
    }
    let commits = after.commits.count() - before.commits.count();
    assert!(commits >= 3, "one for each call, and {commits} were counted");
    assert!(after.calls - before.calls >= commits, "{after:?}");
    assert!(after.commits.sum > before.commits.sum, "{after:?}");
    let purposes: Vec<&str> = after.connections.iter().map(|found| found.purpose).collect();
    assert_eq!(purposes, ["write", "read"]);
    let page = store.events(webhooks_dispatch::history::Query::default()).await;
    assert_eq!(page.expect("a store that works").items.len(), 1);
    for found in activity().await.connections {
        assert!(found.idle + found.in_use >= 1 && found.in_use <= found.max, "{found:?}");
        assert_eq!(found.waiting, 0, "{found:?}");
    }
}

/// The test starts at the start of a minute.
pub async fn the_health_of_several_endpoints_is_told(store: impl AnyStore) {
    for id in ["well", "failing", "idle", "mixed"] {
        register(&store, id, endpoint()).await;
    }
    publish(&store, &[event("one")], at(0)).await;
    let acmes = endpoint().tenant(tenant("acme"));
    let request = RegisterRequest::new(endpoint_id("well"), acmes, at(0));
    store.register(request).await.expect("a free id");
    let mut mixed = None;
    for claimed in claim(&store, at(0)).await {
        let (outcome, second) = match claimed.registration.id.as_str() {
            "well" => (Outcome::Delivered, 61),
            "failing" => (Outcome::Retrying { due_at: at(900) }, 70),
            "mixed" => {
                let _recorded = settle(&store, &claimed, Outcome::Delivered, at(200)).await;
                mixed = Some(claimed);
                continue;
            }
            _ => (Outcome::Released, 0),
        };
        let _recorded = settle(&store, &claimed, outcome, at(second)).await;
    }
    assert!(mixed.is_some());
    publish(&store, &[event("two")], at(300)).await;
    for claimed in claim(&store, at(300)).await {
        let outcome = match claimed.registration.id.as_str() {
            "mixed" => Outcome::Failed,
            _ => Outcome::Released,
        };
        let _recorded = settle(&store, &claimed, outcome, at(310)).await;
    }
    let acmes = EndpointKey::new(tenant("acme"), endpoint_id("well"));
    let keys = [key("mixed"), key("unknown"), key("failing"), acmes, key("well"), key("idle")];
    let expected = [
        EndpointHealth {
            queue: queue(0, None),
            failing: Some(Failing::first(at(310))),
            delivered_at: Some(at(180)),
        },
        EndpointHealth::default(),
        EndpointHealth {
            queue: queue(2, Some(300)),
            failing: Some(Failing::first(at(70))),
            delivered_at: None,
        },
        EndpointHealth::default(),
        EndpointHealth { queue: queue(1, Some(300)), failing: None, delivered_at: Some(at(60)) },
        EndpointHealth { queue: queue(2, Some(0)), failing: None, delivered_at: None },
    ];
    assert_eq!(health(&store, &keys, 100).await, expected);
    let capped = health(&store, &keys, 1).await;
    let waiting: Vec<u64> = capped.iter().map(|found| found.queue.waiting).collect();
    assert_eq!(waiting, [0, 0, 1, 0, 1, 1]);
    assert_eq!(health(&store, &[], 100).await, []);
}

pub async fn an_endpoint_that_is_enabled_again_begins_well(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    publish(&store, &[event("one"), event("two")], at(0)).await;
    let outcomes = [(Outcome::Delivered, 130), (Outcome::Failed, 200)];
    for (claimed, (outcome, second)) in claim(&store, at(0)).await.iter().zip(outcomes) {
        let _recorded = settle(&store, claimed, outcome, at(second)).await;
    }
    publish(&store, &[event("three")], at(210)).await;
    let found = health(&store, &[key("a")], 10).await;
    assert_eq!(found[0].failing, Some(Failing::first(at(200))));
    let disable = StateChange::Disable(DisableReason::Failing);
    store.set_state(key("a"), disable, at(220)).await.expect("it is registered");
    let found = health(&store, &[key("a")], 10).await;
    assert_eq!((found[0].queue, found[0].delivered_at), (queue(0, None), Some(at(120))));
    store.set_state(key("a"), StateChange::Enable, at(230)).await.expect("it is registered");
    publish(&store, &[event("four")], at(240)).await;
    let expected =
        EndpointHealth { queue: queue(1, Some(240)), failing: None, delivered_at: Some(at(120)) };
    assert_eq!(health(&store, &[key("a")], 10).await, [expected], "what it took is not forgotten");
    store.unregister(key("a"), at(250)).await.expect("it is registered");
    assert_eq!(health(&store, &[key("a")], 10).await, [EndpointHealth::default()]);
}
