//! CloudEvents, "HTTP 1.1 Web Hooks for Event Delivery" 1.0.2, §4: abuse protection.

use bytes::Bytes;
use http::header::{ALLOW, HeaderName};
use http::request::Parts;
use http::{HeaderValue, Method, Response};

use super::with_headers;
use crate::rejection::Rejection;

const REQUEST_ORIGIN: &str = "webhook-request-origin";
const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");

/// The senders that may send, and how many requests per minute.
#[derive(Debug, Clone)]
#[must_use]
pub struct CloudEvents {
    origins: Vec<String>,
    rate: Option<u32>,
}

impl CloudEvents {
    /// Allows the senders with these names, such as `eventgrid.azure.net`.
    pub fn origins(origins: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { origins: origins.into_iter().map(Into::into).collect(), rate: None }
    }

    /// Allows `per_minute` requests per minute: any number by default.
    pub fn rate(self, per_minute: u32) -> Self {
        Self { rate: Some(per_minute), ..self }
    }

    pub(super) fn answer(&self, head: &Parts) -> Option<Result<Response<Bytes>, Rejection>> {
        // §4.1: "The `WebHook-Request-Origin` header MUST be included in the validation request".
        let mut found = head.headers.get_all(REQUEST_ORIGIN).iter();
        let origin = found.next().filter(|_| head.method == Method::OPTIONS)?;
        let name = origin.to_str().unwrap_or_default();
        let is_allowed = self.origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
        if !is_allowed || found.next().is_some() {
            return Some(Err(Rejection::Handshake));
        }
        let rate = match self.rate {
            Some(rate) => HeaderValue::from(rate),
            None => HeaderValue::from_static("*"),
        };
        let headers = [
            (ALLOW, HeaderValue::from_static("POST")),
            (ALLOWED_ORIGIN, origin.clone()),
            (ALLOWED_RATE, rate),
        ];
        Some(Ok(with_headers(Bytes::new(), headers)))
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn ask(policy: &CloudEvents, origins: &[&str]) -> Option<Result<Response<Bytes>, Rejection>> {
        let mut request = Request::options("/hook").header("webhook-request-rate", "120");
        for origin in origins {
            request = request.header(REQUEST_ORIGIN, *origin);
        }
        policy.answer(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn a_sender_that_may_is_told_so() {
        let policy = CloudEvents::origins(["eventemitter.example.com"]);
        let answer = ask(&policy, &["EventEmitter.example.com"]).unwrap().unwrap();
        assert_eq!(answer.headers()["webhook-allowed-origin"], "EventEmitter.example.com");
        assert_eq!(answer.headers()["webhook-allowed-rate"], "*");
        assert_eq!(answer.headers()["allow"], "POST");
        let answer = ask(&policy.rate(100), &["eventemitter.example.com"]).unwrap().unwrap();
        assert_eq!(answer.headers()["webhook-allowed-rate"], "100");
    }

    #[test]
    fn a_sender_that_may_not_is_refused() {
        let policy = CloudEvents::origins(["a.example"]);
        for origins in [&["b.example"][..], &["a.example", "b.example"]] {
            assert!(matches!(ask(&policy, origins), Some(Err(Rejection::Handshake))));
        }
    }

    #[test]
    fn other_requests_are_no_handshakes() {
        let policy = CloudEvents::origins(["a.example"]);
        assert!(ask(&policy, &[]).is_none());
        let post = Request::post("/hook").header(REQUEST_ORIGIN, "a.example").body(()).unwrap();
        assert!(policy.answer(&post.into_parts().0).is_none());
    }
}
