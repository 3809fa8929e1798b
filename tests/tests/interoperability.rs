//! Signatures compared with independent HMACs: `openssl` and Python's `hmac`, in both directions.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use webhooks_sign::{Algorithm, Key, KeyRing, x_webhook};

const KEY: &str = "my-secret-key";

const PAYLOADS: [&str; 6] = [
    "",
    "{}",
    r#"{"user_id": "123"}"#,
    "{\"name\": \"Zoë 🦀 ₹ 漢字\"}",
    "line\r\nline\0null",
    "a payload longer than one block of either hash: 0123456789 0123456789 0123456789 0123456789 \
     0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789",
];

/// Runs a program with the payload on its standard input and returns its output.
fn run(program: &str, args: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| unreachable!("`cargo xtask test` installs {program}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program}: {}", output.status);
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Signs with `openssl dgst`; its line ends in the hexadecimal digest.
fn openssl(hash: &str, payload: &str) -> String {
    let line = run("openssl", &["dgst", hash, "-hmac", KEY], payload);
    line.rsplit(' ').next().unwrap().to_owned()
}

fn python(hash: &str, payload: &str) -> String {
    let script = "import hmac, sys; \
        print(hmac.new(sys.argv[1].encode(), sys.stdin.buffer.read(), sys.argv[2]).hexdigest())";
    run("python3", &["-c", script, KEY, hash], payload)
}

fn key(algorithm: Algorithm) -> Key {
    Key::from_legacy_bytes(algorithm, KEY.as_bytes()).unwrap()
}

#[test]
fn openssl_and_python_sign_as_we_do_and_we_verify_what_they_sign() {
    for payload in PAYLOADS {
        for (algorithm, other, signatures) in [
            (
                Algorithm::HmacSha256,
                Algorithm::HmacSha512,
                [openssl("-sha256", payload), python("sha256", payload)],
            ),
            (
                Algorithm::HmacSha512,
                Algorithm::HmacSha256,
                [openssl("-sha512", payload), python("sha512", payload)],
            ),
        ] {
            let ours = x_webhook::sign(&key(algorithm), payload.as_bytes()).unwrap();
            for theirs in signatures {
                assert_eq!(ours.as_str(), theirs, "{algorithm} of {payload:?}");
                let headers = [("X-Webhook-Signature", theirs)];
                let verify = |algorithm, body: &str| {
                    let keys = KeyRing::from(key(algorithm));
                    x_webhook::verify(&keys, &headers, body.as_bytes()).is_ok()
                };
                assert!(verify(algorithm, payload));
                assert!(!verify(other, payload), "never as the other algorithm");
                assert!(!verify(algorithm, &format!("{payload} ")), "never another payload");
            }
        }
    }
}
