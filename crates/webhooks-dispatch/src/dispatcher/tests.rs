//! The requests that reach the transport, and the results of its answers.

use std::future::{pending, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use mockall::mock;
use mockall::predicate::function;
use webhooks_core::{EventId, Payload, Timestamp};
use webhooks_registry::{BodyFormat, Endpoint};
use webhooks_sign::{Algorithm, Key, KeyRing, standard, x_webhook};

use super::*;
use crate::attempt::MAX_ERROR_CHARACTERS;
use crate::fn_transport::FnTransport;
use crate::transport::{ErrorClass, Request, TransportError};

mock! {
    Port {}

    impl Transport for Port {
        fn send(
            &self,
            request: Request,
        ) -> impl Future<Output = Result<Response, TransportError>> + Send;
    }
}

const SECRET: &str = "my-secret-key";

fn registry() -> Registry {
    let endpoint = Endpoint::new("https://example.com/hook?a=1", SECRET).unwrap();
    let registry = Registry::new();
    registry.register("crm", endpoint.timeout(Duration::from_secs(7))).unwrap();
    registry
}

fn event() -> Event {
    Event::new("user.created", "payload").unwrap().id(EventId::new("evt_1").unwrap())
}

fn is_signed_event(request: &Request) -> bool {
    let key = Key::from_legacy_bytes(Algorithm::HmacSha256, SECRET.as_bytes()).unwrap();
    let verified = x_webhook::verify(&KeyRing::from(key), &request.headers, &request.body);
    let received: Event = serde_json::from_slice(verified.unwrap().body()).unwrap();
    received.id.to_string() == "evt_1"
        && request.url.as_str() == "https://example.com/hook?a=1"
        && request.timeout == Duration::from_secs(7)
        && request.headers["content-type"] == "application/json"
}

fn answer(status: u16) -> BoxFuture<'static, Result<Response, TransportError>> {
    ready(Ok(Response { status, ..Response::default() })).boxed()
}

#[tokio::test]
async fn the_transport_gets_one_signed_request() {
    let mut port = MockPort::new();
    port.expect_send().with(function(is_signed_event)).once().returning(|_| answer(204));
    let results = Dispatcher::new(registry(), port).dispatch(&event()).await;
    assert_eq!((results[0].attempt, results[0].status_code), (1, Some(204)));
}

#[tokio::test]
async fn an_endpoint_can_get_the_payload_alone() {
    const PAYLOAD: &str = "{ \"b\": 1.0,\t\"a\":[1e308 ] }";
    const STANDARD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let is_signed_payload = |request: &Request| {
        let keys = KeyRing::from(Key::standard(STANDARD).unwrap());
        let now = Timestamp::now().as_unix_seconds();
        standard::verify(&keys, &request.headers, &request.body, now).unwrap();
        request.body == PAYLOAD && request.headers["content-type"] == "application/json"
    };
    let endpoint = Endpoint::new("https://example.com/", STANDARD).unwrap();
    let registry = Registry::new();
    registry.register("crm", endpoint.body(BodyFormat::Payload)).unwrap();
    let mut port = MockPort::new();
    port.expect_send().with(function(is_signed_payload)).once().returning(|_| answer(204));
    let payload = Payload::from_json(PAYLOAD.to_owned()).unwrap();
    let event = Event::new("user.created", payload).unwrap();
    let results = Dispatcher::new(registry, port).dispatch(&event).await;
    assert_eq!(results[0].status, DeliveryStatus::Delivered);
}

#[tokio::test(start_paused = true)]
async fn each_retry_reaches_the_transport_signed_anew() {
    let mut port = MockPort::new();
    port.expect_send().with(function(is_signed_event)).times(4).returning(|_| answer(500));
    let results = Dispatcher::new(registry(), port).dispatch_with_retry(&event(), None).await;
    assert_eq!((results[0].attempt, results[0].status), (4, DeliveryStatus::Failed));
}

#[tokio::test]
async fn nothing_reaches_the_transport_for_an_event_that_nobody_wants() {
    let mut port = MockPort::new();
    port.expect_send().never();
    let dispatcher = Dispatcher::new(Registry::new(), port);
    assert!(dispatcher.dispatch(&event()).await.is_empty());
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_made_inactive_and_not_tried_again() {
    let mut port = MockPort::new();
    port.expect_send().once().returning(|_| answer(410));
    let dispatcher = Dispatcher::new(registry(), port);
    let results = dispatcher.dispatch_with_retry(&event(), Some(9)).await;
    assert_eq!(results[0].error.as_deref(), Some("endpoint answered 410 Gone"));
    assert!(!dispatcher.registry().get("crm").unwrap().state.is_open());
    assert!(dispatcher.dispatch(&event()).await.is_empty());
}

#[tokio::test]
async fn a_panic_in_the_call_or_in_its_future_becomes_a_failed_result() {
    let mut port = MockPort::new();
    port.expect_send().once().returning(|_| panic!("in the call"));
    let in_call = Dispatcher::new(registry(), port).dispatch(&event()).await;
    let in_future = FnTransport::new(|_, _, _, _| async { panic!("in the future") as (u16, &str) });
    let in_future = Dispatcher::new(registry(), in_future).concurrency(1);
    let mut results = in_call;
    // A second dispatch shows that the panic cost no slot.
    results.extend(in_future.dispatch(&event()).await);
    results.extend(in_future.dispatch(&event()).await);
    assert_eq!(results.len(), 3);
    for result in results {
        assert_eq!(result.status, DeliveryStatus::Failed);
        assert_eq!(result.error.as_deref(), Some("the transport panicked"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_as_the_future_is_dropped_at_the_deadline_leaves_a_timeout() {
    struct PanicsWhenDropped;
    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            panic!("in the drop");
        }
    }
    let hanging = FnTransport::new(|_, _, _, _| async {
        let _guard = PanicsWhenDropped;
        pending::<(u16, &str)>().await
    });
    let dispatcher = Dispatcher::new(registry(), hanging).concurrency(1);
    // A second dispatch shows that the panic cost no slot.
    for _ in 0..2 {
        let results = dispatcher.dispatch(&event()).await;
        assert_eq!(results[0].error.as_deref(), Some("the exchange was not over in time"));
    }
}

#[tokio::test]
async fn an_error_is_told_with_its_causes_and_cut_to_length() {
    let mut port = MockPort::new();
    port.expect_send().once().returning(|_| {
        let error = TransportError::new(ErrorClass::Connect).caused_by("é".repeat(1000));
        ready(Err(error)).boxed()
    });
    let results = Dispatcher::new(registry(), port).dispatch(&event()).await;
    let error = results[0].error.as_deref().unwrap();
    assert!(error.starts_with("cannot connect: éé"), "{error}");
    assert_eq!(error.chars().count(), MAX_ERROR_CHARACTERS);
    assert_eq!(results[0].status_code, None);
}

#[test]
fn a_request_shows_neither_body_nor_signature() {
    let headers =
        HeaderMap::from_iter([("webhook-signature".parse().unwrap(), "v1,x".parse().unwrap())]);
    let endpoint = &registry().get("crm").unwrap().endpoint;
    let request = Request::new(endpoint, headers, Bytes::from_static(b"card 4111"));
    let shown = format!("{request:?}");
    assert!(
        !shown.contains("4111") && !shown.contains("v1,x") && !shown.contains("a=1"),
        "{shown}"
    );
}
