//! Requests of Twilio and Mailgun, as they come.

use http::Request;
use webhooks_sign::providers::{GITHUB, MAILGUN, TWILIO};

use super::*;

const FORM: &str = "application/x-www-form-urlencoded; charset=UTF-8";

/// A request for Twilio's receiver, whose URL is given, and who has the token of Twilio's tests.
struct Sent<'a> {
    method: &'a str,
    uri: &'a str,
    content_type: &'a str,
    signature: &'a str,
    body: &'a str,
}

impl Sent<'_> {
    fn verify(&self, url: &str) -> Result<(), Error> {
        let request = Request::builder()
            .method(self.method)
            .uri(self.uri)
            .header("content-type", self.content_type)
            .header("x-twilio-signature", self.signature);
        let (head, ()) = request.body(()).unwrap().into_parts();
        let (scheme, tolerance) = (&TWILIO, TWILIO.tolerance());
        let whole = Whole { scheme, tolerance, head: &head, url, now: 0 };
        let keys = KeyRing::from(TWILIO.key("12345").unwrap());
        whole.verify(&keys, self.body.as_bytes()).map(drop)
    }
}

fn sign(url: &str, fields: &[(&str, &str)]) -> String {
    let key = TWILIO.key("12345").unwrap();
    TWILIO.sign_form(&key, url, &mut fields.to_vec()).unwrap().to_string()
}

/// twilio/twilio-python, `tests/unit/test_request_validator.py`.
#[test]
fn forms_of_twilio_are_verified_by_their_fields() {
    let url = "https://mycompany.com/myapp.php?foo=1&bar=2";
    let body = "CallSid=CA1234567890ABCDE&Digits=1234&From=%2B14158675309&To=%2B18005551212\
        &Caller=%2B14158675309";
    let sent = Sent {
        method: "POST",
        uri: "/myapp.php?foo=1&bar=2",
        content_type: FORM,
        signature: "RSOYDt4T1cUTdK1PDd93/VVr8B8=",
        body,
    };
    assert_eq!(sent.verify(url), Ok(()));
    assert_eq!(sent.verify("https://mycompany.com/myapp.php"), Err(Error::NoMatch));
    let changed = body.replace("1234&", "1235&");
    assert_eq!(Sent { body: &changed, ..sent }.verify(url), Err(Error::NoMatch));
    let json = Sent { content_type: "application/json", ..sent };
    assert_eq!(json.verify(url), Err(Error::NoMatch));
    let many = "a&".repeat(MAX_FIELDS + 1);
    assert_eq!(Sent { body: &many, ..sent }.verify(url), Err(Error::NoMatch));
}

/// twilio/twilio-python, `tests/unit/test_request_validator.py`.
#[test]
fn other_bodies_of_twilio_are_verified_by_their_hash_in_the_query() {
    let hash = "bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620";
    let uri = format!("/myapp.php?foo=1&bar=2&{hash}");
    let sent = Sent {
        method: "POST",
        uri: &uri,
        content_type: "application/json",
        signature: "a9nBmqA0ju/hNViExpshrM61xv4=",
        body: r#"{"property": "value", "boolean": true}"#,
    };
    assert_eq!(sent.verify("https://mycompany.com/myapp.php?foo=1&bar=2"), Ok(()));
    assert_eq!(sent.verify("https://mycompany.com/myapp.php"), Ok(()));
    // The URL of another destination, though it signs the same.
    for other in ["?foo=1&bar=", "?foo=2", "?bar=2"] {
        let url = format!("https://mycompany.com/myapp.php{other}");
        assert_eq!(sent.verify(&url), Err(Error::NoMatch), "{other}");
    }
    assert_eq!(
        Sent { body: "{}", ..sent }.verify("https://mycompany.com/myapp.php"),
        Err(Error::NoMatch)
    );
    let url = "https://mycompany.com/myapp.php";
    let signature = sign(&format!("{url}?foo=1"), &[]);
    let unhashed = Sent { uri: "/myapp.php?foo=1", signature: &signature, ..sent };
    assert_eq!(unhashed.verify(url).map_err(Error::name), Err("invalid_header"));
}

#[test]
fn a_captured_get_is_no_post() {
    let url = "https://ex.com/hook";
    let signature = sign("https://ex.com/hook?From=1", &[]);
    let get = Sent {
        method: "GET",
        uri: "/hook?From=1",
        content_type: "text/plain",
        signature: &signature,
        body: "",
    };
    assert_eq!(get.verify(url), Ok(()));
    assert!(get.verify("https://ex.com/hook?To=1").is_err());
    let post = Sent { method: "POST", uri: "/hook", body: "?From=1", ..get };
    for content_type in [FORM, "text/plain", "application/json"] {
        for body in ["?From=1", "%3FFrom%3D1=", "%3FFrom=%3D1", "From=1"] {
            let post = Sent { content_type, body, ..post };
            assert!(post.verify(url).is_err(), "{content_type} {body}");
            let post = Sent { uri: get.uri, ..post };
            assert!(post.verify(url).is_err(), "{content_type} {body}");
        }
    }
}

#[test]
fn the_default_port_may_be_signed_or_not() {
    let check = |given: &str, signed: &str, expected: Result<(), Error>| {
        let signature = sign(signed, &[("From", "1")]);
        let (method, uri, body) = ("POST", "/hook", "From=1");
        let sent = Sent { method, uri, content_type: FORM, signature: &signature, body };
        assert_eq!(sent.verify(given), expected, "{given} {signed}");
    };
    check("https://ex.com/hook", "https://ex.com:443/hook", Ok(()));
    check("https://ex.com:443/hook", "https://ex.com/hook", Ok(()));
    check("http://ex.com/hook?a=:", "http://ex.com:80/hook?a=:", Ok(()));
    check("https://u:p@ex.com/hook", "https://u:p@ex.com:443/hook", Ok(()));
    check("https://[2001:db8::1]/hook", "https://[2001:db8::1]:443/hook", Ok(()));
    check("https://ex.com/hook", "https://ex.com:80/hook", Err(Error::NoMatch));
    check("https://ex.com:8443/hook", "https://ex.com/hook", Err(Error::NoMatch));
    check("https://ex.com:8443/hook", "https://ex.com:8443:443/hook", Err(Error::NoMatch));
}

#[test]
fn events_of_mailgun_are_verified_by_their_token() {
    const NOW: u64 = 1_529_006_854;
    // Python: hmac.new(b"signing-key", b"1529006854" + token, "sha256").hexdigest()
    let signature = "789244a146c6637126bae16cc09e8755be4ea925e0cff2854851cd2b3f9dfcaf";
    let token = "a8ce0edb2dd8301dee6c2405235584e45aa91d1e9f979f3de0";
    let (head, ()) = Request::post("/").body(()).unwrap().into_parts();
    let verify = |body: &str, now| {
        let (scheme, tolerance) = (&MAILGUN, MAILGUN.tolerance());
        let keys = KeyRing::from(MAILGUN.key("signing-key").unwrap());
        let whole = Whole { scheme, tolerance, head: &head, url: "", now };
        whole.verify(&keys, body.as_bytes()).map(|verified| verified.id().map(str::to_owned))
    };
    let event = |timestamp: &str, token: &str, more: &str| {
        let object = format!(
            r#"{{"timestamp": {timestamp}, "token": "{token}", "signature": "{signature}"}}"#
        );
        format!(r#"{{"signature": {object}, "event-data": {{"event": "opened"}}{more}}}"#)
    };
    let own = event(r#""1529006854""#, token, "");
    assert_eq!(verify(&own, NOW), Ok(Some(token.to_owned())));
    assert_eq!(verify(&event("1529006854", token, ""), NOW), Ok(Some(token.to_owned())));
    // A retry repeats the signature, 8 hours later at most.
    assert!(verify(&own, NOW + 8 * 60 * 60).is_ok());
    let stale = Error::TimestampTooOld { age: 32_401, tolerance: 32_400 };
    assert_eq!(verify(&own, NOW + 32_401), Err(stale));
    assert_eq!(verify(&event("1529006854", "other", ""), NOW), Err(Error::NoMatch));
    // Of a subaccount, whose key we need not have.
    let by = |own: &str, parent: &str| {
        let texts = format!(r#""timestamp": "1529006854", "token": "{token}""#);
        let signatures = format!(r#""signature": "{own}", "parent-signature": "{parent}""#);
        verify(&format!(r#"{{"signature": {{{texts}, {signatures}}}}}"#), NOW).map(drop)
    };
    let other = "0".repeat(64);
    assert_eq!((by(signature, &other), by(&other, signature)), (Ok(()), Ok(())));
    assert_eq!(by(&other, &other), Err(Error::NoMatch));
    // Which of the two would the handler see?
    let twice = event("1529006854", token, r#", "signature": {}"#);
    for malformed in ["", "{}", "[]", "token=1", r#"{"signature": {"token": 1}}"#, &twice] {
        let refused = verify(malformed, NOW).unwrap_err();
        assert!(refused.is_malformed(), "{malformed}");
    }
}

#[test]
fn a_head_is_checked_before_its_body_is_read() {
    let check = |scheme: &Scheme, secret: &Scheme, url, header: Option<&str>| {
        let mut request = Request::post("/");
        if let Some(value) = header {
            request = request.header("x-twilio-signature", value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let keys = KeyRing::from(secret.key("secret").unwrap());
        let tolerance = scheme.tolerance();
        let whole = Whole { scheme, tolerance, head: &head, url, now: 0 };
        whole.check_head(&keys).map_err(Error::name)
    };
    let signature = sign("https://ex.com/", &[("From", "1")]);
    let header = Some(signature.as_str());
    assert_eq!(check(&TWILIO, &TWILIO, "https://ex.com/", header), Ok(()));
    assert_eq!(check(&TWILIO, &TWILIO, "https://ex.com/", None), Err("missing_header"));
    let cut = signature.get(4..);
    assert_eq!(check(&TWILIO, &TWILIO, "https://ex.com/", cut), Err("invalid_header"));
    assert_eq!(check(&TWILIO, &TWILIO, "", header), Err("missing_part"));
    assert_eq!(check(&TWILIO, &GITHUB, "https://ex.com/", header), Err("unsuitable_key"));
    assert_eq!(check(&MAILGUN, &MAILGUN, "", None), Ok(()));
    assert_eq!(check(&MAILGUN, &TWILIO, "", None), Err("unsuitable_key"));
}

#[test]
fn schemes_that_sign_the_body_are_streamed_and_can_be_verified_here() {
    assert!(is_needed(&TWILIO) && is_needed(&MAILGUN) && !is_needed(&GITHUB));
    // The example of GitHub's documentation, "Testing the webhook payload validation".
    let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let signed = Request::post("/").header("x-hub-signature-256", signature);
    let (scheme, tolerance) = (&GITHUB, GITHUB.tolerance());
    let keys = KeyRing::from(GITHUB.key("It's a Secret to Everybody").unwrap());
    let verify = |request: http::request::Builder, body| {
        let (head, ()) = request.body(()).unwrap().into_parts();
        let whole = Whole { scheme, tolerance, head: &head, url: "", now: 0 };
        whole.verify(&keys, body).map(drop)
    };
    assert_eq!(verify(signed, b"Hello, World!"), Ok(()));
    let unsigned = verify(Request::post("/"), b"Hello, World!");
    assert_eq!(unsigned, Err(Error::MissingHeader { header: "x-hub-signature-256" }));
}
