//! The builder of an engine: all that is fixed once the engine runs.

use std::fmt;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use webhooks_registry::EndpointLimits;

use crate::clock::{Clock, SystemClock};
use crate::engine::Engine;
use crate::engine_shared::EngineShared;
use crate::observer::{Observer, Observers};
use crate::settings::{EngineSettings, bounded};
use crate::steady::SteadyTime;
use crate::store_ports::Store;
use crate::transport::Transport;
use crate::worker_registry::WorkerRegistry;

/// A builder of an engine; [`Engine::builder`] returns it.
#[must_use = "only `build` makes an engine"]
pub struct EngineBuilder<S, T, C = SystemClock> {
    store: S,
    transport: T,
    clock: C,
    settings: EngineSettings,
    limits: EndpointLimits,
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
            limits: EndpointLimits::default(),
            observers: Observers::default(),
            #[cfg(feature = "sabotage")]
            leaks_slots: false,
        }
    }
}

impl<S, T> Engine<S, T>
where
    S: Store,
    T: Transport,
{
    /// Returns an engine with the system's clock and the default settings.
    pub fn new(store: S, transport: T) -> Self {
        Self::builder(store, transport).build()
    }

    /// Returns a builder, to set what differs from [`new`](Self::new).
    ///
    /// # Example
    /// ```
    /// use webhooks_dispatch::{Engine, EngineSettings, FnTransport, MemoryStore};
    ///
    /// let transport = FnTransport::new(|_, _, _, _| async { (200, "") });
    /// let settings = EngineSettings { concurrency: 64, ..EngineSettings::default() };
    /// let engine = Engine::builder(MemoryStore::new(), transport).settings(settings).build();
    /// ```
    pub fn builder(store: S, transport: T) -> EngineBuilder<S, T> {
        EngineBuilder::new(store, transport)
    }
}

impl<S, T, C> EngineBuilder<S, T, C>
where
    S: Store,
    T: Transport,
    C: Clock,
{
    /// Sets the clock.
    pub fn clock<D: Clock>(self, clock: D) -> EngineBuilder<S, T, D> {
        EngineBuilder {
            store: self.store,
            transport: self.transport,
            clock,
            settings: self.settings,
            limits: self.limits,
            observers: self.observers,
            #[cfg(feature = "sabotage")]
            leaks_slots: self.leaks_slots,
        }
    }

    /// Sets the settings. A setting beyond a bound counts as the bound.
    pub fn settings(self, settings: EngineSettings) -> Self {
        Self { settings, ..self }
    }

    /// Sets bounds for the endpoints that are registered with this engine, beyond those that all have:
    /// for services whose customers register endpoints.
    pub fn endpoint_limits(self, limits: EndpointLimits) -> Self {
        Self { limits, ..self }
    }

    /// Adds an observer.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observers.push(Arc::new(observer));
        self
    }

    /// Adds a bug that the simulation must find: failed attempts never free their slots.
    #[cfg(feature = "sabotage")]
    pub fn dangerous_leak_slots(self) -> Self {
        Self { leaks_slots: true, ..self }
    }

    /// Makes the engine.
    pub fn build(self) -> Engine<S, T, C> {
        let settings = bounded(self.settings);
        let random = settings.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let shared = EngineShared {
            time: Mutex::new(SteadyTime::new(self.clock.clocks())),
            store: self.store,
            transport: self.transport,
            clock: self.clock,
            settings,
            limits: self.limits,
            retentions: Mutex::default(),
            retries: Mutex::default(),
            observers: self.observers,
            workers: WorkerRegistry::default(),
            jobs_changed: Notify::new(),
            random: Mutex::new(random),
            #[cfg(feature = "sabotage")]
            leaks_slots: self.leaks_slots,
        };
        Engine { shared: Arc::new(shared) }
    }
}

impl<S, T, C> fmt::Debug for EngineBuilder<S, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineBuilder").field("settings", &self.settings).finish_non_exhaustive()
    }
}
