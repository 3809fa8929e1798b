//! The bounds on the bytes of bodies, and the shares of an endpoint.

use super::Scheduler;
use super::slots::{SLOW_FACTOR, Trust, Wants};

/// The bytes of bodies up to which ready lanes are filled, and up to which others hold what they
/// cannot start. The latter hold one delivery each beyond that.
pub(super) const MAX_READY_BYTES: usize = 16 << 20;
pub(super) const MAX_OTHER_BYTES: usize = 32 << 20;

/// The bytes that a claim may bring in any case: at least one delivery.
pub(super) const MIN_CLAIM_BYTES: usize = 1 << 20;

/// The bytes of bodies that quick attempts in flight have at most; slow ones have [`SLOW_FACTOR`] times
/// as many, and one endpoint has a quarter. Small bodies do not count: the number of attempts bounds them.
/// Of larger ones than the usual limit, as much counts as of those, so that one of them stops nobody.
pub(super) const QUICK_BYTES: usize = 16 << 20;
pub(super) const LANE_BYTES: usize = QUICK_BYTES / 4;
pub(super) const SMALL_BODY: usize = 16 << 10;
pub(super) const LARGE_BODY: usize = 1 << 20;

/// The bytes of bodies whose attempts have ended and are not settled, above which no attempt with a body
/// that counts starts.
pub(super) const MAX_UNSETTLED_BYTES: usize = 32 << 20;

/// The largest part of the slots that one endpoint may use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shares {
    /// The number of attempts.
    pub(super) most: usize,
    /// The number of attempts while some of them are slow.
    pub(super) slow: usize,
    /// The bytes of bodies, as [`weight`] counts them, at which it starts no further attempt.
    pub(super) bytes: usize,
}

/// Returns how much a body counts among those in flight.
pub(super) fn weight(len: usize) -> usize {
    if len <= SMALL_BODY { 0 } else { len.min(LARGE_BODY) }
}

impl Scheduler {
    /// Returns the bytes that the next claim may bring. Perhaps none of it can start.
    pub(super) fn claim_bytes(&self) -> usize {
        let for_ready = MAX_READY_BYTES.saturating_sub(self.ready_bytes);
        let for_others = MAX_OTHER_BYTES.saturating_sub(self.queued_bytes - self.ready_bytes);
        for_ready.min(for_others).max(MIN_CLAIM_BYTES)
    }

    /// Returns whether lanes that cannot start hold as many bytes as they may.
    pub(super) fn others_are_full(&self) -> bool {
        self.queued_bytes - self.ready_bytes >= MAX_OTHER_BYTES
    }

    /// Returns whether an attempt that wants these slots may start.
    pub(super) fn has_slot(&self, wants: Wants) -> bool {
        self.slots.has_room(wants.trust) && (!wants.is_large || self.has_bytes(wants.trust))
    }

    fn has_bytes(&self, trust: Trust) -> bool {
        let unsettled = self.held.bytes().saturating_sub(self.queued_bytes + self.started_bytes);
        self.body_slots.has_room(trust) && unsettled < MAX_UNSETTLED_BYTES
    }

    /// Returns the shares of an endpoint.
    ///
    /// All attempts of an endpoint may become slow. So the fewer slow slots are left, the fewer
    /// attempts each endpoint may start, and the fewer bytes. If many endpoints begin to hang, each
    /// gets one of the last.
    pub(super) fn shares(&self) -> Shares {
        let slow_slots = self.concurrency * SLOW_FACTOR;
        // With at most `concurrency` attempts in flight this is at least `concurrency`, which is no
        // bound. It falls to zero as the slow slots fill.
        let part = |all: usize, used: usize| all.saturating_sub(used) / (SLOW_FACTOR - 1);
        let bytes = part(QUICK_BYTES * SLOW_FACTOR, self.body_slots.in_flight());
        Shares {
            most: part(slow_slots, self.slots.in_flight()),
            slow: slow_slots / self.slow_lanes.max(1),
            bytes: bytes.min(LANE_BYTES),
        }
    }
}
