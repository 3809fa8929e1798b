//! Replay: deliveries that an endpoint did not get, or gets once more.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use webhooks_core::{DeliveryId, DeliveryStatus, EventId, TenantId, Timestamp};
use webhooks_registry::{EndpointKey, EndpointState};

use crate::store::OperationError;

/// Which deliveries to make due once more, with their retries from the start.
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
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "stores must know each")]
pub enum Replay {
    /// This one, which has ended, however it did.
    Delivery(DeliveryId),
    /// Those of these that have ended, however they did; others are passed over.
    Deliveries(Vec<DeliveryId>),
    /// What an endpoint did not get, under its id: also before it was disabled or registered anew.
    Endpoint {
        /// The endpoint.
        endpoint: EndpointKey,
        /// Which of it.
        which: Undelivered,
        /// The earliest acceptance, or last replay.
        since: Timestamp,
        /// The time before which it was accepted or last replayed; that of the call if `None`.
        until: Option<Timestamp>,
    },
    /// What the endpoints of its tenant did not get of an event.
    Event {
        /// The event's tenant.
        tenant: TenantId,
        /// The event.
        event: EventId,
        /// Which of it.
        which: Undelivered,
    },
}

/// What an endpoint did not get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "there is no fourth way")]
pub struct Undelivered {
    /// What was given up after its attempts.
    pub failed: bool,
    /// What was given up for another reason: also what somebody cancelled by hand.
    pub cancelled: bool,
    /// Events that the endpoint wants and has no delivery of: they came before it was registered,
    /// before it wanted them, or while it was disabled.
    pub missed: bool,
}

impl Undelivered {
    /// Everything, also what somebody cancelled by hand.
    pub const ALL: Self = Self { failed: true, cancelled: true, missed: true };
    /// What was given up after its attempts.
    pub const FAILED: Self = Self { failed: true, cancelled: false, missed: false };
    /// What was given up for another reason.
    pub const CANCELLED: Self = Self { failed: false, cancelled: true, missed: false };
    /// What has no delivery.
    pub const MISSED: Self = Self { failed: false, cancelled: false, missed: true };
}

impl Undelivered {
    /// Returns whether a delivery that ended like this belongs to it.
    pub fn includes(self, status: DeliveryStatus) -> bool {
        match status {
            DeliveryStatus::Failed => self.failed,
            DeliveryStatus::Cancelled => self.cancelled,
            _ => false,
        }
    }
}

impl Replay {
    /// Returns a replay of what an endpoint did not get, whenever it was accepted.
    pub fn of_endpoint(endpoint: EndpointKey, which: Undelivered) -> Self {
        Self::Endpoint { endpoint, which, since: Timestamp::UNIX_EPOCH, until: None }
    }

    /// Returns a replay of what the endpoints of its tenant did not get of an event.
    pub fn of_event(tenant: TenantId, event: EventId, which: Undelivered) -> Self {
        Self::Event { tenant, event, which }
    }

    /// Returns the endpoint that was found under this key, if deliveries may go there.
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

    /// Leaves out what was accepted, or last replayed, before a time, in a replay of an endpoint.
    #[must_use]
    pub fn since(mut self, time: Timestamp) -> Self {
        if let Self::Endpoint { since, .. } = &mut self {
            *since = time;
        }
        self
    }

    /// Leaves out what was accepted, or last replayed, from a time on, in a replay of an endpoint.
    #[must_use]
    pub fn until(mut self, time: Timestamp) -> Self {
        if let Self::Endpoint { until, .. } = &mut self {
            *until = Some(time);
        }
        self
    }
}

/// A portion of a replay, as a store is asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the engine and tests build it")]
pub struct ReplayRequest {
    /// Which deliveries.
    pub replay: Replay,
    /// How many deliveries or events are looked at, at most.
    pub limit: usize,
    /// When the replay began, the same for all portions. What was accepted or replayed since is left
    /// out.
    pub started_at: Timestamp,
    /// The present time, when what is replayed is due.
    pub now: Timestamp,
    /// [`Replayed::next`] of the portion before.
    pub after: Option<ReplayCursor>,
    /// Whether anything is changed.
    pub mode: ReplayMode,
}

impl ReplayRequest {
    /// Returns where this portion begins; `None` if there is nothing to look at.
    pub fn begin(&self, which: Undelivered) -> Option<ReplayCursor> {
        let first = if which.failed || which.cancelled {
            Some(ReplayCursor::Ended(0))
        } else {
            which.missed.then_some(ReplayCursor::Missed(0))
        };
        self.after.or(first)
    }

    /// Returns which of these deliveries this portion looks at, and where the next one goes on.
    pub fn portion<'i>(&self, ids: &'i [DeliveryId]) -> (&'i [DeliveryId], Option<ReplayCursor>) {
        let done = match self.after {
            Some(ReplayCursor::Ended(done)) => usize::try_from(done).unwrap_or(usize::MAX),
            _ => 0,
        };
        let left = ids.get(done..).unwrap_or_default();
        let portion = left.get(..self.limit).unwrap_or(left);
        let done = ids.len() - left.len() + portion.len();
        (portion, (done < ids.len()).then_some(ReplayCursor::Ended(done as u64)))
    }

    /// Returns whether a delivery was accepted or replayed since the replay began: by a portion of it
    /// whose answer was lost, or by others.
    pub fn has_replayed(&self, since: Timestamp) -> bool {
        (self.started_at..=self.now).contains(&since)
    }

    /// Returns where the next portion goes on after one that began here: after the number `last` if
    /// this one was full, else with what was missed, if it is asked for.
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

/// Whether a replay changes anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third way")]
pub enum ReplayMode {
    /// Deliveries are counted and left as they are.
    DryRun,
    /// Deliveries are made due.
    #[default]
    Replay,
}

/// Says what a portion of a replay did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
#[must_use]
pub struct Replayed {
    /// How many deliveries were made due, or would be.
    pub deliveries: usize,
    /// Where the next portion goes on; `None` after the last.
    pub next: Option<ReplayCursor>,
}

/// Where a replay goes on: first through deliveries that have ended, then through events of which
/// there is none. As text: `ended-17`, `missed-4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::exhaustive_enums, reason = "stores build it")]
pub enum ReplayCursor {
    /// After the delivery of this number.
    Ended(u64),
    /// After the event of this number.
    Missed(u64),
}

/// Says that a text is not where a replay goes on.
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
