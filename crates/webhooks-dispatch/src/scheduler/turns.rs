//! Lanes in turn: tenants first, then the lanes of each.

use std::collections::{HashMap, VecDeque};

use webhooks_core::TenantId;

/// The lanes that can start an attempt, by tenant; tenants in turn.
#[derive(Debug, Default)]
pub(super) struct Turns {
    tenants: VecDeque<TenantId>,
    lanes: HashMap<TenantId, VecDeque<usize>>,
    /// The number of lanes.
    count: usize,
}

impl Turns {
    pub(super) fn is_empty(&self) -> bool {
        self.tenants.is_empty()
    }

    /// Returns the number of lanes.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Adds a lane behind the others of its tenant.
    pub(super) fn push(&mut self, tenant: &TenantId, lane: usize) {
        self.count += 1;
        match self.lanes.get_mut(tenant) {
            Some(lanes) => lanes.push_back(lane),
            None => {
                self.lanes.insert(tenant.clone(), VecDeque::from([lane]));
                self.tenants.push_back(tenant.clone());
            }
        }
    }

    /// Returns the lane whose turn it is, and puts its tenant behind the others.
    pub(super) fn pop(&mut self) -> Option<usize> {
        loop {
            let tenant = self.tenants.pop_front()?;
            let Some(lanes) = self.lanes.get_mut(&tenant) else { continue };
            let Some(lane) = lanes.pop_front() else {
                // `remove` leaves tenants without lanes in the queue.
                self.lanes.remove(&tenant);
                continue;
            };
            self.tenants.push_back(tenant);
            self.count -= 1;
            return Some(lane);
        }
    }

    /// Removes tenants that have no lane here.
    pub(super) fn tidy(&mut self) {
        self.lanes.retain(|_, lanes| !lanes.is_empty());
        self.tenants.retain(|tenant| self.lanes.contains_key(tenant));
    }

    /// Removes a lane.
    pub(super) fn remove(&mut self, tenant: &TenantId, lane: usize) {
        if let Some(lanes) = self.lanes.get_mut(tenant) {
            let before = lanes.len();
            lanes.retain(|other| *other != lane);
            self.count -= before - lanes.len();
        }
    }
}
