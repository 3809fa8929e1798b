//! What an engine and its workers share.

use std::sync::{Mutex, PoisonError};

use webhooks_core::Timestamp;

use crate::clock::{Clock, Now};
use crate::observer::Observers;
use crate::settings::EngineSettings;
use crate::steady::SteadyTime;
use crate::worker_registry::WorkerRegistry;

/// What an engine and its workers share.
pub(crate) struct EngineParts<S, T, C> {
    pub(crate) store: S,
    pub(crate) transport: T,
    pub(crate) clock: C,
    pub(crate) time: Mutex<SteadyTime>,
    pub(crate) settings: EngineSettings,
    pub(crate) observers: Observers,
    pub(crate) workers: WorkerRegistry,
    pub(crate) random: Mutex<fastrand::Rng>,
    #[cfg(feature = "sabotage")]
    pub(crate) leaks_slots: bool,
}

impl<S, T, C: Clock> EngineParts<S, T, C> {
    /// Returns the present time, as it is to be believed.
    pub(crate) fn now(&self) -> Now {
        self.time.lock().unwrap_or_else(PoisonError::into_inner).read(self.clock.clocks())
    }

    /// Returns how often the wall clock was set back, as far as that was believed.
    pub(crate) fn set_back(&self) -> u64 {
        self.time.lock().unwrap_or_else(PoisonError::into_inner).set_back()
    }

    /// Returns whether an age that began at `since` is sure enough to give something up for good.
    pub(crate) fn is_sure_since(&self, since: Timestamp, now: Now) -> bool {
        let time = self.time.lock().unwrap_or_else(PoisonError::into_inner);
        time.is_sure_since(since, now.monotonic)
    }
}
