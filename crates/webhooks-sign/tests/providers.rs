//! Every provider's vectors: `vectors/providers.json` says where each comes from.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use webhooks_sign::providers::mailgun::{self, MAILGUN};
use webhooks_sign::providers::{self, ALL};
use webhooks_sign::{Envelope, Error, Key, KeyRing, Scheme, TimestampSource, Tolerance};

const VECTORS: &str = include_str!("vectors/providers.json");

/// What the vectors and the schemes call differently.
const NAMES: [(&str, &str); 8] = [
    ("adyen_header", "adyen-header"),
    ("cloudflare_stream", "cloudflare-stream"),
    ("coinbase_cdp", "coinbase-cdp"),
    ("gitlab_token", "gitlab-token"),
    ("hubspot_v3", "hubspot-v3"),
    ("lemonsqueezy", "lemon-squeezy"),
    ("pagerduty", "pager-duty"),
    ("standard_webhooks", "standard"),
];

/// The providers that a feature brings, and whether it is on.
const BY_FEATURE: [(&str, bool); 3] = [
    ("discord", cfg!(feature = "ed25519")),
    ("intercom", cfg!(feature = "sha1")),
    ("sendgrid", cfg!(feature = "p256")),
];

fn is_built(provider: &str) -> bool {
    BY_FEATURE.iter().all(|(name, is_on)| *name != provider || *is_on)
}

/// How many providers the features that are off would bring.
fn left_out() -> usize {
    BY_FEATURE.iter().filter(|(_, is_on)| !is_on).count()
}

fn scheme_name(provider: &str) -> &str {
    NAMES.iter().find(|(theirs, _)| *theirs == provider).map_or(provider, |(_, ours)| ours)
}

fn scheme(provider: &str) -> Option<&'static Scheme> {
    ALL.iter().find(|scheme| scheme.name() == scheme_name(provider))
}

fn base64(text: &Value) -> Vec<u8> {
    let mut bytes = vec![0; text.as_str().unwrap().len() + 3];
    let len = BASE64.decode_slice(text.as_str().unwrap(), &mut bytes).unwrap();
    bytes.truncate(len);
    bytes
}

fn key(scheme: &Scheme, vector: &Value) -> Key {
    let text =
        [&vector["key"]["utf8"], &vector["public_key_hex"], &vector["public_key_spki_base64"]]
            .into_iter()
            .find_map(Value::as_str);
    match (text, vector["key"]["hex"].as_str()) {
        (Some(text), _) => scheme.key(text).unwrap(),
        // Adyen's keys are hexadecimal; Notion's one is given so for its bytes.
        (None, Some(hex)) if scheme.name() == "adyen-header" => scheme.key(hex).unwrap(),
        (None, Some(hex)) => {
            let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap();
            let pairs = hex.as_bytes().as_chunks::<2>().0.iter();
            let bytes: Vec<u8> =
                pairs.map(|[a, b]| u8::try_from(digit(a) << 4 | digit(b)).unwrap()).collect();
            Key::from_legacy_bytes(scheme.algorithm(), &bytes).unwrap()
        }
        (None, None) => panic!("{vector}"),
    }
}

fn code(error: Error) -> &'static str {
    match error {
        Error::NoMatch | Error::NoneListed { .. } => "no_match",
        Error::InvalidHeader { .. } | Error::InvalidTimestamp { .. } => "invalid_header",
        other => panic!("{other:?}"),
    }
}

fn verdict(vector: &Value) -> &'static str {
    let headers: Vec<(String, String)> = serde_json::from_value(vector["headers"].clone()).unwrap();
    let body = match vector["body"].as_str() {
        Some(text) => text.as_bytes().to_vec(),
        None if vector["body_b64"].is_string() => base64(&vector["body_b64"]),
        None => Vec::new(),
    };
    let url = vector["url"].as_str().unwrap_or_default();
    let provider = vector["provider"].as_str().unwrap();
    let scheme = scheme(provider).unwrap_or_else(|| panic!("no scheme for {provider}"));
    let now = vector["now"].as_u64().unwrap_or_default();
    let keys = KeyRing::from(key(scheme, vector));
    let verifier = scheme.verifier().method(vector["method"].as_str().unwrap_or_default()).url(url);
    let verifier = match vector["tolerance"].as_u64() {
        Some(seconds) => verifier.tolerance(Tolerance { past: seconds, future: seconds }),
        None => verifier,
    };
    verifier.verify(&keys, &headers[..], &body, now).map_or_else(code, |_| "ok")
}

#[test]
fn verdicts_are_those_of_the_vectors() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let mut providers = BTreeSet::new();
    for vector in vectors["vectors"].as_array().unwrap() {
        let provider = vector["provider"].as_str().unwrap();
        // RFC 9421 is another way to sign; Twilio's vectors are in `twilio.rs`.
        if !matches!(provider, "rfc9421" | "twilio") && is_built(provider) {
            assert_eq!(verdict(vector), vector["expect"], "{provider} {}", vector["name"]);
            providers.insert(provider);
        }
    }
    assert_eq!(providers.len(), 21 - left_out(), "{providers:?}");
}

/// Method: computed with another implementation:
/// `printf %s 1529006854a8ce0edb2dd8301dee6c2405235584e45aa91d1e9f979f3de0 |
/// openssl dgst -sha256 -hmac signing-key`.
#[test]
fn a_mailgun_event_is_verified_by_its_three_strings() {
    let keys = KeyRing::from(MAILGUN.key("signing-key").unwrap());
    let (timestamp, token) = ("1529006854", "a8ce0edb2dd8301dee6c2405235584e45aa91d1e9f979f3de0");
    let signature = "789244a146c6637126bae16cc09e8755be4ea925e0cff2854851cd2b3f9dfcaf";
    let verify = |timestamp, token, signature, now| {
        let verified =
            mailgun::verify(&keys, timestamp, token, signature, now, Tolerance::default());
        verified.map(|verified| (*verified.body(), verified.timestamp())).map_err(Error::name)
    };
    let now = 1_529_006_854;
    assert_eq!(verify(timestamp, token, signature, now + 300), Ok((token, Some(now))));
    assert_eq!(verify(timestamp, token, signature, now + 301), Err("timestamp_too_old"));
    assert_eq!(verify("1529006855", token, signature, now), Err("no_match"));
    assert_eq!(verify(timestamp, token.trim_start_matches('a'), signature, now), Err("no_match"));
    assert_eq!(
        verify(timestamp, token, signature.trim_end_matches("af"), now),
        Err("invalid_header")
    );
}

#[test]
fn every_provider_of_the_table_has_its_scheme_or_its_reason() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let mut checked = 0;
    for provider in vectors["providers"].as_array().unwrap() {
        let id = provider["id"].as_str().unwrap();
        let header = provider["signature_header"].as_str().unwrap();
        match id {
            // The module's documentation says why.
            "hubspot_v1" | "paypal" | "aws_sns" => continue,
            "mailgun" | "standard_webhooks" | "twilio" => continue,
            _ if !is_built(id) => continue,
            _ => {}
        }
        let scheme = scheme(id).unwrap_or_else(|| panic!("no scheme for {id}"));
        assert_eq!(scheme.signature_header(), header.to_ascii_lowercase(), "{id}");
        checked += 1;
    }
    assert_eq!(checked, 34 - left_out());
}

/// Method: sign by each scheme that signs and that we have a signing key for; verify whole, and
/// streamed in chunks of three bytes; and change the body.
#[test]
fn every_scheme_verifies_what_it_signs_and_nothing_else() {
    let mut not_signed = Vec::new();
    for scheme in ALL.iter().chain([&MAILGUN]) {
        let secret = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";
        let timestamp = match scheme.name() {
            "twitch" | "zendesk" => "2026-01-01T00:00:00Z",
            "workos" | "hubspot-v3" => "1767225600000",
            _ => "1767225600",
        };
        let url = "https://example.com/webhook";
        let envelope = Envelope { id: "id-1", timestamp, method: "POST", url };
        // A secret is no public key: Discord's has a pair of ours, SendGrid's cannot sign.
        let key = scheme.key(secret);
        #[cfg(feature = "ed25519")]
        let key =
            key.or_else(|_| Ok::<_, webhooks_sign::KeyError>(Key::ed25519_from_seed(&[7; 32])));
        let Ok(key) = key else {
            not_signed.push(scheme.name());
            continue;
        };
        let mut value = String::new();
        if scheme.sign_all([&key], &envelope, b"body", &mut value).is_err() {
            not_signed.push(scheme.name());
            continue;
        }
        let time_header = match scheme.timestamp_source() {
            Some(TimestampSource::Header(name, _)) => name,
            _ => "-",
        };
        let headers = [
            (scheme.signature_header(), value.as_str()),
            (scheme.id_header().unwrap_or("--"), "id-1"),
            (time_header, timestamp),
        ];
        let keys = KeyRing::from(key);
        let verifier = scheme.verifier().method("POST").url(url);
        let now = 1_767_225_600;
        let whole = |body: &[u8]| verifier.verify(&keys, &headers, body, now).map(drop);
        let streamed = |body: &[u8]| {
            let mut pending = verifier.begin(&keys, &headers, now)?;
            body.chunks(3).for_each(|chunk| pending.update(chunk));
            pending.finish().map(drop)
        };
        assert_eq!((whole(b"body"), streamed(b"body")), (Ok(()), Ok(())), "{}", scheme.name());
        let refused = Err(Error::NoMatch);
        assert_eq!((whole(b"bodx"), streamed(b"bodx")), (refused, refused), "{}", scheme.name());
    }
    let expected = ["gitlab-token", "sendgrid", "telegram"];
    assert_eq!(not_signed, expected.into_iter().filter(|name| is_built(name)).collect::<Vec<_>>());
}

#[test]
fn a_token_is_compared_whole() {
    let scheme = &providers::GITLAB_TOKEN;
    let keys = KeyRing::from(scheme.key("my-token").unwrap());
    let verify =
        |token: &str| scheme.verify(&keys, &[("X-Gitlab-Token", token)], b"", 0).map(|_| ());
    assert_eq!(verify("my-token"), Ok(()));
    for wrong in ["", "my-toke", "my-token ", "My-token", "my-tokenx"] {
        assert_eq!(verify(wrong), Err(Error::NoMatch), "{wrong:?}");
    }
}
