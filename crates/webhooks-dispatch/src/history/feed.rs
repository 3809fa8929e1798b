//! Feeds: the events of a store in the order in which they were accepted, for readers that follow them.

use webhooks_core::{TenantId, Timestamp};

use super::query::{Cursor, Query};
use super::record::EventRecord;

/// A request for the next events of a feed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "callers and tests build it")]
pub struct FeedRequest {
    /// Those of this tenant; those of all tenants if `None`.
    pub tenant: Option<TenantId>,
    /// Those behind this place; from the oldest on if `None`.
    pub after: Option<Cursor>,
    /// Those that were accepted at this time or later.
    pub since: Option<Timestamp>,
    /// The largest number of events, from 1 to 1,000.
    pub limit: usize,
    /// The number of bytes of bodies at which a page ends: it has at least one event, and the body of its
    /// last one may reach beyond.
    pub max_bytes: usize,
}

impl FeedRequest {
    /// Returns the number of events asked for, within the limits.
    pub fn page_size(&self) -> usize {
        self.limit.clamp(1, Query::MAX_LIMIT)
    }

    /// Returns the place behind which the page begins.
    pub fn place(&self) -> Cursor {
        self.after.unwrap_or(Cursor { key: 0, attempt: 0 })
    }

    /// Returns the page of these events, which are all that the store found for the request.
    pub fn page(&self, items: Vec<(Cursor, EventRecord)>) -> FeedPage {
        let next = items.last().map_or_else(|| self.place(), |(cursor, _)| *cursor);
        let bytes: usize = items.iter().map(|(_, event)| event.body.len()).sum();
        let is_full = items.len() >= self.page_size() || bytes >= self.max_bytes.max(1);
        FeedPage { items, next, is_last: !is_full }
    }
}

/// The next events of a feed, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct FeedPage {
    /// The events, each with its place.
    pub items: Vec<(Cursor, EventRecord)>,
    /// The value of [`FeedRequest::after`] with which the feed goes on.
    pub next: Cursor,
    /// Whether no event follows now.
    pub is_last: bool,
}
