//! Versions of endpoints: conditions of a change, times of changes, and the bound on their number.

use webhooks_core::{EndpointId, Timestamp};
use webhooks_registry::{
    DisableReason, EndpointKey, Revision,
    store::{EndpointStoreError, Expected, RegisterRequest, Registered, StateChange},
};

use super::{AnyStore, at, endpoint, endpoint_id, key, register_at, tenant};

/// The number of callers at the same time.
const CALLERS: usize = 16;

async fn revision(store: &impl AnyStore, id: &str) -> Revision {
    let found = store.get(key(id)).await.expect("a store that works");
    found.expect("it is registered").revision
}

fn named(id: &str, name: &str, expected: Expected, now: Timestamp) -> RegisterRequest {
    let request = RegisterRequest::new(endpoint_id(id), endpoint().name(name), now);
    RegisterRequest { expected, ..request }
}

async fn change(store: &impl AnyStore, change: StateChange, second: u64) -> bool {
    let changed = store.set_state(key("a"), change, at(second)).await;
    changed.expect("it is registered").is_some()
}

pub async fn a_change_is_made_only_under_its_condition(store: impl AnyStore) {
    for expected in [Expected::Present, Expected::Version(1)] {
        let refused = store.register(named("a", "one", expected, at(0))).await;
        let error = refused.expect_err("there is none");
        assert!(matches!(error, EndpointStoreError::Unknown(_)), "{error:?}");
    }
    let added = store.register(named("a", "one", Expected::Absent, at(0))).await;
    assert_eq!(added.expect("a free id"), Registered::Added);
    let version = revision(&store, "a").await.version;
    for name in ["one", "two"] {
        let refused = store.register(named("a", name, Expected::Absent, at(1))).await;
        let error = refused.expect_err("it is taken");
        let EndpointStoreError::AlreadyRegistered { endpoint } = error else {
            panic!("{error:?}");
        };
        assert_eq!(endpoint, key("a"));
    }
    let wrong = Expected::Version(version + 1);
    let refused = store.register(named("a", "two", wrong, at(1))).await;
    let error = refused.expect_err("another version");
    let EndpointStoreError::Changed { endpoint, expected, found } = error else {
        panic!("{error:?}");
    };
    assert_eq!((endpoint, expected, found), (key("a"), version + 1, version));
    let unchanged = store.get(key("a")).await.expect("a store that works");
    let unchanged = unchanged.expect("it is registered");
    assert_eq!(unchanged.endpoint.name.as_deref(), Some("one"), "nothing was changed");

    let equal = store.register(named("a", "one", Expected::Version(version), at(2))).await;
    assert_eq!(equal.expect("its version"), Registered::Unchanged);
    assert_eq!(revision(&store, "a").await, unchanged.revision);
    let changed = store.register(named("a", "two", Expected::Version(version), at(3))).await;
    assert_eq!(changed.expect("its version"), Registered::Changed { before: unchanged });
    let changed = store.register(named("a", "three", Expected::Present, at(4))).await;
    assert!(matches!(changed.expect("it is there"), Registered::Changed { .. }));
}

pub async fn of_many_writers_of_one_version_one_wins(store: impl AnyStore) {
    register_at(&store, "a", endpoint(), at(0)).await;
    let version = revision(&store, "a").await.version;
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..CALLERS {
        let store = store.clone();
        let expected = Expected::Version(version);
        let request = named("a", &format!("writer-{n}"), expected, at(1));
        writers.spawn(async move { store.register(request).await });
    }
    let mut winners = 0;
    for written in writers.join_all().await {
        match written {
            Ok(Registered::Changed { .. }) => winners += 1,
            Err(EndpointStoreError::Changed { expected, found, .. }) => {
                assert_eq!((expected, found), (version, version + 1));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(winners, 1);
    assert_eq!(revision(&store, "a").await.version, version + 1);
}

pub async fn of_many_that_add_one_endpoint_one_does(store: impl AnyStore) {
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..CALLERS {
        let store = store.clone();
        let request = named("a", &format!("writer-{n}"), Expected::Absent, at(1));
        writers.spawn(async move { store.register(request).await });
    }
    let written = writers.join_all().await;
    let added = written.iter().filter(|one| matches!(one, Ok(Registered::Added))).count();
    let refused =
        |one: &&Result<_, _>| matches!(one, Err(EndpointStoreError::AlreadyRegistered { .. }));
    assert_eq!((added, written.iter().filter(refused).count()), (1, CALLERS - 1));
}

pub async fn a_revision_tells_each_change_and_its_time(store: impl AnyStore) {
    use StateChange::{Disable, Enable, Pause, Resume};

    register_at(&store, "a", endpoint(), at(10)).await;
    let first = revision(&store, "a").await;
    let times = (first.created_at, first.updated_at, first.state_since);
    assert_eq!(times, (at(10), at(10), at(10)));
    let check = async |step: u64, updated: u64, since: u64| {
        let version = first.version + step;
        let (created_at, updated_at, state_since) = (at(10), at(updated), at(since));
        let expected = Revision { version, created_at, updated_at, state_since };
        assert_eq!(revision(&store, "a").await, expected, "step {step}");
    };
    register_at(&store, "a", endpoint(), at(11)).await;
    check(0, 10, 10).await;
    register_at(&store, "a", endpoint().ordered(), at(12)).await;
    check(1, 12, 10).await;
    assert!(!change(&store, Resume, 13).await, "it is not paused");
    check(1, 12, 10).await;
    assert!(change(&store, Pause, 14).await);
    check(2, 14, 14).await;
    register_at(&store, "a", endpoint().name("a name"), at(15)).await;
    check(3, 15, 14).await;
    assert!(change(&store, Disable(DisableReason::Gone), 16).await);
    check(4, 16, 16).await;
    assert!(!change(&store, Disable(DisableReason::Manual), 17).await, "it is disabled");
    check(4, 16, 16).await;
    register_at(&store, "a", endpoint(), at(18)).await;
    check(5, 18, 16).await;
    assert!(change(&store, Enable, 19).await);
    check(6, 19, 19).await;
    register_at(&store, "a", endpoint().inactive(), at(20)).await;
    check(7, 20, 20).await;
    register_at(&store, "a", endpoint(), at(21)).await;
    check(8, 21, 21).await;
}

/// Goal: a version that somebody read never fits an endpoint that was registered anew since. Method:
/// an endpoint is removed in several states and registered again, each time with a request that
/// expects its last version.
pub async fn no_version_of_an_id_comes_twice(store: impl AnyStore) {
    register_at(&store, "a", endpoint(), at(0)).await;
    let mut highest = 0;
    for round in 1..=4_u64 {
        let now = round * 10;
        for second in 0..round {
            change(&store, StateChange::Pause, now + second).await;
            change(&store, StateChange::Resume, now + second).await;
        }
        if round % 2 == 0 {
            change(&store, StateChange::Disable(DisableReason::Manual), now).await;
        }
        let last = revision(&store, "a").await;
        assert!(last.version > highest, "{} is not above {highest}", last.version);
        highest = last.version;
        let removed = store.unregister(key("a"), at(now + 6)).await.expect("it is registered");
        assert_eq!(removed.revision, last);
        let stale = store.register(named("a", "b", Expected::Version(highest), at(now + 7))).await;
        assert!(matches!(stale.expect_err("it is gone"), EndpointStoreError::Unknown(_)));
        assert_eq!(register_at(&store, "a", endpoint(), at(now + 8)).await, Registered::Added);
        let anew = revision(&store, "a").await;
        assert!(anew.version > highest, "{} is not above {highest}", anew.version);
        let times = (anew.created_at, anew.updated_at, anew.state_since);
        assert_eq!(times, (at(now + 8), at(now + 8), at(now + 8)));
        let stale = store.register(named("a", "b", Expected::Version(highest), at(now + 9))).await;
        let error = stale.expect_err("another endpoint");
        assert!(matches!(error, EndpointStoreError::Changed { .. }), "{error:?}");
        highest = anew.version;
    }
}

pub async fn labels_and_texts_of_an_endpoint_are_stored(store: impl AnyStore) {
    let rich = endpoint()
        .name("Größe \u{1f980}")
        .description("two\nlines, \"quoted\" and 100 % of it")
        .metadata("team", "payments")
        .metadata("key with spaces", "")
        .channels(["project:17", "eu"])
        .expect("valid channels");
    register_at(&store, "a", rich.clone(), at(0)).await;
    let found = store.get(key("a")).await.expect("a store that works");
    assert_eq!(found.expect("it is registered").endpoint, rich);
    // Each of them is a change of its own.
    let changed = rich.clone().metadata("team", "invoices");
    let version = revision(&store, "a").await.version;
    register_at(&store, "a", changed, at(1)).await;
    register_at(&store, "a", endpoint(), at(2)).await;
    assert_eq!(revision(&store, "a").await.version, version + 2);
    let found = store.get(key("a")).await.expect("a store that works");
    assert_eq!(found.expect("it is registered").endpoint, endpoint());
}

pub async fn a_tenant_has_no_more_endpoints_than_it_may(store: impl AnyStore) {
    let add = async |tenant_id: &str, id: &str, max, now| {
        let endpoint = endpoint().tenant(tenant(tenant_id)).name(format!("at {now}"));
        let request = RegisterRequest::new(endpoint_id(id), endpoint, at(now));
        store.register(RegisterRequest { max_endpoints: Some(max), ..request }).await
    };
    for id in ["a", "b"] {
        assert_eq!(add("acme", id, 2, 0).await.expect("there is room"), Registered::Added);
    }
    let error = add("acme", "c", 2, 1).await.expect_err("it has two");
    assert!(matches!(error, EndpointStoreError::TooMany { max: 2 }), "{error:?}");
    let error = add("globex", "a", 0, 1).await.expect_err("it may have none");
    assert!(matches!(error, EndpointStoreError::TooMany { max: 0 }), "{error:?}");
    // Neither another tenant nor a change is bounded by them.
    assert_eq!(add("globex", "a", 2, 1).await.expect("there is room"), Registered::Added);
    let changed = add("acme", "a", 1, 2).await.expect("it is there");
    assert!(matches!(changed, Registered::Changed { .. }));
    // A disabled endpoint counts, also if it was enabled again; one that is gone does not.
    let acmes = |id: &str| EndpointKey::new(tenant("acme"), endpoint_id(id));
    let disable = StateChange::Disable(DisableReason::Failing);
    for change in [disable, StateChange::Enable, disable] {
        store.set_state(acmes("a"), change, at(3)).await.expect("it is registered");
        add("acme", "c", 2, 3).await.expect_err("it has two");
    }
    store.unregister(acmes("a"), at(4)).await.expect("it is registered");
    assert_eq!(add("acme", "c", 2, 4).await.expect("there is room"), Registered::Added);
    add("acme", "a", 2, 5).await.expect_err("it has two");
    let missing = RegisterRequest {
        expected: Expected::Present,
        max_endpoints: Some(2),
        ..RegisterRequest::new(endpoint_id("d"), endpoint().tenant(tenant("acme")), at(6))
    };
    let error = store.register(missing).await.expect_err("there is none");
    assert!(matches!(error, EndpointStoreError::Unknown(_)), "{error:?}");
}

pub async fn many_at_once_add_no_more_endpoints_than_a_tenant_may_have(store: impl AnyStore) {
    const MAX: usize = 5;
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..CALLERS {
        let store = store.clone();
        let id = EndpointId::new(&format!("endpoint-{n}")).expect("a valid id");
        let request = RegisterRequest::new(id, endpoint(), at(0));
        let request = RegisterRequest { max_endpoints: Some(MAX), ..request };
        writers.spawn(async move { store.register(request).await });
    }
    let mut added = 0;
    for written in writers.join_all().await {
        match written {
            Ok(Registered::Added) => added += 1,
            Err(EndpointStoreError::TooMany { max: MAX }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(added, MAX);
}
