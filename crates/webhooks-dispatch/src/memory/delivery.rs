//! Publishing, claims and settlements in the store in memory, and the retention of its events.

use std::collections::HashSet;
use std::time::Duration;

use webhooks_core::Timestamp;

use super::{MemoryStore, State};
use crate::clock::Now;
use crate::report::WorkerReport;
use crate::serialized_event::SerializedEvent;
use crate::store::{
    ChangeListener, Claim, ClaimRequest, Claimed, Conflict, DeliveryStore, PruneRequest, Published,
    Room, Settled, Settlement, StoreError,
};

impl DeliveryStore for MemoryStore {
    async fn publish(
        &self,
        events: Vec<SerializedEvent>,
        now: Timestamp,
    ) -> Result<Vec<Result<Published, Conflict>>, StoreError> {
        let mut state = self.state();
        let published = events.into_iter().map(|event| state.publish(event, now)).collect();
        // Woken workers need the lock at once.
        drop(state);
        self.wake();
        Ok(published)
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, StoreError> {
        Ok(self.state().backlog.claim(&request))
    }

    async fn settle(
        &self,
        settlements: Vec<Settlement>,
        now: Timestamp,
    ) -> Result<Vec<Settled>, StoreError> {
        let mut state = self.state();
        let settled = settlements.into_iter().map(|settlement| state.settle(settlement, now));
        let settled = settled.collect();
        drop(state);
        self.wake();
        Ok(settled)
    }

    async fn extend(
        &self,
        claims: Vec<Claim>,
        lease: Duration,
        now: Now,
    ) -> Result<Vec<Claim>, StoreError> {
        let until = now.monotonic + lease;
        let mut state = self.state();
        Ok(claims.into_iter().filter(|claim| !state.backlog.extend(*claim, until)).collect())
    }

    async fn next_due(&self, room: Room, now: Now) -> Result<Option<Duration>, StoreError> {
        Ok(self.state().backlog.next_due(&room, now))
    }

    async fn hasten(&self, now: Timestamp) -> Result<(), StoreError> {
        self.state().hasten(now);
        self.wake();
        Ok(())
    }

    async fn prune(&self, request: PruneRequest) -> Result<usize, StoreError> {
        let mut state = self.state();
        if request.tenant.is_none() {
            state.figures.roll_up(request.now);
        }
        Ok(state.prune(&request))
    }

    async fn report(
        &self,
        worker: u64,
        report: Option<WorkerReport>,
        _now: Now,
    ) -> Result<(), StoreError> {
        let reports = &mut self.state().reports;
        match report {
            Some(report) => reports.insert(worker, report),
            None => reports.remove(&worker),
        };
        Ok(())
    }

    fn changes(&self) -> ChangeListener {
        self.shared.notifier.listen()
    }
}

impl State {
    /// Forgets events that have ended; returns their number.
    fn prune(&mut self, request: &PruneRequest) -> usize {
        // Only events that have ended are looked at, so a long queue does not make this slow.
        let old: Vec<u64> = (self.ended.iter())
            .filter(|number| {
                let entry = self.events.get(number);
                entry.is_some_and(|entry| {
                    let tenant = &entry.event.tenant;
                    entry.open == 0
                        && entry.accepted_at < request.before
                        && request.tenant.as_ref().is_none_or(|wanted| wanted == tenant)
                })
            })
            .copied()
            .take(request.limit)
            .collect();
        let forgotten = old.iter().filter(|number| self.forget(**number)).count();
        if forgotten > 0 {
            let old: HashSet<u64> = old.into_iter().collect();
            self.ended.retain(|number| !old.contains(number));
        }
        forgotten
    }
}
