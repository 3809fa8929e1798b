//! Operations of people: cancellations, replays, attempts at once, and the deletion of content.

use std::future::ready;

use webhooks_core::{DeliveryId, EventId, TenantId, Timestamp};
use webhooks_registry::EndpointState;

use super::{OperationError, ReplayRequest, Replayed, StoreError};

/// Operations that people make on deliveries and events.
///
/// The engine's workers call none of them, except for jobs. A method that is added later has a default,
/// which returns [`StoreError::Unsupported`].
pub trait OperationStore: Send + Sync + 'static {
    /// Cancels deliveries that wait or are in flight; returns a result for each, in the same order.
    ///
    /// # Errors
    /// [`StoreError`] when none was cancelled. For each: [`OperationError`] when there is no such
    /// delivery, or it has ended already.
    fn cancel(
        &self,
        deliveries: Vec<DeliveryId>,
        now: Timestamp,
    ) -> impl Future<Output = Result<Vec<Result<(), OperationError>>, StoreError>> + Send;

    /// Makes deliveries due once more, with their retries from the start; at most
    /// [`ReplayRequest::limit`] per call. Deliveries of an expunged event are left out. If
    /// [`ReplayRequest::probes`], workers probe the endpoints, as after [`try_now`](Self::try_now).
    ///
    /// # Errors
    /// [`OperationError`] when an endpoint, event or delivery does not exist or cannot be replayed,
    /// or the store fails.
    fn replay(
        &self,
        request: ReplayRequest,
    ) -> impl Future<Output = Result<Replayed, OperationError>> + Send;

    /// Makes a delivery due now that waits for a later time: for its retry, or for the time for which
    /// it was scheduled. Its retries then start anew, and it grows old from now on, as after a replay.
    /// One that is claimed, or is due already, stays as it is.
    ///
    /// An ordered endpoint that waits for the retry of this delivery goes on with it. One that waits
    /// behind others waits on.
    ///
    /// The store has all workers probe the endpoint, those of other processes included, with
    /// [`ChangeNotifier::probe`](super::ChangeNotifier::probe): a breaker does not hold back what somebody
    /// wants to be tried now.
    ///
    /// # Errors
    /// [`OperationError`] when there is no such delivery, it has ended, or the store fails.
    #[expect(unused_variables, reason = "a default refuses every call")]
    fn try_now(
        &self,
        delivery: DeliveryId,
        now: Timestamp,
    ) -> impl Future<Output = Result<TryNow, OperationError>> + Send {
        ready(Err(OperationError::Store(StoreError::Unsupported { call: "try_now" })))
    }

    /// Deletes the content of events: their bodies, and the responses to their attempts. Deliveries
    /// that wait are cancelled. The events, their deliveries and their attempts stay in the history.
    ///
    /// The ids stay taken: to publish one again is a [`Conflict`](super::Conflict), since nothing is
    /// left to compare.
    ///
    /// # Errors
    /// [`OperationError`] when there is no such event, or the store fails.
    #[expect(unused_variables, reason = "a default refuses every call")]
    fn expunge(
        &self,
        request: ExpungeRequest,
    ) -> impl Future<Output = Result<Expunged, OperationError>> + Send {
        ready(Err(OperationError::Store(StoreError::Unsupported { call: "expunge" })))
    }

    /// Deletes the response to one attempt: its headers and the start of its body. Returns whether
    /// there was any; there is none for an attempt that does not exist.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    #[expect(unused_variables, reason = "a default refuses every call")]
    fn expunge_response(
        &self,
        delivery: DeliveryId,
        number: u32,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send {
        ready(Err(StoreError::Unsupported { call: "expunge_response" }))
    }
}

/// The result of an operator's request to try a delivery now.
///
/// A delivery that is due is sent when its endpoint may get it: not while its rate is used up, or its
/// flights are all under way. Workers know of these, and stores do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "stores build it")]
#[must_use]
pub enum TryNow {
    /// It waited for a later time, and is due now.
    Due,
    /// It is due, and its endpoint is paused: it is sent after the endpoint is resumed.
    Paused,
    /// It was due before, and waits for its turn. Nothing was changed.
    Waiting,
    /// It is claimed: an attempt is under way, or about to begin. Nothing was changed.
    InFlight,
}

impl TryNow {
    /// Returns the result for a delivery that is not claimed, now that it is due. `was_later` is
    /// whether it waited for a later time before.
    pub fn of(endpoint: EndpointState, was_later: bool) -> Self {
        match endpoint {
            EndpointState::Paused => Self::Paused,
            _ if was_later => Self::Due,
            _ => Self::Waiting,
        }
    }
}

/// A request to delete the content of events.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "callers and tests build it")]
pub struct ExpungeRequest {
    /// The tenant of the events.
    pub tenant: TenantId,
    /// The event; all of the tenant's if `None`.
    pub event: Option<EventId>,
    /// [`Expunged::next`] of the portion before, for all events of a tenant.
    pub after: Option<u64>,
    /// The largest number of events to look at.
    pub limit: usize,
    /// The present time. Events that are accepted later are left out.
    pub now: Timestamp,
}

/// The result of a portion of an expunction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
#[must_use]
pub struct Expunged {
    /// The number of events whose content was deleted now.
    pub events: usize,
    /// The place at which the next portion goes on: the number of an event. `None` after the last.
    pub next: Option<u64>,
}
