//! The index that finds the endpoints of an event without a look at the others.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use webhooks_core::{Channel, EndpointId, EventType, TenantId};

use crate::{Registration, Subscription};

/// The endpoints that are not disabled, by tenant and pattern. An endpoint without subscriptions is
/// under `*`.
#[derive(Debug, Default)]
pub(crate) struct Index {
    tenants: HashMap<TenantId, Patterns>,
}

type Patterns = HashMap<String, BTreeMap<EndpointId, Arc<Registration>>>;

impl Index {
    /// Adds an endpoint, unless it is disabled, under its patterns: those of [`patterns_of`].
    pub(crate) fn insert(&mut self, registration: &Arc<Registration>, patterns: Vec<String>) {
        if !registration.state.is_open() {
            return;
        }
        let tenant = self.tenants.entry(registration.endpoint.tenant.clone()).or_default();
        for pattern in patterns {
            let endpoints = tenant.entry(pattern).or_default();
            endpoints.insert(registration.id.clone(), Arc::clone(registration));
        }
    }

    /// Removes an endpoint, and entries that become empty.
    pub(crate) fn remove(&mut self, registration: &Registration) {
        let tenant = &registration.endpoint.tenant;
        let Some(patterns) = self.tenants.get_mut(tenant) else { return };
        for pattern in patterns_of(registration) {
            if let Some(endpoints) = patterns.get_mut(pattern) {
                endpoints.remove(&registration.id);
                if endpoints.is_empty() {
                    patterns.remove(pattern);
                }
            }
        }
        if patterns.is_empty() {
            self.tenants.remove(tenant);
        }
    }

    /// Returns the endpoints that get events of this type and these channels, ordered by id, each
    /// once.
    pub(crate) fn matching(
        &self,
        tenant: &TenantId,
        event_type: &EventType,
        channels: &[Channel],
    ) -> Vec<Arc<Registration>> {
        let candidates = self.candidates(tenant, event_type);
        let listening = candidates.filter(|found| found.endpoint.listens_to(channels));
        let mut found: Vec<_> = listening.cloned().collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found.dedup_by(|a, b| a.id == b.id);
        found
    }

    /// Returns every endpoint under a pattern of the type; one under several patterns comes several times.
    pub(crate) fn candidates(
        &self,
        tenant: &TenantId,
        event_type: &EventType,
    ) -> impl Iterator<Item = &Arc<Registration>> {
        let patterns = self.tenants.get(tenant);
        (event_type.patterns())
            .filter_map(move |pattern| patterns?.get(&*pattern))
            .flat_map(BTreeMap::values)
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.tenants.is_empty()
    }
}

/// Returns the patterns under which an endpoint is listed.
pub(crate) fn patterns_of(registration: &Registration) -> impl Iterator<Item = &str> {
    let subscriptions = &registration.endpoint.subscriptions;
    let all = subscriptions.is_empty().then_some("*");
    all.into_iter().chain(subscriptions.iter().map(Subscription::as_str))
}
