//! Twitch: dev.twitch.tv/docs/eventsub/handling-webhook-events, "Responding to a challenge request".

use bytes::Bytes;
use http::Response;
use serde::Deserialize;

use super::echo;

/// The body of the handshake. The type is read from it, since the header that names it is not signed.
#[derive(Deserialize)]
struct Verification {
    challenge: String,
    subscription: Subscription,
}

#[derive(Deserialize)]
struct Subscription {
    status: String,
}

pub(super) fn answer(body: &[u8]) -> Option<Response<Bytes>> {
    let asked: Verification = serde_json::from_slice(body).ok()?;
    let is_pending = asked.subscription.status == "webhook_callback_verification_pending";
    // "Your response must return a 200 status code, the response body must contain the raw
    // challenge value".
    is_pending.then(|| echo(asked.challenge))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_echoed() {
        let body = br#"{"challenge": "pogchamp-kappa-360noscope-vohiyo", "subscription": {"id": "f1c2a387-161a-49f9-a165-0f21d7a4e1c4", "status": "webhook_callback_verification_pending", "type": "channel.follow"}}"#;
        let answer = answer(body).unwrap();
        assert_eq!(answer.body(), "pogchamp-kappa-360noscope-vohiyo");
        assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
    }

    #[test]
    fn other_webhooks_are_no_handshakes() {
        for body in [
            r#"{"subscription": {"status": "enabled"}, "event": {"challenge": "1"}}"#,
            r#"{"challenge": "1", "subscription": {"status": "enabled"}}"#,
            r#"{"challenge": "1"}"#,
            "",
        ] {
            assert!(answer(body.as_bytes()).is_none(), "{body}");
        }
    }
}
