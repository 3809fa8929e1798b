//! Changes of endpoints by several people at once, and bounds for what they may set.

use std::sync::Arc;
use std::time::Duration;

use webhooks_core::TenantId;
use webhooks_dispatch::{Engine, FnTransport, MemoryStore};
use webhooks_registry::{
    Endpoint, EndpointLimits, EndpointQuery, EndpointStoreError, Secret,
    store::{PagePlace, StateKind},
};

use crate::{endpoint, tenant};

fn engine(
    limits: EndpointLimits,
) -> Engine<MemoryStore, impl webhooks_dispatch::transport::Transport> {
    let transport = FnTransport::new(|_, _, _, _| async { (200, "") });
    Engine::builder(MemoryStore::new(), transport).endpoint_limits(limits).build()
}

/// Goal: of changes without a version at the same time none is lost, and of those that name the
/// version that they have read exactly one is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_change_of_an_endpoint_is_lost() {
    let engine = Arc::new(engine(EndpointLimits::default()));
    engine.endpoints().create("a", endpoint("a")).await.unwrap();
    let by_one = |key: String, expected: Option<u64>| {
        let engine = Arc::clone(&engine);
        tokio::spawn(async move {
            let change = |found: Endpoint| Ok(found.metadata(key.clone(), "1"));
            engine.endpoints().update("a", expected, change).await
        })
    };
    // No more at once than an update has tries.
    let changes: Vec<_> = (0..8).map(|n| by_one(n.to_string(), None)).collect();
    for change in changes {
        change.await.unwrap().unwrap();
    }
    let found = engine.endpoints().get("a").await.unwrap().unwrap();
    assert_eq!((found.endpoint.metadata.len(), found.revision.version), (8, 9));
    let changes: Vec<_> = (0..8).map(|n| by_one(format!("v{n}"), Some(9))).collect();
    let mut made = 0;
    for change in changes {
        match change.await.unwrap() {
            Ok(changed) => {
                made += 1;
                assert_eq!(changed.endpoint.metadata.len(), 9);
            }
            Err(error) => {
                assert!(matches!(error, EndpointStoreError::Changed { .. }), "{error:?}");
            }
        }
    }
    assert_eq!(made, 1);
}

/// Goal: a change of the settings undoes no change of the state, and moves the endpoint to no other
/// tenant.
#[tokio::test]
async fn an_update_changes_what_it_says_alone() {
    let engine = engine(EndpointLimits::default());
    let endpoints = engine.endpoints().tenant(tenant("acme"));
    endpoints.create("a", endpoint("a")).await.unwrap();
    endpoints.disable("a").await.unwrap();
    let moved = |found: Endpoint| Ok(found.name("new").tenant(TenantId::default()));
    let changed = endpoints.update("a", None, moved).await.unwrap();
    assert_eq!(
        (changed.state.as_str(), changed.endpoint.name.as_deref()),
        ("disabled", Some("new"))
    );
    assert_eq!(changed.endpoint.tenant, tenant("acme"));
    assert!(engine.endpoints().get("a").await.unwrap().is_none());
    let unknown = endpoints.update("b", None, Ok).await.unwrap_err();
    assert!(matches!(unknown, EndpointStoreError::Unknown(_)), "{unknown:?}");
    let refused = endpoints.update("a", None, |found| found.events(["not a type"])).await;
    assert!(matches!(refused.unwrap_err(), EndpointStoreError::Register(_)));
}

#[tokio::test]
async fn a_rotated_secret_signs_at_once_and_the_old_one_for_a_while() {
    let engine = engine(EndpointLimits::default());
    let endpoints = engine.endpoints();
    let old = Secret::generate();
    let first = Endpoint::new("https://example.com/", old.clone()).unwrap();
    endpoints.create("a", first).await.unwrap();
    let new = endpoints.rotate_secret("a", None, Duration::from_secs(60)).await.unwrap();
    let texts = async || {
        let secrets = endpoints.secrets("a").await.unwrap();
        secrets.iter().map(|secret| secret.dangerous_text().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(texts().await, [new.dangerous_text(), old.dangerous_text()]);
    let given = Secret::generate();
    endpoints.rotate_secret("a", Some(given.clone()), Duration::ZERO).await.unwrap();
    assert_eq!(texts().await, [given.dangerous_text()]);
    let view = serde_json::to_string(&endpoints.get("a").await.unwrap().unwrap().view()).unwrap();
    assert!(!view.contains("whsec_") && view.contains(&given.fingerprint().to_string()), "{view}");
    assert!(endpoints.secrets("b").await.is_err());
}

#[tokio::test]
async fn what_strangers_set_is_bounded() {
    let limits = EndpointLimits {
        endpoints_per_tenant: Some(2),
        timeout: Duration::from_secs(10),
        headers: 1,
        ..EndpointLimits::default()
    };
    let engine = engine(limits);
    let endpoints = engine.endpoints().tenant(tenant("acme"));
    let fits = || endpoint("a").timeout(Duration::from_secs(10));
    let refused = endpoints.create("a", endpoint("a")).await.unwrap_err();
    assert_eq!(refused.to_string(), "the timeout must be within the bounds that this service sets");
    let headers = fits().header("x-a", "1").unwrap().header("x-b", "1").unwrap();
    assert!(endpoints.create("a", headers).await.is_err());
    for id in ["a", "b"] {
        endpoints.create(id, fits()).await.unwrap();
    }
    let refused = endpoints.create("c", fits()).await.unwrap_err();
    assert!(matches!(refused, EndpointStoreError::TooMany { max: 2 }), "{refused:?}");
    endpoints.register("a", fits().name("changes are not limited")).await.unwrap();
    let elsewhere = engine.endpoints().tenant(tenant("other"));
    elsewhere.create("c", fits()).await.unwrap();
    endpoints.unregister("a").await.unwrap();
    endpoints.create("c", fits()).await.unwrap();
}

#[tokio::test]
async fn an_overview_has_health_and_no_secret() {
    let engine = engine(EndpointLimits::default());
    let endpoints = engine.endpoints().tenant(tenant("acme"));
    for id in ["a", "b", "c"] {
        endpoints.create(id, endpoint(id)).await.unwrap();
    }
    endpoints.pause("b").await.unwrap();
    engine.publish(&crate::event("x").tenant(tenant("acme"))).await.unwrap();
    let query = EndpointQuery { limit: 2, ..EndpointQuery::default() };
    let page = endpoints.overview(query.clone()).await.unwrap();
    let shown: Vec<_> = page
        .items
        .iter()
        .map(|(view, health)| (view.id.as_str(), view.state, health.queue.waiting))
        .collect();
    assert_eq!(shown, [("a", "active", 1), ("b", "paused", 1)]);
    assert!(!format!("{page:?}").contains("my-secret-key"));
    let place = page.next.map(PagePlace::After);
    let page = endpoints.overview(EndpointQuery { place, ..query.clone() }).await.unwrap();
    assert_eq!((page.items.len(), page.next), (1, None));
    let paused = EndpointQuery { states: vec![StateKind::Paused], ..query };
    assert_eq!(endpoints.count(paused, 10).await.unwrap(), 1);
}
