//! What makes an engine: everything that is fixed once it runs.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;
use webhooks_registry::store::EndpointStore;

use crate::engine::Parts;
use crate::observe::Observers;
use crate::steady::SteadyTime;
use crate::workers::Workers;
use crate::{Clock, DeliveryStore, Engine, EngineSettings, Observer, SystemClock, Transport};

/// How long a lease may be. When a worker extends it, a quarter is left at worst: enough for a call that
/// fails, the pause after it, and another call. No lease needs to be long, since it is extended, and
/// after a crash it is waited for.
const LEASE: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(60 * 60));

/// The longest time that results are gathered: a quarter of the shortest lease, so that they are settled
/// while their leases last.
const MAX_LINGER: Duration = Duration::from_secs(1);

/// Publishing is idempotent for as long as events are remembered.
const MIN_RETENTION: Duration = Duration::from_secs(60);

/// Makes an engine; [`Engine::builder`] returns it.
#[must_use = "only `build` makes an engine"]
pub struct EngineBuilder<S, T, C = SystemClock> {
    store: S,
    transport: T,
    clock: C,
    settings: EngineSettings,
    observers: Observers,
    #[cfg(feature = "sabotage")]
    leaks_slots: bool,
}

impl<S, T> EngineBuilder<S, T> {
    pub(crate) fn new(store: S, transport: T) -> Self {
        Self {
            store,
            transport,
            clock: SystemClock,
            settings: EngineSettings::default(),
            observers: Observers::default(),
            #[cfg(feature = "sabotage")]
            leaks_slots: false,
        }
    }
}

impl<S, T, C> EngineBuilder<S, T, C>
where
    S: DeliveryStore + EndpointStore,
    T: Transport,
    C: Clock,
{
    /// Goes by a clock of yours.
    pub fn clock<D: Clock>(self, clock: D) -> EngineBuilder<S, T, D> {
        EngineBuilder {
            store: self.store,
            transport: self.transport,
            clock,
            settings: self.settings,
            observers: self.observers,
            #[cfg(feature = "sabotage")]
            leaks_slots: self.leaks_slots,
        }
    }

    /// Sets how it works. A setting beyond a bound counts as the bound.
    pub fn settings(self, settings: EngineSettings) -> Self {
        Self { settings, ..self }
    }

    /// Adds an observer.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observers.push(Arc::new(observer));
        self
    }

    /// Plants a bug that the simulation must find: failed exchanges never give their slot back.
    #[cfg(feature = "sabotage")]
    pub fn dangerous_leak_slots(self) -> Self {
        Self { leaks_slots: true, ..self }
    }

    /// Makes the engine.
    pub fn build(self) -> Engine<S, T, C> {
        let settings = bounded(self.settings);
        let random = settings.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let parts = Parts {
            time: Mutex::new(SteadyTime::new(self.clock.clocks())),
            store: self.store,
            transport: self.transport,
            clock: self.clock,
            settings,
            observers: self.observers,
            workers: Workers::default(),
            random: Mutex::new(random),
            #[cfg(feature = "sabotage")]
            leaks_slots: self.leaks_slots,
        };
        Engine { parts: Arc::new(parts) }
    }
}

impl<S, T, C> fmt::Debug for EngineBuilder<S, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineBuilder").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Bounds what would bring the engine to a standstill, or forget events that it has just accepted.
fn bounded(settings: EngineSettings) -> EngineSettings {
    EngineSettings {
        concurrency: settings.concurrency.max(1),
        max_unsettled: settings.max_unsettled.clamp(1, Semaphore::MAX_PERMITS),
        lease: settings.lease.clamp(LEASE.0, LEASE.1),
        linger: settings.linger.min(MAX_LINGER),
        retention: settings.retention.max(MIN_RETENTION),
        ..settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_would_stop_it_are_raised_and_others_are_kept() {
        let nothing = EngineSettings {
            concurrency: 0,
            max_unsettled: 0,
            lease: Duration::ZERO,
            linger: Duration::MAX,
            retention: Duration::ZERO,
            ..EngineSettings::default()
        };
        let raised = bounded(nothing);
        assert_eq!((raised.concurrency, raised.max_unsettled), (1, 1));
        assert_eq!((raised.lease, raised.linger), (LEASE.0, MAX_LINGER));
        assert_eq!(raised.retention, MIN_RETENTION);
        let endless = EngineSettings { lease: Duration::MAX, ..EngineSettings::default() };
        assert_eq!(bounded(endless).lease, LEASE.1);
        let usual = EngineSettings::default();
        assert_eq!(format!("{:?}", bounded(usual.clone())), format!("{usual:?}"));
    }
}
