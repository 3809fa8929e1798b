//! Rows and pages that are damaged.

use rusqlite::Connection;
use webhooks_core::{EndpointId, Event, EventId, TenantId};
use webhooks_dispatch::backlog::Window;
use webhooks_dispatch::{
    history::{HistoryStore as _, Query},
    store::{DeliveryStore as _, SerializedEvent, StoreError},
};
use webhooks_registry::{
    DisableReason, Endpoint, EndpointKey, EndpointState,
    seal::SealingKey,
    store::{EndpointStore as _, Registered, StateChange},
};
use webhooks_sqlite::{SqliteOptions, SqliteStore};

use crate::{
    SECRET, chain, claim, claim_all, list, now, open, open_with_endpoint, publish, register,
};

#[tokio::test]
async fn a_damaged_page_is_told_as_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = open_with_endpoint(&folder).await;
    for n in 0..50 {
        publish(&store, &format!("event-{n}")).await;
    }
    store.close().await;
    let mut bytes = std::fs::read(&path).unwrap();
    let start = bytes.len() / 2;
    bytes[start..].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    match SqliteStore::open(&path).await {
        Err(error) => assert!(chain(&error).contains("malformed"), "{}", chain(&error)),
        Ok(store) => {
            let error = store.deliveries(Query::default()).await.unwrap_err();
            assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
        }
    }
}

/// Goal: rows that cannot be read are passed over and told, and hurt nobody else. Method: a window
/// of three over ten deliveries of each of five endpoints, of which one has two damaged events: one
/// with a type that is none, one with a damaged page under its body.
#[tokio::test]
async fn what_cannot_be_read_is_passed_over_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = open(&folder).await;
    for name in ["a", "b", "c", "d", "e"] {
        let endpoint = Endpoint::new("https://example.com/", SECRET).unwrap();
        let endpoint = endpoint.tenant(TenantId::new(name).unwrap());
        register(&store, EndpointId::new(name).unwrap(), endpoint).await;
        for n in 0..10 {
            let payload = if n == 6 { "q".repeat(30_000) } else { "payload".to_owned() };
            let event = Event::new("created", payload.as_str()).unwrap();
            let event = event.id(EventId::new(&format!("{name}-{n}")).unwrap());
            let event = SerializedEvent::new(&event.tenant(TenantId::new(name).unwrap()));
            assert!(store.publish(vec![event], now()).await.unwrap()[0].is_ok());
        }
    }
    store.close().await;
    let other = Connection::open(&path).unwrap();
    other.execute("UPDATE events SET type = 'no type!' WHERE id = 'a-5'", ()).unwrap();
    drop(other);
    let mut bytes = std::fs::read(&path).unwrap();
    let page = bytes.chunks_exact_mut(4_096).find(|page| page[4..].iter().all(|b| *b == b'q'));
    // The number of the next page of the body (SQLite, "Database File Format", 1.6).
    page.unwrap()[..4].fill(0xff);
    std::fs::write(&path, bytes).unwrap();

    let window = Window { per_endpoint: 3, bytes: 100_000 };
    let store = SqliteOptions::new(&path).window(window).open().await.unwrap();
    let (claimed, errors) = claim_all(&store).await;
    let of = |name: &str| claimed.iter().filter(|c| c.registration.id.as_str() == name).count();
    assert_eq!(["a", "b", "c", "d", "e"].map(of), [8, 10, 10, 10, 10], "{errors:?}");
    let told: Vec<String> = errors.iter().map(|error| chain(error)).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|told| told.contains("is passed over")), "{told:?}");
    assert!(errors.iter().all(|error| matches!(error, StoreError::Corrupt { .. })));
}

/// Goal: an endpoint whose row cannot be read hurts no other, keeps what waits for it, and can be
/// mended. Method: one byte of the secrets of one of three endpoints is changed, and the settings of
/// another are none.
#[tokio::test]
async fn an_endpoint_that_cannot_be_read_is_inactive_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let options = || SqliteOptions::new(&path).sealing_keys([SealingKey::from_bytes([1; 32])]);
    let id = |name: &str| EndpointId::new(name).unwrap();
    let key = |name: &str| EndpointKey::of_default_tenant(id(name));
    let endpoint = || Endpoint::new("https://example.com/hook", SECRET).unwrap();
    let store = options().open().await.unwrap();
    for name in ["good", "lost", "torn"] {
        register(&store, id(name), endpoint()).await;
    }
    publish(&store, "1").await;
    store.close().await;
    let other = Connection::open(&path).unwrap();
    let damage = "
        UPDATE endpoints SET secrets = substr(secrets, 1, 30)
            || CASE substr(secrets, 31, 1) WHEN x'00' THEN x'01' ELSE x'00' END
            || substr(secrets, 32) WHERE id = 'lost';
        UPDATE endpoints SET settings = '{' WHERE id = 'torn';";
    other.execute_batch(damage).unwrap();

    let store = options().open().await.unwrap();
    let listed = list(&store).await;
    assert_eq!(listed.len(), 1, "{listed:?}");
    for name in ["lost", "torn"] {
        let error = store.get(key(name)).await.unwrap_err();
        assert!(chain(&error).contains("cannot be read and is inactive"), "{}", chain(&error));
    }
    let (claimed, errors) = claim_all(&store).await;
    assert_eq!(claimed.len(), 1, "the good one gets its own");
    let told: Vec<String> = errors.iter().map(|error| chain(error)).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("lost") && told[1].contains("torn"), "{told:?}");
    publish(&store, "2").await;
    assert_eq!(claim(&store).await.len(), 1);
    // The same id of another tenant is another endpoint, and gets nothing that waits for this one.
    let stranger = endpoint().tenant(TenantId::new("umbrella").unwrap());
    assert_eq!(register(&store, id("lost"), stranger).await, Registered::Added);
    assert!(claim(&store).await.is_empty());
    register(&store, id("lost"), endpoint()).await;
    assert_eq!(store.get(key("lost")).await.unwrap().unwrap().endpoint, endpoint());
    let claimed = claim(&store).await;
    assert_eq!(claimed.len(), 1, "what waited");
    assert_eq!(claimed[0].registration.id, id("lost"));
    let gone = store.unregister(key("torn"), now()).await.unwrap();
    assert_eq!(gone.endpoint.url.as_str(), "https://unreadable.invalid/");
    assert_eq!(store.get(key("torn")).await.unwrap(), None);
    store.close().await;
    let store = options().open().await.unwrap();
    assert_eq!(list(&store).await.len(), 3);
}

/// Goal: a damaged row that is mended while the store is closed gets what waited for it.
#[tokio::test]
async fn what_waits_for_an_endpoint_that_cannot_be_read_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_with_endpoint(&folder).await;
    publish(&store, "1").await;
    store.close().await;
    let other = Connection::open(folder.path().join("store.db")).unwrap();
    let settings: String =
        other.query_row("SELECT settings FROM endpoints", (), |row| row.get(0)).unwrap();
    other.execute("UPDATE endpoints SET settings = '{}'", ()).unwrap();
    let store = open(&folder).await;
    let (claimed, errors) = claim_all(&store).await;
    assert_eq!((claimed.len(), errors.len()), (0, 1));
    store.close().await;
    other.execute("UPDATE endpoints SET settings = ?", [settings]).unwrap();
    assert_eq!(claim(&open(&folder).await).await.len(), 1);
}

/// Goal: registering anew an endpoint whose row cannot be read changes its state as for any other.
#[tokio::test]
async fn an_endpoint_that_cannot_be_read_keeps_its_state_when_it_is_registered_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let endpoint = || Endpoint::new("https://example.com/hook", SECRET).unwrap();
    let key = |name: &str| EndpointKey::of_default_tenant(EndpointId::new(name).unwrap());
    let disabled = EndpointState::Disabled(DisableReason::Manual);
    let store = SqliteOptions::new(&path).open().await.unwrap();
    for name in ["open", "off", "to-be-off"] {
        let id = EndpointId::new(name).unwrap();
        register(&store, id, endpoint()).await;
    }
    let off = StateChange::Disable(DisableReason::Manual);
    store.set_state(key("off"), off, now()).await.unwrap();
    store.close().await;
    let other = Connection::open(&path).unwrap();
    other.execute("UPDATE endpoints SET settings = '{'", ()).unwrap();
    let store = SqliteOptions::new(&path).open().await.unwrap();
    for (name, again, state) in [
        ("open", endpoint(), EndpointState::Active),
        ("off", endpoint(), disabled),
        ("to-be-off", endpoint().inactive(), disabled),
    ] {
        register(&store, EndpointId::new(name).unwrap(), again).await;
        assert_eq!(store.get(key(name)).await.unwrap().unwrap().state, state, "{name}");
    }
}
