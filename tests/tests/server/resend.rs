//! A resend of a message whose retry waits: the attempt comes at once, and more follow.

use std::time::Duration;

use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};
use webhooks_core::RetryPolicy;
use webhooks_dispatch::{BreakerSettings, EngineSettings};
use webhooks_http::HttpTransport;
use webhooks_tests::Receiver;

use crate::running::{Kind, Running, until};

/// The paths of a message to one endpoint.
struct Attempted {
    endpoints: String,
    attempts: String,
    resend: String,
}

impl Attempted {
    async fn once(running: &Running, receiver: &Receiver) -> Self {
        let begun = Self::begun(running, receiver).await;
        until(running, &begun.attempts, count(1)).await;
        begun
    }

    /// Publishes the message.
    async fn begun(running: &Running, receiver: &Receiver) -> Self {
        let app = running.add_app("shop").await;
        let endpoint = json!({ "url": receiver.url(), "uid": "crm" });
        let endpoints = format!("/api/v1/app/{app}/endpoint");
        assert_eq!(running.ask("POST", &endpoints, endpoint).await.0, 201);
        let messages = format!("/api/v1/app/{app}/msg");
        let message = json!({ "eventType": "paid", "payload": {}, "eventId": "one" });
        assert_eq!(running.ask("POST", &messages, message).await.0, 202);
        let attempts = format!("/api/v1/app/{app}/attempt/msg/one");
        Self { endpoints, attempts, resend: format!("{messages}/one/endpoint/crm/resend") }
    }
}

/// Returns whether a page has as many attempts.
fn count(wanted: usize) -> impl Fn(&Value) -> bool {
    move |page| page["data"].as_array().is_some_and(|data| data.len() == wanted)
}

/// Goal: a resend does not wait for the schedule, and does not end it. Method: the retry waits for an
/// hour, which no test does.
async fn resends(kind: Kind) {
    let retry = RetryPolicy::fixed(Duration::from_secs(3_600), 1);
    let transport = HttpTransport::development().unwrap();
    let running = Running::start_retrying(kind, transport, retry).await;
    let receiver = Receiver::answering(500).await;
    let Attempted { endpoints, attempts, resend } = Attempted::once(&running, &receiver).await;
    for (statuses, status) in [(json!([]), 422), (json!([5]), 422), (json!([0, 1, 2, 4]), 409)] {
        let asked = running.ask("POST", &resend, json!({ "statuses": statuses })).await;
        assert_eq!(asked.0, status, "{}", asked.1);
    }
    // One more than the policy allows: each begins it anew.
    for made in 2..=4 {
        let body = if made == 2 { json!({ "statuses": [3] }) } else { json!({}) };
        assert_eq!(running.ask("POST", &resend, body).await.0, 202);
        let page = until(&running, &attempts, count(made)).await;
        assert_eq!(page["data"][0]["triggerType"], json!(1), "{page}");
        assert_eq!(page["data"][made - 1]["triggerType"], json!(0), "{page}");
        let (_, stats) = running.get(&format!("{endpoints}/crm/stats")).await;
        assert_eq!((&stats["sending"], &stats["fail"]), (&json!(1), &json!(0)), "{stats}");
        assert!(stats["failingSince"].is_string() && stats["lateSecs"] == 0, "{stats}");
    }
    assert_eq!(receiver.received().len(), 4);
}

/// Goal: a message that was delivered meanwhile is not sent again to those who name other statuses.
async fn obeys_statuses(kind: Kind) {
    let running = Running::start(kind).await;
    let receiver = Receiver::answering(204).await;
    let Attempted { attempts, resend, .. } = Attempted::once(&running, &receiver).await;
    let (status, told) = running.ask("POST", &resend, json!({ "statuses": [1, 2, 3] })).await;
    assert_eq!((status, &told["code"]), (409, &json!("other_status")), "{told}");
    assert_eq!(running.ask("POST", &resend, json!({ "statuses": [2, 0] })).await.0, 202);
    until(&running, &attempts, count(2)).await;
    assert_eq!(receiver.received().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_with_another_status_is_not_sent_on_sqlite() {
    obeys_statuses(Kind::Sqlite).await;
}

/// Goal: a service tells that it holds an endpoint back, and why, and a resend does not wait for that. Method:
/// a breaker that stays open for an hour.
async fn goes_to_one_that_is_held(kind: Kind) {
    let hour = Duration::from_secs(3_600);
    let breaker =
        BreakerSettings { first_pause: hour, longest_pause: hour, ..BreakerSettings::default() };
    let retry = RetryPolicy::fixed(Duration::from_millis(10), 100);
    let engine = EngineSettings { breaker, retry, ..EngineSettings::default() };
    let running = Running::start_engine(kind, engine).await;
    let receiver = Receiver::start(|number, _| {
        let status = if number <= 5 { 500 } else { 204 };
        Response::builder().status(status).body(Full::default()).unwrap()
    })
    .await;
    let Attempted { endpoints, attempts, resend } = Attempted::begun(&running, &receiver).await;
    let health = format!("{endpoints}/crm/health");
    let held = until(&running, &health, |health| health["state"] == "held").await;
    assert_eq!((&held["reason"], &held["failures"]), (&json!("failures"), &json!(5)), "{held}");
    assert!(held["until"].is_string() && held["failingSince"].is_string(), "{held}");
    assert_eq!(held["workers"], 1, "{held}");
    assert_eq!(running.ask("POST", &resend, json!({})).await.0, 202);
    until(&running, &attempts, count(6)).await;
    until(&running, &health, |health| *health == json!({ "state": "sending" })).await;
    for (change, expected) in [
        (json!({ "delivery": { "paused": true } }), json!({ "state": "paused" })),
        (json!({ "disabled": true }), json!({ "state": "disabled", "reason": "manual" })),
    ] {
        assert_eq!(running.ask("PATCH", &format!("{endpoints}/crm"), change).await.0, 200);
        assert_eq!(running.get(&health).await, (200, expected));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_an_endpoint_that_is_held_is_sent_at_once_on_sqlite() {
    goes_to_one_that_is_held(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_an_endpoint_that_is_held_is_sent_at_once_on_postgres() {
    goes_to_one_that_is_held(Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_with_another_status_is_not_sent_on_postgres() {
    obeys_statuses(Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_waits_is_made_at_once_on_sqlite() {
    resends(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_waits_is_made_at_once_on_postgres() {
    resends(Kind::Postgres).await;
}
