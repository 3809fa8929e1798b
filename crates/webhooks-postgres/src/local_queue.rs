//! The queues of preclaimed deliveries: they were claimed when they were published, and wait in
//! memory for the next claims of this process's worker, which need not ask the database for them.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use webhooks_core::{TenantId, Timestamp};
use webhooks_dispatch::{
    clock::MonotonicTime,
    store::{ClaimRequest, Room, SerializedEvent},
};
use webhooks_registry::Registration;

/// The longest time that a delivery may wait here. Its lease is longer than those that the worker
/// asks for by this much, so the worker gets it with a lease as long as that of any other claim.
pub(crate) const MAX_LOCAL_WAIT: Duration = Duration::from_secs(5);

/// The least capacity of a queue, unless its endpoint is restrained. While other workers live, also
/// the largest, so that they get their part.
const BASE_PER_ENDPOINT: usize = 64;

/// The largest capacity of a queue.
const MAX_PER_ENDPOINT: usize = 4_096;

/// The maximum of deliveries, and of the bytes of their bodies, in all queues together.
const MAX_TOTAL: usize = 65_536;
const MAX_BYTES: usize = 32 << 20;

/// The maximum of endpoints with a queue. Nothing is preclaimed for the others.
const MAX_QUEUES: usize = 1_024;

/// The time after which an empty queue is removed, if the worker claims nothing for its endpoint.
const UNUSED_TIMEOUT: Duration = Duration::from_mins(1);

/// The time for which an endpoint is restrained after a delivery waited too long, or after this
/// worker could not deliver to it: no more is preclaimed for it than the worker claims.
const RESTRAINT: Duration = Duration::from_mins(1);

/// A delivery that was claimed when it was published.
#[derive(Debug, Clone)]
pub(crate) struct PreclaimedDelivery {
    pub(crate) id: i64,
    /// The number of its endpoint.
    pub(crate) endpoint: i64,
    pub(crate) token: i64,
    /// The time of its acceptance.
    pub(crate) queued_at: Timestamp,
    /// The end of its lease.
    pub(crate) until: MonotonicTime,
    /// The count of its endpoint's deliveries that had been cancelled by hand before it was
    /// published, if that is known. If the count is another one when it is taken, it may be one of
    /// those.
    pub(crate) cancels: Option<i64>,
    pub(crate) event: Arc<SerializedEvent>,
}

/// The permission to preclaim deliveries of the events that are about to be published.
pub(crate) struct PreclaimGrant {
    /// The endpoints, by number, with the count of their deliveries that were cancelled by hand, if
    /// that is known.
    pub(crate) endpoints: BTreeMap<i64, Option<i64>>,
    /// The length of the leases.
    pub(crate) lease: Duration,
    /// The earliest end of the leases.
    pub(crate) until: MonotonicTime,
    pub(crate) token: i64,
}

/// The preclaimed deliveries that wait: one queue for each endpoint that this worker has claimed
/// for in the last minute.
///
/// A pure structure: time is an argument. The capacity of a queue follows the number of deliveries
/// that the worker claims, so that none waits for long.
#[derive(Debug, Default)]
pub(crate) struct LocalQueues {
    by_endpoint: BTreeMap<i64, LocalQueue>,
    /// The tenant that was served last.
    served: Option<TenantId>,
    /// The number of deliveries in all queues, and of the bytes of their bodies.
    count: usize,
    bytes: usize,
    /// The lease that the worker asks for; `None` while there is no worker.
    lease: Option<Duration>,
}

#[derive(Debug)]
struct LocalQueue {
    /// The endpoint as it was when the worker last claimed for it.
    registration: Arc<Registration>,
    /// In the order in which the leases end.
    deliveries: VecDeque<PreclaimedDelivery>,
    /// The time of the worker's last claim for the endpoint.
    claimed_at: MonotonicTime,
    /// The number of claims in the second of that time.
    claims_this_second: usize,
    claims_last_second: usize,
    /// The last time that a delivery had waited too long, or that this worker could not deliver to
    /// the endpoint.
    restrained_at: Option<MonotonicTime>,
    /// The count of the endpoint's deliveries that were cancelled by hand, as last read.
    cancels: Option<i64>,
}

impl LocalQueue {
    fn new(registration: &Arc<Registration>, now: MonotonicTime) -> Self {
        Self {
            registration: Arc::clone(registration),
            deliveries: VecDeque::new(),
            claimed_at: now,
            claims_this_second: 0,
            claims_last_second: 0,
            restrained_at: None,
            cancels: None,
        }
    }

    fn is_used(&self, now: MonotonicTime) -> bool {
        !self.deliveries.is_empty() || now.saturating_since(self.claimed_at) < UNUSED_TIMEOUT
    }

    /// Moves the counts of claims on to the second of a new claim.
    fn advance(&mut self, now: MonotonicTime) {
        match second(now).saturating_sub(second(self.claimed_at)) {
            0 => {}
            1 => self.claims_last_second = std::mem::take(&mut self.claims_this_second),
            _ => (self.claims_last_second, self.claims_this_second) = (0, 0),
        }
        self.claimed_at = self.claimed_at.max(now);
    }

    /// Returns how many deliveries may wait: as many as the worker claimed in one of the last two
    /// seconds, and at least the base unless the endpoint is restrained.
    fn capacity(&self, now: MonotonicTime) -> usize {
        let claims = match second(now).saturating_sub(second(self.claimed_at)) {
            0 => self.claims_this_second.max(self.claims_last_second),
            1 => self.claims_this_second,
            _ => 0,
        };
        let is_recent = |restrained_at| now.saturating_since(restrained_at) < RESTRAINT;
        // The rate allows no more in the time that a delivery may wait here.
        let rate = self.registration.endpoint.rate_limit;
        let most = rate.map_or(usize::MAX, |limit| limit.most_within(MAX_LOCAL_WAIT / 2));
        if self.restrained_at.is_some_and(is_recent) {
            claims
        } else {
            claims.max(BASE_PER_ENDPOINT).min(most)
        }
    }
}

/// Returns the second in which a time lies.
fn second(time: MonotonicTime) -> u64 {
    time.saturating_since(MonotonicTime::default()).as_secs()
}

impl LocalQueues {
    /// Notes that a worker claims with leases of this length.
    pub(crate) fn start(&mut self, lease: Duration) {
        self.lease = Some(lease);
    }

    /// Notes that the worker claimed a delivery for an endpoint; from now on its deliveries may be
    /// preclaimed. An ordered endpoint has no queue: only its first delivery can be claimed.
    pub(crate) fn record_claim(
        &mut self,
        number: i64,
        registration: &Arc<Registration>,
        now: MonotonicTime,
    ) {
        let is_known = self.by_endpoint.contains_key(&number);
        if !is_known && (registration.endpoint.ordered || self.by_endpoint.len() >= MAX_QUEUES) {
            return;
        }
        let queue = self.by_endpoint.entry(number);
        let queue = queue.or_insert_with(|| LocalQueue::new(registration, now));
        queue.registration = Arc::clone(registration);
        queue.advance(now);
        queue.claims_this_second += 1;
    }

    /// Notes that this worker cannot deliver to an endpoint: it has no share of it, or cannot read
    /// it.
    pub(crate) fn record_refusal(&mut self, number: i64, now: MonotonicTime) {
        if let Some(queue) = self.by_endpoint.get_mut(&number) {
            (queue.claims_this_second, queue.claims_last_second) = (0, 0);
            queue.restrained_at = Some(now);
        }
    }

    /// Notes the count of an endpoint's deliveries that were cancelled by hand, as read just now.
    ///
    /// A row's count only grows, so the larger one is the later one.
    pub(crate) fn record_cancels(&mut self, number: i64, cancels: i64) {
        if let Some(queue) = self.by_endpoint.get_mut(&number) {
            queue.cancels = queue.cancels.max(Some(cancels));
        }
    }

    /// Returns the endpoints that have room for all of `events`, a count and the bytes of their
    /// bodies, and the length of the leases; `None` if there is no such endpoint. With each
    /// endpoint comes the count of its deliveries that are known to be cancelled by hand.
    ///
    /// `is_alone` is whether no other worker could serve the deliveries.
    pub(crate) fn endpoints_with_room(
        &self,
        now: MonotonicTime,
        events: (usize, usize),
        is_alone: bool,
    ) -> Option<(BTreeMap<i64, Option<i64>>, Duration)> {
        let (count, bytes) = events;
        let lease = self.lease.filter(|_| self.bytes + bytes <= MAX_BYTES)?;
        let max = if is_alone { MAX_PER_ENDPOINT } else { BASE_PER_ENDPOINT };
        let has_room = |(_, queue): &(&i64, &LocalQueue)| {
            queue.deliveries.len() + count <= queue.capacity(now).min(max)
        };
        // Each event may go to each of these endpoints.
        let endpoints = MAX_TOTAL.saturating_sub(self.count) / count.max(1);
        let with_room = self.by_endpoint.iter().filter(has_room).take(endpoints);
        let with_room: BTreeMap<i64, Option<i64>> =
            with_room.map(|(number, queue)| (*number, queue.cancels)).collect();
        (!with_room.is_empty()).then(|| (with_room, lease + MAX_LOCAL_WAIT))
    }

    /// Adds a delivery; returns it if its queue, or the worker, no longer exists.
    pub(crate) fn push(&mut self, delivery: PreclaimedDelivery) -> Result<(), PreclaimedDelivery> {
        let queue = self.by_endpoint.get_mut(&delivery.endpoint).filter(|_| self.lease.is_some());
        let Some(queue) = queue else { return Err(delivery) };
        self.count += 1;
        self.bytes += delivery.event.body.len();
        // Nearly always the last place. A publish that was blocked comes late, and so does a
        // delivery that a claim puts back.
        let place = queue.deliveries.partition_point(|other| other.until <= delivery.until);
        queue.deliveries.insert(place, delivery);
        Ok(())
    }

    /// Takes the deliveries that a claim asks for. Tenants take turns; within a tenant, the
    /// endpoint whose first delivery has waited longest comes first.
    pub(crate) fn take(&mut self, request: &ClaimRequest) -> Vec<PreclaimedDelivery> {
        let (mut taken, mut bytes) = (Vec::new(), request.bytes);
        for number in self.plan(&request.room) {
            if bytes == 0 || taken.len() >= request.limit {
                break;
            }
            let Some(queue) = self.by_endpoint.get_mut(&number) else { continue };
            let most = request.most_for(&queue.registration).min(request.limit - taken.len());
            for _ in 0..most {
                let Some(delivery) = queue.deliveries.pop_front_if(|_| bytes > 0) else { break };
                bytes = bytes.saturating_sub(delivery.event.body.len());
                taken.push(delivery);
            }
            self.served = Some(queue.registration.endpoint.tenant.clone());
        }
        self.subtract(&taken);
        taken
    }

    /// Returns the endpoints to take from, in turn.
    fn plan(&self, room: &Room) -> Vec<i64> {
        // Tenants up to the one that was served last come after the others.
        let mut by_tenant: BTreeMap<(bool, &TenantId), Vec<(Timestamp, i64)>> = BTreeMap::new();
        for (number, queue) in self.not_busy(room) {
            if let Some(first) = queue.deliveries.front() {
                let tenant = &queue.registration.endpoint.tenant;
                let was_served = self.served.as_ref().is_some_and(|served| tenant <= served);
                let endpoints = by_tenant.entry((was_served, tenant)).or_default();
                endpoints.push((first.queued_at, *number));
            }
        }
        let mut plan: Vec<(usize, usize, i64)> = Vec::new();
        for (turn, endpoints) in by_tenant.values_mut().enumerate() {
            endpoints.sort_unstable();
            let numbers = endpoints.iter().enumerate();
            plan.extend(numbers.map(|(round, (_, number))| (round, turn, *number)));
        }
        plan.sort_unstable();
        plan.into_iter().map(|(_, _, number)| number).collect()
    }

    /// Returns whether a delivery waits for an endpoint that is not busy.
    pub(crate) fn has_some(&self, room: &Room) -> bool {
        self.not_busy(room).next().is_some()
    }

    /// Returns the queues of endpoints that are not busy, except empty ones.
    fn not_busy(&self, room: &Room) -> impl Iterator<Item = (&i64, &LocalQueue)> {
        let is_free = |queue: &LocalQueue| !room.is_busy(queue.registration.number);
        let not_empty = self.by_endpoint.iter().filter(|(_, queue)| !queue.deliveries.is_empty());
        not_empty.filter(move |(_, queue)| is_free(queue))
    }

    /// Takes the deliveries that have waited too long, to be released: the rest of their leases is
    /// shorter than a new lease.
    pub(crate) fn take_stale(&mut self, now: MonotonicTime) -> Vec<PreclaimedDelivery> {
        let least = now + self.lease.unwrap_or_default();
        let mut stale = Vec::new();
        for queue in self.by_endpoint.values_mut() {
            let count = queue.deliveries.partition_point(|delivery| delivery.until < least);
            stale.extend(queue.deliveries.drain(..count));
            if count > 0 {
                queue.restrained_at = Some(now);
            }
        }
        self.subtract(&stale);
        stale
    }

    fn subtract(&mut self, taken: &[PreclaimedDelivery]) {
        self.count -= taken.len();
        self.bytes -= taken.iter().map(|taken| taken.event.body.len()).sum::<usize>();
    }

    /// Removes the queues of endpoints that the worker claims nothing for any more.
    pub(crate) fn remove_idle(&mut self, now: MonotonicTime) {
        self.by_endpoint.retain(|_, queue| queue.is_used(now));
    }

    /// Removes deliveries that were cancelled.
    pub(crate) fn remove_cancelled(&mut self, ids: &[i64]) {
        let ids: HashSet<i64> = ids.iter().copied().collect();
        let mut removed = Vec::new();
        for queue in self.by_endpoint.values_mut() {
            let is_cancelled = |delivery: &PreclaimedDelivery| ids.contains(&delivery.id);
            removed.extend(queue.deliveries.iter().filter(|one| is_cancelled(one)).cloned());
            queue.deliveries.retain(|delivery| !is_cancelled(delivery));
        }
        self.subtract(&removed);
    }

    /// Takes all deliveries, to be released: the worker ends. Nothing is preclaimed until it claims
    /// again.
    pub(crate) fn stop(&mut self) -> Vec<PreclaimedDelivery> {
        let queues = std::mem::take(self).by_endpoint.into_values();
        queues.flat_map(|queue| queue.deliveries).collect()
    }
}

#[cfg(test)]
mod tests;
