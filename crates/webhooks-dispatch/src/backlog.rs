//! For implementors of stores that one process owns: the queue of deliveries in memory.
//!
//! [`Backlog`] does the claims, leases, turns and order of such a store, in front of a disk that
//! has all of it. [`DeliveryStore`](crate::store::DeliveryStore) is the port that it helps to
//! implement.

mod queued;

mod due_endpoints;
mod endpoint_queue;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use webhooks_core::{DeliveryId, Timestamp};
use webhooks_registry::{EndpointNumber, Registration};

pub use self::due_endpoints::DueEndpoints;
use self::endpoint_queue::EndpointQueue;
pub use self::queued::{QueueKey, QueuedDelivery, Refill, Window, due_in_order};
use crate::clock::{MonotonicTime, Now};
use crate::store::{Claim, ClaimRequest, Claimed, Outcome, Room, Settlement};

/// The part of the window that a refill may read at least.
const REFILL_DIVISOR: usize = 64;

/// The deliveries that wait, by endpoint, and the claims on them.
///
/// A pure structure: time is an argument, and nothing iterates in random order. A store puts it
/// behind a lock, and writes each change to disk first. The queue of an endpoint holds the first
/// deliveries; those from `spilled_from` on are on disk alone, until the queue runs low and is
/// refilled.
#[derive(Debug)]
pub struct Backlog {
    window: Window,
    /// The monotonic clock at the last claim.
    monotonic: MonotonicTime,
    queues: HashMap<EndpointNumber, EndpointQueue>,
    /// The queues with something to claim in memory.
    due: DueEndpoints,
    /// The queues with nothing in memory and something to claim on disk, by the time at which it is
    /// due.
    unread: BTreeSet<(Timestamp, EndpointNumber)>,
    /// The queues that run low and have more on disk.
    low: BTreeSet<EndpointNumber>,
    /// The queues whose refill failed, by the time at which it is tried again.
    retries: BTreeSet<(MonotonicTime, EndpointNumber)>,
    /// The queues of more than one delivery by the size of their bodies, in powers of two.
    by_size: BTreeSet<(u32, EndpointNumber)>,
    leases: BTreeMap<DeliveryId, Lease>,
    /// A time before which no lease ends.
    leases_end: MonotonicTime,
    next_token: u64,
    next_refill: u64,
    /// The queue that was refilled last.
    last_refilled: EndpointNumber,
    bytes: usize,
}

#[derive(Debug)]
struct Lease {
    token: u64,
    until: MonotonicTime,
    /// Set while the store writes the outcome of the delivery: then the lease does not end.
    is_pinned: bool,
    endpoint: EndpointNumber,
    key: QueueKey,
    delivery: QueuedDelivery,
}

impl Backlog {
    /// Returns an empty backlog.
    pub fn new(window: Window) -> Self {
        // With a limit of zero, a refill would read nothing.
        let window = Window { per_endpoint: window.per_endpoint.max(1), ..window };
        Self {
            window,
            monotonic: MonotonicTime::default(),
            queues: HashMap::new(),
            due: DueEndpoints::new(),
            unread: BTreeSet::new(),
            low: BTreeSet::new(),
            retries: BTreeSet::new(),
            by_size: BTreeSet::new(),
            leases: BTreeMap::new(),
            leases_end: MonotonicTime::NEVER,
            next_token: 1,
            next_refill: 1,
            last_refilled: EndpointNumber::from_u64(0),
            bytes: 0,
        }
    }

    /// Opens the queue of an endpoint, or changes it; closes it if the endpoint is disabled.
    ///
    /// `spilled_from` is the first delivery that is on disk alone, for a queue that is new;
    /// `blocked_until` is the time at which an ordered endpoint goes on.
    pub fn open(
        &mut self,
        registration: &Arc<Registration>,
        spilled_from: Option<QueueKey>,
        blocked_until: Timestamp,
    ) {
        let number = registration.number;
        if !registration.state.is_open() {
            return self.close(number);
        }
        match self.queues.get_mut(&number) {
            Some(queue) => queue.change(registration, &mut self.leases),
            None => {
                let queue =
                    EndpointQueue::new(Arc::clone(registration), spilled_from, blocked_until);
                self.queues.insert(number, queue);
            }
        }
        self.list(number);
    }

    /// Sets whether the last attempt for an endpoint failed, as its store remembers.
    pub fn set_failing(&mut self, endpoint: EndpointNumber, is_failing: bool) {
        if let Some(queue) = self.queues.get_mut(&endpoint) {
            queue.is_failing = is_failing;
        }
    }

    /// Removes the queue of an endpoint, and ends all claims on its deliveries.
    pub fn close(&mut self, endpoint: EndpointNumber) {
        let Some(queue) = self.queues.remove(&endpoint) else { return };
        self.due.remove(endpoint);
        if let Some(due_at) = queue.unread_at {
            self.unread.remove(&(due_at, endpoint));
        }
        self.low.remove(&endpoint);
        if let Some(at) = queue.retry_at() {
            self.retries.remove(&(at, endpoint));
        }
        self.by_size.remove(&(queue.size_class, endpoint));
        self.bytes -= queue.counted_bytes;
        self.leases.retain(|_, lease| lease.endpoint != endpoint);
    }

    /// Adds a delivery, if its endpoint has a queue. An ordered endpoint ignores `due_at`.
    pub fn push(
        &mut self,
        endpoint: EndpointNumber,
        due_at: Timestamp,
        id: DeliveryId,
        delivery: QueuedDelivery,
    ) {
        let Some(queue) = self.queues.get_mut(&endpoint) else { return };
        let key = QueueKey { due_at: queue.due(&delivery, due_at), delivery: id };
        queue.push(key, delivery, self.window.per_endpoint);
        self.list(endpoint);
        while self.bytes > self.window.bytes && self.spill_fullest() {}
    }

    /// Adds a delivery that is on disk, without reading it: a refill reads it when there is room.
    /// `due_at` is the due time that the store has recorded.
    pub fn push_unread(&mut self, endpoint: EndpointNumber, due_at: Timestamp, id: DeliveryId) {
        let Some(queue) = self.queues.get_mut(&endpoint) else { return };
        queue.push_unread(QueueKey { due_at, delivery: id });
        self.list(endpoint);
    }

    /// Leaves the last deliveries of the fullest queue on disk alone, so that what waits for a long
    /// time leaves room to others; returns whether there were any.
    fn spill_fullest(&mut self) -> bool {
        let Some((_, endpoint)) = self.by_size.last().copied() else { return false };
        let Some(queue) = self.queues.get_mut(&endpoint) else { return false };
        // A quarter at a time, so that queues of one size do not take turns for single deliveries.
        let most = queue.bytes() / 4 * 3;
        let has_spilled = queue.spill_to(most);
        self.list(endpoint);
        has_spilled
    }

    /// Removes a delivery that waits or is claimed; a claim on it ends.
    pub fn remove(&mut self, endpoint: EndpointNumber, due_at: Timestamp, id: DeliveryId) {
        let leased = self.leases.remove(&id).is_some();
        let Some(queue) = self.queues.get_mut(&endpoint) else { return };
        queue.change_of(id);
        if leased {
            queue.leased -= 1;
        } else {
            queue.remove(QueueKey { due_at, delivery: id });
        }
        self.list(endpoint);
    }

    /// Returns the first delivery in memory that waits for an endpoint.
    pub(crate) fn head(&self, endpoint: EndpointNumber) -> Option<&QueuedDelivery> {
        self.queues.get(&endpoint)?.first().map(|(_, delivery)| delivery)
    }

    /// Returns whether an ordered endpoint waits for the retry of this delivery, which is its first
    /// one in memory.
    pub(crate) fn is_blocked_by(
        &self,
        endpoint: EndpointNumber,
        id: DeliveryId,
        now: Timestamp,
    ) -> bool {
        let Some(queue) = self.queues.get(&endpoint) else { return false };
        queue.blocked_until > now
            && queue
                .first()
                .is_some_and(|(key, first)| key.delivery == id && !first.awaits_first_attempt())
    }

    /// Returns the time at which an ordered endpoint goes on; that of others lies in the past.
    pub(crate) fn blocked_until(&self, endpoint: EndpointNumber) -> Timestamp {
        self.queues.get(&endpoint).map_or(Timestamp::UNIX_EPOCH, |queue| queue.blocked_until)
    }

    /// Lets an ordered endpoint go on at once. A store calls this when it has removed the delivery
    /// for whose retry the endpoint waited, and the first one that remains waits for no retry.
    pub fn unblock(&mut self, endpoint: EndpointNumber) {
        if let Some(queue) = self.queues.get_mut(&endpoint) {
            queue.blocked_until = Timestamp::UNIX_EPOCH;
            self.list(endpoint);
        }
    }

    /// Makes deliveries of an endpoint due at `due_at` that wait for their first attempt and are
    /// due later, up to `through`. The store has changed the disk in the same way before.
    pub fn hasten(&mut self, endpoint: EndpointNumber, due_at: Timestamp, through: QueueKey) {
        let Some(queue) = self.queues.get_mut(&endpoint) else { return };
        queue.hasten(due_at, through);
        for lease in self.leases.values_mut() {
            if lease.endpoint == endpoint
                && lease.delivery.may_be_hastened()
                && lease.key <= through
            {
                lease.key.due_at = lease.key.due_at.min(due_at);
            }
        }
        self.list(endpoint);
    }

    /// Claims deliveries that are due, with one queue of each tenant in turn.
    pub fn claim(&mut self, request: &ClaimRequest) -> Vec<Claimed> {
        self.advance(request.now);
        let until = request.now.monotonic + request.lease;
        let (queues, now) = (&self.queues, request.now.wall);
        let count = |endpoint| {
            let available =
                |queue: &EndpointQueue| queue.available(now, request.most_for(&queue.registration));
            queues.get(&endpoint).map_or(0, available)
        };
        let plan = self.due.plan(&request.room, request.limit, count);
        let (mut claimed, mut bytes) = (Vec::new(), request.bytes);
        for endpoint in plan {
            let Some(queue) = self.queues.get_mut(&endpoint).filter(|_| bytes > 0) else { break };
            let limit = request.most_for(&queue.registration).min(request.limit - claimed.len());
            for (key, delivery) in queue.take(now, limit, &mut bytes) {
                let token = self.next_token;
                self.next_token += 1;
                claimed.push(Claimed {
                    claim: Claim { delivery: key.delivery, token },
                    registration: Arc::clone(&queue.registration),
                    event: Arc::clone(&delivery.event),
                    progress: delivery.progress,
                    is_failing: queue.is_failing,
                });
                let lease = Lease { token, until, is_pinned: false, endpoint, key, delivery };
                self.leases.insert(key.delivery, lease);
            }
            self.due.set_served(&queue.registration.endpoint.tenant);
            self.list(endpoint);
        }
        self.leases_end = self.leases_end.min(until);
        claimed
    }

    /// Pins the lease of a claim, so that it does not end before [`settle`](Self::settle) or
    /// [`unpin`](Self::unpin); returns whether the claim still held.
    ///
    /// A store pins before it writes. Otherwise the lease could end between the commit and the call
    /// of [`settle`](Self::settle), and a delivery that has ended would be claimed again.
    ///
    /// A claim that is pinned is refused, so only one of two settlements of a claim is recorded. A
    /// store that repeats a write unpins before.
    pub fn pin(&mut self, claim: Claim) -> bool {
        match self.leases.get_mut(&claim.delivery) {
            Some(lease) if lease.token == claim.token && !lease.is_pinned => {
                lease.is_pinned = true;
                true
            }
            _ => false,
        }
    }

    /// Undoes [`pin`](Self::pin): the outcome of the delivery could not be recorded.
    pub fn unpin(&mut self, claim: Claim) {
        if let Some(lease) = self.leases.get_mut(&claim.delivery)
            && lease.token == claim.token
        {
            lease.is_pinned = false;
        }
    }

    /// Borrows the endpoint and the delivery of a claim that holds.
    pub fn claimed(&self, claim: Claim) -> Option<(&Registration, &QueuedDelivery)> {
        let lease = self.leases.get(&claim.delivery).filter(|lease| lease.token == claim.token)?;
        Some((&self.queues.get(&lease.endpoint)?.registration, &lease.delivery))
    }

    /// Returns whether a delivery is claimed.
    pub fn is_claimed(&self, delivery: DeliveryId) -> bool {
        self.leases.contains_key(&delivery)
    }

    /// Ends a claim that holds, and adds the delivery again if it is to be tried again.
    pub fn settle(&mut self, settlement: &Settlement) {
        let id = settlement.claim.delivery;
        let Entry::Occupied(entry) = self.leases.entry(id) else { return };
        if entry.get().token != settlement.claim.token {
            return;
        }
        let Lease { endpoint, key, mut delivery, .. } = entry.remove();
        let Some(queue) = self.queues.get_mut(&endpoint) else { return };
        queue.leased -= 1;
        queue.change_of(id);
        if settlement.attempt.is_some() {
            delivery.progress.attempts = delivery.progress.next_attempt();
        }
        match settlement.outcome {
            Outcome::Retrying { due_at } => {
                if queue.registration.endpoint.ordered {
                    queue.blocked_until = due_at;
                }
                queue.is_failing = true;
                delivery.is_scheduled = false;
                self.push(endpoint, due_at, id, delivery);
            }
            // With its old due time, so that the delivery keeps its key.
            Outcome::Released => self.push(endpoint, key.due_at, id, delivery),
            Outcome::Delivered | Outcome::Failed => {
                queue.is_failing = settlement.outcome == Outcome::Failed;
                self.list(endpoint);
            }
            Outcome::Expired => self.list(endpoint),
        }
    }

    /// Extends a claim to `until`, if that is later; returns whether it still held.
    pub fn extend(&mut self, claim: Claim, until: MonotonicTime) -> bool {
        match self.leases.get_mut(&claim.delivery) {
            Some(lease) if lease.token == claim.token => {
                lease.until = lease.until.max(until);
                true
            }
            _ => false,
        }
    }

    /// Returns the time until there may be something to claim for endpoints that are not busy.
    pub fn next_due(&mut self, room: &Room, now: Now) -> Option<Duration> {
        self.due.advance(now.wall);
        // One on disk counts even if its endpoint is busy: it is read soon, and not often.
        let unread = self.unread.first().map(|(due_at, _)| *due_at);
        let due = self.due.next(room).into_iter().chain(unread).min();
        let due = due.map(|due_at| due_at.saturating_since(now.wall));
        let lease = (!self.leases.is_empty()).then_some(self.leases_end);
        let retry = self.retries.first().map(|(at, _)| *at);
        let wait = |at: MonotonicTime| at.saturating_since(now.monotonic);
        due.into_iter().chain(lease.map(wait)).chain(retry.map(wait)).min()
    }

    /// Returns whether something should be read from disk.
    pub fn is_low(&self) -> bool {
        !self.low.is_empty()
    }

    /// Returns the parts to read from disk now, of at most `queues` queues. A queue is returned one
    /// time until it is refilled.
    pub fn refills(&mut self, queues: usize) -> Vec<Refill> {
        let mut refills = Vec::new();
        while refills.len() < queues {
            // Behind the last one, so that all get their turn.
            let behind = (Bound::Excluded(self.last_refilled), Bound::Unbounded);
            let next = self.low.range(behind).next().or_else(|| self.low.first()).copied();
            let Some(endpoint) = next else { break };
            self.low.remove(&endpoint);
            self.last_refilled = endpoint;
            let Some(queue) = self.queues.get_mut(&endpoint) else { continue };
            let number = self.next_refill;
            if let Some(from) = queue.begin_refill(number) {
                self.next_refill += 1;
                let limit = self.window.per_endpoint;
                // A part of the window, even if it is full: other queues then give way.
                let free = self.window.bytes.saturating_sub(self.bytes);
                let bytes = free.max(self.window.bytes / REFILL_DIVISOR).max(1);
                refills.push(Refill { endpoint, from, limit, bytes, number });
            }
        }
        refills
    }

    /// Adds deliveries that were read from disk. `next` is the first one that was not read; `None`
    /// if there was no more. Changes since [`refills`](Self::refills) are taken into account, so
    /// the store may read without a lock.
    pub fn refill(
        &mut self,
        refill: &Refill,
        found: Vec<(QueueKey, QueuedDelivery)>,
        next: Option<QueueKey>,
    ) {
        let Some(queue) = self.queues.get_mut(&refill.endpoint) else { return };
        for (key, delivery) in queue.end_refill(refill, found, next) {
            // A delivery that is claimed is on disk, too.
            if !self.leases.contains_key(&key.delivery) {
                self.push(refill.endpoint, key.due_at, key.delivery, delivery);
            }
        }
        self.list(refill.endpoint);
    }

    /// Notes that a part could not be read. [`refills`](Self::refills) returns it again after a
    /// second, and after twice the time with each further failure, up to a minute.
    pub fn retry_refill(&mut self, refill: &Refill) {
        let Some(queue) = self.queues.get_mut(&refill.endpoint) else { return };
        if let Some(at) = queue.cancel_refill(refill, self.monotonic) {
            self.retries.insert((at, refill.endpoint));
        }
        self.list(refill.endpoint);
    }

    /// Lets queues be refilled whose refill failed and whose pause is over.
    fn end_retries(&mut self) {
        while let Some((at, _)) = self.retries.first()
            && *at <= self.monotonic
            && let Some((_, endpoint)) = self.retries.pop_first()
        {
            if let Some(queue) = self.queues.get_mut(&endpoint) {
                queue.allow_refill();
            }
            self.list(endpoint);
        }
    }

    /// Moves the time forward: leases end, and queues become ready.
    fn advance(&mut self, now: Now) {
        self.monotonic = now.monotonic;
        if !self.leases.is_empty() && self.leases_end <= now.monotonic {
            self.end_leases(now.monotonic);
        }
        self.due.advance(now.wall);
        self.end_retries();
    }

    fn end_leases(&mut self, now: MonotonicTime) {
        let ended: Vec<DeliveryId> = (self.leases.iter())
            .filter(|(_, lease)| !lease.is_pinned && lease.until <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in ended {
            let Some(Lease { endpoint, key, delivery, .. }) = self.leases.remove(&id) else {
                continue;
            };
            if let Some(queue) = self.queues.get_mut(&endpoint) {
                queue.leased -= 1;
            }
            self.push(endpoint, key.due_at, id, delivery);
        }
        // The lease of a pinned claim may be over, so look again soon.
        let soon = now + Duration::from_secs(1);
        let ends = self.leases.values().map(|lease| lease.until.max(soon)).min();
        self.leases_end = ends.unwrap_or(MonotonicTime::NEVER);
    }

    /// Lists a queue by its next due time and by its size, after it has changed.
    fn list(&mut self, endpoint: EndpointNumber) {
        let Some(queue) = self.queues.get_mut(&endpoint) else { return };
        if queue.is_low(self.window.per_endpoint) {
            self.low.insert(endpoint);
        }
        let (due_at, is_unread) = (queue.next_due(), queue.len() == 0);
        let tenant = &queue.registration.endpoint.tenant;
        self.due.set(endpoint, tenant, due_at.filter(|_| !is_unread));
        let unread_at = due_at.filter(|_| is_unread);
        if queue.unread_at != unread_at {
            if let Some(before) = std::mem::replace(&mut queue.unread_at, unread_at) {
                self.unread.remove(&(before, endpoint));
            }
            self.unread.extend(unread_at.map(|due_at| (due_at, endpoint)));
        }
        let bytes = queue.bytes();
        let before = std::mem::replace(&mut queue.counted_bytes, bytes);
        self.bytes = self.bytes - before + bytes;
        // The first delivery of a queue is never spilled.
        let size = if queue.len() > 1 { bytes } else { 0 };
        let size_class = usize::BITS - size.leading_zeros();
        let before = std::mem::replace(&mut queue.size_class, size_class);
        if before != size_class {
            self.by_size.remove(&(before, endpoint));
            if size > 0 {
                self.by_size.insert((size_class, endpoint));
            }
        }
    }
}

#[cfg(test)]
mod tests;
