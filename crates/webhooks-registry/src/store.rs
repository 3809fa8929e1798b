//! The port to whatever keeps endpoints durably.

use std::error::Error;
use std::sync::Arc;

use webhooks_core::{EndpointId, TenantId};

use crate::{DisableReason, Endpoint, RegisterError, Registration, UnknownEndpoint};

/// Keeps endpoints durably. What it returned `Ok` for survives a crash.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not store endpoints: implement `EndpointStore`"
)]
pub trait EndpointStore: Send + Sync + 'static {
    /// Registers an endpoint, replacing the one that has this id, which is returned. Deliveries
    /// that wait for it go to the new one.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when the id is another tenant's, or the store fails.
    fn register(
        &self,
        id: EndpointId,
        endpoint: Endpoint,
    ) -> impl Future<Output = Result<Option<Arc<Registration>>, EndpointStoreError>> + Send;

    /// Forgets an endpoint and returns it. Deliveries that wait for it are cancelled.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when no endpoint has this id, or the store fails.
    fn unregister(
        &self,
        id: EndpointId,
    ) -> impl Future<Output = Result<Arc<Registration>, EndpointStoreError>> + Send;

    /// Makes an endpoint inactive for a reason, if it is active; returns whether it was.
    /// Deliveries that wait for it are cancelled.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when no endpoint has this id, or the store fails.
    fn disable(
        &self,
        id: EndpointId,
        reason: DisableReason,
    ) -> impl Future<Output = Result<bool, EndpointStoreError>> + Send;

    /// Returns the endpoint with this id.
    ///
    /// # Errors
    /// [`EndpointStoreError::Unavailable`] when the store fails.
    fn get(
        &self,
        id: EndpointId,
    ) -> impl Future<Output = Result<Option<Arc<Registration>>, EndpointStoreError>> + Send;

    /// Returns at most `limit` endpoints, active or not, ordered by id, those after `after`; of one
    /// tenant if it is named.
    ///
    /// # Errors
    /// [`EndpointStoreError::Unavailable`] when the store fails.
    fn list(
        &self,
        tenant: Option<TenantId>,
        after: Option<EndpointId>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Arc<Registration>>, EndpointStoreError>> + Send;
}

/// Says why a store of endpoints did not do as it was asked. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointStoreError {
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
