//! W3C Trace Context: from the publisher's request to the deliveries.

use serde_json::json;
use webhooks_tests::Receiver;

use crate::running::{Running, until};

on_each_store! {
    a_trace_context_goes_to_the_endpoints;
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

mod behaviour {
    use super::*;

    /// Goal: each delivery has the headers of the request that published its message, and only valid
    /// ones. Method: messages with and without them, alone and in a batch; the receiver's headers and
    /// those that the service shows are compared.
    pub(super) async fn a_trace_context_goes_to_the_endpoints(running: Running) {
        let receiver = Receiver::answering(200).await;
        let app = running.add_app("shop").await;
        let endpoint = json!({ "url": receiver.url(), "uid": "crm" });
        let endpoints = format!("/api/v1/app/{app}/endpoint");
        assert_eq!(running.ask("POST", &endpoints, endpoint).await.0, 201);
        let messages = format!("/api/v1/app/{app}/msg");
        let batch = format!("{messages}/batch");
        let json = ("content-type", "application/json");
        let message = |id: &str| json!({ "eventType": "paid", "payload": {}, "eventId": id });
        let state = ("tracestate", "a=1 , b=2");
        for (path, id, headers) in [
            (&messages, "traced", vec![json, ("traceparent", PARENT), state]),
            (&messages, "plain", vec![json]),
            (&messages, "twice", vec![json, ("traceparent", PARENT), ("traceparent", PARENT)]),
            (&messages, "bad-parent", vec![json, ("traceparent", "00-1-2-3"), state]),
            (
                &messages,
                "bad-state",
                vec![json, ("traceparent", PARENT), state, ("tracestate", "A=1")],
            ),
            (&batch, "batched", vec![json, ("traceparent", PARENT), state]),
        ] {
            let body = message(id);
            let body = if path == &batch { json!([body]) } else { body };
            let (status, answer) = running.post(path, &headers, &body.to_string()).await;
            assert_eq!(status, 202, "{id}: {answer}");
        }
        let attempts = format!("/api/v1/app/{app}/attempt/endpoint/crm");
        let all =
            |page: &serde_json::Value| page["data"].as_array().is_some_and(|data| data.len() == 6);
        let page = until(&running, &attempts, all).await;
        let both = (Some(PARENT), Some("a=1,b=2"));
        for (id, (parent, state)) in [
            ("traced", both),
            ("plain", (None, None)),
            ("twice", (None, None)),
            ("bad-parent", (None, None)),
            ("bad-state", (Some(PARENT), None)),
            ("batched", both),
        ] {
            let (_, found) = running.get(&format!("{messages}/{id}")).await;
            let message = found["id"].as_str().unwrap();
            let got = receiver.received();
            let got = got.iter().find(|got| got.headers["webhook-id"] == message).unwrap();
            let header = |name| got.headers.get(name).map(|value| value.to_str().unwrap());
            assert_eq!((header("traceparent"), header("tracestate")), (parent, state), "{id}");
            let attempt = page["data"].as_array().unwrap();
            let attempt = attempt.iter().find(|found| found["msgId"] == message).unwrap();
            let attempt = attempt["id"].as_str().unwrap();
            let (_, shown) =
                running.get(&format!("{messages}/{id}/attempt/{attempt}/headers")).await;
            assert_eq!(shown["sentHeaders"]["traceparent"].as_str(), parent, "{shown}");
        }
    }
}
