//! Deliveries that were claimed when they were published: they wait in memory for the next claims of
//! this process's worker, which need not ask the database for them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use webhooks_core::{TenantId, Timestamp};
use webhooks_dispatch::{
    clock::MonotonicTime,
    store::{ClaimRequest, SerializedEvent},
};
use webhooks_registry::{EndpointNumber, Registration};

use crate::row;

/// How long a delivery may wait here: its lease lasts that much longer than the worker asks for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// How many deliveries may wait for an endpoint of which little is known, or that other workers could
/// serve meanwhile; and for any.
const FIRST_ROOM: usize = 64;
const MOST: usize = 4_096;

/// How many deliveries may wait in all, and how many bytes of bodies.
const MOST_IN_ALL: usize = 65_536;
const MOST_BYTES: usize = 32 << 20;

/// How many endpoints have a lane; claims ask the database alone for the others.
const MOST_LANES: usize = 1_024;

/// How long a lane is kept that nothing is claimed for.
const IDLE: Duration = Duration::from_mins(1);

/// A delivery that waits to be taken.
#[derive(Debug, Clone)]
pub(crate) struct Handed {
    pub(crate) id: i64,
    /// The number of its endpoint.
    pub(crate) endpoint: i64,
    pub(crate) token: i64,
    /// When it was accepted.
    pub(crate) queued_at: Timestamp,
    /// When its lease ends.
    pub(crate) until: MonotonicTime,
    /// How many deliveries of its endpoint had been cancelled by hand before it was published, if that
    /// is known. If more are so when it is taken, it may be one of them.
    pub(crate) cancels: Option<i64>,
    pub(crate) event: Arc<SerializedEvent>,
}

/// What waits, a lane for each endpoint that this worker has claimed for lately.
///
/// A pure structure: time is an argument. How much a lane may hold follows from how much the worker
/// claims, so that nothing waits for long.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    by_endpoint: BTreeMap<i64, Lane>,
    /// The tenant that was served last.
    served: Option<TenantId>,
    /// How many deliveries wait, and how many bytes of bodies.
    count: usize,
    bytes: usize,
    /// How long the worker's claims last; `None` while there is no worker.
    lease: Option<Duration>,
}

#[derive(Debug)]
struct Lane {
    tenant: TenantId,
    /// By the ends of the leases.
    queue: VecDeque<Handed>,
    /// When the worker last claimed something for the endpoint, how many in that second, and how
    /// many in the second before.
    claimed_at: MonotonicTime,
    claimed: usize,
    claimed_before: usize,
    /// When something had last waited too long, or was not for this worker.
    slow_at: Option<MonotonicTime>,
    /// How many deliveries of it were cancelled by hand, as last read.
    cancels: Option<i64>,
}

impl Lane {
    fn new(registration: &Registration, now: MonotonicTime) -> Self {
        Self {
            tenant: registration.endpoint.tenant.clone(),
            queue: VecDeque::new(),
            claimed_at: now,
            claimed: 0,
            claimed_before: 0,
            slow_at: None,
            cancels: None,
        }
    }

    fn is_used(&self, now: MonotonicTime) -> bool {
        !self.queue.is_empty() || now.saturating_since(self.claimed_at) < IDLE
    }

    /// Moves time on to a claim.
    fn advance(&mut self, now: MonotonicTime) {
        match second(now).saturating_sub(second(self.claimed_at)) {
            0 => {}
            1 => self.claimed_before = std::mem::take(&mut self.claimed),
            _ => (self.claimed_before, self.claimed) = (0, 0),
        }
        self.claimed_at = self.claimed_at.max(now);
    }

    /// Returns how many may wait: as many as were lately claimed in a second.
    fn room(&self, now: MonotonicTime) -> usize {
        let lately = match second(now).saturating_sub(second(self.claimed_at)) {
            0 => self.claimed.max(self.claimed_before),
            1 => self.claimed,
            _ => 0,
        };
        let is_slow = self.slow_at.is_some_and(|slow_at| now.saturating_since(slow_at) < IDLE);
        if is_slow { lately } else { lately.max(FIRST_ROOM) }
    }
}

fn second(time: MonotonicTime) -> u64 {
    time.saturating_since(MonotonicTime::default()).as_secs()
}

impl Lanes {
    /// Notes that a worker claims, and for how long.
    pub(crate) fn start(&mut self, lease: Duration) {
        self.lease = Some(lease);
    }

    /// Notes that the worker claimed a delivery for an endpoint; from now on those to come may be
    /// handed over. An ordered endpoint has no lane: its first delivery alone can be claimed.
    pub(crate) fn claimed(&mut self, number: i64, registration: &Registration, now: MonotonicTime) {
        let is_known = self.by_endpoint.contains_key(&number);
        if !is_known && (registration.endpoint.ordered || self.by_endpoint.len() >= MOST_LANES) {
            return;
        }
        let lane = self.by_endpoint.entry(number).or_insert_with(|| Lane::new(registration, now));
        lane.advance(now);
        lane.claimed += 1;
    }

    /// Notes that an endpoint is not for this worker.
    pub(crate) fn refuse(&mut self, number: i64, now: MonotonicTime) {
        if let Some(lane) = self.by_endpoint.get_mut(&number) {
            (lane.claimed, lane.claimed_before) = (0, 0);
            lane.slow_at = Some(now);
        }
    }

    /// Notes how many deliveries of an endpoint were cancelled by hand, as read just now.
    pub(crate) fn count_cancels(&mut self, number: i64, cancels: i64) {
        if let Some(lane) = self.by_endpoint.get_mut(&number) {
            lane.cancels = lane.cancels.max(Some(cancels));
        }
    }

    /// Returns the endpoints that so many events, of so many bytes together, may be handed over for,
    /// each with how many of its deliveries are known to be cancelled by hand, and for how long these
    /// are leased; `None` if there are none. `is_alone` says that no other worker could serve them.
    pub(crate) fn open(
        &self,
        now: MonotonicTime,
        events: (usize, usize),
        is_alone: bool,
    ) -> Option<(BTreeMap<i64, Option<i64>>, Duration)> {
        let (count, bytes) = events;
        let lease = self.lease.filter(|_| self.bytes + bytes <= MOST_BYTES)?;
        let most = if is_alone { MOST } else { FIRST_ROOM };
        let has_room =
            |(_, lane): &(&i64, &Lane)| lane.queue.len() + count <= lane.room(now).min(most);
        let lanes = MOST_IN_ALL.saturating_sub(self.count) / count.max(1);
        let open = self.by_endpoint.iter().filter(has_room).take(lanes);
        let open: BTreeMap<i64, Option<i64>> =
            open.map(|(number, lane)| (*number, lane.cancels)).collect();
        (!open.is_empty()).then(|| (open, lease + PATIENCE))
    }

    /// Takes in a delivery; returns it if its lane, or the worker, is gone meanwhile.
    pub(crate) fn put(&mut self, delivery: Handed) -> Result<(), Handed> {
        let lane = self.by_endpoint.get_mut(&delivery.endpoint).filter(|_| self.lease.is_some());
        let Some(lane) = lane else { return Err(delivery) };
        self.count += 1;
        self.bytes += delivery.event.body.len();
        // Nearly always the last.
        let place = lane.queue.partition_point(|other| other.until <= delivery.until);
        lane.queue.insert(place, delivery);
        Ok(())
    }

    /// Takes what a worker is ready for: tenants take turns, and of each the endpoint comes first
    /// that has waited longest.
    pub(crate) fn take(&mut self, request: &ClaimRequest) -> Vec<Handed> {
        let mut taken = Vec::new();
        for number in self.plan(&request.busy) {
            let room = request.per_endpoint.min(request.limit - taken.len());
            let Some(lane) = self.by_endpoint.get_mut(&number).filter(|_| room > 0) else { break };
            taken.extend(lane.queue.drain(..room.min(lane.queue.len())));
            self.served = Some(lane.tenant.clone());
        }
        self.remove(&taken);
        taken
    }

    /// Returns the lanes to take from, in turn.
    fn plan(&self, busy: &BTreeSet<EndpointNumber>) -> Vec<i64> {
        let mut by_tenant: BTreeMap<(bool, &TenantId), Vec<(Timestamp, i64)>> = BTreeMap::new();
        let is_free = |(number, _): &(&i64, &Lane)| !busy.contains(&row::endpoint_number(**number));
        for (number, lane) in self.by_endpoint.iter().filter(is_free) {
            if let Some(first) = lane.queue.front() {
                let was_served = self.served.as_ref().is_some_and(|served| lane.tenant <= *served);
                let lanes = by_tenant.entry((was_served, &lane.tenant)).or_default();
                lanes.push((first.queued_at, *number));
            }
        }
        let mut plan: Vec<(usize, usize, i64)> = Vec::new();
        for (turn, lanes) in by_tenant.values_mut().enumerate() {
            lanes.sort_unstable();
            let numbers = lanes.iter().enumerate();
            plan.extend(numbers.map(|(round, (_, number))| (round, turn, *number)));
        }
        plan.sort_unstable();
        plan.into_iter().map(|(_, _, number)| number).collect()
    }

    /// Returns whether something waits for an endpoint that is not busy.
    pub(crate) fn has_some(&self, busy: &BTreeSet<EndpointNumber>) -> bool {
        let is_free = |number: i64| !busy.contains(&row::endpoint_number(number));
        let mut lanes = self.by_endpoint.iter();
        lanes.any(|(number, lane)| !lane.queue.is_empty() && is_free(*number))
    }

    /// Takes what has waited too long, to be handed back: its lease ends before one of now would.
    pub(crate) fn stale(&mut self, now: MonotonicTime) -> Vec<Handed> {
        let least = now + self.lease.unwrap_or_default();
        let mut stale = Vec::new();
        for lane in self.by_endpoint.values_mut() {
            let count = lane.queue.partition_point(|found| found.until < least);
            stale.extend(lane.queue.drain(..count));
            if count > 0 {
                lane.slow_at = Some(now);
            }
        }
        self.remove(&stale);
        stale
    }

    fn remove(&mut self, taken: &[Handed]) {
        self.count -= taken.len();
        self.bytes -= taken.iter().map(|taken| taken.event.body.len()).sum::<usize>();
    }

    /// Forgets lanes that nothing is claimed for any more.
    pub(crate) fn sweep(&mut self, now: MonotonicTime) {
        self.by_endpoint.retain(|_, lane| lane.is_used(now));
    }

    /// Takes out a delivery that was cancelled.
    pub(crate) fn forget(&mut self, id: i64) {
        let mut forgotten = Vec::new();
        for lane in self.by_endpoint.values_mut() {
            let place = lane.queue.iter().position(|found| found.id == id);
            forgotten.extend(place.and_then(|place| lane.queue.remove(place)));
        }
        self.remove(&forgotten);
    }

    /// Takes everything, to be handed back: the worker ends. Nothing more comes until one claims.
    pub(crate) fn stop(&mut self) -> Vec<Handed> {
        let lanes = std::mem::take(self).by_endpoint.into_values();
        lanes.flat_map(|lane| lane.queue).collect()
    }
}

#[cfg(test)]
mod tests;
