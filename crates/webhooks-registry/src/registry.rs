//! The endpoints of a program, in memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use webhooks_core::{EndpointId, Event, EventType, IdError, TenantId, excerpt};

use crate::index::{Index, patterns_of};
use crate::{Endpoint, EndpointError};

/// The endpoints of a program, in memory; shared between threads by reference.
///
/// Writers hold the lock for the few entries of one endpoint, readers for one look-up, so that
/// neither waits long, however many endpoints there are.
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
    by_id: BTreeMap<EndpointId, Arc<Registration>>,
    index: Index,
}

/// An endpoint under its id.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Registration {
    /// The id that the endpoint was registered under.
    pub id: EndpointId,
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Why it was made inactive, if that was not its owner's wish.
    pub disabled: Option<DisableReason>,
}

impl Registration {
    /// Returns the endpoint under this id.
    pub fn new(id: EndpointId, endpoint: Endpoint) -> Self {
        Self { id, endpoint, disabled: None }
    }

    /// Returns the same endpoint made inactive for a reason.
    #[must_use]
    pub fn disabled(&self, reason: DisableReason) -> Self {
        let endpoint = self.endpoint.clone().inactive();
        Self { id: self.id.clone(), endpoint, disabled: Some(reason) }
    }
}

/// Why an endpoint was made inactive although its owner did not ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DisableReason {
    /// Nothing but failures for too long.
    Failing,
    /// It answered 410 Gone.
    Gone,
}

/// Says why an endpoint cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The endpoint exceeds a bound.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The id is malformed.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The id belongs to an endpoint of another tenant, which is left as it is.
    #[error("endpoint id {id:?} is taken by another tenant")]
    OtherTenant {
        /// The id.
        id: String,
    },
}

/// Says that no endpoint is registered under an id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no endpoint {id:?} is registered")]
pub struct UnknownEndpoint {
    /// The id that was asked for; of a malformed one, the first 64 characters at most.
    pub id: String,
}

impl Registry {
    /// Returns a registry without endpoints.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers an endpoint, replacing the one that has this id, which is returned.
    ///
    /// # Errors
    /// [`RegisterError`] when the endpoint has more than 256 subscriptions, or when the id is
    /// malformed, or another tenant's: ids are unique over all tenants, since results name
    /// endpoints by them alone.
    pub fn register(
        &self,
        id: &str,
        endpoint: Endpoint,
    ) -> Result<Option<Arc<Registration>>, RegisterError> {
        let id = EndpointId::new(id)?;
        self.restore(Registration::new(id, endpoint))
    }

    /// Registers an endpoint as a store kept it, replacing the one that has this id, which is
    /// returned.
    ///
    /// # Errors
    /// [`RegisterError`] when the id is another tenant's, or the endpoint is out of bounds.
    pub fn restore(
        &self,
        registration: Registration,
    ) -> Result<Option<Arc<Registration>>, RegisterError> {
        registration.endpoint.check()?;
        let id = registration.id.clone();
        let registration = Arc::new(registration);
        // Made before the lock is taken, so that readers do not wait for it.
        let patterns = patterns_of(&registration).map(str::to_owned).collect();
        let mut state = self.write();
        let owner = state.by_id.get(&id).map(|current| &current.endpoint.tenant);
        if owner.is_some_and(|owner| *owner != registration.endpoint.tenant) {
            return Err(RegisterError::OtherTenant { id: id.to_string() });
        }
        let replaced = state.by_id.insert(id, Arc::clone(&registration));
        if let Some(replaced) = &replaced {
            state.index.remove(replaced);
        }
        state.index.insert(&registration, patterns);
        Ok(replaced)
    }

    /// Forgets an endpoint and returns it.
    ///
    /// # Errors
    /// [`UnknownEndpoint`] when no endpoint has this id.
    pub fn unregister(&self, id: &str) -> Result<Arc<Registration>, UnknownEndpoint> {
        let unknown = |id| UnknownEndpoint { id };
        let key = EndpointId::new(id).map_err(|_malformed| unknown(excerpt(id)))?;
        let mut state = self.write();
        let removed = state.by_id.remove(&key).ok_or_else(|| unknown(key.to_string()))?;
        state.index.remove(&removed);
        Ok(removed)
    }

    /// Makes an endpoint inactive, unless it was replaced or forgotten since it was looked up, or
    /// is inactive already; returns what stands there now if it did.
    pub fn disable(
        &self,
        seen: &Arc<Registration>,
        reason: DisableReason,
    ) -> Option<Arc<Registration>> {
        let mut state = self.write();
        let current = state.by_id.get(&seen.id)?;
        if !Arc::ptr_eq(current, seen) || !seen.endpoint.active {
            return None;
        }
        state.index.remove(seen);
        let disabled = Arc::new(seen.disabled(reason));
        state.by_id.insert(seen.id.clone(), Arc::clone(&disabled));
        Some(disabled)
    }

    /// Returns the endpoint with this id.
    pub fn get(&self, id: &str) -> Option<Arc<Registration>> {
        self.read().by_id.get(&EndpointId::new(id).ok()?).cloned()
    }

    /// Returns all endpoints, active or not, ordered by id.
    pub fn list(&self) -> Vec<Arc<Registration>> {
        self.read().by_id.values().cloned().collect()
    }

    /// Returns at most `limit` endpoints, active or not, ordered by id, those after `after`; of one
    /// tenant if it is named.
    pub fn page(
        &self,
        tenant: Option<&TenantId>,
        after: Option<&EndpointId>,
        limit: usize,
    ) -> Vec<Arc<Registration>> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        (self.read().by_id.range::<EndpointId, _>((after, Bound::Unbounded)))
            .map(|(_, registration)| registration)
            .filter(|found| tenant.is_none_or(|tenant| *tenant == found.endpoint.tenant))
            .take(limit)
            .cloned()
            .collect()
    }

    /// Returns the active endpoints of the event's tenant that want the event, ordered by id.
    ///
    /// The cost grows with the endpoints found and the depth of the event type, not with the
    /// endpoints registered.
    pub fn matching(&self, event: &Event) -> Vec<Arc<Registration>> {
        self.matching_type(&event.tenant, &event.event_type)
    }

    /// Returns the active endpoints of a tenant that want events of this type, ordered by id.
    pub fn matching_type(
        &self,
        tenant: &TenantId,
        event_type: &EventType,
    ) -> Vec<Arc<Registration>> {
        self.read().index.matching(tenant, event_type)
    }

    // A panic cannot leave the state half changed in a way that matters: entries are whole.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
