//! The endpoints of a program, in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use thiserror::Error;
use webhooks_core::{Channel, EndpointId, Event, EventType, IdError, TenantId, Timestamp, excerpt};

use crate::index::{Index, patterns_of};
use crate::{
    DisableReason, Endpoint, EndpointError, EndpointKey, EndpointNumber, EndpointState,
    Registration, Revision,
};

/// The endpoints of a program, in memory; shared between threads by reference.
///
/// Writers hold the lock for the few entries of one endpoint, readers for one look-up. So neither
/// waits long, however many endpoints there are.
///
/// # Example
/// ```
/// use webhooks_core::Event;
/// use webhooks_registry::{Endpoint, Registry};
///
/// let registry = Registry::new();
/// registry.register("crm", Endpoint::new("https://example.com/", "my-secret-key")?)?;
/// assert_eq!(registry.matching(&Event::new("created", 1)?).len(), 1);
/// registry.unregister("crm")?;
/// assert!(registry.list().is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Registry {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    by_key: BTreeMap<EndpointKey, Arc<Registration>>,
    index: Index,
    /// The last number that was given to an endpoint.
    last_number: u64,
}

/// The reason why an endpoint cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The endpoint exceeds a bound.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The id is malformed.
    #[error(transparent)]
    Id(#[from] IdError),
}

/// The error of a tenant that has no endpoint under an id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("tenant {tenant} has no endpoint {id:?}")]
pub struct UnknownEndpoint {
    /// The tenant.
    pub tenant: TenantId,
    /// The id that was asked for; if it is malformed, its first 64 characters at most.
    pub id: String,
}

impl UnknownEndpoint {
    /// Returns the error for this key.
    pub fn new(key: &EndpointKey) -> Self {
        Self { tenant: key.tenant.clone(), id: key.id.to_string() }
    }
}

impl Registry {
    /// Returns a registry without endpoints.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers an endpoint. Replaces and returns the one that its tenant has under this id.
    ///
    /// # Errors
    /// [`RegisterError`] when the endpoint exceeds a bound or the id is malformed.
    pub fn register(
        &self,
        id: &str,
        endpoint: Endpoint,
    ) -> Result<Option<Arc<Registration>>, RegisterError> {
        let id = EndpointId::new(id)?;
        let number = {
            let mut state = self.write();
            state.last_number += 1;
            EndpointNumber::from_u64(state.last_number)
        };
        let added = Registration::new(number, id, endpoint);
        let revision = Revision::first(Timestamp::now());
        self.restore(Registration { revision, ..added })
    }

    /// Registers an endpoint with the number and state that a store has for it. Replaces and returns the
    /// one that its tenant has under this id.
    ///
    /// # Errors
    /// [`RegisterError`] when the endpoint exceeds a bound.
    pub fn restore(
        &self,
        registration: Registration,
    ) -> Result<Option<Arc<Registration>>, RegisterError> {
        registration.endpoint.check()?;
        let key = registration.key();
        let registration = Arc::new(registration);
        // Before the lock, so that readers do not wait while the texts are copied.
        let patterns = patterns_of(&registration).map(str::to_owned).collect();
        let mut state = self.write();
        let replaced = state.by_key.insert(key, Arc::clone(&registration));
        if let Some(replaced) = &replaced {
            state.index.remove(replaced);
        }
        state.index.insert(&registration, patterns);
        Ok(replaced)
    }

    /// Removes an endpoint of the default tenant and returns it.
    ///
    /// # Errors
    /// [`UnknownEndpoint`] when the default tenant has no endpoint with this id.
    pub fn unregister(&self, id: &str) -> Result<Arc<Registration>, UnknownEndpoint> {
        match EndpointId::new(id) {
            Ok(id) => self.unregister_of(&EndpointKey::of_default_tenant(id)),
            Err(_malformed) => {
                Err(UnknownEndpoint { tenant: TenantId::default(), id: excerpt(id) })
            }
        }
    }

    /// Removes a tenant's endpoint and returns it.
    ///
    /// # Errors
    /// [`UnknownEndpoint`] when the tenant has no endpoint with this id.
    pub fn unregister_of(&self, key: &EndpointKey) -> Result<Arc<Registration>, UnknownEndpoint> {
        let mut state = self.write();
        let removed = state.by_key.remove(key);
        let removed = removed.ok_or_else(|| UnknownEndpoint::new(key))?;
        state.index.remove(&removed);
        Ok(removed)
    }

    /// Disables an endpoint and returns it in its new state. Does nothing if it was replaced or removed
    /// since it was looked up, or is disabled already.
    pub fn disable(
        &self,
        seen: &Arc<Registration>,
        reason: DisableReason,
    ) -> Option<Arc<Registration>> {
        let mut state = self.write();
        let key = seen.key();
        let current = state.by_key.get(&key)?;
        // Identity, not equality: registering an equal endpoint replaces it, too.
        if !Arc::ptr_eq(current, seen) || !seen.state.is_open() {
            return None;
        }
        state.index.remove(seen);
        let disabled = Arc::new(seen.in_state(EndpointState::Disabled(reason), Timestamp::now()));
        state.by_key.insert(key, Arc::clone(&disabled));
        Some(disabled)
    }

    /// Returns the endpoint of the default tenant with this id.
    pub fn get(&self, id: &str) -> Option<Arc<Registration>> {
        self.get_of(&EndpointKey::of_default_tenant(EndpointId::new(id).ok()?))
    }

    /// Returns a tenant's endpoint.
    pub fn get_of(&self, key: &EndpointKey) -> Option<Arc<Registration>> {
        self.read().by_key.get(key).cloned()
    }

    /// Returns all endpoints in any state, ordered by tenant and id.
    pub fn list(&self) -> Vec<Arc<Registration>> {
        self.read().by_key.values().cloned().collect()
    }

    /// Returns at most `limit` endpoints in any state, ordered by tenant and id, those after
    /// `after`.
    pub fn page(&self, after: Option<&EndpointKey>, limit: usize) -> Vec<Arc<Registration>> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        (self.read().by_key.range::<EndpointKey, _>((after, Bound::Unbounded)))
            .map(|(_, registration)| Arc::clone(registration))
            .take(limit)
            .collect()
    }

    /// Returns the endpoints of the event's tenant that get the event and are not disabled, ordered
    /// by id.
    ///
    /// The cost grows with the endpoints found and the depth of the event type, not with the
    /// endpoints registered.
    pub fn matching(&self, event: &Event) -> Vec<Arc<Registration>> {
        self.matching_type(&event.tenant, &event.event_type, &event.channels)
    }

    /// Returns the endpoints of a tenant that get events of this type and these channels and are not
    /// disabled, ordered by id.
    pub fn matching_type(
        &self,
        tenant: &TenantId,
        event_type: &EventType,
        channels: &[Channel],
    ) -> Vec<Arc<Registration>> {
        self.read().index.matching(tenant, event_type, channels)
    }

    /// Returns the named endpoints of a tenant that are not disabled, ordered by id.
    pub fn named(&self, tenant: &TenantId, ids: &[EndpointId]) -> Vec<Arc<Registration>> {
        let state = self.read();
        let ids: BTreeSet<&EndpointId> = ids.iter().collect();
        (ids.into_iter())
            .filter_map(|id| state.by_key.get(&EndpointKey::new(tenant.clone(), id.clone())))
            .filter(|found| found.state.is_open())
            .cloned()
            .collect()
    }

    /// Counts the endpoints of a tenant in any state.
    pub fn count_of(&self, tenant: &TenantId) -> usize {
        self.with_all(Some(tenant), |all| all.count())
    }

    /// Calls `read` with the endpoints in any state, ordered by tenant and id: those of one tenant
    /// if it is named, those of all otherwise. Writers wait meanwhile.
    pub(crate) fn with_all<T>(
        &self,
        tenant: Option<&TenantId>,
        read: impl FnOnce(&mut dyn Iterator<Item = &Arc<Registration>>) -> T,
    ) -> T {
        let state = self.read();
        let Some(tenant) = tenant else { return read(&mut state.by_key.values()) };
        // No id comes before "-": it is the first of the allowed characters.
        let first = EndpointId::new("-").map(|id| EndpointKey::new(tenant.clone(), id));
        let from = first.as_ref().map_or(Bound::Unbounded, Bound::Included);
        let of_tenant = (state.by_key.range::<EndpointKey, _>((from, Bound::Unbounded)))
            .map(|(_, found)| found)
            .take_while(|found| *tenant == found.endpoint.tenant);
        read(&mut { of_tenant })
    }

    // A poisoned lock is no reason to stop: a panic leaves no entry half written.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
