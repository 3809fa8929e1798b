//! The state that an engine and its workers share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use webhooks_core::{EventType, RetryPolicy, TenantId, Timestamp};
use webhooks_registry::EndpointLimits;

use crate::clock::{Clock, Now};
use crate::observer::Observers;
use crate::settings::EngineSettings;
use crate::steady::SteadyTime;
use crate::worker_registry::WorkerRegistry;

/// The state that an engine and its workers share.
pub(crate) struct EngineShared<S, T, C> {
    pub(crate) store: S,
    pub(crate) transport: T,
    pub(crate) clock: C,
    pub(crate) time: Mutex<SteadyTime>,
    pub(crate) settings: EngineSettings,
    /// The bounds for endpoints beyond those that all have.
    pub(crate) limits: EndpointLimits,
    /// The retentions of tenants that differ from the settings.
    pub(crate) retentions: Mutex<BTreeMap<TenantId, Duration>>,
    /// The retry policies of event types that have one of their own.
    pub(crate) retries: Mutex<BTreeMap<EventType, Arc<RetryPolicy>>>,
    pub(crate) observers: Observers,
    pub(crate) workers: WorkerRegistry,
    /// Notified when a job was created or resumed.
    pub(crate) jobs_changed: Notify,
    pub(crate) random: Mutex<fastrand::Rng>,
    #[cfg(feature = "sabotage")]
    pub(crate) leaks_slots: bool,
}

impl<S, T, C: Clock> EngineShared<S, T, C> {
    /// Returns the present time. A step of the wall clock counts once it has lasted.
    pub(crate) fn now(&self) -> Now {
        self.steady(self.clock.clocks())
    }

    /// Returns the time that these present readings of the clocks stand for.
    pub(crate) fn steady(&self, clocks: Now) -> Now {
        self.time.lock().unwrap_or_else(PoisonError::into_inner).read(clocks)
    }

    /// Returns the retry policy of an event type, if it has one of its own.
    pub(crate) fn retry_of_type(&self, event_type: &EventType) -> Option<Arc<RetryPolicy>> {
        let retries = self.retries.lock().unwrap_or_else(PoisonError::into_inner);
        retries.get(event_type).cloned()
    }

    /// Returns the number of times that the wall clock was set back and stayed so.
    pub(crate) fn set_back(&self) -> u64 {
        self.time.lock().unwrap_or_else(PoisonError::into_inner).set_back()
    }

    /// Returns whether an age that began at `since` is sure enough for a decision that is final.
    pub(crate) fn is_sure_since(&self, since: Timestamp, now: Now) -> bool {
        let time = self.time.lock().unwrap_or_else(PoisonError::into_inner);
        time.is_sure_since(since, now.monotonic)
    }
}
