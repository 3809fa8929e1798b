//! For implementors of a store: the port for endpoints, and the form in which they are stored.
//!
//! An application uses a store that exists and never calls this port itself. The engine of
//! `webhooks-dispatch` calls it:
//!
//! | caller | when | calls |
//! | --- | --- | --- |
//! | the engine's endpoints | an application registers, changes or lists endpoints | the method of the same purpose |
//! | a worker | an endpoint answered 410, or has failed for too long | `get`, then `set_state` to disable it, if it is still the same |
//!
//! Calls may come at the same time, from several tasks and, if processes share the database, from
//! several processes. The engine has checked with its
//! transport that deliveries can go to an endpoint before it calls `register`.
//!
//! A store need not know the rules of endpoints: [`Endpoint::check`] decides whether one is valid,
//! [`Registration::again`] what registering it again changes, and
//! [`EndpointState::after`](crate::EndpointState::after) what a [`StateChange`] does.
//! [`StoredEndpoint`] turns an endpoint into a text and secret bytes, and back.
//! `SealingKeys` of the module `seal` encrypt these bytes.

mod stored_endpoint;

use std::error::Error;
use std::sync::Arc;

use webhooks_core::{EndpointId, TenantId};

use crate::{Endpoint, EndpointKey, RegisterError, Registration, UnknownEndpoint};

pub use crate::state::{IsDisabled, StateChange};
pub use stored_endpoint::{StoredEndpoint, StoredEndpointError};

/// The port to a durable store of endpoints. A change survives a crash once the store returned `Ok`.
///
/// If calls come at the same time, the outcome is that of some order of them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not store endpoints: implement `EndpointStore`"
)]
pub trait EndpointStore: Send + Sync + 'static {
    /// Registers an endpoint of its tenant under an id. Replaces the one that is there, by the rules of
    /// [`Registration::again`]. Deliveries that wait go to the new one.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when the endpoint exceeds a bound, or the store fails.
    fn register(
        &self,
        id: EndpointId,
        endpoint: Endpoint,
    ) -> impl Future<Output = Result<Registered, EndpointStoreError>> + Send;

    /// Removes an endpoint and returns it. Deliveries that wait for it are cancelled. Its history stays
    /// under its id.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when there is no such endpoint, or the store fails.
    fn unregister(
        &self,
        key: EndpointKey,
    ) -> impl Future<Output = Result<Arc<Registration>, EndpointStoreError>> + Send;

    /// Changes an endpoint's state, by the rules of
    /// [`EndpointState::after`](crate::EndpointState::after). Returns the endpoint as it was before, or
    /// `None` if nothing changed. If it is disabled, deliveries that wait for it are cancelled; if it is
    /// paused, they still wait.
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

/// The change that registering an endpoint made.
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

/// The reason why a store of endpoints refused a call. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointStoreError {
    /// A disabled endpoint can be neither paused nor resumed.
    #[error(transparent)]
    IsDisabled(#[from] IsDisabled),
    /// The transport would not deliver to the endpoint.
    #[error("deliveries cannot go to the endpoint")]
    Refused {
        /// The transport's reason.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The endpoint cannot be registered.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The store cannot be reached, or failed; trying again later may help.
    #[error("the store is not available")]
    Unavailable {
        /// The store's own error.
        source: Box<dyn Error + Send + Sync>,
    },
    /// No endpoint has the id.
    #[error(transparent)]
    Unknown(#[from] UnknownEndpoint),
}
