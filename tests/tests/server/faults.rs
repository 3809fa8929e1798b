//! Faults that reviews found: each was there once.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use webhooks_admin::{Grant, ListQuery, Role};
use webhooks_core::{EventId, TenantId, Timestamp};
use webhooks_dispatch::clock::{Clock as _, SystemClock};
use webhooks_dispatch::history::HistoryStore as _;
use webhooks_registry::EndpointQuery;

use crate::running::{Kind, Running, add_key, client, until};

on_each_store! {
    a_page_is_bounded_in_bytes;
    a_refused_change_changes_nothing;
    a_request_about_one_application_tells_nothing_of_others;
    a_session_does_not_publish;
    of_many_endpoints_with_one_uid_there_is_one;
    texts_that_no_key_has_are_found_nowhere;
    the_content_of_a_deleted_application_goes;
}

const KEYS: &str = "/api/v1/management/authentication/env/api-token";
const URL: &str = "http://127.0.0.1:49151/";

mod behaviour {
    use super::*;

    pub(super) async fn of_many_endpoints_with_one_uid_there_is_one(running: Running) {
        let app = running.add_app("shop").await;
        let path = format!("/api/v1/app/{app}/endpoint");
        for round in 0..5 {
            let new = json!({ "url": URL, "uid": format!("crm-{round}") });
            let many = (0..6).map(|_| running.ask("POST", &path, new.clone()));
            let told = join_all(many).await;
            let made = told.iter().filter(|(status, _)| *status == 201).count();
            assert_eq!(made, 1, "{told:?}");
            assert!(told.iter().all(|(status, _)| [201, 409].contains(status)), "{told:?}");
        }
        let tenant = TenantId::new(&app).unwrap();
        let registered = running.service.engine().endpoints().tenant(tenant);
        assert_eq!(registered.count(EndpointQuery::default(), 100).await.unwrap(), 5);
        assert_eq!(running.get(&path).await.1["data"].as_array().unwrap().len(), 5);
    }

    pub(super) async fn a_refused_change_changes_nothing(running: Running) {
        let app = running.add_app("shop").await;
        let path = format!("/api/v1/app/{app}/endpoint");
        for uid in ["old", "other"] {
            let new = json!({ "url": URL, "uid": uid });
            assert_eq!(running.ask("POST", &path, new).await.0, 201);
        }
        let old = format!("{path}/old");
        for (patch, expected) in [
            (json!({ "uid": "new", "url": "ftp://example.com" }), 422),
            (json!({ "uid": "new", "url": "http://10.0.0.1/" }), 422),
            (json!({ "uid": "other", "description": "changed" }), 409),
            (json!({ "uid": "a b", "description": "changed" }), 422),
        ] {
            assert_eq!(running.ask("PATCH", &old, patch).await.0, expected);
            let (status, found) = running.get(&old).await;
            assert_eq!((status, &found["description"]), (200, &json!("")), "{found}");
        }
        let message = json!({ "eventType": "a b", "payload": {},
                              "application": { "name": "new", "uid": "new" } });
        assert_eq!(running.ask("POST", "/api/v1/app/new/msg", message).await.0, 422);
        assert_eq!(running.get("/api/v1/app/new").await.0, 404);
        let message = json!({ "eventType": "paid", "payload": {},
                              "application": { "name": "new", "uid": "new" } });
        assert_eq!(running.ask("POST", "/api/v1/app/new/msg", message).await.0, 202);
    }

    pub(super) async fn a_request_about_one_application_tells_nothing_of_others(running: Running) {
        let own = TenantId::new(&running.add_app("own").await).unwrap();
        running.add_app("bank").await;
        let key = add_key(&running.service, Grant::new(Role::Publisher).for_application(own)).await;
        for uid in ["bank", "no-bank"] {
            let message = json!({ "eventType": "paid", "payload": {},
                                  "application": { "name": "a", "uid": uid } });
            let (path, message) = (format!("/api/v1/app/{uid}/msg"), message.to_string());
            let (status, _) = running.ask_as(Some(&key), "POST", &path, Some(&message)).await;
            assert_eq!(status, 404, "{uid}");
        }
    }

    pub(super) async fn a_session_does_not_publish(running: Running) {
        let app = running.add_app("shop").await;
        let open = async |input: Value| {
            let path = format!("/api/v1/auth/app-portal-access/{app}");
            running.ask("POST", &path, input).await
        };
        let ask = async |session: &Value, path: &str, body: Value| {
            let (token, path) = (session["token"].as_str(), format!("/api/v1/app/{app}/{path}"));
            running.ask_as(token, "POST", &path, Some(&body.to_string())).await.0
        };
        let (message, endpoint) =
            (json!({ "eventType": "paid", "payload": {} }), json!({ "url": URL }));
        let session = open(json!({})).await.1;
        assert_eq!(ask(&session, "msg", message.clone()).await, 403);
        assert_eq!(ask(&session, "endpoint", endpoint.clone()).await, 201);
        let session = open(json!({ "readOnly": true })).await.1;
        assert_eq!(ask(&session, "endpoint", endpoint).await, 403);
        for misspelt in [json!({ "readonly": true }), json!({ "capabilities": ["ViewBase"] })] {
            assert_eq!(open(misspelt).await.0, 422, "no session with more rights than were meant");
        }
    }

    pub(super) async fn texts_that_no_key_has_are_found_nowhere(running: Running) {
        let app = running.add_app("shop").await;
        let long = "a".repeat(10_000);
        for name in ["%00", "a%00b", &long, "%2e%2e", "msg_%00"] {
            for path in ["app/{}", "event-type/{}", "app/{app}/endpoint/{}", "app/{app}/msg/{}"] {
                let path = format!("/api/v1/{}", path.replace("{app}", &app).replace("{}", name));
                assert_eq!(running.get(&path).await.0, 404, "{path}");
            }
        }
        for iterator in ["%00", "prev:%00"] {
            let (status, page) = running.get(&format!("/api/v1/app?iterator={iterator}")).await;
            assert_eq!(status, 400, "{page}");
        }
        for event_id in ["msg_0000000000000000000001", "bulk-expunge", "batch"] {
            let message = json!({ "eventType": "paid", "payload": {}, "eventId": event_id });
            let told = running.ask("POST", &format!("/api/v1/app/{app}/msg"), message).await;
            assert_eq!(told.0, 422, "{event_id} leads elsewhere");
        }
    }

    pub(super) async fn the_content_of_a_deleted_application_goes(running: Running) {
        let app = running.add_app("shop").await;
        let message = json!({ "eventType": "paid", "payload": { "private": true } });
        let (_, sent) = running.ask("POST", &format!("/api/v1/app/{app}/msg"), message).await;
        let tenant = TenantId::new(&app).unwrap();
        let id = EventId::new(sent["id"].as_str().unwrap()).unwrap();
        assert_eq!(running.ask("DELETE", "/api/v1/app/shop", Value::Null).await.0, 204);
        let deadline = SystemClock.monotonic() + Duration::from_secs(30);
        loop {
            let history = running.service.engine().history();
            let found = history.event(tenant.clone(), id.clone()).await.unwrap().unwrap();
            if found.summary.expunged_at.is_some() {
                break;
            }
            assert!(SystemClock.monotonic() < deadline, "its content is left");
            SystemClock.sleep(Duration::from_millis(20)).await;
        }
    }

    pub(super) async fn a_page_is_bounded_in_bytes(running: Running) {
        let app = running.add_app("shop").await;
        let path = format!("/api/v1/app/{app}/msg");
        for number in 0..20 {
            let payload = json!({ "number": number, "filler": "a".repeat(700_000) });
            let message = json!({ "eventType": "paid", "payload": payload });
            assert_eq!(running.ask("POST", &path, message).await.0, 202);
        }
        let (mut numbers, mut iterator) = (Vec::new(), String::new());
        loop {
            let (_, page) = running.get(&format!("{path}?limit=100{iterator}")).await;
            assert!(page.to_string().len() < 10 * 1024 * 1024);
            let found = page["data"].as_array().unwrap();
            numbers.extend(found.iter().map(|one| one["payload"]["number"].as_u64().unwrap()));
            if page["done"] == json!(true) {
                break;
            }
            iterator = format!("&iterator={}", page["iterator"].as_str().unwrap());
        }
        let expected: Vec<u64> = (0..20).rev().collect();
        assert_eq!(numbers, expected);
    }
}

/// Goal: keys and secrets are in no row, whatever client libraries send along. Method: the file is
/// searched.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_hold_a_key_are_not_kept() {
    let running = Running::start(Kind::Sqlite).await;
    let app = running.add_app("shop").await;
    let post = async |key: &str, path: &str, body: Value| {
        let request = client().post(format!("{}{path}", running.url)).bearer_auth(key);
        let request = request.header("idempotency-key", "one").body(body.to_string());
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_str::<Value>(&response.text().await.unwrap()).unwrap())
    };
    let (_, key) = post(&running.key, KEYS, json!({ "name": "a", "role": "viewer" })).await;
    let access = format!("/api/v1/auth/app-portal-access/{app}");
    let (_, session) = post(&running.key, &access, json!({})).await;
    let told = [key["token"].as_str().unwrap(), session["token"].as_str().unwrap(), &running.key];
    let mut file = std::fs::read(running.folder.path().join("service.db")).unwrap();
    file.extend(std::fs::read(running.folder.path().join("service.db-wal")).unwrap());
    let holds = |text: &str| file.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("portal session"), "the search works");
    for token in told {
        assert!(!holds(token));
    }
    // A stranger is refused before anything is kept.
    let stranger = "a-key-that-nobody-has-made-yet";
    let (status, _) = post(stranger, "/api/v1/app", json!({ "name": "a" })).await;
    assert_eq!(status, 401);
}

/// Goal: a key has the rights that were asked for, or is not made, and one is always left.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_a_misspelt_limit_is_not_made() {
    let running = Running::start(Kind::Sqlite).await;
    for input in [
        json!({ "name": "a" }),
        json!({ "name": "a", "Role": "viewer" }),
        json!({ "name": "a", "role": "viewer", "app": "shop" }),
        json!({ "name": "a", "role": "admin", "seesPayloads": false }),
        json!({ "name": "a", "role": "admin", "seesSecrets": false }),
    ] {
        let (status, told) = running.ask("POST", KEYS, input).await;
        assert_eq!(status, 422, "{told}");
    }
    let (_, keys) = running.get(KEYS).await;
    let own = keys["data"][0]["id"].as_str().unwrap();
    let (status, _) = running.ask("POST", &format!("{KEYS}/{own}/expire"), Value::Null).await;
    assert_eq!(status, 409, "nobody could make another");
    assert_eq!(running.get(KEYS).await.0, 200);
}

/// Goal: content that was deleted is not in a kept answer or in the record of a task.
#[tokio::test(flavor = "multi_thread")]
async fn deleted_content_is_nowhere() {
    let running = Running::start(Kind::Sqlite).await;
    let app = running.add_app("shop").await;
    let messages = format!("/api/v1/app/{app}/msg");
    let message = json!({ "eventType": "paid", "eventId": "one", "payload": { "a": "private" } });
    assert_eq!(running.ask("POST", &messages, message.clone()).await.0, 202);
    let (_, task) = running.ask("POST", "/api/v1/msg/broadcast", message).await;
    let path = format!("/api/v1/background-task/{}", task["id"].as_str().unwrap());
    until(&running, &path, |task| task["status"] == json!("finished")).await;
    let headers = [("content-type", "application/json"), ("idempotency-key", "one")];
    let search = async || {
        let body = json!({ "text": "private", "with_content": true }).to_string();
        running.post(&format!("{messages}/search"), &headers, &body).await.1.to_string()
    };
    assert!(search().await.contains("private"));
    let content = format!("{messages}/one/content");
    assert_eq!(running.ask("DELETE", &content, Value::Null).await.0, 204);
    assert!(!search().await.contains("private"));
    let task = running.service.admin().jobs().list(ListQuery::default(), Timestamp::now()).await;
    assert!(!format!("{task:?}").contains("private"));
}

/// Goal: a test attempt keeps to the schema of its type and to the day's messages.
#[tokio::test(flavor = "multi_thread")]
async fn a_test_attempt_is_a_message_like_others() {
    let running = Running::start(Kind::Sqlite).await;
    let app = running.add_app("shop").await;
    let endpoint = json!({ "url": URL, "uid": "crm" });
    let path = format!("/api/v1/app/{app}/endpoint");
    assert_eq!(running.ask("POST", &path, endpoint).await.0, 201);
    let strict = json!({ "name": "paid", "description": "", "schemaEnforcement": "refuse",
                         "schemas": { "1": { "required": ["amount"] } } });
    assert_eq!(running.ask("POST", "/api/v1/event-type", strict).await.0, 201);
    let test = format!("{path}/crm/msg/test-attempt");
    let message = |payload: Value| json!({ "eventType": "paid", "payload": payload });
    assert_eq!(running.ask("POST", &test, message(json!({}))).await.0, 422);
    let limits = json!({ "messagesPerDay": 0 });
    assert_eq!(running.ask("PUT", &format!("/api/v1/app/{app}/limits"), limits).await.0, 200);
    assert_eq!(running.ask("POST", &test, message(json!({ "amount": 1 }))).await.0, 429);
}
