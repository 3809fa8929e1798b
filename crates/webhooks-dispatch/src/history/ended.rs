//! Ended attempts: all of them, in the order in which they ended, for readers that follow them.

use webhooks_core::Timestamp;

use super::query::{Cursor, Query};
use super::record::AttemptRecord;

/// A request for the next attempts that ended since a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "callers and tests build it")]
pub struct EndedRequest {
    /// Those that ended at this time or later.
    pub since: Timestamp,
    /// Of those that ended exactly then, the ones behind this place; all of them if `None`.
    pub after: Option<Cursor>,
    /// The largest number of attempts, from 1 to 1,000.
    pub limit: usize,
}

impl EndedRequest {
    /// Returns the number of attempts asked for, within the limits.
    pub fn page_size(&self) -> usize {
        self.limit.clamp(1, Query::MAX_LIMIT)
    }

    /// Returns the place behind which the page begins.
    pub fn place(&self) -> Cursor {
        self.after.unwrap_or(Cursor { key: 0, attempt: 0 })
    }

    /// Returns the request for the attempts that follow this one.
    #[must_use]
    pub fn behind(self, last: &AttemptRecord) -> Self {
        let after = Some(Cursor { key: last.delivery.as_u64(), attempt: last.number });
        Self { since: last.ended_at(), after, ..self }
    }
}

impl AttemptRecord {
    /// Returns the time at which the attempt ended.
    pub fn ended_at(&self) -> Timestamp {
        self.attempt.started_at + self.attempt.duration
    }
}
