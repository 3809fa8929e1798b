//! The vectors of Standard Webhooks: upstream's own cases and those of known holes.
//!
//! `vectors/standard_webhooks.json` says where each comes from.
#![expect(clippy::unwrap_used, reason = "a test")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use webhooks_sign::providers::STRIPE;
use webhooks_sign::standard::{self, STANDARD, SVIX};
#[cfg(feature = "ed25519")]
use webhooks_sign::standard::{STANDARD_ASYMMETRIC, SVIX_ASYMMETRIC};
use webhooks_sign::x_webhook::X_WEBHOOK;
use webhooks_sign::{Algorithm, Error, Key, KeyError, KeyRing, Tolerance, scheme::Encoding};

const HMAC: Algorithm = Algorithm::HmacSha256;

const LENGTH: KeyError = KeyError::Length { min: 24, max: 64 };
const ENCODING: KeyError = KeyError::Encoding { expected: Encoding::Base64 };

const VECTORS: &str = include_str!("vectors/standard_webhooks.json");

fn vectors(section: &str) -> Vec<Value> {
    let mut vectors: Value = serde_json::from_str(VECTORS).unwrap();
    serde_json::from_value(vectors[section].take()).unwrap()
}

fn key(secret: &Value) -> Key {
    let encoded = secret["base64"].as_str().unwrap();
    match secret["prefix"].as_str() {
        Some("whsec_") => {
            // Some secrets are unpadded or short; only the lenient constructor takes them.
            let text = format!("whsec_{encoded}");
            Key::standard(&text).or_else(|_| Key::from_legacy_secret(HMAC, &text)).unwrap()
        }
        Some(prefix) => Key::standard(&format!("{prefix}{encoded}")).unwrap(),
        None => Key::from_legacy_secret(HMAC, encoded).unwrap(),
    }
}

/// Returns whether a key is for an algorithm that is left out.
fn is_left_out(key: &Value) -> bool {
    !cfg!(feature = "ed25519") && key["prefix"] != "whsec_" && !key["prefix"].is_null()
}

fn body(case: &Value) -> Vec<u8> {
    match case["body_b64"].as_str() {
        Some(encoded) => {
            let mut bytes = vec![0; encoded.len()];
            let len = BASE64.decode_slice(encoded, &mut bytes).unwrap();
            bytes[..len].to_vec()
        }
        None => case["body"].as_str().unwrap().as_bytes().to_vec(),
    }
}

/// Returns the vectors' name for an error.
fn code(error: Error) -> &'static str {
    match error.name() {
        "duplicate_header" => "invalid_header",
        "none_listed" => "no_match",
        name => name,
    }
}

#[test]
fn signatures_are_those_of_the_vectors() {
    let mut checked = 0;
    for case in vectors("sign") {
        if is_left_out(&case["key"]) {
            continue;
        }
        let key = key(&case["key"]);
        let (id, timestamp) = (case["msg_id"].as_str().unwrap(), &case["timestamp"]);
        let signature = standard::sign(&key, id, timestamp.as_u64().unwrap(), &body(&case));
        assert_eq!(signature.unwrap().as_str(), case["expected"], "{}", case["name"]);
        checked += 1;
    }
    assert_eq!(checked, if cfg!(feature = "ed25519") { 10 } else { 8 });
}

#[test]
fn verdicts_are_those_of_the_vectors() {
    let mut checked = 0;
    for case in vectors("verify") {
        if case["keys"].as_array().unwrap().iter().any(is_left_out) {
            continue;
        }
        let mut ring = KeyRing::<4>::new();
        for secret in case["keys"].as_array().unwrap() {
            ring.push(key(secret)).unwrap();
        }
        let headers: Vec<(String, String)> =
            serde_json::from_value(case["headers"].clone()).unwrap();
        let is_svix = headers.iter().any(|(name, _)| name == "svix-id");
        let scheme = match (is_svix, ring.iter().next().unwrap().algorithm()) {
            #[cfg(feature = "ed25519")]
            (false, Algorithm::Ed25519) => STANDARD_ASYMMETRIC,
            #[cfg(feature = "ed25519")]
            (true, Algorithm::Ed25519) => SVIX_ASYMMETRIC,
            (false, _) => STANDARD,
            (true, _) => SVIX,
        };
        let tolerance = match case["tolerance"].as_u64() {
            Some(seconds) => Tolerance { past: seconds, future: seconds },
            None => Tolerance::DANGEROUS_UNLIMITED,
        };
        let now = case["now"].as_u64().unwrap();
        let body = body(&case);
        let verifier = scheme.verifier().tolerance(tolerance);
        let verdict = verifier.verify(&ring, &headers[..], &body, now);
        assert_eq!(verdict.map_or_else(code, |_| "ok"), case["expect"], "{}", case["name"]);
        checked += 1;
    }
    assert_eq!(checked, if cfg!(feature = "ed25519") { 48 } else { 45 });
}

#[test]
fn secrets_are_parsed_as_the_vectors_say() {
    let mut checked = 0;
    for case in vectors("secrets") {
        let text = format!(
            "{}{}",
            case["text_prefix"].as_str().unwrap(),
            case["text_b64"].as_str().unwrap()
        );
        let found = Key::standard(&text).map(|_| ());
        checked += 1;
        match case["expect"].as_str().unwrap() {
            "hmac" => assert_eq!(found, Ok(()), "{case}"),
            "empty_secret" => assert_eq!(found, Err(KeyError::Empty), "{case}"),
            "secret_too_short" => assert_eq!(found, Err(LENGTH), "{case}"),
            "invalid_base64" if text.starts_with("whsec_") => {
                let refused = if text.ends_with('\n') { KeyError::Surrounded } else { ENCODING };
                assert_eq!(found, Err(refused), "{case}");
            }
            // Without the feature, a prefix of ed25519 is like any other.
            "ed25519_public" | "invalid_key" if !cfg!(feature = "ed25519") => {
                assert_eq!(found, Err(KeyError::Asymmetric), "{case}");
            }
            "ed25519_public" => assert_eq!(found, Ok(()), "{case}"),
            "invalid_key" => assert!(
                matches!(found, Err(KeyError::Curve | KeyError::Encoding { .. })),
                "{case}: {found:?}"
            ),
            "hmac_lenient_only" => {
                assert_eq!(found, Err(ENCODING), "{case}");
                assert!(Key::from_legacy_secret(HMAC, &text).is_ok(), "{case}");
            }
            _ => assert!(
                matches!(
                    found,
                    Err(KeyError::Prefix { .. }
                        | KeyError::PrefixSpelling { .. }
                        | KeyError::Asymmetric)
                ),
                "{case}: {found:?}"
            ),
        }
    }
    assert_eq!(checked, 15);
}

fn base64_of_sevens(len: usize) -> String {
    base64::display::Base64Display::new(&vec![7; len], &BASE64).to_string()
}

/// Method: each secret has the signature of the plain one, or the error.
#[test]
fn legacy_secrets_are_read_leniently_but_never_empty_or_asymmetric() {
    let sign = |secret: &str| {
        let key = Key::from_legacy_secret(HMAC, secret)?;
        Ok(standard::sign(&key, "msg_1", 1, b"").unwrap().to_string())
    };
    let plain = Key::from_legacy_bytes(HMAC, b"four").unwrap();
    let expected = standard::sign(&plain, "msg_1", 1, b"").unwrap().to_string();
    for secret in ["Zm91cg==", "Zm91cg=", "Zm91cg", "Zm91ch", "whsec_Zm91cg"] {
        assert_eq!(sign(secret).as_ref(), Ok(&expected), "{secret}");
    }
    let longest = base64_of_sevens(255);
    assert!(sign(&longest).is_ok());
    for (secret, reason) in [
        ("", KeyError::Empty),
        ("whsec_", KeyError::Empty),
        ("Zm91c", ENCODING),
        ("Zm91*g", ENCODING),
        ("Zm-_", ENCODING),
        (&base64_of_sevens(256), KeyError::Length { min: 1, max: 255 }),
        (base64_of_sevens(256).trim_end_matches('='), KeyError::Length { min: 1, max: 255 }),
        ("whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=", KeyError::Asymmetric),
        // The text of a public key, encoded once more.
        (
            "d2hwa18xU2lBNG85aHlxVENwSXFDNVY5SFVha2lpYWVBQ2VxZlpUSW5EQmJPaXI0PQ",
            KeyError::Asymmetric,
        ),
    ] {
        assert_eq!(sign(secret), Err(reason), "{secret}");
    }
    let refused = Key::from_legacy_secret(Algorithm::Token, "Zm91cg").unwrap_err();
    assert_eq!(refused, KeyError::Algorithm);
    // The strict ones say the same of too long a secret.
    for len in [65, 96, 97, 98, 99, 1000] {
        let text = format!("whsec_{}", base64_of_sevens(len));
        assert_eq!(Key::standard(&text).unwrap_err(), LENGTH, "{len}");
    }
}

/// Method: by every way that leads from a text to a key.
#[test]
fn an_asymmetric_key_never_becomes_an_hmac_key() {
    let mut checked = 0;
    for case in vectors("secrets") {
        let prefix = case["text_prefix"].as_str().unwrap();
        if prefix != "whpk_" && prefix != "whsk_" {
            continue;
        }
        let text = &*format!("{prefix}{}", case["text_b64"].as_str().unwrap());
        for key in [
            Key::from_secret(HMAC, text),
            Key::from_bytes(HMAC, text.get(..64).unwrap_or(text).as_bytes()),
            Key::from_legacy_bytes(HMAC, text.as_bytes()),
            Key::from_legacy_secret(HMAC, text),
            Key::from_secret(Algorithm::HmacSha512, text),
            STRIPE.key(text),
            STANDARD.key(text),
            X_WEBHOOK.key(text),
        ] {
            assert_eq!(key.unwrap_err(), KeyError::Asymmetric, "{text}");
        }
        checked += 1;
    }
    assert_eq!(checked, 4);
}

#[cfg(feature = "ed25519")]
#[test]
fn an_hmac_key_never_becomes_an_asymmetric_one() {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let key = Key::from_secret(Algorithm::Ed25519, secret);
    let refused = KeyError::Prefix { expected: "whpk_" };
    assert_eq!(key.unwrap_err(), refused);
    assert_eq!(STANDARD_ASYMMETRIC.key(secret).unwrap_err(), refused);
    let key = Key::from_bytes(Algorithm::Ed25519, &[7; 32]);
    assert_eq!(key.unwrap_err(), KeyError::Algorithm);
    // Nor does it verify by the scheme of the other alone.
    let headers = [("webhook-id", "msg_1")];
    let hmac = KeyRing::from(Key::standard(secret).unwrap());
    let refused = Err(Error::UnsuitableKey);
    assert_eq!(STANDARD_ASYMMETRIC.verify(&hmac, &headers, b"", 0), refused);
}

#[cfg(feature = "std")]
#[expect(clippy::disallowed_methods, reason = "the one convenience that reads the clock")]
#[test]
fn verify_now_goes_by_the_system_clock() {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = since.unwrap().as_secs();
    let key = Key::from_bytes(HMAC, &[7; 32]).unwrap();
    let verify = |timestamp: u64| {
        let signature = standard::sign(&key, "msg_1", timestamp, b"").unwrap();
        let timestamp = timestamp.to_string();
        let headers = [
            ("webhook-id", "msg_1"),
            ("webhook-timestamp", &timestamp),
            ("webhook-signature", signature.as_str()),
        ];
        STANDARD.verifier().verify_now(&KeyRing::from(key.clone()), &headers, b"").map(drop)
    };
    // A minute from either edge, for tests that are held up.
    assert_eq!(verify(now), Ok(()));
    assert_eq!(verify(now - 240), Ok(()));
    assert!(matches!(verify(now - 301), Err(Error::TimestampTooOld { .. })));
    assert!(matches!(verify(now + 360), Err(Error::TimestampTooNew { .. })));
}

/// Method: each order of the keys in the ring, each subset of the two signatures in the header, and
/// each of them wrong; whole and streamed.
#[cfg(feature = "ed25519")]
#[test]
fn a_ring_may_hold_keys_for_hmac_and_ed25519() {
    let now = 1_767_225_600;
    let (hmac, curve) = (
        Key::from_bytes(Algorithm::HmacSha256, &[7; 32]).unwrap(),
        Key::ed25519_from_seed(&[7; 32]),
    );
    let sign = |key, body: &[u8]| standard::sign(key, "msg_1", now, body).unwrap().to_string();
    let (v1, v1a) = (sign(&hmac, b"body"), sign(&curve, b"body"));
    let (bad, bad_a) = (sign(&hmac, b"bodx"), sign(&curve, b"bodx"));
    let check = |listed: &[&str], expected: Result<Algorithm, &str>| {
        for ring in [[hmac.clone(), curve.clone()], [curve.clone(), hmac.clone()]] {
            let ring = KeyRing::from(ring);
            let index = |algorithm| ring.iter().position(|key| key.algorithm() == algorithm);
            let expected = expected.map(|algorithm| index(algorithm).unwrap());
            for scheme in [STANDARD, SVIX] {
                let [id, time] = match scheme.name() {
                    "svix" => ["svix-id", "svix-timestamp"],
                    _ => ["webhook-id", "webhook-timestamp"],
                };
                let (text, value) = (now.to_string(), listed.join(" "));
                let headers = [(id, "msg_1"), (time, &text), (scheme.signature_header(), &value)];
                let whole = scheme.verify(&ring, &headers, b"body", now);
                let found = whole.map(|verified| verified.key_index()).map_err(Error::name);
                assert_eq!(found, expected, "{listed:?}");
                let streamed =
                    scheme.verifier().begin(&ring, &headers, now).and_then(|mut pending| {
                        b"body".iter().for_each(|byte| pending.update(&[*byte]));
                        pending.finish()
                    });
                let found = streamed.map(|verified| verified.key_index()).map_err(Error::name);
                assert_eq!(found, expected, "{listed:?}");
            }
        }
    };
    check(&[&v1], Ok(Algorithm::HmacSha256));
    check(&[&v1a], Ok(Algorithm::Ed25519));
    check(&[&bad, &v1a], Ok(Algorithm::Ed25519));
    check(&[&bad_a, &v1], Ok(Algorithm::HmacSha256));
    check(&[&bad, &bad_a], Err("no_match"));
    check(&[&bad], Err("no_match"));
    check(&["v2,AAAA"], Err("none_listed"));
    let both = KeyRing::from([hmac.clone(), curve.clone()]);
    let text = now.to_string();
    let value = format!("{v1a} {v1}");
    let headers =
        [("webhook-id", "msg_1"), ("webhook-timestamp", &text), ("webhook-signature", &value)];
    assert!(standard::verify(&both, &headers, b"body", now).is_ok());
    let stale = standard::verify(&both, &headers, b"body", now + 301);
    assert!(matches!(stale, Err(Error::TimestampTooOld { age: 301, .. })));
    // Five of a curve are too many, whatever else is listed.
    let many = format!("{v1} {}", [v1a.as_str(); 5].join(" "));
    let headers =
        [("webhook-id", "msg_1"), ("webhook-timestamp", &text), ("webhook-signature", &many)];
    let begun = STANDARD.verifier().begin(&both, &headers, now);
    let too_many = Error::TooManySignatures { header: "webhook-signature" };
    assert_eq!(begun.err(), Some(too_many));
    let whole = standard::verify(&both, &headers, b"body", now);
    assert_eq!(whole, Err(too_many));

    // A third algorithm has no place in it, nor has HMAC where ed25519 is asked for alone.
    let sha512 = Key::from_bytes(Algorithm::HmacSha512, &[7; 32]).unwrap();
    for (scheme, ring) in [
        (STANDARD, KeyRing::from([hmac.clone(), sha512.clone()])),
        (STANDARD, KeyRing::from([curve.clone(), sha512])),
        (STANDARD_ASYMMETRIC, KeyRing::from([curve, hmac])),
    ] {
        let verified = scheme.verify(&ring, &headers, b"body", now);
        assert_eq!(verified, Err(Error::UnsuitableKey));
    }
}
