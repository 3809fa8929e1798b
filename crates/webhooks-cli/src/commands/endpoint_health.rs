//! The health of an endpoint: whether it gets deliveries now, as a text for people.

use std::time::Duration;

use serde_json::Value;
use webhooks_core::Timestamp;

use crate::client::Client;
use crate::visible::visible;

/// The health of an endpoint, as a service tells it.
#[derive(Debug)]
pub(crate) struct Health(pub(crate) Value);

impl Health {
    /// Asks the service; `None` if it does not tell. The command goes on then.
    pub(crate) async fn find(client: &Client, app: &str, endpoint: &str) -> Option<Self> {
        let found = client.get(&["app", app, "endpoint", endpoint, "health"], &[]).await.ok()?;
        found["state"].is_string().then_some(Self(found))
    }

    fn state(&self) -> &str {
        self.0["state"].as_str().unwrap_or_default()
    }

    /// Returns whether deliveries wait for more than their turn.
    pub(crate) fn holds(&self) -> bool {
        self.state() != "sending"
    }

    /// Returns whether an attempt that somebody asks for is made at once all the same.
    pub(crate) fn yields(&self) -> bool {
        match self.state() {
            "probing" => true,
            "held" => self.0["reason"] != "rateLimit",
            _ => false,
        }
    }

    /// Returns the time of the next attempt, for an endpoint that is held.
    pub(crate) fn until(&self) -> Option<Timestamp> {
        self.0["until"].as_str().and_then(|until| until.parse().ok())
    }

    /// Returns the state and the reason, such as `held: 5 failures in a row`.
    pub(crate) fn why(&self) -> String {
        let failures = match self.0["failures"].as_u64() {
            Some(1) => Some("1 failure".to_owned()),
            Some(failures) if failures > 0 => Some(format!("{failures} failures in a row")),
            _ => None,
        };
        let reason = match (self.state(), self.0["reason"].as_str().unwrap_or_default()) {
            ("held" | "probing", "" | "failures") => failures,
            ("held", "pause") => Some("it asked for a pause".to_owned()),
            ("held", "rateLimit") => Some("its rate limit is used up".to_owned()),
            ("paused", _) => Some("its events wait until it is resumed".to_owned()),
            ("disabled", "gone") => Some("it answered 410 Gone".to_owned()),
            ("disabled", "failing") => Some("it failed for too long".to_owned()),
            ("disabled", "manual") => Some("somebody disabled it".to_owned()),
            _ => None,
        };
        let state = visible(self.state());
        reason.map_or_else(|| state.clone(), |reason| format!("{state}: {reason}"))
    }

    /// Returns all of it, such as `held: 5 failures in a row; the next attempt is made in 2m 40s`.
    pub(crate) fn text(&self, now: Timestamp) -> String {
        let why = self.why();
        match (self.state(), self.until(), self.0["failingSince"].as_str()) {
            ("held", Some(until), _) => {
                let left = Duration::from_secs(until.saturating_since(now).as_secs().max(1));
                let left = humantime::format_duration(left);
                format!("{why}; the next attempt is made in {left}")
            }
            ("probing", ..) => format!("{why}; one delivery is tried, and the others wait for it"),
            ("sending", _, Some(since)) => format!("{why}; it fails since {}", visible(since)),
            _ => why,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_state_is_told_with_its_reason_and_what_comes_next() {
        let text = |health: Value| Health(health).text(Timestamp::UNIX_EPOCH);
        let until = "1970-01-01T00:02:40.5Z";
        for (health, expected) in [
            (json!({ "state": "sending" }), "sending"),
            (
                json!({ "state": "sending", "failingSince": "1970-01-01T00:00:00Z" }),
                "sending; it fails since 1970-01-01T00:00:00Z",
            ),
            (
                json!({ "state": "held", "reason": "failures", "failures": 5, "until": until }),
                "held: 5 failures in a row; the next attempt is made in 2m 40s",
            ),
            (
                json!({ "state": "held", "reason": "pause", "until": until }),
                "held: it asked for a pause; the next attempt is made in 2m 40s",
            ),
            (
                json!({ "state": "probing", "failures": 1 }),
                "probing: 1 failure; one delivery is tried, and the others wait for it",
            ),
            (json!({ "state": "paused" }), "paused: its events wait until it is resumed"),
            (json!({ "state": "disabled", "reason": "gone" }), "disabled: it answered 410 Gone"),
            (json!({ "state": "new", "reason": "newer" }), "new"),
        ] {
            assert_eq!(text(health), expected);
        }
    }

    #[test]
    fn a_rate_limit_and_a_pause_by_hand_do_not_yield_to_a_wish() {
        let yields = |state: &str, reason: &str| {
            Health(json!({ "state": state, "reason": reason })).yields()
        };
        assert!(yields("held", "failures") && yields("held", "pause") && yields("probing", ""));
        assert!(!yields("held", "rateLimit") && !yields("paused", "") && !yields("sending", ""));
    }
}
