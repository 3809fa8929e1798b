//! A replay in progress: portion after portion, so that its caller can watch, stop and resume it.

use std::fmt;

use webhooks_core::Timestamp;

use crate::observer::{Observers, Occurrence};
use crate::store::{
    OperationError, OperationStore, Replay, ReplayCursor, ReplayMode, ReplayRequest,
};

/// The number of deliveries or events that a replay looks at in one step, small enough that other
/// calls to the store get their turn.
pub(crate) const PORTION: usize = 500;

/// A replay that its caller continues, portion by portion.
///
/// It stops when it is dropped; deliveries that were replayed stay so. To resume it later, also in
/// another process, store [`started_at`](Self::started_at) and [`cursor`](Self::cursor).
///
/// # Example
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use webhooks_core::{EndpointId, Event};
/// use webhooks_dispatch::{Engine, FnTransport, MemoryStore, Replay, Undelivered};
/// use webhooks_registry::{Endpoint, EndpointKey};
///
/// let engine = Engine::new(MemoryStore::new(), FnTransport::new(|_, _, _, _| async { (200, "") }));
/// engine.publish(&Event::new("created", 1)?).await?;
/// engine.endpoints().register("crm", Endpoint::new("https://example.com/", "my-secret-key")?).await?;
/// let crm = EndpointKey::of_default_tenant(EndpointId::new("crm")?);
/// let replay = Replay::of_endpoint(crm, Undelivered::ALL);
/// assert_eq!(engine.replaying(replay.clone()).dry_run().finish().await?, 1, "only counted");
/// let mut replaying = engine.replaying(replay);
/// let mut deliveries = 0;
/// while let Some(portion) = replaying.next().await? {
///     deliveries += portion;
/// }
/// assert_eq!(deliveries, 1, "the event that came before the endpoint");
/// # Ok(())
/// # }
/// ```
#[must_use = "a replay does nothing before `next`"]
pub struct Replaying<'e, S> {
    store: &'e S,
    observers: &'e Observers,
    now: Box<dyn Fn() -> Timestamp + Send + Sync + 'e>,
    request: ReplayRequest,
    is_done: bool,
}

impl<'e, S: OperationStore> Replaying<'e, S> {
    pub(crate) fn new(
        store: &'e S,
        observers: &'e Observers,
        replay: Replay,
        now: impl Fn() -> Timestamp + Send + Sync + 'e,
    ) -> Self {
        let replay = replay.each_once();
        let (started_at, mode) = (now(), ReplayMode::Replay);
        let (limit, after) = (PORTION, None);
        let request = ReplayRequest { replay, limit, started_at, now: started_at, after, mode };
        Self { store, observers, now: Box::new(now), request, is_done: false }
    }

    /// Changes nothing, and only counts.
    pub fn dry_run(mut self) -> Self {
        self.request.mode = ReplayMode::DryRun;
        self
    }

    /// Resumes an equal replay that began at `started_at`, after its `cursor`.
    pub fn resume(mut self, started_at: Timestamp, cursor: Option<ReplayCursor>) -> Self {
        self.request.started_at = started_at;
        self.request.after = cursor;
        self
    }

    /// Replays the next portion; returns the number of deliveries that it made due, or would in a
    /// dry run, and `None` after the last one.
    ///
    /// # Errors
    /// [`OperationError`] when an endpoint, event or delivery does not exist or cannot be replayed,
    /// or the store fails. Then the same call makes the portion again.
    ///
    /// # Cancellation
    /// A dropped future may or may not have replayed its portion. The next call makes the portion
    /// again, and leaves out deliveries that were replayed.
    pub async fn next(&mut self) -> Result<Option<usize>, OperationError> {
        if self.is_done {
            return Ok(None);
        }
        self.request.now = (self.now)();
        let replayed = self.store.replay(self.request.clone()).await?;
        self.is_done = replayed.next.is_none();
        self.request.after = replayed.next.or(self.request.after);
        notify_replayed(self.observers, &self.request, replayed.deliveries);
        Ok(Some(replayed.deliveries))
    }

    /// Replays all portions that are left; returns the number of deliveries that they made due, or
    /// would in a dry run.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn finish(mut self) -> Result<usize, OperationError> {
        let mut deliveries = 0;
        while let Some(portion) = self.next().await? {
            deliveries += portion;
        }
        Ok(deliveries)
    }

    /// Returns the time at which the replay began. Deliveries accepted or replayed later are left
    /// out.
    pub fn started_at(&self) -> Timestamp {
        self.request.started_at
    }

    /// Returns whether there is no more.
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// Returns the place at which the next portion goes on; `None` before the first. It stays the
    /// same after the last one.
    pub fn cursor(&self) -> Option<ReplayCursor> {
        self.request.after
    }
}

impl<S> fmt::Debug for Replaying<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replaying").field("request", &self.request).finish_non_exhaustive()
    }
}

/// Notifies observers of a portion of a replay, if it made any deliveries due.
pub(crate) fn notify_replayed(observers: &Observers, request: &ReplayRequest, deliveries: usize) {
    let ReplayRequest { replay, mode, .. } = request;
    if deliveries == 0 || *mode == ReplayMode::DryRun {
        return;
    }
    let tenant = match replay {
        Replay::Endpoint { endpoint, .. } => Some(&endpoint.tenant),
        Replay::Event { tenant, .. } => Some(tenant),
        Replay::Delivery(_) | Replay::Deliveries(_) => None,
    };
    observers.notify(&Occurrence::Replayed { replay, tenant, deliveries });
}
