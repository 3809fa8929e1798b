//! Meta: developers.facebook.com/docs/graph-api/webhooks/getting-started, "Verification requests".

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{echo, query_value};
use crate::rejection::Rejection;

pub(super) fn answer(
    head: &Parts,
    verify_token: &str,
) -> Option<Result<Response<Bytes>, Rejection>> {
    query_value(head, "hub.mode").filter(|_| head.method == Method::GET)?;
    let value = |name| query_value(head, name).unwrap_or_default();
    let is_subscription = value("hub.mode") == "subscribe";
    if is_subscription && is_same(&value("hub.verify_token"), verify_token) {
        Some(Ok(echo(value("hub.challenge"))))
    } else {
        Some(Err(Rejection::Handshake))
    }
}

/// Compares hashes, so that the time shows neither where two tokens differ nor how long one is.
fn is_same(given: &str, expected: &str) -> bool {
    // Without a token in the settings, no handshake is expected.
    !expected.is_empty() && Sha256::digest(given).ct_eq(&Sha256::digest(expected)).into()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn ask(query: &str, token: &str) -> Option<Result<Response<Bytes>, Rejection>> {
        let request = Request::get(format!("/hook?{query}")).body(()).unwrap();
        answer(&request.into_parts().0, token)
    }

    #[test]
    fn the_challenge_is_echoed_to_whoever_knows_the_token() {
        let query = "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=meaty%26hamster";
        assert_eq!(ask(query, "meaty&hamster").unwrap().unwrap().body(), "1158201444");
        for other in ["meaty", "", "meaty%26hamster"] {
            assert!(matches!(ask(query, other), Some(Err(Rejection::Handshake))), "{other}");
        }
        let no_token = "hub.mode=subscribe&hub.challenge=1&hub.verify_token=";
        assert!(matches!(ask(no_token, ""), Some(Err(Rejection::Handshake))));
        let unsubscribe = "hub.mode=unsubscribe&hub.challenge=1&hub.verify_token=a";
        assert!(matches!(ask(unsubscribe, "a"), Some(Err(Rejection::Handshake))));
    }

    #[test]
    fn other_requests_are_no_handshakes() {
        assert!(ask("mode=subscribe", "a").is_none());
        let post = Request::post("/hook?hub.mode=subscribe").body(()).unwrap();
        assert!(answer(&post.into_parts().0, "a").is_none());
    }
}
