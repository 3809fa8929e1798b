//! The choice of the next attempt: one lane per endpoint with claimed deliveries, tenants in turn,
//! bounds on the attempts in flight.

// In the order of reading.
mod slots;
mod turns;

mod bytes;
mod held;

mod lane;

mod known;

mod claims;

mod flights;

mod figures;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use webhooks_core::Timestamp;
use webhooks_registry::{EndpointKey, EndpointNumber};

use self::bytes::{LANE_BYTES, MAX_READY_BYTES, QUICK_BYTES, weight};
use self::held::Held;
use self::lane::{Lane, LaneState};
use self::slots::{Slots, Trust, Wants};
use self::turns::Turns;
use crate::breaker::BreakerSettings;
use crate::clock::{MonotonicTime, Now};
use crate::store::{Claim, ClaimRequest, Claimed, Room};

/// The upper bound of `concurrency`, far above the number of sockets that a process can open.
const MAX_CONCURRENCY: usize = 1 << 20;

/// The low and the high water mark of ready deliveries, in multiples of `concurrency`. Below the
/// low mark the worker claims, up to the high mark: the answer comes before the ready ones run out.
const LOW_WATER: usize = 2;
const HIGH_WATER: usize = 3;

/// The bounds on the number of deliveries that one claim brings for one endpoint.
const PER_ENDPOINT: (usize, usize) = (16, 64);

/// The number of deliveries that one claim brings for one endpoint while lanes are parked, or while
/// more than `MANY * concurrency` deliveries wait in lanes. One claim then finds many endpoints.
const FEW_PER_ENDPOINT: usize = 4;
const MANY: usize = 20;

/// The age up to which a delivery that waits is no sign of trouble with its endpoint.
const FRESH: Duration = Duration::from_secs(1);

/// The scheduler of a worker, a pure structure: deliveries that were claimed go in, and those whose
/// attempt may start come out.
///
/// Two bounds limit the attempts in flight: `concurrency` for those that have just started, and a
/// larger one for slow ones. So endpoints that hang do not stop others from starting. An endpoint
/// with slow attempts may have no more of them than its share of the larger bound. A part of both
/// bounds is reserved for endpoints that answer quickly (see [`Slots`]). A lane that finds its part
/// used up is parked, and nothing more is claimed for it.
///
/// `ready_deliveries` and `parked_deliveries` are sums of queue lengths: a queue changes either
/// between [`unlist`](Self::unlist) and [`list`](Self::list), or together with its sum.
#[derive(Debug)]
pub(crate) struct Scheduler {
    concurrency: usize,
    breaker: BreakerSettings,
    now: MonotonicTime,
    lanes: Vec<Lane>,
    by_endpoint: HashMap<EndpointNumber, usize>,
    /// The lanes by key, since an endpoint that is enabled again has a new number.
    by_key: HashMap<EndpointKey, usize>,
    free: BTreeSet<usize>,
    /// The lanes that can start an attempt.
    turns: Turns,
    /// The number of deliveries in ready lanes.
    ready_deliveries: usize,
    /// The lanes that wait for a slot of their part, by what they wait for and in turn.
    parked: BTreeMap<(Wants, u64), usize>,
    /// The number of times that a lane was parked.
    parkings: u64,
    /// The number of deliveries in parked lanes.
    parked_deliveries: usize,
    /// The lanes that rest, by the time at which they go on.
    resting: BTreeSet<(MonotonicTime, usize)>,
    /// The lanes whose breakers are not closed.
    probing: BTreeSet<usize>,
    /// The endpoints for which less is claimed, or nothing.
    room: Room,
    /// All claims of this worker with the ends of their leases: those that wait in lanes, and those
    /// in flight.
    held: Held,
    /// The number of them that wait in lanes.
    queued: usize,
    /// The bytes of their bodies, and of those of them in ready lanes.
    queued_bytes: usize,
    ready_bytes: usize,
    /// A time before which no lease of a claim that waits in a lane ends.
    leases_end: MonotonicTime,
    /// Claims to release: no lane holds them any more.
    to_release: Vec<Claim>,
    /// The number of changes that may have brought something to claim: in the store, of lanes that
    /// became free, of time.
    changes: u64,
    /// The last claim that was requested.
    last_claim: LastClaim,
    /// The time of the wall clock when the last claim was requested.
    last_claim_at: Timestamp,
    // A claim that brings less than its limit stops further claims until `changes` moves. The count
    // of the request is stored, not that of the answer, so a change during the call is not missed.
    /// `changes` when the last claim was requested that brought less than its limit.
    exhausted_at: Option<u64>,
    slots: Slots,
    /// The bytes of the bodies in flight, as [`weight`] counts them, in slots of a byte.
    body_slots: Slots,
    /// All bytes of the bodies in flight.
    started_bytes: usize,
    slow_lanes: usize,
    is_stopped: bool,
    #[cfg(feature = "sabotage")]
    pub(crate) leaks_slots: bool,
}

/// A delivery whose attempt is in flight.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) claimed: Claimed,
    lane: usize,
    /// The trust of its endpoint when it started.
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
            resting: BTreeSet::new(),
            probing: BTreeSet::new(),
            room: Room::new(),
            held: Held::default(),
            queued: 0,
            queued_bytes: 0,
            ready_bytes: 0,
            leases_end: MonotonicTime::NEVER,
            to_release: Vec::new(),
            changes: 0,
            last_claim: LastClaim::default(),
            last_claim_at: Timestamp::UNIX_EPOCH,
            exhausted_at: None,
            slots: Slots::new(concurrency),
            body_slots: Slots::new(QUICK_BYTES),
            started_bytes: 0,
            slow_lanes: 0,
            is_stopped: false,
            #[cfg(feature = "sabotage")]
            leaks_slots: false,
        }
    }

    /// Returns the next claim to make, if there is room for more.
    pub(crate) fn request(&mut self, now: Now, lease: Duration) -> Option<ClaimRequest> {
        self.advance(now.monotonic);
        if self.is_stopped || !self.wants_more() {
            return None;
        }
        let limit = HIGH_WATER * self.concurrency - self.ready_deliveries;
        let bytes = self.claim_bytes();
        self.last_claim = LastClaim { changes: self.changes, limit, bytes };
        self.last_claim_at = now.wall;
        let (per_endpoint, room) = (self.per_endpoint(), self.room.clone());
        Some(ClaimRequest { now, lease, limit, per_endpoint, bytes, room })
    }

    /// Allows the next claim: there may be something to claim, even if the last one brought too
    /// little.
    pub(crate) fn allow_claim(&mut self) {
        self.changes += 1;
    }

    /// Returns whether the lanes run low.
    pub(crate) fn runs_low(&self) -> bool {
        self.ready_deliveries < LOW_WATER * self.concurrency && self.ready_bytes < MAX_READY_BYTES
    }

    /// Returns whether the lanes run low and a claim may bring more.
    fn wants_more(&self) -> bool {
        self.runs_low() && self.exhausted_at != Some(self.changes)
    }

    pub(crate) fn room(&self) -> Room {
        self.room.clone()
    }

    fn per_endpoint(&self) -> usize {
        if self.parked.is_empty() && self.queued < MANY * self.concurrency {
            (LOW_WATER * self.concurrency).clamp(PER_ENDPOINT.0, PER_ENDPOINT.1)
        } else {
            FEW_PER_ENDPOINT
        }
    }

    /// Adds deliveries that were claimed, with leases that last until `lease_end`.
    pub(crate) fn add_claimed(&mut self, claimed: Vec<Claimed>, lease_end: MonotonicTime) {
        let LastClaim { changes, limit, bytes } = self.last_claim;
        let lengths = claimed.iter().map(|claimed| claimed.event.body.len());
        if claimed.len() < limit && lengths.sum::<usize>() < bytes {
            self.exhausted_at = Some(changes);
        }
        for claimed in claimed {
            let index = self.lane(&claimed);
            let lane = &mut self.lanes[index];
            // The lane may have begun to rest after the claim was requested.
            if lane.state == LaneState::Resting || self.is_stopped {
                self.to_release.push(claimed.claim);
                continue;
            }
            self.held.insert(claimed.claim, lease_end, claimed.event.body.len());
            self.leases_end = self.leases_end.min(lease_end);
            let is_fresh = self.last_claim_at.saturating_since(claimed.progress.queued_at) < FRESH;
            lane.update(&claimed, is_fresh, &self.breaker, self.now);
            // Between `unlist` and `list`: the sums follow the queue. A parked lane keeps its turn.
            let len = claimed.event.body.len();
            match lane.state {
                LaneState::Ready => {
                    self.ready_deliveries += 1;
                    self.ready_bytes += len;
                }
                LaneState::Parked(_) => self.parked_deliveries += 1,
                LaneState::Idle | LaneState::Limited | LaneState::Resting => {}
            }
            lane.queue.push_back(claimed);
            lane.bytes += len;
            self.queued += 1;
            self.queued_bytes += len;
            self.note_breaker(index);
            if self.lanes[index].waits_for_other_slots() {
                self.unlist(index);
            }
            self.list(index);
        }
    }

    /// Returns the next delivery to attempt, if there is one and a free slot for it.
    pub(crate) fn take(&mut self, now: MonotonicTime) -> Option<InFlight> {
        self.advance(now);
        if self.leases_end <= self.now {
            self.drop_ended();
        }
        while self.slots.has_any() && !self.is_stopped {
            self.unpark();
            let index = self.turns.pop()?;
            let shares = self.shares();
            let lane = &mut self.lanes[index];
            self.ready_deliveries -= lane.queue.len();
            self.ready_bytes -= lane.bytes;
            lane.state = LaneState::Idle;
            if !lane.can_start(shares) {
                // Others took the slots meanwhile. The lane goes on when an attempt of its own
                // ends. It has one: a lane with none in flight can always start.
                continue;
            }
            let wants = lane.wants();
            if !self.has_slot(wants) {
                self.park(index, wants);
                continue;
            }
            let trust = wants.trust;
            let lane = &mut self.lanes[index];
            // After the other checks, so that no token is spent on a lane that cannot start.
            if let Err(until) = lane.token(self.now) {
                self.limit_until(index, until);
                continue;
            }
            let started = lane.start(self.now);
            // Before the lane is listed: its room depends on the bytes that wait.
            if let Some(claimed) = &started {
                let len = claimed.event.body.len();
                self.queued -= 1;
                self.queued_bytes -= len;
                self.started_bytes += len;
                self.slots.start(trust, 1);
                self.body_slots.start(trust, weight(len));
            }
            if let Some(until) = lane.next_token(self.now) {
                self.limit_until(index, until);
            } else {
                self.list(index);
            }
            if let Some(claimed) = started {
                return Some(InFlight { claimed, lane: index, trust, is_slow: false });
            }
        }
        None
    }

    /// Parks a lane until a slot of its part is free. Its claims are released if the parked lanes
    /// hold many already; they are claimed again in their turn.
    fn park(&mut self, index: usize, wants: Wants) {
        let lane = &mut self.lanes[index];
        lane.state = LaneState::Parked(self.parkings);
        lane.parked_as = wants;
        self.parked.insert((wants, self.parkings), index);
        self.parkings += 1;
        // `take` has subtracted this queue from `ready_deliveries`.
        let len = lane.queue.len();
        if self.others_are_full() || self.parked_deliveries + len > HIGH_WATER * self.concurrency {
            self.release_queue(index, 0);
        } else {
            self.parked_deliveries += len;
        }
        self.set_room(index);
    }

    /// Unparks the first lane of each kind for which there is a slot.
    fn unpark(&mut self) {
        for index in self.unparkable() {
            self.unlist(index);
            self.list(index);
        }
    }

    /// Returns the first parked lane of each kind for which there is a slot.
    fn unparkable(&self) -> Vec<usize> {
        if self.parked.is_empty() {
            return Vec::new();
        }
        let first = |wants| self.parked.range((wants, 0)..=(wants, u64::MAX)).next();
        let has_slot = |wants: &Wants| self.has_slot(*wants);
        Wants::all().filter(has_slot).filter_map(first).map(|(_, index)| *index).collect()
    }

    /// Returns whether there may be something to claim, or another attempt to start.
    pub(crate) fn has_more_to_do(&self) -> bool {
        self.wants_more()
            || (self.slots.has_any() && !self.turns.is_empty())
            || !self.unparkable().is_empty()
    }

    /// Makes a lane rest, and releases its claims. A rest that is longer already stays.
    fn rest_until(&mut self, index: usize, until: MonotonicTime) {
        self.unlist(index);
        let lane = &self.lanes[index];
        let until = match lane.state {
            LaneState::Resting | LaneState::Limited => until.max(lane.rests_until),
            _ => until,
        };
        self.wait_until(index, LaneState::Resting, until);
        self.release_queue(index, 0);
        self.set_room(index);
    }

    /// Makes an idle lane wait for a token. It keeps as many claims as may start within a short time.
    /// The others are released, so that they need no extending and fill no lane.
    fn limit_until(&mut self, index: usize, until: MonotonicTime) {
        self.wait_until(index, LaneState::Limited, until);
        let most = if self.others_are_full() { 1 } else { usize::MAX };
        self.release_queue(index, self.lanes[index].starts_soon(self.now).min(most));
        self.set_room(index);
    }

    fn wait_until(&mut self, index: usize, state: LaneState, until: MonotonicTime) {
        let lane = &mut self.lanes[index];
        if matches!(lane.state, LaneState::Resting | LaneState::Limited) {
            self.resting.remove(&(lane.rests_until, index));
        }
        lane.state = state;
        lane.rests_until = until;
        self.resting.insert((until, index));
    }

    /// Stops starting attempts, and releases the claims that wait.
    pub(crate) fn stop(&mut self) {
        self.is_stopped = true;
        for index in 0..self.lanes.len() {
            self.unlist(index);
            self.release_queue(index, 0);
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// Returns the time at which the first lane that rests goes on.
    pub(crate) fn wakes_at(&self) -> Option<MonotonicTime> {
        if self.slots.has_any() && !self.unparkable().is_empty() {
            // A parked lane can start now, so the driver must not sleep.
            return Some(self.now);
        }
        self.resting.first().map(|(until, _)| *until)
    }

    /// Moves the time forward; lanes whose rest is over go on.
    fn advance(&mut self, now: MonotonicTime) {
        // A caller may read its clock before it locks the scheduler, so a reading may come late.
        self.now = self.now.max(now);
        while let Some((until, index)) = self.resting.first().copied()
            && until <= self.now
        {
            self.resting.pop_first();
            self.lanes[index].state = LaneState::Idle;
            self.list(index);
        }
    }

    /// Lists an idle lane among the ready ones if it can start an attempt, and marks the endpoint
    /// of any lane busy or free.
    fn list(&mut self, index: usize) {
        let shares = self.shares();
        let lane = &mut self.lanes[index];
        if lane.state == LaneState::Idle && lane.can_start(shares) {
            lane.state = LaneState::Ready;
            self.ready_deliveries += lane.queue.len();
            self.ready_bytes += lane.bytes;
            self.turns.push(&lane.tenant, index);
        }
        self.set_room(index);
    }

    /// Removes a lane from the ready ones or the parked ones, and makes it idle. A lane that rests
    /// stays so.
    fn unlist(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        match lane.state {
            LaneState::Ready => {
                self.ready_deliveries -= lane.queue.len();
                self.ready_bytes -= lane.bytes;
                self.turns.remove(&lane.tenant, index);
            }
            LaneState::Parked(turn) => {
                self.parked_deliveries -= lane.queue.len();
                self.parked.remove(&(lane.parked_as, turn));
            }
            LaneState::Idle | LaneState::Limited | LaneState::Resting => return,
        }
        lane.state = LaneState::Idle;
    }

    /// Sets the room for a lane's endpoint, after the lane has changed.
    fn set_room(&mut self, index: usize) {
        let per_endpoint = self.per_endpoint();
        // Lanes that cannot start hold no more than this, so that claims for others bring something.
        let is_full = self.others_are_full();
        let shares = self.shares();
        let lane = &mut self.lanes[index];
        let is_stuck = !lane.queue.is_empty() || !lane.has_free_flight(shares);
        // The first lanes that are stuck must not hold all that lanes may hold.
        let has_enough = is_full || lane.bytes >= LANE_BYTES;
        let most = match lane.state {
            LaneState::Parked(_) | LaneState::Resting => 0,
            LaneState::Idle if has_enough && is_stuck => 0,
            LaneState::Limited => {
                let most = if has_enough { 1 } else { per_endpoint };
                lane.starts_soon(self.now).min(most)
            }
            // Nothing would wake a lane that is busy and does not wait for a time, so it gets one
            // delivery, and then waits for its token.
            LaneState::Idle | LaneState::Ready => lane.starts_soon(self.now).clamp(1, per_endpoint),
        };
        let room = most.saturating_sub(lane.queue.len());
        // A lane that may get as much as any other one, or nearly, needs no limit of its own.
        let room = (room == 0 || most < per_endpoint).then_some(room);
        let before = std::mem::replace(&mut lane.room, room);
        if before != room {
            self.room.set(lane.endpoint, room);
            if before == Some(0) {
                // A claim that brought too little left this endpoint out.
                self.changes += 1;
            }
        }
    }
}

/// The last claim that was requested.
#[derive(Debug, Default)]
struct LastClaim {
    /// `Scheduler::changes` at that time.
    changes: u64,
    limit: usize,
    bytes: usize,
}

#[cfg(test)]
mod tests;
