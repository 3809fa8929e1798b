//! The official Standard Webhooks packages from PyPI, npm and crates.io: what they sign we verify,
//! what we sign they verify. `cargo xtask test` installs the first two.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use webhooks_core::Timestamp;
use webhooks_sign::{Algorithm, Error, Key, KeyRing, standard};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// How many cases are made; each is checked by each package in both directions.
const CASES: usize = 300;

/// What a peer is asked: to verify `signature`, and to sign with `secret`.
#[derive(Serialize)]
struct Case {
    secret: String,
    id: String,
    timestamp: u64,
    body: String,
    signature: String,
    /// Whether one of the signatures is by the secret.
    #[serde(skip)]
    is_valid: bool,
}

#[derive(Deserialize)]
struct Answer {
    verified: bool,
    signature: String,
}

/// Draws cases of all lengths and alphabets, with rotation: the header has signatures by one to
/// three keys, the peer has the first, the last, or in every tenth case another one.
fn cases() -> Vec<Case> {
    let mut random = fastrand::Rng::with_seed(7);
    let now = Timestamp::now().as_unix_seconds();
    let mut cases = Vec::new();
    for number in 0..CASES {
        let mut secrets: Vec<String> = (0..=random.usize(1..=3))
            .map(|_| secret(&(0..random.usize(24..=64)).map(|_| random.u8(..)).collect::<Vec<_>>()))
            .collect();
        let stranger = secrets.pop().unwrap();
        let keys: Vec<Key> = secrets.iter().map(|text| Key::standard(text).unwrap()).collect();
        let id = format!(
            "msg_{}",
            (0..random.usize(1..60)).map(|_| random.alphanumeric()).collect::<String>()
        );
        let body: String =
            (0..random.usize(0..3000)).map(|_| random.char('\u{20}'..'\u{2fff}')).collect();
        let timestamp = now - random.u64(0..100);
        let mut signature = String::new();
        standard::sign_all(&keys, &id, timestamp, body.as_bytes(), &mut signature).unwrap();
        let is_valid = number % 10 != 0;
        let secret = match (is_valid, random.bool()) {
            (false, _) => stranger,
            (true, true) => secrets.swap_remove(0),
            (true, false) => secrets.pop().unwrap(),
        };
        cases.push(Case { secret, id, timestamp, body, signature, is_valid });
    }
    cases
}

/// Writes bytes as a Standard Webhooks secret, by a codec that is not ours.
fn secret(bytes: &[u8]) -> String {
    use base64::Engine as _;
    format!("whsec_{}", base64::engine::general_purpose::STANDARD.encode(bytes))
}

fn ask(command: &mut Command, cases: &[Case]) -> Vec<Answer> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let question = serde_json::to_vec(cases).unwrap();
    // A peer that is missing ends before it reads; its exit status says so.
    let written = child.stdin.take().unwrap().write_all(&question);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "is it missing? `cargo xtask test` installs it");
    written.unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn check(cases: &[Case], answers: &[Answer]) {
    assert_eq!(answers.len(), CASES);
    for (case, answer) in cases.iter().zip(answers) {
        assert_eq!(answer.verified, case.is_valid, "{} {:?}", case.id, case.body);
        let keys = KeyRing::from(Key::standard(&case.secret).unwrap());
        let timestamp = case.timestamp.to_string();
        let headers = [
            ("webhook-id", &case.id),
            ("webhook-timestamp", &timestamp),
            ("webhook-signature", &answer.signature),
        ];
        let verified = standard::verify(&keys, &headers, case.body.as_bytes(), case.timestamp);
        assert!(verified.is_ok(), "{:?} {} {:?}", verified, case.id, case.body);
        let changed = format!("{} ", case.body);
        let verified = standard::verify(&keys, &headers, changed.as_bytes(), case.timestamp);
        assert_eq!(verified, Err(Error::NoMatch));
    }
}

#[test]
fn python_agrees() {
    let cases = cases();
    let mut python = Command::new("python3");
    python.arg(format!("{ROOT}/tests/peers/peer.py"));
    python.env("PYTHONPATH", format!("{ROOT}/target/peers/python"));
    check(&cases, &ask(&mut python, &cases));
}

#[test]
fn javascript_agrees() {
    let cases = cases();
    let mut node = Command::new("node");
    node.arg(format!("{ROOT}/tests/peers/peer.mjs"));
    node.arg(format!("{ROOT}/target/peers/node"));
    check(&cases, &ask(&mut node, &cases));
}

fn header_map(id: &str, timestamp: &str, signature: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("webhook-id", id.parse().unwrap());
    headers.insert("webhook-timestamp", timestamp.parse().unwrap());
    headers.insert("webhook-signature", signature.parse().unwrap());
    headers
}

#[test]
fn rust_agrees() {
    let cases = cases();
    let answers: Vec<Answer> = (cases.iter())
        .map(|Case { secret, id, timestamp, body, signature, .. }| {
            let peer = standardwebhooks::Webhook::new(secret).unwrap();
            let headers = header_map(id, &timestamp.to_string(), signature);
            let seconds = i64::try_from(*timestamp).unwrap();
            Answer {
                verified: peer.verify(body.as_bytes(), &headers).is_ok(),
                signature: peer.sign(id, seconds, body.as_bytes()).unwrap(),
            }
        })
        .collect();
    check(&cases, &answers);
}

/// Where we refuse what the crate takes, `stricter.json` gives the reason; the crate signs each
/// case, takes it, and we do not.
#[test]
fn where_we_are_stricter_there_is_a_reason() {
    let vectors = include_str!("../../crates/webhooks-sign/tests/vectors/stricter.json");
    let vectors: Vec<Value> = serde_json::from_str(vectors).unwrap();
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let keys = KeyRing::from(Key::standard(secret).unwrap());
    let peer = standardwebhooks::Webhook::new(secret).unwrap();
    let now = Timestamp::now().as_unix_seconds();
    for case in vectors {
        let text = |field: &str| case[field].as_str().unwrap().replace("NOW", &now.to_string());
        let (id, timestamp, body) = (text("id"), text("timestamp"), text("body"));
        let signature = peer.sign(&id, timestamp.parse().unwrap(), body.as_bytes()).unwrap();
        let headers = header_map(&id, &timestamp, &signature);
        assert!(peer.verify(body.as_bytes(), &headers).is_ok(), "{case}");
        let expected = match case["expect"].as_str().unwrap() {
            "invalid_timestamp" => Error::InvalidTimestamp,
            _ => Error::InvalidHeader,
        };
        assert_eq!(
            standard::verify(&keys, &headers, body.as_bytes(), now),
            Err(expected),
            "{case}"
        );
    }
    // Anybody can sign with the empty secret; one byte is found in 256 tries.
    for weak in ["whsec_", "whsec_AA=="] {
        assert!(standardwebhooks::Webhook::new(weak).is_ok());
        assert!(Key::standard(weak).is_err());
    }
    assert!(Key::from_legacy_bytes(Algorithm::HmacSha256, b"").is_err());
}
