//! Attempts in flight: they become slow, end, and free their slots.

use super::bytes::weight;
use super::{InFlight, MonotonicTime, Scheduler};
use crate::breaker::BreakerChange;
use crate::decide::EndpointSignal;

impl Scheduler {
    /// Returns the number of attempts in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.slots.in_flight()
    }

    /// Moves an attempt that has become slow to a slow slot.
    pub(crate) fn slow_down(&mut self, flight: &mut InFlight) {
        if std::mem::replace(&mut flight.is_slow, true) {
            return;
        }
        self.slots.slow_down(flight.trust, 1);
        self.body_slots.slow_down(flight.trust, weight(flight.claimed.event.body.len()));
        let lane = &mut self.lanes[flight.lane];
        lane.slow += 1;
        if lane.slow == 1 {
            self.slow_lanes += 1;
        }
        self.list(flight.lane);
    }

    /// Notes the end of an attempt, and its signal about the endpoint; returns the change of the
    /// endpoint's breaker, if there is one.
    pub(crate) fn finish(
        &mut self,
        flight: &InFlight,
        signal: EndpointSignal,
        now: MonotonicTime,
    ) -> Option<BreakerChange> {
        self.advance(now);
        if !self.leaks(signal) {
            self.free_slot(flight);
        }
        let lane = &mut self.lanes[flight.lane];
        // An endpoint that was registered anew meanwhile may have been repaired, or be another one.
        let is_current = flight.claimed.registration.number == lane.endpoint;
        let signal = if is_current { signal } else { EndpointSignal::Nothing };
        let (rest, change) = lane.on_result(signal, flight.is_slow, &self.breaker, self.now);
        self.note_breaker(flight.lane);
        if let Some(until) = rest {
            self.rest_until(flight.lane, until);
            return change;
        }
        // It waits among the lanes of its old trust, whose slots are others.
        if self.lanes[flight.lane].waits_for_other_slots() {
            self.unlist(flight.lane);
        }
        self.list(flight.lane);
        change
    }

    fn free_slot(&mut self, flight: &InFlight) {
        let lane = &mut self.lanes[flight.lane];
        lane.in_flight -= 1;
        self.slots.end(flight.trust, flight.is_slow, 1);
        let len = flight.claimed.event.body.len();
        let weight = weight(len);
        self.started_bytes -= len;
        lane.bytes_in_flight -= weight;
        self.body_slots.end(flight.trust, flight.is_slow, weight);
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
}
