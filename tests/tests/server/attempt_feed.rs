//! The attempts of an application in the order in which they ended, and the cancellation of one delivery.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use webhooks_core::RetryPolicy;
use webhooks_http::HttpTransport;
use webhooks_tests::Receiver;

use crate::running::{Kind, Running, until};

async fn publish(running: &Running, app: &str, id: &str) {
    let message = json!({ "eventType": "paid", "payload": {}, "eventId": id });
    let path = format!("/api/v1/app/{app}/msg");
    assert_eq!(running.ask("POST", &path, message).await.0, 202);
}

async fn add_endpoint(running: &Running, app: &str, uid: &str, receiver: &Receiver) {
    let endpoint = json!({ "url": receiver.url(), "uid": uid });
    let path = format!("/api/v1/app/{app}/endpoint");
    assert_eq!(running.ask("POST", &path, endpoint).await.0, 201);
}

/// Reads all that is there, from an iterator on; returns the ids in their order, and the next iterator.
async fn read(running: &Running, path: &str, mut iterator: String) -> (Vec<String>, String) {
    let mut ids = Vec::new();
    loop {
        let (status, page) = running.get(&format!("{path}?limit=2&iterator={iterator}")).await;
        assert_eq!(status, 200, "{page}");
        let found = page["data"].as_array().unwrap().iter();
        ids.extend(found.map(|found| found["id"].as_str().unwrap().to_owned()));
        page["iterator"].as_str().unwrap().clone_into(&mut iterator);
        if page["done"] == true {
            return (ids, iterator);
        }
    }
}

/// Goal: a reader gets each attempt of its application, of first attempts and of retries, and none of others.
async fn follow(kind: Kind) {
    let running = Running::start(kind).await;
    let (well, ill) = (Receiver::answering(204).await, Receiver::answering(500).await);
    for name in ["shop", "other"] {
        running.add_app(name).await;
        add_endpoint(&running, name, "well", &well).await;
        add_endpoint(&running, name, "ill", &ill).await;
        publish(&running, name, "early").await;
    }
    // The policy is one retry after a second.
    let attempts = |name: &str| format!("/api/v1/app/{name}/attempt/msg/early");
    let count = |wanted| move |page: &Value| page["data"].as_array().unwrap().len() == wanted;
    for name in ["shop", "other"] {
        until(&running, &attempts(name), count(3)).await;
    }
    let path = "/api/v1/app/shop/attempt";
    let (_, from_now) = running.get(path).await;
    assert_eq!((&from_now["data"], &from_now["done"]), (&json!([]), &json!(true)));
    let (_, all) = running.get(&format!("{path}?after=2026-01-01T00:00:00Z")).await;
    let mut codes: Vec<_> = all["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|found| found["responseStatusCode"].clone())
        .collect();
    assert_eq!(codes.pop(), Some(json!(500)), "the retry comes last: {all}");
    assert_eq!(all["data"][0]["eventType"], "paid");
    publish(&running, "shop", "late").await;
    let late = until(&running, "/api/v1/app/shop/attempt/msg/late", count(3)).await;
    let late: BTreeSet<_> = late["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|found| found["id"].as_str().unwrap().to_owned())
        .collect();
    let start = from_now["iterator"].as_str().unwrap().to_owned();
    let (ids, next) = read(&running, path, start).await;
    assert_eq!((ids.len(), ids.into_iter().collect::<BTreeSet<_>>()), (3, late.clone()));
    // Recent attempts come again, and none from before the start.
    let (again, _) = read(&running, path, next).await;
    assert!(again.iter().all(|id| late.contains(id)), "{again:?}");
    let far = "99999999999999999999-1-1-1-1";
    for iterator in ["x", "1-2", "1-2-3-4", "1-2-3-4-x", "-1-2-3-4-5", "1-2-3-4-5-6", far] {
        let (status, answer) = running.get(&format!("{path}?iterator={iterator}")).await;
        assert_eq!(status, 400, "{iterator}: {answer}");
    }
    let (status, _) = running.get(&format!("{path}?limit=0")).await;
    assert_eq!(status, 400);
    let far = format!("{}4294967295", "18446744073709551615-".repeat(4));
    let (status, answer) = running.get(&format!("{path}?iterator={far}")).await;
    assert_eq!((status, &answer["data"]), (200, &json!([])), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_follows_the_attempts_of_an_application_on_sqlite() {
    follow(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_follows_the_attempts_of_an_application_on_postgres() {
    follow(Kind::Postgres).await;
}

/// Goal: a delivery that waits is cancelled at one endpoint alone, and one that has ended is not.
async fn cancel(kind: Kind) {
    let retry = RetryPolicy::fixed(Duration::from_secs(3_600), 1);
    let transport = HttpTransport::development().unwrap();
    let running = Running::start_retrying(kind, transport, retry).await;
    let receiver = Receiver::answering(500).await;
    running.add_app("shop").await;
    add_endpoint(&running, "shop", "one", &receiver).await;
    add_endpoint(&running, "shop", "two", &receiver).await;
    publish(&running, "shop", "m").await;
    let has_tried = |page: &Value| page["data"].as_array().unwrap().len() == 2;
    until(&running, "/api/v1/app/shop/attempt/msg/m", has_tried).await;
    let path = |endpoint: &str| format!("/api/v1/app/shop/msg/m/endpoint/{endpoint}/cancel");
    assert_eq!(running.ask("POST", &path("one"), json!({})).await.0, 204);
    let (status, answer) = running.ask("POST", &path("one"), json!({})).await;
    assert_eq!(status, 409, "{answer}");
    let (status, _) = running.ask("POST", &path("three"), json!({})).await;
    assert_eq!(status, 404);
    for (endpoint, text) in [("one", "canceled"), ("two", "sending")] {
        let (_, page) = running.get(&format!("/api/v1/app/shop/endpoint/{endpoint}/msg")).await;
        let found = &page["data"][0];
        assert_eq!(
            (&found["statusText"], &found["responseStatusCode"]),
            (&json!(text), &json!(500))
        );
    }
    let replay = "/api/v1/app/shop/endpoint/one/bulk-replay";
    for rate in [json!(0), json!(10_001), json!(-1), json!("x")] {
        let body = json!({ "since": "2026-01-01T00:00:00Z", "rate": rate });
        assert_eq!(running.ask("POST", replay, body).await.0, 422);
    }
    let body = json!({ "since": "2026-01-01T00:00:00Z", "rate": 50 });
    assert_eq!(running.ask("POST", replay, body).await.0, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_delivery_is_cancelled_on_sqlite() {
    cancel(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_delivery_is_cancelled_on_postgres() {
    cancel(Kind::Postgres).await;
}
