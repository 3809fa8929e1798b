//! `migrate-store`: a service moves from its file to PostgreSQL, and loses nothing.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use http::Response;
use serde_json::{Value, json};
use webhooks_dispatch::clock::{Clock as _, SystemClock};
use webhooks_sign::{Key, KeyRing, standard};
use webhooks_tests::Receiver;
use webhooks_tests::postgres::{Cluster, hold, texts};

use crate::program::{Place, Served, signal};

/// The longest time that a test waits for anything.
const DEADLINE: Duration = Duration::from_mins(1);

/// The events that wait when the service stops.
const WAITING: usize = 40;

/// The tables that a migration fills.
const TABLES: [&str; 11] = [
    "admin_records",
    "earlier_attempts",
    "ended_deliveries",
    "endpoints",
    "event_keys",
    "events",
    "figures",
    "jobs",
    "partitions",
    "pending_deliveries",
    "subscriptions",
];

/// Waits until something is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let start = SystemClock.monotonic();
    while !is_so().await {
        let waited = SystemClock.monotonic().saturating_since(start);
        assert!(waited < DEADLINE, "{what} did not come true");
        SystemClock.sleep(Duration::from_millis(2)).await;
    }
}

/// Returns the number of rows of a table of a database; 0 if there is no such table yet.
pub(crate) async fn count(url: &str, table: &str) -> usize {
    let rows = texts(url, &format!("SELECT count(*)::text FROM {table}")).await;
    rows.map_or(0, |rows| rows[0].parse().unwrap())
}

/// Returns every row of every table, and the numbers that the database gives next.
async fn content(url: &str) -> Vec<String> {
    let mut content = Vec::new();
    for table in TABLES {
        let rows = texts(url, &format!("SELECT t::text FROM webhooks.{table} t ORDER BY 1")).await;
        content.extend(rows.unwrap().into_iter().map(|row| format!("{table}: {row}")));
    }
    let sequences = "SELECT concat_ws(' ', sequencename, last_value) FROM pg_sequences
        WHERE schemaname = 'webhooks' ORDER BY 1";
    content.extend(texts(url, sequences).await.unwrap());
    content
}

/// Returns the words of a migration into a database.
pub(crate) fn words<'w>(to: &'w str, more: &[&'w str]) -> Vec<&'w str> {
    [&["migrate-store", "--from", "webhooks.db", "--to", to], more].concat()
}

/// Starts a migration that can be ended. Each transaction copies one row.
fn start(place: &Place, from: &str, to: &str) -> Child {
    let mut command = place.command(&["migrate-store", "--from", from, "--to", to, "--batch", "1"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A trigger that holds a migration before its fourth event, as long as somebody has a lock.
const HOLD: &str = "
    SELECT pg_advisory_lock(42);
    DO $do$ BEGIN
        IF to_regproc('public.wait') IS NULL THEN
            CREATE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                PERFORM pg_advisory_xact_lock_shared(42);
                RETURN NEW;
            END $$;
            CREATE TRIGGER wait BEFORE INSERT ON webhooks.event_keys
            FOR EACH ROW WHEN (NEW.event > 3) EXECUTE FUNCTION public.wait();
        END IF;
    END $do$";

/// Starts a migration, and holds it where three events are there and others are not; returns the process, and
/// the lock that holds it.
pub(crate) async fn held(place: &Place, to: &str) -> (Child, impl Sized + use<>) {
    let child = start(place, "webhooks.db", to);
    // The events come last, a transaction for each.
    until("it has begun", async || count(to, "webhooks.import").await == 1).await;
    let lock = hold(to, HOLD).await;
    until("it waits", async || count(to, &waiting("advisory")).await == 1).await;
    (child, lock)
}

/// Returns the connections of a database that wait for a lock of a kind, as a table.
fn waiting(kind: &str) -> String {
    format!("pg_stat_activity WHERE datname = current_database() AND wait_event = '{kind}'")
}

pub(crate) fn stop(served: Served) {
    served.signal("TERM");
    assert!(served.wait().success());
}

/// A service with one of everything, whose receiver can be told what to answer.
struct Service {
    place: Place,
    key: String,
    receiver: Receiver,
    status: Arc<AtomicU16>,
    /// The ids of the events that wait, in the order of acceptance.
    waiting: Vec<String>,
}

/// The endpoints that get each of the waiting events.
const ENDPOINTS: [&str; 3] = ["crm", "ordered", "paused"];

impl Service {
    /// Fills a service whose secrets are encrypted, and stops it.
    async fn stopped() -> Self {
        let status = Arc::new(AtomicU16::new(503));
        let answer = Arc::clone(&status);
        let receiver = Receiver::start(move |_, _| {
            let code = answer.load(Ordering::Acquire);
            Response::builder().status(code).body(http_body_util::Full::default()).unwrap()
        });
        let receiver = receiver.await;
        let mut place = Place::new();
        place.write_private("sealing.key", &"0f".repeat(32));
        place.set("WEBHOOKS_SEALING_KEY", "@sealing.key");
        let served = place.serve(&["--dev"]);
        let key = served.key.clone().unwrap();
        let mut service = Self { place, key, receiver, status, waiting: Vec::new() };
        service.fill(&served);
        until("there are attempts", async || service.receiver.received().len() > 3).await;
        stop(served);
        service
    }

    fn ask(&self, served: &Served, method: &str, path: &str, body: &Value) -> Value {
        served.ask(&self.key, method, path, body)
    }

    fn fill(&mut self, served: &Served) {
        let ask = |method: &str, path: &str, body: Value| self.ask(served, method, path, &body);
        let post = |path: &str, body: Value| ask("POST", path, body);
        post("/event-type", json!({ "name": "a.b", "description": "d" }));
        post("/app", json!({ "name": "Acme", "uid": "acme", "metadata": { "plan": "gold" } }));
        ask("PUT", "/app/acme/limits", json!({ "maxEndpoints": 17 }));
        let often = vec![1; 50];
        let endpoint = |uid: &str, more: Value| {
            let url = format!("{}?to={uid}", self.receiver.url());
            let mut body = json!({ "url": url, "uid": uid, "eventTypes": ["a.*"] });
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            post("/app/acme/endpoint", body)
        };
        endpoint("crm", json!({ "delivery": { "retrySchedule": often } }));
        endpoint("paused", json!({ "channels": ["eu"], "delivery": { "paused": true } }));
        endpoint(
            "ordered",
            json!({ "throttleRate": 900, "metadata": { "a": "b" },
                    "delivery": { "retrySchedule": often, "ordered": true } }),
        );
        endpoint("off", json!({ "delivery": { "retrySchedule": [] } }));
        endpoint("gone", json!({}));
        post("/app/acme/msg", json!({ "eventType": "a.b", "payload": { "first": true } }));
        ask("PATCH", "/app/acme/endpoint/off", json!({ "disabled": true }));
        ask("DELETE", "/app/acme/endpoint/gone", Value::Null);
        let mut waiting = Vec::new();
        for number in 0..WAITING {
            let payload = json!({ "n": number, "text": "a\tb\\n\\.\u{0}é" });
            let body = json!({ "eventType": "a.b", "payload": payload, "tags": ["t"],
                               "eventId": format!("n-{number}"), "channels": ["eu"] });
            waiting.push(post("/app/acme/msg", body)["id"].as_str().unwrap().to_owned());
        }
        let tomorrow = webhooks_core::Timestamp::now() + Duration::from_hours(24);
        let later = json!({ "eventType": "a.b", "payload": {}, "deliverAt": tomorrow.to_string() });
        post("/app/acme/msg", later);
        post("/app/acme/polling-endpoint", json!({ "uid": "reader" }));
        let poll = "/app/acme/poller/reader/consumer/one?limit=3";
        let page = ask("GET", poll, Value::Null);
        let next = format!("{poll}&iterator={}", page["iterator"].as_str().unwrap());
        ask("GET", &next, Value::Null);
        post("/app/acme/endpoint/crm/recover", json!({ "since": "2020-01-01T00:00:00Z" }));
        self.waiting = waiting;
    }

    /// Returns what the API shows of a database while no worker changes it.
    fn shown(&mut self, options: &[&str]) -> Vec<Value> {
        let served = self.place.serve(&[&["--roles", "api"], options].concat());
        let get = |path: &str| self.ask(&served, "GET", path, &Value::Null);
        let mut paths: Vec<String> = [
            "/app",
            "/event-type?with_content=true",
            "/app/acme/limits",
            "/app/acme/endpoint",
            "/app/acme/msg?limit=250",
            "/app/acme/events?limit=250",
            "/app/acme/polling-endpoint",
            "/app/acme/poller/reader/consumer/one",
            "/background-task",
            "/audit-log?limit=250",
        ]
        .map(str::to_owned)
        .into();
        for uid in ["crm", "ordered", "paused", "off"] {
            for part in ["secret", "headers", "stats", "msg?limit=250"] {
                paths.push(format!("/app/acme/endpoint/{uid}/{part}"));
            }
            paths.push(format!("/app/acme/attempt/endpoint/{uid}?limit=250"));
        }
        for event in [&self.waiting[0], &self.waiting[WAITING - 1]] {
            paths.push(format!("/app/acme/msg/{event}/endpoint"));
        }
        let mut shown: Vec<Value> = paths.iter().map(|path| get(path)).collect();
        stop(served);
        for (path, shown) in paths.iter().zip(&mut shown) {
            without_ids_of_attempts(shown);
            if let Some(fields) = shown.as_object_mut() {
                // It grows while nobody delivers.
                fields.remove("lateSecs");
            }
            if path.contains("/attempt/") {
                shown.as_object_mut().unwrap().retain(|name, _| !name.ends_with("terator"));
            }
        }
        shown
    }

    /// Returns the ids of the events that arrived at an endpoint after the first requests, in their order.
    fn arrived(&self, first: usize, to: &str) -> Vec<String> {
        let all = self.receiver.received();
        let to = format!("to={to}");
        let here = all[first..].iter().filter(|one| one.uri.query() == Some(&to));
        here.map(|one| one.headers["webhook-id"].to_str().unwrap().to_owned()).collect()
    }
}

/// Removes the ids of attempts, in which the number of the delivery stands.
fn without_ids_of_attempts(shown: &mut Value) {
    match shown {
        Value::Object(fields) => {
            let is_id = |value: &Value| value.as_str().is_some_and(|id| id.starts_with("atmpt_"));
            fields.retain(|_, value| !is_id(value));
            fields.values_mut().for_each(without_ids_of_attempts);
        }
        Value::Array(items) => items.iter_mut().for_each(without_ids_of_attempts),
        _ => {}
    }
}

/// Goal: everything that the file has is in PostgreSQL afterwards, also if the migration was killed; and every
/// accepted event arrives. Method: a service whose receiver refuses everything is filled and stopped. Its file is
/// migrated twice, once undisturbed and once killed where some events are there and others are not. Both
/// databases must have the same rows, and the API must show the same as before. Then the receiver accepts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_moves_and_every_accepted_event_arrives() {
    let mut service = Service::stopped().await;
    let before = service.shown(&[]);
    let files = || {
        let place = service.place.folder.path();
        // Reading leaves an empty log.
        let read = |name| std::fs::read(place.join(name)).ok().filter(|bytes| !bytes.is_empty());
        ["webhooks.db", "webhooks.db-wal"].map(read)
    };
    let file = files();
    let (calm, killed) = (Cluster::shared().database().await, Cluster::shared().database().await);
    let undisturbed = service.place.run(&words(&calm, &["--batch", "50"]));
    assert!(undisturbed.err.contains("are the same"), "{undisturbed:?}");
    assert!(!undisturbed.err.contains("stays behind"), "{undisturbed:?}");
    undisturbed.ok();

    let (mut child, lock) = held(&service.place, &killed).await;
    child.kill().unwrap();
    child.wait().unwrap();
    drop(lock);
    assert_eq!(count(&killed, "webhooks.events").await, 3);
    let refused = ["serve", "--listen", "127.0.0.1:0", "--database", killed.as_str()];
    service.place.run(&refused).failed(1, &["is not finished", "webhooks migrate-store"]);
    let dry = service.place.run(&words(&killed, &["--dry-run", "--json"])).json();
    assert_eq!((&dry["state"], &dry["tables"][0]["copied"]), (&"begun".into(), &Value::Null));
    let resumed = service.place.run(&words(&killed, &[]));
    assert!(resumed.err.contains("going on after"), "{resumed:?}");
    resumed.ok();
    assert_eq!(content(&killed).await, content(&calm).await);
    assert!(files() == file, "the file stays as it is");

    service.place.write_private("url", &killed);
    let after = service.shown(&["--database", "@url"]);
    assert_eq!(after, before);

    let first = service.receiver.received().len();
    service.status.store(204, Ordering::Release);
    let served = service.place.serve(&["--dev", "--database", "@url"]);
    assert_eq!(served.key, None, "the key of the administrator is there");
    let event = json!({ "eventType": "a.b", "payload": {}, "channels": ["eu"] });
    let last = service.ask(&served, "POST", "/app/acme/msg", &event);
    service.waiting.push(last["id"].as_str().unwrap().to_owned());
    let resume = json!({ "delivery": { "paused": false } });
    service.ask(&served, "PATCH", "/app/acme/endpoint/paused", &resume);
    for uid in ENDPOINTS {
        let wanted: BTreeSet<&String> = service.waiting.iter().collect();
        until("all have arrived", async || {
            let arrived = service.arrived(first, uid);
            wanted.iter().all(|id| arrived.contains(id))
        })
        .await;
    }
    let mut in_order = service.arrived(first, "ordered");
    in_order.retain(|id| service.waiting.contains(id));
    in_order.dedup();
    assert_eq!(in_order, service.waiting);
    let secret = service.ask(&served, "GET", "/app/acme/endpoint/crm/secret", &Value::Null);
    let keys = KeyRing::from([Key::standard(secret["key"].as_str().unwrap()).unwrap()]);
    let now = webhooks_core::Timestamp::now().as_unix_seconds();
    let received = service.receiver.received();
    // Those before the migration and those after it have the same secret.
    for one in received.iter().filter(|one| one.uri.query() == Some("to=crm")) {
        standard::verify(&keys, &one.headers, &one.body, now).unwrap();
    }
    stop(served);
}

/// Goal: Ctrl-C, a server that is gone and another migration end it with a text that says how to go on, and it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_was_cut_off_goes_on() {
    let service = Service::stopped().await;
    let cluster = Cluster::start(&std::env::temp_dir(), "");
    let url = cluster.database().await;

    let (child, lock) = held(&service.place, &url).await;
    signal(&child, "INT");
    let (code, told) = ended(child);
    assert_eq!(code, Some(130), "{told}");
    assert!(told.contains("run the same command again"), "{told}");
    drop(lock);

    // The second one, from a copy of the file, waits for the first, and then finds that it has gone on.
    service.place.run(&["backup", "copy.db"]).ok();
    let (first, lock) = held(&service.place, &url).await;
    service.place.run(&words(&url, &[])).failed(6, &["is in use"]);
    let second = start(&service.place, "copy.db", &url);
    until("the second one waits", async || count(&url, &waiting("transactionid")).await == 1).await;
    drop(lock);
    let (code, told) = ended(second);
    assert_eq!(code, Some(6), "{told}");
    assert!(told.contains("another process imports"), "{told}");
    let (code, told) = ended(first);
    assert_eq!(code, Some(0), "{told}");

    let lost = cluster.database().await;
    let (child, lock) = held(&service.place, &lost).await;
    cluster.stop();
    drop(lock);
    let (code, told) = ended(child);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("cannot migrate to postgres://localhost/test_1"), "{told}");
    assert!(told.contains("run the same command again"), "{told}");
    service.place.run(&words(&lost, &[])).failed(1, &["cannot migrate"]);
    cluster.resume();
    service.place.run(&words(&lost, &[])).ok();
    assert_eq!(content(&lost).await, content(&url).await);
}

/// Waits for the end of a migration; returns its code, and what it told.
fn ended(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}
