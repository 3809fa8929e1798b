//! The steps of claims: of pending deliveries in the database, and of preclaimed ones.

use super::Deviation;
use super::act::Act;
use super::promises::{Promise, broken_by_claim};
use super::state::{DELIVERIES, Holder, Lease, Plan, Stage};
use super::steps::{is_due, is_early, is_free, is_open};

impl Act<'_> {
    /// The first statement of a claim: it finds the endpoints, and the last delivery that it may
    /// claim.
    pub(super) fn plan(&mut self, worker: usize) {
        let mut plan = Plan { open: [None; DELIVERIES], bound: DELIVERIES };
        for delivery in 0..DELIVERIES {
            if is_due(self.scope, &self.state, worker, delivery) {
                let generation = self.state.deliveries[delivery].generation;
                plan.open[self.scope.endpoint_of(delivery)] = Some(generation);
                if self.scope.is_ordered() {
                    plan.bound = delivery;
                }
            }
        }
        self.state.workers[worker].plan = Some(plan);
    }

    /// Returns whether a claim takes a delivery. A claim of two statements goes on from the result
    /// of the first. The second one uses the endpoint's row only, and looks again.
    fn is_picked(&self, worker: usize, plan: Option<Plan>, delivery: usize) -> bool {
        let (scope, state, clock) = (self.scope, &self.state, self.state.workers[worker].clock);
        let Some(plan) = plan else { return is_due(scope, state, worker, delivery) };
        let Some(waiting) = state.waiting(delivery) else { return false };
        let generation = Some(state.deliveries[delivery].generation);
        let is_planned = plan.open[scope.endpoint_of(delivery)] == generation;
        let is_fit = if scope.deviates(Deviation::ClaimsInTwoStatements) {
            let is_early = !scope.is_ordered() && is_early(scope, waiting, clock);
            delivery <= plan.bound && is_free(scope, waiting, clock) && !is_early
        } else {
            delivery == plan.bound && is_due(scope, state, worker, delivery)
        };
        is_planned && is_fit
    }

    /// A claim, or its second statement, which uses the rows of the first one's endpoints.
    pub(super) fn claim(&mut self, worker: usize, most: usize, is_heard: bool) {
        let plan = self.state.workers[worker].plan.take();
        let is_picked = |delivery: &usize| self.is_picked(worker, plan, *delivery);
        let picked: Vec<usize> = (0..DELIVERIES).filter(is_picked).take(most).collect();
        if !is_heard {
            self.fault();
        }
        // One transaction claims them all.
        let is_broken = |one: &usize| broken_by_claim(self.scope, &self.state, (worker, *one));
        let found = picked.iter().find_map(is_broken);
        self.broken = self.broken.or(found);
        for delivery in picked {
            let token = self.state.fresh_token(delivery);
            if let Some(waiting) = self.state.waiting_mut(delivery) {
                waiting.lease = Some(Lease { token, is_over: false, is_lost: false });
            }
            let stage = if is_heard { Stage::Queued } else { Stage::Unheard };
            self.hold(delivery, worker, token, stage);
        }
    }

    /// A claim whose answer was lost is made again with the same token: it takes the deliveries
    /// that it had claimed, unless an ordered endpoint has another first delivery now.
    pub(super) fn claim_again(&mut self, worker: usize) {
        let holders = std::mem::take(&mut self.state.holders);
        let is_own = |holder: &Holder| holder.worker == worker && holder.stage == Stage::Unheard;
        let (own, others) = holders.into_iter().partition::<Vec<_>, _>(is_own);
        self.state.holders = others;
        for holder in own {
            let delivery = holder.delivery;
            let is_held = self.state.holds(&holder) && is_open(self.scope, &self.state, delivery);
            if !is_held || self.scope.deviates(Deviation::ForgetsLostClaims) {
                continue;
            }
            let is_head = (0..delivery).all(|earlier| self.state.waiting(earlier).is_none());
            if self.scope.is_ordered() && !is_head {
                self.lease_mut(delivery).expect("it is held").is_lost = true;
                continue;
            }
            // The time is that of the first try, whatever the worker's clock shows now.
            let broken = broken_by_claim(self.scope, &self.state, (worker, delivery));
            let broken = broken.filter(|one| *one != Promise::NotBeforeDue);
            self.broken = self.broken.or(broken);
            self.lease_mut(delivery).expect("it is held").is_over = false;
            self.hold(delivery, worker, holder.token, Stage::Queued);
        }
    }

    /// A claim of a preclaimed delivery, at the moment when it reads the endpoint.
    pub(super) fn take(&mut self, place: usize) {
        let holder = self.state.holders[place];
        let number = self.scope.endpoint_of(holder.delivery);
        let endpoint = self.state.endpoints[number];
        let is_open = endpoint.is_active && endpoint.generation == holder.generation;
        let is_held = self.state.holds(&holder);
        let looks = holder.knows != endpoint.was_cancelled
            && !self.scope.deviates(Deviation::TakesWhatHasEnded);
        self.state.workers[holder.worker].knows[number] |= is_open && endpoint.was_cancelled;
        if !is_open || (looks && !is_held) {
            self.state.holders.remove(place);
            return;
        }
        if !is_held && !holder.has_lapsed {
            self.broken = Some(Promise::EndedIsNotHandedOut);
        }
        self.state.holders[place].stage = Stage::Queued;
    }
}
