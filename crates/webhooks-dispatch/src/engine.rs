//! Durable delivery: published events are delivered, through crashes and restarts.

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use thiserror::Error;
use webhooks_core::{DeliveryId, EventId, EventType, LabelError, RetryPolicy, TenantId, Timestamp};
use webhooks_registry::{EndpointKey, EndpointNumber};

use crate::clock::{Clock, SystemClock};
use crate::endpoints::Endpoints;
use crate::engine_shared::EngineShared;
use crate::history::HistoryStore;
use crate::job_control::Jobs;
use crate::monitor::MonitorStore;
use crate::observer::{Gauges, Occurrence, WorkerReport};
use crate::publication::Publication;
use crate::replaying::{PORTION, Replaying};
use crate::sending::Sending;
use crate::serialized_event::SerializedEvent;
use crate::settings::{EngineSettings, MIN_RETENTION};
use crate::store::{
    Conflict, ExpungeRequest, OperationError, PublishStatus, Published, Replay, StoreError, TryNow,
};
use crate::store_ports::Store;
use crate::transport::Transport;
use crate::worker::Worker;

/// Publishes events durably and delivers them, at least once per endpoint.
///
/// An event for which [`publish`](Self::publish) returned `Ok` is in the store. Each of its
/// deliveries is made, by this process or the next one, or ends for a reason that is recorded.
/// Workers deliver: [`start`](Self::start) one.
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
    pub(crate) shared: Arc<EngineShared<S, T, C>>,
}

/// The reason why an event was not published. It was not stored.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The event's id was used before for another event.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// An endpoint that the event was to be published to alone cannot get it.
    #[error("the event cannot be published to this endpoint")]
    Endpoint {
        /// The reason: it is unknown, or disabled.
        source: OperationError,
    },
    /// The event has too many channels or tags.
    #[error(transparent)]
    Labels(#[from] LabelError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The event is to be delivered more than 90 days ahead.
    #[error("an event can be scheduled 90 days ahead at most; publish it later")]
    TooFarAhead,
    /// The event's body is too large.
    #[error("the event's body has {len} bytes; at most {max} are allowed")]
    TooLarge {
        /// Its length in bytes.
        len: usize,
        /// The largest length that is allowed.
        max: usize,
    },
}

impl<S, T, C> Engine<S, T, C>
where
    S: Store,
    T: Transport,
    C: Clock,
{
    /// Borrows the store.
    pub fn store(&self) -> &S {
        &self.shared.store
    }

    /// Borrows the settings, bounded as the engine uses them.
    pub fn settings(&self) -> &EngineSettings {
        &self.shared.settings
    }

    /// Returns the endpoints, to register and unregister them.
    pub fn endpoints(&self) -> Endpoints<'_, S, T> {
        let EngineShared { store, transport, workers, observers, .. } = &*self.shared;
        let limits = self.shared.limits;
        let now = || self.shared.now().wall;
        let now = Box::new(now);
        Endpoints { store, transport, workers, observers, limits, now, tenant: None }
    }

    /// Returns the jobs: bulk replays and bulk cancellations.
    pub fn jobs(&self) -> Jobs<'_, S> {
        let EngineShared { store, jobs_changed: changed, .. } = &*self.shared;
        Jobs { store, changed, now: Box::new(|| self.shared.now().wall) }
    }

    /// Starts a worker, in tasks of the present tokio runtime. It delivers, and forgets events that
    /// are older than the retention.
    ///
    /// Several workers of one store share the work.
    #[must_use = "a worker ends when it is dropped, also by `let _ =`: keep it in a variable"]
    pub fn start(&self) -> Worker {
        Worker::start(Arc::clone(&self.shared))
    }

    /// Stores an event and a delivery for each endpoint that wants it, and returns when they are
    /// safe. A [`Publication`] says more about the deliveries than an event alone.
    ///
    /// Publishing the same event again, by its id, does nothing and returns the first result.
    ///
    /// # Errors
    /// [`PublishError`] when the event was not stored.
    ///
    /// # Cancellation
    /// A dropped future may or may not have published; publishing again is safe.
    pub async fn publish(
        &self,
        event: impl Into<Publication> + Send,
    ) -> Result<Published, PublishError> {
        self.publish_timed(event).await.map(|(published, _)| published)
    }

    /// Does the same, and returns also the time of acceptance of an event that is new. The time says
    /// nothing of a duplicate.
    ///
    /// # Errors
    /// [`PublishError`] when the event was not stored.
    ///
    /// # Cancellation
    /// As for [`publish`](Self::publish).
    pub async fn publish_timed(
        &self,
        event: impl Into<Publication> + Send,
    ) -> Result<(Published, Timestamp), PublishError> {
        let now = self.shared.now().wall;
        let mut published = self.publish_at(vec![event.into().into_serialized()], now).await?;
        match published.pop() {
            Some(published) => Ok((published?, now)),
            None => Err(PublishError::Store(StoreError::Unavailable {
                source: "the store answered nothing".into(),
            })),
        }
    }

    /// Publishes many events in one step; returns a result for each, in their order.
    ///
    /// # Errors
    /// [`PublishError`] when an event is too large, is to be delivered too late or to an endpoint that
    /// cannot get it, or the store failed; no event was stored then.
    pub async fn publish_all(
        &self,
        events: impl IntoIterator<Item = impl Into<Publication>> + Send,
    ) -> Result<Vec<Result<Published, Conflict>>, PublishError> {
        let events = events.into_iter().map(|event| event.into().into_serialized());
        self.publish_at(events.collect(), self.shared.now().wall).await
    }

    /// Checks an event as [`publish`](Self::publish) does, and publishes nothing.
    ///
    /// # Errors
    /// [`PublishError`] when the event would not be stored now.
    pub async fn check(&self, event: impl Into<Publication> + Send) -> Result<(), PublishError> {
        self.check_at(&event.into().into_serialized(), self.shared.now().wall).await
    }

    async fn publish_at(
        &self,
        events: Vec<SerializedEvent>,
        now: Timestamp,
    ) -> Result<Vec<Result<Published, Conflict>>, PublishError> {
        // Before anything is stored: one event that is refused refuses the whole batch.
        for event in &events {
            self.check_at(event, now).await?;
        }
        let told = self.shared.observers.of_publications(&events);
        let published = self.shared.store.publish(events, now).await?;
        // A duplicate was reported by the call that stored the event.
        for ((event_type, tenant), published) in told.iter().zip(&published) {
            if let Ok(Published { event, deliveries, status: PublishStatus::Created }) = published {
                let deliveries = *deliveries;
                let occurrence = Occurrence::Published { event, event_type, tenant, deliveries };
                self.shared.observers.notify(&occurrence);
            }
        }
        Ok(published)
    }

    async fn check_at(&self, event: &SerializedEvent, now: Timestamp) -> Result<(), PublishError> {
        let (len, max) = (event.body.len(), self.shared.settings.max_body);
        if len > max {
            return Err(PublishError::TooLarge { len, max });
        }
        event.check_labels()?;
        if event.is_too_far_ahead(now) {
            return Err(PublishError::TooFarAhead);
        }
        for id in event.only.iter().flatten() {
            let key = EndpointKey::new(event.tenant.clone(), id.clone());
            let found = self.shared.store.get(key.clone()).await;
            let found = found.map_err(|error| StoreError::Unavailable { source: error.into() })?;
            if let Err(source) = Replay::target(&key, found.map(|found| (found.state, ()))) {
                // The endpoint may have been closed since the event was accepted, and the answer lost:
                // the store tells a duplicate.
                let known = self.shared.store.event(event.tenant.clone(), event.id.clone());
                if known.await?.is_none() {
                    return Err(PublishError::Endpoint { source });
                }
            }
        }
        Ok(())
    }

    /// Returns the present numbers of all workers of this engine together. This is cheap: a worker
    /// has counted them beforehand.
    pub fn gauges(&self) -> Gauges {
        let mut sum = Gauges::default();
        for worker in self.shared.workers.live() {
            sum += worker.gauges();
        }
        sum
    }

    /// Returns a report of each worker of this engine. It looks at all endpoints that the worker
    /// has served within the last ten minutes: call it every few seconds at most.
    pub fn reports(&self) -> Vec<WorkerReport> {
        let now = self.shared.now();
        self.shared.workers.live().iter().map(|worker| worker.report(now)).collect()
    }

    /// Returns whether workers send to an endpoint now; it counts for an endpoint that is active. Workers of
    /// this engine are asked, and the last reports of others are read: these are up to five seconds late.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn sending(&self, endpoint: EndpointNumber) -> Result<Sending, StoreError> {
        let reported = match self.shared.store.workers().await {
            Err(StoreError::Unsupported { .. }) => Vec::new(),
            reported => reported?,
        };
        let (own, now) = (self.shared.workers.live(), self.shared.now());
        let is_others =
            |report: &WorkerReport| own.iter().all(|own| own.started_at() != report.started_at);
        let others = reported.iter().filter(|report| is_others(report)).flat_map(|report| {
            let found = report.endpoints.iter().filter(|found| found.number == endpoint);
            found.map(|found| (report.at, *found))
        });
        let own = own.iter().filter_map(|worker| {
            let found = worker.scheduler().endpoint_report(endpoint, now.monotonic);
            found.map(|found| (now.wall, found))
        });
        Ok(Sending::of(own.chain(others), now.wall))
    }

    /// Cancels a delivery that waits or is in flight.
    ///
    /// # Errors
    /// [`OperationError`] when there is no such delivery, or it has ended already.
    pub async fn cancel(&self, delivery: DeliveryId) -> Result<(), OperationError> {
        let cancelled = self.shared.store.cancel(vec![delivery], self.shared.now().wall).await?;
        cancelled
            .into_iter()
            .next()
            .unwrap_or(Err(OperationError::UnknownDelivery { delivery }))?;
        self.shared.observers.notify(&Occurrence::Cancelled { delivery });
        Ok(())
    }

    /// Tries a delivery now that waits for its retry, or for the time for which it was scheduled. Its
    /// retries then start anew, as after a replay: an attempt that fails does not end them.
    ///
    /// If its endpoint's circuit breaker is open, or the endpoint asked for a pause, workers make the
    /// next attempt at once as a probe, or a second after the last failure. If others wait, too, the one
    /// that is due first is the probe, and the others follow its success. A rate limit and the order of an
    /// ordered endpoint hold.
    ///
    /// A delivery that has ended is not tried: [`replay`](Self::replay) it.
    ///
    /// # Errors
    /// [`OperationError`] when there is no such delivery, it has ended, or the store fails.
    pub async fn try_now(&self, delivery: DeliveryId) -> Result<TryNow, OperationError> {
        let tried = self.shared.store.try_now(delivery, self.shared.now().wall).await?;
        if matches!(tried, TryNow::Due | TryNow::Paused) {
            let (replay, tenant, deliveries) = (&Replay::Delivery(delivery), None, 1);
            self.shared.observers.notify(&Occurrence::Replayed { replay, tenant, deliveries });
        }
        Ok(tried)
    }

    /// Deletes the content of an event: its body, and the responses to its attempts. Deliveries that
    /// wait are cancelled. Returns whether there was any left.
    ///
    /// # Errors
    /// [`OperationError`] when the tenant has no such event, or the store fails.
    pub async fn expunge(&self, tenant: TenantId, event: EventId) -> Result<bool, OperationError> {
        let (event, now) = (Some(event), self.shared.now().wall);
        let request = ExpungeRequest { tenant, event, after: None, limit: 1, now };
        Ok(self.shared.store.expunge(request).await?.events > 0)
    }

    /// Deletes the content of all events of a tenant that were accepted so far, as
    /// [`expunge`](Self::expunge) does; returns the number of events.
    ///
    /// # Errors
    /// [`OperationError`] when the store fails in between. Then the same call does the rest.
    pub async fn expunge_tenant(&self, tenant: TenantId) -> Result<usize, OperationError> {
        self.expunge_tenant_until(tenant, self.shared.now().wall).await
    }

    /// Does the same with the events that were accepted up to a time, for work that goes on later.
    ///
    /// # Errors
    /// [`OperationError`] when the store fails in between. Then the same call does the rest.
    pub async fn expunge_tenant_until(
        &self,
        tenant: TenantId,
        now: Timestamp,
    ) -> Result<usize, OperationError> {
        let (mut events, mut after) = (0, None);
        loop {
            let (tenant, limit) = (tenant.clone(), PORTION);
            let request = ExpungeRequest { tenant, event: None, after, limit, now };
            let expunged = self.shared.store.expunge(request).await?;
            events += expunged.events;
            after = expunged.next;
            if after.is_none() {
                return Ok(events);
            }
        }
    }

    /// Deletes the response to one attempt: its headers and the start of its body. Returns whether
    /// there was any.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn expunge_response(
        &self,
        delivery: DeliveryId,
        number: u32,
    ) -> Result<bool, StoreError> {
        self.shared.store.expunge_response(delivery, number).await
    }

    /// Makes this engine's workers forget a tenant's events after `retention`, if that is shorter than
    /// [`EngineSettings::retention`](crate::EngineSettings::retention); `None` ends that. The engine
    /// does not store it: set it each time when the program starts.
    pub fn retain(&self, tenant: TenantId, retention: Option<Duration>) {
        let mut retentions = self.shared.retentions.lock().unwrap_or_else(PoisonError::into_inner);
        match retention {
            Some(retention) => retentions.insert(tenant, retention.max(MIN_RETENTION)),
            None => retentions.remove(&tenant),
        };
    }

    /// Makes this engine's workers try failed deliveries of an event type again by `policy`, instead of
    /// [`EngineSettings::retry`](crate::EngineSettings::retry), if their endpoint has no policy of its
    /// own; `None` ends that. The engine does not store it: set it each time when the program starts.
    pub fn retry_by_type(&self, event_type: EventType, policy: Option<RetryPolicy>) {
        let mut retries = self.shared.retries.lock().unwrap_or_else(PoisonError::into_inner);
        match policy {
            Some(policy) => retries.insert(event_type, Arc::new(policy)),
            None => retries.remove(&event_type),
        };
    }

    /// Makes deliveries due once more, with their retries from the start; returns their number. Endpoints
    /// of the first portion are probed at once, as by [`try_now`](Self::try_now).
    ///
    /// # Errors
    /// [`OperationError`] when an endpoint, event or delivery does not exist or cannot be replayed,
    /// or the store fails in between. Then a part is replayed, and the same call does the rest.
    pub async fn replay(&self, replay: Replay) -> Result<usize, OperationError> {
        self.replaying(replay).finish().await
    }

    /// Returns a replay that its caller continues, portion by portion.
    pub fn replaying(&self, replay: Replay) -> Replaying<'_, S> {
        let EngineShared { store, observers, .. } = &*self.shared;
        Replaying::new(store, observers, replay, || self.shared.now().wall)
    }
}

impl<S: HistoryStore + MonitorStore, T, C> Engine<S, T, C> {
    /// Borrows the history of the store: events, deliveries and attempts.
    pub fn history(&self) -> &impl HistoryStore {
        &self.shared.store
    }

    /// Borrows the present state of the store: queues, health and figures.
    pub fn monitor(&self) -> &impl MonitorStore {
        &self.shared.store
    }
}

impl<S, T, C> Clone for Engine<S, T, C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<S: fmt::Debug, T, C> fmt::Debug for Engine<S, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("store", &self.shared.store).finish_non_exhaustive()
    }
}
