//! Replays: deliveries that an endpoint did not get, or gets once more.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use webhooks_core::{DeliveryId, DeliveryStatus, EventId, TenantId, Timestamp};
use webhooks_registry::{EndpointKey, EndpointState};

use crate::store::OperationError;

/// The deliveries to make due once more, with their retries from the start.
///
/// # Example
/// ```
/// use webhooks_core::{EndpointId, Timestamp};
/// use webhooks_dispatch::{Replay, Undelivered};
/// use webhooks_registry::EndpointKey;
///
/// let crm = EndpointKey::of_default_tenant(EndpointId::new("crm")?);
/// let outage = Timestamp::from_unix_seconds(1_767_225_600);
/// let replay = Replay::of_endpoint(crm, Undelivered::ALL).since(outage);
/// # Ok::<(), webhooks_core::IdError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "stores must know each")]
pub enum Replay {
    /// This one, which must have ended, in any way.
    Delivery(DeliveryId),
    /// Those of these that have ended, in any way; others are left out.
    Deliveries(Vec<DeliveryId>),
    /// Deliveries that an endpoint did not get under its id, also before it was disabled or
    /// registered anew.
    Endpoint {
        /// The endpoint.
        endpoint: EndpointKey,
        /// The kinds of them.
        which: Undelivered,
        /// Leaves out deliveries that were accepted, or last replayed, before this time.
        since: Timestamp,
        /// Leaves out deliveries that were accepted, or last replayed, at this time or later; the
        /// time of the call if `None`.
        until: Option<Timestamp>,
    },
    /// Deliveries of an event that the endpoints of its tenant did not get.
    Event {
        /// The event's tenant.
        tenant: TenantId,
        /// The event.
        event: EventId,
        /// The kinds of them.
        which: Undelivered,
    },
}

/// The kinds of deliveries that an endpoint did not get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "there is no fourth way")]
pub struct Undelivered {
    /// Deliveries that failed: no retry is left, or none would help.
    pub failed: bool,
    /// Deliveries that were cancelled for any reason, also by hand.
    pub cancelled: bool,
    /// Events that the endpoint wants and has no delivery of: they came before it was registered,
    /// before it wanted them, or while it was disabled.
    pub missed: bool,
}

impl Undelivered {
    /// All kinds, also deliveries that were cancelled by hand.
    pub const ALL: Self = Self { failed: true, cancelled: true, missed: true };
    /// Failed deliveries alone.
    pub const FAILED: Self = Self { failed: true, cancelled: false, missed: false };
    /// Cancelled deliveries alone.
    pub const CANCELLED: Self = Self { failed: false, cancelled: true, missed: false };
    /// Missed events alone.
    pub const MISSED: Self = Self { failed: false, cancelled: false, missed: true };
}

impl Undelivered {
    /// Returns whether a delivery that ended with `status` is of these kinds.
    pub fn includes(self, status: DeliveryStatus) -> bool {
        match status {
            DeliveryStatus::Failed => self.failed,
            DeliveryStatus::Cancelled => self.cancelled,
            _ => false,
        }
    }
}

impl Replay {
    /// Returns a replay of deliveries that an endpoint did not get, from any time.
    pub fn of_endpoint(endpoint: EndpointKey, which: Undelivered) -> Self {
        Self::Endpoint { endpoint, which, since: Timestamp::UNIX_EPOCH, until: None }
    }

    /// Returns a replay of deliveries of an event that the endpoints of its tenant did not get.
    pub fn of_event(tenant: TenantId, event: EventId, which: Undelivered) -> Self {
        Self::Event { tenant, event, which }
    }

    /// Returns the endpoint that a store found under `key`, if deliveries may go there.
    ///
    /// # Errors
    /// [`OperationError`] when it is unknown or disabled.
    pub fn target<E>(
        key: &EndpointKey,
        found: Option<(EndpointState, E)>,
    ) -> Result<E, OperationError> {
        match found {
            None => Err(OperationError::UnknownEndpoint { endpoint: key.clone() }),
            Some((state, found)) if state.is_open() => Ok(found),
            Some(_) => Err(OperationError::DisabledEndpoint { endpoint: key.clone() }),
        }
    }

    /// Returns the replay with each delivery once: one that is listed twice counts once.
    pub(crate) fn each_once(mut self) -> Self {
        if let Self::Deliveries(ids) = &mut self {
            let mut seen = HashSet::new();
            ids.retain(|id| seen.insert(*id));
        }
        self
    }

    /// Leaves out deliveries that were accepted or last replayed before `time`, in a replay of an
    /// endpoint.
    #[must_use]
    pub fn since(mut self, time: Timestamp) -> Self {
        if let Self::Endpoint { since, .. } = &mut self {
            *since = time;
        }
        self
    }

    /// Leaves out deliveries that were accepted or last replayed from `time` on, in a replay of an
    /// endpoint.
    #[must_use]
    pub fn until(mut self, time: Timestamp) -> Self {
        if let Self::Endpoint { until, .. } = &mut self {
            *until = Some(time);
        }
        self
    }
}

/// A request to a store for a portion of a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the engine and tests build it")]
pub struct ReplayRequest {
    /// The deliveries to replay.
    pub replay: Replay,
    /// The largest number of deliveries or events to look at.
    pub limit: usize,
    /// The time at which the replay began, the same for all portions. Deliveries that were accepted
    /// or replayed since are left out.
    pub started_at: Timestamp,
    /// The present time, at which replayed deliveries are due.
    pub now: Timestamp,
    /// [`Replayed::next`] of the portion before.
    pub after: Option<ReplayCursor>,
    /// The mode: replay or only count.
    pub mode: ReplayMode,
}

impl ReplayRequest {
    /// Returns the place at which this portion begins; `None` if there is nothing to look at.
    pub fn begin(&self, which: Undelivered) -> Option<ReplayCursor> {
        let first = if which.failed || which.cancelled {
            Some(ReplayCursor::Ended(0))
        } else {
            which.missed.then_some(ReplayCursor::Missed(0))
        };
        self.after.or(first)
    }

    /// Returns whether workers are to probe the endpoints of its deliveries: those of the first portion,
    /// so that a replay of many costs an endpoint that is down one attempt.
    pub fn probes(&self) -> bool {
        self.mode == ReplayMode::Replay && self.after.is_none()
    }

    /// Returns the part of `ids` for this portion, and the place at which the next one goes on.
    pub fn portion<'i>(&self, ids: &'i [DeliveryId]) -> (&'i [DeliveryId], Option<ReplayCursor>) {
        // In a list of ids, the number of a cursor is a place in the list and not a delivery's number.
        let done = match self.after {
            Some(ReplayCursor::Ended(done)) => usize::try_from(done).unwrap_or(usize::MAX),
            _ => 0,
        };
        let left = ids.get(done..).unwrap_or_default();
        let portion = left.get(..self.limit).unwrap_or(left);
        let done = ids.len() - left.len() + portion.len();
        (portion, (done < ids.len()).then_some(ReplayCursor::Ended(done as u64)))
    }

    /// Returns whether a delivery was accepted or replayed after the replay began: by a portion
    /// whose answer was lost, or by others.
    pub fn has_replayed(&self, since: Timestamp) -> bool {
        (self.started_at..=self.now).contains(&since)
    }

    /// Returns the place at which the next portion goes on, after one that began at `begin`: after
    /// the number `last` if this one was full, else with missed events if they are asked for.
    pub fn next(
        begin: ReplayCursor,
        which: Undelivered,
        last: Option<u64>,
    ) -> Option<ReplayCursor> {
        match (begin, last) {
            (ReplayCursor::Ended(_), Some(last)) => Some(ReplayCursor::Ended(last)),
            (ReplayCursor::Ended(_), None) => which.missed.then_some(ReplayCursor::Missed(0)),
            (ReplayCursor::Missed(_), last) => last.map(ReplayCursor::Missed),
        }
    }
}

/// The mode of a replay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third way")]
pub enum ReplayMode {
    /// Deliveries are counted and left as they are.
    DryRun,
    /// Deliveries are made due.
    #[default]
    Replay,
}

/// The result of a portion of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
#[must_use]
pub struct Replayed {
    /// The number of deliveries that were made due, or would be in a dry run.
    pub deliveries: usize,
    /// The place at which the next portion goes on; `None` after the last.
    pub next: Option<ReplayCursor>,
}

/// The place at which a replay goes on: first in deliveries that have ended, then in events that
/// were missed. As text: `ended-17`, `missed-4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::exhaustive_enums, reason = "stores build it")]
pub enum ReplayCursor {
    /// After the delivery of this number.
    Ended(u64),
    /// After the event of this number.
    Missed(u64),
}

/// An error: a text is no cursor of a replay.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("this is no cursor of a replay; write it like ended-17")]
#[non_exhaustive]
pub struct ReplayCursorError;

impl fmt::Display for ReplayCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(number) => write!(f, "ended-{number}"),
            Self::Missed(number) => write!(f, "missed-{number}"),
        }
    }
}

impl FromStr for ReplayCursor {
    type Err = ReplayCursorError;

    fn from_str(text: &str) -> Result<Self, ReplayCursorError> {
        let (phase, number) = text.split_once('-').ok_or(ReplayCursorError)?;
        let number = number.parse().map_err(|_not_a_number| ReplayCursorError)?;
        match phase {
            "ended" => Ok(Self::Ended(number)),
            "missed" => Ok(Self::Missed(number)),
            _ => Err(ReplayCursorError),
        }
    }
}
