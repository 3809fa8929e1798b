//! Durable delivery: published events are delivered, through crashes and restarts.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;
use webhooks_core::{DeliveryId, Event};
use webhooks_registry::store::EndpointStore;

use crate::clock::{Clock, SystemClock};
use crate::endpoints::Endpoints;
use crate::engine_shared::EngineShared;
use crate::history::HistoryStore;
use crate::observer::Occurrence;
use crate::replaying::Replaying;
use crate::serialized_event::SerializedEvent;
use crate::store::{
    Conflict, DeliveryStore, OperationError, PublishStatus, Published, Replay, StoreError,
};
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
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
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
    S: DeliveryStore + EndpointStore,
    T: Transport,
    C: Clock,
{
    /// Borrows the store.
    pub fn store(&self) -> &S {
        &self.shared.store
    }

    /// Returns the endpoints, to register and unregister them.
    pub fn endpoints(&self) -> Endpoints<'_, S, T> {
        let EngineShared { store, transport, workers, .. } = &*self.shared;
        Endpoints { store, transport, workers, tenant: None }
    }

    /// Starts a worker, in tasks of the present tokio runtime. It delivers, and forgets events that
    /// are older than the retention.
    ///
    /// Several workers of one store share the work.
    #[must_use = "a worker ends when it is dropped, also by `let _ =`: keep it in a variable"]
    pub fn start(&self) -> Worker
    where
        S: HistoryStore,
    {
        Worker::start(Arc::clone(&self.shared))
    }

    /// Stores an event and a delivery for each endpoint that wants it, and returns when they are
    /// safe.
    ///
    /// Publishing the same event again, by its id, does nothing and returns the first result.
    ///
    /// # Errors
    /// [`PublishError`] when the event was not stored.
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

    /// Publishes many events in one step; returns a result for each, in their order.
    ///
    /// # Errors
    /// [`PublishError`] when an event is too large or the store failed; no event was stored then.
    pub async fn publish_all<'e>(
        &self,
        events: impl IntoIterator<Item = &'e Event> + Send,
    ) -> Result<Vec<Result<Published, Conflict>>, PublishError> {
        let max = self.shared.settings.max_body;
        let events: Vec<&Event> = events.into_iter().collect();
        let serialized: Vec<SerializedEvent> =
            events.iter().map(|event| SerializedEvent::new(event)).collect();
        // Before anything is stored: one event that is too large refuses the whole batch.
        if let Some(event) = serialized.iter().find(|event| event.body.len() > max) {
            return Err(PublishError::TooLarge { len: event.body.len(), max });
        }
        let published = self.shared.store.publish(serialized, self.shared.now().wall).await?;
        // A duplicate was reported by the call that stored the event.
        for (event, published) in events.into_iter().zip(&published) {
            if let Ok(Published { deliveries, status: PublishStatus::Created, .. }) = published {
                self.shared.observers.notify(&Occurrence::Published {
                    event: &event.id,
                    event_type: &event.event_type,
                    tenant: &event.tenant,
                    deliveries: *deliveries,
                });
            }
        }
        Ok(published)
    }

    /// Cancels a delivery that waits or is in flight.
    ///
    /// # Errors
    /// [`OperationError`] when there is no such delivery, or it has ended already.
    pub async fn cancel(&self, delivery: DeliveryId) -> Result<(), OperationError> {
        self.shared.store.cancel(delivery, self.shared.now().wall).await
    }

    /// Makes deliveries due once more, with their retries from the start; returns their number.
    ///
    /// # Errors
    /// [`OperationError`] when an endpoint, event or delivery does not exist or cannot be replayed,
    /// or the store fails in between. Then a part is replayed, and the same call does the rest.
    pub async fn replay(&self, replay: Replay) -> Result<usize, OperationError> {
        self.replaying(replay).finish().await
    }

    /// Returns a replay that its caller continues, portion by portion.
    pub fn replaying(&self, replay: Replay) -> Replaying<'_, S> {
        Replaying::new(&self.shared.store, replay, || self.shared.now().wall)
    }
}

impl<S: HistoryStore, T, C> Engine<S, T, C> {
    /// Borrows the history: events, deliveries, attempts and statistics of the store.
    pub fn history(&self) -> &impl HistoryStore {
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
