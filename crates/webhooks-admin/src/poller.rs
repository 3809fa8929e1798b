//! Pollers: readers that pull the events of an application instead of getting them at a URL.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use webhooks_core::{Channel, Timestamp};

use crate::application::check_uid;
use crate::public_id::IdKind;
use crate::record::RecordKind;
use crate::resource::{FieldError, Resource};

/// The longest description in bytes.
const MAX_DESCRIPTION: usize = 4 * 1024;

/// The most event types.
const MAX_TYPES: usize = 256;

/// The time after which the place of a consumer that no longer polls is forgotten: longer than events are
/// stored by default.
const FORGOTTEN: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// A poller. Its scope is the application.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct Poller {
    /// The owner's id for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Its description for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The patterns of the event types that it gets; all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub event_types: Vec<String>,
    /// The channels of which it gets the events; all events if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<String>,
    /// The time from which it counts as deleted, if it is temporary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl Resource for Poller {
    const KIND: RecordKind = RecordKind::Poller;
    const ID: Option<IdKind> = Some(IdKind::Poller);

    fn alias(&self) -> Option<String> {
        self.uid.clone()
    }

    fn check(&self) -> Result<(), FieldError> {
        if self.description.len() > MAX_DESCRIPTION {
            return Err(FieldError::new("description", "it has more than 4 KiB"));
        }
        if self.event_types.len() > MAX_TYPES {
            return Err(FieldError::new("eventTypes", "there are more than 256"));
        }
        Channel::list(&self.channels)
            .map_err(|error| FieldError::new("channels", error.to_string()))?;
        check_uid(self.uid.as_deref(), IdKind::Poller)
    }

    fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }
}

/// The place of a consumer, which reads a poller on its own. Its scope is the application and the poller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct Consumer {
    /// The place behind which it goes on.
    pub position: String,
    /// The time until which its last poll keeps others from polling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leased_until: Option<Timestamp>,
    /// The time of its last change.
    pub moved_at: Timestamp,
}

impl Resource for Consumer {
    const KIND: RecordKind = RecordKind::Consumer;

    fn expires_at(&self) -> Option<Timestamp> {
        Some(self.moved_at + FORGOTTEN)
    }
}
