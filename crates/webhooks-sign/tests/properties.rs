//! What holds for every key, message and cut: sign then verify, flip a bit, change the algorithm.

#![expect(clippy::unwrap_used, reason = "a test")]

use proptest::collection::vec;
use proptest::prelude::*;
use webhooks_sign::standard::STANDARD;
use webhooks_sign::{Algorithm, Error, Key, KeyRing, SignError, from_fn, standard, x_webhook};

const NOW: u64 = 1_767_225_600;

fn key(algorithm: Algorithm, byte: u8) -> Key {
    Key::from_bytes(algorithm, &[byte; 32]).unwrap()
}

fn header(keys: &[Key], id: &str, body: &[u8]) -> String {
    let mut header = String::new();
    standard::sign_all(keys, id, NOW, body, &mut header).unwrap();
    header
}

proptest! {
    #[test]
    fn what_was_signed_verifies_however_it_is_cut(
        body: Vec<u8>,
        cuts in vec(0..64_usize, 0..8),
        id in "[a-zA-Z0-9_-]{1,64}",
    ) {
        let (new, old) = (key(Algorithm::HmacSha256, 1), key(Algorithm::HmacSha256, 2));
        let signature = header(&[new.clone(), old.clone()], &id, &body);
        let now = NOW.to_string();
        let headers =
            [("webhook-id", &*id), ("webhook-timestamp", &*now), ("webhook-signature", &*signature)];
        for (ring, index) in [
            (KeyRing::from([new.clone(), old.clone()]), 0),
            (KeyRing::from([key(Algorithm::HmacSha256, 3), old.clone()]), 1),
        ] {
            let mut pending = STANDARD.verifier().begin(&ring, &headers, NOW).unwrap();
            let mut rest = &body[..];
            for cut in &cuts {
                let (chunk, tail) = rest.split_at((*cut).min(rest.len()));
                pending.update(chunk);
                rest = tail;
            }
            pending.update(rest);
            let verified = pending.finish().unwrap();
            prop_assert_eq!(verified.key_index(), index);
            prop_assert_eq!((verified.id(), verified.timestamp()), (Some(&*id), Some(NOW)));
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_refused(body in vec(any::<u8>(), 1..64), bit: prop::sample::Index) {
        let keys = KeyRing::from(key(Algorithm::HmacSha256, 1));
        let signature = header(&[key(Algorithm::HmacSha256, 1)], "msg_1", &body);
        let now = NOW.to_string();
        let mut parts =
            [b"msg_1".to_vec(), now.into_bytes(), signature.into_bytes(), body];
        let bits: usize = parts.iter().map(|part| part.len() * 8).sum();
        let mut bit = bit.index(bits);
        for part in &mut parts {
            if bit < part.len() * 8 {
                part[bit / 8] ^= 1 << (bit % 8);
                break;
            }
            bit -= part.len() * 8;
        }
        let [id, timestamp, signature, body] = &parts;
        let headers =
            [("webhook-id", id), ("webhook-timestamp", timestamp), ("webhook-signature", signature)];
        prop_assert!(standard::verify(&keys, &headers, body, NOW).is_err());
    }

    #[test]
    fn no_header_panics(id: Vec<u8>, timestamp: Vec<u8>, signature: Vec<u8>, body: Vec<u8>) {
        let keys = KeyRing::from(key(Algorithm::HmacSha256, 1));
        let headers =
            [("webhook-id", &id), ("webhook-timestamp", &timestamp), ("webhook-signature", &signature)];
        prop_assert!(standard::verify(&keys, &headers, &body, NOW).is_err());
        let headers = [("x-webhook-signature", &signature)];
        prop_assert!(x_webhook::verify(&keys, &headers, &body).is_err());
    }

    #[test]
    fn no_secret_panics(secret in ".*", legacy: Vec<u8>) {
        if Key::standard(&secret).is_ok() {
            prop_assert!(secret.starts_with("whsec_"));
        }
        let key = Key::from_legacy_bytes(Algorithm::HmacSha512, &legacy);
        prop_assert_eq!(key.is_err(), legacy.is_empty());
    }

    #[test]
    fn the_two_algorithms_never_verify_as_each_other(body: Vec<u8>) {
        for (signed, expected) in [
            (Algorithm::HmacSha256, Algorithm::HmacSha512),
            (Algorithm::HmacSha512, Algorithm::HmacSha256),
        ] {
            let signature = x_webhook::sign(&key(signed, 1), &body).unwrap();
            let headers = [("x-webhook-signature", signature.as_str())];
            let own = KeyRing::from(key(signed, 1));
            prop_assert!(x_webhook::verify(&own, &headers, &body).is_ok());
            let other = KeyRing::from(key(expected, 1));
            prop_assert_eq!(x_webhook::verify(&other, &headers, &body), Err(Error::InvalidHeader));
        }
    }
}

#[test]
fn signing_refuses_what_verifying_would_refuse() {
    let sha256 = key(Algorithm::HmacSha256, 1);
    for id in ["", "a.b", "a b", "é", &"x".repeat(257)] {
        assert_eq!(standard::sign(&sha256, id, 1, b"").unwrap_err(), SignError::InvalidId);
    }
    let sha512 = key(Algorithm::HmacSha512, 1);
    assert_eq!(standard::sign(&sha512, "a", 1, b"").unwrap_err(), SignError::UnsuitableKey);
    let mut out = String::new();
    let keys = vec![sha256; 17];
    let refused = Err(SignError::UnsuitableKey);
    assert_eq!(standard::sign_all(&keys, "a", 1, b"", &mut out), refused);
    assert_eq!(standard::sign_all([], "a", 1, b"", &mut out), refused);
}

#[test]
fn a_ring_without_a_suitable_key_verifies_nothing() {
    let headers = [("webhook-id", "a")];
    let empty = KeyRing::<2>::new();
    assert_eq!(standard::verify(&empty, &headers, b"", 0), Err(Error::UnsuitableKey));
    let sha512 = KeyRing::from(key(Algorithm::HmacSha512, 1));
    assert_eq!(standard::verify(&sha512, &headers, b"", 0), Err(Error::UnsuitableKey));
}

#[test]
fn headers_may_come_from_a_closure() {
    let signature = x_webhook::sign(&key(Algorithm::HmacSha256, 1), b"body").unwrap();
    let headers = from_fn(|name: &str| {
        let is_signature = name == "x-webhook-signature";
        is_signature.then(|| signature.as_str().as_bytes())
    });
    let keys = KeyRing::from(key(Algorithm::HmacSha256, 1));
    assert!(x_webhook::verify(&keys, &headers, b"body").is_ok());
}

#[cfg(feature = "http")]
#[test]
fn a_header_map_shows_duplicates() {
    let keys = KeyRing::from(key(Algorithm::HmacSha256, 1));
    let signature = x_webhook::sign(&key(Algorithm::HmacSha256, 1), b"body").unwrap();
    let mut headers = http::HeaderMap::new();
    headers.append("X-Webhook-Signature", signature.as_str().parse().unwrap());
    assert!(x_webhook::verify(&keys, &headers, b"body").is_ok());
    headers.append("X-Webhook-Signature", signature.as_str().parse().unwrap());
    assert_eq!(x_webhook::verify(&keys, &headers, b"body"), Err(Error::DuplicateHeader));
}
