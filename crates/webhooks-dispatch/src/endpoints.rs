//! The endpoints of an engine, and the operations that change them while it runs.

use std::sync::Arc;

use webhooks_core::{EndpointId, TenantId};
use webhooks_registry::{
    DisableReason, Endpoint, EndpointKey, RegisterError, Registration,
    store::{EndpointStore, EndpointStoreError, Registered, StateChange},
};

use crate::transport::Transport;
use crate::worker_registry::WorkerRegistry;

/// The endpoints of an engine. When a change has returned, no worker of this engine starts an
/// attempt with the settings from before. Workers of other engines of the same store may do so with
/// deliveries that they have claimed already.
///
/// An id means an endpoint of the tenant that [`tenant`](Self::tenant) names. If none is named, it
/// means one of the default tenant, and lists have the endpoints of all tenants.
#[derive(Debug)]
pub struct Endpoints<'e, S, T> {
    pub(crate) store: &'e S,
    pub(crate) transport: &'e T,
    pub(crate) workers: &'e WorkerRegistry,
    pub(crate) tenant: Option<TenantId>,
}

impl<S: EndpointStore, T: Transport> Endpoints<'_, S, T> {
    /// Returns the endpoints of a tenant. Endpoints that are registered with it belong to this
    /// tenant.
    #[must_use]
    pub fn tenant(self, tenant: TenantId) -> Self {
        Self { tenant: Some(tenant), ..self }
    }

    /// Registers an endpoint, and replaces the one that has this id.
    ///
    /// Deliveries that wait go to the new one, at once if only its breaker was open. An equal
    /// endpoint changes nothing. An endpoint that was paused or disabled stays so, unless its
    /// `active` differs from before: then it is enabled or disabled.
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
            // Each locks on its own. The other way round, a lane whose limits were just reset could
            // start an attempt from a claim with the settings from before.
            self.workers.release_endpoint(before.number);
            self.workers.reset_health(before.number);
        }
        Ok(registered)
    }

    /// Removes an endpoint and returns it. Deliveries that wait for it are cancelled.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when no endpoint has this id, or the store fails.
    pub async fn unregister(&self, id: &str) -> Result<Arc<Registration>, EndpointStoreError> {
        let removed = self.store.unregister(self.key(id)?).await?;
        self.workers.forget_endpoint(removed.number);
        Ok(removed)
    }

    /// Makes a disabled endpoint active again; returns whether it was disabled. Events that it
    /// missed can be replayed.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when no endpoint has this id, or the store fails.
    pub async fn enable(&self, id: &str) -> Result<bool, EndpointStoreError> {
        self.set_state(id, StateChange::Enable).await
    }

    /// Makes deliveries for an endpoint wait until it is resumed; returns whether it was active.
    ///
    /// Attempts that have started go on. Deliveries that have waited longer than the endpoint's
    /// `max_age` are cancelled when it is resumed.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when no endpoint has this id, it is disabled, or the store fails.
    pub async fn pause(&self, id: &str) -> Result<bool, EndpointStoreError> {
        self.set_state(id, StateChange::Pause).await
    }

    /// Resumes a paused endpoint, and delivers what has waited for it; returns whether it was
    /// paused. If it had failed before, its circuit breaker may still be open.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when no endpoint has this id, it is disabled, or the store fails.
    pub async fn resume(&self, id: &str) -> Result<bool, EndpointStoreError> {
        self.set_state(id, StateChange::Resume).await
    }

    /// Disables an endpoint, and cancels the deliveries that wait for it; returns whether it was
    /// not disabled before. It stays registered, and its history stays.
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

    /// Returns at most `limit` endpoints after `after`, ordered by tenant and id: those of the
    /// tenant that [`tenant`](Self::tenant) names, or of all tenants.
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
