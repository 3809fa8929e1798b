//! Troubles: the attempts that did not simply succeed, in the order of time, for callers that tell of them.

use std::time::Duration;

use webhooks_core::{DeliveryId, DeliveryStatus, EndpointId, TenantId, Timestamp};

use super::query::{Cursor, Query};

/// A request for the next troubles since a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "callers and tests build it")]
pub struct TroubleRequest {
    /// Those that started at this time or later.
    pub since: Timestamp,
    /// Of those that started exactly then, the ones behind this place; all of them if `None`.
    pub after: Option<Cursor>,
    /// The largest number of troubles, from 1 to 1,000.
    pub limit: usize,
}

impl TroubleRequest {
    /// Returns the number of troubles asked for, within the limits.
    pub fn page_size(&self) -> usize {
        self.limit.clamp(1, Query::MAX_LIMIT)
    }

    /// Returns the place behind which the page begins.
    pub fn place(&self) -> Cursor {
        self.after.unwrap_or(Cursor { key: 0, attempt: 0 })
    }

    /// Returns the request for the troubles that follow this one.
    #[must_use]
    pub fn behind(self, last: &Trouble) -> Self {
        let after = Some(Cursor { key: last.delivery.as_u64(), attempt: last.number });
        Self { since: last.started_at, after, ..self }
    }
}

/// An attempt that failed, or that was not the first of its delivery, and the present state of its delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct Trouble {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The number of the attempt, from 1.
    pub number: u32,
    /// The tenant.
    pub tenant: TenantId,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The time at which the attempt started.
    pub started_at: Timestamp,
    /// The time that it took.
    pub duration: Duration,
    /// Whether it failed.
    pub has_failed: bool,
    /// The status of the delivery.
    pub status: DeliveryStatus,
    /// The number of the delivery's attempts in all.
    pub attempts: u32,
    /// The number of the delivery's attempts before it was last replayed.
    pub attempts_before_replay: u32,
}
