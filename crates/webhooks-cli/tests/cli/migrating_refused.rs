//! `migrate-store`: what it refuses, so that nothing is overwritten or left behind.

use serde_json::json;
use webhooks_tests::postgres::{Cluster, hold};

use crate::migrating::{count, held, stop, words};
use crate::program::Place;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_overwritten_and_nothing_in_use_is_copied() {
    let mut place = Place::new();
    let url = Cluster::shared().database().await;
    let migrate = |place: &Place, more: &[&str]| place.run(&words(&url, more));
    migrate(&place, &[]).failed(2, &["cannot copy webhooks.db"]);
    place.write("webhooks.db", &"no database ".repeat(1_000));
    migrate(&place, &[]).failed(6, &["not the file of a store"]);
    std::fs::remove_file(place.path("webhooks.db")).unwrap();
    let served = place.serve(&[]);
    place.run(&["app", "create", "Acme", "--uid", "acme"]).ok();
    for number in 0..10 {
        place.run(&["publish", "a.b", &format!("{{\"n\":{number}}}")]).ok();
    }
    migrate(&place, &[]).failed(6, &["is in use", "stop the service"]);
    let key = served.key.clone().unwrap();
    stop(served);

    let dry = migrate(&place, &["--dry-run", "--json"]).json();
    assert_eq!((&dry["state"], &dry["leftBehind"]), (&"new".into(), &json!([])));
    assert_eq!(dry["tables"][4], json!({ "table": "events", "rows": 10, "copied": null }));
    let schemas = "(SELECT 1 FROM pg_namespace WHERE nspname = 'webhooks') AS schemas";
    assert_eq!(count(&url, schemas).await, 0, "a dry run writes nothing");

    let other = Cluster::shared().database().await;
    place.write_private("other", &other);
    stop(place.serve(&["--roles", "api", "--database", "@other"]));
    let rows = count(&other, "webhooks.admin_records").await;
    place.run(&words("@other", &[])).failed(6, &["is not empty", "nothing is overwritten"]);
    assert_eq!(count(&other, "webhooks.admin_records").await, rows);
    place.set("WEBHOOKS_KEY", &key);

    let (mut child, lock) = held(&place, &url).await;
    child.kill().unwrap();
    child.wait().unwrap();
    drop(lock);
    // A service accepts events before the migration is finished.
    place.run(&["backup", "before.db"]).ok();
    let served = place.serve(&[]);
    place.run(&["publish", "a.b", "{}", "--app", "acme"]).ok();
    stop(served);
    migrate(&place, &[]).failed(6, &["earlier state", "DROP SCHEMA"]);
    place.run(&["restore", "before.db", "--database", "webhooks.db", "--force"]).ok();
    migrate(&place, &[]).ok();
    let again = migrate(&place, &["--json"]).json();
    assert_eq!((&again["state"], &again["tables"][4]["copied"]), (&"finished".into(), &10.into()));
    let served = place.serve(&[]);
    place.run(&["publish", "a.b", "{}", "--app", "acme"]).ok();
    stop(served);
    migrate(&place, &[]).failed(6, &["earlier state", "nothing is overwritten"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_cannot_make_the_schema_is_refused_by_the_dry_run() {
    let mut place = Place::new();
    stop(place.serve(&[]));
    let url = Cluster::shared().database().await;
    drop(hold(&url, "CREATE ROLE poor LOGIN").await);
    let poor = url.replace("postgres@", "poor@");
    place
        .run(&words(&poor, &["--dry-run"]))
        .failed(6, &["may not create a schema", "grant CREATE"]);
}

/// Goal: a value that changed, but not its length, is another state of the file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_of_the_same_length_is_another_one() {
    let mut place = Place::new();
    let _served = place.serve(&[]);
    place.run(&["app", "create", "Acme", "--uid", "acme"]).ok();
    place.run(&["backup", "copy.db"]).ok();
    let url = Cluster::shared().database().await;
    let migrate = || place.run(&["migrate-store", "--from", "copy.db", "--to", &url]);
    migrate().ok();
    let file = webhooks_sqlite::rusqlite::Connection::open(place.path("copy.db")).unwrap();
    let change = "UPDATE admin_records SET body = replace(body, 'Acme', 'Emca')";
    assert!(file.execute(change, ()).unwrap() > 0);
    drop(file);
    migrate().failed(6, &["earlier state"]);
}

#[test]
fn a_url_that_is_wrong_is_not_shown() {
    let mut place = Place::new();
    stop(place.serve(&[]));
    let to = |url: &str| {
        let ended = place.run(&words(url, &[]));
        assert!(!format!("{ended:?}").contains("hunter2"), "{ended:?}");
        ended
    };
    to("mysql://u:hunter2@127.0.0.1/d").failed(2, &["--to is not a postgres:// URL"]);
    to("other.db").failed(2, &["--to is not a postgres:// URL"]);
    to("postgres://u:hunter2@127.0.0.1:1/d").failed(1, &["postgres://127.0.0.1/d", "@FILE"]);
    to("postgres://u:hun/ter2@127.0.0.1:1/d").failed(2, &["--to is not a postgres:// URL"]);
    let slashes = ["postgres:/u:hunter2@127.0.0.1:1/d", "postgres:///u:hunter2@127.0.0.1:1/d"];
    for url in slashes {
        to(url).failed(2, &["--to is not a postgres:// URL"]);
        let serve = place.run(&["serve", "--database", url]);
        assert!(!format!("{serve:?}").contains("hunter2"), "{serve:?}");
        serve.failed(2, &["a postgres:// URL"]);
    }
    to("postgres://u@127.0.0.1:1/d?password=hunter2")
        .failed(1, &["postgres://127.0.0.1/d", "@FILE"]);
    let from = ["migrate-store", "--from", "postgres://u:hunter2@h/d", "--to", "postgres://h/d"];
    place.run(&from).failed(2, &["is not a file"]);
    place.run(&words("postgres://h/d", &["--batch", "0"])).failed(2, &["--batch"]);
}

/// Goal: nothing is left behind unnoticed when somebody adds a table or a column to one store. Method: columns are added
/// to both, as a later version would. (The other tests fail if a version does so, and the migration does not know it.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_that_it_does_not_know_is_refused() {
    let mut place = Place::new();
    stop(place.serve(&[]));
    let change = |statement: &str| {
        let file = webhooks_sqlite::rusqlite::Connection::open(place.path("webhooks.db")).unwrap();
        file.execute_batch(statement).unwrap();
    };
    let url = Cluster::shared().database().await;
    let store = webhooks_postgres::PostgresStore::open(&url).await.unwrap();
    store.close().await;
    drop(hold(&url, "ALTER TABLE webhooks.jobs ADD COLUMN extra text").await);
    place.run(&words(&url, &[])).failed(6, &["the column jobs.extra"]);
    drop(hold(&url, "ALTER TABLE webhooks.jobs DROP COLUMN extra").await);
    change("ALTER TABLE jobs ADD COLUMN extra TEXT");
    place.run(&words(&url, &[])).failed(6, &["the column jobs.extra", "update this program"]);
    change("ALTER TABLE jobs DROP COLUMN extra; CREATE TABLE orders (id INTEGER PRIMARY KEY)");
    let ended = place.run(&words(&url, &["--json"]));
    assert!(ended.err.contains("\"orders\", which stays behind"), "{ended:?}");
    assert_eq!(ended.json()["leftBehind"], json!(["orders"]));
}

/// Goal: a database that a live worker uses is refused, until the worker counts as dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_a_worker_uses_is_refused() {
    let mut place = Place::new();
    stop(place.serve(&[]));
    let url = Cluster::shared().database().await;
    webhooks_postgres::PostgresStore::open(&url).await.unwrap().close().await;
    let worker = "INSERT INTO webhooks.workers (id, joined_at, seen_at, expires_at)
        VALUES (1, now(), now(), now() + interval '1 hour')";
    drop(hold(&url, worker).await);
    place.run(&words(&url, &[])).failed(6, &["a service uses the database", "stop all services"]);
    drop(hold(&url, "UPDATE webhooks.workers SET expires_at = now() - interval '1 s'").await);
    place.run(&words(&url, &[])).ok();
}
