//! What flies next: lanes of claimed deliveries, a turn for each tenant, bounds on the flights.

mod claims;
mod known;
mod lane;
mod slots;
mod turns;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use webhooks_core::Timestamp;
use webhooks_registry::{EndpointKey, EndpointNumber};

use self::lane::{Lane, LaneState};
use self::slots::{SLOW_FACTOR, Slots, Trust};
use self::turns::Turns;
use crate::breaker::BreakerSettings;
use crate::clock::{MonotonicTime, Now};
use crate::decide::EndpointSignal;
use crate::store::{Claim, ClaimRequest, Claimed};

/// The most that `concurrency` can be, far beyond what a process can have open.
const MAX_CONCURRENCY: usize = 1 << 20;

/// Below how many deliveries that are ready more are claimed, and up to how many; for each flight
/// that may start. A claim is answered before what is ready runs out.
const LOW_WATER: usize = 2;
const HIGH_WATER: usize = 3;

/// How many deliveries at least are claimed for one endpoint at a time, and at most.
const PER_ENDPOINT: (usize, usize) = (16, 64);

/// How many deliveries are claimed for one endpoint at a time while lanes are parked, so that one
/// claim finds many endpoints, or while more than `MANY` wait for each flight that may start.
const FEW_PER_ENDPOINT: usize = 4;
const MANY: usize = 20;

/// How long ago a delivery was accepted that says nothing against its endpoint.
const FRESH: Duration = Duration::from_secs(1);

/// A pure structure: it takes deliveries that were claimed, and says which of them to carry out.
///
/// Two bounds hold the flights: `concurrency` for those that have just started, and a wider one
/// for those that last, so that endpoints that hang do not keep others from starting. An endpoint
/// with slow flights may hold no more than its share of the wider one. Of both, parts are kept for
/// endpoints that answer quickly (see [`Slots`]); a lane that finds its part taken is parked, and
/// nothing more is claimed for it.
#[derive(Debug)]
pub(crate) struct Scheduler {
    concurrency: usize,
    breaker: BreakerSettings,
    now: MonotonicTime,
    lanes: Vec<Lane>,
    by_endpoint: HashMap<EndpointNumber, usize>,
    /// The same by what names endpoints: one that is enabled again has a new number.
    by_key: HashMap<EndpointKey, usize>,
    free: BTreeSet<usize>,
    /// The lanes that can start a flight.
    turns: Turns,
    /// How many deliveries the ready lanes hold.
    ready_deliveries: usize,
    /// The lanes that wait for a slot of their part, by trust and in turn.
    parked: BTreeMap<(Trust, u64), usize>,
    /// How many lanes were parked so far.
    parkings: u64,
    /// How many deliveries the parked lanes hold.
    parked_deliveries: usize,
    /// The lanes that wait, by when they go on.
    waiting: BTreeSet<(MonotonicTime, usize)>,
    /// The endpoints that nothing is claimed for.
    busy: Arc<BTreeSet<EndpointNumber>>,
    /// All claims held: those that wait in lanes, and those in flight.
    held: BTreeMap<Claim, MonotonicTime>,
    /// How many of them wait in lanes.
    queued: usize,
    /// No lease of those that wait in lanes ends before this.
    leases_end: MonotonicTime,
    /// Claims to hand back, because their lane has closed.
    released: Vec<Claim>,
    /// Counts what may have brought something to claim: changes of the store, free lanes, time.
    changes: u64,
    /// The count when the present claim was asked for, and how much it may bring.
    last_claim: (u64, usize),
    /// The wall clock then.
    last_claim_at: Timestamp,
    /// The count when a claim was asked for that brought less.
    exhausted_at: Option<u64>,
    slots: Slots,
    slow_lanes: usize,
    is_stopped: bool,
    #[cfg(feature = "sabotage")]
    pub(crate) leaks_slots: bool,
}

/// A delivery that takes off.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) claimed: Claimed,
    lane: usize,
    /// The trust that it started with.
    trust: Trust,
    is_slow: bool,
}

impl Scheduler {
    pub(crate) fn new(concurrency: usize, breaker: BreakerSettings) -> Self {
        let concurrency = concurrency.clamp(1, MAX_CONCURRENCY);
        Self {
            concurrency,
            breaker,
            now: MonotonicTime::default(),
            lanes: Vec::new(),
            by_endpoint: HashMap::new(),
            by_key: HashMap::new(),
            free: BTreeSet::new(),
            turns: Turns::default(),
            ready_deliveries: 0,
            parked: BTreeMap::new(),
            parkings: 0,
            parked_deliveries: 0,
            waiting: BTreeSet::new(),
            busy: Arc::default(),
            held: BTreeMap::new(),
            queued: 0,
            leases_end: MonotonicTime::NEVER,
            released: Vec::new(),
            changes: 0,
            last_claim: (0, 0),
            last_claim_at: Timestamp::UNIX_EPOCH,
            exhausted_at: None,
            slots: Slots::new(concurrency),
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
        let limit = HIGH_WATER * self.concurrency - self.ready_deliveries;
        self.last_claim = (self.changes, limit);
        self.last_claim_at = now.wall;
        let per_endpoint = self.per_endpoint();
        Some(ClaimRequest { now, lease, limit, per_endpoint, busy: Arc::clone(&self.busy) })
    }

    /// Notes that there may be something to claim.
    pub(crate) fn note_change(&mut self) {
        self.changes += 1;
    }

    /// Returns whether the lanes run low.
    pub(crate) fn has_room(&self) -> bool {
        self.ready_deliveries < LOW_WATER * self.concurrency
    }

    /// Returns whether the lanes run low, and a claim may bring more.
    fn wants_more(&self) -> bool {
        self.has_room() && self.exhausted_at != Some(self.changes)
    }

    pub(crate) fn busy(&self) -> Arc<BTreeSet<EndpointNumber>> {
        Arc::clone(&self.busy)
    }

    fn per_endpoint(&self) -> usize {
        if self.parked.is_empty() && self.queued < MANY * self.concurrency {
            (LOW_WATER * self.concurrency).clamp(PER_ENDPOINT.0, PER_ENDPOINT.1)
        } else {
            FEW_PER_ENDPOINT
        }
    }

    /// Takes in what was claimed, with leases that last until then.
    pub(crate) fn add_claimed(&mut self, claimed: Vec<Claimed>, lease_end: MonotonicTime) {
        let (changes, limit) = self.last_claim;
        if claimed.len() < limit {
            self.exhausted_at = Some(changes);
        }
        for claimed in claimed {
            let index = self.lane(&claimed);
            let lane = &mut self.lanes[index];
            if lane.state == LaneState::Waiting || self.is_stopped {
                self.released.push(claimed.claim);
                continue;
            }
            self.held.insert(claimed.claim, lease_end);
            self.leases_end = self.leases_end.min(lease_end);
            let is_fresh = self.last_claim_at.saturating_since(claimed.progress.queued_at) < FRESH;
            lane.update(&claimed, is_fresh, &self.breaker, self.now);
            lane.queue.push_back(claimed);
            self.queued += 1;
            match lane.state {
                LaneState::Ready => self.ready_deliveries += 1,
                LaneState::Parked(_) => self.parked_deliveries += 1,
                LaneState::Idle | LaneState::Waiting => {}
            }
            self.enqueue(index);
        }
    }

    /// Returns the next delivery to carry out, if a flight is free.
    pub(crate) fn take(&mut self, now: MonotonicTime) -> Option<InFlight> {
        self.advance(now);
        if self.leases_end <= self.now {
            self.drop_lapsed();
        }
        while self.slots.has_any() && !self.is_stopped {
            self.unpark();
            let index = self.turns.pop()?;
            let (most, slow_share) = self.shares();
            let lane = &mut self.lanes[index];
            self.ready_deliveries -= lane.queue.len();
            lane.state = LaneState::Idle;
            if !lane.can_start(most, slow_share) {
                // Others took the room meanwhile. It goes on when a flight of its own ends.
                continue;
            }
            let trust = lane.trust();
            if !self.slots.has_room(trust) {
                self.park(index, trust);
                continue;
            }
            if let Err(until) = lane.token(self.now) {
                self.pause_until(index, until);
                continue;
            }
            if let Some(claimed) = lane.start(self.now) {
                self.queued -= 1;
                self.slots.start(trust);
                self.enqueue(index);
                return Some(InFlight { claimed, lane: index, trust, is_slow: false });
            }
            self.enqueue(index);
        }
        None
    }

    /// Has a lane wait for a slot of its part. What it holds is handed back if the parked ones hold
    /// much already, and is claimed again in its turn.
    fn park(&mut self, index: usize, trust: Trust) {
        let lane = &mut self.lanes[index];
        lane.state = LaneState::Parked(self.parkings);
        lane.parked_as = trust;
        self.parked.insert((trust, self.parkings), index);
        self.parkings += 1;
        let (held, endpoint) = (lane.queue.len(), lane.endpoint);
        if self.parked_deliveries + held > HIGH_WATER * self.concurrency {
            self.release_queue(index);
        } else {
            self.parked_deliveries += held;
        }
        self.set_busy(endpoint, true);
    }

    /// Has the first lane of each trust go on that waits for a slot, if there is one.
    fn unpark(&mut self) {
        for index in self.unparkable() {
            self.dequeue(index);
            self.enqueue(index);
        }
    }

    /// Returns the first parked lane of each trust that there is a slot for.
    fn unparkable(&self) -> Vec<usize> {
        if self.parked.is_empty() {
            return Vec::new();
        }
        let first = |trust| self.parked.range((trust, 0)..=(trust, u64::MAX)).next();
        let has_room = |trust: &Trust| self.slots.has_room(*trust);
        Trust::ALL.into_iter().filter(has_room).filter_map(first).map(|(_, index)| *index).collect()
    }

    /// Returns whether there may be something to claim, or to start beside what has just started.
    pub(crate) fn has_more_to_do(&self) -> bool {
        self.wants_more()
            || (self.slots.has_any() && !self.turns.is_empty())
            || !self.unparkable().is_empty()
    }

    /// Notes that a flight lasts.
    pub(crate) fn slow_down(&mut self, flight: &mut InFlight) {
        if std::mem::replace(&mut flight.is_slow, true) {
            return;
        }
        self.slots.slow_down(flight.trust);
        let lane = &mut self.lanes[flight.lane];
        lane.slow += 1;
        if lane.slow == 1 {
            self.slow_lanes += 1;
        }
        self.enqueue(flight.lane);
    }

    /// Notes that a flight has ended, and what that tells of its endpoint.
    pub(crate) fn finish(&mut self, flight: &InFlight, signal: EndpointSignal, now: MonotonicTime) {
        self.advance(now);
        if !self.leaks(signal) {
            self.give_back(flight);
        }
        let lane = &mut self.lanes[flight.lane];
        // An endpoint that began anew meanwhile may have been mended, or be another.
        let is_current = flight.claimed.registration.number == lane.endpoint;
        let signal = if is_current { signal } else { EndpointSignal::Nothing };
        if let Some(until) = lane.on_result(signal, flight.is_slow, &self.breaker, self.now) {
            return self.pause_until(flight.lane, until);
        }
        if matches!(lane.state, LaneState::Parked(_)) && lane.trust() != lane.parked_as {
            self.dequeue(flight.lane);
        }
        self.enqueue(flight.lane);
    }

    fn give_back(&mut self, flight: &InFlight) {
        let lane = &mut self.lanes[flight.lane];
        lane.in_flight -= 1;
        self.slots.end(flight.trust, flight.is_slow);
        if flight.is_slow {
            lane.slow -= 1;
            if lane.slow == 0 {
                self.slow_lanes -= 1;
            }
        }
    }

    #[cfg(feature = "sabotage")]
    fn leaks(&self, signal: EndpointSignal) -> bool {
        self.leaks_slots && matches!(signal, EndpointSignal::Unhealthy { .. })
    }

    #[cfg(not(feature = "sabotage"))]
    #[expect(clippy::unused_self, reason = "the other one needs it")]
    fn leaks(&self, _signal: EndpointSignal) -> bool {
        false
    }

    /// Lets a lane wait; what it holds is handed back.
    fn pause_until(&mut self, index: usize, until: MonotonicTime) {
        self.dequeue(index);
        let lane = &mut self.lanes[index];
        let mut until = until;
        if lane.state == LaneState::Waiting {
            self.waiting.remove(&(lane.waits_until, index));
            until = until.max(lane.waits_until);
        }
        lane.state = LaneState::Waiting;
        lane.waits_until = until;
        self.waiting.insert((until, index));
        let endpoint = lane.endpoint;
        self.release_queue(index);
        self.set_busy(endpoint, true);
    }

    /// Starts nothing more, and hands back what has not started.
    pub(crate) fn stop(&mut self) {
        self.is_stopped = true;
        for index in 0..self.lanes.len() {
            self.dequeue(index);
            self.release_queue(index);
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// Returns how many flights there are.
    pub(crate) fn flights(&self) -> usize {
        self.slots.flights()
    }

    /// Returns when a lane goes on that waits.
    pub(crate) fn wakes_at(&self) -> Option<MonotonicTime> {
        if self.slots.has_any() && !self.unparkable().is_empty() {
            return Some(self.now);
        }
        self.waiting.first().map(|(until, _)| *until)
    }

    /// Moves time on: lanes whose wait is over go on.
    fn advance(&mut self, now: MonotonicTime) {
        self.now = self.now.max(now);
        while let Some((until, index)) = self.waiting.first().copied()
            && until <= self.now
        {
            self.waiting.pop_first();
            self.lanes[index].state = LaneState::Idle;
            self.enqueue(index);
        }
    }

    /// Returns how many flights an endpoint may have, and one that has slow ones.
    ///
    /// All flights of an endpoint may turn out slow, so the less room there is left for those, the
    /// fewer it may have: however many endpoints begin to hang, the last slots go one to each.
    fn shares(&self) -> (usize, usize) {
        let room = self.concurrency * SLOW_FACTOR;
        let most = room.saturating_sub(self.slots.flights()) / (SLOW_FACTOR - 1);
        (most, room / self.slow_lanes.max(1))
    }

    /// Puts a lane among those that can start a flight, or that wait, or neither.
    fn enqueue(&mut self, index: usize) {
        let per_endpoint = self.per_endpoint();
        let (most, slow_share) = self.shares();
        let lane = &mut self.lanes[index];
        if lane.state == LaneState::Idle && lane.can_start(most, slow_share) {
            lane.state = LaneState::Ready;
            self.ready_deliveries += lane.queue.len();
            self.turns.push(&lane.tenant, index);
        }
        let is_closed = matches!(lane.state, LaneState::Parked(_) | LaneState::Waiting);
        let is_busy = is_closed || lane.queue.len() >= per_endpoint;
        let endpoint = lane.endpoint;
        self.set_busy(endpoint, is_busy);
    }

    /// Takes a lane from among those that can start a flight, or wait for a slot.
    fn dequeue(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        match lane.state {
            LaneState::Ready => {
                self.ready_deliveries -= lane.queue.len();
                self.turns.remove(&lane.tenant, index);
            }
            LaneState::Parked(turn) => {
                self.parked_deliveries -= lane.queue.len();
                self.parked.remove(&(lane.parked_as, turn));
            }
            LaneState::Idle | LaneState::Waiting => return,
        }
        lane.state = LaneState::Idle;
    }

    fn set_busy(&mut self, endpoint: EndpointNumber, is_busy: bool) {
        if self.busy.contains(&endpoint) != is_busy {
            let busy = Arc::make_mut(&mut self.busy);
            if is_busy {
                busy.insert(endpoint);
            } else {
                busy.remove(&endpoint);
                self.changes += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests;
