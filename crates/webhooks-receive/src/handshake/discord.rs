//! Discord: docs.discord.com/developers, "Setting Up an Endpoint" of interactions, and "Preparing for
//! Events" of webhook events.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use super::json;

#[derive(Deserialize)]
struct Ping {
    #[serde(rename = "type")]
    kind: u64,
    /// The content of an event. The type of an event is 1, as is that of an interaction that is a ping.
    event: Option<IgnoredAny>,
}

pub(super) fn answer(body: &[u8]) -> Option<Response<Bytes>> {
    match serde_json::from_slice(body).ok()? {
        Ping { kind: 1, event: None } => Some(json(&json!({ "type": 1 }))),
        Ping { kind: 0, event: None } => {
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = StatusCode::NO_CONTENT;
            Some(response)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_are_answered_in_kind() {
        let body = br#"{"application_id": "1", "id": "2", "token": "a", "type": 1, "version": 1}"#;
        assert_eq!(answer(body).unwrap().body(), r#"{"type":1}"#);
        let body = br#"{"version": 1, "application_id": "1", "type": 0}"#;
        let found = answer(body).unwrap();
        assert_eq!((found.status(), found.body().len()), (StatusCode::NO_CONTENT, 0));
    }

    #[test]
    fn interactions_and_events_are_no_handshakes() {
        for body in [
            r#"{"type": 2, "id": "2", "data": {"name": "cmd"}}"#,
            r#"{"type": 1, "event": {"type": "APPLICATION_AUTHORIZED"}}"#,
            r#"{"type": "1"}"#,
            "1",
            "",
        ] {
            assert!(answer(body.as_bytes()).is_none(), "{body}");
        }
    }
}
