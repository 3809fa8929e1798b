//! Attempts at messages that a reader of a poller made, and reports.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use webhooks_core::Timestamp;

use crate::record::RecordKind;
use crate::resource::{FieldError, Resource, check_name};

/// The longest response in bytes: as much as an engine records.
const MAX_RESPONSE: usize = 1024;

/// The longest duration in milliseconds: an hour.
const MAX_DURATION_MS: u32 = 60 * 60 * 1_000;

/// An attempt at a message that a reader of a poller made. Its scope is the application.
///
/// It is a record beside the engine and no attempt of a delivery: a poller has no deliveries, and what a reader
/// reports must change neither retries, nor breakers, nor figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct PollerAttempt {
    /// The id that the reader chose, unique for the poller and the message.
    pub id: String,
    /// The id of the poller.
    pub poller: String,
    /// The id of the message.
    pub event: String,
    /// The type of the message.
    pub event_type: String,
    /// The time at which the message was accepted.
    pub accepted_at: Timestamp,
    /// The time at which the attempt started, by the reader's clock.
    pub started_at: Timestamp,
    /// The time that it took, in milliseconds.
    pub duration_ms: u32,
    /// The status code of the response, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
    /// The start of the response's body; without a response, the reason.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub response: String,
    /// The time at which it was reported.
    pub reported_at: Timestamp,
    /// The time at which it is forgotten.
    pub stored_until: Timestamp,
}

impl PollerAttempt {
    /// Returns the start of the keys of all attempts at a message. The oldest message is the first in the order of
    /// the keys.
    pub fn prefix(accepted_at: Timestamp, event: &str) -> String {
        format!("{}{event}.", Self::key_at(accepted_at))
    }

    /// Returns a key before those of all attempts at messages that were accepted then or later.
    pub fn key_at(accepted_at: Timestamp) -> String {
        format!("{:016x}.", accepted_at.as_unix_microseconds())
    }

    /// Returns its key.
    pub fn key(&self) -> String {
        let Self { accepted_at, event, poller, id, .. } = self;
        format!("{}{poller}.{id}", Self::prefix(*accepted_at, event))
    }

    /// Returns whether the receiver took the message.
    pub fn is_success(&self) -> bool {
        self.status_code.is_some_and(|status| (200..300).contains(&status))
    }

    /// Returns whether another report tells the same.
    pub fn tells_same(&self, other: &Self) -> bool {
        let Self { reported_at, stored_until, .. } = *self;
        *self == Self { reported_at, stored_until, ..other.clone() }
    }
}

impl Resource for PollerAttempt {
    const KIND: RecordKind = RecordKind::PollerAttempt;

    fn check(&self) -> Result<(), FieldError> {
        check_name("attempt_id", &self.id)?;
        if self.response.len() > MAX_RESPONSE {
            return Err(FieldError::new("response", "it has more than 1024 bytes"));
        }
        if self.duration_ms > MAX_DURATION_MS {
            return Err(FieldError::new("responseDurationMs", "it is more than 3600000, an hour"));
        }
        if self.status_code.is_some_and(|status| !(100..600).contains(&status)) {
            return Err(FieldError::new("responseStatusCode", "it is not 100 to 599"));
        }
        Ok(())
    }

    /// Leaves out the response, which may be private.
    fn shown(&self) -> serde_json::Result<Value> {
        Ok(json!({ "event": self.event, "poller": self.poller, "statusCode": self.status_code }))
    }

    fn expires_at(&self) -> Option<Timestamp> {
        Some(self.stored_until)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn attempt() -> PollerAttempt {
        let now = Timestamp::from_unix_seconds(1_000_000);
        PollerAttempt {
            id: "a-1".to_owned(),
            poller: "poll_1".to_owned(),
            event: "msg_1".to_owned(),
            event_type: "user.created".to_owned(),
            accepted_at: now,
            started_at: now,
            duration_ms: 3,
            status_code: Some(204),
            response: String::new(),
            reported_at: now,
            stored_until: now + Duration::from_secs(60),
        }
    }

    #[test]
    fn keys_have_the_order_in_which_messages_were_accepted() {
        let first = attempt();
        let later = first.accepted_at + Duration::from_micros(1);
        let later =
            PollerAttempt { accepted_at: later, event: "msg_0".to_owned(), ..first.clone() };
        assert!(first.key() < later.key());
        assert!(first.key().starts_with(&PollerAttempt::prefix(first.accepted_at, "msg_1")));
        assert!(PollerAttempt::key_at(later.accepted_at) > first.key());
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        assert_eq!(attempt().check(), Ok(()));
        for bad in [
            PollerAttempt { id: "a/b".to_owned(), ..attempt() },
            PollerAttempt { response: "x".repeat(1025), ..attempt() },
            PollerAttempt { duration_ms: 3_600_001, ..attempt() },
            PollerAttempt { status_code: Some(99), ..attempt() },
            PollerAttempt { status_code: Some(600), ..attempt() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_report_is_the_same_whenever_it_comes() {
        let later = attempt().reported_at + Duration::from_secs(1);
        let stored_until = attempt().stored_until + Duration::from_secs(1);
        let again = PollerAttempt { reported_at: later, stored_until, ..attempt() };
        assert!(attempt().tells_same(&again));
        assert!(!attempt().tells_same(&PollerAttempt { status_code: None, ..attempt() }));
    }
}
