//! What goes wrong with files: clear errors, and nothing that was accepted is lost.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join, join_all, join3, poll_fn};
use rusqlite::Connection;
use tempfile::TempDir;
use webhooks_core::{EndpointId, Event, EventId, TenantId, Timestamp};
use webhooks_dispatch::backlog::Window;
use webhooks_dispatch::{
    Attempt, ClaimRequest, Claimed, DeliveryStore as _, HistoryStore as _, Novelty, Outcome, Query,
    SerializedEvent, Settled, Settlement, StoreError,
};
use webhooks_registry::{Endpoint, EndpointStore as _, SealingKey};
use webhooks_sqlite::{OpenError, SqliteOptions, SqliteStore};

const SECRET: &str = "my-very-own-secret";

fn now() -> Timestamp {
    Timestamp::from_unix_seconds(1_767_225_600)
}

fn crm() -> EndpointId {
    EndpointId::new("crm").unwrap()
}

async fn open(folder: &TempDir) -> SqliteStore {
    SqliteStore::open(folder.path().join("store.db")).await.unwrap()
}

async fn open_with_endpoint(folder: &TempDir) -> SqliteStore {
    let store = open(folder).await;
    store.register(crm(), Endpoint::new("https://example.com/", SECRET).unwrap()).await.unwrap();
    store
}

fn event(id: &str, payload: &str) -> SerializedEvent {
    let event = Event::new("created", payload).unwrap().id(EventId::new(id).unwrap());
    SerializedEvent::new(&event)
}

async fn publish(store: &SqliteStore, id: &str) {
    let published = store.publish(vec![event(id, "payload")], now()).await.unwrap();
    assert_eq!(published[0].as_ref().unwrap().novelty, Novelty::New);
}

async fn claim(store: &SqliteStore) -> Vec<Claimed> {
    let lease = Duration::from_secs(60);
    let (limit, per_endpoint) = (100, 100);
    let request = || ClaimRequest { now: now(), lease, limit, per_endpoint, busy: Arc::default() };
    let mut wakeups = store.wakeups();
    loop {
        let claimed = store.claim(request()).await.unwrap();
        let due = store.next_due(Arc::default()).await.unwrap();
        if !claimed.is_empty() || due.is_none_or(|due| due > now()) {
            return claimed;
        }
        wakeups.next().await;
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

#[tokio::test]
async fn a_second_store_of_a_file_is_refused_and_told_by_whom() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let error = open_error(&folder.path().join("store.db")).await;
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    let process = format!("is in use by process {}; stop it first", std::process::id());
    assert!(error.to_string().contains(&process), "{error}");
    store.close().await;
    open(&folder).await.close().await;
}

#[tokio::test]
async fn a_closed_store_refuses_what_comes_and_frees_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_with_endpoint(&folder).await;
    let clone = store.clone();
    let waiting = publish(&store, "a");
    let ((), ()) = join(waiting, clone.clone().close()).await;
    let refused = clone.publish(vec![event("b", "payload")], now()).await;
    let error = refused.unwrap_err();
    assert_eq!(chain(&error), "the store is not available: the store is closed");
    let store = open(&folder).await;
    assert_eq!(claim(&store).await.len(), 1);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let text = "these are somebody's notes, and they are long enough to be a header ".repeat(9);
    std::fs::write(&path, &text).unwrap();
    let error = open_error(&path).await;
    assert!(chain(&error).contains("file is not a database"), "{}", chain(&error));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    let error = open_error(&folder.path().join("no/such/folder.db")).await;
    assert!(matches!(error, OpenError::File { .. }), "{error:?}");
}

/// Goal: one file is one store, by whatever path it is named.
#[cfg(unix)]
#[tokio::test]
async fn a_file_is_one_store_under_all_its_names() {
    use std::os::unix::fs::symlink;

    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("real")).unwrap();
    symlink(at("real"), at("folder")).unwrap();
    symlink(at("real/store.db"), at("link.db")).unwrap();
    // The first opens a link to a file that is not there yet.
    let store = SqliteStore::open(at("link.db")).await.unwrap();
    store.register(crm(), Endpoint::new("https://example.com/", SECRET).unwrap()).await.unwrap();
    for name in
        ["real/store.db", "link.db", "folder/store.db", "real/./store.db", "real/../link.db"]
    {
        let error = open_error(&at(name)).await;
        assert!(matches!(error, OpenError::InUse { .. }), "{name}: {error:?}");
    }
    publish(&store, "1").await;
    let page = store.events(Query::default()).await.unwrap();
    assert_eq!(page.items.len(), 1, "readers find the file too");
    store.close().await;

    std::fs::hard_link(at("real/store.db"), at("other.db")).unwrap();
    for name in ["real/store.db", "other.db"] {
        let error = open_error(&at(name)).await;
        assert!(matches!(error, OpenError::HardLinks { .. }), "{name}: {error:?}");
    }
    std::fs::remove_file(at("other.db")).unwrap();
    assert_eq!(claim(&SqliteStore::open(at("folder/store.db")).await.unwrap()).await.len(), 1);
}

#[tokio::test]
async fn a_path_that_names_no_file_is_refused() {
    for path in ["", ":memory:", "file:store.db?mode=memory"] {
        let error = open_error(Path::new(path)).await;
        assert!(matches!(error, OpenError::NoFile { .. }), "{path:?}: {error:?}");
        assert!(error.to_string().contains("is no file"), "{error}");
    }
}

#[tokio::test]
async fn a_file_of_a_later_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    open(&folder).await.close().await;
    let path = folder.path().join("store.db");
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = open_error(&path).await;
    assert!(matches!(error, OpenError::Newer { found: 99, .. }), "{error:?}");
}

#[tokio::test]
async fn a_file_of_an_earlier_version_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let first = Connection::open(folder.path().join("store.db")).unwrap();
    first.execute_batch(include_str!("../migrations/0001_start.sql")).unwrap();
    first.pragma_update(None, "user_version", 1).unwrap();
    drop(first);
    let store = open_with_endpoint(&folder).await;
    publish(&store, "1").await;
    let claimed = claim(&store).await.remove(0);
    let mut settlement = settlement(&claimed);
    settlement.attempt.as_mut().unwrap().response_headers = "server: x".to_owned();
    let _kept = store.settle(vec![settlement.clone()], now()).await.unwrap();
    let page = store.attempts(Query::default()).await.unwrap();
    assert_eq!(Some(&page.items[0].attempt), settlement.attempt.as_ref());
}

/// Goal: a full store refuses what is new, settles all that it accepted, and room heals it. Method: a
/// limit on the file's size; then responses that are larger than all the room that is left.
#[tokio::test]
async fn a_full_store_refuses_new_events_and_settles_what_it_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = SqliteOptions::new(&path).max_bytes(400_000).open().await.unwrap();
    store.register(crm(), Endpoint::new("https://example.com/", SECRET).unwrap()).await.unwrap();
    let large = "x".repeat(5_000);
    let mut accepted = 0;
    let error = loop {
        let id = format!("event-{accepted}");
        match store.publish(vec![event(&id, &large)], now()).await {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    assert!(accepted > 10);
    let claimed = claim(&store).await;
    assert_eq!(claimed.len(), accepted, "what was accepted is delivered");
    drop(claimed);
    store.close().await;

    let store = SqliteOptions::new(&path).max_bytes(400_000).open().await.unwrap();
    let claimed = claim(&store).await;
    assert_eq!(claimed.len(), accepted, "also after a restart");
    store.cancel(claimed[0].claim.delivery, now()).await.unwrap();
    let mut settlements: Vec<Settlement> = claimed[1..].iter().map(settlement).collect();
    for settlement in &mut settlements {
        let attempt = settlement.attempt.as_mut().unwrap();
        attempt.response = Bytes::from("y".repeat(4_000));
    }
    for batch in settlements.chunks(7) {
        let settled = store.settle(batch.to_vec(), now()).await.unwrap();
        assert!(settled.iter().all(|settled| matches!(settled, Settled::Kept { .. })));
        // It stays full for those who publish.
        let refused = store.publish(vec![event("another", &large)], now()).await.unwrap_err();
        assert!(matches!(refused, StoreError::Full { .. }), "{refused:?}");
    }
    let statistics = store.statistics(crm(), Timestamp::UNIX_EPOCH).await.unwrap();
    let delivered = u64::try_from(accepted - 1).unwrap();
    assert_eq!((statistics.delivered, statistics.cancelled), (delivered, 1));
    let attempts = store.attempts(Query::default()).await.unwrap().items.len();
    assert!((1..accepted - 1).contains(&attempts), "{attempts} of {accepted} were recorded");
    let (_, errors) = claim_all(&store).await;
    assert!(errors.iter().any(|error| chain(error).contains("were not recorded")), "{errors:?}");
    while store.prune(now() + Duration::from_secs(1), 10).await.unwrap() > 0 {}
    publish(&store, "there-is-room-again").await;
}

/// Goal: one settlement that cannot be kept stops no other of its batch, and its claim goes on.
/// Method: a trigger refuses the row of one delivery, and the attempt of another.
#[tokio::test]
async fn one_settlement_that_cannot_be_kept_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_with_endpoint(&folder).await;
    for n in 1..=4 {
        publish(&store, &format!("event-{n}")).await;
    }
    let claimed = claim(&store).await;
    let other = Connection::open(folder.path().join("store.db")).unwrap();
    let refuse = "
        CREATE TRIGGER no_row BEFORE UPDATE ON deliveries WHEN new.number = 2
        BEGIN SELECT RAISE(ABORT, 'not this one'); END;
        CREATE TRIGGER no_attempt BEFORE INSERT ON attempts WHEN new.delivery = 3
        BEGIN SELECT RAISE(ABORT, 'nor this one'); END;";
    other.execute_batch(refuse).unwrap();
    let settlements: Vec<Settlement> = claimed.iter().map(settlement).collect();
    let settled = store.settle(settlements.clone(), now()).await.unwrap();
    let kept = settled.iter().map(|settled| matches!(settled, Settled::Kept { .. }));
    assert_eq!(kept.collect::<Vec<_>>(), [true, false, true, true]);
    let page = store.attempts(Query::default()).await.unwrap();
    let attempts: Vec<u64> = page.items.iter().map(|found| found.delivery.as_u64()).collect();
    assert_eq!(attempts, [4, 1]);
    let (_, errors) = claim_all(&store).await;
    let told: Vec<String> = errors.iter().map(|error| chain(error)).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("not this one") && told[1].contains("nor this one"), "{told:?}");
    // Alone, it is refused as a whole.
    let alone = vec![settlements[1].clone()];
    let refused = store.settle(alone.clone(), now()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused:?}");
    other.execute_batch("DROP TRIGGER no_row").unwrap();
    let settled = store.settle(alone, now()).await.unwrap();
    assert!(matches!(settled[0], Settled::Kept { .. }), "its claim went on");
}

/// Goal: one bad command fails alone. Method: a lock keeps the writer waiting, so that a publish, a
/// settlement that a trigger refuses, and another publish gather in one group.
#[tokio::test]
async fn one_bad_command_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_with_endpoint(&folder).await;
    publish(&store, "first").await;
    let claimed = claim(&store).await;
    let other = Connection::open(folder.path().join("store.db")).unwrap();
    let refuse = "CREATE TRIGGER refuse BEFORE UPDATE ON deliveries
        BEGIN SELECT RAISE(ABORT, 'not now'); END;";
    other.execute_batch(refuse).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();

    let waiting = publish(&store, "keeps-the-writer-busy");
    let good = publish(&store, "good");
    let bad = store.settle(vec![settlement(&claimed[0])], now());
    let good_too = publish(&store, "good-too");
    let mut all = Box::pin(join(waiting, join3(good, bad, good_too)));
    // Asked once, all have handed their commands over; then the lock goes.
    poll_fn(|context| {
        assert!(all.as_mut().poll(context).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
    other.execute_batch("COMMIT").unwrap();
    let ((), ((), settled, ())) = all.await;
    assert!(matches!(settled, Err(StoreError::Unavailable { .. })), "{settled:?}");
    let events = store.events(Query::default()).await.unwrap();
    assert_eq!(events.items.len(), 4);
    // The claim goes on, and can be settled once the reason is gone.
    other.execute_batch("DROP TRIGGER refuse").unwrap();
    let settled = store.settle(vec![settlement(&claimed[0])], now()).await.unwrap();
    assert_eq!(settled.len(), 1);
}

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

/// Claims until nothing is due, past errors, which are returned too.
async fn claim_all(store: &SqliteStore) -> (Vec<Claimed>, Vec<StoreError>) {
    let (mut all, mut errors) = (Vec::new(), Vec::new());
    let mut wakeups = store.wakeups();
    loop {
        let lease = Duration::from_secs(60);
        let (limit, per_endpoint, busy) = (100, 100, Arc::default());
        let request = ClaimRequest { now: now(), lease, limit, per_endpoint, busy };
        let due = match store.claim(request).await {
            Err(error) => {
                errors.push(error);
                continue;
            }
            Ok(claimed) if claimed.is_empty() => store.next_due(Arc::default()).await.unwrap(),
            Ok(claimed) => {
                all.extend(claimed);
                continue;
            }
        };
        if due.is_none_or(|due| due > now()) {
            return (all, errors);
        }
        wakeups.next().await;
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
        store.register(EndpointId::new(name).unwrap(), endpoint).await.unwrap();
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

#[tokio::test]
async fn everything_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_with_endpoint(&folder).await;
    let ordered = Endpoint::new("https://example.com/", SECRET).unwrap().ordered();
    store.register(EndpointId::new("erp").unwrap(), ordered).await.unwrap();
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
    let endpoints = store.list(None, None, 10).await.unwrap();
    store.close().await;

    let store = open(&folder).await;
    assert_eq!(store.list(None, None, 10).await.unwrap(), endpoints);
    assert!(claim(&store).await.is_empty(), "retries wait as long as they would have");
    let statistics = store.statistics(crm(), Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!((statistics.delivered, statistics.retrying), (1, 1));
    assert_eq!(statistics.failing_since, None, "the last attempt succeeded");
    let erp = EndpointId::new("erp").unwrap();
    let statistics = store.statistics(erp, Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(statistics.failing_since, Some(now()));
    let repeated = store.publish(vec![event("a", "payload")], now()).await.unwrap();
    assert_eq!(repeated[0].as_ref().unwrap().novelty, Novelty::Repeated);
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
    store.unregister(crm()).await.unwrap();
    let mut published = 0;
    loop {
        publish(&store, &format!("other-{published}")).await;
        published += 1;
        let left = store.statistics(crm(), Timestamp::UNIX_EPOCH).await.unwrap();
        if left.pending == 0 {
            assert_eq!(left.cancelled, 2_500);
            break;
        }
        assert!(published < 10_000, "{left:?}");
    }
    store.register(crm(), Endpoint::new("https://example.com/", SECRET).unwrap()).await.unwrap();
    assert!(claim(&store).await.is_empty(), "nothing is left over for who comes after");
}

#[tokio::test]
async fn secrets_are_encrypted_and_keys_rotate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let key = |byte| SealingKey::from_bytes([byte; 32]);
    let holds_secret = || {
        ["store.db", "store.db-wal"].iter().any(|name| {
            let bytes = std::fs::read(folder.path().join(name)).unwrap_or_default();
            bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes())
        })
    };
    let endpoint = Endpoint::new("https://example.com/", SECRET).unwrap();
    let keyed = |keys: Vec<SealingKey>| SqliteOptions::new(&path).sealing_keys(keys);
    let store = keyed(vec![key(1)]).open().await.unwrap();
    store.register(crm(), endpoint.clone()).await.unwrap();
    store.close().await;
    assert!(!holds_secret());

    let error = SqliteStore::open(&path).await.unwrap_err();
    let told = "the secrets are encrypted, and no key is configured";
    assert!(chain(&error).contains(told), "{}", chain(&error));
    let error = keyed(vec![key(2)]).open().await.unwrap_err();
    assert!(chain(&error).contains("encrypted with another key"), "{}", chain(&error));
    // The new key before the old one; then the old one is no longer needed.
    keyed(vec![key(2), key(1)]).open().await.unwrap().close().await;
    let store = keyed(vec![key(2)]).open().await.unwrap();
    assert_eq!(store.get(crm()).await.unwrap().unwrap().endpoint, endpoint);
    store.close().await;
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

#[tokio::test]
async fn people_can_read_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_with_endpoint(&folder).await;
    publish(&store, "order-17").await;
    let random = SerializedEvent::new(&Event::new("created", 1).unwrap());
    let id = random.id.to_string();
    assert!(store.publish(vec![random], now()).await.unwrap()[0].is_ok());
    let other = Connection::open(folder.path().join("store.db")).unwrap();
    let list =
        "SELECT event || ' ' || endpoint || ' ' || status || ' ' || since FROM delivery_list";
    let mut statement = other.prepare(list).unwrap();
    let found: Vec<String> =
        statement.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let expected = ["order-17".to_owned(), id];
    let expected = expected.map(|id| format!("{id} crm pending 2026-01-01 00:00:00"));
    assert_eq!(found, expected);
    let found = store.event(TenantId::default(), EventId::new("order-17").unwrap()).await;
    assert_eq!(found.unwrap().unwrap().event.payload.as_str(), "\"payload\"");
}
