//! Faults that were reported of other receivers, and the right behaviour. Each test names its report.
#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "shared/sender.rs"]
mod sender;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use sender::{NOW, StoppedClock, receiver, signed};
use webhooks_receive::{Receiver, Rejection};
use webhooks_sign::providers::GITHUB;
use webhooks_sign::standard::{self, STANDARD};
use webhooks_sign::{
    Algorithm, Envelope, Key, KeyRing,
    scheme::{Encoding, Grammar, Scheme},
};

fn full(builder: http::request::Builder, body: &[u8]) -> Request<Full<Bytes>> {
    builder.body(Full::new(Bytes::copy_from_slice(body))).unwrap()
}

/// grnhse/greenhouse-api-docs#276 (`Signature: sha256 <hex>`), jackmusick/bifrost#726 (`HaloPSA`:
/// `sha256= <base64>`), nfe/whmcs-addon#190 (`sha1=<HEX>` in upper case).
///
/// Method: the values are Python's, `hmac.new(b"secret", b'{"action":"hire"}', …)`.
#[tokio::test]
async fn a_provider_that_is_not_in_the_list_can_be_described() {
    let scheme =
        |name, header, prefix| Scheme::custom(name, header).grammar(Grammar::One { prefix });
    let greenhouse = scheme("greenhouse", "signature", "sha256 ");
    let halo = scheme("halo-psa", "x-halo-signature", "sha256= ").encoding(Encoding::Base64);
    let nfe = scheme("nfe", "x-hub-signature", "sha1=").algorithm(Algorithm::HmacSha1);
    for (scheme, value) in [
        (greenhouse, "sha256 b7d63e49c67ebb39e8b612537c1acca7af3b18eeb2f9902126ac5c5cd7943523"),
        (halo, "sha256= t9Y+ScZ+uznothJTfBrMp687GO6y+ZAhJqxcXNeUNSM="),
        (nfe, "sha1=70F321B6441F53D1169273FE620548D6339B7CCC"),
    ] {
        let scheme = scheme.build().unwrap();
        let receiver = Receiver::new(scheme, scheme.key("secret").unwrap()).unwrap();
        let request =
            |body: &[u8]| full(Request::post("/").header(scheme.signature_header(), value), body);
        assert!(receiver.receive(request(br#"{"action":"hire"}"#)).await.is_ok(), "{value}");
        let changed = receiver.receive(request(br#"{"action":"fire"}"#)).await.unwrap_err();
        assert_eq!(changed.status(), StatusCode::UNAUTHORIZED, "{value}");
    }
}

/// octokit/webhooks.js#158, wearerequired/traduttore#166: GitHub's default content type is a form.
#[tokio::test]
async fn a_form_of_github_verifies_as_it_came_and_is_no_json() {
    let key = GITHUB.key("It's a Secret to Everybody").unwrap();
    let body = b"payload=%7B%22action%22%3A%22opened%22%7D";
    let signature = GITHUB.sign(&key, &Envelope::default(), body).unwrap();
    let request = Request::post("/")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("x-hub-signature-256", signature.as_str());
    let receiver = Receiver::new(GITHUB, key).unwrap();
    let webhook = receiver.receive(full(request, body)).await.unwrap().into_body();
    assert_eq!(webhook.body(), &body[..]);
    let refused = webhook.json::<serde_json::Value>().unwrap_err();
    assert_eq!(refused.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(refused.to_string().contains("application/json"), "{refused}");
}

/// octokit/webhooks.js#71 and #1155, sendgrid/sendgrid-nodejs#1193 and #1321 (a line break at the
/// end), line-bot-sdk-nodejs#922 (emoji).
#[tokio::test]
async fn bytes_are_bytes() {
    for body in [
        "{\"text\":\"\\u001B[0m\"}".as_bytes(),
        "{\"text\":\"\u{1f980}\"}".as_bytes(),
        b"[{\"email\":\"a@example.com\"}]\r\n",
        b"\xef\xbb\xbf{}",
        b"{\0}",
        b"\xff\xfe{\0}\0",
        b"NaN",
        b"",
    ] {
        let received = receiver().receive(full(signed("msg_1", NOW, body), body)).await.unwrap();
        assert_eq!(received.body().body(), body);
    }
    let body = b"[1]\r\n";
    let cut = receiver().receive(full(signed("msg_1", NOW, body), b"[1]")).await.unwrap_err();
    assert_eq!(cut.status(), StatusCode::UNAUTHORIZED);
    // A body that is no JSON is malformed, and not forged.
    for body in [&b"\xef\xbb\xbf{}"[..], b"\xff\xfe{\0}\0", b"NaN", b""] {
        let received = receiver().receive(full(signed("msg_1", NOW, body), body)).await.unwrap();
        let refused = received.body().json::<serde_json::Value>().unwrap_err();
        assert!(matches!(refused, Rejection::InvalidJson { .. }), "{refused:?}");
    }
}

/// polarsource/polar#14102 and #13522: since 8 September 2026 the base64 in the secret is the key, and
/// before it was the whole text.
#[tokio::test]
async fn both_readings_of_a_secret_of_polar_can_be_in_one_ring() {
    let secret = concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let readings = || [Key::standard(secret).unwrap(), Key::polar(secret).unwrap()];
    let receiver = Receiver::new(STANDARD, KeyRing::from(readings())).unwrap();
    let receiver = receiver.clock(StoppedClock::new());
    for (index, key) in readings().iter().enumerate() {
        let signature = standard::sign(key, "msg_1", NOW, b"{}").unwrap();
        let request = Request::post("/hook")
            .header("webhook-id", "msg_1")
            .header("webhook-timestamp", NOW)
            .header("webhook-signature", signature.as_str());
        let received = receiver.receive(full(request, b"{}")).await.unwrap();
        assert_eq!(received.body().key_index(), index);
    }
}
