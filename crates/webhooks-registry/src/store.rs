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
//! A store need not know the rules of endpoints: [`RegisterRequest::apply`] decides what registering
//! one changes, [`Registration::after`] what a [`StateChange`] does, and [`EndpointQuery`] what a list
//! holds.
//! [`StoredEndpoint`] turns an endpoint into a text and secret bytes, and back.
//! `SealingKeys` of the module `seal` encrypt these bytes.

mod query;
mod register;
mod stored_endpoint;

use std::error::Error;
use std::sync::Arc;

use webhooks_core::Timestamp;

use crate::{EndpointKey, RegisterError, Registration, UnknownEndpoint};

pub use crate::state::{IsDisabled, StateChange};
pub use query::{
    EndpointCursor, EndpointCursorError, EndpointOrder, EndpointPage, EndpointQuery, PagePlace,
    StateKind,
};
pub use register::{Expected, RegisterRequest};
pub use stored_endpoint::{StoredEndpoint, StoredEndpointError};

/// The port to a durable store of endpoints. A change survives a crash once the store returned `Ok`.
///
/// If calls come at the same time, the outcome is that of some order of them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not store endpoints: implement `EndpointStore`"
)]
pub trait EndpointStore: Send + Sync + 'static {
    /// Registers an endpoint of its tenant under an id, if the request's condition holds. Replaces the
    /// one that is there, by the rules of [`RegisterRequest::apply`]. Deliveries that wait go to the
    /// new one.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when the endpoint exceeds a bound, the condition does not hold, the
    /// tenant has too many endpoints, or the store fails.
    fn register(
        &self,
        request: RegisterRequest,
    ) -> impl Future<Output = Result<Registered, EndpointStoreError>> + Send;

    /// Removes an endpoint and returns it. Deliveries that wait for it are cancelled. Its history stays
    /// under its id.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when there is no such endpoint, or the store fails.
    fn unregister(
        &self,
        key: EndpointKey,
        now: Timestamp,
    ) -> impl Future<Output = Result<Arc<Registration>, EndpointStoreError>> + Send;

    /// Changes an endpoint's state, by the rules of [`Registration::after`]. Returns the endpoint as it
    /// was before, or `None` if nothing changed. If it is disabled, deliveries that wait for it are cancelled; if it is
    /// paused, they still wait.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when there is no such endpoint, its state does not allow the change,
    /// or the store fails.
    fn set_state(
        &self,
        key: EndpointKey,
        change: StateChange,
        now: Timestamp,
    ) -> impl Future<Output = Result<Option<Arc<Registration>>, EndpointStoreError>> + Send;

    /// Returns an endpoint.
    ///
    /// # Errors
    /// [`EndpointStoreError::Unavailable`] when the store fails.
    fn get(
        &self,
        key: EndpointKey,
    ) -> impl Future<Output = Result<Option<Arc<Registration>>, EndpointStoreError>> + Send;

    /// Returns a page of a list of endpoints. An endpoint that cannot be read is left out.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when the cursor belongs to a list in another order, or the store fails.
    fn list(
        &self,
        query: EndpointQuery,
    ) -> impl Future<Output = Result<EndpointPage, EndpointStoreError>> + Send;

    /// Counts the endpoints that the filters of a query let through, its order and place aside; it
    /// counts `max` at most.
    ///
    /// # Errors
    /// [`EndpointStoreError::Unavailable`] when the store fails.
    fn count(
        &self,
        query: EndpointQuery,
        max: usize,
    ) -> impl Future<Output = Result<usize, EndpointStoreError>> + Send;
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
    /// The id is taken, and the endpoint was to be new.
    #[error("endpoint {endpoint} is registered already")]
    AlreadyRegistered {
        /// The endpoint.
        endpoint: EndpointKey,
    },
    /// The endpoint was changed since the caller read it. Read it again, and repeat the change.
    #[error("endpoint {endpoint} is in version {found}, not {expected}; read it again")]
    Changed {
        /// The endpoint.
        endpoint: EndpointKey,
        /// The version that the caller expected.
        expected: u64,
        /// The version that it has.
        found: u64,
    },
    /// A cursor does not belong to the list.
    #[error(transparent)]
    Cursor(#[from] EndpointCursorError),
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
    /// The tenant has as many endpoints as it may have.
    #[error("the tenant has {max} endpoints already, which is the most it may have")]
    TooMany {
        /// The most that it may have.
        max: usize,
    },
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
