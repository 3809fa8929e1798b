//! The numbers of a scheduler, for people to read.

use std::cmp::Reverse;

use super::{EndpointNumber, MonotonicTime, Scheduler};
use crate::gauges::Gauges;
use crate::report::{BreakerState, EndpointReport, WorkerReport};

impl Scheduler {
    /// Notes whether the breaker of a lane is closed.
    pub(super) fn note_breaker(&mut self, index: usize) {
        if self.lanes[index].is_probing() {
            self.probing.insert(index);
        } else {
            self.probing.remove(&index);
        }
    }

    /// Returns the present numbers. All of them are counted beforehand, so this takes the same time
    /// for one lane and for 20,000.
    pub(crate) fn gauges(&self) -> Gauges {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        Gauges {
            workers: 1,
            slots: count(self.concurrency),
            in_flight: count(self.slots.in_flight()),
            slow: count(self.slots.slow()),
            waiting: count(self.queued),
            // The results are not here.
            unsettled: 0,
            lanes: count(self.by_endpoint.len()),
            ready_lanes: count(self.turns.len()),
            parked_lanes: count(self.parked.len()),
            resting_lanes: count(self.resting.len()),
            open_breakers: count(self.probing.len()),
        }
    }

    /// Returns the report about one endpoint, if there is anything to report. It takes the same time
    /// however many lanes there are.
    pub(crate) fn endpoint_report(
        &mut self,
        endpoint: EndpointNumber,
        now: MonotonicTime,
    ) -> Option<EndpointReport> {
        self.advance(now);
        let index = self.by_endpoint.get(&endpoint)?;
        self.lanes[*index].report(&self.breaker, self.now)
    }

    /// Returns the endpoints of a [`WorkerReport`]. It looks at each lane, like a sweep.
    pub(crate) fn endpoint_reports(&mut self, now: MonotonicTime) -> Vec<EndpointReport> {
        self.advance(now);
        let reports = self.lanes.iter().filter_map(|lane| lane.report(&self.breaker, self.now));
        let mut reports: Vec<EndpointReport> = reports.collect();
        let by_interest = |report: &EndpointReport| {
            let rank = match report.breaker {
                BreakerState::Open { .. } => 0,
                BreakerState::Probing => 1,
                BreakerState::Closed if report.rests_for.is_some() => 2,
                BreakerState::Closed => 3,
            };
            (rank, Reverse(report.in_flight), report.number)
        };
        if reports.len() > WorkerReport::MAX_ENDPOINTS {
            reports.select_nth_unstable_by_key(WorkerReport::MAX_ENDPOINTS, by_interest);
            reports.truncate(WorkerReport::MAX_ENDPOINTS);
        }
        reports.sort_unstable_by_key(by_interest);
        reports
    }
}
