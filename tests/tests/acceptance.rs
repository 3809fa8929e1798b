//! The acceptance tests: the promises to a user of direct dispatch.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use webhooks_core::{DeliveryResult, DeliveryStatus, Event, EventType, RetryPolicy, TenantId};
use webhooks_dispatch::{Dispatcher, FnTransport, transport::Transport};
use webhooks_registry::{Endpoint, Registry};
use webhooks_sign::Algorithm;
use webhooks_tests::SimulatedClock;

const URL: &str = "https://example.com/webhook";

fn endpoint() -> Endpoint {
    Endpoint::new(URL, "my-secret-key").unwrap()
}

fn event() -> Event {
    Event::new(EventType::CREATED, json!({ "user_id": "123" })).unwrap()
}

/// Returns a registry with one endpoint, `hook`.
fn registry(endpoint: Endpoint) -> Registry {
    let registry = Registry::new();
    registry.register("hook", endpoint).unwrap();
    registry
}

/// Answers with each status in turn; the last one repeats.
fn answering(statuses: &'static [u16]) -> impl Transport {
    let calls = AtomicU32::new(0);
    FnTransport::new(move |_, _, _, _| {
        let call = calls.fetch_add(1, Ordering::Relaxed) as usize;
        let status = statuses[call.min(statuses.len() - 1)];
        async move { (status, "") }
    })
}

async fn retry(
    endpoint: Endpoint,
    statuses: &'static [u16],
    max_retries: Option<u32>,
) -> DeliveryResult {
    let dispatcher = Dispatcher::new(registry(endpoint), answering(statuses));
    let dispatcher = dispatcher.clock(SimulatedClock::start());
    dispatcher.dispatch_with_retry(&event(), max_retries).await.remove(0)
}

#[test]
fn an_endpoint_has_the_documented_defaults() {
    let endpoint = endpoint();
    assert!(endpoint.active);
    assert!(endpoint.subscriptions.is_empty(), "all events");
    assert_eq!(endpoint.retry, None);
    assert_eq!(RetryPolicy::default(), RetryPolicy::fixed(Duration::from_secs(1), 3));
    assert_eq!(endpoint.timeout, Duration::from_secs(30));
    assert_eq!(endpoint.algorithm, Algorithm::HmacSha256);
}

#[test]
fn an_event_has_a_unique_uuid_a_time_and_no_source() {
    let ids: BTreeSet<String> = (0..1000).map(|_| event().id.to_string()).collect();
    assert_eq!(ids.len(), 1000);
    assert!(ids.iter().all(|id| id.len() == 36 && id.split('-').count() == 5));
    assert_eq!(event().source, None);
    assert!(event().timestamp > "2025-01-01T00:00:00Z".parse().unwrap());
}

#[test]
fn the_body_is_a_json_object_with_sorted_keys() {
    let json = event().source("user-service").to_json();
    let body: Value = serde_json::from_str(&json).unwrap();
    // serde_json's own map is sorted, in nested values too.
    assert_eq!(json, body.to_string());
    assert_eq!(body["payload"], json!({ "user_id": "123" }));
    assert_eq!(body["source"], "user-service");
}

#[tokio::test]
async fn an_event_goes_to_the_active_endpoints_that_want_it() {
    let registry = Registry::new();
    let register = |id: &str, endpoint| registry.register(id, endpoint).unwrap();
    register("all", endpoint());
    register("star", endpoint().events(["*"]).unwrap());
    register("exact", endpoint().events(["user.created", "order.paid"]).unwrap());
    register("subtree", endpoint().events(["user.*"]).unwrap());
    let overlapping = ["*", "user.*", "user.created", "*", "user.created"];
    register("overlapping", endpoint().events(overlapping).unwrap());
    register("other", endpoint().events(["user.deleted"]).unwrap());
    register("inactive", endpoint().inactive());
    let dispatcher = Dispatcher::new(registry, answering(&[200]));
    let results = dispatcher.dispatch(&Event::new("user.created", 1).unwrap()).await;
    let ids: Vec<&str> = results.iter().map(|result| result.endpoint_id.as_str()).collect();
    assert_eq!(ids, ["all", "exact", "overlapping", "star", "subtree"]);
}

#[tokio::test]
async fn registering_again_replaces_and_unregistering_an_unknown_id_names_it() {
    let registry = Arc::new(registry(endpoint().events(["created"]).unwrap()));
    let dispatcher = Dispatcher::new(Arc::clone(&registry), answering(&[200]));
    assert_eq!(dispatcher.dispatch(&event()).await.len(), 1);
    registry.register("hook", endpoint().events(["deleted"]).unwrap()).unwrap();
    assert!(dispatcher.dispatch(&event()).await.is_empty());
    registry.unregister("hook").unwrap();
    let error = registry.unregister("hook").unwrap_err();
    assert_eq!(error.to_string(), "tenant default has no endpoint \"hook\"");
}

#[tokio::test(start_paused = true)]
async fn every_2xx_delivers_and_everything_else_fails_with_code_and_reason() {
    for status in 200..300 {
        let transport = FnTransport::new(move |_, _, _, _| async move { (status, "") });
        let results = Dispatcher::new(registry(endpoint()), transport).dispatch(&event()).await;
        assert_eq!(results[0].status, DeliveryStatus::Delivered, "{status}");
        assert_eq!((results[0].status_code, &results[0].error), (Some(status), &None));
    }
    for (statuses, error) in [
        (&[301], "endpoint answered 301 Moved Permanently"),
        (&[404], "endpoint answered 404 Not Found"),
        (&[503], "endpoint answered 503 Service Unavailable"),
        (&[799], "endpoint answered 799"),
        (&[0], "endpoint answered 0"),
    ] {
        let result = retry(endpoint(), statuses, Some(0)).await;
        assert_eq!(result.status, DeliveryStatus::Failed);
        assert_eq!((result.status_code, result.attempt), (Some(statuses[0]), 1));
        assert_eq!(result.error.as_deref(), Some(error));
    }
}

#[tokio::test(start_paused = true)]
async fn retries_count_from_one_stop_at_success_and_are_spent() {
    let result = retry(endpoint(), &[500, 500, 200], None).await;
    assert_eq!((result.status, result.attempt), (DeliveryStatus::Delivered, 3));
    let result = retry(endpoint(), &[500], None).await;
    assert_eq!((result.status, result.attempt), (DeliveryStatus::Failed, 4));
    let policy = RetryPolicy::schedule([Duration::from_secs(60); 9]);
    let result = retry(endpoint().retry(policy), &[500], None).await;
    assert_eq!((result.status, result.attempt), (DeliveryStatus::Failed, 10));
}

#[tokio::test(start_paused = true)]
async fn the_override_beats_the_endpoints_policy() {
    for (max_retries, attempts) in [(0, 1), (1, 2), (5, 6), (20, 21)] {
        let result = retry(endpoint(), &[500], Some(max_retries)).await;
        assert_eq!((result.status, result.attempt), (DeliveryStatus::Failed, attempts));
    }
    let result = retry(endpoint().retry(RetryPolicy::none()), &[500, 200], Some(1)).await;
    assert_eq!(result.status, DeliveryStatus::Delivered);
}

/// Method: the first attempt fails, and while its retry waits the endpoint changes.
#[tokio::test(start_paused = true)]
async fn a_retry_goes_to_the_endpoint_as_it_is_by_then() {
    for (change, status, urls) in [
        (Some(endpoint().inactive()), DeliveryStatus::Cancelled, vec![URL]),
        (None, DeliveryStatus::Cancelled, vec![URL]),
        (
            Some(Endpoint::new("https://example.com/new", "new").unwrap()),
            DeliveryStatus::Delivered,
            vec![URL, "https://example.com/new"],
        ),
    ] {
        let registry = Arc::new(registry(endpoint()));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (changed, calls) = (Arc::clone(&registry), Arc::clone(&seen));
        let transport = FnTransport::new(move |url, _, _, _| {
            calls.lock().unwrap().push(url.clone());
            match change.clone() {
                Some(endpoint) => drop(changed.register("hook", endpoint)),
                None => drop(changed.unregister("hook")),
            }
            async move { (if url == URL { 500 } else { 200 }, "") }
        });
        let dispatcher = Dispatcher::new(registry, transport);
        let results = dispatcher.dispatch_with_retry(&event(), None).await;
        assert_eq!(results[0].status, status);
        assert_eq!(*seen.lock().unwrap(), urls);
    }
}

/// Method: the first attempt fails, and while its retry waits the id is given to another endpoint.
#[tokio::test(start_paused = true)]
async fn a_retry_never_goes_to_an_endpoint_that_the_event_is_not_for() {
    let acme = TenantId::new("acme").unwrap();
    for successor in [endpoint().tenant(acme), endpoint().events(["deleted"]).unwrap()] {
        let registry = Arc::new(registry(endpoint()));
        let calls = Arc::new(AtomicU32::new(0));
        let (changed, counted) = (Arc::clone(&registry), Arc::clone(&calls));
        let transport = FnTransport::new(move |_, _, _, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            changed.unregister("hook").unwrap();
            changed.register("hook", successor.clone()).unwrap();
            async { (500, "") }
        });
        let dispatcher = Dispatcher::new(registry, transport);
        let results = dispatcher.dispatch_with_retry(&event(), None).await;
        assert_eq!((results[0].status, results[0].attempt), (DeliveryStatus::Cancelled, 1));
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_transports_error_is_captured_in_the_result() {
    let transport =
        FnTransport::new(|_, _, _, _| async { Err::<(u16, &str), _>("no route to host") });
    let dispatcher = Dispatcher::new(registry(endpoint()), transport);
    let results = dispatcher.dispatch_with_retry(&event(), Some(1)).await;
    assert_eq!((results[0].status, results[0].attempt), (DeliveryStatus::Failed, 2));
    assert_eq!(results[0].error.as_deref(), Some("the transport failed: no route to host"));
    assert_eq!(results[0].status_code, None);
}

#[tokio::test]
async fn a_callback_gets_url_body_headers_and_timeout() {
    let transport = FnTransport::new(|url, body, headers, timeout| async move {
        assert_eq!(url, URL);
        assert_eq!(timeout, Duration::from_secs(30));
        assert_eq!(headers["x-webhook-event"], "created");
        let received: Event = serde_json::from_slice(&body).unwrap();
        (202, received.id.to_string())
    });
    let results = Dispatcher::new(registry(endpoint()), transport).dispatch(&event()).await;
    assert_eq!(results[0].error, None);
    assert_eq!(results[0].status_code, Some(202));
}
