//! Dropbox: dropbox.com/developers/reference/webhooks, "The verification request".

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response};

use super::{echo, query_value};

pub(super) fn answer(head: &Parts) -> Option<Response<Bytes>> {
    let challenge = query_value(head, "challenge").filter(|_| head.method == Method::GET)?;
    // "Your app should echo back the `challenge` parameter", as text and with `nosniff`, so that no
    // browser runs it as a script.
    Some(echo(challenge))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn the_challenge_is_echoed_as_plain_text() {
        let head = Request::get("/hook?challenge=%3Cb%3E+1").body(()).unwrap().into_parts().0;
        let answer = answer(&head).unwrap();
        assert_eq!(answer.body(), "<b> 1");
        assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    }

    #[test]
    fn other_requests_are_no_handshakes() {
        for request in [Request::get("/hook"), Request::post("/hook?challenge=1")] {
            assert!(answer(&request.body(()).unwrap().into_parts().0).is_none());
        }
    }
}
