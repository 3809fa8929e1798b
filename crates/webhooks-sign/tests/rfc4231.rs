//! RFC 4231 §4: every test case of HMAC-SHA256 and HMAC-SHA512, and that a cut MAC is refused.

#![expect(clippy::unwrap_used, clippy::string_slice, reason = "a test")]

use serde_json::Value;
use webhooks_sign::{Algorithm, Key, KeyRing, x_webhook};

const VECTORS: &str = include_str!("vectors/rfc4231.json");

fn bytes(hex: &Value) -> Vec<u8> {
    let digits: Vec<u32> =
        hex.as_str().unwrap().chars().map(|digit| digit.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect()
}

#[test]
fn every_case_is_signed_and_verified() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 7);
    for case in cases {
        let (key, data) = (bytes(&case["key_hex"]), bytes(&case["data_hex"]));
        check(Algorithm::HmacSha256, &key, &data, case, "hmac_sha256");
        check(Algorithm::HmacSha512, &key, &data, case, "hmac_sha512");
    }
}

fn check(algorithm: Algorithm, key: &[u8], data: &[u8], case: &Value, field: &str) {
    let expected = case[field].as_str().unwrap();
    let key = Key::from_legacy_bytes(algorithm, key).unwrap();
    let signature = x_webhook::sign(&key, data).unwrap();
    // Case 5 gives the first 128 bits alone.
    let is_whole = case["truncated_to_bits"].is_null();
    let shown = if is_whole { signature.as_str() } else { &signature.as_str()[..expected.len()] };
    assert_eq!(shown, expected, "{case}");

    let (keys, headers) = (KeyRing::from(key), [("X-Webhook-Signature", expected)]);
    let verified = x_webhook::verify(&keys, &headers, data);
    if is_whole {
        assert_eq!(verified.unwrap().body(), &data);
    } else {
        let refused = verified.unwrap_err().name();
        assert_eq!(refused, "invalid_header", "a cut MAC must be refused");
    }
}
