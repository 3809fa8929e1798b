//! The present numbers of workers: attempts in flight, slots, lanes and so on.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// The present numbers of a worker, or the sums of several.
///
/// A *lane* is the place where a worker puts the deliveries that it has claimed for one endpoint. A
/// worker has one for each endpoint that it has served within the last ten minutes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Gauges {
    /// Workers.
    pub workers: u64,
    /// Attempts that may be in flight before they become slow:
    /// [`EngineSettings::concurrency`](crate::EngineSettings::concurrency) of each worker.
    pub slots: u64,
    /// Attempts in flight, slow ones included.
    pub in_flight: u64,
    /// Attempts in flight that have lasted longer than
    /// [`EngineSettings::slow_after`](crate::EngineSettings::slow_after).
    pub slow: u64,
    /// Deliveries that are claimed, and wait in lanes.
    pub waiting: u64,
    /// Results that are not settled yet.
    pub unsettled: u64,
    /// Lanes.
    pub lanes: u64,
    /// Lanes that can start an attempt.
    pub ready_lanes: u64,
    /// Lanes that wait for a slot.
    pub parked_lanes: u64,
    /// Lanes that start nothing for a time: a breaker is open, a rate limit is used up, the
    /// transport had no room, or the endpoint asked for a pause.
    pub resting_lanes: u64,
    /// Circuit breakers that are not closed: open ones, and those that let single probes pass.
    pub open_breakers: u64,
}

impl AddAssign for Gauges {
    fn add_assign(&mut self, other: Self) {
        self.workers += other.workers;
        self.slots += other.slots;
        self.in_flight += other.in_flight;
        self.slow += other.slow;
        self.waiting += other.waiting;
        self.unsettled += other.unsettled;
        self.lanes += other.lanes;
        self.ready_lanes += other.ready_lanes;
        self.parked_lanes += other.parked_lanes;
        self.resting_lanes += other.resting_lanes;
        self.open_breakers += other.open_breakers;
    }
}
