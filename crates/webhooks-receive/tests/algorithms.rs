//! Receivers of Standard Webhooks by HMAC, by ed25519, and by both.
#![expect(clippy::unwrap_used, reason = "a test")]

#[expect(dead_code, reason = "other tests need more of it")]
#[path = "shared/sender.rs"]
mod sender;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use sender::{NOW, StoppedClock};
use webhooks_receive::{Keys, Receiver, Rejection, TenantKeys};
use webhooks_sign::standard::{self, STANDARD};
use webhooks_sign::{Algorithm, Key, KeyRing};

const BODY: &[u8] = b"{}";

fn hmac() -> Key {
    Key::from_bytes(Algorithm::HmacSha256, &[7; 32]).unwrap()
}

fn curve() -> Key {
    Key::ed25519_from_seed(&[7; 32])
}

fn request(keys: &[Key]) -> Request<Full<Bytes>> {
    let mut signatures = String::new();
    standard::sign_all(keys, "msg_1", NOW, BODY, &mut signatures).unwrap();
    Request::post("/hook")
        .header("webhook-id", "msg_1")
        .header("webhook-timestamp", NOW)
        .header("webhook-signature", signatures)
        .body(Full::new(Bytes::from_static(BODY)))
        .unwrap()
}

async fn check(keys: impl Into<Keys>, signers: &[Key], expected: Result<usize, &str>) {
    let receiver = Receiver::new(STANDARD, keys).unwrap().clock(StoppedClock::new());
    let received = receiver.receive(request(signers)).await;
    let found = received.map(|request| request.body().key_index()).map_err(|refused| {
        let Rejection::Unauthentic { source } = refused else { unreachable!("{refused:?}") };
        source.name()
    });
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_receiver_may_have_keys_for_both() {
    let both = || KeyRing::from([hmac(), curve()]);
    check(both(), &[hmac()], Ok(0)).await;
    check(both(), &[curve()], Ok(1)).await;
    check(both(), &[hmac(), curve()], Ok(0)).await;
    check(curve(), &[hmac(), curve()], Ok(0)).await;
    check(curve(), &[hmac()], Err("none_listed")).await;
    check(hmac(), &[curve()], Err("none_listed")).await;
    // A sender that goes over lists both, for tenants that have either key or both.
    let lookup = |keys: Vec<Key>| {
        Keys::lookup(move |_: &http::request::Parts| {
            let mut ring = KeyRing::<2>::new();
            for key in &keys {
                ring.push(key.clone()).unwrap();
            }
            async move { Ok(Some(TenantKeys::new("1", &ring))) }
        })
    };
    for keys in [vec![hmac(), curve()], vec![curve(), hmac()], vec![hmac()], vec![curve()]] {
        check(lookup(keys), &[hmac(), curve()], Ok(0)).await;
    }
    check(lookup(vec![curve()]), &[curve()], Ok(0)).await;
    check(lookup(vec![hmac(), curve()]), &[curve()], Ok(1)).await;
    check(lookup(vec![hmac()]), &[curve()], Err("none_listed")).await;
}
