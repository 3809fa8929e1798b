//! Asana: developers.asana.com/docs/webhooks-guide, "The webhook handshake".

use bytes::Bytes;
use http::header::HeaderName;
use http::request::Parts;
use http::{Method, Response};

use super::with_headers;
use crate::rejection::Rejection;

const SECRET: HeaderName = HeaderName::from_static("x-hook-secret");
const SIGNATURE: HeaderName = HeaderName::from_static("x-hook-signature");

pub(super) fn answer(
    head: &Parts,
    on_secret: &dyn Fn(&Parts, &str) -> bool,
) -> Option<Result<Response<Bytes>, Rejection>> {
    let mut found = head.headers.get_all(SECRET).iter();
    // A signed request is a webhook, whatever other headers it has.
    let is_handshake = head.method == Method::POST && !head.headers.contains_key(SIGNATURE);
    let value = found.next().filter(|_| is_handshake)?;
    let secret = value.to_str().unwrap_or_default();
    if secret.is_empty() || found.next().is_some() || !on_secret(head, secret) {
        return Some(Err(Rejection::Handshake));
    }
    let mut value = value.clone();
    value.set_sensitive(true);
    // "The target must respond with a 200 OK or 204 No Content and a matching `X-Hook-Secret`".
    Some(Ok(with_headers(Bytes::new(), [(SECRET, value)])))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use http::Request;

    use super::*;

    /// The documentation's example.
    const EXAMPLE: &str = "b537207f20cbfa02357cf448134da559e8bd39d61597dcd5631b8012eae53e81";

    fn ask(
        headers: &[(&str, &str)],
        is_expected: bool,
    ) -> (Option<Result<Response<Bytes>, Rejection>>, Vec<String>) {
        let mut request = Request::post("/receive-webhook/7654");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let head = request.body(()).unwrap().into_parts().0;
        let taken = RefCell::new(Vec::new());
        let answered = answer(&head, &|head: &Parts, secret: &str| {
            taken.borrow_mut().push(format!("{} {secret}", head.uri.path()));
            is_expected
        });
        (answered, taken.into_inner())
    }

    #[test]
    fn a_secret_that_is_expected_is_taken_and_repeated() {
        let (answer, taken) = ask(&[("X-Hook-Secret", EXAMPLE)], true);
        let answer = answer.unwrap().unwrap();
        assert_eq!(answer.headers()["x-hook-secret"], EXAMPLE);
        assert!(!format!("{answer:?}").contains(EXAMPLE));
        assert_eq!(taken, [format!("/receive-webhook/7654 {EXAMPLE}")]);
    }

    #[test]
    fn a_secret_that_is_not_expected_is_refused() {
        for (headers, is_expected) in [
            (&[("X-Hook-Secret", EXAMPLE)][..], false),
            (&[("X-Hook-Secret", "")], true),
            (&[("X-Hook-Secret", "a"), ("X-Hook-Secret", "b")], true),
        ] {
            let (answer, _) = ask(headers, is_expected);
            assert!(matches!(answer, Some(Err(Rejection::Handshake))), "{headers:?}");
        }
    }

    #[test]
    fn webhooks_are_no_handshakes() {
        for headers in [&[][..], &[("X-Hook-Secret", "a"), ("X-Hook-Signature", "00")]] {
            let (answer, taken) = ask(headers, true);
            assert!(answer.is_none() && taken.is_empty(), "{headers:?}");
        }
    }
}
