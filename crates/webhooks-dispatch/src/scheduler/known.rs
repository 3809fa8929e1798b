//! Which endpoints have lanes, and when lanes are forgotten.

use std::time::Duration;

use super::lane::{Lane, LaneState};
use super::{Claimed, EndpointNumber, MonotonicTime, Scheduler};

/// How long an idle lane is remembered, with what it knows of its endpoint.
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
        self.dequeue(index);
        self.release_queue(index);
        self.reset_health(number);
    }

    /// Hands back what waits for an endpoint: it has changed, or is gone.
    pub(crate) fn release_endpoint(&mut self, endpoint: EndpointNumber) {
        let Some(index) = self.by_endpoint.get(&endpoint).copied() else { return };
        self.dequeue(index);
        self.release_queue(index);
        self.enqueue(index);
    }

    /// Hands back what waits for an endpoint that is gone or disabled, and forgets the endpoint as
    /// soon as nothing of it is in flight and its rate allows all that it ever does.
    pub(crate) fn forget_endpoint(&mut self, endpoint: EndpointNumber) {
        self.release_endpoint(endpoint);
        self.reset_health(endpoint);
        if let Some(index) = self.by_endpoint.get(&endpoint) {
            self.lanes[*index].is_gone = true;
        }
    }

    /// Forgets what was learned of an endpoint: it may have been mended.
    pub(crate) fn reset_health(&mut self, endpoint: EndpointNumber) {
        let Some(index) = self.by_endpoint.get(&endpoint).copied() else { return };
        let lane = &mut self.lanes[index];
        if lane.state == LaneState::Waiting {
            self.waiting.remove(&(lane.waits_until, index));
            lane.state = LaneState::Idle;
        }
        lane.reset_health();
        self.enqueue(index);
    }

    /// Forgets lanes that have long been idle, and those of endpoints that are gone.
    pub(crate) fn sweep(&mut self, now: MonotonicTime) {
        self.advance(now);
        self.turns.tidy();
        for index in 0..self.lanes.len() {
            if self.lanes[index].is_gone {
                self.reset_health(self.lanes[index].endpoint);
            }
            let lane = &mut self.lanes[index];
            let is_unused = lane.is_gone || self.now.saturating_since(lane.used_at) >= IDLE_TIMEOUT;
            if is_unused
                && lane.is_forgettable(&self.breaker, self.now)
                && self.by_endpoint.get(&lane.endpoint) == Some(&index)
            {
                self.by_endpoint.remove(&lane.endpoint);
                if let Some(key) = lane.key() {
                    self.by_key.remove(&key);
                }
                lane.vacate();
                self.free.insert(index);
            }
        }
        while let Some(last) = self.lanes.len().checked_sub(1)
            && self.free.remove(&last)
        {
            self.lanes.pop();
        }
    }
}
