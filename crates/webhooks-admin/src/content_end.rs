//! The ends of events' content, where the publisher chose a time.

use serde::{Deserialize, Serialize};
use webhooks_core::{EventId, TenantId, Timestamp};

use crate::record::RecordKind;
use crate::resource::Resource;

/// The time from which the content of an event is deleted, if that is sooner than the event is forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct ContentEnd {
    /// The application.
    pub tenant: TenantId,
    /// The event.
    pub event: EventId,
    /// The time.
    pub at: Timestamp,
}

impl ContentEnd {
    /// Returns its key: the first to end is the first in the order of the keys.
    pub(crate) fn key(&self) -> String {
        format!("{:016x}.{}", self.at.as_unix_microseconds(), self.event)
    }
}

impl Resource for ContentEnd {
    const KIND: RecordKind = RecordKind::ContentEnd;
}
