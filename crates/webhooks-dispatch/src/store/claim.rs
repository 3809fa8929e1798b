//! Claims: the request of a worker, and the deliveries that it gets.

use std::sync::Arc;
use std::time::Duration;

use webhooks_core::{DeliveryId, Timestamp};
use webhooks_registry::Registration;

use super::Room;
use crate::clock::Now;
use crate::serialized_event::SerializedEvent;

/// The time for which a worker holds deliveries of an endpoint with a rate limit: it claims no more
/// than may start within this time.
pub const RATE_SPAN: Duration = Duration::from_secs(1);

/// The request of a worker for deliveries.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "the engine and tests build it")]
pub struct ClaimRequest {
    /// The present time.
    pub now: Now,
    /// The time for which the claims last unless they are extended.
    pub lease: Duration,
    /// The largest number of deliveries.
    pub limit: usize,
    /// The largest number of them for one endpoint.
    pub per_endpoint: usize,
    /// The length at which the claim ends: the sum of the lengths of their bodies, up to the one
    /// that reaches it.
    pub bytes: usize,
    /// The endpoints for which less is claimed, or nothing.
    pub room: Room,
}

impl ClaimRequest {
    /// Returns the largest number of deliveries to claim for an endpoint: none if it is busy, one if
    /// it is ordered, and no more than its rate limit allows within a second.
    pub fn most_for(&self, registration: &Registration) -> usize {
        let endpoint = &registration.endpoint;
        let most = self.per_endpoint.min(self.room.of(registration.number));
        if endpoint.ordered {
            return most.min(1);
        }
        endpoint.rate_limit.map_or(most, |limit| most.min(limit.most_within(RATE_SPAN)))
    }
}

/// A right to deliver. When its lease ends, another worker may take the delivery, and the claim is
/// lost at the latest when one does. The token fences: a store rejects every token of a delivery
/// except the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct Claim {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The token of this claim. No two claims of a delivery have the same.
    pub token: u64,
}

/// A claimed delivery, with all that is needed to carry it out.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
#[must_use]
pub struct Claimed {
    /// The claim, by which the delivery is settled.
    pub claim: Claim,
    /// The endpoint as it is now. Limits that workers share are this worker's share.
    pub registration: Arc<Registration>,
    /// The event.
    pub event: Arc<SerializedEvent>,
    /// The attempts so far.
    pub progress: Progress,
    /// Set if the endpoint's last attempt failed: if the store has a [`Failing`](super::Failing) of
    /// it.
    pub is_failing: bool,
}

/// The progress of a delivery: the attempts so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct Progress {
    /// The time at which the delivery was accepted, or last replayed.
    pub queued_at: Timestamp,
    /// The number of attempts in all.
    pub attempts: u32,
    /// The number of attempts before it was last replayed, or tried by
    /// [`try_now`](super::OperationStore::try_now).
    pub attempts_before_replay: u32,
}

impl Progress {
    /// Returns the progress of a delivery that starts now.
    pub fn start(now: Timestamp) -> Self {
        Self { queued_at: now, attempts: 0, attempts_before_replay: 0 }
    }

    /// Returns the number of the coming attempt over all replays, from 1.
    pub fn next_attempt(&self) -> u32 {
        self.attempts.saturating_add(1)
    }

    /// Returns the number of the coming attempt by which the retry policy counts, from 1.
    pub fn next_attempt_in_policy(&self) -> u32 {
        self.next_attempt().saturating_sub(self.attempts_before_replay)
    }

    /// Returns the progress of the same delivery replayed now.
    #[must_use]
    pub fn replayed(self, now: Timestamp) -> Self {
        Self { queued_at: now, attempts_before_replay: self.attempts, ..self }
    }
}
