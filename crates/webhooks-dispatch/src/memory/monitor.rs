//! The present state of the store in memory, and its figures.

use std::collections::BTreeSet;

use webhooks_core::{DeliveryStatus, TenantId, Timestamp};
use webhooks_registry::{EndpointKey, EndpointNumber, EndpointState};

use super::{Entry, MemoryStore, State};
use crate::figures::{FiguresQuery, FiguresRow, by_step};
use crate::monitor::{EndpointHealth, MonitorStore, QueueDepth, Statistics};
use crate::report::WorkerReport;
use crate::store::StoreError;

impl MonitorStore for MemoryStore {
    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn waiting(&self, limit: u64) -> Result<u64, StoreError> {
        let state = self.state();
        let waiting = state.deliveries.values().filter(|entry| {
            matches!(entry.status, DeliveryStatus::Pending | DeliveryStatus::Retrying)
        });
        Ok(waiting.zip(0..limit).count() as u64)
    }

    async fn statistics(
        &self,
        endpoint: EndpointKey,
        since: Timestamp,
    ) -> Result<Statistics, StoreError> {
        let state = self.state();
        let current = state.registry.get_of(&endpoint);
        let failing = current.and_then(|current| state.failing.get(&current.number));
        let failing_since = failing.map(|failing| failing.since);
        let mut statistics = Statistics { failing_since, ..Statistics::default() };
        for entry in state.deliveries.values() {
            let is_tenants = || state.tenant(entry).is_some_and(|found| *found == endpoint.tenant);
            if entry.endpoint == endpoint.id && entry.progress.queued_at >= since && is_tenants() {
                statistics.count(entry.status, 1);
            }
        }
        Ok(statistics)
    }

    async fn depth(&self, tenant: Option<TenantId>, max: u64) -> Result<QueueDepth, StoreError> {
        let state = self.state();
        let is_tenants = |entry: &Entry| {
            tenant.as_ref().is_none_or(|tenant| state.tenant(entry) == Some(tenant))
        };
        Ok(state.depth(is_tenants, max))
    }

    async fn health(
        &self,
        endpoints: Vec<EndpointKey>,
        max: u64,
    ) -> Result<Vec<EndpointHealth>, StoreError> {
        let state = self.state();
        let health = endpoints.iter().map(|key| {
            let Some(found) = state.registry.get_of(key) else { return EndpointHealth::default() };
            // Of the numbers that it had before it was enabled again, too.
            let numbers = state.numbers(Some(&key.tenant), Some(key));
            EndpointHealth {
                queue: state.depth(|entry| entry.number == found.number, max),
                failing: state.failing.get(&found.number).copied(),
                delivered_at: numbers.filter_map(|number| state.figures.delivered_at(number)).max(),
            }
        });
        Ok(health.collect())
    }

    async fn workers(&self) -> Result<Vec<WorkerReport>, StoreError> {
        Ok(self.state().reports.values().cloned().collect())
    }

    async fn figures(&self, query: FiguresQuery) -> Result<Vec<FiguresRow>, StoreError> {
        let state = self.state();
        let numbers: BTreeSet<EndpointNumber> =
            state.numbers(query.tenant.as_ref(), query.endpoint.as_ref()).collect();
        let counts = state.figures.of(|number| numbers.contains(&number), query.since, query.until);
        Ok(by_step(&query, counts))
    }
}

impl State {
    fn tenant(&self, entry: &Entry) -> Option<&TenantId> {
        self.events.get(&entry.event).map(|event| &event.event.tenant)
    }

    /// Returns the numbers that endpoints have or had: of a tenant, of one endpoint, or of all.
    fn numbers(
        &self,
        tenant: Option<&TenantId>,
        endpoint: Option<&EndpointKey>,
    ) -> impl Iterator<Item = EndpointNumber> {
        (self.keys_by_number.iter())
            .filter(move |(_, key)| tenant.is_none_or(|tenant| key.tenant == *tenant))
            .filter(move |(_, key)| endpoint.is_none_or(|endpoint| *key == endpoint))
            .map(|(number, _)| *number)
    }

    fn depth(&self, is_wanted: impl Fn(&Entry) -> bool, max: u64) -> QueueDepth {
        let waiting = self.deliveries.values().filter(|entry| entry.is_open() && is_wanted(entry));
        let first = |entry: &Entry| entry.due_at.max(entry.progress.queued_at);
        let oldest_due_at = waiting.clone().map(first).min();
        let is_active = |entry: &&Entry| {
            let key = self.keys_by_number.get(&entry.number);
            let found = key.and_then(|key| self.registry.get_of(key));
            found.is_some_and(|found| found.state == EndpointState::Active)
        };
        let servable = |entry: &Entry| first(entry).max(self.backlog.blocked_until(entry.number));
        let oldest_servable_at = waiting.clone().filter(is_active).map(servable).min();
        let waiting = waiting.zip(0..max).count() as u64;
        QueueDepth { waiting, oldest_due_at, oldest_servable_at }
    }
}
