//! Notion: developers.notion.com/reference/webhooks, "Verifying the webhook subscription".

use bytes::Bytes;
use http::header::HeaderName;
use http::request::Parts;
use http::{Method, Response};
use serde::Deserialize;

use crate::content_type;
use crate::rejection::Rejection;

const SIGNATURE: HeaderName = HeaderName::from_static("x-notion-signature");

/// The longest token in bytes. Those seen have 50.
const MAX_TOKEN: usize = 256;

#[derive(Deserialize)]
struct Verification<'b> {
    verification_token: &'b str,
}

pub(super) fn needs_body(head: &Parts) -> bool {
    head.method == Method::POST
        && !head.headers.contains_key(SIGNATURE)
        && content_type::is(&head.headers, "application/json")
}

pub(super) fn answer(
    head: &Parts,
    body: &[u8],
    on_token: &dyn Fn(&Parts, &str) -> bool,
) -> Option<Result<Response<Bytes>, Rejection>> {
    let Verification { verification_token: token } = serde_json::from_slice(body).ok()?;
    let is_token =
        (1..=MAX_TOKEN).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic());
    if is_token && on_token(head, token) {
        Some(Ok(Response::new(Bytes::new())))
    } else {
        Some(Err(Rejection::Handshake))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use http::Request;

    use super::*;

    fn head(headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::post("/hook");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_token_that_is_expected_is_taken() {
        let taken = RefCell::new(Vec::new());
        let ask = |body: &str, is_expected| {
            answer(&head(&[]), body.as_bytes(), &|_: &Parts, token: &str| {
                taken.borrow_mut().push(token.to_owned());
                is_expected
            })
        };
        let body =
            r#"{"verification_token": "secret_tMrlL1qK5vuQAh1b6cZGhFChZTSYJlce98V0pYn7yBl"}"#;
        assert!(ask(body, true).unwrap().unwrap().body().is_empty());
        assert!(matches!(ask(body, false), Some(Err(Rejection::Handshake))));
        assert_eq!(taken.take(), ["secret_tMrlL1qK5vuQAh1b6cZGhFChZTSYJlce98V0pYn7yBl"; 2]);
        let long = format!(r#"{{"verification_token": "{}"}}"#, "a".repeat(MAX_TOKEN + 1));
        for refused in [r#"{"verification_token": ""}"#, r#"{"verification_token": "a b"}"#, &long]
        {
            assert!(matches!(ask(refused, true), Some(Err(Rejection::Handshake))), "{refused}");
        }
        for other in ["", "{}", "[]", r#"{"type": "page.created"}"#, r#"{"verification_token": 1}"#]
        {
            assert!(ask(other, true).is_none(), "{other}");
        }
        assert!(taken.take().is_empty());
    }

    #[test]
    fn the_bodies_of_other_requests_are_left_alone() {
        let json = ("content-type", "application/json; charset=utf-8");
        assert!(needs_body(&head(&[json])));
        assert!(!needs_body(&head(&[json, ("X-Notion-Signature", "sha256=00")])));
        assert!(!needs_body(&head(&[])));
        let get = Request::get("/hook").header(json.0, json.1).body(()).unwrap();
        assert!(!needs_body(&get.into_parts().0));
    }
}
