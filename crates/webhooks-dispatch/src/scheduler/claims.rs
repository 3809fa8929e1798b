//! The claims of the worker, until they are settled, released or lost.

use std::collections::BTreeSet;

use super::{Claim, Claimed, MonotonicTime, Scheduler};

impl Scheduler {
    /// Forgets a claim: it was settled, or nothing will settle it. Its lease is no longer extended.
    pub(crate) fn forget_claim(&mut self, claim: &Claim) {
        self.held.remove(claim);
    }

    /// Forgets the claims that do not wait in lanes: nothing will settle them, so their leases end.
    pub(crate) fn abandon(&mut self) {
        let queued = self.lanes.iter().flat_map(|lane| &lane.queue).map(|claimed| claimed.claim);
        let queued: BTreeSet<Claim> = queued.collect();
        self.held.retain(|claim| queued.contains(claim));
    }

    /// Returns the claims that are neither settled nor released.
    pub(crate) fn held(&self) -> Vec<Claim> {
        self.held.iter().map(|(claim, _)| claim).collect()
    }

    /// Releases the claims of a lane except the first ones. The lane is neither ready nor counted as
    /// parked.
    pub(super) fn release_queue(&mut self, index: usize, except: usize) {
        let lane = &mut self.lanes[index];
        let except = except.min(lane.queue.len());
        for claimed in lane.queue.drain(except..) {
            let len = claimed.event.body.len();
            lane.bytes -= len;
            self.queued -= 1;
            self.queued_bytes -= len;
            self.held.remove(&claimed.claim);
            self.to_release.push(claimed.claim);
        }
    }

    /// Returns the claims to release, and forgets them.
    pub(crate) fn take_to_release(&mut self) -> Vec<Claim> {
        std::mem::take(&mut self.to_release)
    }

    /// Drops claims that were lost, unless they are in flight already.
    pub(crate) fn drop_lost(&mut self, lost: &[Claim]) {
        if lost.is_empty() {
            return;
        }
        for claim in lost {
            self.held.remove(claim);
        }
        self.drop_unheld();
    }

    /// Drops claims whose leases have ended: others may have them by now.
    pub(super) fn drop_ended(&mut self) {
        for claimed in self.lanes.iter().flat_map(|lane| &lane.queue) {
            if self.held.lease_end(&claimed.claim).is_some_and(|end| end <= self.now) {
                self.held.remove(&claimed.claim);
            }
        }
        let ends = self.held.iter().map(|(_, lease_end)| lease_end);
        self.leases_end =
            ends.filter(|lease_end| *lease_end > self.now).min().unwrap_or(MonotonicTime::NEVER);
        self.drop_unheld();
    }

    fn drop_unheld(&mut self) {
        for index in 0..self.lanes.len() {
            // Between `unlist` and `list`: the counters are sums of queue lengths.
            let is_held = |claimed: &Claimed| self.held.contains(&claimed.claim);
            if !self.lanes[index].queue.iter().all(is_held) {
                self.unlist(index);
                let (held, lane) = (&self.held, &mut self.lanes[index]);
                self.queued -= lane.queue.len();
                self.queued_bytes -= lane.bytes;
                lane.queue.retain(|claimed| held.contains(&claimed.claim));
                lane.bytes = lane.queue.iter().map(|claimed| claimed.event.body.len()).sum();
                self.queued += lane.queue.len();
                self.queued_bytes += lane.bytes;
                self.list(index);
            }
        }
    }

    /// Returns the claims whose leases end before `before`.
    pub(crate) fn ending(&self, before: MonotonicTime) -> Vec<Claim> {
        let ending = self.held.iter().filter(|(_, lease_end)| *lease_end < before);
        ending.map(|(claim, _)| claim).collect()
    }

    /// Notes that claims last until `until`.
    pub(crate) fn extended(&mut self, claims: &[Claim], until: MonotonicTime) {
        for claim in claims {
            self.held.extend(claim, until);
        }
    }
}
