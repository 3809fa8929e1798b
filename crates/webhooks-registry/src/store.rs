//! The port to whatever keeps endpoints durably.

use std::error::Error;
use std::sync::Arc;

use webhooks_core::{EndpointId, TenantId};

use crate::{Endpoint, EndpointKey, RegisterError, Registration, UnknownEndpoint};

mod stored_endpoint;

pub use crate::state::{IsDisabled, StateChange};
pub use stored_endpoint::{StoredEndpoint, StoredEndpointError};

/// Keeps endpoints durably. What it returned `Ok` for survives a crash.
///
/// Whatever calls come at once, the outcome is that of some order of them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not store endpoints: implement `EndpointStore`"
)]
pub trait EndpointStore: Send + Sync + 'static {
    /// Registers an endpoint of its tenant under an id, replacing the one that is there as
    /// [`Registration::again`] says. Deliveries that wait go to the new one.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when the endpoint exceeds a bound, or the store fails.
    fn register(
        &self,
        id: EndpointId,
        endpoint: Endpoint,
    ) -> impl Future<Output = Result<Registered, EndpointStoreError>> + Send;

    /// Removes an endpoint and returns it. Deliveries that wait for it are cancelled. What it got
    /// is remembered under its id.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when there is no such endpoint, or the store fails.
    fn unregister(
        &self,
        key: EndpointKey,
    ) -> impl Future<Output = Result<Arc<Registration>, EndpointStoreError>> + Send;

    /// Changes an endpoint's state as [`EndpointState::after`](crate::EndpointState::after) says; returns the endpoint as it was
    /// before, and `None` if nothing changed. Deliveries that wait for one that is disabled are
    /// cancelled; those that wait for one that is paused go on waiting.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when there is no such endpoint, its state does not allow the change,
    /// or the store fails.
    fn set_state(
        &self,
        key: EndpointKey,
        change: StateChange,
    ) -> impl Future<Output = Result<Option<Arc<Registration>>, EndpointStoreError>> + Send;

    /// Returns an endpoint.
    ///
    /// # Errors
    /// [`EndpointStoreError::Unavailable`] when the store fails.
    fn get(
        &self,
        key: EndpointKey,
    ) -> impl Future<Output = Result<Option<Arc<Registration>>, EndpointStoreError>> + Send;

    /// Returns at most `limit` endpoints in any state, ordered by tenant and id, those after
    /// `after`; of one tenant if it is named.
    ///
    /// # Errors
    /// [`EndpointStoreError::Unavailable`] when the store fails.
    fn list(
        &self,
        tenant: Option<TenantId>,
        after: Option<EndpointKey>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Arc<Registration>>, EndpointStoreError>> + Send;
}

/// Says what registering an endpoint changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no fourth way")]
pub enum Registered {
    /// There was no endpoint under this id.
    Added,
    /// The endpoint under this id was another one.
    Changed {
        /// The endpoint as it was before.
        before: Arc<Registration>,
    },
    /// The endpoint under this id was equal.
    Unchanged,
}

/// Says why a store of endpoints did not do as it was asked. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointStoreError {
    /// A disabled endpoint can be neither paused nor resumed.
    #[error(transparent)]
    IsDisabled(#[from] IsDisabled),
    /// The transport would not deliver to the endpoint.
    #[error("deliveries cannot go to the endpoint")]
    Refused {
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The endpoint cannot be registered.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The store cannot be reached, or failed; trying again later may help.
    #[error("the store is not available")]
    Unavailable {
        /// What the store said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// No endpoint has the id.
    #[error(transparent)]
    Unknown(#[from] UnknownEndpoint),
}
