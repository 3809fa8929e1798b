//! For each fault that is made on purpose, its cause is named, and nothing that is wrong is called verified.

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use webhooks_core::Timestamp;
use webhooks_receive::body_change::BodyChange;
use webhooks_sign::providers::{GITHUB, SLACK, STRIPE, WEBFLOW};
use webhooks_sign::standard::{STANDARD, SVIX};
use webhooks_sign::x_webhook::{X_WEBHOOK, X_WEBHOOK_SHA512};
use webhooks_sign::{Algorithm, Envelope, Key};

use super::*;
use crate::diagnosis::finding::Cause;
use crate::diagnosis::key_form::KeyForm;
use crate::saved_request::head;
use crate::signed_request::{sign, time_for};

const NOW: u64 = 1_767_225_600;

const SECRET: &str = concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");

/// Not in the order of its keys, with characters that are spelt in several ways.
const BODY: &str = r#"{"url":"https://example.com/é","a":[1.0,"<x>"]}"#;

static STANDARD_SCHEME: Scheme = STANDARD;
static SVIX_SCHEME: Scheme = SVIX;
static GITHUB_SCHEME: Scheme = GITHUB;
static STRIPE_SCHEME: Scheme = STRIPE;
static SLACK_SCHEME: Scheme = SLACK;
static WEBFLOW_SCHEME: Scheme = WEBFLOW;
static X_SCHEME: Scheme = X_WEBHOOK;

/// A signed request that a test changes.
#[derive(Clone)]
struct Signed {
    headers: HeaderMap,
    body: Vec<u8>,
    secrets: Vec<String>,
    scheme: Option<&'static Scheme>,
    now: u64,
}

impl Signed {
    fn new(scheme: &'static Scheme, secret: &str, body: &[u8]) -> Self {
        let key = key_of(scheme, secret).unwrap();
        Self::by(scheme, secret, &key, body)
    }

    fn by(scheme: &'static Scheme, secret: &str, key: &Key, body: &[u8]) -> Self {
        let timestamp = time_for(scheme, Timestamp::from_unix_seconds(NOW));
        let envelope = Envelope { id: "msg_1", timestamp: &timestamp, ..Envelope::default() };
        let headers = sign(scheme, secret, key, &envelope, body).unwrap();
        let pair = |(name, value): (&'static str, String)| {
            (HeaderName::from_static(name), HeaderValue::try_from(value).unwrap())
        };
        Self {
            headers: headers.into_iter().map(pair).collect(),
            body: body.to_vec(),
            secrets: vec![secret.to_owned()],
            scheme: Some(scheme),
            now: NOW,
        }
    }

    fn standard() -> Self {
        Self::new(&STANDARD_SCHEME, SECRET, BODY.as_bytes())
    }

    fn diagnose(&self) -> Diagnosis {
        let head = head("POST", "/", self.headers.clone()).unwrap();
        let Self { body, secrets, scheme, now, .. } = self;
        Case { head: &head, body, secrets, scheme: *scheme, url: "", tolerance: None, now: *now }
            .diagnose()
    }

    fn set(&mut self, name: &'static str, value: &str) {
        self.headers.insert(name, value.parse().unwrap());
    }

    fn get(&self, name: &str) -> String {
        self.headers[name].to_str().unwrap().to_owned()
    }

    #[track_caller]
    fn is_verified(&self) {
        let found = self.diagnose();
        assert!(found.is_verified(), "{found:#?}");
    }

    #[track_caller]
    fn has(&self, cause: Cause) {
        let found = self.diagnose();
        let Outcome::Refused(finding) = &found.outcome else { panic!("{found:#?}") };
        assert_eq!(finding.cause, cause, "{found:#?}");
        let text = found.lines().join("\n");
        assert!(text.starts_with("does not verify: "), "{text}");
        assert!(self.secrets.iter().all(|secret| !text.contains(&**secret)), "{text}");
        assert_eq!(found.json()["cause"], cause.name());
    }
}

#[test]
fn what_was_signed_rightly_is_verified_with_a_scheme_and_without() {
    for (scheme, secret) in [
        (&STANDARD_SCHEME, SECRET),
        (&SVIX_SCHEME, SECRET),
        (&GITHUB_SCHEME, "secret"),
        (&STRIPE_SCHEME, "whsec_text"),
        (&SLACK_SCHEME, "secret"),
        (&WEBFLOW_SCHEME, "secret"),
        (&X_SCHEME, "secret"),
    ] {
        let mut signed = Signed::new(scheme, secret, BODY.as_bytes());
        signed.is_verified();
        signed.scheme = None;
        signed.is_verified();
        signed.secrets = vec!["other".to_owned(), secret.to_owned()];
        signed.is_verified();
    }
}

#[test]
fn headers_that_are_missing_doubled_or_malformed_are_named() {
    let signed = Signed::standard();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        let mut missing = signed.clone();
        missing.headers.remove(name);
        missing.has(Cause::MissingHeader);
        let mut twice = signed.clone();
        twice.headers.append(name, "other".parse().unwrap());
        twice.has(Cause::DuplicateHeader);
    }
    let value = signed.get("webhook-signature");
    let bare = value.strip_prefix("v1,").unwrap();
    for value in [bare, &format!("\"{value}\""), &format!("v0={bare}"), "v2,AAAA", "x"] {
        let mut malformed = signed.clone();
        malformed.set("webhook-signature", value);
        malformed.has(Cause::HeaderForm);
    }
    let mut unnamed = signed.clone();
    unnamed.headers.remove("webhook-id");
    unnamed.scheme = None;
    unnamed.has(Cause::MissingHeader);
    assert_eq!(unnamed.diagnose().scheme, Some("standard"));
    // GoCardless has its signature in a header of the same name.
    let mut shared = signed.clone();
    (shared.body, shared.scheme) = (b"other".to_vec(), None);
    shared.has(Cause::Unknown);
    assert_eq!(shared.diagnose().scheme, Some("standard"));
    let mut none = signed.clone();
    (none.headers, none.scheme) = (HeaderMap::new(), None);
    none.has(Cause::MissingHeader);
    let mut renamed = signed;
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        let value = renamed.headers.remove(name).unwrap();
        let name = format!("http_{}", name.replace('-', "_"));
        renamed.headers.insert(HeaderName::try_from(name).unwrap(), value);
    }
    renamed.has(Cause::HeaderName);
}

#[test]
fn signatures_in_another_encoding_are_named() {
    let base64 =
        GITHUB.customized().encoding(webhooks_sign::scheme::Encoding::Base64).build().unwrap();
    let signature =
        base64.sign(&GITHUB.key("hush-hush").unwrap(), &Envelope::default(), b"{}").unwrap();
    let mut signed = Signed::new(&GITHUB_SCHEME, "hush-hush", b"{}");
    signed.set("x-hub-signature-256", signature.as_str());
    signed.has(Cause::HeaderForm);
}

#[test]
fn the_form_of_the_key_is_named() {
    let check = |form, key: Key, given: &str| {
        let mut signed = Signed::by(&STANDARD_SCHEME, SECRET, &key, BODY.as_bytes());
        signed.secrets = vec![given.to_owned()];
        signed.has(Cause::KeyForm(form));
    };
    let text_key = |text: &str| STRIPE.key(text).unwrap();
    let bare = SECRET.strip_prefix("whsec_").unwrap();
    check(KeyForm::Text, text_key(SECRET), SECRET);
    check(KeyForm::TextBehindPrefix, text_key(bare), SECRET);
    for given in [
        format!("\"{SECRET}\""),
        format!(" {SECRET}"),
        format!("'{SECRET}'\n"),
        format!("WEBHOOK_SECRET={SECRET}"),
    ] {
        check(KeyForm::Cleaned, Key::standard(SECRET).unwrap(), &given);
    }
    check(KeyForm::Base64, Key::standard(SECRET).unwrap(), bare);

    let check = |form, key: Key, given: &str| {
        Signed::by(&GITHUB_SCHEME, given, &key, BODY.as_bytes()).has(Cause::KeyForm(form));
    };
    let bytes = |bytes: &[u8]| Key::from_legacy_bytes(Algorithm::HmacSha256, bytes).unwrap();
    check(KeyForm::Hex, bytes(&[0xca, 0xfe, 0x01]), "cafe01");
    check(KeyForm::Base64, bytes(b"short"), "c2hvcnQ");
    check(KeyForm::LineBreak, bytes(b"hush-hush\n"), "hush-hush");
}

#[test]
fn a_secret_that_is_no_key_is_told() {
    let mut signed = Signed::standard();
    signed.secrets = vec!["whsec_!".to_owned()];
    signed.has(Cause::UnusableKey);
}

#[test]
fn times_are_told_apart() {
    let mut signed = Signed::standard();
    signed.now = NOW + 301;
    signed.has(Cause::TimestampOld);
    signed.now = NOW - 3600;
    signed.has(Cause::TimestampNew);
    let Outcome::Refused(finding) = signed.diagnose().outcome else { panic!() };
    assert!(finding.advice.contains("about 1 h: one side may take local time for UTC"));

    // Signed with milliseconds, as the header has them.
    let key = Key::standard(SECRET).unwrap();
    let millis = format!("{NOW}000");
    let envelope = Envelope { id: "msg_1", timestamp: &millis, ..Envelope::default() };
    let headers = sign(&STANDARD_SCHEME, SECRET, &key, &envelope, BODY.as_bytes()).unwrap();
    let mut signed = Signed::standard();
    for (name, value) in headers {
        signed.set(name, &value);
    }
    signed.has(Cause::TimestampUnit);
    // Signed with seconds, and the header has milliseconds.
    let mut signed = Signed::standard();
    signed.set("webhook-timestamp", &millis);
    signed.has(Cause::TimestampUnit);
    let mut signed = Signed::standard();
    signed.set("webhook-timestamp", "2026-01-01T00:00:00Z");
    signed.has(Cause::TimestampForm);
}

#[test]
fn an_id_in_the_place_of_the_timestamp_is_named() {
    let mut signed = Signed::standard();
    signed.set("webhook-id", &NOW.to_string());
    signed.set("webhook-timestamp", "msg_1");
    signed.has(Cause::IdAndTimestampSwapped);
    let check = |content: String, cause| {
        let alone = STANDARD.customized().body_alone().build().unwrap();
        let key = Key::standard(SECRET).unwrap();
        let signature = alone.sign(&key, &Envelope::default(), content.as_bytes()).unwrap();
        let mut signed = Signed::standard();
        signed.set("webhook-signature", signature.as_str());
        signed.has(cause);
    };
    check(format!("{NOW}.msg_1.{BODY}"), Cause::IdAndTimestampSwapped);
    check(format!("{NOW}.{BODY}"), Cause::SignedParts);
    check(format!("msg_1.{BODY}"), Cause::SignedParts);
    check(BODY.to_owned(), Cause::SignedParts);
}

#[test]
fn another_scheme_or_algorithm_is_named() {
    let mut signed = Signed::new(&SVIX_SCHEME, SECRET, BODY.as_bytes());
    signed.scheme = Some(&STANDARD_SCHEME);
    signed.has(Cause::OtherScheme);
    let key = X_WEBHOOK_SHA512.key("hush-hush").unwrap();
    let signature = X_WEBHOOK_SHA512.sign(&key, &Envelope::default(), BODY.as_bytes()).unwrap();
    let mut signed = Signed::new(&X_SCHEME, "hush-hush", BODY.as_bytes());
    signed.set("x-webhook-signature", signature.as_str());
    signed.has(Cause::Algorithm);
}

#[test]
fn a_changed_body_is_named_with_its_change() {
    let check = |before: &str, came: &str, change| {
        let mut signed = Signed::new(&STANDARD_SCHEME, SECRET, before.as_bytes());
        signed.body = came.as_bytes().to_vec();
        signed.has(Cause::BodyChanged(change));
    };
    let pretty = "{\n  \"a\": [\n    1,\n    {}\n  ]\n}";
    check("{\"a\":1}", "{\"a\":1}\n", BodyChange::SpaceAdded);
    check("{\"a\":1}\n", "{\"a\":1}", BodyChange::LineBreakCut);
    check("a\nb\n", "a\r\nb\r\n", BodyChange::ReturnsAdded);
    check("a\r\nb", "a\nb", BodyChange::ReturnsRemoved);
    check("a", "\u{feff}a", BodyChange::MarkAdded);
    check("\u{feff}a", "a", BodyChange::MarkRemoved);
    check("{\"a\":[1,{}]}", pretty, BodyChange::JsonSpaced);
    check(pretty, "{\"a\":[1,{}]}", BodyChange::JsonCompacted);
    check("{\"a\": 1, \"b\": 2}", "{\"a\":1,\"b\":2}", BodyChange::JsonCompacted);
    check("{\"a\":1,\"b\":2}", "{\"b\":2,\"a\":1}", BodyChange::JsonUnsorted);
    check(r#"["a/b"]"#, r#"["a\/b"]"#, BodyChange::SlashesEscaped);
    check(r#"["a\/b"]"#, r#"["a/b"]"#, BodyChange::SlashesUnescaped);
    check(r#"["é😀"]"#, r#"["\u00e9\ud83d\ude00"]"#, BodyChange::CharactersEscaped);
    check(r#"["\u00e9\ud83d\ude00"]"#, r#"["é😀"]"#, BodyChange::CharactersUnescaped);
    check(r#"["\u003cb\u003e"]"#, r#"["<b>"]"#, BodyChange::CharactersUnescaped);
    check("{\"a\":1}", r#""{\"a\":1}""#, BodyChange::Quoted);
    check("a=b c&d", "a%3Db+c%26d", BodyChange::PercentEncoded);
    check("a=b+c%2Fd", "a=b c/d", BodyChange::PercentDecoded);
    // PHP's spelling, which a JavaScript receiver read and wrote.
    check(r#"{"u":"http:\/\/x\/\u00e9"}"#, r#"{"u":"http://x/é"}"#, BodyChange::JsonRewritten);
    let mut empty = Signed::standard();
    empty.body.clear();
    empty.has(Cause::BodyEmpty);
}

#[test]
fn two_mistakes_at_once_are_named() {
    let key = STRIPE.key(SECRET).unwrap();
    let mut signed = Signed::by(&STANDARD_SCHEME, SECRET, &key, BODY.as_bytes());
    signed.body.push(b'\n');
    signed.has(Cause::BodyChanged(BodyChange::SpaceAdded));
    let Outcome::Refused(finding) = signed.diagnose().outcome else { panic!() };
    assert!(finding.text.contains("the secret as text, not decoded"), "{finding:?}");
    let mut signed = Signed::standard();
    signed.body.push(b'\n');
    signed.now = NOW + 1000;
    signed.has(Cause::BodyChanged(BodyChange::SpaceAdded));
}

#[test]
fn large_bodies_are_verified_and_not_varied() {
    let body = vec![b' '; 1024 * 1024 + 1];
    let mut signed = Signed::new(&GITHUB_SCHEME, "hush-hush", &body);
    signed.is_verified();
    signed.body.push(b'\n');
    signed.has(Cause::Unknown);
    let tried = signed.diagnose().tried;
    assert!(tried.iter().any(|trial| trial.text.contains("are not tried")), "{tried:?}");
    assert!(tried.iter().all(|trial| !trial.text.starts_with("body ")), "{tried:?}");
}

#[test]
fn hostile_requests_are_explained_without_harm() {
    let mut signed = Signed::standard();
    signed.body = "[".repeat(1024 * 1024).into_bytes();
    signed.has(Cause::Unknown);
    signed.body = vec![0xff, 0xfe, b'%', b'\\', b'"'];
    signed.has(Cause::Unknown);
    signed.headers.insert("webhook-timestamp", HeaderValue::from_bytes(b"\xff").unwrap());
    signed.has(Cause::TimestampForm);
    signed.set("webhook-timestamp", "18446744073709551615");
    signed.has(Cause::TimestampForm);
    signed.set("webhook-timestamp", "9999999999999999999");
    signed.has(Cause::TimestampUnit);
}

/// Bodies of JSON, in which keys, texts and numbers vary.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        "[a-zé/<& 😀]{0,8}".prop_map(|text| format!("{text:?}")),
        Just("true".to_owned()),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|all| format!("[{}]", all.join(","))),
            prop::collection::btree_map("[a-z]{1,4}", inner, 0..4).prop_map(|all| {
                let fields = all.iter().map(|(name, value)| format!("{name:?}:{value}"));
                format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Each change of each body is found, since one of the bodies that
    /// it may have been before was signed.
    #[test]
    fn each_change_of_any_json_is_found(came in json(), change in prop::sample::select(&BodyChange::ALL[..])) {
        for before in change.undo(came.as_bytes()).take(3) {
            let mut signed = Signed::new(&STANDARD_SCHEME, SECRET, &before);
            signed.body = came.clone().into_bytes();
            let found = signed.diagnose();
            let Outcome::Refused(finding) = &found.outcome else { panic!("{found:#?}") };
            let Cause::BodyChanged(named) = finding.cause else { panic!("{found:#?}") };
            // Another change may make the same body; then it is tried first.
            prop_assert!(named == change || named.undo(came.as_bytes()).any(|body| body == before));
        }
    }

    /// A signature of other bytes, by another key, or at another time is never called verified.
    #[test]
    fn nothing_wrong_is_verified(
        body in prop::collection::vec(any::<u8>(), 0..64),
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
        which in 0..4,
        scheme in prop::sample::select(vec![
            (&STANDARD_SCHEME, SECRET), (&GITHUB_SCHEME, "secret"), (&STRIPE_SCHEME, "secret"),
        ]),
    ) {
        let (scheme, secret) = scheme;
        let mut signed = Signed::new(scheme, secret, &body);
        signed.is_verified();
        match which {
            0 => signed.body.push(bit),
            1 if !body.is_empty() => signed.body[at.index(body.len())] ^= 1 << bit,
            2 => {
                let name = scheme.signature_header();
                let mut value = signed.headers[name].as_bytes().to_vec();
                // The last character of base64 is padding, before which some bits count for nothing.
                let place = value.len() - 4 - at.index(16);
                value[place] = if value[place] == b'1' { b'2' } else { b'1' };
                signed.headers.insert(name, HeaderValue::from_bytes(&value).unwrap());
            }
            _ => signed.secrets = vec![format!("{secret}A{bit}")],
        }
        for scheme in [signed.scheme, None] {
            signed.scheme = scheme;
            let found = signed.diagnose();
            prop_assert!(!found.is_verified(), "{found:#?}");
            prop_assert!(found.json()["verified"] == false);
            prop_assert!(!found.lines()[0].starts_with("verified"));
        }
    }

    /// No bytes make the search fail.
    #[test]
    fn any_request_is_explained(
        body in prop::collection::vec(any::<u8>(), 0..200),
        value in "[ -~]{0,80}",
        secret in ".{1,40}",
        scheme in prop::sample::select(recognition::schemes().collect::<Vec<_>>()),
    ) {
        let mut headers = HeaderMap::new();
        for name in scheme.headers() {
            headers.insert(HeaderName::from_static(name), value.trim().parse().unwrap());
        }
        let secrets = vec![secret];
        let signed = Signed { headers, body, secrets, scheme: Some(scheme), now: NOW };
        let found = signed.diagnose();
        // A token stands in the header as it is.
        prop_assert!(!found.is_verified() || scheme.algorithm() == Algorithm::Token);
        found.lines();
    }
}
