//! The file: its lock, its path, its version.

use std::collections::BTreeSet;
use std::path::Path;

use futures_util::future::join;
use rusqlite::Connection;
use webhooks_core::{Event, EventId, TenantId};
use webhooks_dispatch::{
    history::{HistoryStore as _, Query},
    store::{DeliveryStore as _, ExpungeRequest, OperationStore as _, SerializedEvent, Settled},
};
use webhooks_registry::Endpoint;
use webhooks_sqlite::{OpenError, SqliteStore};

use crate::{
    SECRET, chain, claim, crm, event, now, open, open_error, open_with_endpoint, publish, register,
    settlement,
};

#[tokio::test]
async fn a_second_store_of_a_file_is_refused_and_told_by_whom() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let error = open_error(&folder.path().join("store.db")).await;
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    let process =
        "is in use by another store in this process, or a process of another container; stop";
    assert!(error.to_string().contains(process), "{error}");
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
    register(&store, crm(), Endpoint::new("https://example.com/", SECRET).unwrap()).await;
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

/// Goal: exactly the file that is named is made, and found again. Method: names that mean something
/// to SQLite, to URLs or to a shell.
#[tokio::test]
async fn a_file_has_the_name_that_it_was_given_whatever_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let names = [
        "a b.db",
        "a%20b.db",
        "a%2Fb.db",
        "a#b.db",
        "a.db?mode=ro",
        "a;b.db",
        "'a\"b'.db",
        "a&b.db",
        "größe.db",
        "file:colon.db",
        ":memory:",
        "a\nb.db",
    ];
    for name in names {
        let path = folder.path().join(name);
        let store = SqliteStore::open(&path).await.unwrap();
        publish(&store, "1").await;
        store.close().await;
        let store = SqliteStore::open(&path).await.unwrap();
        assert_eq!(store.events(Query::default()).await.unwrap().items.len(), 1, "{name}");
        store.close().await;
        assert!(path.is_file(), "{name}");
    }
    let made: BTreeSet<String> = (std::fs::read_dir(folder.path()).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !["-lock", "-shm", "-wal"].iter().any(|beside| name.ends_with(beside)))
        .collect();
    assert_eq!(made, names.map(str::to_owned).into());
}

/// Goal: what meets the lock of another program for long fails loudly and was not kept, and goes on
/// when the lock is gone. Method: another connection holds it until both have been answered.
#[tokio::test]
async fn what_meets_a_lock_for_long_fails_and_was_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_with_endpoint(&folder).await;
    publish(&store, "1").await;
    let claimed = claim(&store).await.remove(0);
    let other = Connection::open(folder.path().join("store.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let publishing = store.publish(vec![event("2", "payload")], now());
    let (published, settled) =
        join(publishing, store.settle(vec![settlement(&claimed)], now())).await;
    for error in [published.unwrap_err(), settled.unwrap_err()] {
        let told = chain(&error);
        assert!(told.starts_with("the store is not available: database is locked"), "{told}");
    }
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(store.events(Query::default()).await.unwrap().items.len(), 1);
    publish(&store, "2").await;
    let settled = store.settle(vec![settlement(&claimed)], now()).await.unwrap();
    assert!(matches!(settled[..], [Settled::Recorded { .. }]), "{settled:?}");
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
    first.execute_batch(include_str!("../../migrations/0001_start.sql")).unwrap();
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
        "SELECT event || ' ' || endpoint || ' ' || status || ' ' || queued_at FROM deliveries_view";
    let mut statement = other.prepare(list).unwrap();
    let found: Vec<String> =
        statement.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let expected = ["order-17".to_owned(), id];
    let expected = expected.map(|id| format!("{id} crm pending 2026-01-01 00:00:00"));
    assert_eq!(found, expected);
    let found = store.event(TenantId::default(), EventId::new("order-17").unwrap()).await;
    assert_eq!(found.unwrap().unwrap().event().unwrap().payload.as_str(), "\"payload\"");
}

/// Goal: nothing of an expunged event stays in the file. Method: a small body, and one that needs
/// pages of its own; then the bytes of the file.
#[tokio::test]
async fn what_was_expunged_is_no_longer_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_with_endpoint(&folder).await;
    let large = "hush-hush ".repeat(5_000);
    let events = vec![event("small", "hush-hush"), event("large", &large), event("kept", "loud")];
    store.publish(events, now()).await.unwrap().into_iter().for_each(|one| drop(one.unwrap()));
    store.close().await;
    let store = open(&folder).await;
    let tenant = TenantId::default();
    let request = ExpungeRequest { tenant, event: None, after: None, limit: 2, now: now() };
    assert_eq!(store.expunge(request).await.unwrap().events, 2);
    store.close().await;
    let has = |text: &str| {
        let files = std::fs::read_dir(folder.path()).unwrap();
        let mut bytes = files.map(|file| std::fs::read(file.unwrap().path()).unwrap());
        bytes.any(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
    };
    assert!(has("loud"));
    assert!(!has("hush-hush"));
}
