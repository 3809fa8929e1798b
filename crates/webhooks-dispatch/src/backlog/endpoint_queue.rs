//! The queue of one endpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use webhooks_core::{DeliveryId, Timestamp};
use webhooks_registry::{EndpointState, Registration};

use super::{Lease, QueueKey, QueuedDelivery, Refill, due_in_order};
use crate::clock::MonotonicTime;

/// The divisor of the low water mark: a queue is refilled when it holds a quarter of its limit, or
/// less.
const LOW_WATER_DIVISOR: usize = 4;

/// The pause of a queue after a refill that failed: the first one, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The deliveries that wait for one endpoint: the first ones in memory, the rest on disk.
#[derive(Debug)]
pub(super) struct EndpointQueue {
    pub(super) registration: Arc<Registration>,
    deliveries: BTreeMap<QueueKey, QueuedDelivery>,
    bytes: usize,
    /// The first delivery that is on disk alone; all before it are here.
    spilled_from: Option<QueueKey>,
    refilling: Option<Refilling>,
    /// The failure of the last refill, if it failed.
    failed: Option<FailedRefill>,
    /// Set if deliveries were spilled since the last one was taken: a refill would spill them
    /// again.
    refill_is_useless: bool,
    /// The number of deliveries that are claimed.
    pub(super) leased: usize,
    /// The time at which an ordered endpoint goes on.
    pub(super) blocked_until: Timestamp,
    /// Set if the last attempt failed.
    pub(super) is_failing: bool,
    /// The due time by which the backlog lists it, if all that it holds is on disk.
    pub(super) unread_at: Option<Timestamp>,
    /// The bytes that the backlog has counted, and the class by which it lists the queue.
    pub(super) counted_bytes: usize,
    pub(super) size_class: u32,
}

/// A refill that failed: the time at which it is tried again, and the pause before.
#[derive(Debug, Clone, Copy)]
struct FailedRefill {
    /// `None` once the time has come.
    retry_at: Option<MonotonicTime>,
    pause: Duration,
}

/// The changes since a store began to read from disk: it may find older data.
#[derive(Debug)]
struct Refilling {
    number: u64,
    /// The deliveries that were settled or removed meanwhile, whose data on disk may be out of
    /// date.
    changed: BTreeSet<DeliveryId>,
    /// The first delivery that was left on disk meanwhile.
    spilled: Option<QueueKey>,
}

impl EndpointQueue {
    pub(super) fn new(
        registration: Arc<Registration>,
        spilled_from: Option<QueueKey>,
        blocked_until: Timestamp,
    ) -> Self {
        Self {
            registration,
            deliveries: BTreeMap::new(),
            bytes: 0,
            spilled_from,
            refilling: None,
            failed: None,
            refill_is_useless: false,
            leased: 0,
            blocked_until,
            is_failing: false,
            unread_at: None,
            counted_bytes: 0,
            size_class: 0,
        }
    }

    /// Takes over an endpoint's new settings. If it becomes ordered, its deliveries lose their due
    /// times.
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
        let endpoint = &registration.endpoint;
        self.rearrange(|key, delivery| delivery.due_in_order(endpoint, key.due_at));
        // A released delivery goes back to the key of its lease, which must be in the new order.
        for lease in leases.values_mut().filter(|lease| lease.endpoint == registration.number) {
            lease.key.due_at = lease.delivery.due_in_order(endpoint, lease.key.due_at);
        }
    }

    /// Makes deliveries due at `due_at` that wait for their first attempt and are due later, up to
    /// `through`.
    pub(super) fn hasten(&mut self, due_at: Timestamp, through: QueueKey) {
        self.rearrange(|key, delivery| {
            let is_late = delivery.may_be_hastened() && key <= through;
            if is_late { key.due_at.min(due_at) } else { key.due_at }
        });
    }

    /// Changes the due times of deliveries, after the disk was changed in the same way.
    fn rearrange(&mut self, due_at: impl Fn(QueueKey, &QueuedDelivery) -> Timestamp) {
        let deliveries = std::mem::take(&mut self.deliveries).into_iter();
        if self.spilled_from.is_some() {
            // Deliveries on disk may now come before those here, so all are read again. A read that
            // is under way has the old order.
            self.refilling = None;
            let (due_at, delivery) = (Timestamp::UNIX_EPOCH, DeliveryId::from_u64(0));
            self.spilled_from = Some(QueueKey { due_at, delivery });
            self.bytes = 0;
            self.refill_is_useless = false;
        } else {
            let moved = |(key, delivery): (QueueKey, QueuedDelivery)| {
                (QueueKey { due_at: due_at(key, &delivery), ..key }, delivery)
            };
            self.deliveries = deliveries.map(moved).collect();
        }
    }

    /// Returns the due time of a delivery that counts.
    pub(super) fn due(&self, delivery: &QueuedDelivery, due_at: Timestamp) -> Timestamp {
        delivery.due_in_order(&self.registration.endpoint, due_at)
    }

    pub(super) fn len(&self) -> usize {
        self.deliveries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a delivery, or leaves it on disk if it belongs behind others there. The last ones are
    /// spilled if there are more than `limit`.
    pub(super) fn push(&mut self, key: QueueKey, delivery: QueuedDelivery, limit: usize) {
        if self.spilled_from.is_some_and(|spilled_from| spilled_from <= key) {
            if let Some(refilling) = &mut self.refilling {
                let first = refilling.spilled.map_or(key, |first| first.min(key));
                refilling.spilled = Some(first);
            }
            return;
        }
        self.bytes += delivery.event.body.len();
        if let Some(replaced) = self.deliveries.insert(key, delivery) {
            self.bytes -= replaced.event.body.len();
        }
        self.spill(|queue| queue.deliveries.len() > limit);
    }

    /// Leaves a delivery on disk, with all that belong behind it.
    pub(super) fn push_unread(&mut self, key: QueueKey) {
        if let Some(refilling) = &mut self.refilling {
            let first = refilling.spilled.map_or(key, |first| first.min(key));
            refilling.spilled = Some(first);
        }
        while let Some(last) = self.deliveries.last_entry()
            && *last.key() > key
        {
            self.bytes -= last.remove().event.body.len();
        }
        self.spilled_from =
            Some(self.spilled_from.map_or(key, |spilled_from| spilled_from.min(key)));
        self.refill_is_useless = false;
    }

    /// Spills the last deliveries until the queue has at most `bytes`; returns whether there were
    /// any.
    pub(super) fn spill_to(&mut self, bytes: usize) -> bool {
        let before = self.deliveries.len();
        self.spill(|queue| queue.bytes > bytes);
        self.deliveries.len() < before
    }

    /// Leaves the last deliveries on disk alone while there are too many. The first one stays, or
    /// the endpoint would wait for refills for ever.
    fn spill(&mut self, is_too_much: impl Fn(&Self) -> bool) {
        while self.deliveries.len() > 1
            && is_too_much(self)
            && let Some((key, delivery)) = self.deliveries.pop_last()
        {
            self.bytes -= delivery.event.body.len();
            self.spilled_from = Some(key);
            self.refill_is_useless = true;
        }
    }

    /// Returns the first delivery here, and its place.
    pub(super) fn first(&self) -> Option<(&QueueKey, &QueuedDelivery)> {
        self.deliveries.first_key_value()
    }

    /// Removes a delivery. `key` has the due time that its store has recorded.
    pub(super) fn remove(&mut self, key: QueueKey) {
        let in_order = due_in_order(&self.registration.endpoint, key.due_at);
        let removed = self.deliveries.remove(&key);
        let in_order = QueueKey { due_at: in_order, ..key };
        if let Some(delivery) = removed.or_else(|| self.deliveries.remove(&in_order)) {
            self.bytes -= delivery.event.body.len();
            self.refill_is_useless = false;
        }
    }

    /// Notes that a delivery was settled or removed: a refill may find older data of it.
    pub(super) fn change_of(&mut self, id: DeliveryId) {
        if let Some(refilling) = &mut self.refilling {
            refilling.changed.insert(id);
        }
    }

    /// Returns the number of deliveries that could be taken now, up to `limit`.
    pub(super) fn available(&self, now: Timestamp, limit: usize) -> usize {
        self.deliveries.keys().take(limit).take_while(|key| key.due_at <= now).count()
    }

    /// Takes deliveries that are due, at most `limit`, until `bytes` are used up; of an ordered
    /// endpoint none while one is claimed.
    pub(super) fn take(
        &mut self,
        now: Timestamp,
        limit: usize,
        bytes: &mut usize,
    ) -> Vec<(QueueKey, QueuedDelivery)> {
        let is_blocked =
            self.registration.endpoint.ordered && (self.leased > 0 || self.blocked_until > now);
        let limit = if is_blocked { 0 } else { limit };
        let mut taken = Vec::with_capacity(limit.min(self.deliveries.len()));
        while taken.len() < limit
            && *bytes > 0
            && self.deliveries.first_key_value().is_some_and(|(key, _)| key.due_at <= now)
            && let Some((key, delivery)) = self.deliveries.pop_first()
        {
            self.bytes -= delivery.event.body.len();
            *bytes = bytes.saturating_sub(delivery.event.body.len());
            self.refill_is_useless = false;
            self.leased += 1;
            taken.push((key, delivery));
        }
        taken
    }

    /// Returns the time at which the first delivery that may be claimed is due, in memory or on
    /// disk.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let is_ordered = self.registration.endpoint.ordered;
        let is_paused = self.registration.state == EndpointState::Paused;
        if is_paused || (is_ordered && self.leased > 0) {
            return None;
        }
        let first = self.deliveries.first_key_value().map(|(key, _)| *key);
        let due = first.or(self.spilled_from)?.due_at;
        if first.is_none() && self.retry_at().is_some() {
            return None;
        }
        Some(if is_ordered { self.blocked_until.max(due) } else { due })
    }

    /// Returns the time at which a refill that failed is tried again, if it is still to come.
    pub(super) fn retry_at(&self) -> Option<MonotonicTime> {
        self.failed.and_then(|failed| failed.retry_at)
    }

    /// Returns whether there is more on disk, little here, and no read under way.
    pub(super) fn is_low(&self, limit: usize) -> bool {
        self.spilled_from.is_some()
            && self.refilling.is_none()
            && self.retry_at().is_none()
            && !self.refill_is_useless
            && self.deliveries.len() <= limit / LOW_WATER_DIVISOR
    }

    pub(super) fn begin_refill(&mut self, number: u64) -> Option<QueueKey> {
        let from = self.spilled_from?;
        self.refilling = Some(Refilling { number, changed: BTreeSet::new(), spilled: None });
        Some(from)
    }

    /// Ends a refill that failed; returns the time at which it is tried again, unless `refill` is
    /// of an earlier queue.
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

    /// Lets the queue be refilled after a refill that failed.
    pub(super) fn allow_refill(&mut self) {
        if let Some(failed) = &mut self.failed {
            failed.retry_at = None;
        }
    }

    /// Notes up to where the disk was read, and returns the deliveries that are still up to date.
    pub(super) fn end_refill(
        &mut self,
        refill: &Refill,
        mut found: Vec<(QueueKey, QueuedDelivery)>,
        next: Option<QueueKey>,
    ) -> Vec<(QueueKey, QueuedDelivery)> {
        // The queue may have been closed and opened again since the refill began.
        let Some(refilling) = self.refilling.take_if(|refilling| refilling.number == refill.number)
        else {
            return Vec::new();
        };
        // If `spilled_from` moved, deliveries before `from` were spilled meanwhile: all that lies
        // behind them is read again. Otherwise `next`, the first one not read, becomes the limit;
        // as it is inclusive, nothing between two reads is lost.
        if self.spilled_from == Some(refill.from) {
            self.spilled_from = next.into_iter().chain(refilling.spilled).min();
        }
        self.failed = None;
        found.retain(|(key, _)| !refilling.changed.contains(&key.delivery));
        found
    }
}
