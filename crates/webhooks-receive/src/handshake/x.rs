//! X: docs.x.com/x-api/webhooks/quickstart, "The CRC check".

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response};
use serde_json::json;
use webhooks_sign::providers::X;
use webhooks_sign::{Envelope, Key};

use super::{json, query_value};
use crate::rejection::Rejection;

/// The longest token in bytes. Those seen have 36.
const MAX_TOKEN: usize = 256;

pub(super) fn answer(head: &Parts, key: &Key) -> Option<Result<Response<Bytes>, Rejection>> {
    let token = query_value(head, "crc_token").filter(|_| head.method == Method::GET)?;
    if !is_token(&token) {
        return Some(Err(Rejection::Handshake));
    }
    // The token is signed as a body is: "sha256=" and base64.
    let signed = X.sign(key, &Envelope::default(), token.as_bytes());
    let answer = signed.map(|signature| json(&json!({ "response_token": signature.as_str() })));
    Some(answer.or(Err(Rejection::Handshake)))
}

/// Returns whether a text is a token, and not the body of a webhook: an object, a list or a form.
fn is_token(token: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+/".contains(&byte);
    let unpadded = token.trim_end_matches('=');
    (1..=MAX_TOKEN).contains(&token.len()) && unpadded.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn ask(request: http::request::Builder) -> Option<Result<Response<Bytes>, Rejection>> {
        let key = X.key("z3ZX4v7mAAUGykl3EcmkqbartmuW8VFOOzCloLx9Q45P0hLrFu").unwrap();
        answer(&request.body(()).unwrap().into_parts().0, &key)
    }

    #[test]
    fn a_token_is_answered_with_its_hmac() {
        // Secret and token of gist.github.com/jcipriano/46c4b3f379d214d57a9ddfa70dba49fe; the rest
        // by Python: base64.b64encode(hmac.new(secret, token, "sha256").digest())
        let expected = "Cytd4Sq+NvEcV3MMrXxWJGJx5A+y/lXzzU2Maartkx8=";
        let request = Request::get("/hook?crc_token=9b4507b3-9040-4669-9ca3-6b94edb50553&nonce=1");
        let answer = ask(request).unwrap().unwrap();
        assert_eq!(answer.body(), &format!(r#"{{"response_token":"sha256={expected}"}}"#));
        assert_eq!(answer.headers()["content-type"], "application/json");
    }

    /// Otherwise an attacker could get a signature for any webhook.
    #[test]
    fn a_body_is_no_token() {
        let long = "a".repeat(MAX_TOKEN + 1);
        for token in
            ["", "%7B%7D", "%5B1%5D", "a=1", "a%3D1", "%22a%22", "a%20b", "a+b", "a%26b", &long]
        {
            let refused = ask(Request::get(format!("/hook?crc_token={token}")));
            assert!(matches!(refused, Some(Err(Rejection::Handshake))), "{token}");
        }
        assert!(ask(Request::get("/hook?crc_token=YWJj%3D")).unwrap().is_ok());
    }

    #[test]
    fn other_requests_are_no_handshakes() {
        for request in [Request::get("/hook"), Request::post("/hook?crc_token=1")] {
            assert!(ask(request).is_none());
        }
    }
}
