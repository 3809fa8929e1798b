//! Receivers of Twilio and Mailgun, which do not sign the body as it comes.
#![cfg(feature = "memory")]
#![expect(clippy::unwrap_used, reason = "a test")]

#[expect(dead_code, reason = "other tests need more of it")]
#[path = "shared/sender.rs"]
mod sender;

use std::future::ready;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use sender::{NOW, StoppedClock};
use webhooks_receive::{
    Keys, MemorySeenStore, Receiver, Rejection, ReplayGuard, RunOutcome, SetupError, TenantKeys,
};
use webhooks_sign::KeyRing;
use webhooks_sign::providers::{MAILGUN, MANDRILL, TWILIO};

const URL: &str = "https://example.com/hook";
const BODY: &str = "From=%2B14158675310&Digits=1234";

fn form(secret: &str, body: &'static str) -> Request<Full<Bytes>> {
    let mut fields = [("From", "+14158675310"), ("Digits", "1234")];
    let signature = TWILIO.sign_form(&TWILIO.key(secret).unwrap(), URL, &mut fields).unwrap();
    Request::post("/hook")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("x-twilio-signature", signature.as_str())
        .body(Full::new(Bytes::from(body)))
        .unwrap()
}

fn event(token: &str, event: &str) -> Request<Full<Bytes>> {
    let (key, time) = (MAILGUN.key("secret").unwrap(), NOW.to_string());
    let signature = MAILGUN.sign_token(&key, &time, token).unwrap();
    let signed = format!(r#"{{"timestamp":"{time}","token":"{token}","signature":"{signature}"}}"#);
    let body = format!(r#"{{"signature":{signed},"event-data":{{"event":"{event}"}}}}"#);
    let request = Request::post("/hook").header("content-type", "application/json");
    request.body(Full::new(Bytes::from(body))).unwrap()
}

#[tokio::test]
async fn forms_are_received_by_fixed_keys_and_those_of_tenants() {
    let key = TWILIO.key("secret").unwrap();
    let fixed = Keys::from(key.clone()).url(URL);
    let of_tenant = Keys::lookup(move |head: &http::request::Parts| {
        let is_known = head.uri.path() == "/hook";
        let ring = KeyRing::from(key.clone());
        async move { Ok(is_known.then(|| TenantKeys::new("1", &ring).url(URL))) }
    });
    for keys in [fixed, of_tenant.clone()] {
        let receiver = Receiver::new(TWILIO, keys).unwrap().clock(StoppedClock::new());
        let received = receiver.receive(form("secret", BODY)).await.unwrap();
        assert_eq!(received.body().body(), BODY);
        for forged in [form("other", BODY), form("secret", "From=1"), form("secret", "")] {
            let refused = receiver.receive(forged).await.unwrap_err();
            assert!(matches!(refused, Rejection::Unauthentic { .. }), "{refused:?}");
        }
        let mut unsigned = form("secret", BODY);
        unsigned.headers_mut().remove("x-twilio-signature");
        let refused = receiver.receive(unsigned).await.unwrap_err();
        assert!(matches!(refused, Rejection::Malformed { .. }), "{refused:?}");
    }
    let receiver = Receiver::new(TWILIO, of_tenant).unwrap().clock(StoppedClock::new());
    let mut elsewhere = form("secret", BODY);
    *elsewhere.uri_mut() = http::Uri::from_static("/other");
    let refused = receiver.receive(elsewhere).await.unwrap_err();
    assert!(matches!(refused, Rejection::UnknownTenant), "{refused:?}");
}

#[test]
fn a_receiver_of_forms_needs_the_url() {
    for scheme in [TWILIO, MANDRILL] {
        let receiver = Receiver::new(scheme, scheme.key("secret").unwrap());
        assert!(matches!(receiver.unwrap_err(), SetupError::MissingUrl { .. }));
    }
    let wrong = Receiver::new(MAILGUN, TWILIO.key("secret").unwrap());
    assert!(matches!(wrong.unwrap_err(), SetupError::UnsuitableKeys { .. }));
}

/// An attacker who saw a token could send it with another body, but not twice.
#[tokio::test]
async fn a_token_is_the_id_that_a_guard_knows() {
    let key = MAILGUN.key("secret").unwrap();
    let receiver = Receiver::new(MAILGUN, key).unwrap().clock(StoppedClock::new());
    let guard = ReplayGuard::new(&receiver, "billing", MemorySeenStore::new()).unwrap();
    let run = async |request| {
        let webhook = receiver.receive(request).await.unwrap().into_body();
        let guarded = guard.run(&webhook, ready(StatusCode::OK)).await.unwrap();
        (webhook.id().map(str::to_owned), matches!(guarded, RunOutcome::Ran { .. }))
    };
    assert_eq!(run(event("0a", "opened")).await, (Some("0a".to_owned()), true));
    assert_eq!(run(event("0a", "failed")).await, (Some("0a".to_owned()), false));
    assert_eq!(run(event("0b", "opened")).await, (Some("0b".to_owned()), true));
    let none = Request::post("/hook").body(Full::new(Bytes::from("{}"))).unwrap();
    let refused = receiver.receive(none).await.unwrap_err();
    assert!(matches!(refused, Rejection::Malformed { .. }), "{refused:?}");
}
