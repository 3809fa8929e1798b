//! Properties of every key, message and cut; the fuzz targets in `tests/fuzz` run the same.
#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "shared/any_input.rs"]
mod any_input;

use proptest::collection::vec;
use proptest::prelude::*;
use webhooks_sign::providers::{GITHUB, PADDLE, PAGER_DUTY, SQUARE, STRIPE};
use webhooks_sign::{
    Algorithm, Envelope, Error, Key, KeyRing, SignError, Tolerance, from_fn,
    scheme::{Grammar, Part, Scheme, SchemeError, TimestampFormat, TimestampSource},
    standard, x_webhook,
};

fn key(algorithm: Algorithm, byte: u8) -> Key {
    Key::from_bytes(algorithm, &[byte; 32]).unwrap()
}

proptest! {
    #[test]
    fn no_header_panics_or_is_accepted(
        id: Vec<u8>,
        timestamp in prop_oneof![any::<Vec<u8>>(), Just(any_input::NOW.to_string().into_bytes())],
        signature in prop_oneof![
            any::<Vec<u8>>(),
            "(v1,|v1=|sha256=|t=|ts=|h1=|[ ,;=]|[0-9a-f]{1,64}|[A-Za-z0-9+/]{43}=){0,20}"
                .prop_map(String::into_bytes),
        ],
        body: Vec<u8>,
    ) {
        any_input::headers(&id, &timestamp, &signature, &body);
    }

    #[test]
    fn no_secret_panics(
        text in "(whsec_|whpk_|whsk_)?([A-Za-z0-9+/]{0,100}={0,3}|.{0,20})",
        bytes in vec(any::<u8>(), 0..80),
    ) {
        any_input::secret(&text, &bytes);
        any_input::secret(&text, text.as_bytes());
    }

    #[test]
    fn what_was_signed_verifies_and_nothing_else(
        id in "[a-zA-Z0-9_-]{1,64}",
        body: Vec<u8>,
        cuts in vec(0..64_usize, 0..8),
        bit: usize,
    ) {
        any_input::whole(&id, &body, &cuts, bit);
        any_input::provider(&body);
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
            let refused = x_webhook::verify(&other, &headers, &body).map_err(Error::name);
            prop_assert_eq!(refused, Err("invalid_header"));
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

/// Method: for each grammar, the most keys that are signed for, and one more.
#[test]
fn a_whole_header_is_written_as_long_as_it_is_read() {
    let now = any_input::NOW.to_string();
    let envelope = Envelope { timestamp: &now, ..Envelope::default() };
    for (scheme, most) in [(GITHUB, 1), (PAGER_DUTY, 16), (STRIPE, 15), (PADDLE, 15)] {
        let keys: Vec<Key> =
            (0..=most).map(|n| scheme.key(&format!("secret {n}")).unwrap()).collect();
        let mut value = String::new();
        scheme.sign_all(&keys[..most], &envelope, b"body", &mut value).unwrap();
        let headers = [(scheme.signature_header(), value.as_str())];
        for key in &keys[..most] {
            let verified =
                scheme.verify(&KeyRing::from(key.clone()), &headers, b"body", any_input::NOW);
            assert!(verified.is_ok(), "{} {value}", scheme.name());
        }
        let one_more = scheme.sign_all(&keys, &envelope, b"body", &mut String::new());
        assert_eq!(one_more, Err(SignError::UnsuitableKey), "{}", scheme.name());
        let mut buffer = vec![0; value.len()];
        let written = scheme.sign_into(&keys[..most], &envelope, b"body", &mut buffer);
        assert_eq!(written, Ok(value.as_str()));
    }
}

#[test]
fn a_buffer_takes_the_whole_header_or_nothing_is_returned() {
    let keys = [key(Algorithm::HmacSha256, 1), key(Algorithm::HmacSha256, 2)];
    let mut expected = String::new();
    standard::sign_all(&keys, "msg_1", 17, b"", &mut expected).unwrap();
    let mut buffer = [0; 95];
    assert_eq!(standard::sign_into(&keys, "msg_1", 17, b"", &mut buffer), Ok(&*expected));
    let refused = standard::sign_into(&keys, "msg_1", 17, b"", &mut buffer[..94]);
    assert_eq!(refused, Err(SignError::Write));
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
    let header = "x-webhook-signature";
    let refused = Err(Error::DuplicateHeader { header });
    assert_eq!(x_webhook::verify(&keys, &headers, b"body"), refused);
}

#[test]
fn a_header_that_is_there_twice_is_refused() {
    let keys = KeyRing::from(key(Algorithm::HmacSha256, 1));
    let now = any_input::NOW.to_string();
    let signature =
        standard::sign(&key(Algorithm::HmacSha256, 1), "msg_1", any_input::NOW, b"").unwrap();
    let headers = [
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", &now),
        ("webhook-signature", signature.as_str()),
    ];
    let verify = |headers: &[(&str, &str)]| {
        standard::verify(&keys, headers, b"", any_input::NOW).map(|_| ())
    };
    assert_eq!(verify(&headers), Ok(()));
    for (name, value) in headers {
        let upper = name.to_ascii_uppercase();
        let twice: Vec<_> = headers.into_iter().chain([(upper.as_str(), value)]).collect();
        assert_eq!(verify(&twice), Err(Error::DuplicateHeader { header: name }));
    }
}

/// Others hash the body once for each of 170 bad signatures; here 17 are refused unhashed, and the
/// benchmark shows what 16 cost.
#[test]
fn more_than_sixteen_signatures_are_refused_before_hashing() {
    let keys = KeyRing::from(key(Algorithm::HmacSha256, 1));
    let now = any_input::NOW.to_string();
    let bad = format!("v1,{}=", "A".repeat(43));
    for (count, expected) in
        [(16, None), (17, Some("too_many_signatures")), (170, Some("too_many_signatures"))]
    {
        let list = vec![bad.as_str(); count].join(" ");
        let headers =
            [("webhook-id", "msg_1"), ("webhook-timestamp", &now), ("webhook-signature", &list)];
        let begun = standard::STANDARD.verifier().begin(&keys, &headers, any_input::NOW);
        assert_eq!(begun.err().map(Error::name), expected, "{count}");
    }
}

#[test]
fn a_scheme_of_ones_own_cannot_pretend_to_protect() {
    let scheme = || Scheme::custom("acme", "acme-signature");
    let header = TimestampSource::Header("acme-time", TimestampFormat::Seconds);
    assert_eq!(scheme().timestamp(header).build(), Err(SchemeError::Unsigned));
    let parts = &[Part::Timestamp, Part::Literal("."), Part::Body];
    assert_eq!(scheme().parts(parts).build(), Err(SchemeError::Unsigned));
    assert_eq!(scheme().id("acme-id").build(), Err(SchemeError::Unsigned));
    let tolerance = Tolerance { past: 60, future: 60 };
    for tolerance in [tolerance, Tolerance::default()] {
        assert_eq!(scheme().tolerance(tolerance).build(), Err(SchemeError::Unsigned));
    }
    assert!(scheme().parts(parts).timestamp(header).tolerance(tolerance).build().is_ok());
    assert_eq!(scheme().parts(&[]).build(), Err(SchemeError::Body));
    assert_eq!(scheme().parts(&[Part::Body, Part::Body]).build(), Err(SchemeError::Body));
    let field = TimestampSource::Field("t=", TimestampFormat::Seconds);
    assert_eq!(scheme().parts(parts).timestamp(field).build(), Err(SchemeError::Field));
}

/// Else a stranger who saw the token once could give a message any id and any time.
#[test]
fn a_token_protects_no_id_and_no_time() {
    let scheme = || Scheme::custom("acme", "acme-token").algorithm(Algorithm::Token);
    assert!(scheme().build().is_ok());
    let header = TimestampSource::Header("acme-time", TimestampFormat::Seconds);
    let timed = || scheme().timestamp(header).parts(&[Part::Timestamp, Part::Body]);
    let tolerance = Tolerance { past: 60, future: 60 };
    for pretender in [
        timed(),
        timed().tolerance(tolerance),
        scheme().id("acme-id").parts(&[Part::Id, Part::Body]),
        scheme().parts(&[Part::Url, Part::Body]),
        scheme().tolerance(tolerance),
    ] {
        assert_eq!(pretender.build(), Err(SchemeError::Unsigned));
    }
}

#[test]
fn a_scheme_of_ones_own_reads_what_it_writes() {
    let prefix = "a prefix of thirty-two bytes is=";
    let scheme = |grammar| {
        let field = TimestampSource::Field("t=", TimestampFormat::Seconds);
        let builder = Scheme::custom("acme", "acme-signature").grammar(grammar);
        match grammar {
            Grammar::Fields { .. } => {
                builder.timestamp(field).parts(&[Part::Timestamp, Part::Literal("."), Part::Body])
            }
            _ => builder,
        }
    };
    for grammar in [
        Grammar::One { prefix },
        Grammar::List { separator: b'|', version: prefix },
        Grammar::Fields { separator: b'|', signature: prefix },
    ] {
        let scheme = scheme(grammar).algorithm(Algorithm::HmacSha512).build().unwrap();
        let envelope = Envelope { timestamp: "17", ..Envelope::default() };
        let signature = scheme.sign(&key(Algorithm::HmacSha512, 1), &envelope, b"").unwrap();
        assert_eq!(signature.as_str().len(), 32 + 128);
    }
    for grammar in [
        Grammar::One { prefix: "a prefix of thirty-three bytes i=" },
        Grammar::One { prefix: "né=" },
        Grammar::One { prefix: " v1=" },
        Grammar::List { separator: b'\n', version: "v1=" },
        Grammar::List { separator: b'a', version: "v1=" },
        Grammar::List { separator: b'/', version: "v1=" },
        Grammar::List { separator: b',', version: "v1," },
        Grammar::Fields { separator: b',', signature: "v1" },
        Grammar::Fields { separator: b',', signature: "t=" },
        Grammar::Fields { separator: b',', signature: "t=v1=" },
    ] {
        assert_eq!(scheme(grammar).build(), Err(SchemeError::Grammar), "{grammar:?}");
    }
}

#[test]
fn nothing_shows_a_body_a_key_or_a_url() {
    let url = "https://example.com/?token=hunter2";
    let envelope = Envelope { url, ..Envelope::default() };
    let key = SQUARE.key("hunter2").unwrap();
    let signature = SQUARE.sign(&key, &envelope, b"hunter2").unwrap();
    let keys = KeyRing::from(key);
    let headers = [(SQUARE.signature_header(), signature.as_str())];
    let verifier = SQUARE.verifier().url(url);
    let verified = verifier.verify(&keys, &headers, "hunter2".as_bytes(), 0).unwrap();
    let shown = format!("{envelope:?} {verifier:?} {keys:?} {verified:?}");
    let as_text = verified.into_body();
    assert_eq!(as_text, b"hunter2");
    assert!(!shown.contains("hunter2") && !shown.contains(&format!("{as_text:?}")), "{shown}");
    let pending = verifier.begin(&keys, &headers, 0).unwrap();
    assert_eq!(format!("{pending:?}"), "Pending { .. }");
}
