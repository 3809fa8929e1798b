//! The endpoints of an engine, and the operations that change them while it runs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use webhooks_core::{EndpointId, TenantId, Timestamp};
use webhooks_registry::{
    DisableReason, Endpoint, EndpointError, EndpointKey, EndpointLimits, EndpointPage,
    EndpointQuery, EndpointState, Expected, RegisterError, Registration, Secret, UnknownEndpoint,
    store::{
        EndpointCursor, EndpointStore, EndpointStoreError, RegisterRequest, Registered, StateChange,
    },
    view::EndpointView,
};

use crate::monitor::{EndpointHealth, MonitorStore};
use crate::observer::{EndpointChange, Observers, Occurrence};
use crate::store::StoreError;
use crate::transport::Transport;
use crate::worker_registry::WorkerRegistry;

/// The endpoints of an engine. When a change has returned, no worker of this engine starts an
/// attempt with the settings from before. Workers of other engines of the same store may do so with
/// deliveries that they have claimed already.
///
/// An id means an endpoint of the tenant that [`tenant`](Self::tenant) names. If none is named, it
/// means one of the default tenant, and lists have the endpoints of all tenants.
pub struct Endpoints<'e, S, T> {
    pub(crate) store: &'e S,
    pub(crate) transport: &'e T,
    pub(crate) workers: &'e WorkerRegistry,
    pub(crate) limits: EndpointLimits,
    pub(crate) now: Box<dyn Fn() -> Timestamp + Send + Sync + 'e>,
    pub(crate) observers: &'e Observers,
    pub(crate) tenant: Option<TenantId>,
}

/// The number of times that [`Endpoints::update`] repeats a change without a version, if others change
/// the endpoint at the same time.
const TRIES: usize = 8;

/// The largest number of waiting deliveries of an endpoint that [`Endpoints::overview`] counts.
const MAX_COUNTED: u64 = 10_000;

/// A page of endpoints with their health, without their secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointOverview {
    /// The endpoints, in the order of the list.
    pub items: Vec<(EndpointView, EndpointHealth)>,
    /// The place of the next page; `None` if nothing follows.
    pub next: Option<EndpointCursor>,
    /// The place of the page before; `None` if nothing comes before.
    pub previous: Option<EndpointCursor>,
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
        self.register_if(id, endpoint, Expected::Any).await
    }

    /// Registers an endpoint under an id that is not in use.
    ///
    /// # Errors
    /// As [`register`](Self::register), and [`EndpointStoreError::AlreadyRegistered`] when the tenant
    /// has an endpoint with this id.
    pub async fn create(&self, id: &str, endpoint: Endpoint) -> Result<(), EndpointStoreError> {
        self.register_if(id, endpoint, Expected::Absent).await.map(drop)
    }

    /// Registers an endpoint, if a condition holds.
    ///
    /// # Errors
    /// As [`register`](Self::register), and [`EndpointStoreError`] when the condition does not hold.
    pub async fn register_if(
        &self,
        id: &str,
        endpoint: Endpoint,
        expected: Expected,
    ) -> Result<Registered, EndpointStoreError> {
        let id = parse(id)?;
        let endpoint = match &self.tenant {
            Some(tenant) => endpoint.tenant(tenant.clone()),
            None => endpoint,
        };
        self.limits.check(&endpoint).map_err(RegisterError::Endpoint)?;
        self.transport
            .check(&endpoint)
            .map_err(|source| EndpointStoreError::Refused { source: source.into() })?;
        let (max_endpoints, now) = (self.limits.endpoints_per_tenant, (self.now)());
        let request =
            RegisterRequest { id, endpoint: endpoint.clone(), expected, max_endpoints, now };
        let key = request.key();
        let registered = self.store.register(request).await?;
        match &registered {
            Registered::Added => self.notify(&key, EndpointChange::Registered),
            Registered::Changed { before } => {
                // Each locks on its own. The other way round, a lane whose limits were just reset
                // could start an attempt from a claim with the settings from before.
                self.workers.release_endpoint(before.number);
                self.workers.reset_health(before.number);
                for change in changes(before, endpoint, now) {
                    self.notify(&key, change);
                }
            }
            Registered::Unchanged => {}
        }
        Ok(registered)
    }

    /// Changes an endpoint; returns it as it is then.
    ///
    /// With `expected`, the version that the caller has read, a change that others made since is not
    /// undone: it is an error. Without it, `change` is applied to the endpoint as it is, and again if
    /// others change it at the same time.
    ///
    /// # Errors
    /// As [`register`](Self::register), and [`EndpointStoreError`] when no endpoint has this id, or it
    /// has another version than `expected`. The error of `change` as
    /// [`RegisterError::Endpoint`].
    ///
    /// # Example
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use webhooks_dispatch::{Engine, FnTransport, MemoryStore};
    /// use webhooks_registry::Endpoint;
    ///
    /// let engine = Engine::new(MemoryStore::new(), FnTransport::new(|_, _, _, _| async { (200, "") }));
    /// let endpoints = engine.endpoints();
    /// endpoints.create("crm", Endpoint::new("https://example.com/", "my-secret-key")?).await?;
    /// let changed = endpoints.update("crm", Some(1), |found| found.events(["user.*"])).await?;
    /// assert_eq!(changed.revision.version, 2);
    /// assert!(endpoints.update("crm", Some(1), Ok).await.is_err(), "it is in version 2");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn update(
        &self,
        id: &str,
        expected: Option<u64>,
        mut change: impl FnMut(Endpoint) -> Result<Endpoint, EndpointError> + Send,
    ) -> Result<Arc<Registration>, EndpointStoreError> {
        let key = self.key(id)?;
        let mut tries = 0;
        loop {
            let unknown = || UnknownEndpoint::new(&key);
            let found = self.store.get(key.clone()).await?.ok_or_else(unknown)?;
            let version = found.revision.version;
            if let Some(expected) = expected.filter(|expected| *expected != version) {
                let endpoint = key;
                return Err(EndpointStoreError::Changed { endpoint, expected, found: version });
            }
            let endpoint = change(found.endpoint.clone()).map_err(RegisterError::Endpoint)?;
            // A change must not move the endpoint to another tenant.
            let endpoint = endpoint.tenant(key.tenant.clone());
            tries += 1;
            let expected_now = Expected::Version(version);
            match self.register_if(key.id.as_str(), endpoint, expected_now).await {
                Err(EndpointStoreError::Changed { .. }) if expected.is_none() && tries < TRIES => {}
                Err(error) => return Err(error),
                Ok(_) => return self.store.get(key.clone()).await?.ok_or_else(|| unknown().into()),
            }
        }
    }

    /// Adds a new secret to an endpoint, which signs beside the old ones for `grace`; returns the new
    /// secret. A secret is generated if `new` is `None`.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub async fn rotate_secret(
        &self,
        id: &str,
        new: Option<Secret>,
        grace: Duration,
    ) -> Result<Secret, EndpointStoreError> {
        let new = new.unwrap_or_else(Secret::generate);
        let now = (self.now)();
        self.update(id, None, |found| found.rotate(new.clone(), now + grace, now)).await?;
        Ok(new)
    }

    /// Returns the secrets of an endpoint that sign now, the newest first: to show one to the
    /// endpoint's owner. All other calls keep them from view.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when no endpoint has this id, or the store fails.
    pub async fn secrets(&self, id: &str) -> Result<Vec<Secret>, EndpointStoreError> {
        let key = self.key(id)?;
        let found = self.store.get(key.clone()).await?;
        let found = found.ok_or_else(|| UnknownEndpoint::new(&key))?;
        Ok(found.endpoint.live_secrets((self.now)()).cloned().collect())
    }

    /// Removes an endpoint and returns it. Deliveries that wait for it are cancelled.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when no endpoint has this id, or the store fails.
    pub async fn unregister(&self, id: &str) -> Result<Arc<Registration>, EndpointStoreError> {
        let removed = self.store.unregister(self.key(id)?, (self.now)()).await?;
        self.workers.forget_endpoint(removed.number);
        self.notify(&removed.key(), EndpointChange::Unregistered);
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
        let Some(before) = self.store.set_state(self.key(id)?, change, (self.now)()).await? else {
            return Ok(false);
        };
        match change {
            StateChange::Disable(_) => self.workers.forget_endpoint(before.number),
            _ => self.workers.release_endpoint(before.number),
        }
        self.notify(&before.key(), change_of_state(change));
        Ok(true)
    }

    /// Returns the endpoint with this id.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when the id is malformed, or the store fails.
    pub async fn get(&self, id: &str) -> Result<Option<Arc<Registration>>, EndpointStoreError> {
        self.store.get(self.key(id)?).await
    }

    /// Returns a page of a list of endpoints: those of the tenant that [`tenant`](Self::tenant) names, or
    /// of the one that the query names.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when a cursor belongs to another list, or the store fails.
    pub async fn list(&self, query: EndpointQuery) -> Result<EndpointPage, EndpointStoreError> {
        self.store.list(self.scoped(query)).await
    }

    /// Counts the endpoints that the filters of a query let through, up to `max`.
    ///
    /// # Errors
    /// [`EndpointStoreError::Unavailable`] when the store fails.
    pub async fn count(
        &self,
        query: EndpointQuery,
        max: usize,
    ) -> Result<usize, EndpointStoreError> {
        self.store.count(self.scoped(query), max).await
    }

    /// Returns a page of a list of endpoints with their health, in two calls of the store. At most
    /// 10,000 waiting deliveries of each are counted.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when a cursor belongs to another list, or the store fails.
    pub async fn overview(
        &self,
        query: EndpointQuery,
    ) -> Result<EndpointOverview, EndpointStoreError>
    where
        S: MonitorStore,
    {
        let EndpointPage { items, next, previous } = self.list(query).await?;
        let keys = items.iter().map(|found| found.key()).collect();
        let unavailable =
            |error: StoreError| EndpointStoreError::Unavailable { source: error.into() };
        let health = self.store.health(keys, MAX_COUNTED).await.map_err(unavailable)?;
        let items = items.iter().map(|found| found.view()).zip(health).collect();
        Ok(EndpointOverview { items, next, previous })
    }

    fn scoped(&self, query: EndpointQuery) -> EndpointQuery {
        EndpointQuery { tenant: self.tenant.clone().or(query.tenant), ..query }
    }

    fn notify(&self, key: &EndpointKey, change: EndpointChange) {
        let EndpointKey { tenant, id: endpoint } = key;
        let failing_since = None;
        let changed = Occurrence::EndpointChanged { tenant, endpoint, change, failing_since };
        self.observers.notify(&changed);
    }

    fn key(&self, id: &str) -> Result<EndpointKey, RegisterError> {
        Ok(EndpointKey::new(self.tenant.clone().unwrap_or_default(), parse(id)?))
    }
}

fn parse(id: &str) -> Result<EndpointId, RegisterError> {
    Ok(EndpointId::new(id)?)
}

impl<S: fmt::Debug, T> fmt::Debug for Endpoints<'_, S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { store, limits, tenant, .. } = self;
        f.debug_struct("Endpoints")
            .field("store", store)
            .field("limits", limits)
            .field("tenant", tenant)
            .finish_non_exhaustive()
    }
}

fn change_of_state(change: StateChange) -> EndpointChange {
    match change {
        StateChange::Disable(reason) => EndpointChange::Disabled(reason),
        StateChange::Enable => EndpointChange::Enabled,
        StateChange::Pause => EndpointChange::Paused,
        StateChange::Resume => EndpointChange::Resumed,
    }
}

/// Returns the changes that registering `endpoint` over another one makes.
fn changes(
    before: &Registration,
    endpoint: Endpoint,
    now: Timestamp,
) -> impl Iterator<Item = EndpointChange> {
    let is_rotated = !before.endpoint.has_same_secrets(&endpoint);
    let is_updated = !before.endpoint.has_same_settings(&endpoint);
    let after = before.again(endpoint, now).map_or(before.state, |after| after.state);
    let state = match after {
        _ if after == before.state => None,
        EndpointState::Disabled(reason) => Some(EndpointChange::Disabled(reason)),
        EndpointState::Active | EndpointState::Paused => Some(EndpointChange::Enabled),
    };
    let updated = is_updated.then_some(EndpointChange::Updated);
    let rotated = is_rotated.then_some(EndpointChange::SecretRotated);
    updated.into_iter().chain(rotated).chain(state)
}
