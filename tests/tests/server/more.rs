//! Operations that Svix has in its cloud alone, and those that only we have.

use serde_json::{Value, json};
use webhooks_tests::Receiver;

use crate::running::{Kind, Running, until};

const KEYS: &str = "/api/v1/management/authentication/env/api-token";

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_shown_once_and_has_the_rights_that_it_was_given() {
    let running = Running::start(Kind::Sqlite).await;
    let app = running.add_app("shop").await;
    let new =
        json!({ "name": "viewer", "role": "viewer", "application": "shop", "seesPayloads": false });
    let (status, made) = running.ask("POST", KEYS, new).await;
    assert_eq!(status, 200, "{made}");
    let (token, id) = (made["token"].as_str().unwrap(), made["id"].as_str().unwrap());
    let (_, who) = running.ask_as(Some(token), "GET", "/api/v1/auth/whoami", None).await;
    assert_eq!((&who["role"], &who["appId"]), (&json!("viewer"), &json!(app)));
    let (_, list) = running.get(KEYS).await;
    let text = list.to_string();
    assert!(text.contains(id) && !text.contains(token) && !text.contains("hash"), "{text}");
    let found = &list["data"].as_array().unwrap()[1];
    assert!(found["lastUsedAt"].is_string(), "{found}");
    let renamed = running.ask("PATCH", &format!("{KEYS}/{id}"), json!({ "name": "new" })).await;
    assert_eq!(renamed.1["name"], json!("new"));
    for scoped in [json!({ "name": "a", "scopes": ["x"] }), json!({ "name": "a", "role": "root" })]
    {
        assert_eq!(running.ask("POST", KEYS, scoped).await.0, 422);
    }
    assert_eq!(running.ask("POST", &format!("{KEYS}/{id}/expire"), json!({})).await.0, 204);
    let (status, _) = running.ask_as(Some(token), "GET", "/api/v1/auth/whoami", None).await;
    assert_eq!(status, 401);
    // A session is ended with all of its application.
    let access = format!("/api/v1/auth/app-portal-access/{app}");
    let session = running.ask("POST", &access, json!({})).await.1;
    let session = session["token"].as_str();
    assert_eq!(running.ask_as(session, "GET", "/api/v1/auth/whoami", None).await.0, 200);
    let all = format!("/api/v1/auth/app/{app}/expire-all");
    assert_eq!(running.ask("POST", &all, json!({})).await.0, 204);
    assert_eq!(running.ask_as(session, "GET", "/api/v1/auth/whoami", None).await.0, 401);
}

/// Goal: what an endpoint missed arrives by a task; what it got is replayed by another. On both stores.
async fn replays(kind: Kind) {
    let running = Running::start(kind).await;
    let app = running.add_app("shop").await;
    let messages = format!("/api/v1/app/{app}/msg");
    let message = json!({ "eventType": "paid", "payload": { "a": 1.0 }, "eventId": "one" });
    assert_eq!(running.ask("POST", &messages, message).await.0, 202);
    let receiver = Receiver::answering(200).await;
    let precheck = json!({ "eventType": "paid" });
    let active = async || {
        let path = format!("{messages}/precheck/active");
        running.ask("POST", &path, precheck.clone()).await.1["active"].clone()
    };
    assert_eq!(active().await, json!(false));
    let endpoints = format!("/api/v1/app/{app}/endpoint");
    let new = json!({ "url": receiver.url(), "uid": "crm", "eventTypes": ["paid"] });
    assert_eq!(running.ask("POST", &endpoints, new).await.0, 201);
    assert_eq!(active().await, json!(true));

    let since = json!({ "since": "2026-01-01T00:00:00Z" });
    let path = format!("{endpoints}/crm/replay-missing");
    let (status, task) = running.ask("POST", &path, since.clone()).await;
    assert_eq!((status, &task["task"]), (202, &json!("endpoint.replay")), "{task}");
    let path = format!("/api/v1/background-task/{}", task["id"].as_str().unwrap());
    let ended = until(&running, &path, |task| task["status"] == json!("finished")).await;
    assert_eq!(ended["data"]["deliveries"], json!(1));
    let attempts = format!("/api/v1/app/{app}/attempt/endpoint/crm");
    let count =
        |wanted: usize| move |page: &Value| page["data"].as_array().unwrap().len() == wanted;
    until(&running, &attempts, count(1)).await;

    let path = format!("{endpoints}/crm/bulk-replay");
    let filter = json!({ "since": "2026-01-01T00:00:00Z", "status": 0, "eventTypes": ["paid"] });
    let (status, task) = running.ask("POST", &path, filter).await;
    assert_eq!((status, &task["task"]), (202, &json!("endpoint.bulk-replay")), "{task}");
    let twice = until(&running, &attempts, count(2)).await;
    assert_eq!(receiver.received().len(), 2);
    let (_, tasks) = running.get("/api/v1/background-task").await;
    assert_eq!(tasks["data"].as_array().unwrap().len(), 2, "{tasks}");

    let attempt = twice["data"][0]["id"].as_str().unwrap();
    let (status, headers) = running.get(&format!("{messages}/one/attempt/{attempt}/headers")).await;
    assert_eq!(status, 200, "{headers}");
    assert_eq!(headers["sentHeaders"]["svix-id"], twice["data"][0]["msgId"]);
    let (_, raw) = running.get(&format!("{messages}/one/raw")).await;
    assert_eq!(raw["payload"], json!(r#"{"a":1.0}"#));
    let ids = json!({ "ids": ["one", "unheard-of"] });
    let (_, gone) = running.ask("POST", &format!("{messages}/bulk-expunge"), ids).await;
    assert_eq!(gone["results"], json!({ "one": "expunged", "unheard-of": "not-found" }));
    assert_eq!(running.get(&format!("{messages}/one/raw")).await.0, 409);

    metrics_are_counted(&running).await;
}

async fn metrics_are_counted(running: &Running) {
    let (status, text) = running.get("/metrics").await;
    assert_eq!(status, 200);
    let text = text.as_str().unwrap();
    for line in [
        "webhooks_published_total 1",
        "webhooks_delivered_total 2",
        "webhooks_attempts_total{result=\"2xx\"} 2",
        "webhooks_exchange_seconds_count 2",
        "webhooks_queue_deliveries 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    let value = |name: &str| -> f64 {
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        line.and_then(|line| line.split(' ').nth(1)?.parse().ok())
            .unwrap_or_else(|| panic!("{name} in {text}"))
    };
    let commits = value("webhooks_store_commit_seconds_count");
    assert!(commits >= 3.0 && value("webhooks_store_commit_seconds_sum") > 0.0, "{text}");
    assert!(value("webhooks_store_calls_total") >= commits, "{text}");
    for purpose in ["read", "write"] {
        let gauge = |labels: &str| value(&format!("webhooks_store_connections{labels}"));
        let in_use = gauge(&format!("{{purpose=\"{purpose}\",state=\"in_use\"}}"));
        let most = gauge(&format!("_max{{purpose=\"{purpose}\"}}"));
        assert!(in_use <= most && gauge(&format!("_waiting{{purpose=\"{purpose}\"}}")) < 10.0);
    }
    assert!(text.contains("webhooks_queue_late_seconds 0\n"), "nothing waits: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_or_delivered_is_replayed_on_sqlite() {
    replays(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_or_delivered_is_replayed_on_postgres() {
    replays(Kind::Postgres).await;
}
