//! Every provider's vectors: `vectors/providers.json` says where each comes from.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use webhooks_sign::providers::{self, ALL, BOX, MAILGUN};
use webhooks_sign::standard::STANDARD;
use webhooks_sign::{
    Envelope, Error, Key, KeyRing, Tolerance,
    scheme::{Content, Scheme, TimestampFormat, TimestampSource},
};

const VECTORS: &str = include_str!("vectors/providers.json");

/// Rows without a scheme, for the reasons that the module's documentation gives.
const OUT_OF_SCOPE: &str = "out of scope";

/// Returns whether the features that are on bring a provider.
fn is_built(row: &Value) -> bool {
    match row["tier"].as_str().unwrap().rsplit_once("feature ") {
        Some((_, "ed25519")) => cfg!(feature = "ed25519"),
        Some((_, "p256")) => cfg!(feature = "p256"),
        Some((_, "sha1")) => cfg!(feature = "sha1"),
        Some((_, other)) => panic!("{other}"),
        None => true,
    }
}

/// Returns the rows of the table whose schemes there should be, and the vectors.
fn table() -> (Vec<Value>, Vec<Value>) {
    let mut vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let mut list = |name: &str| serde_json::from_value::<Vec<Value>>(vectors[name].take()).unwrap();
    let (mut rows, vectors) = (list("providers"), list("vectors"));
    rows.retain(|row| row["tier"] != OUT_OF_SCOPE && is_built(row));
    (rows, vectors)
}

fn scheme(provider: &str) -> Option<&'static Scheme> {
    ALL.iter().find(|scheme| scheme.name() == provider)
}

fn base64(text: &Value) -> Vec<u8> {
    let mut bytes = vec![0; text.as_str().unwrap().len() + 3];
    let len = BASE64.decode_slice(text.as_str().unwrap(), &mut bytes).unwrap();
    bytes.truncate(len);
    bytes
}

fn key(scheme: &Scheme, vector: &Value) -> Key {
    let names = ["public_key_hex", "public_key_base64", "public_key_spki_base64"];
    let public = names.into_iter().find_map(|name| vector[name].as_str());
    let text = vector["key"]["utf8"].as_str().or(public);
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
    let verified = match scheme.content() {
        Content::Form if url.contains("bodySHA256") => {
            verifier.verify_hashed_body(&keys, &headers[..], &body, now).map(drop)
        }
        Content::Form => {
            let form: Vec<(String, String)> =
                serde_json::from_value(vector["form"].clone()).unwrap();
            let mut fields: Vec<(&str, &str)> = form.iter().map(|(k, v)| (&**k, &**v)).collect();
            verifier.verify_form(&keys, &headers[..], &mut fields, now).map(drop)
        }
        Content::Token => {
            let header = |name| headers.iter().find(|header| header.0 == name).unwrap().1.as_str();
            let token = vector["token"].as_str().unwrap();
            let (timestamp, signature) = (header("timestamp"), header("signature"));
            verifier.verify_token(&keys, timestamp, token, signature, now).map(drop)
        }
        _ => verifier.verify(&keys, &headers[..], &body, now).map(drop),
    };
    verified.map_or_else(code, |()| "ok")
}

#[test]
fn verdicts_are_those_of_the_vectors() {
    let (_, vectors) = table();
    for vector in vectors {
        let provider = vector["provider"].as_str().unwrap();
        // RFC 9421 is another way to sign.
        if scheme(provider).is_some() {
            assert_eq!(verdict(&vector), vector["expect"], "{provider} {}", vector["name"]);
        }
    }
}

#[test]
fn every_scheme_has_its_row_and_every_row_its_scheme() {
    let (rows, _) = table();
    let rows: BTreeMap<&str, &Value> =
        rows.iter().map(|row| (row["id"].as_str().unwrap(), row)).collect();
    let others = [STANDARD];
    let schemes: BTreeMap<&str, Scheme> = others
        .into_iter()
        .chain(ALL.iter().copied())
        .map(|scheme| (scheme.name(), scheme))
        .collect();
    assert!(schemes.keys().eq(rows.keys()), "{:?} {:?}", schemes.keys(), rows.keys());
    for scheme in ALL {
        let header = rows[scheme.name()]["signature_header"].as_str().unwrap();
        assert_eq!(scheme.signature_header(), header.to_ascii_lowercase(), "{}", scheme.name());
    }
}

#[test]
fn every_scheme_has_a_vector_that_it_accepts() {
    let (_, vectors) = table();
    let accepted: BTreeSet<&str> = vectors
        .iter()
        .filter(|vector| vector["expect"] == "ok")
        .map(|vector| vector["provider"].as_str().unwrap())
        .collect();
    let without: Vec<_> =
        ALL.iter().map(Scheme::name).filter(|name| !accepted.contains(name)).collect();
    assert_eq!(without, Vec::<&str>::new());
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
        let verified = MAILGUN.verifier().verify_token(&keys, timestamp, token, signature, now);
        let verified = verified.map(|verified| (verified.id().unwrap(), verified.timestamp()));
        verified.map_err(Error::name)
    };
    let now = 1_529_006_854;
    assert_eq!(verify(timestamp, token, signature, now + 300), Ok((token, Some(now))));
    assert_eq!(verify(timestamp, token, signature, now + 32_401), Err("timestamp_too_old"));
    assert_eq!(verify("1529006855", token, signature, now), Err("no_match"));
    assert_eq!(verify(timestamp, token.trim_start_matches('a'), signature, now), Err("no_match"));
    assert_eq!(
        verify(timestamp, token, signature.trim_end_matches("af"), now),
        Err("invalid_header")
    );
}

/// Method: sign by each scheme that signs and that we have a signing key for; verify whole, and
/// streamed in chunks of three bytes; and change the body.
#[test]
fn every_scheme_verifies_what_it_signs_and_nothing_else() {
    for scheme in ALL.iter().filter(|scheme| scheme.content() == Content::Body) {
        let secret = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";
        let (time_header, format) = match scheme.timestamp_source() {
            Some(TimestampSource::Header(name, format)) => (name, Some(format)),
            Some(TimestampSource::Field(_, format)) => ("-", Some(format)),
            _ => ("-", None),
        };
        let timestamp = match format {
            Some(TimestampFormat::Milliseconds) => "1767225600000",
            Some(TimestampFormat::Rfc3339) => "2026-01-01T00:00:00Z",
            _ => "1767225600",
        };
        let url = "https://example.com/webhook";
        let envelope = Envelope { id: "id-1", timestamp, method: "POST", url };
        // A secret is no public key: Discord's has a pair of ours, SendGrid's cannot sign.
        let key = scheme.key(secret);
        #[cfg(feature = "ed25519")]
        let key =
            key.or_else(|_| Ok::<_, webhooks_sign::KeyError>(Key::ed25519_from_seed(&[7; 32])));
        let mut value = String::new();
        let signed =
            key.as_ref().ok().map(|key| scheme.sign_all([key], &envelope, b"body", &mut value));
        let (Ok(key), Some(Ok(()))) = (key, signed) else {
            // A token signs nothing, and P-256 keys are public ones.
            let algorithm = scheme.algorithm().as_str();
            assert!(["token", "ecdsa_p256_sha256"].contains(&algorithm), "{}", scheme.name());
            continue;
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
}

/// Method: Box's two headers, of which one is missing, malformed, wrong or there twice.
#[test]
fn one_of_several_signature_headers_is_enough() {
    let at = "2020-01-01T00:00:00-07:00";
    let now = 1_577_862_000;
    let (first, second) = ("box-signature-primary", "box-signature-secondary");
    let sign = |secret, body: &[u8]| {
        let envelope = Envelope { timestamp: at, ..Envelope::default() };
        BOX.sign(&BOX.key(secret).unwrap(), &envelope, body).unwrap().to_string()
    };
    let keys = KeyRing::from([BOX.key("new").unwrap(), BOX.key("old").unwrap()]);
    let check = |headers: &[(&str, &str)], expected: Result<usize, &str>| {
        let headers = [&[("box-delivery-timestamp", at)], headers].concat();
        let whole = BOX.verify(&keys, &headers[..], b"body", now);
        let whole = whole.map(|verified| verified.key_index()).map_err(Error::name);
        assert_eq!(whole, expected, "{headers:?}");
        let streamed = BOX.verifier().begin(&keys, &headers[..], now).and_then(|mut pending| {
            pending.update(b"bo");
            pending.update(b"dy");
            pending.finish()
        });
        let streamed = streamed.map(|verified| verified.key_index()).map_err(Error::name);
        assert_eq!(streamed, expected, "{headers:?}");
    };
    let (new, old, other) = (sign("new", b"body"), sign("old", b"body"), sign("new", b"bodx"));
    check(&[(first, &new), (second, &old)], Ok(0));
    check(&[(first, &new)], Ok(0));
    check(&[(second, &new)], Ok(0));
    check(&[(first, &old)], Ok(1));
    check(&[(first, &other), (second, &old)], Ok(1));
    check(&[(first, ""), (second, &old)], Ok(1));
    check(&[(first, "-"), (second, "")], Err("invalid_header"));
    check(&[(first, &other)], Err("no_match"));
    check(&[], Err("missing_header"));
    check(&[(first, &new), (second, &old), (second, &old)], Err("duplicate_header"));
    let headers = [("box-delivery-timestamp", at), (first, "")];
    let stale = BOX.verify(&keys, &headers, b"", now + 601);
    assert!(stale.is_err_and(Error::is_stale), "before the signature is read");
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
