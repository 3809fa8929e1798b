//! Queries for history, and the places of their pages.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use webhooks_core::{
    Channel, DeliveryId, DeliveryStatus, EndpointId, EventId, Tag, TenantId, Timestamp,
};
use webhooks_registry::Subscription;

use crate::transport::ErrorClass;

/// The events, deliveries or attempts to list: all of them, unless a field is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "callers and tests build it")]
pub struct Query {
    /// Those of this tenant.
    pub tenant: Option<TenantId>,
    /// Those of the endpoints with this id, of any tenant unless one is named. In a list of events,
    /// those that such an endpoint has a delivery of.
    pub endpoint: Option<EndpointId>,
    /// Those of this event.
    pub event: Option<EventId>,
    /// Those of this delivery.
    pub delivery: Option<DeliveryId>,
    /// Those whose delivery has one of these statuses; any status if empty.
    pub statuses: Vec<DeliveryStatus>,
    /// Those whose attempt failed with one of these classes; any result if empty. An event or a
    /// delivery is judged by the last attempt.
    pub error_classes: Vec<ErrorClass>,
    /// Those whose attempt was answered with a status code in this range. An event or a delivery is
    /// judged by the last attempt.
    pub status_codes: Option<RangeInclusive<u16>>,
    /// Those whose delivery has had a number of attempts in this range.
    pub attempts: Option<RangeInclusive<u32>>,
    /// Those whose event type matches.
    pub event_type: Option<Subscription>,
    /// Those whose event has this channel.
    pub channel: Option<Channel>,
    /// Those whose event has this tag.
    pub tag: Option<Tag>,
    /// Those whose event was accepted at this time or later.
    pub since: Option<Timestamp>,
    /// Those whose event was accepted before this time.
    pub until: Option<Timestamp>,
    /// Those after the page that ended with this.
    pub after: Option<Cursor>,
    /// Those before the page that began with this, the nearest ones; they come in the same order. Set
    /// only one of `after` and `before` to turn pages.
    pub before: Option<Cursor>,
    /// The largest number of entries, from 1 to 1,000.
    pub limit: usize,
}

impl Query {
    /// The largest number of entries of a page.
    pub const MAX_LIMIT: usize = 1_000;

    /// Returns the number of entries asked for, within the limits.
    pub fn page_size(&self) -> usize {
        self.limit.clamp(1, Self::MAX_LIMIT)
    }

    /// Returns whether a filter is about deliveries or attempts. A list of events then has those with
    /// such a delivery.
    pub fn is_about_deliveries(&self) -> bool {
        self.endpoint.is_some()
            || self.delivery.is_some()
            || !self.statuses.is_empty()
            || !self.error_classes.is_empty()
            || self.status_codes.is_some()
            || self.attempts.is_some()
    }

    /// Returns whether a filter is about the last attempt of a delivery.
    pub fn is_about_attempts(&self) -> bool {
        !self.error_classes.is_empty() || self.status_codes.is_some()
    }
}

impl Default for Query {
    /// Returns a query for the newest hundred of all.
    fn default() -> Self {
        Self {
            tenant: None,
            endpoint: None,
            event: None,
            delivery: None,
            statuses: Vec::new(),
            error_classes: Vec::new(),
            status_codes: None,
            attempts: None,
            event_type: None,
            channel: None,
            tag: None,
            since: None,
            until: None,
            after: None,
            before: None,
            limit: 100,
        }
    }
}

/// The place at which a page ended. As text: `17-2`, for URLs and callers that store it.
///
/// # Example
/// ```
/// use webhooks_dispatch::history::Cursor;
///
/// let cursor = Cursor { key: 17, attempt: 2 };
/// assert_eq!(cursor.to_string(), "17-2");
/// assert_eq!("17-2".parse::<Cursor>()?, cursor);
/// # Ok::<(), webhooks_dispatch::history::CursorError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct Cursor {
    /// The number of the last event or delivery.
    pub key: u64,
    /// The number of the last attempt; zero if the page is not of attempts.
    pub attempt: u32,
}

/// An error: a text is no cursor of a page.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("this is no cursor of a page; write it like 17-2")]
#[non_exhaustive]
pub struct CursorError;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.key, self.attempt)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (key, attempt) = text.split_once('-').ok_or(CursorError)?;
        let key = key.parse().map_err(|_not_a_number| CursorError)?;
        let attempt = attempt.parse().map_err(|_not_a_number| CursorError)?;
        let cursor = Self { key, attempt };
        // A number can be written in several ways; a cursor has one text.
        if cursor.to_string() == text { Ok(cursor) } else { Err(CursorError) }
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> Self {
        cursor.to_string()
    }
}

impl TryFrom<String> for Cursor {
    type Error = CursorError;

    fn try_from(text: String) -> Result<Self, CursorError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_from_its_text_alone() {
        let last = Cursor { key: u64::MAX, attempt: u32::MAX };
        for cursor in [Cursor { key: 0, attempt: 0 }, last] {
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for text in [
            "",
            "-",
            "17",
            "17-",
            "-2",
            "17-2-3",
            "17--2",
            "a-2",
            "17-4294967296",
            "+17-2",
            "17-+2",
            "017-2",
            "17-02",
            " 17-2",
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(CursorError), "{text:?}");
        }
    }
}
