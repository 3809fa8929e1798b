//! Probes: requests that test whether a URL exists, before a webhook is created.
//!
//! Trello: developer.atlassian.com/cloud/trello/guides/rest-api/webhooks, "Creating a Webhook".
//! WooCommerce: `deliver_ping` of its `WC_Webhook`, a form with the webhook's number.

use bytes::Bytes;
use http::header::HeaderName;
use http::request::Parts;
use http::{Method, Response};

use crate::content_type;

const WOO_COMMERCE_SIGNATURE: HeaderName = HeaderName::from_static("x-wc-webhook-signature");

pub(super) fn answer(head: &Parts) -> Option<Response<Bytes>> {
    // With a query it may be the handshake of another sender.
    let is_plain_get = head.method == Method::GET && head.uri.query().is_none();
    (head.method == Method::HEAD || is_plain_get).then(|| Response::new(Bytes::new()))
}

/// Answers WooCommerce's ping. Its head identifies it: it is a form, and signed webhooks are JSON.
pub(super) fn answer_ping(head: &Parts) -> Option<Response<Bytes>> {
    let is_ping = head.method == Method::POST
        && !head.headers.contains_key(WOO_COMMERCE_SIGNATURE)
        && content_type::is(&head.headers, content_type::FORM);
    is_ping.then(|| Response::new(Bytes::new()))
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http::request::Builder;

    use super::*;

    fn head(request: Builder) -> Parts {
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn probes_are_told_that_somebody_is_there() {
        for request in [Request::head("/hook?a=1"), Request::head("/hook"), Request::get("/hook")] {
            let answer = answer(&head(request)).unwrap();
            assert!(answer.status() == 200 && answer.body().is_empty());
        }
        for request in [Request::get("/hook?challenge=1"), Request::post("/hook")] {
            assert!(answer(&head(request)).is_none());
        }
    }

    #[test]
    fn a_ping_is_a_form_that_nobody_signed() {
        let form = || {
            let content_type = "application/x-www-form-urlencoded";
            Request::post("/hook").header("content-type", content_type)
        };
        assert_eq!(answer_ping(&head(form())).unwrap().status(), 200);
        let signed = form().header("X-WC-Webhook-Signature", "AA==");
        let json = Request::post("/hook").header("content-type", "application/json");
        for request in [signed, json, Request::post("/hook")] {
            assert!(answer_ping(&head(request)).is_none());
        }
    }
}
