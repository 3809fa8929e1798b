//! Operational webhooks: each is told, signed, once, also when the service is killed before it could.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};
use webhooks_admin::{Grant, Role};
use webhooks_core::{RetryPolicy, TenantId, Timestamp};
use webhooks_dispatch::clock::{Clock as _, SystemClock};
use webhooks_dispatch::history::{HistoryStore as _, Query};
use webhooks_dispatch::{BreakerSettings, EngineSettings};
use webhooks_sign::{Key, KeyRing, standard};
use webhooks_tests::postgres::Cluster;
use webhooks_tests::{Received, Receiver};

use crate::life::{Callers, Life, wait};
use crate::running::{Kind, Running, add_key};

const OPERATIONAL: &str = "/api/v1/operational-webhook/endpoint";

on_each_store! {
    each_change_and_each_turn_is_told_once;
    nothing_is_told_of_what_is_told;
    operational_endpoints_are_for_administrators_alone;
}

/// Returns what a receiver was told: the bodies.
fn told(receiver: &Receiver) -> Vec<Value> {
    let received = receiver.received();
    received.iter().map(|one| serde_json::from_slice(&one.body).unwrap()).collect()
}

/// Returns the types of what a receiver was told, sorted.
fn types(receiver: &Receiver) -> Vec<String> {
    let told = told(receiver);
    let mut types: Vec<String> =
        told.iter().map(|one| one["type"].as_str().unwrap().to_owned()).collect();
    types.sort();
    types
}

/// Makes an operational endpoint; returns its id.
async fn listen(running: &Running, receiver: &Receiver, more: Value) -> String {
    let mut input = json!({ "url": receiver.url() });
    input.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    let (status, made) = running.ask("POST", OPERATIONAL, input).await;
    assert_eq!(status, 201, "{made}");
    made["id"].as_str().unwrap().to_owned()
}

mod behaviour {
    use super::*;

    /// Makes an endpoint that wants the messages of one type; returns its path and its id.
    async fn add(running: &Running, receiver: &Receiver, name: &str) -> (String, String) {
        let input = json!({ "url": receiver.url(), "uid": name, "eventTypes": [name] });
        let (status, made) = running.ask("POST", "/api/v1/app/shop/endpoint", input).await;
        assert_eq!(status, 201, "{made}");
        (format!("/api/v1/app/shop/endpoint/{name}"), made["id"].as_str().unwrap().to_owned())
    }

    async fn publish(running: &Running, name: &str) -> String {
        let message = json!({ "eventType": name, "eventId": name, "payload": { "a": "private" } });
        let (status, made) = running.ask("POST", "/api/v1/app/shop/msg", message).await;
        assert_eq!(status, 202, "{made}");
        made["id"].as_str().unwrap().to_owned()
    }

    /// Goal: each kind of event arrives, with the ids that it needs, signed by its endpoint's secret.
    pub(super) async fn each_change_and_each_turn_is_told_once(running: Running) {
        let receiver = Receiver::answering(200).await;
        let flaky = Receiver::start(|number, _: &Received| {
            let code = if number <= 4 { 500 } else { 200 };
            Response::builder().status(code).body(Full::default()).unwrap()
        })
        .await;
        let (broken, gone) = (Receiver::answering(500).await, Receiver::answering(410).await);
        let app = running.add_app("shop").await;
        // Not told: nobody listens yet.
        let (early, _) = add(&running, &broken, "early").await;
        let id = listen(&running, &receiver, json!({})).await;
        let (_, secret) = running.get(&format!("{OPERATIONAL}/{id}/secret")).await;
        let names = [(&flaky, "flaky"), (&broken, "broken"), (&gone, "gone")];
        let mut expected = Vec::new();
        let base = |id: &str, name: &str| json!({ "appId": app, "appUid": "shop", "endpointId": id, "endpointUid": name });
        let mut endpoints = BTreeMap::new();
        for (to, name) in names {
            let (path, id) = add(&running, to, name).await;
            expected.push(json!({ "type": "endpoint.created", "data": base(&id, name) }));
            endpoints.insert(name, (path, id));
        }
        let of_app = running.service.engine().endpoints().tenant(TenantId::new(&app).unwrap());
        let soon = RetryPolicy::fixed(Duration::from_millis(10), 6);
        let sooner = |endpoint: webhooks_registry::Endpoint| Ok(endpoint.retry(soon.clone()));
        of_app.update(&endpoints["flaky"].1, None, sooner).await.unwrap();
        for (name, turns) in [
            ("flaky", &["failing", "recovered"][..]),
            ("broken", &["exhausted"]),
            ("gone", &["exhausted"]),
        ] {
            let message = publish(&running, name).await;
            for turn in turns {
                let data = json!({
                    "appId": app, "appUid": "shop", "msgId": message, "msgEventId": name,
                    "endpointId": endpoints[name].1,
                });
                expected.push(json!({ "type": format!("message.attempt.{turn}"), "data": data }));
            }
        }
        let mut disabled = base(&endpoints["gone"].1, "gone");
        disabled["trigger"] = json!("automatic");
        expected.push(json!({ "type": "endpoint.disabled", "data": disabled }));
        // By hand.
        let (path, id) = &endpoints["broken"];
        let patch = async |change: Value| {
            assert_eq!(running.ask("PATCH", path, change).await.0, 200);
        };
        wait(async || told(&receiver).len() >= expected.len()).await;
        patch(json!({ "description": "new" })).await;
        patch(json!({ "description": "new" })).await;
        patch(json!({ "disabled": true })).await;
        patch(json!({ "disabled": false })).await;
        let rotate = format!("{path}/secret/rotate");
        assert_eq!(running.ask("POST", &rotate, json!({})).await.0, 200);
        assert_eq!(running.ask("DELETE", path, Value::Null).await.0, 204);
        let base = base(id, "broken");
        let mut disabled = base.clone();
        disabled["trigger"] = json!("manual");
        expected.push(json!({ "type": "endpoint.disabled", "data": disabled }));
        for kind in ["updated", "updated", "enabled", "deleted"] {
            expected.push(json!({ "type": format!("endpoint.{kind}"), "data": base }));
        }
        assert_eq!(running.ask("DELETE", "/api/v1/app/shop", Value::Null).await.0, 204);
        assert_eq!(running.get(&early).await.0, 404);
        // With its application, the three that are left.
        wait(async || told(&receiver).len() >= expected.len() + 3).await;
        check(&receiver, &secret, expected);
    }

    /// Compares what was told with what should be: without the parts that no test can know, which must be
    /// there.
    fn check(receiver: &Receiver, secret: &Value, mut expected: Vec<Value>) {
        let mut found = Vec::new();
        for mut one in told(receiver) {
            let (kind, data) = (one["type"].as_str().unwrap().to_owned(), &mut one["data"]);
            let data = data.as_object_mut().unwrap();
            if kind.starts_with("message.") {
                let last = data.remove("lastAttempt").unwrap();
                assert!(last["id"].as_str().unwrap().starts_with("atmpt_"), "{last}");
                let code = if kind.ends_with("recovered") { 200..201 } else { 410..501 };
                assert!(code.contains(&last["responseStatusCode"].as_u64().unwrap()), "{last}");
                assert!(last["timestamp"].is_string(), "{last}");
            }
            if data.get("trigger") == Some(&json!("automatic")) {
                assert!(data.remove("failSince").unwrap().is_string());
            }
            found.push(one);
        }
        // These follow from the deletion of the application.
        let (gone, mut found): (Vec<Value>, Vec<Value>) =
            found.into_iter().partition(|one| one["data"].get("appUid").is_none());
        let gone: Vec<&Value> = gone.iter().map(|one| &one["type"]).collect();
        assert_eq!(gone, ["endpoint.deleted"; 3]);
        let text = |one: &Value| one.to_string();
        found.sort_by_key(text);
        expected.sort_by_key(text);
        assert_eq!(found, expected);
        let keys = KeyRing::from([Key::standard(secret["key"].as_str().unwrap()).unwrap()]);
        let now = Timestamp::now().as_unix_seconds();
        let mut ids = BTreeSet::new();
        for one in receiver.received() {
            standard::verify(&keys, &one.headers, &one.body, now).unwrap();
            let text = String::from_utf8(one.body.to_vec()).unwrap();
            assert!(!text.contains("whsec_") && !text.contains("private"), "{text}");
            assert!(!text.contains("http"), "a URL may hold a secret: {text}");
            assert!(ids.insert(one.headers["webhook-id"].clone()), "told twice");
        }
    }

    /// Goal: an operational endpoint that fails makes no news, which would make news in turn.
    pub(super) async fn nothing_is_told_of_what_is_told(running: Running) {
        let well = Receiver::answering(200).await;
        let (broken, gone) = (Receiver::answering(500).await, Receiver::answering(410).await);
        for receiver in [&well, &broken, &gone] {
            listen(&running, receiver, json!({})).await;
        }
        let other = Receiver::answering(200).await;
        listen(&running, &other, json!({ "eventTypes": ["endpoint.deleted"] })).await;
        let app = running.add_app("shop").await;
        let path = format!("/api/v1/app/{app}/endpoint");
        let input = json!({ "url": "http://127.0.0.1:49151/", "uid": "crm" });
        assert_eq!(running.ask("POST", &path, input).await.0, 201);
        // One retry after a second, and then it is exhausted.
        wait(async || broken.received().len() == 2 && gone.received().len() == 1).await;
        let disabled = async || {
            let (_, list) = running.get(OPERATIONAL).await;
            let all = list["data"].as_array().unwrap().clone();
            all.iter().filter(|found| found["disabled"] == json!(true)).count()
        };
        let deadline = SystemClock.monotonic() + Duration::from_secs(30);
        while disabled().await == 0 {
            assert!(SystemClock.monotonic() < deadline, "the one that is gone is disabled");
            SystemClock.sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(running.ask("DELETE", &format!("{path}/crm"), Value::Null).await.0, 204);
        wait(async || !other.received().is_empty() && well.received().len() >= 2).await;
        assert_eq!(types(&well), ["endpoint.created", "endpoint.deleted"]);
        assert_eq!(types(&other), ["endpoint.deleted"], "it asked for these alone");
        let tenant = Some(TenantId::new("operational-webhooks").unwrap());
        let query = Query { tenant, ..Query::default() };
        let all = running.service.engine().history().events(query).await.unwrap();
        assert_eq!(all.items.len(), 2, "nothing else was published");
    }

    pub(super) async fn operational_endpoints_are_for_administrators_alone(running: Running) {
        let receiver = Receiver::answering(200).await;
        let secret = format!("whsec_{}", "A".repeat(32));
        let id = listen(&running, &receiver, json!({ "uid": "own", "secret": secret })).await;
        let app = TenantId::new(&running.add_app("shop").await).unwrap();
        let own = format!("{OPERATIONAL}/{id}");
        for (grant, expected) in [
            (Grant::new(Role::Admin), 200),
            (Grant::new(Role::Operator).with_secrets(), 403),
            (Grant::new(Role::Viewer).with_secrets(), 403),
            (Grant::new(Role::Publisher), 403),
            (Grant::new(Role::Admin).for_application(app.clone()), 404),
            (Grant::new(Role::Customer).for_application(app.clone()), 404),
        ] {
            let key = add_key(&running.service, grant).await;
            for path in
                [OPERATIONAL, &own, &format!("{own}/secret"), &format!("{OPERATIONAL}/own/headers")]
            {
                let (status, answer) = running.ask_as(Some(&key), "GET", path, None).await;
                assert_eq!(status, expected, "{path}: {answer}");
            }
        }
        // It is no endpoint of an application, nor is its owner one.
        for path in
            ["/api/v1/app/operational-webhooks", &format!("/api/v1/app/{app}/endpoint/{id}")]
        {
            assert_eq!(running.get(path).await.0, 404, "{path}");
        }
        assert_eq!(running.ask("PUT", &own, json!({ "url": receiver.url() })).await.0, 200);
        let headers = json!({ "headers": { "x-token": "hush" } });
        assert_eq!(running.ask("PUT", &format!("{own}/headers"), headers).await.0, 204);
        let rotate = format!("{own}/secret/rotate");
        let (status, new) = running.ask("POST", &rotate, Value::Null).await;
        assert_eq!((status, new["key"] != json!(secret)), (200, true), "{new}");
        assert_eq!(running.ask("DELETE", &own, Value::Null).await.0, 204);
        assert_eq!(running.get(&own).await.0, 404);
        let (_, log) = running.get("/api/v1/audit-log").await;
        let text = log.to_string();
        let rows = log["data"].as_array().unwrap().iter();
        let of_own = rows.filter(|row| row["scope"] == json!("operational-webhooks"));
        assert!(of_own.count() >= 5, "{text}");
        assert!(!text.contains(&secret) && !text.contains("hush"), "{text}");
    }
}

/// Goal: an endpoint that fails for a while is told of, before it is disabled, and so is its message that
/// arrives in the end. Method: an engine that disables after some seconds warns after a tenth of it.
async fn failing_is_told_and_then_recovered(kind: Kind) {
    let soon = Duration::from_millis(100);
    let settings = EngineSettings {
        retry: RetryPolicy::fixed(soon, 1_000),
        breaker: BreakerSettings { first_pause: soon, longest_pause: soon, ..Default::default() },
        disable_after: Some(Duration::from_secs(20)),
        ..EngineSettings::default()
    };
    let running = Running::start_engine(kind, settings).await;
    let listener = Receiver::answering(200).await;
    let is_well = Arc::new(AtomicBool::default());
    let switch = Arc::clone(&is_well);
    let receiver = Receiver::start(move |_, _: &Received| {
        let code = if switch.load(Ordering::Relaxed) { 200 } else { 500 };
        Response::builder().status(code).body(Full::default()).unwrap()
    })
    .await;
    let app = running.add_app("shop").await;
    let wanted = ["endpoint.failing", "endpoint.disabled", "message.attempt.recovered"];
    listen(&running, &listener, json!({ "eventTypes": wanted })).await;
    let endpoint = json!({ "url": receiver.url(), "uid": "crm" });
    let (status, made) = running.ask("POST", "/api/v1/app/shop/endpoint", endpoint).await;
    assert_eq!(status, 201, "{made}");
    let message = json!({ "eventType": "paid", "payload": {} });
    let (status, message) = running.ask("POST", "/api/v1/app/shop/msg", message).await;
    assert_eq!(status, 202, "{message}");
    wait(async || !listener.received().is_empty()).await;
    is_well.store(true, Ordering::Relaxed);
    wait(async || listener.received().len() > 1).await;
    let told = told(&listener);
    assert_eq!(types(&listener), ["endpoint.failing", "message.attempt.recovered"]);
    let [failing, recovered] = &told[..] else { return };
    let mut data = failing["data"].clone();
    let since = data.as_object_mut().unwrap().remove("failSince").unwrap();
    let since: Timestamp = since.as_str().unwrap().parse().unwrap();
    assert!(since <= Timestamp::now(), "{since}");
    let of_endpoint = json!({
        "appId": app, "appUid": "shop", "endpointId": made["id"], "endpointUid": "crm",
    });
    assert_eq!(data, of_endpoint);
    assert_eq!(recovered["data"]["msgId"], message["id"]);
    assert_eq!(recovered["data"]["endpointId"], made["id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_is_told_over_a_file() {
    failing_is_told_and_then_recovered(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_is_told_over_a_database() {
    failing_is_told_and_then_recovered(Kind::Postgres).await;
}

/// The lives of the service, and the callers at the same time.
const LIVES: usize = 4;
const CALLERS: usize = 4;

/// The endpoints and messages that the service accepted.
type Accepted = Arc<Mutex<Vec<(String, String)>>>;

/// Makes endpoints that answer 410, each with a message, until the service is gone.
async fn fail(callers: Callers, url: String, prefix: String, receiver: String, accepted: Accepted) {
    for number in 0.. {
        let name = format!("{prefix}-{number}");
        let endpoint = json!({ "url": receiver, "uid": name, "eventTypes": [name] });
        let made = callers.post(&url, "/app/shop/endpoint", &endpoint).await;
        let Some(endpoint) = made else { return };
        let message = json!({ "eventType": name, "eventId": name, "payload": {} });
        let made = callers.post(&url, "/app/shop/msg", &message).await;
        let Some(message) = made else { return };
        accepted.lock().unwrap().push((endpoint, message));
    }
}

/// Goal: what happened is told, even if the process dies before it could tell. Method: endpoints that are
/// gone are made, each gets a message that fails for good and disables it, and the service is killed at
/// times that are drawn. Each message, each new endpoint and each that is disabled must be told of.
async fn killed_before_it_tells(store: &str) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let (mut random, callers) = (Rng::with_seed(seed), Callers::new().await);
    let (listener, gone) = (Receiver::answering(200).await, Receiver::answering(410).await);
    let accepted = Accepted::default();
    for life in 0..LIVES {
        let mut running = Life::begin(store, &callers).await;
        if life == 0 {
            let app = json!({ "name": "shop", "uid": "shop" });
            callers.post(&running.url, "/app", &app).await.unwrap();
            let endpoint = json!({ "url": listener.url() });
            callers.post(&running.url, "/operational-webhook/endpoint", &endpoint).await.unwrap();
        }
        let failing: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let (url, prefix) = (running.url.clone(), format!("{life}-{caller}"));
                tokio::spawn(fail(callers.clone(), url, prefix, gone.url(), Arc::clone(&accepted)))
            })
            .collect();
        let count = || accepted.lock().unwrap().len();
        let enough = count() + random.usize(10..60);
        wait(async || count() >= enough).await;
        running.process.kill().await.unwrap();
        for caller in failing {
            caller.await.unwrap();
        }
    }
    let of_type = |kind: &str, field: &str| -> BTreeSet<String> {
        let told = told(&listener).into_iter().filter(|one| one["type"] == json!(kind));
        told.map(|one| one["data"][field].as_str().unwrap().to_owned()).collect()
    };
    let before = of_type("message.attempt.exhausted", "msgId").len();
    let last = Life::begin(store, &callers).await;
    wait(async || {
        let exhausted = of_type("message.attempt.exhausted", "msgId");
        let created = of_type("endpoint.created", "endpointId");
        accepted
            .lock()
            .unwrap()
            .iter()
            .all(|(endpoint, message)| exhausted.contains(message) && created.contains(endpoint))
    })
    .await;
    // An attempt that ended with its process may not have disabled its endpoint.
    let disabled = disabled(&callers, &last.url).await;
    assert!(!disabled.is_empty());
    wait(async || of_type("endpoint.disabled", "endpointId").is_superset(&disabled)).await;
    let after = of_type("message.attempt.exhausted", "msgId").len();
    println!("{} messages, {} told in the last life", count(&accepted), after - before);
    // Another life tells the same events again, not others.
    let mut ids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for one in listener.received() {
        let body: Value = serde_json::from_slice(&one.body).unwrap();
        let what =
            format!("{} {} {}", body["type"], body["data"]["endpointId"], body["data"]["msgId"]);
        ids.entry(what).or_default().insert(one.headers["webhook-id"].to_str().unwrap().to_owned());
    }
    assert!(ids.values().all(|ids| ids.len() == 1), "{ids:?}");
}

/// Returns the ids of the endpoints that are disabled.
async fn disabled(callers: &Callers, url: &str) -> BTreeSet<String> {
    let (mut disabled, mut iterator) = (BTreeSet::new(), String::new());
    loop {
        let path = format!("/app/shop/endpoint?limit=250{iterator}");
        let page = callers.get(url, &path).await;
        for found in page["data"].as_array().unwrap() {
            if found["disabled"] == json!(true) {
                disabled.insert(found["id"].as_str().unwrap().to_owned());
            }
        }
        if page["done"] == json!(true) {
            return disabled;
        }
        iterator = format!("&iterator={}", page["iterator"].as_str().unwrap());
    }
}

fn count(accepted: &Accepted) -> usize {
    accepted.lock().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_service_over_a_file_tells_all_that_happened() {
    let folder = tempfile::tempdir().unwrap();
    killed_before_it_tells(folder.path().join("service.db").to_str().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_service_over_a_database_tells_all_that_happened() {
    killed_before_it_tells(&Cluster::shared().database().await).await;
}
