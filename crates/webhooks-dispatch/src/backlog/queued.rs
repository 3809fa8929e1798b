//! Queued deliveries, their order, and what a store reads into memory.

use std::sync::Arc;

use webhooks_core::{DeliveryId, Timestamp};
use webhooks_registry::{Endpoint, EndpointNumber};

use crate::serialized_event::SerializedEvent;
use crate::store::Progress;

/// The order of an endpoint's deliveries: by due time, then by acceptance. Those of an ordered
/// endpoint are all due at the epoch, so that acceptance alone counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct QueueKey {
    /// The due time.
    pub due_at: Timestamp,
    /// The delivery: ids grow in the order of acceptance.
    pub delivery: DeliveryId,
}

impl QueueKey {
    /// Returns the last key of all that are due at a time.
    pub fn last_at(due_at: Timestamp) -> Self {
        Self { due_at, delivery: DeliveryId::from_u64(u64::MAX) }
    }

    /// Returns the first key behind this one.
    #[must_use]
    pub fn next(self) -> Self {
        let delivery = DeliveryId::from_u64(self.delivery.as_u64().saturating_add(1));
        Self { delivery, ..self }
    }
}

/// Returns the due time that counts in an endpoint's order: deliveries of an ordered one have none.
pub fn due_in_order(endpoint: &Endpoint, due_at: Timestamp) -> Timestamp {
    if endpoint.ordered { Timestamp::UNIX_EPOCH } else { due_at }
}

/// The part of the backlog that is in memory; the rest is on disk alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct Window {
    /// The largest number of deliveries per endpoint.
    pub per_endpoint: usize,
    /// The largest number of bytes of bodies in all. One delivery per endpoint is in memory in any
    /// case.
    pub bytes: usize,
}

impl Window {
    /// Everything in memory, for a store without a disk.
    pub const ALL: Self = Self { per_endpoint: usize::MAX, bytes: usize::MAX };
}

/// A delivery that waits in a backlog.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct QueuedDelivery {
    /// The event.
    pub event: Arc<SerializedEvent>,
    /// The attempts so far.
    pub progress: Progress,
    /// Whether it waits for the time for which it was scheduled, which is `progress.queued_at`. Such
    /// a delivery is due then, also if its endpoint is ordered, and is not hastened.
    pub is_scheduled: bool,
}

impl QueuedDelivery {
    /// Returns a new delivery of an event that is accepted now, or that is replayed after it was
    /// missed.
    pub fn new(event: Arc<SerializedEvent>, now: Timestamp) -> Self {
        let scheduled = event.scheduled_for(now);
        let progress = Progress::start(scheduled.unwrap_or(now));
        Self { event, progress, is_scheduled: scheduled.is_some() }
    }

    /// Returns the due time with which a store records it, and which counts in its endpoint's order.
    /// `due_at` is the time at which it is due unless it is scheduled.
    pub fn due_in_order(&self, endpoint: &Endpoint, due_at: Timestamp) -> Timestamp {
        if self.is_scheduled { self.progress.queued_at } else { due_in_order(endpoint, due_at) }
    }

    /// Returns whether a clock that was ahead may have given it its due time.
    pub(crate) fn may_be_hastened(&self) -> bool {
        self.awaits_first_attempt() && !self.is_scheduled
    }

    /// Returns whether it waits for its first attempt since it was accepted or replayed.
    pub(crate) fn awaits_first_attempt(&self) -> bool {
        self.progress.next_attempt_in_policy() == 1
    }
}

/// A part of an endpoint's queue to read from disk, in the order of [`QueueKey`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores read it")]
pub struct Refill {
    /// The endpoint.
    pub endpoint: EndpointNumber,
    /// The first key to read.
    pub from: QueueKey,
    /// The largest number of deliveries.
    pub limit: usize,
    /// The length at which the refill ends: the sum of the lengths of their bodies, up to the one that
    /// reaches it.
    pub bytes: usize,
    /// The number of this refill.
    pub number: u64,
}
