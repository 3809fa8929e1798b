//! Durable delivery: what was published is delivered, through crashes and restarts.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use thiserror::Error;
use webhooks_core::{DeliveryId, EndpointId, Event, RetryPolicy, TenantId, Timestamp};
use webhooks_registry::{
    DisableReason, Endpoint, EndpointKey, RegisterError, Registration,
    store::{EndpointStore, EndpointStoreError, Registered, StateChange},
};

use crate::observe::Observers;
use crate::replaying::Replaying;
use crate::steady::SteadyTime;
use crate::workers::Workers;
use crate::{
    BreakerSettings, Clock, Conflict, DeliveryStore, EngineBuilder, HistoryStore, Now, Occurrence,
    OperationError, PublishStatus, Published, Replay, SerializedEvent, StoreError, SystemClock,
    Transport, Worker,
};

/// How an engine works. Every bound has a default that suits a small server.
///
/// # Example
/// ```
/// use webhooks_dispatch::{Engine, EngineSettings, FnTransport, MemoryStore};
///
/// let transport = FnTransport::new(|_, _, _, _| async { (200, "") });
/// let settings = EngineSettings { concurrency: 64, ..EngineSettings::default() };
/// let engine = Engine::builder(MemoryStore::new(), transport).settings(settings).build();
/// ```
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "users build it")]
pub struct EngineSettings {
    /// How many exchanges start and are in flight at once: 256 unless set. Those that last longer
    /// than `slow_after` count apart, and there may be four times as many. Of 8 and more a part is
    /// kept for endpoints that answer quickly, so that those that hang never have all.
    pub concurrency: usize,
    /// How long an exchange may last before it counts as slow: 1 s unless set.
    pub slow_after: Duration,
    /// How long a claim lasts before another worker may take the delivery over: 60 s unless set.
    /// A live worker extends its claims. From 4 s to an hour.
    pub lease: Duration,
    /// How long results are gathered before they are settled together: 5 ms unless set, 1 s at most.
    pub linger: Duration,
    /// How many exchanges may be in flight or not settled yet: 2,048 unless set. A crash can
    /// repeat so many.
    pub max_unsettled: usize,
    /// When a failed delivery is tried again whose endpoint does not say it: by the Standard Webhooks
    /// schedule, nine times over 75 hours, unless set.
    pub retry: RetryPolicy,
    /// When an endpoint in trouble is left alone.
    pub breaker: BreakerSettings,
    /// How long an endpoint may be tried and fail each time before it is disabled: 5 days unless
    /// set; never if `None`. Pauses of more than 30 hours without an attempt count for nothing, and
    /// a delivery that has retries left is tried to its end.
    pub disable_after: Option<Duration>,
    /// How long events are remembered whose deliveries have ended: 30 days unless set, at least a
    /// minute. Publishing is idempotent for as long.
    pub retention: Duration,
    /// How large an event's body may be, in bytes: 1 MiB unless set.
    pub max_body: usize,
    /// The seed of the jitter, so that a run can be repeated; random if `None`.
    pub seed: Option<u64>,
}

impl Default for EngineSettings {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            concurrency: 256,
            slow_after: Duration::from_secs(1),
            lease: Duration::from_secs(60),
            linger: Duration::from_millis(5),
            max_unsettled: 2_048,
            retry: RetryPolicy::standard(),
            breaker: BreakerSettings::default(),
            disable_after: Some(5 * DAY),
            retention: 30 * DAY,
            max_body: 1024 * 1024,
            seed: None,
        }
    }
}

/// Publishes events durably and delivers them, at least once per endpoint.
///
/// Whatever [`publish`](Self::publish) returned `Ok` for is in the store and will be delivered, by
/// this process or the next one. Workers do the delivering: [`start`](Self::start) one.
///
/// # Example
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use webhooks_core::Event;
/// use webhooks_dispatch::{Engine, FnTransport, MemoryStore};
/// use webhooks_registry::Endpoint;
///
/// let (arrived, mut arrivals) = tokio::sync::mpsc::channel(1);
/// let transport = FnTransport::new(move |_url, body, _headers, _timeout| {
///     let arrived = arrived.clone();
///     async move { (if arrived.send(body).await.is_ok() { 200 } else { 500 }, "") }
/// });
/// let engine = Engine::new(MemoryStore::new(), transport);
/// engine.endpoints().register("crm", Endpoint::new("https://example.com/", "my-secret-key")?).await?;
/// let worker = engine.start();
/// let event = Event::new("created", 1)?;
/// engine.publish(&event).await?;
/// assert_eq!(arrivals.recv().await, Some(event.to_json().into()));
/// worker.shutdown(Duration::from_secs(30)).await;
/// # Ok(())
/// # }
/// ```
pub struct Engine<S, T, C = SystemClock> {
    pub(crate) parts: Arc<Parts<S, T, C>>,
}

/// What an engine and its workers share.
pub(crate) struct Parts<S, T, C> {
    pub(crate) store: S,
    pub(crate) transport: T,
    pub(crate) clock: C,
    pub(crate) time: Mutex<SteadyTime>,
    pub(crate) settings: EngineSettings,
    pub(crate) observers: Observers,
    pub(crate) workers: Workers,
    pub(crate) random: Mutex<fastrand::Rng>,
    #[cfg(feature = "sabotage")]
    pub(crate) leaks_slots: bool,
}

impl<S, T, C: Clock> Parts<S, T, C> {
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

/// Says why an event was not published. It was not kept.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The event's id stands for another event already.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The event's body is too large.
    #[error("the event's body has {len} bytes; at most {max} are allowed")]
    TooLarge {
        /// Its length in bytes.
        len: usize,
        /// The most that is allowed.
        max: usize,
    },
}

impl<S, T> Engine<S, T>
where
    S: DeliveryStore + EndpointStore,
    T: Transport,
{
    /// Returns an engine by the system's clock, with the default settings.
    pub fn new(store: S, transport: T) -> Self {
        Self::builder(store, transport).build()
    }

    /// Returns what makes an engine that differs from [`new`](Self::new)'s.
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

impl<S, T, C> Engine<S, T, C>
where
    S: DeliveryStore + EndpointStore,
    T: Transport,
    C: Clock,
{
    /// Borrows the store.
    pub fn store(&self) -> &S {
        &self.parts.store
    }

    /// Returns the endpoints, to register and unregister them.
    pub fn endpoints(&self) -> Endpoints<'_, S, T> {
        let Parts { store, transport, workers, .. } = &*self.parts;
        Endpoints { store, transport, workers, tenant: None }
    }

    /// Starts a worker that delivers, in tasks of the tokio runtime that it is called from, and
    /// forgets what is older than the retention.
    ///
    /// Several workers of one store share the work.
    #[must_use = "a worker ends when it is dropped, also by `let _ =`: keep it in a variable"]
    pub fn start(&self) -> Worker
    where
        S: HistoryStore,
    {
        Worker::start(Arc::clone(&self.parts))
    }

    /// Keeps an event and a delivery for each endpoint that wants it, and returns when they are
    /// safe.
    ///
    /// Publishing the same event again, by its id, does nothing and returns the first result.
    ///
    /// # Errors
    /// [`PublishError`] when the event was not kept.
    ///
    /// # Cancellation
    /// A dropped future may or may not have published; publishing again is safe.
    pub async fn publish(&self, event: &Event) -> Result<Published, PublishError> {
        let mut published = self.publish_all([event]).await?;
        match published.pop() {
            Some(published) => Ok(published?),
            None => Err(PublishError::Store(StoreError::Unavailable {
                source: "the store answered nothing".into(),
            })),
        }
    }

    /// The same for many events in one step; returns for each what became of it, in order.
    ///
    /// # Errors
    /// [`PublishError`] when an event is too large or the store failed; no event was kept then.
    pub async fn publish_all<'e>(
        &self,
        events: impl IntoIterator<Item = &'e Event> + Send,
    ) -> Result<Vec<Result<Published, Conflict>>, PublishError> {
        let max = self.parts.settings.max_body;
        let events: Vec<&Event> = events.into_iter().collect();
        let serialized: Vec<SerializedEvent> =
            events.iter().map(|event| SerializedEvent::new(event)).collect();
        if let Some(event) = serialized.iter().find(|event| event.body.len() > max) {
            return Err(PublishError::TooLarge { len: event.body.len(), max });
        }
        let published = self.parts.store.publish(serialized, self.parts.now().wall).await?;
        for (event, published) in events.into_iter().zip(&published) {
            if let Ok(Published { deliveries, status: PublishStatus::Created, .. }) = published {
                self.parts.observers.tell(&Occurrence::Published {
                    event: &event.id,
                    event_type: &event.event_type,
                    tenant: &event.tenant,
                    deliveries: *deliveries,
                });
            }
        }
        Ok(published)
    }

    /// Gives up a delivery that waits or is in flight.
    ///
    /// # Errors
    /// [`OperationError`] when there is no such delivery, or it has ended already.
    pub async fn cancel(&self, delivery: DeliveryId) -> Result<(), OperationError> {
        self.parts.store.cancel(delivery, self.parts.now().wall).await
    }

    /// Makes deliveries due once more, with their retries from the start; returns how many.
    ///
    /// # Errors
    /// [`OperationError`] when what is named does not exist or cannot be replayed, or the store
    /// fails in between; then a part is replayed, and the same call does the rest.
    pub async fn replay(&self, replay: Replay) -> Result<usize, OperationError> {
        self.replaying(replay).finish().await
    }

    /// Returns a replay that its caller carries on, portion by portion.
    pub fn replaying(&self, replay: Replay) -> Replaying<'_, S> {
        Replaying::new(&self.parts.store, replay, || self.parts.now().wall)
    }
}

impl<S: HistoryStore, T, C> Engine<S, T, C> {
    /// Borrows what the store remembers: events, deliveries, attempts, statistics.
    pub fn history(&self) -> &impl HistoryStore {
        &self.parts.store
    }
}

impl<S, T, C> Clone for Engine<S, T, C> {
    fn clone(&self) -> Self {
        Self { parts: Arc::clone(&self.parts) }
    }
}

impl<S: fmt::Debug, T, C> fmt::Debug for Engine<S, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("store", &self.parts.store).finish_non_exhaustive()
    }
}

/// The endpoints of an engine. A change holds at once: no exchange starts by what was before it.
///
/// Operations on an id mean the default tenant's endpoint, unless [`tenant`](Self::tenant) names
/// another one; lists are of all tenants then.
#[derive(Debug)]
pub struct Endpoints<'e, S, T> {
    store: &'e S,
    transport: &'e T,
    workers: &'e Workers,
    tenant: Option<TenantId>,
}

impl<S: EndpointStore, T: Transport> Endpoints<'_, S, T> {
    /// Returns the endpoints of a tenant. Those that are registered by it become this tenant's.
    #[must_use]
    pub fn tenant(self, tenant: TenantId) -> Self {
        Self { tenant: Some(tenant), ..self }
    }

    /// Registers an endpoint, replacing the one that has this id. What waits for it goes to the new
    /// one, at once if only its breaker was in the way. An endpoint that is equal to the one that is
    /// there changes nothing, and an endpoint that was paused or disabled stays so.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when the id is malformed, the endpoint exceeds a bound, the transport
    /// would not deliver there, or the store fails.
    pub async fn register(
        &self,
        id: &str,
        endpoint: Endpoint,
    ) -> Result<Registered, EndpointStoreError> {
        let id = parse(id)?;
        let endpoint = match &self.tenant {
            Some(tenant) => endpoint.tenant(tenant.clone()),
            None => endpoint,
        };
        self.transport
            .check(&endpoint)
            .map_err(|source| EndpointStoreError::Refused { source: source.into() })?;
        let registered = self.store.register(id, endpoint).await?;
        if let Registered::Changed { before } = &registered {
            self.workers.recall(before.number);
            self.workers.forgive(before.number);
        }
        Ok(registered)
    }

    /// Removes an endpoint and returns it. What waits for it is cancelled.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when no endpoint has this id, or the store fails.
    pub async fn unregister(&self, id: &str) -> Result<Arc<Registration>, EndpointStoreError> {
        let removed = self.store.unregister(self.key(id)?).await?;
        self.workers.forget(removed.number);
        Ok(removed)
    }

    /// Makes a disabled endpoint active again; returns whether it was disabled. What it missed can
    /// be replayed.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when no endpoint has this id, or the store fails.
    pub async fn enable(&self, id: &str) -> Result<bool, EndpointStoreError> {
        self.set_state(id, StateChange::Enable).await
    }

    /// Lets what is published for an endpoint wait until it is resumed; returns whether it was
    /// active. Exchanges that have started are finished. What waits longer than the endpoint's
    /// `max_age` is given up when it is resumed.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when no endpoint has this id, it is disabled, or the store fails.
    pub async fn pause(&self, id: &str) -> Result<bool, EndpointStoreError> {
        self.set_state(id, StateChange::Pause).await
    }

    /// Delivers what has waited for a paused endpoint; returns whether it was paused. If the endpoint
    /// had failed before, its circuit breaker may be open yet.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when no endpoint has this id, it is disabled, or the store fails.
    pub async fn resume(&self, id: &str) -> Result<bool, EndpointStoreError> {
        self.set_state(id, StateChange::Resume).await
    }

    /// Disables an endpoint, and cancels what waits for it; returns whether it was not disabled
    /// before. It stays registered, and its history stays.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when no endpoint has this id, or the store fails.
    pub async fn disable(&self, id: &str) -> Result<bool, EndpointStoreError> {
        self.set_state(id, StateChange::Disable(DisableReason::Manual)).await
    }

    async fn set_state(&self, id: &str, change: StateChange) -> Result<bool, EndpointStoreError> {
        let Some(before) = self.store.set_state(self.key(id)?, change).await? else {
            return Ok(false);
        };
        match change {
            StateChange::Disable(_) => self.workers.forget(before.number),
            _ => self.workers.recall(before.number),
        }
        Ok(true)
    }

    /// Returns the endpoint with this id.
    ///
    /// # Errors
    /// [`EndpointStoreError`] when the id is malformed, or the store fails.
    pub async fn get(&self, id: &str) -> Result<Option<Arc<Registration>>, EndpointStoreError> {
        self.store.get(self.key(id)?).await
    }

    /// Returns at most `limit` endpoints ordered by tenant and id, those after `after`: of all tenants,
    /// or of the one that [`tenant`](Self::tenant) names.
    ///
    /// # Errors
    /// [`EndpointStoreError::Unavailable`] when the store fails.
    pub async fn list(
        &self,
        after: Option<EndpointKey>,
        limit: usize,
    ) -> Result<Vec<Arc<Registration>>, EndpointStoreError> {
        self.store.list(self.tenant.clone(), after, limit).await
    }

    fn key(&self, id: &str) -> Result<EndpointKey, RegisterError> {
        Ok(EndpointKey::new(self.tenant.clone().unwrap_or_default(), parse(id)?))
    }
}

fn parse(id: &str) -> Result<EndpointId, RegisterError> {
    Ok(EndpointId::new(id)?)
}
