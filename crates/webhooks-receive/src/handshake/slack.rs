//! Slack: docs.slack.dev, "URL verification".

use bytes::Bytes;
use http::Response;
use serde::Deserialize;

use super::echo;

#[derive(Deserialize)]
struct UrlVerification {
    #[serde(rename = "type")]
    kind: String,
    challenge: String,
}

pub(super) fn answer(body: &[u8]) -> Option<Response<Bytes>> {
    let asked: UrlVerification = serde_json::from_slice(body).ok()?;
    (asked.kind == "url_verification").then(|| echo(asked.challenge))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_echoed() {
        // The documentation's example.
        let body = br#"{"token": "Jhj5dZrVaK7ZwHHjRyZWjbDl", "challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P", "type": "url_verification"}"#;
        let challenge = "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P";
        assert_eq!(answer(body).unwrap().body(), challenge);
    }

    #[test]
    fn other_webhooks_are_no_handshakes() {
        for body in [r#"{"type": "event_callback", "challenge": "1"}"#, "challenge=1", ""] {
            assert!(answer(body.as_bytes()).is_none(), "{body}");
        }
    }
}
