//! CloudEvents 1.0 in and out.

use serde_json::{Value, json};
use webhooks_sign::{Key, KeyRing, standard};
use webhooks_tests::Receiver;

use crate::running::{Kind, Running, until};

/// Goal: a CloudEvent in each mode becomes a message, once, and an endpoint that asks for CloudEvents gets one.
#[tokio::test(flavor = "multi_thread")]
async fn cloud_events_come_in_and_go_out() {
    let running = Running::start(Kind::Sqlite).await;
    let receiver = Receiver::answering(200).await;
    let app = running.add_app("shop").await;
    let endpoint =
        json!({ "url": receiver.url(), "uid": "crm", "delivery": { "body": "cloudEvent" } });
    let endpoints = format!("/api/v1/app/{app}/endpoint");
    let (status, made) = running.ask("POST", &endpoints, endpoint).await;
    assert_eq!((status, &made["delivery"]["body"]), (201, &json!("cloudEvent")), "{made}");
    let messages = format!("/api/v1/app/{app}/msg");
    let event = |id: &str| {
        json!({ "specversion": "1.0", "type": "order.paid", "source": "/shop", "id": id,
                "time": "2026-01-31T12:00:00Z", "data": { "order": 17 } })
    };
    let structured = [("content-type", "application/cloudevents+json")];
    let one = event("one").to_string();
    let (status, first) = running.post(&messages, &structured, &one).await;
    assert_eq!((status, &first["eventId"]), (202, &json!("_2fshop__one")), "{first}");
    assert_eq!(
        (&first["eventType"], &first["payload"]),
        (&json!("order.paid"), &event("")["data"])
    );
    let again = running.post(&messages, &structured, &one).await;
    assert_eq!(again, (202, first), "the same event");
    let binary = [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-type", "order.paid"),
        ("ce-source", "/shop"),
        ("ce-id", "two"),
    ];
    assert_eq!(running.post(&messages, &binary, r#"{"order": 18}"#).await.0, 202);
    let batch = [("content-type", "application/cloudevents-batch+json")];
    let all = json!([event("two"), event("three")]).to_string();
    let (status, answer) = running.post(&format!("{messages}/batch"), &batch, &all).await;
    assert_eq!(status, 202, "{answer}");
    let statuses = [&answer["data"][0]["status"], &answer["data"][1]["status"]];
    assert_eq!(statuses, [&json!("conflict"), &json!("created")], "other data, new event");
    let bad = json!([event("four"), { "specversion": "1.0" }]).to_string();
    for (path, headers, body) in [
        (&messages, &batch[..], &all),
        (&messages, &structured[..], &json!({ "specversion": "0.3" }).to_string()),
        (&format!("{messages}/batch"), &batch[..], &bad),
    ] {
        let (status, answer) = running.post(path, headers, body).await;
        assert_eq!(status, 422, "{body}: {answer}");
    }
    let attempts = format!("/api/v1/app/{app}/attempt/endpoint/crm");
    let are_there = |page: &Value| page["data"].as_array().is_some_and(|data| data.len() == 3);
    until(&running, &attempts, are_there).await;
    for sent in receiver.received() {
        assert_eq!(sent.headers["content-type"], "application/cloudevents+json");
        let body: Value = serde_json::from_slice(&sent.body).unwrap();
        assert_eq!((&body["specversion"], &body["type"]), (&json!("1.0"), &json!("order.paid")));
        assert!(body["data"]["order"].is_number() && body["source"].is_string(), "{body}");
    }
}

/// Goal: an endpoint gets CloudEvents in binary mode, signed as sent, which the service itself reads as the
/// same event. Method: the request that a receiver got is verified and published again as it came.
#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_event_goes_out_in_binary_mode() {
    let running = Running::start(Kind::Sqlite).await;
    let receiver = Receiver::answering(200).await;
    let app = running.add_app("shop").await;
    let endpoints = format!("/api/v1/app/{app}/endpoint");
    let endpoint =
        json!({ "url": receiver.url(), "uid": "crm", "delivery": { "body": "cloudEventBinary" } });
    let (status, made) = running.ask("POST", &endpoints, endpoint).await;
    assert_eq!((status, &made["delivery"]["body"]), (201, &json!("cloudEventBinary")), "{made}");
    // A header of the endpoint adds an attribute, and replaces none.
    let headers = json!({ "headers": { "ce-subject": "a", "ce-type": "other" } });
    let put = running.ask("PUT", &format!("{endpoints}/crm/headers"), headers).await;
    assert_eq!(put.0, 204, "{put:?}");
    let message = json!({ "eventType": "order.paid", "eventId": "one", "payload": { "a": 1.0 } });
    let messages = format!("/api/v1/app/{app}/msg");
    let (status, message) = running.ask("POST", &messages, message).await;
    assert_eq!(status, 202, "{message}");
    let attempts = format!("/api/v1/app/{app}/attempt/endpoint/crm");
    let is_there = |page: &Value| page["data"].as_array().is_some_and(|data| data.len() == 1);
    let page = until(&running, &attempts, is_there).await;
    let sent = &receiver.received()[0];
    let header = |name: &str| sent.headers[name].to_str().unwrap();
    for (name, value) in [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-type", "order.paid"),
        ("ce-subject", "a"),
    ] {
        assert_eq!(header(name), value, "{name}");
    }
    assert_eq!(header("ce-id"), header("webhook-id"), "the id by which receivers deduplicate");
    assert!(!header("ce-source").is_empty());
    header("ce-time").parse::<webhooks_core::Timestamp>().unwrap();
    assert_eq!(sent.body, r#"{"a":1.0}"#, "the data alone");
    let (_, secret) = running.get(&format!("{endpoints}/crm/secret")).await;
    let keys = KeyRing::from(Key::standard(secret["key"].as_str().unwrap()).unwrap());
    let now = header("webhook-timestamp").parse().unwrap();
    standard::verify(&keys, &sent.headers, &sent.body, now).unwrap();
    let attempt = page["data"][0]["id"].as_str().unwrap();
    let shown = running.get(&format!("{messages}/one/attempt/{attempt}/headers")).await.1;
    assert_eq!(shown["sentHeaders"]["ce-id"], message["id"], "{shown}");

    let other = running.add_app("other").await;
    let attributes = sent.headers.iter().filter(|(name, _)| name.as_str().starts_with("ce-"));
    let attributes = attributes.filter(|(name, _)| name.as_str() != "ce-subject");
    let mut again: Vec<(&str, &str)> =
        attributes.map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    again.push(("content-type", header("content-type")));
    let body = std::str::from_utf8(&sent.body).unwrap();
    let (status, taken) = running.post(&format!("/api/v1/app/{other}/msg"), &again, body).await;
    assert_eq!(status, 202, "{taken}");
    for field in ["eventType", "payload"] {
        assert_eq!(taken[field], message[field], "{field}");
    }
}
