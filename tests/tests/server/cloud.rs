//! Statistics, searches, tests and documents of the service, which Svix has in its cloud alone.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use webhooks_admin::{Actor, Grant, IdKind, Role, ServiceJob, ServiceJobState, ServiceWork};
use webhooks_core::{TenantId, Timestamp};
use webhooks_tests::Receiver;

use crate::running::{Kind, Running, add_key, until};

on_each_store! {
    a_job_that_was_left_is_done_after_a_restart;
    a_test_attempt_answers_with_its_result;
    all_contents_are_deleted_in_the_background;
    attempts_are_counted_by_time_and_type;
    endpoints_and_deliveries_of_applications_are_counted;
    messages_are_found_by_their_payloads;
    tasks_of_both_kinds_are_in_one_list;
    what_is_exported_can_be_imported;
}

const SINCE: &str = "2026-01-01T00:00:00Z";
const UNTIL: &str = "2099-01-01T00:00:00Z";

/// Makes an endpoint; returns the path of its application.
async fn with_endpoint(running: &Running, uid: &str, url: &str) -> String {
    let path = format!("/api/v1/app/{}", running.add_app(uid).await);
    let endpoint = json!({ "url": url, "uid": "crm" });
    let (status, made) = running.ask("POST", &format!("{path}/endpoint"), endpoint).await;
    assert_eq!(status, 201, "{made}");
    path
}

async fn publish(running: &Running, app: &str, event_type: &str, payload: Value) -> String {
    let message = json!({ "eventType": event_type, "payload": payload });
    let (status, made) = running.ask("POST", &format!("{app}/msg"), message).await;
    assert_eq!(status, 202, "{made}");
    made["id"].as_str().unwrap().to_owned()
}

/// Waits until an endpoint has had this number of attempts.
async fn attempted(running: &Running, app: &str, wanted: u64) {
    let path = format!("{app}/attempt/endpoint/crm/count");
    until(running, &path, |answer| answer["count"] == json!(wanted)).await;
}

/// Waits until a task has ended; returns it.
async fn ended(running: &Running, task: &Value) -> Value {
    let path = format!("/api/v1/background-task/{}", task["id"].as_str().unwrap());
    until(running, &path, |task| task["status"] != json!("running")).await
}

/// Returns the part of an answer's error that names the field.
fn field(answer: &Value) -> &Value {
    &answer["detail"][0]["loc"]
}

mod behaviour {
    use super::*;

    pub(super) async fn attempts_are_counted_by_time_and_type(running: Running) {
        let receiver = Receiver::answering(200).await;
        let app = with_endpoint(&running, "shop", &receiver.url()).await;
        for event_type in ["paid", "paid", "sent"] {
            publish(&running, &app, event_type, json!({})).await;
        }
        attempted(&running, &app, 3).await;
        let span = format!("since={SINCE}&until={UNTIL}");
        let (status, all) = running.get(&format!("{app}/stats/attempts?{span}")).await;
        assert_eq!((status, &all["total_success"]), (200, &json!(3)), "{all}");
        let paid = json!({ "success": 2, "failure": 0, "canceled": 0 });
        assert_eq!(all["by_event_type"]["paid"], paid, "{all}");
        let path = format!("{app}/stats/attempts?{span}&event_types=sent");
        assert_eq!(running.get(&path).await.1["total_success"], json!(1));

        let id = app.rsplit('/').next().unwrap();
        let series = format!("/api/v1/stats/app/{id}/attempt");
        // Figures follow the deliveries by a moment.
        let of = |wanted: Vec<u64>| {
            move |answer: &Value| {
                let counts = answer["data"]["successCount"].as_array().unwrap();
                let counts = counts.iter().map(|count| count.as_u64().unwrap());
                counts.filter(|count| *count > 0).collect::<Vec<_>>() == wanted
            }
        };
        for period in ["OneDay", "OneHour", "FiveMinutes"] {
            let answer = until(&running, &format!("{series}?period={period}"), |answer| {
                let counts = answer["data"]["successCount"].as_array().unwrap();
                counts.iter().filter_map(Value::as_u64).sum::<u64>() == 3
            })
            .await;
            assert_eq!(answer["period"], json!(period));
            // The first step begins at its full period, so there may be one more.
            let steps = answer["data"]["failureCount"].as_array().unwrap().len();
            assert!((24..=25).contains(&steps), "{period}: {steps}");
        }
        let by_type = format!("{series}?event_types=paid");
        assert!(of(vec![2])(&running.get(&by_type).await.1));
        for wrong in [
            format!("{series}?period=OneYear"),
            format!("{series}?startDate={UNTIL}"),
            format!("{series}?startDate={SINCE}&endDate={UNTIL}&period=FiveMinutes"),
            format!("{series}?event_types=a..b"),
            format!("{app}/stats/attempts?since={SINCE}"),
        ] {
            assert_eq!(running.get(&wrong).await.0, 400, "{wrong}");
        }
        let count = format!("{app}/attempt/endpoint/crm/count");
        for (query, wanted) in [("?status=0", 3), ("?status=2", 0), ("?event_types=paid", 2)] {
            let (_, answer) = running.get(&format!("{count}{query}")).await;
            assert_eq!(answer, json!({ "count": wanted, "approximated": false }), "{query}");
        }
        assert_eq!(running.get(&format!("{count}?status_code_class=201")).await.0, 400);
    }

    pub(super) async fn endpoints_and_deliveries_of_applications_are_counted(running: Running) {
        let receiver = Receiver::answering(200).await;
        let busy = with_endpoint(&running, "busy", &receiver.url()).await;
        let idle = with_endpoint(&running, "idle", &receiver.url()).await;
        running.add_app("empty").await;
        let disabled = json!({ "disabled": true });
        assert_eq!(running.ask("PATCH", &format!("{idle}/endpoint/crm"), disabled).await.0, 200);
        let wants = json!({ "eventTypes": ["paid", "user.*"] });
        assert_eq!(running.ask("PATCH", &format!("{busy}/endpoint/crm"), wants).await.0, 200);
        let (_, count) = running.get("/api/v1/stats/endpoint/count").await;
        assert_eq!(count, json!({ "active": 1, "disabled": 1 }));
        let active = "/api/v1/app/stats/count-active";
        assert_eq!(running.get(active).await.1, json!({ "count": 1 }));
        let (_, all) = running.get(&format!("{active}?exclude_disabled=false")).await;
        assert_eq!(all, json!({ "count": 2 }));

        publish(&running, &busy, "paid", json!({})).await;
        attempted(&running, &busy, 1).await;
        let asked = json!({ "since": SINCE, "until": UNTIL, "appIds": ["busy", "busy", "nobody"] });
        let id = busy.rsplit('/').next().unwrap();
        // Figures follow the deliveries by a moment.
        let wanted = json!([{ "appId": id, "appUid": "busy", "messageDestinations": 1 }]);
        loop {
            let (status, task) =
                running.ask("POST", "/api/v1/stats/usage/app", asked.clone()).await;
            assert_eq!((status, &task["task"]), (202, &json!("application.stats")), "{task}");
            assert_eq!(task["unresolvedAppIds"], json!(["nobody"]));
            let task = ended(&running, &task).await;
            assert_eq!(task["status"], json!("finished"), "{task}");
            if task["data"]["appStats"] == wanted {
                break;
            }
            assert_eq!(task["data"]["appStats"][0]["messageDestinations"], json!(0), "{task}");
        }
        let asked = json!({ "since": SINCE, "until": UNTIL });
        let (_, task) = running.ask("POST", "/api/v1/stats/usage/app", asked).await;
        let all = ended(&running, &task).await;
        assert_eq!(all["data"]["appStats"].as_array().unwrap().len(), 3, "{all}");
        let wrong = json!({ "since": UNTIL, "until": SINCE });
        assert_eq!(running.ask("POST", "/api/v1/stats/usage/app", wrong).await.0, 422);

        let path = "/api/v1/stats/usage/event-types";
        let (status, task) = running.ask("PUT", path, Value::Null).await;
        assert_eq!((status, &task["task"]), (202, &json!("event-type.aggregate")), "{task}");
        let found = ended(&running, &task).await;
        let subscribed = json!([{ "appId": id, "hasCatchAllEndpoint": false,
                                  "explicitlySubscribedEventTypes": ["paid", "user.*"] }]);
        assert_eq!(found["data"]["event_types"], subscribed, "{found}");
    }

    pub(super) async fn messages_are_found_by_their_payloads(running: Running) {
        let app = with_endpoint(&running, "shop", "http://127.0.0.1:49151/").await;
        let wanted = publish(&running, &app, "paid", json!({ "name": "Ada" })).await;
        publish(&running, &app, "Ada", json!({ "name": "Bob" })).await;
        let newest = publish(&running, &app, "sent", json!({ "name": "Ada" })).await;
        let search = async |body: Value| {
            let (status, page) = running.ask("POST", &format!("{app}/msg/search"), body).await;
            assert_eq!(status, 200, "{page}");
            page
        };
        let ids = |page: &Value| {
            let found = page["data"].as_array().unwrap().iter();
            found.map(|message| message["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let page = search(json!({ "text": "\"Ada\"", "with_content": true })).await;
        assert_eq!(ids(&page), [newest.clone(), wanted.clone()], "{page}");
        assert_eq!(page["data"][0]["payload"], json!({ "name": "Ada" }));
        let page = search(json!({ "text": "Ada", "event_types": ["paid"] })).await;
        assert_eq!(ids(&page), std::slice::from_ref(&wanted));
        assert_eq!(page["data"][0]["payload"], json!({}), "it was not asked for");
        // Page by page, to the end.
        let (mut found, mut iterator) = (Vec::new(), Value::Null);
        loop {
            let page = search(json!({ "text": "Ada", "limit": 1, "iterator": iterator })).await;
            found.extend(ids(&page));
            iterator = page["iterator"].clone();
            if page["done"] == json!(true) {
                break;
            }
        }
        assert_eq!(found, [newest, wanted]);
        assert_eq!(ids(&search(json!({})).await).len(), 3);
        assert_eq!(ids(&search(json!({ "before": SINCE })).await).len(), 0);
        for (wrong, name) in [
            (json!({ "limit": 0 }), "limit"),
            (json!({ "text": "" }), "text"),
            (json!({ "iterator": "nonsense" }), "iterator"),
            (json!({ "event_types": ["a..b"] }), "event_types"),
        ] {
            let (status, answer) = running.ask("POST", &format!("{app}/msg/search"), wrong).await;
            assert_eq!((status, &field(&answer)[1]), (422, &json!(name)), "{answer}");
        }
        // A key that may not see payloads must not guess them.
        let blind = Grant::new(Role::Viewer).without_payloads();
        let blind = add_key(&running.service, blind).await;
        for (body, wanted) in [("{}", 200), (r#"{"text":"Ada"}"#, 403)] {
            let path = format!("{app}/msg/search");
            let asked = running.ask_as(Some(&blind), "POST", &path, Some(body)).await;
            assert_eq!(asked.0, wanted, "{body}");
        }
    }

    pub(super) async fn a_test_attempt_answers_with_its_result(running: Running) {
        let receiver = Receiver::answering(500).await;
        let app = with_endpoint(&running, "shop", &receiver.url()).await;
        let wants = json!({ "eventTypes": ["other"] });
        assert_eq!(running.ask("PATCH", &format!("{app}/endpoint/crm"), wants).await.0, 200);
        let path = format!("{app}/endpoint/crm/msg/test-attempt");
        let message = json!({ "eventType": "paid", "payload": { "a": 1 } });
        let (status, attempt) = running.ask("POST", &path, message.clone()).await;
        assert_eq!((status, &attempt["responseStatusCode"]), (201, &json!(500)), "{attempt}");
        assert_eq!(attempt["statusText"], json!("fail"));
        assert_eq!(receiver.received()[0].body, r#"{"a":1}"#);
        let late = json!({ "eventType": "paid", "payload": {}, "deliverAt": UNTIL });
        let (status, answer) = running.ask("POST", &path, late).await;
        assert_eq!((status, &field(&answer)[1]), (422, &json!("deliverAt")), "{answer}");
        // The people of an application publish nothing, not even for a test.
        let tenant = TenantId::new(app.rsplit('/').next().unwrap()).unwrap();
        for role in [Role::Customer, Role::Viewer, Role::Publisher] {
            let grant = Grant::new(role).for_application(tenant.clone());
            let key = add_key(&running.service, grant).await;
            let body = message.to_string();
            let asked = running.ask_as(Some(&key), "POST", &path, Some(&body)).await;
            assert_eq!(asked.0, 403, "{role:?}");
        }
        let disabled = json!({ "disabled": true });
        assert_eq!(running.ask("PATCH", &format!("{app}/endpoint/crm"), disabled).await.0, 200);
        assert_eq!(running.ask("POST", &path, message).await.0, 409);
    }

    pub(super) async fn all_contents_are_deleted_in_the_background(running: Running) {
        let receiver = Receiver::answering(200).await;
        let app = with_endpoint(&running, "shop", &receiver.url()).await;
        let other = with_endpoint(&running, "other", &receiver.url()).await;
        let gone = publish(&running, &app, "paid", json!({ "private": 1 })).await;
        let kept = publish(&running, &other, "paid", json!({ "private": 1 })).await;
        let path = format!("{app}/msg/expunge-all-contents");
        let operator = add_key(&running.service, Grant::new(Role::Operator)).await;
        assert_eq!(running.ask_as(Some(&operator), "POST", &path, None).await.0, 403);
        let (status, task) = running.ask("POST", &path, Value::Null).await;
        assert_eq!((status, &task["task"]), (202, &json!("application.purge_content")), "{task}");
        let done = ended(&running, &task).await;
        assert_eq!(done["data"], json!({ "messagesPurged": 1 }), "{done}");
        assert_eq!(running.get(&format!("{app}/msg/{gone}/raw")).await.0, 409);
        assert_eq!(running.get(&format!("{other}/msg/{kept}/raw")).await.0, 200);
        let (_, log) = running.get("/api/v1/audit-log").await;
        let rows = log["data"].as_array().unwrap().iter();
        assert_eq!(rows.filter(|row| row["thing"] == task["id"]).count(), 2, "{log}");
        // Others do not learn of it.
        let tenant = TenantId::new(other.rsplit('/').next().unwrap()).unwrap();
        let grant = Grant::new(Role::Admin).for_application(tenant);
        let stranger = add_key(&running.service, grant).await;
        let path = format!("/api/v1/background-task/{}", task["id"].as_str().unwrap());
        assert_eq!(running.ask_as(Some(&stranger), "GET", &path, None).await.0, 404);
        let (_, list) =
            running.ask_as(Some(&stranger), "GET", "/api/v1/background-task", None).await;
        assert_eq!(list["data"], json!([]));
    }

    pub(super) async fn a_job_that_was_left_is_done_after_a_restart(running: Running) {
        let app = with_endpoint(&running, "shop", "http://127.0.0.1:49151/").await;
        let message = publish(&running, &app, "paid", json!({ "private": 1 })).await;
        let (id, now) = (IdKind::Task.generate(), Timestamp::now());
        let job = ServiceJob {
            application: Some(TenantId::new(app.rsplit('/').next().unwrap()).unwrap()),
            work: ServiceWork::ExpungeAll { until: now },
            state: ServiceJobState::Running,
            result: Value::Null,
            until: now + Duration::from_secs(60 * 60),
        };
        let later = publish(&running, &app, "paid", json!({ "private": 2 })).await;
        // Its lease has ended long since.
        let ago = now.saturating_sub(Duration::from_secs(600));
        let admin = running.service.admin();
        admin.start_job(id.clone(), job, &Actor::service(), ago).await.unwrap();
        // The next process starts.
        let _router = running.service.router();
        let done = ended(&running, &json!({ "id": id })).await;
        assert_eq!(done["data"], json!({ "messagesPurged": 1 }), "{done}");
        assert_eq!(running.get(&format!("{app}/msg/{message}/raw")).await.0, 409);
        let kept = running.get(&format!("{app}/msg/{later}/raw")).await;
        assert_eq!(kept.0, 200, "it came after the request");
    }

    pub(super) async fn tasks_of_both_kinds_are_in_one_list(running: Running) {
        let app = with_endpoint(&running, "shop", "http://127.0.0.1:49151/").await;
        let mut made = Vec::new();
        for number in 0..24 {
            let task = if number % 4 == 3 {
                let path = format!("{app}/endpoint/crm/recover");
                running.ask("POST", &path, json!({ "since": SINCE })).await.1
            } else {
                running.ask("PUT", "/api/v1/stats/usage/event-types", Value::Null).await.1
            };
            ended(&running, &task).await;
            made.push(task["id"].as_str().unwrap().to_owned());
        }
        made.reverse();
        for limit in [1, 5, 100] {
            let (mut found, mut iterator) = (Vec::new(), String::new());
            loop {
                let path = format!("/api/v1/background-task?limit={limit}{iterator}");
                let (status, page) = running.get(&path).await;
                assert_eq!(status, 200, "{page}");
                let tasks = page["data"].as_array().unwrap();
                assert!(tasks.len() <= limit, "{page}");
                found.extend(tasks.iter().map(|task| task["id"].as_str().unwrap().to_owned()));
                if page["done"] == json!(true) {
                    break;
                }
                iterator = format!("&iterator={}", page["iterator"].as_str().unwrap());
            }
            assert_eq!(found, made, "{limit}");
        }
        let (_, page) = running.get("/api/v1/background-task?task=endpoint.recover&limit=5").await;
        assert!(page["data"].as_array().unwrap().len() < 5, "{page}");
        for wrong in ["nonsense", ".nonsense", "qtask_1", "."] {
            let path = format!("/api/v1/background-task?iterator={wrong}");
            assert_eq!(running.get(&path).await.0 == 400, wrong != ".", "{wrong}");
        }
    }

    pub(super) async fn what_is_exported_can_be_imported(running: Running) {
        let (import, export) = ("/api/v1/environment/import", "/api/v1/environment/export");
        let schema = json!({ "1": { "type": "object" } });
        for event_type in [
            json!({ "name": "paid", "description": "A payment.", "schemas": schema }),
            json!({ "name": "sent", "description": "", "archived": true, "groupName": "mail" }),
        ] {
            assert_eq!(running.ask("POST", "/api/v1/event-type", event_type).await.0, 201);
        }
        let (status, document) = running.ask("POST", export, Value::Null).await;
        assert_eq!((status, &document["version"]), (200, &json!(1)), "{document}");
        let (_, settings) = running.get("/api/v1/environment/settings").await;
        assert_eq!(document["settings"], settings);
        let fields = |document: &Value| {
            let mut found = document["eventTypes"].clone();
            for event_type in found.as_array_mut().unwrap() {
                event_type.as_object_mut().unwrap().retain(|name, _| !name.ends_with("At"));
            }
            found
        };
        for name in ["paid", "sent"] {
            let path = format!("/api/v1/event-type/{name}?expunge=true");
            assert_eq!(running.ask("DELETE", &path, Value::Null).await.0, 204);
        }
        assert_eq!(running.ask("POST", import, document.clone()).await.0, 204);
        assert_eq!(fields(&running.ask("POST", export, json!({})).await.1), fields(&document));

        // One that is refused refuses all.
        let new = json!({ "name": "new", "description": "" });
        for (wrong, name) in [
            (json!({ "eventTypes": [new, { "name": "a..b", "description": "" }] }), "name"),
            (json!({ "eventTypes": [new, new] }), "name"),
            (
                json!({ "eventTypes": [new, { "name": "a", "description": "",
                                                "schemas": { "1": 1 } }] }),
                "schemas",
            ),
            (json!({ "eventTypes": [new], "settings": { "customColor": "red" } }), "customColor"),
            (
                json!({ "eventTypes": [new], "settings": { "enableChannels": false } }),
                "enableChannels",
            ),
            (json!({ "eventTypes": [new], "connectors": [{}] }), "connectors"),
        ] {
            let (status, answer) = running.ask("POST", import, wrong).await;
            assert_eq!(status, 422, "{answer}");
            assert_eq!(field(&answer).as_array().unwrap().last(), Some(&json!(name)), "{answer}");
        }
        assert_eq!(running.get("/api/v1/event-type/new").await.0, 404);
        let viewer = add_key(&running.service, Grant::new(Role::Viewer)).await;
        let body = json!({ "eventTypes": [new] }).to_string();
        assert_eq!(running.ask_as(Some(&viewer), "POST", import, Some(&body)).await.0, 403);
        let (_, log) = running.get("/api/v1/audit-log").await;
        let rows = log["data"].as_array().unwrap().iter();
        let changed: BTreeSet<&str> = rows
            .filter(|row| row["kind"] == json!("event_type"))
            .map(|row| row["thing"].as_str().unwrap())
            .collect();
        assert_eq!(changed, BTreeSet::from(["paid", "sent"]), "{log}");
    }
}

/// Goal: an endpoint that its rate limit holds back says so, and another one does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_that_holds_deliveries_back_is_told() {
    let running = Running::start(Kind::Sqlite).await;
    let receiver = Receiver::answering(200).await;
    let app = with_endpoint(&running, "shop", &receiver.url()).await;
    let path = format!("{app}/endpoint/crm/rate-limit-status");
    assert_eq!(running.get(&path).await, (200, json!({ "status": "Ok" })));
    let limit = json!({ "throttleRate": 1 });
    assert_eq!(running.ask("PATCH", &format!("{app}/endpoint/crm"), limit).await.0, 200);
    for _ in 0..40 {
        publish(&running, &app, "paid", json!({})).await;
    }
    until(&running, &path, |answer| answer["status"] == json!("RateLimited")).await;
}

/// Goal: what is not offered and what is unknown are told apart, each to those who may know.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_unknown_stays_unknown() {
    let running = Running::start(Kind::Sqlite).await;
    for path in ["/ingested", "/api/v1/streams", "/api/v1/app/stream", "/api/v1"] {
        assert_ne!(running.ask_as(None, "GET", path, None).await.0, 501, "{path}");
        assert_ne!(running.get(path).await.0, 501, "{path}");
    }
    let viewer = add_key(&running.service, Grant::new(Role::Viewer)).await;
    let (status, answer) = running.ask_as(Some(&viewer), "GET", "/api/v1/stream", None).await;
    assert_eq!((status, &answer["code"]), (501, &json!("not_implemented")), "{answer}");
}

/// Goal: a key of one application learns nothing of others, and nothing of all of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_application_counts_nothing() {
    let running = Running::start(Kind::Sqlite).await;
    let app = with_endpoint(&running, "shop", "http://127.0.0.1:49151/").await;
    let id = app.rsplit('/').next().unwrap();
    let other = TenantId::new(&running.add_app("other").await).unwrap();
    let grant = Grant::new(Role::Admin).for_application(other);
    let key = add_key(&running.service, grant).await;
    let usage = json!({ "since": SINCE, "until": UNTIL }).to_string();
    let span = format!("since={SINCE}&until={UNTIL}");
    let message = r#"{"eventType":"paid","payload":{}}"#;
    for (method, path, body, wanted) in [
        ("GET", format!("/api/v1/stats/app/{id}/attempt"), None, 404),
        ("GET", format!("{app}/stats/attempts?{span}"), None, 404),
        ("GET", format!("{app}/attempt/endpoint/crm/count"), None, 404),
        ("GET", format!("{app}/endpoint/crm/rate-limit-status"), None, 404),
        ("GET", format!("{app}/endpoint/crm/health"), None, 404),
        ("POST", format!("{app}/endpoint/crm/msg/test-attempt"), Some(message), 404),
        ("POST", format!("{app}/msg/search"), Some("{}"), 404),
        ("POST", format!("{app}/msg/expunge-all-contents"), None, 404),
        ("GET", "/api/v1/app/stats/count-active".to_owned(), None, 403),
        ("GET", "/api/v1/stats/endpoint/count".to_owned(), None, 403),
        ("POST", "/api/v1/stats/usage/app".to_owned(), Some(&*usage), 403),
        ("PUT", "/api/v1/stats/usage/event-types".to_owned(), None, 403),
        ("POST", "/api/v1/environment/import".to_owned(), Some("{}"), 403),
    ] {
        let asked = running.ask_as(Some(&key), method, &path, body).await;
        assert_eq!(asked.0, wanted, "{method} {path}: {}", asked.1);
        assert_eq!(running.ask_as(None, method, &path, body).await.0, 401, "{method} {path}");
    }
}
