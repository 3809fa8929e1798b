//! The endpoints of an engine: what operators change while it runs.

use std::sync::Arc;

use webhooks_core::{EndpointId, TenantId};
use webhooks_registry::{
    DisableReason, Endpoint, EndpointKey, RegisterError, Registration,
    store::{EndpointStore, EndpointStoreError, Registered, StateChange},
};

use crate::transport::Transport;
use crate::worker_registry::WorkerRegistry;

/// The endpoints of an engine. A change holds at once: no exchange starts by what was before it.
///
/// Operations on an id mean the default tenant's endpoint, unless [`tenant`](Self::tenant) names
/// another one; lists are of all tenants then.
#[derive(Debug)]
pub struct Endpoints<'e, S, T> {
    pub(crate) store: &'e S,
    pub(crate) transport: &'e T,
    pub(crate) workers: &'e WorkerRegistry,
    pub(crate) tenant: Option<TenantId>,
}

impl<S: EndpointStore, T: Transport> Endpoints<'_, S, T> {
    /// Returns the endpoints of a tenant. Those that are registered by it become this tenant's.
    #[must_use]
    pub fn tenant(self, tenant: TenantId) -> Self {
        Self { tenant: Some(tenant), ..self }
    }

    /// Registers an endpoint, replacing the one that has this id. What waits for it goes to the new
    /// one, at once if only its breaker was in the way. An endpoint that is equal to the one that is
    /// there changes nothing, and an endpoint that was paused or disabled stays so.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when the id is malformed, the endpoint exceeds a bound, the transport
    /// would not deliver there, or the store fails.
    pub async fn register(
        &self,
        id: &str,
        endpoint: Endpoint,
    ) -> Result<Registered, EndpointStoreError> {
        let id = parse(id)?;
        let endpoint = match &self.tenant {
            Some(tenant) => endpoint.tenant(tenant.clone()),
            None => endpoint,
        };
        self.transport
            .check(&endpoint)
            .map_err(|source| EndpointStoreError::Refused { source: source.into() })?;
        let registered = self.store.register(id, endpoint).await?;
        if let Registered::Changed { before } = &registered {
            self.workers.release_endpoint(before.number);
            self.workers.reset_health(before.number);
        }
        Ok(registered)
    }

    /// Removes an endpoint and returns it. What waits for it is cancelled.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when no endpoint has this id, or the store fails.
    pub async fn unregister(&self, id: &str) -> Result<Arc<Registration>, EndpointStoreError> {
        let removed = self.store.unregister(self.key(id)?).await?;
        self.workers.forget_endpoint(removed.number);
        Ok(removed)
    }

    /// Makes a disabled endpoint active again; returns whether it was disabled. What it missed can
    /// be replayed.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when no endpoint has this id, or the store fails.
    pub async fn enable(&self, id: &str) -> Result<bool, EndpointStoreError> {
        self.set_state(id, StateChange::Enable).await
    }

    /// Lets what is published for an endpoint wait until it is resumed; returns whether it was
    /// active. Exchanges that have started are finished. What waits longer than the endpoint's
    /// `max_age` is given up when it is resumed.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when no endpoint has this id, it is disabled, or the store fails.
    pub async fn pause(&self, id: &str) -> Result<bool, EndpointStoreError> {
        self.set_state(id, StateChange::Pause).await
    }

    /// Delivers what has waited for a paused endpoint; returns whether it was paused. If the endpoint
    /// had failed before, its circuit breaker may be open yet.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when no endpoint has this id, it is disabled, or the store fails.
    pub async fn resume(&self, id: &str) -> Result<bool, EndpointStoreError> {
        self.set_state(id, StateChange::Resume).await
    }

    /// Disables an endpoint, and cancels what waits for it; returns whether it was not disabled
    /// before. It stays registered, and its history stays.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when no endpoint has this id, or the store fails.
    pub async fn disable(&self, id: &str) -> Result<bool, EndpointStoreError> {
        self.set_state(id, StateChange::Disable(DisableReason::Manual)).await
    }

    async fn set_state(&self, id: &str, change: StateChange) -> Result<bool, EndpointStoreError> {
        let Some(before) = self.store.set_state(self.key(id)?, change).await? else {
            return Ok(false);
        };
        match change {
            StateChange::Disable(_) => self.workers.forget_endpoint(before.number),
            _ => self.workers.release_endpoint(before.number),
        }
        Ok(true)
    }

    /// Returns the endpoint with this id.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when the id is malformed, or the store fails.
    pub async fn get(&self, id: &str) -> Result<Option<Arc<Registration>>, EndpointStoreError> {
        self.store.get(self.key(id)?).await
    }

    /// Returns at most `limit` endpoints ordered by tenant and id, those after `after`: of all tenants,
    /// or of the one that [`tenant`](Self::tenant) names.
    ///
    /// # Errors
    /// [`EndpointStoreError::Unavailable`] when the store fails.
    pub async fn list(
        &self,
        after: Option<EndpointKey>,
        limit: usize,
    ) -> Result<Vec<Arc<Registration>>, EndpointStoreError> {
        self.store.list(self.tenant.clone(), after, limit).await
    }

    fn key(&self, id: &str) -> Result<EndpointKey, RegisterError> {
        Ok(EndpointKey::new(self.tenant.clone().unwrap_or_default(), parse(id)?))
    }
}

fn parse(id: &str) -> Result<EndpointId, RegisterError> {
    Ok(EndpointId::new(id)?)
}
