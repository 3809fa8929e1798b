//! Zoom: developers.zoom.us/docs/api/webhooks, "Validate your webhook endpoint".

use bytes::Bytes;
use http::Response;
use serde::Deserialize;
use serde_json::json;
use webhooks_sign::{Key, x_webhook};

use super::json;

#[derive(Deserialize)]
struct UrlValidation {
    event: String,
    payload: Payload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    plain_token: String,
}

pub(super) fn answer(body: &[u8], key: &Key) -> Option<Response<Bytes>> {
    let asked: UrlValidation = serde_json::from_slice(body).ok()?;
    if asked.event != "endpoint.url_validation" {
        return None;
    }
    let plain = asked.payload.plain_token;
    // "Hash the plainToken value with HMAC SHA-256, using your secret token as the salt, and output
    // in hex": what `X-Webhook-Signature` is too.
    let encrypted = x_webhook::sign(key, plain.as_bytes()).ok()?;
    let answer = json!({ "plainToken": plain, "encryptedToken": encrypted.as_str() });
    Some(json(&answer))
}

#[cfg(test)]
mod tests {
    use webhooks_sign::providers::ZOOM;

    use super::*;

    #[test]
    fn the_token_is_answered_with_its_hmac() {
        // Python: hmac.new(b"secret-token", b"qgg8vlvZRS6UYooatFL8Aw", "sha256").hexdigest()
        let encrypted = "5b72bd117f184f54093c1c3c11499c1d13e6d56dc0d96e6b78fbfecedc953b75";
        let body = br#"{"event": "endpoint.url_validation", "event_ts": 1654503849680, "payload": {"plainToken": "qgg8vlvZRS6UYooatFL8Aw"}}"#;
        let answer = answer(body, &ZOOM.key("secret-token").unwrap()).unwrap();
        let found: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
        let expected =
            json!({ "plainToken": "qgg8vlvZRS6UYooatFL8Aw", "encryptedToken": encrypted });
        assert_eq!(found, expected);
    }

    #[test]
    fn other_webhooks_are_no_handshakes() {
        let key = ZOOM.key("secret-token").unwrap();
        for body in [r#"{"event": "meeting.started", "payload": {"plainToken": "1"}}"#, "{}", ""] {
            assert!(answer(body.as_bytes(), &key).is_none(), "{body}");
        }
    }
}
