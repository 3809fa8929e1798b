//! Properties of any input at all: run by proptest in CI and by the fuzz targets in `tests/fuzz`.

use webhooks_sign::providers::{ALL, GITHUB, STRIPE};
use webhooks_sign::standard::{self, STANDARD, SVIX};
use webhooks_sign::x_webhook::{self, X_WEBHOOK, X_WEBHOOK_SHA512};
use webhooks_sign::{Algorithm, Envelope, Key, KeyRing, scheme::Scheme};

/// 2026-01-01T00:00:00Z.
pub(crate) const NOW: u64 = 1_767_225_600;

fn key(byte: u8) -> Key {
    Key::from_bytes(Algorithm::HmacSha256, &[byte; 32]).unwrap()
}

/// No header panics, and none that we did not sign is accepted, whatever the scheme.
pub(crate) fn headers(id: &[u8], timestamp: &[u8], signature: &[u8], body: &[u8]) {
    let ours = [STANDARD, SVIX, X_WEBHOOK, X_WEBHOOK_SHA512];
    for scheme in ALL.iter().chain(&ours) {
        let secret = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";
        let Ok(key) = scheme.key(secret).or_else(|_| Key::from_bytes(scheme.algorithm(), &[7; 32]))
        else {
            continue;
        };
        let time = match scheme.timestamp_source() {
            Some(webhooks_sign::scheme::TimestampSource::Header(name, _)) => name,
            _ => "-",
        };
        let headers = [
            (scheme.signature_header(), signature),
            (scheme.id_header().unwrap_or("--"), id),
            (time, timestamp),
        ];
        let verifier = scheme.verifier().method("POST").url("https://example.com/");
        assert!(verifier.verify(&KeyRing::from(key), &headers, body, NOW).is_err());
    }
}

/// No secret panics, and a key is made of nothing but what its constructor promises.
pub(crate) fn secret(text: &str, bytes: &[u8]) {
    if Key::standard(text).is_ok() {
        assert!(["whsec_", "whpk_", "whsk_"].iter().any(|prefix| text.starts_with(prefix)));
    }
    let looks_asymmetric = bytes.starts_with(b"whpk_") || bytes.starts_with(b"whsk_");
    for algorithm in [Algorithm::HmacSha256, Algorithm::HmacSha512] {
        let legacy = Key::from_legacy_bytes(algorithm, bytes);
        let is_text = bytes.starts_with(b"whsec_") || looks_asymmetric;
        assert_eq!(legacy.is_ok(), !bytes.is_empty() && !is_text);
        let strict = Key::from_bytes(algorithm, bytes);
        assert_eq!(strict.is_ok(), (24..=64).contains(&bytes.len()) && !looks_asymmetric);
    }
    for scheme in ALL {
        // Whether a text is a key is the scheme's affair; that it never panics is ours.
        drop(scheme.key(text));
    }
}

/// A signed message verifies, however it is cut and whichever key of the ring signed; and one
/// flipped bit, of id, timestamp, signature or body, is refused, by each scheme of ours.
pub(crate) fn whole(id: &str, body: &[u8], cuts: &[usize], bit: usize) {
    let timestamp = NOW.to_string();
    let mut signature = String::new();
    standard::sign_all(&[key(1), key(2)], id, NOW, body, &mut signature).unwrap();
    let parts = [id.as_bytes(), timestamp.as_bytes(), signature.as_bytes()];
    for (ring, index) in [([key(1), key(2)], 0), ([key(3), key(2)], 1)] {
        let ring = KeyRing::from(ring);
        assert_eq!(standard::verify(&ring, &named(parts), body, NOW).unwrap().key_index(), index);
        let headers = named(parts);
        let mut pending = STANDARD.verifier().begin(&ring, &headers, NOW).unwrap();
        let mut rest = body;
        for cut in cuts {
            let (chunk, tail) = rest.split_at((*cut).min(rest.len()));
            pending.update(chunk);
            rest = tail;
        }
        pending.update(rest);
        let verified = pending.finish().unwrap();
        assert_eq!((verified.key_index(), verified.id()), (index, Some(id)));
    }

    // With one signature: of two, each may break alone.
    for key in [Ok(key(1)), Key::standard(ED25519)].into_iter().flatten() {
        let signature = standard::sign(&key, id, NOW, body).unwrap();
        let ring = KeyRing::from(key);
        let parts = [id.as_bytes(), timestamp.as_bytes(), signature.as_str().as_bytes(), body];
        flipped(parts, bit, |[id, timestamp, signature, body]| {
            standard::verify(&ring, &named([id, timestamp, signature]), body, NOW).is_ok()
        });
    }
    for algorithm in [Algorithm::HmacSha256, Algorithm::HmacSha512] {
        let key = Key::from_bytes(algorithm, &[1; 32]).unwrap();
        let signature = x_webhook::sign(&key, body).unwrap();
        let ring = KeyRing::from(key);
        flipped([signature.as_str().as_bytes(), body], bit, |[signature, body]| {
            x_webhook::verify(&ring, &[("x-webhook-signature", signature)], body).is_ok()
        });
    }
}

/// Svix's, in `vectors/standard_webhooks.json`; a key where the feature is on.
const ED25519: &str = concat!(
    "whsk_",
    "6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==",
);

fn named(parts: [&[u8]; 3]) -> [(&'static str, &[u8]); 3] {
    let [id, timestamp, signature] = parts;
    [("webhook-id", id), ("webhook-timestamp", timestamp), ("webhook-signature", signature)]
}

/// The parts verify as they are, and not with one bit flipped.
fn flipped<const N: usize>(parts: [&[u8]; N], bit: usize, verify: impl Fn([&[u8]; N]) -> bool) {
    assert!(verify(parts));
    let mut parts = parts.map(<[u8]>::to_vec);
    let bits: usize = parts.iter().map(|part| part.len() * 8).sum();
    let mut bit = bit % bits;
    for part in &mut parts {
        if bit < part.len() * 8 {
            part[bit / 8] ^= 1 << (bit % 8);
            break;
        }
        bit -= part.len() * 8;
    }
    assert!(!verify(parts.each_ref().map(Vec::as_slice)));
}

/// Schemes with one way to write a signature accept no other spelling of it but letter case, which
/// providers leave open.
pub(crate) fn provider(body: &[u8]) {
    let check = |scheme: &Scheme, value: &str| {
        let keys = KeyRing::from(scheme.key("secret").unwrap());
        scheme.verify(&keys, &[(scheme.signature_header(), value)], body, NOW).is_ok()
    };
    let sign = |scheme: &Scheme, timestamp| {
        let envelope = Envelope { timestamp, ..Envelope::default() };
        scheme.sign(&scheme.key("secret").unwrap(), &envelope, body).unwrap().to_string()
    };
    let github = sign(&GITHUB, "");
    assert!(check(&GITHUB, &github));
    for other in [format!(" {github}"), format!("{github} "), github.replace("sha256=", "")] {
        assert!(!check(&GITHUB, &other));
    }
    let now = NOW.to_string();
    let stripe = sign(&STRIPE, &now);
    assert!(check(&STRIPE, &format!("t={now},{stripe}")));
    assert!(check(&STRIPE, &format!("v0=00,{stripe},t={now},v1=00")));
    assert!(!check(&STRIPE, &format!("t={now},t={now},{stripe}")));
    assert!(!check(&STRIPE, &stripe));
}
