//! Limits of single applications, and retry schedules of single event types.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use webhooks_core::Timestamp;

use crate::record::RecordKind;
use crate::resource::{FieldError, Resource};

/// The most endpoints that a limit can allow.
const MAX_ENDPOINTS: u32 = 1_000_000;

/// The most messages on a day.
const MAX_MESSAGES: u64 = 1_000_000_000_000;

/// The longest retention in days: ten years.
const MAX_DAYS: u32 = 3_660;

/// The time after which a day's usage is forgotten.
const USAGE_KEPT: Duration = Duration::from_secs(40 * 24 * 60 * 60);

/// The limits of an application. Its key is the application's id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct Limits {
    /// The most endpoints that it may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_endpoints: Option<u32>,
    /// The most messages that it may publish on a day of UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_per_day: Option<u64>,
    /// The days after which its messages are deleted, if that is sooner than for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_days: Option<u32>,
}

impl Resource for Limits {
    const KIND: RecordKind = RecordKind::Limits;

    fn check(&self) -> Result<(), FieldError> {
        if self.max_endpoints.is_some_and(|endpoints| endpoints > MAX_ENDPOINTS) {
            return Err(FieldError::new("maxEndpoints", "it is more than 1000000"));
        }
        if self.messages_per_day.is_some_and(|messages| messages > MAX_MESSAGES) {
            return Err(FieldError::new("messagesPerDay", "it is more than 1000000000000"));
        }
        if self.retention_days.is_some_and(|days| !(1..=MAX_DAYS).contains(&days)) {
            return Err(FieldError::new("retentionDays", "it is not 1 to 3660"));
        }
        Ok(())
    }
}

/// The delays before the retries of an event type. Its key is the name of the type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct RetrySchedule {
    /// The seconds before each retry.
    pub seconds: Vec<u64>,
}

impl Resource for RetrySchedule {
    const KIND: RecordKind = RecordKind::RetrySchedule;
}

/// The number of messages that an application has published on a day of UTC. Its scope is the application, its key the day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct Usage {
    /// The number of messages.
    pub messages: u64,
    /// The time of the last change.
    pub counted_at: Timestamp,
}

impl Resource for Usage {
    const KIND: RecordKind = RecordKind::Usage;

    fn expires_at(&self) -> Option<Timestamp> {
        Some(self.counted_at + USAGE_KEPT)
    }
}
