//! The extractor and the layers in axum, called as services.
#![cfg(all(feature = "axum", feature = "memory"))]
#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "shared/sender.rs"]
mod sender;

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use axum::body::Body;
use axum::extract::{FromRef, Request};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt as _;
use sender::{NOW, key, receiver, signed};
use serde::Deserialize;
use tokio::sync::Notify;
use tower::ServiceExt as _;
use webhooks_receive::provider::{GitHub, Provider, Slack, Standard, Zoom};
use webhooks_receive::{
    CloudEvents, Handshake, MemorySeenStore, ReceiveLayer, Receiver, Rejection, ReplayGuard,
    VerifiedWebhook,
};
use webhooks_sign::Envelope;

#[derive(Deserialize)]
#[serde(tag = "event_type")]
enum Event {
    #[serde(rename = "invoice.paid")]
    InvoicePaid { payload: Invoice },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Invoice {
    number: u64,
}

/// The `type` of Standard Webhooks, and its `data`.
#[derive(Deserialize)]
#[serde(tag = "type", content = "data")]
enum StandardEvent {
    #[serde(rename = "invoice.paid")]
    InvoicePaid { number: u64 },
}

async fn bytes(VerifiedWebhook { body, .. }: VerifiedWebhook<Bytes, Standard>) -> String {
    format!("{} bytes", body.len())
}

async fn ours(hook: VerifiedWebhook<Json<Event>, Standard>) -> String {
    let id = hook.webhook().id().unwrap_or_default().to_owned();
    match hook.body.0 {
        Event::InvoicePaid { payload } => format!("{id}: invoice {}", payload.number),
        Event::Other => format!("{id}: something else"),
    }
}

async fn standard(
    VerifiedWebhook { body: Json(event), .. }: VerifiedWebhook<Json<StandardEvent>, Standard>,
) -> String {
    let StandardEvent::InvoicePaid { number } = event;
    format!("invoice {number}")
}

async fn github(VerifiedWebhook { body, .. }: VerifiedWebhook<Bytes, GitHub>) -> String {
    format!("{} bytes from GitHub", body.len())
}

#[derive(Clone)]
struct Receivers {
    github: Receiver<GitHub>,
    standard: Receiver<Standard>,
}

impl FromRef<Receivers> for Receiver<GitHub> {
    fn from_ref(receivers: &Receivers) -> Self {
        receivers.github.clone()
    }
}

impl FromRef<Receivers> for Receiver<Standard> {
    fn from_ref(receivers: &Receivers) -> Self {
        receivers.standard.clone()
    }
}

fn github_receiver() -> Receiver<GitHub> {
    Receiver::from_keys(GitHub::SCHEME.key("It's a Secret to Everybody").unwrap()).unwrap()
}

fn app() -> Router {
    let receivers = Receivers { github: github_receiver(), standard: receiver() };
    Router::new()
        .route("/bytes", post(bytes))
        .route("/ours", post(ours))
        .route("/standard", post(standard))
        .route("/github", post(github))
        .with_state(receivers)
}

async fn call(app: &Router, request: Request) -> Response {
    app.clone().oneshot(request).await.unwrap()
}

async fn text(response: Response) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

fn request(path: &str, id: &str, body: &'static str) -> Request {
    signed(id, NOW, body.as_bytes()).uri(path).body(Body::from(body)).unwrap()
}

#[tokio::test]
async fn handlers_take_bytes_json_or_an_enum_of_event_types() {
    let check = async |path: &str, body: &'static str, expected: &str| {
        assert_eq!(text(call(&app(), request(path, "msg_1", body)).await).await, expected);
    };
    check("/bytes", "{}", "2 bytes").await;
    let paid = r#"{"event_id":"1","event_type":"invoice.paid","payload":{"number":17}}"#;
    check("/ours", paid, "msg_1: invoice 17").await;
    let other = r#"{"event_type":"invoice.lost","payload":{"number":17}}"#;
    check("/ours", other, "msg_1: something else").await;
    check("/standard", r#"{"type":"invoice.paid","data":{"number":17}}"#, "invoice 17").await;
}

#[tokio::test]
async fn the_type_of_an_argument_chooses_the_provider() {
    let digest = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let request = |path: &str| {
        let builder = http::Request::post(path).header("x-hub-signature-256", digest);
        builder.body(Body::from("Hello, World!")).unwrap()
    };
    let response = call(&app(), request("/github")).await;
    assert_eq!(text(response).await, "13 bytes from GitHub");
    assert_eq!(call(&app(), request("/bytes")).await.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn what_is_refused_never_reaches_the_handler() {
    let check = async |request: Request, expected: StatusCode| {
        let response = call(&app(), request).await;
        assert_eq!(response.status(), expected);
        let rejection = response.extensions().get::<Arc<Rejection>>().unwrap();
        assert_eq!(rejection.status(), expected, "for the log");
        assert_eq!(text(response).await, expected.canonical_reason().unwrap());
    };
    let mut forged = request("/ours", "msg_1", "{}");
    *forged.body_mut() = Body::from("{ }");
    check(forged, StatusCode::UNAUTHORIZED).await;
    let mut plain = request("/ours", "msg_1", "{}");
    plain.headers_mut().remove("content-type");
    check(plain, StatusCode::UNSUPPORTED_MEDIA_TYPE).await;
    check(request("/ours", "msg_1", "[]"), StatusCode::BAD_REQUEST).await;
    let mut large = request("/ours", "msg_1", "{}");
    *large.body_mut() = Body::from(vec![b' '; 1024 * 1024 + 1]);
    check(large, StatusCode::PAYLOAD_TOO_LARGE).await;
}

/// A router whose handler knows nothing of signatures, and fails as long as `status` says so.
fn guarded(runs: &Arc<AtomicUsize>, status: &Arc<AtomicU16>) -> Router {
    let (runs, status) = (Arc::clone(runs), Arc::clone(status));
    let handler = move |body: String| async move {
        runs.fetch_add(1, Ordering::Relaxed);
        (StatusCode::from_u16(status.load(Ordering::Relaxed)).unwrap(), body)
    };
    let receiver = receiver();
    let guard = ReplayGuard::new(&receiver, "billing", MemorySeenStore::new()).unwrap();
    let layer = ReceiveLayer::new(receiver).guard(guard);
    Router::new().route("/hook", post(handler)).layer(layer)
}

#[tokio::test]
async fn the_layers_leave_the_handler_as_it_is() {
    let (runs, status) = (Arc::default(), Arc::new(AtomicU16::new(500)));
    let app = guarded(&runs, &status);
    let send = async || {
        let response = call(&app, request("/hook", "msg_1", "{}")).await;
        (response.status().as_u16(), text(response).await)
    };
    assert_eq!(send().await, (500, "{}".to_owned()));
    status.store(201, Ordering::Relaxed);
    assert_eq!(send().await, (201, "{}".to_owned()), "it is run again on the retry");
    assert_eq!(send().await, (200, String::new()), "and then no more");
    assert_eq!(runs.load(Ordering::Relaxed), 2);
    let mut forged = request("/hook", "msg_2", "{}");
    *forged.body_mut() = Body::from("{ }");
    let response = call(&app, forged).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(response.extensions().get::<Arc<Rejection>>().is_some());
    assert_eq!(runs.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_guard_of_another_receiver_lets_nothing_through() {
    let other = Receiver::<Standard>::from_keys(key()).unwrap();
    let guard = ReplayGuard::new(&other, "billing", MemorySeenStore::new()).unwrap();
    let layer = ReceiveLayer::new(receiver()).guard(guard);
    let app = Router::new().route("/hook", post(async || "ran")).layer(layer);
    let response = call(&app, request("/hook", "msg_1", "{}")).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
}

/// Senders wait for some seconds, and then close the connection. Method: the request's future is
/// dropped while the handler runs.
#[tokio::test]
async fn a_detached_handler_outlives_its_connection_and_others_do_not() {
    for is_detached in [false, true] {
        let (begun, go_on, ended) =
            (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let (begins, waits, counts) = (Arc::clone(&begun), Arc::clone(&go_on), Arc::clone(&ended));
        let handler = move || async move {
            begins.notify_one();
            waits.notified().await;
            counts.fetch_add(1, Ordering::Relaxed);
        };
        let receiver = receiver();
        let guard = ReplayGuard::new(&receiver, "billing", MemorySeenStore::new()).unwrap();
        let guard = if is_detached { guard.detached() } else { guard };
        let layer = ReceiveLayer::new(receiver).guard(guard.clone());
        let app = Router::new().route("/hook", post(handler)).layer(layer);
        tokio::select! {
            biased;
            () = begun.notified() => {}
            response = call(&app, request("/hook", "msg_1", "{}")) => unreachable!("{response:?}"),
        }
        go_on.notify_one();
        guard.idle().await;
        assert_eq!(ended.load(Ordering::Relaxed), usize::from(is_detached));
        if is_detached {
            let repeated = call(&app, request("/hook", "msg_1", "{}")).await;
            assert_eq!(repeated.status(), StatusCode::OK, "it is done");
        }
    }
}

#[tokio::test]
async fn a_detached_handler_that_panics_does_so_as_any() {
    let receiver = receiver();
    let guard = ReplayGuard::new(&receiver, "billing", MemorySeenStore::new()).unwrap();
    let layer = ReceiveLayer::new(receiver).guard(guard.detached());
    let handler = async || -> StatusCode { unreachable!("on purpose") };
    let app = Router::new().route("/hook", post(handler)).layer(layer);
    let called =
        tokio::spawn(async move { call(&app, request("/hook", "msg_1", "{}")).await.status() });
    assert!(called.await.unwrap_err().is_panic());
}

/// A log of an extractor must not show the content of webhooks.
#[tokio::test]
async fn an_extractor_shows_no_body() {
    let handler = async |hook: VerifiedWebhook<Json<serde_json::Value>, Standard>| {
        assert_eq!(hook.body["card"], "4242");
        format!("{hook:?}")
    };
    let app = Router::new().route("/hook", post(handler)).with_state(receiver());
    let shown = text(call(&app, request("/hook", "msg_1", r#"{"card":"4242"}"#)).await).await;
    assert!(shown.contains("msg_1") && !shown.contains("4242"), "{shown}");
}

/// Otherwise whoever saw a webhook could use up its id by another method of the route.
#[tokio::test]
async fn a_webhook_that_comes_by_another_method_uses_up_no_id() {
    let receiver = receiver();
    let guard = ReplayGuard::new(&receiver, "billing", MemorySeenStore::new()).unwrap();
    let layer = ReceiveLayer::new(receiver).guard(guard);
    let route = get(async || "got").post(async || "posted");
    let app = Router::new().route("/hook", route).layer(layer);
    let mut captured = request("/hook", "msg_1", "{}");
    *captured.method_mut() = http::Method::GET;
    assert_eq!(call(&app, captured).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(text(call(&app, request("/hook", "msg_1", "{}")).await).await, "posted");
}

/// Under the layer of its receiver, the extractor takes what was verified; under that of another,
/// it verifies anew. Method: the layer has a receiver by another key.
#[tokio::test]
async fn an_extractor_trusts_the_layer_of_its_own_receiver_alone() {
    let layered = |layer: Receiver<Standard>, state: Receiver<Standard>| {
        Router::new().route("/bytes", post(bytes)).layer(ReceiveLayer::new(layer)).with_state(state)
    };
    let (own, other) = (receiver(), receiver().max_body(1));
    let app = layered(own.clone(), own.clone());
    let response = call(&app, request("/bytes", "msg_1", "{}")).await;
    assert_eq!(text(response).await, "2 bytes");
    let app = layered(own, other);
    let response = call(&app, request("/bytes", "msg_1", "{}")).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

fn with_handshake(receiver: Receiver<impl Provider>, handshake: Handshake) -> Router {
    let layer = ReceiveLayer::new(receiver).handshakes([handshake]);
    Router::new().route("/hook", post(async || StatusCode::NO_CONTENT)).layer(layer)
}

#[tokio::test]
async fn unsigned_handshakes_are_answered_by_the_layer() {
    let get = |uri: &str| http::Request::get(uri).body(Body::empty()).unwrap();
    let app = with_handshake(receiver(), Handshake::dropbox());
    let response = call(&app, get("/hook?challenge=1234")).await;
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    assert_eq!(text(response).await, "1234");

    let app = with_handshake(receiver(), Handshake::meta("token"));
    let query = "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=";
    assert_eq!(text(call(&app, get(&format!("/hook?{query}token"))).await).await, "1158201444");
    let refused = call(&app, get(&format!("/hook?{query}other"))).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);

    let app =
        with_handshake(receiver(), Handshake::cloud_events(CloudEvents::origins(["a.example"])));
    let options = http::Request::options("/hook").header("webhook-request-origin", "a.example");
    let response = call(&app, options.body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["webhook-allowed-origin"], "a.example");

    // A request that is no handshake counts as a webhook, and must be posted and signed.
    let refused = call(&app, get("/hook")).await;
    assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(refused.headers()["allow"], "POST");
    let unsigned = http::Request::post("/hook").body(Body::empty()).unwrap();
    assert_eq!(call(&app, unsigned).await.status(), StatusCode::BAD_REQUEST);
    let webhook = request("/hook", "msg_1", "{}");
    assert_eq!(call(&app, webhook).await.status(), StatusCode::NO_CONTENT);
}

/// Returns what is signed as Slack and Zoom do.
fn signed_v0<P: Provider>(secret: &str, header: &str, time: &str, body: &'static str) -> Request {
    let now = webhooks_core::Timestamp::now().as_unix_seconds().to_string();
    let envelope = Envelope { timestamp: &now, ..Envelope::default() };
    let key = P::SCHEME.key(secret).unwrap();
    let signature = P::SCHEME.sign(&key, &envelope, body.as_bytes()).unwrap();
    let builder =
        http::Request::post("/hook").header(header, signature.as_str()).header(time, &now);
    builder.body(Body::from(body)).unwrap()
}

#[tokio::test]
async fn signed_handshakes_are_answered_once_verified() {
    let slack = Receiver::<Slack>::from_keys(Slack::SCHEME.key("secret").unwrap()).unwrap();
    let app = with_handshake(slack, Handshake::slack());
    let body = r#"{"type":"url_verification","challenge":"3eZbrw1aBm2rZgRN"}"#;
    let slack = |secret, body| {
        signed_v0::<Slack>(secret, "x-slack-signature", "x-slack-request-timestamp", body)
    };
    assert_eq!(text(call(&app, slack("secret", body)).await).await, "3eZbrw1aBm2rZgRN");
    assert_eq!(call(&app, slack("other", body)).await.status(), StatusCode::UNAUTHORIZED);
    let event = r#"{"type":"event_callback"}"#;
    assert_eq!(call(&app, slack("secret", event)).await.status(), StatusCode::NO_CONTENT);

    let zoom = Receiver::<Zoom>::from_keys(Zoom::SCHEME.key("secret-token").unwrap()).unwrap();
    let app = with_handshake(zoom, Handshake::zoom());
    let body =
        r#"{"event":"endpoint.url_validation","payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"}}"#;
    let zoom = |secret| signed_v0::<Zoom>(secret, "x-zm-signature", "x-zm-request-timestamp", body);
    let answer = text(call(&app, zoom("secret-token")).await).await;
    assert!(answer.contains(r#""encryptedToken":""#), "{answer}");
    assert_eq!(call(&app, zoom("other")).await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_route_of_its_own_can_answer_a_handshake() {
    let challenge = async |request: Request| {
        let (head, _) = request.into_parts();
        Handshake::dropbox().answer(&head).unwrap().unwrap().map(Body::from)
    };
    let app = Router::new().route("/bytes", get(challenge).post(bytes)).with_state(receiver());
    let request = http::Request::get("/bytes?challenge=1").body(Body::empty()).unwrap();
    assert_eq!(text(call(&app, request).await).await, "1");
    assert_eq!(key().algorithm(), Standard::SCHEME.algorithm());
}
