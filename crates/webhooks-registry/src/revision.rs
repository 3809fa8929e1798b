//! The revision of an endpoint: how often it was changed, and when.

use webhooks_core::Timestamp;

/// The revision of an endpoint: how often its settings or its state were changed, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it of their columns")]
pub struct Revision {
    /// The version. It grows with each change, and a tenant's endpoint never has the same one twice.
    pub version: u64,
    /// The time at which the endpoint was registered for the first time.
    pub created_at: Timestamp,
    /// The time of the last change of its settings or its state.
    pub updated_at: Timestamp,
    /// The time at which it entered its state.
    pub state_since: Timestamp,
}

impl Revision {
    /// Returns the first revision of an endpoint.
    pub fn first(now: Timestamp) -> Self {
        Self { version: 1, created_at: now, updated_at: now, state_since: now }
    }

    /// Returns the revision after a change of the settings.
    #[must_use]
    pub fn changed(self, now: Timestamp) -> Self {
        Self { version: self.version.saturating_add(1), updated_at: now, ..self }
    }

    /// Returns the revision after a change of the state.
    #[must_use]
    pub fn entered(self, now: Timestamp) -> Self {
        Self { state_since: now, ..self.changed(now) }
    }

    /// Returns the revision with a version that is higher than `last`, the last version of an
    /// earlier endpoint of the same id.
    #[must_use]
    pub fn above(self, last: u64) -> Self {
        Self { version: self.version.max(last.saturating_add(1)), ..self }
    }
}

impl Default for Revision {
    fn default() -> Self {
        Self::first(Timestamp::UNIX_EPOCH)
    }
}
