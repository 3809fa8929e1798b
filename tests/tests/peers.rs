//! The official Standard Webhooks packages from PyPI, npm and crates.io: we verify their
//! signatures, and they verify ours. `cargo xtask test` installs the first two.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use webhooks_core::Timestamp;
use webhooks_sign::{Algorithm, Error, Key, KeyError, KeyRing, standard};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The number of cases; each package checks each of them in both directions.
const CASES: usize = 300;

/// A question to a peer: to verify `signature`, and to sign with `secret`.
#[derive(Serialize)]
struct Case {
    secret: String,
    id: String,
    timestamp: u64,
    body: String,
    signature: String,
    /// Whether one of the signatures was made with the secret.
    #[serde(skip)]
    is_valid: bool,
}

#[derive(Deserialize)]
struct Answer {
    verified: bool,
    #[serde(default)]
    signature: String,
}

/// Draws cases of all lengths and alphabets, with rotation: the header has signatures by one to
/// three keys; the peer has the first or the last of them, or in every tenth case another key.
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

/// Encodes bytes as a Standard Webhooks secret, with an independent codec.
fn secret(bytes: &[u8]) -> String {
    format!("whsec_{}", BASE64.encode(bytes))
}

fn ask(command: &mut Command, cases: &[impl Serialize]) -> Vec<Answer> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let question = serde_json::to_vec(cases).unwrap();
    // A missing peer ends before it reads; its exit status shows that.
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
        let stranger = Key::from_bytes(Algorithm::HmacSha256, &[7; 32]).unwrap();
        let keys = KeyRing::from([stranger, Key::standard(&case.secret).unwrap()]);
        let timestamp = case.timestamp.to_string();
        let headers = [
            ("webhook-id", &case.id),
            ("webhook-timestamp", &timestamp),
            ("webhook-signature", &answer.signature),
        ];
        let verified = standard::verify(&keys, &headers, case.body.as_bytes(), case.timestamp);
        let key_index = verified.map(|verified| verified.key_index());
        assert_eq!(key_index, Ok(1), "{} {:?}", case.id, case.body);
        let changed = format!("{} ", case.body);
        let verified = standard::verify(&keys, &headers, changed.as_bytes(), case.timestamp);
        assert_eq!(verified, Err(Error::NoMatch));
    }
}

fn python() -> Command {
    let mut python = Command::new("python3");
    python.arg(format!("{ROOT}/tests/peers/peer.py"));
    python.env("PYTHONPATH", format!("{ROOT}/target/peers/python"));
    python
}

fn javascript() -> Command {
    let mut node = Command::new("node");
    node.arg(format!("{ROOT}/tests/peers/peer.mjs"));
    node.arg(format!("{ROOT}/target/peers/node"));
    node
}

#[test]
fn python_agrees() {
    let cases = cases();
    check(&cases, &ask(&mut python(), &cases));
}

#[test]
fn javascript_agrees() {
    let cases = cases();
    check(&cases, &ask(&mut javascript(), &cases));
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

/// A case of `stricter.json`: fields that it leaves out have the usual values.
#[derive(Deserialize)]
struct Stricter {
    name: String,
    /// The peers that accept it.
    peers: Vec<String>,
    #[serde(default = "usual_secret")]
    secret: String,
    #[serde(default = "usual_id")]
    id: String,
    /// The id that is signed, if it is not that of the first header.
    signed_id: Option<String>,
    #[serde(default = "usual_timestamp")]
    timestamp: String,
    /// The number of listed signatures; the good one is the last.
    #[serde(default = "usual_signatures")]
    signatures: usize,
    #[serde(default)]
    extra_headers: Vec<(String, String)>,
    expect: String,
    reason: String,
}

fn usual_secret() -> String {
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned()
}

fn usual_id() -> String {
    "msg_1".to_owned()
}

fn usual_timestamp() -> String {
    "NOW".to_owned()
}

fn usual_signatures() -> usize {
    1
}

/// A request in the form that a peer gets.
#[derive(Serialize)]
struct Request {
    secret: String,
    headers: Vec<(String, String)>,
    body: &'static str,
}

impl Stricter {
    /// Signs independently of our code, with the values of id and timestamp that the peers use.
    fn request(&self, now: u64) -> Request {
        let (id, body) = (self.signed_id.as_ref().unwrap_or(&self.id), "{}");
        let encoded = self.secret.strip_prefix("whsec_").unwrap_or(&self.secret);
        let padding = "=".repeat(encoded.len().wrapping_neg() % 4);
        let key = BASE64.decode(format!("{encoded}{padding}")).unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        mac.update(format!("{id}.{now}.{body}").as_bytes());
        let signature = format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()));
        let mut signatures = vec!["v1,AAAA"; self.signatures - 1];
        signatures.push(&signature);
        let own = [
            ("webhook-id", self.id.clone()),
            ("webhook-timestamp", self.timestamp.replace("NOW", &now.to_string())),
            ("webhook-signature", signatures.join(" ")),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value));
        let headers = own.into_iter().chain(self.extra_headers.clone()).collect();
        Request { secret: self.secret.clone(), headers, body }
    }
}

impl Request {
    /// Returns whether the crate from crates.io accepts it.
    fn rust_takes(&self) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        standardwebhooks::Webhook::new(&self.secret)
            .is_ok_and(|peer| peer.verify(self.body.as_bytes(), &headers).is_ok())
    }

    /// Returns our result for it.
    fn verdict(&self, now: u64) -> &'static str {
        let key = match Key::standard(&self.secret) {
            Err(KeyError::Empty) => return "empty",
            Err(KeyError::Encoding { .. } | KeyError::Surrounded) => return "encoding",
            Err(KeyError::Length { .. }) => return "length",
            Err(KeyError::Prefix { .. } | KeyError::PrefixSpelling { .. }) => return "prefix",
            key => key.unwrap(),
        };
        let body = self.body.as_bytes();
        match standard::verify(&KeyRing::from(key), &self.headers[..], body, now) {
            Err(error) => error.name(),
            Ok(_) => "ok",
        }
    }
}

/// `stricter.json` lists the requests that we refuse and a peer accepts, each with the reason.
/// Method: sign each case independently, ask every peer, and compare the peers that accept it with
/// the list.
#[test]
fn where_we_are_stricter_there_is_a_reason() {
    let vectors = include_str!("../../crates/webhooks-sign/tests/vectors/stricter.json");
    let mut cases: Vec<Stricter> = serde_json::from_str(vectors).unwrap();
    let peers = ["javascript", "python", "rust"];
    assert!(cases.iter().all(|case| !case.reason.is_empty()));
    let control = serde_json::json!({
        "name": "control", "peers": peers, "expect": "ok", "reason": "everybody takes it, we too",
    });
    cases.push(serde_json::from_value(control).unwrap());

    let now = Timestamp::now().as_unix_seconds();
    let requests: Vec<Request> = cases.iter().map(|case| case.request(now)).collect();
    let javascript = ask(&mut javascript(), &requests);
    let python = ask(&mut python(), &requests);
    for (index, (case, request)) in cases.iter().zip(&requests).enumerate() {
        let takes = [javascript[index].verified, python[index].verified, request.rust_takes()];
        let found: Vec<&str> = peers
            .into_iter()
            .zip(takes)
            .filter_map(|(peer, takes)| takes.then_some(peer))
            .collect();
        assert_eq!(found, case.peers, "{}", case.name);
        assert_eq!(request.verdict(now), case.expect, "{}", case.name);
    }
}
