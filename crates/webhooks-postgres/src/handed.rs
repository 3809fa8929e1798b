//! Deliveries that were claimed when they were published: they wait in memory for the next claims of
//! this process's worker, which need not ask the database for them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use webhooks_core::{EndpointId, TenantId, Timestamp};
use webhooks_dispatch::{ClaimRequest, SerializedEvent};
use webhooks_registry::Registration;

/// How long a delivery may wait here. Its lease lasts that much longer than the worker asks for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// How many deliveries may wait for an endpoint of which little is known, or that other workers could
/// serve meanwhile; and for any.
const FIRST_ROOM: usize = 64;
const MOST: usize = 4_096;

/// How many bytes of bodies may wait in all.
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
    pub(crate) since: Timestamp,
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
    /// How many bytes of bodies wait.
    bytes: usize,
    /// How long the worker's claims last; `None` while there is no worker.
    lease: Option<Duration>,
}

#[derive(Debug)]
struct Lane {
    endpoint: EndpointId,
    tenant: TenantId,
    queue: VecDeque<Handed>,
    /// When the worker last claimed something for the endpoint, how many in that second, and how
    /// many in the second before.
    claimed_at: Timestamp,
    claimed: usize,
    claimed_before: usize,
    /// Whether something has waited too long.
    is_slow: bool,
}

impl Lane {
    fn new(registration: &Registration, now: Timestamp) -> Self {
        Self {
            endpoint: registration.id.clone(),
            tenant: registration.endpoint.tenant.clone(),
            queue: VecDeque::new(),
            claimed_at: now,
            claimed: 0,
            claimed_before: 0,
            is_slow: false,
        }
    }

    fn is_used(&self, now: Timestamp) -> bool {
        !self.queue.is_empty() || now.saturating_since(self.claimed_at) < IDLE
    }

    /// Moves time on to a claim.
    fn advance(&mut self, now: Timestamp) {
        match second(now).saturating_sub(second(self.claimed_at)) {
            0 => {}
            1 => self.claimed_before = std::mem::take(&mut self.claimed),
            _ => (self.claimed_before, self.claimed) = (0, 0),
        }
        self.claimed_at = self.claimed_at.max(now);
    }

    /// Returns how many may wait: as many as were lately claimed in a second.
    fn room(&self, now: Timestamp) -> usize {
        let lately = match second(now).saturating_sub(second(self.claimed_at)) {
            0 => self.claimed.max(self.claimed_before),
            1 => self.claimed,
            _ => 0,
        };
        if self.is_slow { lately } else { lately.max(FIRST_ROOM) }
    }
}

fn second(time: Timestamp) -> u64 {
    time.as_unix_microseconds() / 1_000_000
}

impl Lanes {
    /// Notes that a worker claims, and for how long.
    pub(crate) fn start(&mut self, lease: Duration) {
        self.lease = Some(lease);
    }

    /// Notes that the worker claimed a delivery for an endpoint; from now on those to come may be
    /// handed over. An ordered endpoint has no lane: its first delivery alone can be claimed.
    pub(crate) fn claimed(&mut self, number: i64, registration: &Registration, now: Timestamp) {
        let is_known = self.by_endpoint.contains_key(&number);
        if !is_known && (registration.endpoint.ordered || self.by_endpoint.len() >= MOST_LANES) {
            return;
        }
        let lane = self.by_endpoint.entry(number).or_insert_with(|| Lane::new(registration, now));
        lane.advance(now);
        lane.claimed += 1;
    }

    /// Returns the endpoints that deliveries may be handed over for, and until when these are leased;
    /// `None` if there are none. `is_alone` says that no other worker could serve them.
    pub(crate) fn open(&self, now: Timestamp, is_alone: bool) -> Option<(Vec<i64>, Timestamp)> {
        let lease = self.lease.filter(|_| self.bytes < MOST_BYTES)?;
        let most = if is_alone { MOST } else { FIRST_ROOM };
        let lanes = self.by_endpoint.iter();
        let open = lanes.filter(|(_, lane)| lane.queue.len() < lane.room(now).min(most));
        let open: Vec<i64> = open.map(|(number, _)| *number).collect();
        (!open.is_empty()).then(|| (open, now + lease + PATIENCE))
    }

    /// Takes in a delivery; returns it if its lane, or the worker, is gone meanwhile.
    pub(crate) fn put(&mut self, delivery: Handed) -> Result<(), Handed> {
        let lane = self.by_endpoint.get_mut(&delivery.endpoint).filter(|_| self.lease.is_some());
        let Some(lane) = lane else { return Err(delivery) };
        self.bytes += delivery.event.body.len();
        lane.queue.push_back(delivery);
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
        self.bytes -= bytes(&taken);
        taken
    }

    /// Returns the lanes to take from, in turn.
    fn plan(&self, busy: &BTreeSet<EndpointId>) -> Vec<i64> {
        let mut by_tenant: BTreeMap<(bool, &TenantId), Vec<(Timestamp, i64)>> = BTreeMap::new();
        for (number, lane) in
            self.by_endpoint.iter().filter(|(_, lane)| !busy.contains(&lane.endpoint))
        {
            if let Some(first) = lane.queue.front() {
                let was_served = self.served.as_ref().is_some_and(|served| lane.tenant <= *served);
                let lanes = by_tenant.entry((was_served, &lane.tenant)).or_default();
                lanes.push((first.since, *number));
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

    /// Returns since when something waits for an endpoint that is not busy.
    pub(crate) fn next_due(&self, busy: &BTreeSet<EndpointId>) -> Option<Timestamp> {
        let lanes = self.by_endpoint.values().filter(|lane| !busy.contains(&lane.endpoint));
        lanes.filter_map(|lane| lane.queue.front()).map(|first| first.since).min()
    }

    /// Takes what has waited too long, to be handed back.
    pub(crate) fn stale(&mut self, now: Timestamp) -> Vec<Handed> {
        let mut stale = Vec::new();
        for lane in self.by_endpoint.values_mut() {
            let is_stale = |found: &&Handed| now.saturating_since(found.since) > PATIENCE;
            let count = lane.queue.iter().take_while(is_stale).count();
            stale.extend(lane.queue.drain(..count));
            lane.is_slow |= count > 0;
        }
        self.bytes -= bytes(&stale);
        stale
    }

    /// Forgets lanes that nothing is claimed for any more.
    pub(crate) fn sweep(&mut self, now: Timestamp) {
        self.by_endpoint.retain(|_, lane| lane.is_used(now));
    }

    /// Takes out a delivery that was cancelled.
    pub(crate) fn forget(&mut self, id: i64) {
        for lane in self.by_endpoint.values_mut() {
            let place = lane.queue.iter().position(|found| found.id == id);
            if let Some(found) = place.and_then(|place| lane.queue.remove(place)) {
                self.bytes -= found.event.body.len();
            }
        }
    }

    /// Takes everything, to be handed back: the worker ends. Nothing more comes until one claims.
    pub(crate) fn stop(&mut self) -> Vec<Handed> {
        let lanes = std::mem::take(self).by_endpoint.into_values();
        lanes.flat_map(|lane| lane.queue).collect()
    }
}

fn bytes(deliveries: &[Handed]) -> usize {
    deliveries.iter().map(|delivery| delivery.event.body.len()).sum()
}

#[cfg(test)]
mod tests;
