//! Ended attempts of a tenant, in the order in which they ended, for readers that follow them.

use webhooks_core::{TenantId, Timestamp};

use super::query::{Cursor, Query};
use super::record::AttemptRecord;

/// A place in the order in which attempts ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::exhaustive_structs, reason = "callers and stores build it")]
pub struct EndedPlace {
    /// The time at which an attempt ended.
    pub ended_at: Timestamp,
    /// The delivery and the number of the attempt, which order those that ended at the same time.
    pub attempt: Cursor,
}

impl EndedPlace {
    /// Returns the place before all attempts that ended at this time or later.
    pub const fn since(time: Timestamp) -> Self {
        Self { ended_at: time, attempt: Cursor { key: 0, attempt: 0 } }
    }
}

/// A request for the next attempts of a tenant that ended behind a place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "callers and tests build it")]
pub struct EndedRequest {
    /// Those of this tenant.
    pub tenant: TenantId,
    /// Those behind this place.
    pub after: EndedPlace,
    /// The largest number of attempts, from 1 to 1,000.
    pub limit: usize,
}

impl EndedRequest {
    /// Returns the number of attempts asked for, within the limits.
    pub fn page_size(&self) -> usize {
        self.limit.clamp(1, Query::MAX_LIMIT)
    }

    /// Returns the page of these attempts, which are all that the store found for the request.
    pub fn page(&self, items: Vec<AttemptRecord>) -> EndedPage {
        let next = items.last().map_or(self.after, AttemptRecord::ended_place);
        EndedPage { is_last: items.len() < self.page_size(), items, next }
    }
}

/// The next attempts that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct EndedPage {
    /// The attempts, in the order in which they ended. There may be fewer than asked for, or none, although others
    /// follow.
    pub items: Vec<AttemptRecord>,
    /// The value of [`EndedRequest::after`] with which the reader goes on.
    pub next: EndedPlace,
    /// Whether no attempt follows now.
    pub is_last: bool,
}

impl AttemptRecord {
    /// Returns the time at which the attempt ended.
    pub fn ended_at(&self) -> Timestamp {
        self.attempt.started_at + self.attempt.duration
    }

    /// Returns its place in the order in which attempts ended.
    pub fn ended_place(&self) -> EndedPlace {
        let attempt = Cursor { key: self.delivery.as_u64(), attempt: self.number };
        EndedPlace { ended_at: self.ended_at(), attempt }
    }
}
