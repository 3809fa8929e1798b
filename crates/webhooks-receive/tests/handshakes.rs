//! Handshakes of providers through the layer.
#![expect(clippy::unwrap_used, reason = "a test")]

#[expect(dead_code, reason = "other tests need more of it")]
#[path = "shared/sender.rs"]
mod sender;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use sender::StoppedClock;
use tower::{Layer as _, ServiceExt as _, service_fn};
use webhooks_receive::{Handshake, Keys, ReceiveLayer, Receiver};
use webhooks_sign::providers::{ASANA, DISCORD, NOTION, TRELLO, TWITCH, WOO_COMMERCE, X};
use webhooks_sign::{Envelope, Key, scheme::Scheme};

/// When the clock of the receivers stands.
const NOW: &str = "2026-01-01T00:00:00Z";

/// Returns the status and the text that a handler behind the layer, or the layer, answers with.
async fn call(
    (scheme, key): (Scheme, &Key),
    handshakes: &[Handshake],
    request: Request<Full<Bytes>>,
) -> (StatusCode, String) {
    let keys = Keys::from(key.clone()).url("https://example.com/hook");
    let receiver = Receiver::new(scheme, keys).unwrap().clock(StoppedClock::new());
    let handler = service_fn(async |_: Request<Full<Bytes>>| {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("handled"))))
    });
    let layer = ReceiveLayer::new(receiver).handshakes(handshakes.iter().cloned());
    let response = layer.layer(handler).oneshot(request).await.unwrap();
    let status = response.status();
    let text = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(text.to_vec()).unwrap())
}

fn full(request: http::request::Builder, body: &str) -> Request<Full<Bytes>> {
    request.body(Full::new(Bytes::from(body.to_owned()))).unwrap()
}

#[tokio::test]
async fn twitch_has_its_challenge_echoed_once_verified() {
    let key = TWITCH.key("secret").unwrap();
    let body = r#"{"challenge": "pogchamp", "subscription": {"status": "webhook_callback_verification_pending"}}"#;
    let request = |signed: &str| {
        let envelope = Envelope { id: "id-1", timestamp: NOW, ..Envelope::default() };
        let signature = TWITCH.sign(&key, &envelope, signed.as_bytes()).unwrap();
        let request = Request::post("/hook")
            .header("twitch-eventsub-message-id", "id-1")
            .header("twitch-eventsub-message-timestamp", NOW)
            .header("twitch-eventsub-message-signature", signature.as_str());
        full(request, body)
    };
    let handshakes = [Handshake::twitch()];
    let answer = call((TWITCH, &key), &handshakes, request(body)).await;
    assert_eq!(answer, (StatusCode::OK, "pogchamp".to_owned()));
    let forged = call((TWITCH, &key), &handshakes, request("{}")).await;
    assert_eq!(forged.0, StatusCode::UNAUTHORIZED);
    let webhook = call((TWITCH, &key), &[], request(body)).await;
    assert_eq!(webhook.1, "handled");
}

#[tokio::test]
async fn discord_has_its_ping_answered_once_verified() {
    let key = Key::ed25519_from_seed(&[7; 32]);
    let (handshakes, at) = ([Handshake::discord()], "1767225600");
    let request = |signed: &str, body: &str| {
        let envelope = Envelope { timestamp: at, ..Envelope::default() };
        let signature = DISCORD.sign(&key, &envelope, signed.as_bytes()).unwrap();
        let request = Request::post("/hook")
            .header("x-signature-ed25519", signature.as_str())
            .header("x-signature-timestamp", at);
        full(request, body)
    };
    let ping = r#"{"type":1}"#;
    let answer = call((DISCORD, &key), &handshakes, request(ping, ping)).await;
    assert_eq!(answer, (StatusCode::OK, ping.to_owned()));
    // Discord sends wrong signatures on purpose, and wants them refused.
    let forged = call((DISCORD, &key), &handshakes, request("{}", ping)).await;
    assert_eq!(forged.0, StatusCode::UNAUTHORIZED);
    let command = r#"{"type":2}"#;
    let handled = call((DISCORD, &key), &handshakes, request(command, command)).await;
    assert_eq!(handled.1, "handled");
}

#[tokio::test]
async fn asana_has_its_secret_taken_where_one_is_expected() {
    let key = ASANA.key("secret").unwrap();
    let taken = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&taken);
    let handshakes = [Handshake::asana(move |head, secret| {
        sink.lock().unwrap().push(secret.to_owned());
        head.uri.path() == "/hook/new"
    })];
    let request = |path: &str| full(Request::post(path).header("x-hook-secret", "b537"), "");
    let answer = call((ASANA, &key), &handshakes, request("/hook/new")).await;
    assert_eq!(answer.0, StatusCode::OK);
    let refused = call((ASANA, &key), &handshakes, request("/hook/old")).await;
    assert_eq!(refused.0, StatusCode::FORBIDDEN);
    assert_eq!(*taken.lock().unwrap(), ["b537", "b537"]);
    assert!(!format!("{handshakes:?}").contains("b537"));
}

#[tokio::test]
async fn x_has_its_token_signed() {
    let key = X.key("secret").unwrap();
    let handshakes = [Handshake::x(key.clone()), Handshake::probe()];
    let get = |uri: &str| full(Request::get(uri), "");
    let (status, text) = call((X, &key), &handshakes, get("/hook?crc_token=abc")).await;
    let signed = X.sign(&key, &Envelope::default(), b"abc").unwrap();
    assert_eq!((status, text), (StatusCode::OK, format!(r#"{{"response_token":"{signed}"}}"#)));
    let refused = call((X, &key), &handshakes, get("/hook?crc_token=%7B%7D")).await;
    assert_eq!(refused.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn probes_and_pings_reach_no_handler() {
    let trello = TRELLO.key("secret").unwrap();
    let head = || full(Request::head("/hook"), "");
    let answer = call((TRELLO, &trello), &[Handshake::probe()], head()).await;
    assert_eq!(answer, (StatusCode::OK, String::new()));
    let refused = call((TRELLO, &trello), &[], head()).await;
    assert_eq!(refused.0, StatusCode::METHOD_NOT_ALLOWED);

    let woo = WOO_COMMERCE.key("secret").unwrap();
    let handshakes = [Handshake::woo_commerce()];
    let form = ("content-type", "application/x-www-form-urlencoded");
    let ping = full(Request::post("/hook").header(form.0, form.1), "webhook_id=1");
    let answer = call((WOO_COMMERCE, &woo), &handshakes, ping).await;
    assert_eq!(answer, (StatusCode::OK, String::new()));
    let signature = WOO_COMMERCE.sign(&woo, &Envelope::default(), b"{}").unwrap();
    let header = ("x-wc-webhook-signature", signature.as_str());
    let webhook = full(Request::post("/hook").header(header.0, header.1), "{}");
    assert_eq!(call((WOO_COMMERCE, &woo), &handshakes, webhook).await.1, "handled");
}

#[tokio::test]
async fn notion_has_its_token_taken_where_one_is_expected() {
    let key = NOTION.key("secret").unwrap();
    let taken = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&taken);
    let handshakes = [Handshake::notion(move |head, token| {
        sink.lock().unwrap().push(token.to_owned());
        head.uri.path() == "/hook/new"
    })];
    let token = r#"{"verification_token": "secret_tMrl"}"#;
    let unsigned = |path: &str, body: &str| {
        full(Request::post(path).header("content-type", "application/json"), body)
    };
    let send = async |request| call((NOTION, &key), &handshakes, request).await;
    assert_eq!(send(unsigned("/hook/new", token)).await.0, StatusCode::OK);
    assert_eq!(send(unsigned("/hook/old", token)).await.0, StatusCode::FORBIDDEN);
    assert_eq!(*taken.lock().unwrap(), ["secret_tMrl", "secret_tMrl"]);
    assert!(!format!("{handshakes:?}").contains("secret_tMrl"));

    // An unsigned request without a token is refused, and little of its body is read.
    assert_eq!(send(unsigned("/hook/new", "{}")).await.0, StatusCode::BAD_REQUEST);
    let long = format!("{token:5000}");
    assert_eq!(send(unsigned("/hook/new", &long)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    // A signed request is a webhook, with any content of any length.
    let signature = NOTION.sign(&key, &Envelope::default(), long.as_bytes()).unwrap();
    let mut webhook = unsigned("/hook/new", &long);
    webhook.headers_mut().insert("x-notion-signature", signature.as_str().parse().unwrap());
    assert_eq!(send(webhook).await.1, "handled");
    assert_eq!(taken.lock().unwrap().len(), 2);
}
