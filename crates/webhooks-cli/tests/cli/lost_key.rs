//! `key create --database`: the way back for an administrator whose keys are lost.

use serde_json::Value;
use webhooks_sqlite::rusqlite::Connection;
use webhooks_tests::postgres::{Cluster, texts};

use crate::program::{Ended, Place};

fn make(place: &Place, database: &str) -> Ended {
    let words = ["key", "create", "new", "--role", "admin", "--database", database];
    place.run(&words)
}

/// Checks that a key is that of an administrator, who makes others.
fn is_admin(place: &mut Place, key: &str) {
    place.unset("WEBHOOKS_KEY");
    place.set("WEBHOOKS_KEY", key);
    let list = place.run(&["key", "list", "--json"]).ok();
    let keys: Vec<Value> = list.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let new = keys.iter().find(|key| key["name"] == "new").unwrap();
    assert_eq!(new["role"], "admin");
    place.run(&["key", "create", "other", "--role", "viewer"]).ok();
}

/// Goal: a key is made without the service and without its sealing key, and the secrets are as before.
#[test]
fn a_key_of_a_file_is_made_while_no_service_uses_it() {
    let mut place = Place::new();
    place.write_private("sealing.key", &"0f".repeat(32));
    place.set("WEBHOOKS_SEALING_KEY", "@sealing.key");
    let served = place.serve(&[]);
    place.run(&["app", "create", "Acme", "--uid", "acme"]).ok();
    let hook = ["endpoint", "create", "https://example.com/", "--uid", "crm", "--app", "acme"];
    place.run(&hook).ok();
    let secret = ["endpoint", "secret", "show", "crm", "--app", "acme"];
    let before = place.run(&secret).ok();
    make(&place, "webhooks.db").failed(6, &["is in use", "stop the service"]);
    let lost = place.get("WEBHOOKS_KEY").unwrap().to_owned();
    served.signal("TERM");
    assert!(served.wait().success());

    place.unset("WEBHOOKS_SEALING_KEY");
    let made = make(&place, "webhooks.db");
    assert!(made.err.contains("is shown this once"), "{made:?}");
    let text = made.ok();
    let words = ["key", "create", "new2", "--role", "admin", "--database", "webhooks.db"];
    let json = place.run(&[&words[..], &["--json", "--expires", "1h"]].concat()).json();
    assert!(json["token"].as_str().unwrap().starts_with("whkey_"), "{json}");
    assert_eq!((&json["role"], json["expiresAt"].is_string()), (&"admin".into(), true), "{json}");

    place.set("WEBHOOKS_SEALING_KEY", "@sealing.key");
    let served = place.serve(&[]);
    assert_eq!(served.key, None);
    is_admin(&mut place, text.trim());
    assert_eq!(place.run(&secret).ok(), before);
    let log = served.ask(text.trim(), "GET", "/audit-log?limit=250", &Value::Null);
    let rows = log["data"].as_array().unwrap();
    let row = rows.iter().find(|row| row["thing"] == json["id"]).unwrap();
    assert_eq!((&row["who"], &row["kind"]), (&"database".into(), &"api_key".into()), "{row}");
    assert!(!log.to_string().contains(text.trim()) && !log.to_string().contains(&lost));

    place.unset("WEBHOOKS_KEY");
    place.run(&["app", "list"]).failed(4, &["webhooks key create NAME --role admin --database"]);
}

#[test]
fn a_key_file_that_is_missing_or_empty_is_told_with_the_way_back() {
    let place = Place::new();
    place.write_private("empty", "");
    let way = "webhooks key create NAME --role admin --database FILE";
    place.run(&["app", "list", "--key", "@none"]).failed(2, &["cannot read none", way]);
    place.run(&["app", "list", "--key", "@empty"]).failed(2, &["is empty", way]);
}

#[test]
fn a_database_that_is_none_of_ours_is_refused_and_none_is_made() {
    let place = Place::new();
    make(&place, "none.db").failed(2, &["cannot open the database none.db"]);
    assert_eq!(place.folder.path().read_dir().unwrap().count(), 0);
    place.write("text.db", &"no database ".repeat(1_000));
    make(&place, "text.db").failed(6, &["not the file of a store"]);
    let other = Connection::open(place.path("other.db")).unwrap();
    other.execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY)").unwrap();
    make(&place, "other.db").failed(6, &["not the file of a store"]);
    let tables = "SELECT count(*) FROM sqlite_schema";
    assert_eq!(other.query_row(tables, (), |row| row.get(0)), Ok(1));
    other.pragma_update(None, "user_version", 1_000).unwrap();
    make(&place, "other.db").failed(6, &["schema version 1000", "update this program"]);
    let words = ["key", "create", "new", "--role", "viewer", "--database", "none.db"];
    place.run(&words).failed(2, &["the role admin alone"]);
    make(&place, "mysql://u:hunter2@h/d").failed(2, &["neither a file nor a postgres:// URL"]);
    make(&place, "postgres://u@127.0.0.1:1/d").failed(1, &["postgres://127.0.0.1/d"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_a_server_is_made_while_services_use_it() {
    let mut place = Place::new();
    let empty = Cluster::shared().database().await;
    make(&place, &empty).failed(6, &["there is no store in the database"]);
    let schemas = "SELECT nspname::text FROM pg_namespace WHERE nspname = 'webhooks'";
    assert_eq!(texts(&empty, schemas).await.unwrap(), Vec::<String>::new());

    let url = Cluster::shared().database().await;
    place.write_private("url", &url);
    place.write_private("sealing.key", &"0f".repeat(32));
    let served = place.serve(&["--database", "@url", "--sealing-key", "@sealing.key"]);
    place.run(&["app", "create", "Acme", "--uid", "acme"]).ok();
    let hook = ["endpoint", "create", "https://example.com/", "--uid", "crm", "--app", "acme"];
    place.run(&hook).ok();
    let secret = ["endpoint", "secret", "show", "crm", "--app", "acme"];
    let before = place.run(&secret).ok();
    let text = make(&place, "@url").ok();
    is_admin(&mut place, text.trim());
    assert_eq!(place.run(&secret).ok(), before);
    drop(served);
}
