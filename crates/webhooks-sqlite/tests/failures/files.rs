//! The file: its lock, its path, its version.

use std::path::Path;

use futures_util::future::join;
use rusqlite::Connection;
use webhooks_core::{Event, EventId, TenantId};
use webhooks_dispatch::{DeliveryStore as _, HistoryStore as _, Query, SerializedEvent};
use webhooks_registry::{Endpoint, EndpointStore as _};
use webhooks_sqlite::{OpenError, SqliteStore};

use crate::{
    SECRET, chain, claim, crm, event, now, open, open_error, open_with_endpoint, publish,
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
