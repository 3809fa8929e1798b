//! The errors of a store and of operations on deliveries, and the reasons of cancellations.

use std::error::Error;
use std::fmt;

use thiserror::Error;
use webhooks_core::{DeliveryId, DeliveryStatus, EventId};
use webhooks_registry::EndpointKey;

/// An error of a store. Nothing was changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store's data is damaged. Restore a backup.
    #[error("the store is damaged")]
    Corrupt {
        /// The damage.
        source: Box<dyn Error + Send + Sync>,
    },
    /// There is no room left. Make some; accepted events are safe.
    #[error("the store has no room left")]
    Full {
        /// The error of the store.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The store does not have this call. Use a store that has it.
    #[error("the store does not support {call:?}")]
    Unsupported {
        /// The name of the method.
        call: &'static str,
    },
    /// The store cannot be reached, or failed; trying again later may help.
    #[error("the store is not available")]
    Unavailable {
        /// The error of the store.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// The reason why a delivery was cancelled before its retries were spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CancelReason {
    /// Its endpoint was disabled.
    Disabled,
    /// It grew older than its endpoint allows.
    Expired,
    /// The content of its event was deleted.
    Expunged,
    /// An operator asked for it.
    Manual,
    /// Its endpoint was unregistered.
    Unregistered,
}

impl CancelReason {
    /// Returns the word that stores record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Expired => "expired",
            Self::Expunged => "expunged",
            Self::Manual => "manual",
            Self::Unregistered => "unregistered",
        }
    }

    /// Returns the reason that a word stands for, if it is one.
    pub fn from_word(word: &str) -> Option<Self> {
        let all = [Self::Disabled, Self::Expired, Self::Expunged, Self::Manual, Self::Unregistered];
        all.into_iter().find(|reason| reason.as_str() == word)
    }
}

impl fmt::Display for CancelReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The reason why an operation on a delivery was not done.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OperationError {
    /// The endpoint is disabled. Enable it first.
    #[error("endpoint {endpoint} is disabled; enable it first")]
    DisabledEndpoint {
        /// The endpoint that was asked for.
        endpoint: EndpointKey,
    },
    /// The content of the event was deleted, so nothing is left to send. Only
    /// [`Replay::Delivery`](super::Replay::Delivery) fails so: other replays leave such deliveries out.
    #[error("the content of event {event} was deleted")]
    Expunged {
        /// The event.
        event: EventId,
    },
    /// The delivery's status does not allow it.
    #[error("delivery {delivery} is {status}")]
    WrongStatus {
        /// The delivery.
        delivery: DeliveryId,
        /// Its status.
        status: DeliveryStatus,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tenant has no such event, or has it no longer.
    #[error("there is no event {event}")]
    UnknownEvent {
        /// The id that was asked for.
        event: EventId,
    },
    /// There is no such delivery, or no longer.
    #[error("there is no delivery {delivery}")]
    UnknownDelivery {
        /// The id that was asked for.
        delivery: DeliveryId,
    },
    /// The endpoint is not registered.
    #[error("endpoint {endpoint} is not registered")]
    UnknownEndpoint {
        /// The endpoint that was asked for.
        endpoint: EndpointKey,
    },
}
