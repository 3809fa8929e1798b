//! Logs, and spans for OpenTelemetry.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use serde_json::{Value, json};
use webhooks_core::TraceContext;
use webhooks_dispatch::clock::{Clock as _, SystemClock};
use webhooks_server::otlp::{OtlpSettings, SpanExporter};
use webhooks_server::telemetry::{LogFormat, subscriber};
use webhooks_tests::Receiver;

use crate::running::{Kind, Running, until};
use crate::spans::{Found, spans_in};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-5bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

/// The time that an export may take at most; it takes none to speak of.
const GRACE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn spans_are_of_one_trace_on_sqlite() {
    requests_and_attempts_are_spans_of_the_callers_trace(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_are_of_one_trace_on_postgres() {
    requests_and_attempts_are_spans_of_the_callers_trace(Kind::Postgres).await;
}

/// Goal: a request that publishes is a span below the caller's, each attempt one below the request's, and
/// receivers can go on from there. Method: messages with and without a trace; the spans that a collector
/// got are compared with the headers that a receiver got. The first attempt of all fails.
async fn requests_and_attempts_are_spans_of_the_callers_trace(kind: Kind) {
    let collector = Receiver::answering(200).await;
    let settings = OtlpSettings::new(&format!("{}v1/traces", root(&collector))).unwrap();
    let mut settings = settings.header("x-token=a=b").unwrap();
    "shop-webhooks".clone_into(&mut settings.service_name);
    let exporter = SpanExporter::start(settings).unwrap();
    let running = Running::start_exporting(kind, exporter.clone()).await;
    let receiver = Receiver::start(|number, _| {
        let status = if number == 1 { 500 } else { 200 };
        http::Response::builder().status(status).body(Full::<Bytes>::default()).unwrap()
    })
    .await;
    publish_traced(&running, &receiver).await;
    // The observer is told after the store.
    let spans = until_exported(&exporter, &collector, 6).await;

    let contexts: Vec<TraceContext> = (receiver.received().iter())
        .map(|got| {
            let state = got.headers.get("tracestate").map(|state| state.to_str().unwrap());
            TraceContext::parse(got.headers["traceparent"].to_str().unwrap(), state).unwrap()
        })
        .collect();
    let [first, again, second, third] = &contexts[..] else { panic!("{contexts:?}") };
    assert_eq!(first, again);
    assert_eq!(third.parent(), UNSAMPLED, "it is passed on as it came");
    let of = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<&Found>>();
    let [publish, root, refused] = &of("publish")[..] else { panic!("{spans:?}") };
    assert_eq!(publish.trace, "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(publish.parent, "00f067aa0ba902b7", "the caller's span");
    assert_eq!((publish.kind, &*publish.state, first.state()), (2, "a=1", Some("a=1")));
    assert_eq!((&*publish.trace, &*publish.id), (first.trace_id(), first.parent_id()));
    assert_eq!(publish.error, None);
    assert_eq!(root.parent, "", "the request began the trace");
    assert_eq!((&*root.trace, &*root.id), (second.trace_id(), second.parent_id()));
    assert_ne!(root.trace, publish.trace);
    assert_eq!(refused.trace, publish.trace);
    assert!(refused.error.is_some(), "{refused:?}");
    let [failed, retried, delivered] = of("deliver")[..] else { panic!("{spans:?}") };
    is_attempt(failed, publish, "1", "500");
    is_attempt(retried, publish, "2", "200");
    is_attempt(delivered, root, "1", "200");
    for got in collector.received() {
        assert_eq!(got.headers["content-type"], "application/x-protobuf");
        assert_eq!(
            (got.uri.path(), &got.headers["x-token"]),
            ("/v1/traces", &"a=b".parse().unwrap())
        );
    }
}

/// Publishes messages with and without a trace, and waits for the attempts at each.
async fn publish_traced(running: &Running, receiver: &Receiver) {
    let app = running.add_app("shop").await;
    let endpoint = json!({ "url": receiver.url(), "uid": "crm" });
    let made = running.ask("POST", &format!("/api/v1/app/{app}/endpoint"), endpoint).await;
    assert_eq!(made.0, 201, "{made:?}");
    let messages = format!("/api/v1/app/{app}/msg");
    let attempts = format!("/api/v1/app/{app}/attempt/endpoint/crm");
    let json = ("content-type", "application/json");
    for (attempts_then, headers) in [
        (2, vec![json, ("traceparent", PARENT), ("tracestate", "a=1")]),
        (3, vec![json]),
        (4, vec![json, ("traceparent", UNSAMPLED)]),
    ] {
        let message = json!({ "eventType": "paid", "payload": {} }).to_string();
        let (status, answer) = running.post(&messages, &headers, &message).await;
        assert_eq!(status, 202, "{answer}");
        let are_there =
            |page: &Value| page["data"].as_array().is_some_and(|all| all.len() == attempts_then);
        until(running, &attempts, are_there).await;
    }
    let (status, _) = running.post(&messages, &[json, ("traceparent", PARENT)], "{}").await;
    assert_eq!(status, 422);
}

fn is_attempt(attempt: &Found, request: &Found, number: &str, status: &str) {
    assert_eq!((&attempt.trace, &attempt.parent), (&request.trace, &request.id));
    assert_eq!((attempt.kind, attempt.error.is_some()), (3, status == "500"));
    for (name, value) in [
        ("webhooks.attempt", number),
        ("http.response.status_code", status),
        ("webhooks.event_type", "paid"),
        ("messaging.message.id", &request.attributes["messaging.message.id"]),
    ] {
        assert_eq!(attempt.attributes[name], value, "{name}");
    }
    assert!(attempt.started_at >= request.started_at, "{attempt:?}");
    assert!(attempt.started_at <= attempt.ended_at, "{attempt:?}");
    assert_eq!(attempt.service, "shop-webhooks");
}

/// Returns the URL of a receiver's root.
fn root(receiver: &Receiver) -> String {
    let url = receiver.url();
    let end = url.match_indices('/').nth(2).map_or(url.len(), |(place, _)| place);
    format!("{}/", url.get(..end).unwrap())
}

/// Exports until the collector has this number of spans.
async fn until_exported(exporter: &SpanExporter, collector: &Receiver, count: usize) -> Vec<Found> {
    let deadline = SystemClock.monotonic() + GRACE;
    loop {
        assert!(exporter.shutdown(GRACE).await);
        let spans: Vec<Found> =
            collector.received().iter().flat_map(|got| spans_in(&got.body)).collect();
        if spans.len() >= count {
            assert_eq!(spans.len(), count, "{spans:?}");
            return spans;
        }
        assert!(SystemClock.monotonic() < deadline, "{spans:?}");
        tokio::task::yield_now().await;
    }
}

/// Goal: a collector that is gone, or takes nothing, costs spans and no event.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_gone_delays_no_event() {
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}/v1/traces", listener.local_addr().unwrap())
    };
    let refusing = Receiver::answering(400).await;
    for url in [closed, refusing.url()] {
        let exporter = SpanExporter::start(OtlpSettings::new(&url).unwrap()).unwrap();
        let running = Running::start_exporting(Kind::Sqlite, exporter.clone()).await;
        let receiver = Receiver::answering(200).await;
        let app = running.add_app("shop").await;
        let endpoint = json!({ "url": receiver.url(), "uid": "crm" });
        running.ask("POST", &format!("/api/v1/app/{app}/endpoint"), endpoint).await;
        let message = json!({ "eventType": "paid", "payload": {} });
        assert_eq!(running.ask("POST", &format!("/api/v1/app/{app}/msg"), message).await.0, 202);
        let attempts = format!("/api/v1/app/{app}/attempt/endpoint/crm");
        let is_there = |page: &Value| page["data"].as_array().is_some_and(|all| all.len() == 1);
        until(&running, &attempts, is_there).await;
        // They may be lost before, if the machine is slow.
        let _lost_now = exporter.shutdown(GRACE).await;
        assert!(exporter.lost() > 0, "{url}");
    }
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Goal: a log of everything, third parties included, has one JSON object per line, and shows no key, secret,
/// payload or path of an endpoint. Method: a service runs in this thread alone, whose log is read: an event is
/// published, and its deliveries fail; a key is refused.
#[tokio::test]
async fn a_log_is_lines_of_json_without_secrets() {
    let written = Written::default();
    let writer = written.clone();
    let subscriber = subscriber(LogFormat::Json, "trace", move || writer.clone()).unwrap();
    let _logging = tracing::subscriber::set_default(subscriber);
    let running = Running::start(Kind::Sqlite).await;
    let receiver = Receiver::answering(500).await;
    let app = running.add_app("shop").await;
    let endpoints = format!("/api/v1/app/{app}/endpoint");
    let url = format!("{}hush-path?token=hush-token", root(&receiver));
    let headers = json!({ "x-key": "hush-header" });
    let endpoint = json!({ "url": url, "uid": "crm", "headers": headers });
    assert_eq!(running.ask("POST", &endpoints, endpoint).await.0, 201);
    let (_, secret) = running.get(&format!("{endpoints}/crm/secret")).await;
    let message = json!({ "eventType": "paid", "payload": { "a": "hush-payload" } });
    let messages = format!("/api/v1/app/{app}/msg");
    let json = ("content-type", "application/json");
    let headers = [json, ("traceparent", PARENT)];
    assert_eq!(running.post(&messages, &headers, &message.to_string()).await.0, 202);
    let refused = running.ask_as(Some("hush-key"), "GET", &messages, None).await;
    assert_eq!(refused.0, 401);
    let attempts = format!("/api/v1/app/{app}/attempt/endpoint/crm");
    let are_there = |page: &Value| page["data"].as_array().is_some_and(|all| all.len() == 2);
    until(&running, &attempts, are_there).await;
    running.worker.unwrap().shutdown(GRACE).await;
    let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let of_engine = |message: &str| {
        let found = lines.iter().find(|line| line["message"] == message);
        found.unwrap_or_else(|| panic!("no {message} in {text}"))
    };
    let failed = of_engine("attempt failed");
    assert_eq!((&failed["level"], &failed["status"]), (&json!("warn"), &json!(500)), "{failed}");
    assert_eq!(failed["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736", "{failed}");
    assert_eq!(of_engine("delivery given up: the last attempt failed")["attempt"], 2);
    let secret = secret["key"].as_str().unwrap();
    let own = lines.iter().filter(|line| line["target"].as_str().unwrap().starts_with("webhooks"));
    for line in own {
        let line = line.to_string();
        for word in ["hush", &running.key, secret] {
            assert!(!line.contains(word), "{word} in {line}");
        }
    }
}
