//! Hints that something happened of which operational endpoints are told.
//!
//! The engine notices what it does in its own tasks, which must not wait. So it leaves a hint, and the task
//! that tells reads the store. A hint may be lost; the store has the same, and is read again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

use tokio::sync::mpsc::{Receiver, Sender, channel};
use webhooks_core::{DeliveryId, TenantId, Timestamp};
use webhooks_dispatch::observer::{EndpointChange, Occurrence};
use webhooks_registry::{DisableReason, EndpointKey};

/// The hints that may wait. If there are more, the store is read instead.
const CAPACITY: usize = 1_024;

/// The number of failed attempts in a row after which a message counts as failing.
pub(crate) const FAILING_AFTER: u32 = 4;

/// Returns the tenant of the operational endpoints. No application has its id: theirs begin with `app_`.
pub(crate) fn operational_tenant() -> TenantId {
    static TENANT: LazyLock<TenantId> =
        LazyLock::new(|| TenantId::new("operational-webhooks").unwrap_or_default());
    TENANT.clone()
}

/// The turn that a message takes for an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Its last retry failed.
    Exhausted,
    /// It failed several times, and is tried again.
    Failing,
    /// It was taken, after one of the other two.
    Recovered,
}

/// A hint that something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hint {
    /// An attempt may have been a turn.
    Attempt { delivery: DeliveryId, number: u32, turn: Turn },
    /// The engine disabled an endpoint.
    Disabled { endpoint: EndpointKey, fail_since: Option<Timestamp> },
    /// An endpoint has failed for a while.
    Failing { endpoint: EndpointKey, since: Timestamp },
}

impl Hint {
    /// Returns the hint at what happened; none if nobody is told. The tenant of the operational endpoints is
    /// left out: telling of what is told would never end.
    fn at(occurrence: &Occurrence<'_>) -> Option<Self> {
        let (tenant, hint) = match occurrence {
            Occurrence::AttemptFailed { delivery, .. } if delivery.attempt >= FAILING_AFTER => {
                let (number, turn) = (delivery.attempt, Turn::Failing);
                (delivery.tenant, Self::Attempt { delivery: delivery.id, number, turn })
            }
            Occurrence::DeliveryFailed { delivery, .. } => {
                let (number, turn) = (delivery.attempt, Turn::Exhausted);
                (delivery.tenant, Self::Attempt { delivery: delivery.id, number, turn })
            }
            Occurrence::Delivered { delivery, .. } if delivery.attempt > 1 => {
                let (number, turn) = (delivery.attempt, Turn::Recovered);
                (delivery.tenant, Self::Attempt { delivery: delivery.id, number, turn })
            }
            // Requests tell of those that they disable.
            Occurrence::EndpointChanged {
                tenant,
                endpoint,
                change: EndpointChange::Disabled(reason),
                failing_since,
            } if *reason != DisableReason::Manual => {
                let key = EndpointKey::new((*tenant).clone(), (*endpoint).clone());
                (*tenant, Self::Disabled { endpoint: key, fail_since: *failing_since })
            }
            Occurrence::EndpointFailing { tenant, endpoint, since } => {
                let key = EndpointKey::new((*tenant).clone(), (*endpoint).clone());
                (*tenant, Self::Failing { endpoint: key, since: *since })
            }
            _ => return None,
        };
        (*tenant != operational_tenant()).then_some(hint)
    }
}

/// The hints of an engine that wait, in their order.
#[derive(Debug)]
pub(crate) struct Hints {
    sender: Sender<Hint>,
    /// The other end, until the task that tells takes it.
    receiver: Mutex<Option<Receiver<Hint>>>,
    is_missing: AtomicBool,
}

impl Default for Hints {
    fn default() -> Self {
        let (sender, receiver) = channel(CAPACITY);
        Self { sender, receiver: Mutex::new(Some(receiver)), is_missing: AtomicBool::default() }
    }
}

impl Hints {
    /// Notes what happened.
    pub(crate) fn note(&self, occurrence: &Occurrence<'_>) {
        if let Some(hint) = Hint::at(occurrence)
            && self.sender.try_send(hint).is_err()
        {
            self.miss();
        }
    }

    /// Notes that something may not have been told.
    pub(crate) fn miss(&self) {
        self.is_missing.store(true, Ordering::Relaxed);
    }

    /// Returns whether something may not have been told since the last call.
    pub(crate) fn take_missing(&self) -> bool {
        self.is_missing.swap(false, Ordering::Relaxed)
    }

    /// Takes the end at which hints arrive, which one task has.
    pub(crate) fn take(&self) -> Option<Receiver<Hint>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
