//! The task that disables endpoints which are gone or have failed for too long.
//!
//! It is apart from settling, since each costs a transaction of its own: the day after a long
//! outage has many of them.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::mpsc::Receiver;
use webhooks_core::Timestamp;
use webhooks_registry::{
    DisableReason, Registration,
    store::{EndpointStore, EndpointStoreError, StateChange},
};

use super::WorkerShared;
use crate::clock::Clock;
use crate::observer::{EndpointChange, Occurrence, WorkerPart};
use crate::store::StoreError;

/// The number of endpoints that may wait to be disabled.
pub(super) const QUEUE_CAPACITY: usize = 1_024;

/// An endpoint that should be disabled, as it was when it answered.
#[derive(Debug)]
pub(super) struct DisableRequest {
    pub(super) seen: Arc<Registration>,
    pub(super) reason: DisableReason,
    /// The time of its first failure since its last success.
    pub(super) failing_since: Option<Timestamp>,
}

/// Disables endpoints until the last sender is gone.
pub(super) async fn run<S, T, C>(
    shared: Arc<WorkerShared<S, T, C>>,
    mut requests: Receiver<DisableRequest>,
) where
    S: EndpointStore,
    T: Send + Sync + 'static,
    C: Clock,
{
    while let Some(DisableRequest { seen, reason, failing_since }) = requests.recv().await {
        let disable = AssertUnwindSafe(disable(&shared, &seen, reason)).catch_unwind();
        // If the store fails or panics, the next attempt for the endpoint asks again.
        let is_disabled = match disable.await {
            Ok(Ok(is_disabled)) => is_disabled,
            Ok(Err(EndpointStoreError::Unavailable { source })) => {
                let error = StoreError::Unavailable { source };
                shared.engine.observers.notify(&Occurrence::StoreFailed { error: &error });
                false
            }
            // It was unregistered meanwhile.
            Ok(Err(_)) => false,
            Err(_panic) => {
                shared.tell_failure(WorkerPart::Disabler);
                false
            }
        };
        if is_disabled {
            shared.engine.workers.forget_endpoint(seen.number);
            let (tenant, endpoint) = (&seen.endpoint.tenant, &seen.id);
            let change = EndpointChange::Disabled(reason);
            let disabled = Occurrence::EndpointChanged { tenant, endpoint, change, failing_since };
            shared.engine.observers.notify(&disabled);
        }
    }
}

/// Disables an endpoint, unless it was registered anew since it answered; returns whether it did.
async fn disable<S, T, C>(
    shared: &WorkerShared<S, T, C>,
    seen: &Registration,
    reason: DisableReason,
) -> Result<bool, EndpointStoreError>
where
    S: EndpointStore,
    C: Clock,
{
    let (store, key) = (&shared.engine.store, seen.key());
    let now = shared.engine.now().wall;
    match store.get(key.clone()).await? {
        Some(current) if is_same(&current, seen) => {
            let before = store.set_state(key, StateChange::Disable(reason), now).await?;
            Ok(before.is_some())
        }
        _ => Ok(false),
    }
}

/// Returns whether an endpoint is still the one that was seen. Its limits may differ, since a store
/// that workers share gives each of them a share of the limits. Its state does not matter.
fn is_same(current: &Registration, seen: &Registration) -> bool {
    let mut current = current.clone();
    current.endpoint.max_in_flight = seen.endpoint.max_in_flight;
    current.endpoint.rate_limit = seen.endpoint.rate_limit;
    (current.number, &current.endpoint) == (seen.number, &seen.endpoint)
}
