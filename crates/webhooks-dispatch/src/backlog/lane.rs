//! What waits for one endpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use webhooks_core::{DeliveryId, Timestamp};
use webhooks_registry::{EndpointState, Registration};

use super::{Lease, QueueKey, QueuedDelivery, Refill, due_in_order};
use crate::clock::MonotonicTime;

/// The lane is refilled when it holds less than this part of what it may.
const LOW_WATER: usize = 4;

/// How long a lane waits after a refill that failed: the first time, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The deliveries that wait for one endpoint: the first places in memory, the rest on disk.
#[derive(Debug)]
pub(super) struct EndpointBacklog {
    pub(super) registration: Arc<Registration>,
    queue: BTreeMap<QueueKey, QueuedDelivery>,
    bytes: usize,
    /// The first place of those on disk alone; everything before it is here.
    spilled_from: Option<QueueKey>,
    refilling: Option<Refilling>,
    /// How the last refill failed, if it did.
    failed: Option<FailedRefill>,
    /// Whether something made room since the last delivery came: until something is taken, a
    /// refill would bring nothing.
    refill_is_useless: bool,
    /// How many deliveries are claimed.
    pub(super) leased: usize,
    /// When an ordered endpoint goes on.
    pub(super) blocked_until: Timestamp,
    /// Whether the last attempt failed.
    pub(super) is_failing: bool,
    /// Where the backlog lists the lane: when it is due, and whether that had come.
    pub(super) listed: Option<(Timestamp, bool)>,
}

/// When a refill that failed is tried again, and how long that is after the failure.
#[derive(Debug, Clone, Copy)]
struct FailedRefill {
    /// `None` once the time has come.
    retry_at: Option<MonotonicTime>,
    pause: Duration,
}

/// What happened since a store began to read from disk; what it finds may be older.
#[derive(Debug)]
struct Refilling {
    number: u64,
    /// Deliveries that were settled or removed: memory knows better what became of them.
    changed: BTreeSet<DeliveryId>,
    /// The first place that was left to the disk meanwhile.
    spilled: Option<QueueKey>,
}

impl EndpointBacklog {
    pub(super) fn new(
        registration: Arc<Registration>,
        spilled_from: Option<QueueKey>,
        blocked_until: Timestamp,
    ) -> Self {
        Self {
            registration,
            queue: BTreeMap::new(),
            bytes: 0,
            spilled_from,
            refilling: None,
            failed: None,
            refill_is_useless: false,
            leased: 0,
            blocked_until,
            is_failing: false,
            listed: None,
        }
    }

    /// Takes over an endpoint's new settings. If it becomes ordered, what waits loses its due times.
    pub(super) fn change(
        &mut self,
        registration: &Arc<Registration>,
        leases: &mut BTreeMap<DeliveryId, Lease>,
    ) {
        let was_ordered = self.registration.endpoint.ordered;
        self.registration = Arc::clone(registration);
        match (was_ordered, registration.endpoint.ordered) {
            (false, true) => {}
            (true, false) => {
                self.blocked_until = Timestamp::UNIX_EPOCH;
                return;
            }
            (true, true) | (false, false) => return,
        }
        self.rearrange(|_, _| Timestamp::UNIX_EPOCH);
        for lease in leases.values_mut().filter(|lease| lease.endpoint == registration.number) {
            lease.place.0 = Timestamp::UNIX_EPOCH;
        }
    }

    /// Makes due at this time what waits for its first attempt and is due later, up to a place.
    pub(super) fn hasten(&mut self, due_at: Timestamp, through: QueueKey) {
        self.rearrange(|place, waiting| {
            let is_late = waiting.is_first() && place <= through;
            if is_late { place.0.min(due_at) } else { place.0 }
        });
    }

    /// Changes when deliveries are due, after what is on disk was changed in the same way.
    fn rearrange(&mut self, due_at: impl Fn(QueueKey, &QueuedDelivery) -> Timestamp) {
        let queue = std::mem::take(&mut self.queue).into_iter();
        if self.spilled_from.is_some() {
            // What is on disk may come before what is here now, and a read of it is out of date.
            self.refilling = None;
            self.spilled_from = Some((Timestamp::UNIX_EPOCH, DeliveryId::from_u64(0)));
            self.bytes = 0;
            self.refill_is_useless = false;
        } else {
            let moved = |(place, waiting): (QueueKey, QueuedDelivery)| {
                ((due_at(place, &waiting), place.1), waiting)
            };
            self.queue = queue.map(moved).collect();
        }
    }

    /// Returns the due time that counts: an ordered endpoint's deliveries have none.
    pub(super) fn due(&self, due_at: Timestamp) -> Timestamp {
        due_in_order(&self.registration.endpoint, due_at)
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a delivery, or leaves it on disk if it belongs behind others there, or there is no
    /// room; then the last ones make room.
    pub(super) fn push(
        &mut self,
        place: QueueKey,
        waiting: QueuedDelivery,
        limit: usize,
        room: usize,
    ) {
        if self.spilled_from.is_some_and(|spilled_from| spilled_from <= place) {
            if let Some(refilling) = &mut self.refilling {
                let first = refilling.spilled.map_or(place, |first| first.min(place));
                refilling.spilled = Some(first);
            }
            return;
        }
        let most = self.bytes.saturating_add(room);
        self.bytes += waiting.event.body.len();
        if let Some(replaced) = self.queue.insert(place, waiting) {
            self.bytes -= replaced.event.body.len();
        }
        while (self.queue.len() > limit || self.bytes > most)
            && self.queue.len() > 1
            && let Some((place, waiting)) = self.queue.pop_last()
        {
            self.bytes -= waiting.event.body.len();
            self.spilled_from = Some(place);
            self.refill_is_useless = true;
        }
    }

    /// Returns the first delivery here.
    pub(super) fn head(&self) -> Option<&QueuedDelivery> {
        self.queue.first_key_value().map(|(_, waiting)| waiting)
    }

    /// Removes a delivery.
    pub(super) fn remove(&mut self, place: QueueKey) {
        if let Some(waiting) = self.queue.remove(&place) {
            self.bytes -= waiting.event.body.len();
            self.refill_is_useless = false;
        }
    }

    /// Notes that a delivery is settled or removed: what a refill finds of it may be older.
    pub(super) fn change_of(&mut self, id: DeliveryId) {
        if let Some(refilling) = &mut self.refilling {
            refilling.changed.insert(id);
        }
    }

    /// Returns how many could be taken now, up to `room`.
    pub(super) fn available(&self, now: Timestamp, room: usize) -> usize {
        let room = if self.registration.endpoint.ordered { room.min(1) } else { room };
        self.queue.keys().take(room).take_while(|(due, _)| *due <= now).count()
    }

    /// Takes what is due, at most `room`; of an ordered endpoint one at a time.
    pub(super) fn take(&mut self, now: Timestamp, room: usize) -> Vec<(QueueKey, QueuedDelivery)> {
        let room = match self.registration.endpoint.ordered {
            true if self.leased > 0 || self.blocked_until > now => 0,
            true => room.min(1),
            false => room,
        };
        let mut taken = Vec::with_capacity(room.min(self.queue.len()));
        while taken.len() < room
            && self.queue.first_key_value().is_some_and(|((due, _), _)| *due <= now)
            && let Some((place, waiting)) = self.queue.pop_first()
        {
            self.bytes -= waiting.event.body.len();
            self.refill_is_useless = false;
            self.leased += 1;
            taken.push((place, waiting));
        }
        taken
    }

    /// Returns when the first delivery that may be claimed is due. If it is on disk, it comes by a
    /// refill.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let is_ordered = self.registration.endpoint.ordered;
        let is_paused = self.registration.state == EndpointState::Paused;
        if is_paused || (is_ordered && self.leased > 0) {
            return None;
        }
        let first = self.queue.first_key_value().map(|(place, _)| *place);
        let (due, _) = first.or(self.spilled_from)?;
        if first.is_none() && self.retry_at().is_some() {
            return None;
        }
        Some(if is_ordered { self.blocked_until } else { due })
    }

    /// Returns when a refill that failed is tried again, if that is still to come.
    pub(super) fn retry_at(&self) -> Option<MonotonicTime> {
        self.failed.and_then(|failed| failed.retry_at)
    }

    /// Returns whether there is more on disk, little here, and nobody reading yet.
    pub(super) fn is_low(&self, limit: usize) -> bool {
        self.spilled_from.is_some()
            && self.refilling.is_none()
            && self.retry_at().is_none()
            && !self.refill_is_useless
            && self.queue.len() <= limit / LOW_WATER
    }

    pub(super) fn begin_refill(&mut self, number: u64) -> Option<QueueKey> {
        let from = self.spilled_from?;
        self.refilling = Some(Refilling { number, changed: BTreeSet::new(), spilled: None });
        Some(from)
    }

    /// Ends a refill that failed; returns when it is tried again, if the lane is the one that asked.
    pub(super) fn cancel_refill(
        &mut self,
        refill: &Refill,
        now: MonotonicTime,
    ) -> Option<MonotonicTime> {
        self.refilling.take_if(|refilling| refilling.number == refill.number)?;
        let pause = self.failed.map_or(PAUSES.0, |failed| (failed.pause * 2).min(PAUSES.1));
        let at = now + pause;
        self.failed = Some(FailedRefill { retry_at: Some(at), pause });
        Some(at)
    }

    /// Lets the lane be refilled after a refill that failed.
    pub(super) fn allow_refill(&mut self) {
        if let Some(failed) = &mut self.failed {
            failed.retry_at = None;
        }
    }

    /// Notes how far the disk was read, and returns what of it still stands.
    pub(super) fn end_refill(
        &mut self,
        refill: &Refill,
        mut found: Vec<(QueueKey, QueuedDelivery)>,
        next: Option<QueueKey>,
    ) -> Vec<(QueueKey, QueuedDelivery)> {
        // The lane may be another one than that which asked.
        let Some(refilling) = self.refilling.take_if(|refilling| refilling.number == refill.number)
        else {
            return Vec::new();
        };
        // Meanwhile more may have been spilled before the place that was read from.
        if self.spilled_from == Some(refill.from) {
            self.spilled_from = next.into_iter().chain(refilling.spilled).min();
        }
        self.failed = None;
        found.retain(|((_, id), _)| !refilling.changed.contains(id));
        found
    }
}
