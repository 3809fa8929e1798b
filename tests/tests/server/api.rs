//! Errors, edges and idempotency, on both stores: client libraries do not show them.

use std::time::Duration;

use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::sync::mpsc::channel;
use webhooks_admin::{Actor, EndpointEntry, Grant, ListQuery, Role};
use webhooks_core::{TenantId, Timestamp};
use webhooks_tests::{Received, Receiver};

use crate::running::{Kind, Running, add_key, client};

on_each_store! {
    a_request_with_an_idempotency_key_is_done_once;
    a_uid_is_free_again_when_its_holder_is_gone;
    bad_input_is_told_by_the_name_of_the_field;
    requests_that_cannot_be_read_change_nothing;
    a_batch_is_published_as_a_whole;
    a_body_is_no_array_of_fields;
    names_that_nothing_can_have_are_unknown;
    changes_are_in_the_audit_log_without_secrets;
    an_application_that_is_too_fast_is_told_when_to_come_back;
    pages_lead_forward_and_back;
    the_payload_arrives_byte_for_byte;
    what_was_deleted_is_unknown;
}

/// Returns the error code of an answer.
fn code(answer: &Value) -> &str {
    answer["code"].as_str().unwrap_or_default()
}

mod behaviour {
    use super::*;

    pub(super) async fn bad_input_is_told_by_the_name_of_the_field(running: Running) {
        let app = running.add_app("shop").await;
        let endpoints = format!("/api/v1/app/{app}/endpoint");
        let messages = format!("/api/v1/app/{app}/msg");
        let url = "http://127.0.0.1:49151/";
        let cases = [
            ("POST", "/api/v1/app", json!({}), "name"),
            ("POST", "/api/v1/app", json!({ "name": "" }), "name"),
            ("POST", "/api/v1/app", json!({ "name": "a", "uid": "a b" }), "uid"),
            ("POST", "/api/v1/app", json!({ "name": "a", "uid": app }), "uid"),
            ("POST", "/api/v1/app", json!({ "name": "a", "throttleRate": 0 }), "throttleRate"),
            ("POST", "/api/v1/app", json!({ "name": "a", "metadata": { "a": 1 } }), "metadata"),
            ("POST", "/api/v1/event-type", json!({ "name": "a..b", "description": "" }), "name"),
            ("POST", &endpoints, json!({ "url": "nonsense" }), "url"),
            ("POST", &endpoints, json!({ "url": "http://10.0.0.1/" }), "url"),
            ("POST", &endpoints, json!({ "url": url, "secret": "c2hvcnQ=" }), "secret"),
            ("POST", &endpoints, json!({ "url": url, "channels": [] }), "channels"),
            ("POST", &endpoints, json!({ "url": url, "channels": ["a b"] }), "channels"),
            ("POST", &endpoints, json!({ "url": url, "eventTypes": ["a b"] }), "eventTypes"),
            ("POST", &endpoints, json!({ "url": url, "headers": { "host": "a" } }), "headers"),
            ("POST", &messages, json!({ "eventType": "a b", "payload": {} }), "eventType"),
            ("POST", &messages, json!({ "eventType": "a", "payload": [] }), "payload"),
            (
                "POST",
                &messages,
                json!({ "eventType": "a", "payload": {}, "eventId": "a b" }),
                "eventId",
            ),
            (
                "POST",
                &messages,
                json!({ "eventType": "a", "payload": {}, "transformationsParams": { "rawPayload": "a" } }),
                "transformationsParams",
            ),
            (
                "POST",
                &messages,
                json!({ "eventType": "a", "payload": {}, "tags": ["a b"] }),
                "tags",
            ),
        ];
        for (method, path, body, field) in cases {
            let (status, answer) = running.ask(method, path, body.clone()).await;
            assert_eq!(status, 422, "{body}: {answer}");
            let loc = answer["detail"][0]["loc"].as_array().unwrap();
            assert!(loc.contains(&json!(field)), "{body}: {answer}");
        }
    }

    pub(super) async fn requests_that_cannot_be_read_change_nothing(running: Running) {
        let app = running.add_app("shop").await;
        let messages = format!("/api/v1/app/{app}/msg");
        for body in ["{", "{} {}", "", "\u{0}", "{}", "[\"a\"]"] {
            let key = Some(&*running.key);
            let (status, answer) = running.ask_as(key, "POST", "/api/v1/app", Some(body)).await;
            assert_eq!(status, 422, "{body:?}: {answer}");
        }
        for path in ["/api/v1/app?limit=a", "/api/v1/app?limit=251", "/api/v1/app?order=up"] {
            let (status, answer) = running.get(path).await;
            assert_eq!(status, 400, "{path}: {answer}");
        }
        let (status, answer) = running.get(&format!("{messages}?iterator=nonsense")).await;
        assert_eq!(status, 400, "{answer}");
        let large = json!({ "eventType": "a", "payload": { "a": "a".repeat(1_100_000) } });
        assert_eq!(running.ask("POST", &messages, large).await.0, 413);
        // One byte more than a request may have: the service reads it all, and no part is left on the way.
        let huge = "a".repeat(2 * 1024 * 1024 + 1);
        let (status, _) = running.ask_as(Some(&running.key), "POST", &messages, Some(&huge)).await;
        assert_eq!(status, 413);
        let (status, answer) = running.get(&format!("{messages}?limit=5")).await;
        assert_eq!((status, &answer["data"]), (200, &json!([])), "nothing was kept");
        assert_eq!(running.get("/nowhere").await.0, 404);
        assert_eq!(running.ask("PUT", "/api/v1/app", json!({})).await.0, 405);
    }

    pub(super) async fn a_body_is_no_array_of_fields(running: Running) {
        let app = running.add_app("shop").await;
        let messages = format!("/api/v1/app/{app}/msg");
        let batch = format!("{messages}/batch");
        let with = |made: Value| json!({ "eventType": "a", "payload": {}, "application": made });
        for (path, body, field) in [
            ("/api/v1/app", json!(["a"]), "body"),
            (&messages, with(json!(["a", "b"])), "application"),
            (&batch, json!([["a", {}]]), "body"),
            // It would make no application, so it must not seem to.
            (&batch, json!([with(json!({ "name": "new" }))]), "application"),
        ] {
            let (status, answer) = running.ask("POST", path, body).await;
            assert_eq!(status, 422, "{path}: {answer}");
            let loc = answer["detail"][0]["loc"].as_array().unwrap();
            assert!(loc.contains(&json!(field)), "{path}: {answer}");
        }
    }

    pub(super) async fn a_batch_is_published_as_a_whole(running: Running) {
        let app = running.add_app("shop").await;
        let path = format!("/api/v1/app/{app}/msg/batch");
        let message = |id: &str, number: u32| json!({ "eventType": "paid", "eventId": id, "payload": { "number": number } });
        let batch = json!([message("a", 1), message("b", 2), message("a", 1), message("a", 9)]);
        let (status, told) = running.ask("POST", &path, batch).await;
        assert_eq!(status, 202, "{told}");
        let statuses: Vec<&str> = told["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["status"].as_str().unwrap())
            .collect();
        assert_eq!(statuses, ["created", "created", "duplicate", "conflict"]);
        let spoilt = json!([message("c", 3), { "eventType": "paid", "payload": [] }]);
        assert_eq!(running.ask("POST", &path, spoilt).await.0, 422);
        let many = vec![message("d", 4); 1_001];
        assert_eq!(running.ask("POST", &path, json!(many)).await.0, 422);
        let lines = format!("{}\r\n\n{}", message("e", 5), message("f", 6));
        let request = client().post(format!("{}{path}", running.url)).bearer_auth(&running.key);
        let request = request.header("content-type", "application/x-ndjson; charset=utf-8");
        assert_eq!(request.body(lines).send().await.unwrap().status(), 202);
        let (_, list) = running.get(&format!("/api/v1/app/{app}/msg")).await;
        let ids: Vec<&str> = list["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["eventId"].as_str().unwrap())
            .collect();
        assert_eq!(ids, ["f", "e", "b", "a"], "nothing of a spoilt batch");
    }

    pub(super) async fn a_request_with_an_idempotency_key_is_done_once(running: Running) {
        let app = running.add_app("shop").await;
        let post = async |path: &str, key: &str, body: &Value| {
            let request = client().post(format!("{}{path}", running.url));
            let request = request.bearer_auth(&running.key).header("idempotency-key", key);
            let response = request.body(body.to_string()).send().await.unwrap();
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let is_again = headers.contains_key("idempotency-replayed");
            let text = response.text().await.unwrap();
            (status, serde_json::from_str::<Value>(&text).unwrap(), is_again)
        };
        let message = json!({ "eventType": "paid", "payload": { "a": 1 } });
        let path = format!("/api/v1/app/{app}/msg");
        let first = post(&path, "one", &message).await;
        assert_eq!(first.0, 202);
        let second = post(&path, "one", &message).await;
        assert_eq!((second.0, &second.1), (202, &first.1));
        let other = json!({ "eventType": "paid", "payload": { "a": 2 } });
        assert_eq!(post(&path, "one", &other).await.0, 409);
        assert_ne!(post(&path, "two", &other).await.1["id"], first.1["id"]);
        // The same key at another place is another request.
        let created = post("/api/v1/app", "one", &json!({ "name": "a" })).await;
        assert_eq!(created.0, 201);
        let again = post("/api/v1/app", "one", &json!({ "name": "a" })).await;
        assert_eq!((again.0, &again.1, again.2), (201, &created.1, true));
        assert_eq!(post("/api/v1/app", "one", &json!({ "name": "b" })).await.0, 409);
        // An error is not kept.
        assert_eq!(post("/api/v1/app", "three", &json!({})).await.0, 422);
        assert_eq!(post("/api/v1/app", "three", &json!({ "name": "b" })).await.0, 201);
        // Many at once make one.
        let new = json!({ "name": "many" });
        let many = (0..8).map(|_| post("/api/v1/app", "many", &new));
        let answers = futures_util::future::join_all(many).await;
        let ids: std::collections::BTreeSet<String> = answers
            .iter()
            .filter(|(status, ..)| *status == 201)
            .map(|(_, answer, _)| answer["id"].to_string())
            .collect();
        assert_eq!(ids.len(), 1, "{answers:?}");
        assert!(answers.iter().all(|(status, ..)| [201, 409].contains(status)), "{answers:?}");
    }

    pub(super) async fn a_uid_is_free_again_when_its_holder_is_gone(running: Running) {
        let app = running.add_app("shop").await;
        let path = format!("/api/v1/app/{app}/endpoint");
        let new = json!({ "url": "http://127.0.0.1:49151/", "uid": "crm" });
        let (status, first) = running.ask("POST", &path, new.clone()).await;
        assert_eq!(status, 201, "{first}");
        let (status, answer) = running.ask("POST", &path, new.clone()).await;
        assert_eq!((status, code(&answer)), (409, "conflict"));
        assert_eq!(running.ask("DELETE", &format!("{path}/crm"), Value::Null).await.0, 204);
        let (status, second) = running.ask("POST", &path, new.clone()).await;
        assert_eq!(status, 201, "{second}");
        // A crash between the engine and the record: the endpoint is gone, its entry is left. It gives
        // way when no request can go on that it may belong to.
        let (tenant, id) = (TenantId::new(&app).unwrap(), second["id"].as_str().unwrap());
        let endpoints = running.service.engine().endpoints().tenant(tenant.clone());
        endpoints.unregister(id).await.unwrap();
        let (status, answer) = running.ask("POST", &path, new.clone()).await;
        assert_eq!((status, code(&answer)), (409, "conflict"));
        let (entries, actor) = (running.service.admin().endpoints(&tenant), Actor::service());
        entries.delete(id, &actor, Timestamp::now()).await.unwrap();
        let entry = EndpointEntry { uid: Some("crm".to_owned()) };
        let an_hour_ago = Timestamp::now().saturating_sub(Duration::from_secs(3_600));
        entries.add(id.to_owned(), entry, &actor, an_hour_ago).await.unwrap();
        assert_eq!(running.get(&format!("{path}/crm")).await.0, 404);
        let (status, third) = running.ask("POST", &path, new).await;
        assert_eq!(status, 201, "{third}");
        let (_, list) = running.get(&path).await;
        assert_eq!(list["data"].as_array().unwrap().len(), 1, "{list}");
    }

    pub(super) async fn names_that_nothing_can_have_are_unknown(running: Running) {
        let app = running.add_app("shop").await;
        // A NUL, which PostgreSQL stores in no text, and bytes that are no UTF-8.
        for name in ["%00", "shop%00", "%FF"] {
            for path in [
                format!("/api/v1/app/{name}"),
                format!("/api/v1/app/{app}/endpoint/{name}"),
                format!("/api/v1/app/{app}/msg/{name}"),
                format!("/api/v1/event-type/{name}"),
                format!("/api/v1/management/authentication/default/api-token/{name}"),
                format!("/api/v1/background-task/{name}"),
            ] {
                let (status, answer) = running.get(&path).await;
                assert_eq!((status, code(&answer)), (404, "not_found"), "{path}");
            }
            let (status, answer) = running.get(&format!("/api/v1/app?iterator={name}")).await;
            assert_eq!((status, code(&answer)), (400, "invalid_request"), "{answer}");
        }
        let (status, answer) = running.get("/api/v1/background-task?iterator=x").await;
        assert_eq!((status, code(&answer)), (400, "invalid_request"));
    }

    pub(super) async fn changes_are_in_the_audit_log_without_secrets(running: Running) {
        let app = running.add_app("shop").await;
        let path = format!("/api/v1/app/{app}/endpoint");
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let new = json!({ "url": "http://127.0.0.1:49151/", "secret": secret, "uid": "crm",
                          "headers": { "authorization": "hush" } });
        assert_eq!(running.ask("POST", &path, new).await.0, 201);
        let patch = json!({ "description": "changed" });
        assert_eq!(running.ask("PATCH", &format!("{path}/crm"), patch).await.0, 200);
        let rotate = json!({ "key": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD" });
        let rotated = running.ask("POST", &format!("{path}/crm/secret/rotate"), rotate).await;
        assert_eq!(rotated.0, 200, "{rotated:?}");
        let query = ListQuery { limit: 100, ..ListQuery::default() };
        let log = running.service.admin().audit().list(query, Timestamp::now()).await.unwrap();
        let rows: Vec<&str> = log.items.iter().map(|row| &*row.value.kind).collect();
        for kind in ["api_key", "application", "endpoint"] {
            assert!(rows.contains(&kind), "{rows:?}");
        }
        let text =
            serde_json::to_string(&log.items.iter().map(|row| &row.value).collect::<Vec<_>>());
        let text = text.unwrap();
        assert!(text.contains("changed") && text.contains("127.0.0.1"), "{text}");
        for hidden in [secret, "hush", "C2FVsBQIhrscChlQIMV", &running.key] {
            assert!(!text.contains(hidden), "{hidden}");
        }
        // Not even its hash, with which the log would have what the store looks for.
        assert!(!text.contains("\"hash\""), "{text}");
    }

    pub(super) async fn an_application_that_is_too_fast_is_told_when_to_come_back(
        running: Running,
    ) {
        let app = running.add_app("shop").await;
        let slow = json!({ "throttleRate": 1 });
        assert_eq!(running.ask("PATCH", &format!("/api/v1/app/{app}"), slow).await.0, 200);
        let publish = async |number: u32| {
            let message = json!({ "eventType": "paid", "payload": { "number": number } });
            running.ask("POST", &format!("/api/v1/app/{app}/msg"), message).await
        };
        // However slow this machine is, one of many at once comes too early.
        let all = futures_util::future::join_all((0..20).map(publish)).await;
        let refused: Vec<_> = all.iter().filter(|(status, _)| *status == 429).collect();
        assert!(!refused.is_empty() && refused.len() < 20, "{all:?}");
        assert_eq!(code(&refused[0].1), "too_many_requests");
        let (_, list) = running.get(&format!("/api/v1/app/{app}/msg")).await;
        assert_eq!(list["data"].as_array().unwrap().len(), 20 - refused.len());
    }

    pub(super) async fn pages_lead_forward_and_back(running: Running) {
        let app = running.add_app("shop").await;
        for number in 0..7 {
            let message = json!({ "eventType": "paid", "payload": { "number": number } });
            let path = format!("/api/v1/app/{app}/msg");
            assert_eq!(running.ask("POST", &path, message).await.0, 202);
            let new =
                json!({ "url": "http://127.0.0.1:49151/", "description": number.to_string() });
            let path = format!("/api/v1/app/{app}/endpoint");
            assert_eq!(running.ask("POST", &path, new).await.0, 201);
        }
        for list in ["msg", "endpoint"] {
            let path = format!("/api/v1/app/{app}/{list}");
            let (_, whole) = running.get(&path).await;
            let whole = whole["data"].as_array().unwrap().clone();
            assert_eq!(whole.len(), 7);
            let (mut found, mut iterator) = (Vec::new(), String::new());
            let last = loop {
                let (status, page) = running.get(&format!("{path}?limit=3{iterator}")).await;
                assert_eq!(status, 200, "{page}");
                found.extend(page["data"].as_array().unwrap().iter().cloned());
                if page["done"] == json!(true) {
                    break page;
                }
                iterator = format!("&iterator={}", page["iterator"].as_str().unwrap());
            };
            assert_eq!(found, whole, "{list}");
            let back = last["prevIterator"].as_str().unwrap();
            let (_, before) = running.get(&format!("{path}?limit=3&iterator={back}")).await;
            assert_eq!(before["data"].as_array().unwrap()[..], whole[3..6], "{list}: {before}");
            let (_, none) = running.get(&format!("{path}?limit=0")).await;
            assert_eq!((&none["data"], &none["done"]), (&json!([]), &json!(false)), "{list}");
        }
        let (_, filtered) =
            running.get(&format!("/api/v1/app/{app}/msg?event_types=a&event_types=b")).await;
        assert_eq!((&filtered["data"], &filtered["done"]), (&json!([]), &json!(true)));
    }

    pub(super) async fn the_payload_arrives_byte_for_byte(running: Running) {
        let app = running.add_app("shop").await;
        let (arrived, mut arrivals) = channel(1);
        let answer = move |_, received: &Received| {
            arrived.try_send(received.clone()).unwrap();
            Response::new(Full::default())
        };
        let receiver = Receiver::start(answer).await;
        let new = json!({ "url": receiver.url() });
        let (status, endpoint) =
            running.ask("POST", &format!("/api/v1/app/{app}/endpoint"), new).await;
        assert_eq!(status, 201, "{endpoint}");
        let payload = "{ \"a\" : 1.0,\n\t\"b\":[ 1e3 ,\"\\u00e9\"] }";
        let body = format!(r#"{{"eventType":"paid","payload":{payload}}}"#);
        let path = format!("/api/v1/app/{app}/msg");
        let (status, sent) = running.ask_as(Some(&running.key), "POST", &path, Some(&body)).await;
        assert_eq!(status, 202, "{sent}");
        let received = arrivals.recv().await.unwrap();
        assert_eq!(received.body, payload.as_bytes());
        assert_eq!(received.headers["webhook-id"], sent["id"].as_str().unwrap());
        assert_eq!(received.headers["svix-id"], sent["id"].as_str().unwrap());
    }

    pub(super) async fn what_was_deleted_is_unknown(running: Running) {
        let app = running.add_app("shop").await;
        let endpoint = json!({ "url": "http://127.0.0.1:49151/", "uid": "crm" });
        let path = format!("/api/v1/app/{app}/endpoint");
        assert_eq!(running.ask("POST", &path, endpoint).await.0, 201);
        assert_eq!(running.ask("DELETE", "/api/v1/app/shop", Value::Null).await.0, 204);
        for path in ["/api/v1/app/shop", &format!("/api/v1/app/{app}"), &path] {
            let (status, answer) = running.get(path).await;
            assert_eq!((status, code(&answer)), (404, "not_found"), "{path}");
        }
        let again = running.add_app("shop").await;
        assert_ne!(again, app);
        let (_, list) = running.get("/api/v1/app/shop/endpoint").await;
        assert_eq!(list["data"], json!([]));
    }
}

/// Goal: a session of one application ends when its holder says so, and with its time.
#[tokio::test(flavor = "multi_thread")]
async fn a_portal_session_is_for_one_application_until_it_ends() {
    let running = Running::start(Kind::Sqlite).await;
    let app = running.add_app("shop").await;
    let other = running.add_app("other").await;
    let (status, access) =
        running.ask("POST", &format!("/api/v1/auth/app-portal-access/{app}"), json!({})).await;
    assert_eq!(status, 200, "{access}");
    let token = access["token"].as_str();
    let get = async |path: &str| running.ask_as(token, "GET", path, None).await.0;
    assert_eq!(get(&format!("/api/v1/app/{app}")).await, 200);
    assert_eq!(get(&format!("/api/v1/app/{other}")).await, 404);
    assert_eq!(get("/api/v1/app").await, 403);
    assert_eq!(running.ask_as(token, "POST", "/api/v1/auth/logout", None).await.0, 204);
    assert_eq!(get(&format!("/api/v1/app/{app}")).await, 401);
    let (status, _) = running.ask("POST", "/api/v1/auth/logout", Value::Null).await;
    assert_eq!(status, 400, "a key has no session");
    let viewer = add_key(&running.service, Grant::new(Role::Viewer).without_payloads()).await;
    let message = json!({ "eventType": "paid", "payload": { "private": true } });
    let path = format!("/api/v1/app/{app}/msg");
    assert_eq!(running.ask("POST", &path, message).await.0, 202);
    let (_, list) = running.ask_as(Some(&viewer), "GET", &path, None).await;
    assert_eq!(list["data"][0]["payload"], json!({}), "payloads are a right of their own");
}
