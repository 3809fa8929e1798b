//! What flies next: lanes of claimed deliveries, a turn for each tenant, bounds on the flights.

mod lane;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use webhooks_core::TenantId;
use webhooks_registry::{EndpointKey, EndpointNumber};

use self::lane::{Lane, Standing};
use crate::breaker::BreakerSettings;
use crate::decide::Signal;
use crate::{Claim, ClaimRequest, Claimed, MonotonicTime, Now};

/// How many slow flights there may be for each quick one. They cost a socket and some memory.
const SLOW_FACTOR: usize = 4;

/// The most that `concurrency` can be, far beyond what a process can have open.
const MAX_CONCURRENCY: usize = 1 << 20;

/// Below how many deliveries that are ready more are claimed, and up to how many; for each flight
/// that may start. A claim is answered before what is ready runs out.
const LOW: usize = 2;
const HIGH: usize = 3;

/// How many deliveries at least are claimed for one endpoint at a time, and at most.
const PER_ENDPOINT: (usize, usize) = (16, 64);

/// How long an idle lane is remembered, with what it knows of its endpoint.
const IDLE: Duration = Duration::from_secs(600);

/// A pure structure: it takes deliveries that were claimed, and says which of them to carry out.
///
/// Two bounds hold the flights: `concurrency` for those that have just started, and a wider one
/// for those that last, so that endpoints that hang do not keep others from starting. An endpoint
/// with slow flights may hold no more than its share of the wider one.
#[derive(Debug)]
pub(crate) struct Scheduler {
    concurrency: usize,
    breaker: BreakerSettings,
    now: MonotonicTime,
    lanes: Vec<Lane>,
    by_endpoint: HashMap<EndpointNumber, usize>,
    /// The same by what names endpoints: one that is enabled again has a new number.
    by_key: HashMap<EndpointKey, usize>,
    free: Vec<usize>,
    /// The lanes that can start a flight, by tenant; tenants in turn.
    turns: VecDeque<TenantId>,
    ready: HashMap<TenantId, VecDeque<usize>>,
    /// How many deliveries the ready lanes hold.
    ready_deliveries: usize,
    /// The lanes that wait, by when they go on.
    waiting: BTreeSet<(MonotonicTime, usize)>,
    /// The endpoints that nothing is claimed for.
    busy: Arc<BTreeSet<EndpointNumber>>,
    /// All claims held: those that wait in lanes, and those in flight.
    held: BTreeMap<Claim, MonotonicTime>,
    /// No lease of those that wait in lanes ends before this.
    leases_end: MonotonicTime,
    /// Claims to hand back, because their lane has closed.
    released: Vec<Claim>,
    /// Counts what may have brought something to claim: changes of the store, free lanes, time.
    stirred: u64,
    /// The count when the present claim was asked for, and how much it may bring.
    asked: (u64, usize),
    /// The count when a claim was asked for that brought less.
    dry_at: Option<u64>,
    flights: usize,
    /// How many of the flights last.
    slow: usize,
    slow_lanes: usize,
    is_stopped: bool,
    #[cfg(feature = "sabotage")]
    pub(crate) leaks_slots: bool,
}

/// A delivery that takes off.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) claimed: Claimed,
    lane: usize,
    is_slow: bool,
}

impl Scheduler {
    pub(crate) fn new(concurrency: usize, breaker: BreakerSettings) -> Self {
        Self {
            concurrency: concurrency.clamp(1, MAX_CONCURRENCY),
            breaker,
            now: MonotonicTime::default(),
            lanes: Vec::new(),
            by_endpoint: HashMap::new(),
            by_key: HashMap::new(),
            free: Vec::new(),
            turns: VecDeque::new(),
            ready: HashMap::new(),
            ready_deliveries: 0,
            waiting: BTreeSet::new(),
            busy: Arc::default(),
            held: BTreeMap::new(),
            leases_end: MonotonicTime::NEVER,
            released: Vec::new(),
            stirred: 0,
            asked: (0, 0),
            dry_at: None,
            flights: 0,
            slow: 0,
            slow_lanes: 0,
            is_stopped: false,
            #[cfg(feature = "sabotage")]
            leaks_slots: false,
        }
    }

    /// Returns what to claim, if there is room for more.
    pub(crate) fn request(&mut self, now: Now, lease: Duration) -> Option<ClaimRequest> {
        self.advance(now.monotonic);
        if self.is_stopped || !self.wants_more() {
            return None;
        }
        let limit = HIGH * self.concurrency - self.ready_deliveries;
        self.asked = (self.stirred, limit);
        let per_endpoint = self.per_endpoint();
        Some(ClaimRequest { now, lease, limit, per_endpoint, busy: Arc::clone(&self.busy) })
    }

    /// Notes that there may be something to claim.
    pub(crate) fn stir(&mut self) {
        self.stirred += 1;
    }

    /// Returns whether the lanes run low.
    pub(crate) fn has_room(&self) -> bool {
        self.ready_deliveries < LOW * self.concurrency
    }

    /// Returns whether the lanes run low, and a claim may bring more.
    fn wants_more(&self) -> bool {
        self.has_room() && self.dry_at != Some(self.stirred)
    }

    pub(crate) fn busy(&self) -> Arc<BTreeSet<EndpointNumber>> {
        Arc::clone(&self.busy)
    }

    fn per_endpoint(&self) -> usize {
        (LOW * self.concurrency).clamp(PER_ENDPOINT.0, PER_ENDPOINT.1)
    }

    /// Takes in what was claimed, with leases that last until then.
    pub(crate) fn offer(&mut self, claimed: Vec<Claimed>, lease_end: MonotonicTime) {
        let (asked_at, limit) = self.asked;
        if claimed.len() < limit {
            self.dry_at = Some(asked_at);
        }
        for claimed in claimed {
            let index = self.lane(&claimed);
            let lane = &mut self.lanes[index];
            if lane.standing == Standing::Waiting || self.is_stopped {
                self.released.push(claimed.claim);
                continue;
            }
            self.held.insert(claimed.claim, lease_end);
            self.leases_end = self.leases_end.min(lease_end);
            lane.update(&claimed.registration, self.now);
            lane.queue.push_back(claimed);
            if lane.standing == Standing::Ready {
                self.ready_deliveries += 1;
            }
            self.place(index);
        }
    }

    fn lane(&mut self, claimed: &Claimed) -> usize {
        let number = claimed.registration.number;
        if let Some(index) = self.by_endpoint.get(&number) {
            return *index;
        }
        let key = claimed.registration.key();
        if let Some(index) = self.by_key.get(&key).copied() {
            self.renumber(index, number);
            return index;
        }
        let lane = Lane::new(&claimed.registration, self.now);
        let index = match self.free.pop() {
            Some(index) => {
                self.lanes[index] = lane;
                index
            }
            None => {
                self.lanes.push(lane);
                self.lanes.len() - 1
            }
        };
        self.by_endpoint.insert(number, index);
        self.by_key.insert(key, index);
        index
    }

    /// Has a lane go on for an endpoint that began anew: what is in flight and what its rate allows
    /// are as they were.
    fn renumber(&mut self, index: usize, number: EndpointNumber) {
        let before = std::mem::replace(&mut self.lanes[index].endpoint, number);
        self.by_endpoint.remove(&before);
        self.by_endpoint.insert(number, index);
        self.set_busy(before, false);
        self.displace(index);
        self.empty(index);
        self.forgive(number);
    }

    /// Returns the next delivery to carry out, if a flight is free.
    pub(crate) fn take(&mut self, now: MonotonicTime) -> Option<Flight> {
        self.advance(now);
        if self.leases_end <= self.now {
            self.drop_lapsed();
        }
        while self.has_free_slot() && !self.is_stopped {
            let tenant = self.turns.pop_front()?;
            let Some(lanes) = self.ready.get_mut(&tenant) else { continue };
            let Some(index) = lanes.pop_front() else {
                self.ready.remove(&tenant);
                continue;
            };
            self.turns.push_back(tenant);
            let (most, slow_share) = self.shares();
            let lane = &mut self.lanes[index];
            self.ready_deliveries -= lane.queue.len();
            lane.standing = Standing::Idle;
            if !lane.can_start(most, slow_share) {
                // Others took the room meanwhile. It goes on when a flight of its own ends.
                continue;
            }
            if let Err(until) = lane.token(self.now) {
                self.close(index, until);
                continue;
            }
            if let Some(claimed) = lane.start(self.now) {
                self.flights += 1;
                self.place(index);
                return Some(Flight { claimed, lane: index, is_slow: false });
            }
            self.place(index);
        }
        None
    }

    /// Returns whether one more may be in flight. Flights that last don't count, as many as there
    /// is room for.
    fn has_free_slot(&self) -> bool {
        self.flights - self.slow.min(self.concurrency * SLOW_FACTOR) < self.concurrency
    }

    /// Returns whether there may be something to claim, or to start beside what has just started.
    pub(crate) fn has_more_to_do(&self) -> bool {
        self.wants_more() || (self.has_free_slot() && !self.turns.is_empty())
    }

    /// Notes that a flight lasts.
    pub(crate) fn slow_down(&mut self, flight: &mut Flight) {
        if std::mem::replace(&mut flight.is_slow, true) {
            return;
        }
        self.slow += 1;
        let lane = &mut self.lanes[flight.lane];
        lane.slow += 1;
        if lane.slow == 1 {
            self.slow_lanes += 1;
        }
        self.place(flight.lane);
    }

    /// Notes that a flight has ended, and what that tells of its endpoint.
    pub(crate) fn land(&mut self, flight: &Flight, signal: Signal, now: MonotonicTime) {
        self.advance(now);
        if !self.leaks(signal) {
            self.give_back(flight);
        }
        let lane = &mut self.lanes[flight.lane];
        if let Some(until) = lane.learn(signal, &self.breaker, self.now) {
            self.close(flight.lane, until);
        } else {
            self.place(flight.lane);
        }
    }

    fn give_back(&mut self, flight: &Flight) {
        let lane = &mut self.lanes[flight.lane];
        lane.in_flight -= 1;
        self.flights -= 1;
        if flight.is_slow {
            self.slow -= 1;
            lane.slow -= 1;
            if lane.slow == 0 {
                self.slow_lanes -= 1;
            }
        }
    }

    #[cfg(feature = "sabotage")]
    fn leaks(&self, signal: Signal) -> bool {
        self.leaks_slots && matches!(signal, Signal::Trouble { .. })
    }

    #[cfg(not(feature = "sabotage"))]
    #[expect(clippy::unused_self, reason = "the other one needs it")]
    fn leaks(&self, _signal: Signal) -> bool {
        false
    }

    /// Forgets a claim whose delivery was settled.
    pub(crate) fn settled(&mut self, claim: &Claim) {
        self.held.remove(claim);
    }

    /// Forgets the claims that do not wait in lanes: nobody will settle them, and their leases end.
    pub(crate) fn abandon(&mut self) {
        let waiting = self.lanes.iter().flat_map(|lane| &lane.queue).map(|claimed| claimed.claim);
        let waiting: BTreeSet<Claim> = waiting.collect();
        self.held.retain(|claim, _| waiting.contains(claim));
    }

    /// Lets a lane wait; what it holds is handed back.
    fn close(&mut self, index: usize, until: MonotonicTime) {
        self.displace(index);
        let lane = &mut self.lanes[index];
        let mut until = until;
        if lane.standing == Standing::Waiting {
            self.waiting.remove(&(lane.waits_until, index));
            until = until.max(lane.waits_until);
        }
        lane.standing = Standing::Waiting;
        lane.waits_until = until;
        self.waiting.insert((until, index));
        let endpoint = lane.endpoint;
        self.empty(index);
        self.set_busy(endpoint, true);
    }

    /// Hands back what waits for an endpoint: it has changed, or is gone.
    pub(crate) fn recall(&mut self, endpoint: EndpointNumber) {
        let Some(index) = self.by_endpoint.get(&endpoint).copied() else { return };
        self.displace(index);
        self.empty(index);
        self.place(index);
    }

    /// Forgets what was learned of an endpoint: it may have been mended.
    pub(crate) fn forgive(&mut self, endpoint: EndpointNumber) {
        let Some(index) = self.by_endpoint.get(&endpoint).copied() else { return };
        let lane = &mut self.lanes[index];
        if lane.standing == Standing::Waiting {
            self.waiting.remove(&(lane.waits_until, index));
            lane.standing = Standing::Idle;
        }
        lane.forgive();
        self.place(index);
    }

    /// Hands back what a lane holds, which is none of the ready ones.
    fn empty(&mut self, index: usize) {
        for claimed in self.lanes[index].queue.drain(..) {
            self.held.remove(&claimed.claim);
            self.released.push(claimed.claim);
        }
    }

    /// Returns the claims to hand back.
    pub(crate) fn released(&mut self) -> Vec<Claim> {
        std::mem::take(&mut self.released)
    }

    /// Drops claims that were lost, unless they are in flight already.
    pub(crate) fn lose(&mut self, lost: &[Claim]) {
        if lost.is_empty() {
            return;
        }
        for claim in lost {
            self.held.remove(claim);
        }
        self.drop_unheld();
    }

    /// Drops claims whose leases have ended: others may have them by now.
    fn drop_lapsed(&mut self) {
        for claimed in self.lanes.iter().flat_map(|lane| &lane.queue) {
            if self.held.get(&claimed.claim).is_some_and(|lease_end| *lease_end <= self.now) {
                self.held.remove(&claimed.claim);
            }
        }
        let ends = self.held.values().copied().filter(|lease_end| *lease_end > self.now);
        self.leases_end = ends.min().unwrap_or(MonotonicTime::NEVER);
        self.drop_unheld();
    }

    fn drop_unheld(&mut self) {
        for index in 0..self.lanes.len() {
            let is_held = |claimed: &Claimed| self.held.contains_key(&claimed.claim);
            if !self.lanes[index].queue.iter().all(is_held) {
                self.displace(index);
                let held = &self.held;
                self.lanes[index].queue.retain(|claimed| held.contains_key(&claimed.claim));
                self.place(index);
            }
        }
    }

    /// Returns the claims whose leases end before then.
    pub(crate) fn ending(&self, before: MonotonicTime) -> Vec<Claim> {
        let ending = self.held.iter().filter(|(_, lease_end)| **lease_end < before);
        ending.map(|(claim, _)| *claim).collect()
    }

    /// Notes that claims last until then.
    pub(crate) fn extended(&mut self, claims: &[Claim], until: MonotonicTime) {
        for claim in claims {
            if let Some(lease_end) = self.held.get_mut(claim) {
                *lease_end = until.max(*lease_end);
            }
        }
    }

    /// Starts nothing more, and hands back what has not started.
    pub(crate) fn stop(&mut self) {
        self.is_stopped = true;
        for index in 0..self.lanes.len() {
            self.displace(index);
            self.empty(index);
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// Returns the claims that were neither settled nor handed back.
    pub(crate) fn held(&self) -> Vec<Claim> {
        self.held.keys().copied().collect()
    }

    /// Returns how many flights there are.
    pub(crate) fn flights(&self) -> usize {
        self.flights
    }

    /// Returns when a lane goes on that waits.
    pub(crate) fn wakes_at(&self) -> Option<MonotonicTime> {
        self.waiting.first().map(|(until, _)| *until)
    }

    /// Forgets lanes that have long been idle.
    pub(crate) fn sweep(&mut self, now: MonotonicTime) {
        self.advance(now);
        for index in 0..self.lanes.len() {
            let lane = &self.lanes[index];
            if lane.is_forgettable()
                && self.now.saturating_since(lane.used_at) >= IDLE
                && self.by_endpoint.get(&lane.endpoint) == Some(&index)
            {
                self.by_endpoint.remove(&lane.endpoint);
                self.by_key.remove(&lane.key());
                self.free.push(index);
            }
        }
    }

    /// Moves time on: lanes whose wait is over go on.
    fn advance(&mut self, now: MonotonicTime) {
        self.now = self.now.max(now);
        while let Some((until, index)) = self.waiting.first().copied()
            && until <= self.now
        {
            self.waiting.pop_first();
            self.lanes[index].standing = Standing::Idle;
            self.place(index);
        }
    }

    /// Returns how many flights an endpoint may have, and one that has slow ones.
    ///
    /// All flights of an endpoint may turn out slow, so the less room there is left for those, the
    /// fewer it may have: however many endpoints begin to hang, the last slots go one to each.
    fn shares(&self) -> (usize, usize) {
        let room = self.concurrency * SLOW_FACTOR;
        let most = room.saturating_sub(self.flights) / (SLOW_FACTOR - 1);
        (most, room / self.slow_lanes.max(1))
    }

    /// Puts a lane among those that can start a flight, or that wait, or neither.
    fn place(&mut self, index: usize) {
        let per_endpoint = self.per_endpoint();
        let (most, slow_share) = self.shares();
        let lane = &mut self.lanes[index];
        let is_full = lane.queue.len() >= per_endpoint || lane.standing == Standing::Waiting;
        if lane.standing == Standing::Idle && lane.can_start(most, slow_share) {
            lane.standing = Standing::Ready;
            self.ready_deliveries += lane.queue.len();
            match self.ready.get_mut(&lane.tenant) {
                Some(lanes) => lanes.push_back(index),
                None => {
                    self.ready.insert(lane.tenant.clone(), VecDeque::from([index]));
                    self.turns.push_back(lane.tenant.clone());
                }
            }
        }
        let endpoint = self.lanes[index].endpoint;
        self.set_busy(endpoint, is_full);
    }

    /// Takes a lane from among those that can start a flight.
    fn displace(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        if lane.standing == Standing::Ready {
            lane.standing = Standing::Idle;
            self.ready_deliveries -= lane.queue.len();
            if let Some(lanes) = self.ready.get_mut(&lane.tenant) {
                lanes.retain(|other| *other != index);
            }
        }
    }

    fn set_busy(&mut self, endpoint: EndpointNumber, is_busy: bool) {
        if self.busy.contains(&endpoint) != is_busy {
            let busy = Arc::make_mut(&mut self.busy);
            if is_busy {
                busy.insert(endpoint);
            } else {
                busy.remove(&endpoint);
                self.stirred += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests;
