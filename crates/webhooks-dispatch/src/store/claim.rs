//! Claims: what a worker asks for, and what it gets.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use webhooks_core::{DeliveryId, Timestamp};
use webhooks_registry::{EndpointNumber, Registration};

use crate::clock::Now;
use crate::serialized_event::SerializedEvent;

/// What a worker is ready to take.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "the engine and tests build it")]
pub struct ClaimRequest {
    /// The present time.
    pub now: Now,
    /// How long the claims last unless extended.
    pub lease: Duration,
    /// How many deliveries at most.
    pub limit: usize,
    /// How many of them at most for one endpoint.
    pub per_endpoint: usize,
    /// The endpoints that get nothing at present: full, or waiting.
    pub busy: Arc<BTreeSet<EndpointNumber>>,
}

/// A right to deliver, until its lease ends. The token fences: a store rejects all but the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct Claim {
    /// The delivery.
    pub delivery: DeliveryId,
    /// Tells this claim from others of the same delivery.
    pub token: u64,
}

/// A claimed delivery, with all that is needed to carry it out.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
#[must_use]
pub struct Claimed {
    /// The claim, by which the delivery is settled.
    pub claim: Claim,
    /// The endpoint as it is now; its limits may be a part of the whole, if workers share them.
    pub registration: Arc<Registration>,
    /// The event.
    pub event: Arc<SerializedEvent>,
    /// How many attempts were made, and since when.
    pub progress: Progress,
    /// Whether the endpoint's last attempt failed, as far as the store knows.
    pub is_failing: bool,
}

/// How far a delivery has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct Progress {
    /// When the delivery was accepted, or last replayed.
    pub queued_at: Timestamp,
    /// How many attempts were made in all.
    pub attempts: u32,
    /// How many of them before it was last replayed.
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
