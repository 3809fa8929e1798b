//! Project Wycheproof (C2SP, Apache-2.0): HMAC with SHA-1, SHA-256 and SHA-512, and ed25519.
#![expect(clippy::unwrap_used, reason = "a test")]

use serde_json::Value;
use webhooks_sign::{
    Algorithm, Error, Key, KeyRing, Verified,
    scheme::{Scheme, SchemeError},
};

fn bytes(hex: &Value) -> Vec<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap();
    let pairs = hex.as_str().unwrap().as_bytes().as_chunks::<2>().0;
    pairs.iter().map(|[a, b]| u8::try_from(digit(a) << 4 | digit(b)).unwrap()).collect()
}

/// Calls `check` with each group and test, and returns how many tests there were.
fn each_test(vectors: &str, mut check: impl FnMut(&Value, &Value)) -> usize {
    let vectors: Value = serde_json::from_str(vectors).unwrap();
    let mut tests = 0;
    for group in vectors["testGroups"].as_array().unwrap() {
        for test in group["tests"].as_array().unwrap() {
            check(group, test);
            tests += 1;
        }
    }
    assert_eq!(vectors["numberOfTests"], tests);
    tests
}

fn hmac(vectors: &str, algorithm: Algorithm, tag_bits: u64) -> Result<usize, SchemeError> {
    let scheme = Scheme::custom("wycheproof", "signature").algorithm(algorithm).build()?;
    Ok(each_test(vectors, |group, test| {
        let keys = KeyRing::from(Key::from_legacy_bytes(algorithm, &bytes(&test["key"])).unwrap());
        let headers = [("signature", test["tag"].as_str().unwrap())];
        let is_whole = group["tagSize"] == tag_bits;
        let expected = match (is_whole, test["result"].as_str().unwrap()) {
            (true, "valid") => Ok(()),
            (true, _) => Err("no_match"),
            // A cut tag is refused before anything is hashed, valid or not.
            (false, _) => Err("invalid_header"),
        };
        let body = bytes(&test["msg"]);
        let found = scheme.verify(&keys, &headers, &body, 0).map(|_: Verified<'_, _>| ());
        let found = found.map_err(Error::name);
        assert_eq!(found, expected, "{algorithm} {test}");
    }))
}

#[test]
fn hmacs_agree_and_cut_tags_are_refused() {
    #[cfg(feature = "sha1")]
    {
        let vectors = include_str!("vectors/wycheproof/hmac_sha1_test.json");
        assert_eq!(hmac(vectors, Algorithm::HmacSha1, 160), Ok(170));
    }
    let vectors = include_str!("vectors/wycheproof/hmac_sha256_test.json");
    assert_eq!(hmac(vectors, Algorithm::HmacSha256, 256), Ok(174));
    let vectors = include_str!("vectors/wycheproof/hmac_sha512_test.json");
    assert_eq!(hmac(vectors, Algorithm::HmacSha512, 512), Ok(174));
}

/// Method: a scheme of the body alone, so that the signed bytes are the test's; streamed in chunks
/// of three bytes as well as whole.
#[cfg(feature = "ed25519")]
#[test]
fn ed25519_agrees_whole_and_streamed() {
    let scheme = Scheme::custom("wycheproof", "signature")
        .algorithm(Algorithm::Ed25519)
        .key_format(webhooks_sign::scheme::KeyFormat::Hex)
        .build()
        .unwrap();
    let vectors = include_str!("vectors/wycheproof/ed25519_test.json");
    let tests = each_test(vectors, |group, test| {
        let keys = KeyRing::from(scheme.key(group["publicKey"]["pk"].as_str().unwrap()).unwrap());
        let headers = [("signature", test["sig"].as_str().unwrap())];
        let body = bytes(&test["msg"]);
        let is_valid = test["result"] == "valid";
        assert_eq!(scheme.verify(&keys, &headers, &body, 0).is_ok(), is_valid, "{test}");
        let streamed = scheme.verifier().begin(&keys, &headers, 0).and_then(|mut pending| {
            body.chunks(3).for_each(|chunk| pending.update(chunk));
            pending.finish()
        });
        assert_eq!(streamed.is_ok(), is_valid, "{test}");
    });
    assert_eq!(tests, 151);
}
