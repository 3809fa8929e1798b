//! The endpoints that have lanes, and the end of lanes.

use std::time::Duration;

use super::lane::{Lane, LaneState};
use super::{Claimed, EndpointNumber, MonotonicTime, Scheduler};

/// The time for which an idle lane is remembered, with the health of its endpoint.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

impl Scheduler {
    /// Returns the lane of a delivery's endpoint.
    pub(super) fn lane(&mut self, claimed: &Claimed) -> usize {
        let number = claimed.registration.number;
        if let Some(index) = self.by_endpoint.get(&number) {
            return *index;
        }
        let key = claimed.registration.key();
        if let Some(index) = self.by_key.get(&key).copied() {
            self.renumber(index, number);
            return index;
        }
        let lane = Lane::new(claimed, self.now);
        let is_probing = lane.is_probing();
        let index = match self.free.pop_first() {
            Some(index) => {
                self.lanes[index] = lane;
                index
            }
            None => {
                self.lanes.push(lane);
                self.lanes.len() - 1
            }
        };
        if is_probing {
            self.probing.insert(index);
        }
        self.by_endpoint.insert(number, index);
        self.by_key.insert(key, index);
        index
    }

    /// Passes a lane on to an endpoint that was registered or enabled anew under the same key. Its
    /// attempts in flight and its rate limit count on.
    fn renumber(&mut self, index: usize, number: EndpointNumber) {
        let lane = &mut self.lanes[index];
        let before = std::mem::replace(&mut lane.endpoint, number);
        lane.room = None;
        self.by_endpoint.remove(&before);
        self.by_endpoint.insert(number, index);
        // The number of before never comes again, so nothing else would remove it.
        self.room.set(before, None);
        self.unlist(index);
        self.release_queue(index, 0);
        self.reset_health(number);
    }

    /// Releases the claims that wait for an endpoint, which was changed or removed.
    pub(crate) fn release_endpoint(&mut self, endpoint: EndpointNumber) {
        let Some(index) = self.by_endpoint.get(&endpoint).copied() else { return };
        self.unlist(index);
        self.release_queue(index, 0);
        self.list(index);
    }

    /// Releases the claims that wait for an endpoint that was unregistered or disabled. Forgets the
    /// endpoint once none of its attempts is in flight and its rate bucket is full.
    pub(crate) fn forget_endpoint(&mut self, endpoint: EndpointNumber) {
        self.release_endpoint(endpoint);
        self.reset_health(endpoint);
        if let Some(index) = self.by_endpoint.get(&endpoint) {
            self.lanes[*index].is_removed = true;
        }
    }

    /// Resets the health of an endpoint, which may have been repaired.
    pub(crate) fn reset_health(&mut self, endpoint: EndpointNumber) {
        let Some(index) = self.by_endpoint.get(&endpoint).copied() else { return };
        let lane = &mut self.lanes[index];
        // Its rate limit may be another one now; the bucket stays.
        if matches!(lane.state, LaneState::Resting | LaneState::Limited) {
            self.resting.remove(&(lane.rests_until, index));
            lane.state = LaneState::Idle;
        }
        lane.reset_health();
        self.note_breaker(index);
        self.list(index);
    }

    /// Ends the rest of an endpoint early, because somebody wants it to be tried now: the next attempt is a
    /// probe. A rate limit still holds.
    pub(crate) fn probe(&mut self, endpoint: EndpointNumber, now: MonotonicTime) {
        self.advance(now);
        let Some(index) = self.by_endpoint.get(&endpoint).copied() else { return };
        let lane = &self.lanes[index];
        if lane.state != LaneState::Resting || !lane.rests_by_endpoint(self.now) {
            return;
        }
        let from = self.lanes[index].probe_early(self.now);
        self.note_breaker(index);
        self.wait_until(index, LaneState::Resting, from);
        self.advance(now);
    }

    /// Forgets lanes that have long been idle, and those of endpoints that were removed.
    pub(crate) fn sweep(&mut self, now: MonotonicTime) {
        self.advance(now);
        self.turns.tidy();
        for index in 0..self.lanes.len() {
            // Attempts that were in flight when the endpoint was removed may have failed since.
            if self.lanes[index].is_removed {
                self.reset_health(self.lanes[index].endpoint);
            }
            let lane = &mut self.lanes[index];
            let is_unused =
                lane.is_removed || self.now.saturating_since(lane.used_at) >= IDLE_TIMEOUT;
            if is_unused
                && lane.is_forgettable(&self.breaker, self.now)
                && self.by_endpoint.get(&lane.endpoint) == Some(&index)
            {
                self.by_endpoint.remove(&lane.endpoint);
                self.room.set(lane.endpoint, None);
                if let Some(key) = lane.key() {
                    self.by_key.remove(&key);
                }
                lane.vacate();
                self.free.insert(index);
                self.note_breaker(index);
            }
        }
        // Indexes of lanes in use must not change, so only the end is cut off.
        while let Some(last) = self.lanes.len().checked_sub(1)
            && self.free.remove(&last)
        {
            self.lanes.pop();
        }
    }
}
