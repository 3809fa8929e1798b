//! Failures of files: the errors are clear, and no accepted event is lost.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod damage;
mod files;
mod room;

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join, join_all, join3, poll_fn};
use rusqlite::Connection;
use tempfile::TempDir;
use webhooks_core::{EndpointId, Event, EventId, Timestamp};
use webhooks_dispatch::{
    PublishStatus,
    clock::{MonotonicTime, Now},
    history::{HistoryStore as _, Query},
    monitor::MonitorStore as _,
    store::{
        Attempt, ClaimRequest, Claimed, DeliveryStore as _, OperationStore as _, Outcome, Room,
        SerializedEvent, Settled, Settlement, StoreError,
    },
};
use webhooks_registry::{
    Endpoint, EndpointKey, EndpointQuery, Registration,
    seal::SealingKey,
    store::{EndpointStore as _, RegisterRequest, Registered},
};
use webhooks_sqlite::{OpenError, SqliteOptions, SqliteStore};

const SECRET: &str = "my-very-own-secret";

fn now() -> Timestamp {
    Timestamp::from_unix_seconds(1_767_225_600)
}

/// Both clocks at that time.
fn clocks() -> Now {
    Now { wall: now(), monotonic: MonotonicTime::from_origin(Duration::ZERO) }
}

fn crm() -> EndpointId {
    EndpointId::new("crm").unwrap()
}

fn key() -> EndpointKey {
    EndpointKey::of_default_tenant(crm())
}

async fn open(folder: &TempDir) -> SqliteStore {
    SqliteStore::open(folder.path().join("store.db")).await.unwrap()
}

async fn open_with_endpoint(folder: &TempDir) -> SqliteStore {
    let store = open(folder).await;
    register(&store, crm(), Endpoint::new("https://example.com/", SECRET).unwrap()).await;
    store
}

async fn register(store: &SqliteStore, id: EndpointId, endpoint: Endpoint) -> Registered {
    store.register(RegisterRequest::new(id, endpoint, now())).await.unwrap()
}

async fn list(store: &SqliteStore) -> Vec<Arc<Registration>> {
    store.list(EndpointQuery::default()).await.unwrap().items
}

fn event(id: &str, payload: &str) -> SerializedEvent {
    let event = Event::new("created", payload).unwrap().id(EventId::new(id).unwrap());
    SerializedEvent::new(&event)
}

async fn publish(store: &SqliteStore, id: &str) {
    let published = store.publish(vec![event(id, "payload")], now()).await.unwrap();
    assert_eq!(published[0].as_ref().unwrap().status, PublishStatus::Created);
}

async fn claim(store: &SqliteStore) -> Vec<Claimed> {
    let lease = Duration::from_secs(60);
    let (limit, per_endpoint) = (100, 100);
    let request = || ClaimRequest {
        now: clocks(),
        lease,
        limit,
        per_endpoint,
        bytes: usize::MAX,
        room: Room::new(),
    };
    let mut changes = store.changes();
    loop {
        let claimed = store.claim(request()).await.unwrap();
        let due = store.next_due(Room::new(), clocks()).await.unwrap();
        if !claimed.is_empty() || due.is_none_or(|due| due > Duration::ZERO) {
            return claimed;
        }
        changes.changed().await;
    }
}

fn settlement(claimed: &Claimed) -> Settlement {
    let attempt = Attempt {
        started_at: now(),
        duration: Duration::from_millis(1),
        status_code: Some(200),
        error_class: None,
        error: None,
        response_headers: String::new(),
        response: Bytes::new(),
    };
    Settlement { claim: claimed.claim, outcome: Outcome::Delivered, attempt: Some(attempt) }
}

async fn open_error(path: &Path) -> OpenError {
    SqliteStore::open(path)
        .await
        .err()
        .unwrap_or_else(|| panic!("{} can be opened", path.display()))
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Claims until nothing is due, past errors, which are returned too.
async fn claim_all(store: &SqliteStore) -> (Vec<Claimed>, Vec<StoreError>) {
    let (mut all, mut errors) = (Vec::new(), Vec::new());
    let mut changes = store.changes();
    loop {
        let lease = Duration::from_secs(60);
        let (limit, per_endpoint, bytes, room) = (100, 100, usize::MAX, Room::new());
        let request = ClaimRequest { now: clocks(), lease, limit, per_endpoint, bytes, room };
        let due = match store.claim(request).await {
            Err(error) => {
                errors.push(error);
                continue;
            }
            Ok(claimed) if claimed.is_empty() => {
                store.next_due(Room::new(), clocks()).await.unwrap()
            }
            Ok(claimed) => {
                all.extend(claimed);
                continue;
            }
        };
        if due.is_none_or(|due| due > Duration::ZERO) {
            return (all, errors);
        }
        changes.changed().await;
    }
}

#[tokio::test]
async fn everything_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_with_endpoint(&folder).await;
    let ordered = Endpoint::new("https://example.com/", SECRET).unwrap().ordered();
    register(&store, EndpointId::new("erp").unwrap(), ordered).await;
    publish(&store, "a").await;
    publish(&store, "b").await;
    let claimed = claim(&store).await;
    assert_eq!(claimed.len(), 3, "two for one, the head for the other");
    let later = now() + Duration::from_secs(600);
    let mut settlements: Vec<Settlement> = claimed.iter().map(settlement).collect();
    for (settlement, claimed) in settlements.iter_mut().zip(&claimed) {
        if claimed.registration.id.as_str() == "erp" || claimed.event.id.to_string() == "a" {
            settlement.outcome = Outcome::Retrying { due_at: later };
        }
    }
    let before = store.settle(settlements, now()).await.unwrap();
    assert_eq!(before.len(), 3);
    let endpoints = list(&store).await;
    store.close().await;

    let store = open(&folder).await;
    assert_eq!(list(&store).await, endpoints);
    assert!(claim(&store).await.is_empty(), "retries wait as long as they would have");
    let statistics = store.statistics(key(), Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!((statistics.delivered, statistics.retrying), (1, 1));
    assert_eq!(statistics.failing_since, None, "the last attempt succeeded");
    let erp = EndpointKey::of_default_tenant(EndpointId::new("erp").unwrap());
    let statistics = store.statistics(erp, Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(statistics.failing_since, Some(now()));
    let repeated = store.publish(vec![event("a", "payload")], now()).await.unwrap();
    assert_eq!(repeated[0].as_ref().unwrap().status, PublishStatus::Duplicate);
    publish(&store, "c").await;
    let page = store.deliveries(Query::default()).await.unwrap();
    let numbers: Vec<u64> = page.items.iter().map(|found| found.id.as_u64()).collect();
    assert_eq!(numbers, [6, 5, 4, 3, 2, 1], "numbers go on");
}

/// Goal: an endpoint that goes with a large backlog holds up nobody, and all of it is cancelled.
/// Method: more deliveries than are cancelled in one transaction; then others are published.
#[tokio::test]
async fn what_waits_for_an_endpoint_that_is_gone_is_cancelled_bit_by_bit() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_with_endpoint(&folder).await;
    for batch in 0..5 {
        let events = (0..500).map(|n| event(&format!("event-{batch}-{n}"), "payload"));
        assert_eq!(store.publish(events.collect(), now()).await.unwrap().len(), 500);
    }
    store.unregister(key(), now()).await.unwrap();
    let mut published = 0;
    loop {
        publish(&store, &format!("other-{published}")).await;
        published += 1;
        let left = store.statistics(key(), Timestamp::UNIX_EPOCH).await.unwrap();
        if left.pending == 0 {
            assert_eq!(left.cancelled, 2_500);
            break;
        }
        assert!(published < 10_000, "{left:?}");
    }
    register(&store, crm(), Endpoint::new("https://example.com/", SECRET).unwrap()).await;
    assert!(claim(&store).await.is_empty(), "nothing is left over for who comes after");
}

#[tokio::test]
async fn secrets_are_encrypted_and_keys_rotate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let sealing = |byte| SealingKey::from_bytes([byte; 32]);
    let holds_secret = || {
        ["store.db", "store.db-wal"].iter().any(|name| {
            let bytes = std::fs::read(folder.path().join(name)).unwrap_or_default();
            bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes())
        })
    };
    let endpoint = Endpoint::new("https://example.com/", SECRET).unwrap();
    let keyed = |keys: Vec<SealingKey>| SqliteOptions::new(&path).sealing_keys(keys);
    let store = keyed(vec![sealing(1)]).open().await.unwrap();
    register(&store, crm(), endpoint.clone()).await;
    store.close().await;
    assert!(!holds_secret());

    let error = SqliteStore::open(&path).await.unwrap_err();
    let told = "the secrets are encrypted, and no key is configured";
    assert!(chain(&error).contains(told), "{}", chain(&error));
    let error = keyed(vec![sealing(2)]).open().await.unwrap_err();
    assert!(chain(&error).contains("encrypted with another key"), "{}", chain(&error));
    // The tables of an application need no key, and the secrets stay as they are.
    let store = SqliteOptions::new(&path).without_secrets().open().await.unwrap();
    let made = store.transaction(|change| change.execute_batch("CREATE TABLE orders (id)")).await;
    made.unwrap();
    store.close().await;
    // The new key before the old one; then the old one is no longer needed.
    keyed(vec![sealing(2), sealing(1)]).open().await.unwrap().close().await;
    let store = keyed(vec![sealing(2)]).open().await.unwrap();
    assert_eq!(store.get(key()).await.unwrap().unwrap().endpoint, endpoint);
    store.close().await;
}

/// Goal: commands that wait behind a slow commit come out one after the other, also on disk. Method:
/// a lock keeps the writer waiting until all have gathered.
#[tokio::test]
async fn commands_that_wait_together_are_as_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_with_endpoint(&folder).await;
    let erp = EndpointId::new("erp").unwrap();
    let endpoint = Endpoint::new("https://example.com/", SECRET).unwrap();
    register(&store, erp.clone(), endpoint.clone()).await;
    publish(&store, "1").await;
    let claimed = claim(&store).await;
    let of_erp = claimed.iter().find(|claimed| claimed.registration.id == erp).unwrap();
    let due_at = now() + Duration::from_secs(1);
    let retry = Settlement { outcome: Outcome::Retrying { due_at }, ..settlement(of_erp) };
    let other = Connection::open(folder.path().join("store.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let again = RegisterRequest::new(crm(), endpoint, now());
    let mut all = Box::pin(join(
        join3(publish(&store, "2"), store.unregister(key(), now()), store.register(again)),
        join(store.cancel(vec![of_erp.claim.delivery], now()), store.settle(vec![retry], now())),
    ));
    poll_fn(|context| {
        assert!(all.as_mut().poll(context).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
    other.execute_batch("COMMIT").unwrap();
    let (((), gone, came), (cancelled, settled)) = all.await;
    assert!(gone.is_ok() && cancelled.is_ok(), "{gone:?} {cancelled:?}");
    assert_eq!(came.unwrap(), Registered::Added, "it was unregistered before");
    assert_eq!(settled.unwrap(), [Settled::LeaseLost]);
    publish(&store, "3").await;
    store.close().await;
    let store = open(&folder).await;
    assert!(store.get(key()).await.unwrap().is_some());
    // The first claim may come before all lanes are read.
    let (claimed, _errors) = claim_all(&store).await;
    let mut events: Vec<String> =
        claimed.iter().map(|c| format!("{} {}", c.registration.id, c.event.id)).collect();
    events.sort();
    assert_eq!(events, ["crm 3", "erp 2", "erp 3"]);
}

#[tokio::test]
async fn secrets_are_encrypted_anew_in_one_transaction() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let endpoint = Endpoint::new("https://example.com/", SECRET).unwrap();
    for n in 0..20 {
        let id = EndpointId::new(&format!("crm-{n}")).unwrap();
        register(&store, id, endpoint.clone()).await;
    }
    store.close().await;
    let keys = [SealingKey::from_bytes([1; 32])];
    let options = SqliteOptions::new(folder.path().join("store.db")).sealing_keys(keys);
    let store = options.open().await.unwrap();
    assert_eq!(commits(&folder), 1);
    let listed = list(&store).await;
    assert!(listed.len() == 20 && listed.iter().all(|found| found.endpoint == endpoint));
}

/// Goal: what waits is committed at once, and readers don't wait for the writer. Method: a lock
/// keeps the writer waiting until fifty events have gathered; then the log tells the commits.
#[tokio::test]
async fn commands_that_wait_are_committed_together_and_readers_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = open_with_endpoint(&folder).await;
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let before = commits(&folder);
    let ids: Vec<String> = (0..50).map(|n| format!("event-{n}")).collect();
    let mut all = Box::pin(join_all(ids.iter().map(|id| publish(&store, id))));
    poll_fn(|context| {
        assert!(all.as_mut().poll(context).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
    let page = store.events(Query::default()).await.unwrap();
    assert_eq!(page.items.len(), 0, "read while the writer waits");
    other.execute_batch("COMMIT").unwrap();
    all.await;
    let commits = commits(&folder) - before;
    assert!((1..=2).contains(&commits), "{commits} commits of 50 events");
}

/// Returns how many commits the write-ahead log holds (SQLite, "WAL File Format": a frame that
/// commits tells the size of the database in its second word).
fn commits(folder: &TempDir) -> usize {
    let log = std::fs::read(folder.path().join("store.db-wal")).unwrap();
    let word = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    let page = usize::try_from(word(&log[8..12])).unwrap();
    // Frames of an older generation of the log have another salt.
    let salt = &log[16..24];
    let frames = log[32..].chunks_exact(24 + page);
    frames.filter(|frame| frame[8..16] == *salt && word(&frame[4..8]) > 0).count()
}

#[tokio::test]
async fn what_was_committed_is_handed_out_without_being_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_with_endpoint(&folder).await;
    publish(&store, "a").await;
    let other = Connection::open(folder.path().join("store.db")).unwrap();
    other.execute("UPDATE events SET body = 'changed on disk'", ()).unwrap();
    let claimed = claim(&store).await;
    assert!(claimed[0].event.is_same_content(&event("a", "payload").body));
}
