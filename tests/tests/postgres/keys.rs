//! Secrets at rest: their readers, and endpoints that nobody can read.

use webhooks_registry::{EndpointQuery, EndpointState, store::PagePlace};

use super::*;

fn keyed(url: &str, bytes: &[u8]) -> PostgresOptions {
    let keys = bytes.iter().map(|byte| SealingKey::from_bytes([*byte; 32]));
    PostgresOptions::new(url).unwrap().sealing_keys(keys)
}

/// Returns the ids of the listed endpoints, in pages of `limit`.
async fn listed(store: &PostgresStore, limit: usize) -> Vec<String> {
    let (mut all, mut place) = (Vec::new(), None);
    loop {
        let query = EndpointQuery { place, limit, ..EndpointQuery::default() };
        let page = store.list(query).await.unwrap();
        all.extend(page.items.iter().map(|found| found.id.to_string()));
        let Some(next) = page.next else { return all };
        place = Some(PagePlace::After(next));
    }
}

fn unreadable(store: &PostgresStore) -> Vec<&str> {
    store.unreadable().iter().map(|found| found.endpoint.as_str()).collect()
}

/// Goal: endpoints that cannot be read prevent nobody from opening the store, from using the other
/// endpoints, or from removing and replacing them. Method: one is encrypted by a lost key, one has
/// damaged settings.
#[tokio::test]
async fn an_endpoint_that_cannot_be_read_harms_no_other_and_can_be_replaced() {
    let url = Cluster::shared().database().await;
    let lost = keyed(&url, &[1]).open().await.unwrap();
    for name in ["b-lost", "d-lost"] {
        register(&lost, name, endpoint()).await;
    }
    lost.close().await;
    let store = keyed(&url, &[2]).open().await.unwrap();
    assert_eq!(unreadable(&store), ["b-lost", "d-lost"]);
    for name in ["a", "c", "c-damaged", "e"] {
        register(&store, name, endpoint()).await;
    }
    let damage = "UPDATE webhooks.endpoints SET settings = '{}' WHERE id = 'c-damaged'";
    sqlx::query(damage).execute(&mut connect(&url).await).await.unwrap();
    store.close().await;
    let store = keyed(&url, &[2]).open().await.unwrap();
    assert_eq!(unreadable(&store), ["b-lost", "d-lost", "c-damaged"]);
    let told = format!("{:?} {}", store.unreadable(), store.unreadable()[0]);
    assert!(!told.contains(SECRET), "{told}");
    for limit in 1..5 {
        assert_eq!(listed(&store, limit).await, ["a", "c", "e"], "by {limit}");
    }
    store.get(key("b-lost")).await.unwrap_err();
    publish(&store, ["first".to_owned()]).await;
    let claimed = claim(&store, 10).await;
    let to: BTreeSet<&str> =
        claimed.iter().map(|claimed| claimed.registration.id.as_str()).collect();
    assert_eq!(to, BTreeSet::from(["a", "c", "e"]));
    // One is replaced as it is, the others are removed first. Its state changes as for any other.
    for (again, state) in [
        (endpoint().inactive(), EndpointState::Disabled(DisableReason::Manual)),
        (endpoint(), EndpointState::Active),
    ] {
        register(&store, "b-lost", again).await;
        assert_eq!(store.get(key("b-lost")).await.unwrap().unwrap().state, state);
    }
    for name in ["d-lost", "c-damaged"] {
        let removed = store.unregister(key(name), Timestamp::now()).await.unwrap();
        assert_eq!(removed.endpoint.url.as_str(), "https://unreadable.invalid/");
        assert_eq!(removed.state, EndpointState::Active);
        assert!(store.get(key(name)).await.unwrap().is_none());
        assert_eq!(register(&store, name, endpoint()).await, Registered::Added);
    }
    assert_eq!(listed(&store, 10).await, ["a", "b-lost", "c", "c-damaged", "d-lost", "e"]);
    let events = vec![SerializedEvent::new(&Event::new("created", 2).unwrap())];
    assert_eq!(
        store.publish(events, Timestamp::now()).await.unwrap()[0].as_ref().unwrap().deliveries,
        6
    );
    store.close().await;
    assert!(keyed(&url, &[2]).open().await.unwrap().unreadable().is_empty());
}

/// Goal: while keys are rotated and processes come and go, each process can read every endpoint at
/// any time. Method: the steps of `docs/operations.md`, with a process of the step before beside
/// each.
#[tokio::test]
async fn keys_are_rotated_in_steps_while_processes_of_the_step_before_go_on() {
    let url = Cluster::shared().database().await;
    let mut before = keyed(&url, &[1]).open().await.unwrap();
    register(&before, "crm", endpoint()).await;
    // A process of the second step may have run beside one of the first, which encrypts by the old
    // key. So the third step opens the store once more.
    for (step, keys) in [[1, 2].as_slice(), &[2, 1], &[2, 1], &[2]].iter().enumerate() {
        let now = keyed(&url, keys).open().await.unwrap();
        assert!(now.unreadable().is_empty());
        for (n, store) in [&before, &now].into_iter().enumerate() {
            assert_eq!(store.get(key("crm")).await.unwrap().unwrap().endpoint, endpoint());
            let name = format!("endpoint-{step}-{n}");
            register(store, &name, endpoint()).await;
            for reader in [&before, &now] {
                assert!(reader.get(key(&name)).await.unwrap().is_some(), "{name}");
            }
        }
        before.close().await;
        before = now;
    }
    before.close().await;
    assert!(keyed(&url, &[2]).open().await.unwrap().unreadable().is_empty());
}
