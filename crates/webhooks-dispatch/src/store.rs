//! The port to whatever keeps events and deliveries durably: the engine's part.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::Notify;
use webhooks_core::{DeliveryId, DeliveryStatus, EventId, Timestamp};
use webhooks_registry::{EndpointKey, EndpointNumber, Registration};

use crate::{ErrorClass, Excerpt, Health, Now, ReplayRequest, Replayed, SerializedEvent};

/// Keeps events and deliveries, and hands out what is due.
///
/// The store is the queue: there is no second system. What it returned `Ok` for survives a crash,
/// and what it returned `Err` for was not done. Time comes in as an argument, so that stores run
/// under a simulated clock.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not store deliveries: implement `DeliveryStore`"
)]
pub trait DeliveryStore: Send + Sync + 'static {
    /// Keeps each event and a delivery for each endpoint that wants it, all or nothing per event;
    /// returns for each what became of it, in the same order.
    ///
    /// An event id that its tenant has used before, with the same content, gives the first result
    /// again; with other content, a [`Conflict`].
    ///
    /// # Errors
    /// [`StoreError`] when nothing at all was kept.
    ///
    /// # Cancellation
    /// A dropped future may or may not have kept the events; publishing them again is safe.
    fn publish(
        &self,
        events: Vec<SerializedEvent>,
        now: Timestamp,
    ) -> impl Future<Output = Result<Vec<Result<Published, Conflict>>, StoreError>> + Send;

    /// Hands out deliveries that are due, each to one claimer alone until its lease ends. Tenants
    /// take turns.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails; nothing is claimed then.
    fn claim(
        &self,
        request: ClaimRequest,
    ) -> impl Future<Output = Result<Vec<Claimed>, StoreError>> + Send;

    /// Keeps what became of claimed deliveries; returns for each whether it was, in the same
    /// order. A claim that was lost changes nothing.
    ///
    /// # Errors
    /// [`StoreError`] when nothing at all was kept. The claims go on, so that the same call can be
    /// made again.
    fn settle(
        &self,
        settlements: Vec<Settlement>,
        now: Timestamp,
    ) -> impl Future<Output = Result<Vec<Settled>, StoreError>> + Send;

    /// Makes claims last for `lease` from now, or longer if they do already; returns those that were
    /// lost.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails; the claims then end when they would have.
    fn extend(
        &self,
        claims: Vec<Claim>,
        lease: Duration,
        now: Now,
    ) -> impl Future<Output = Result<Vec<Claim>, StoreError>> + Send;

    /// Returns how long it takes until there may be something to claim for endpoints that are not
    /// `busy`; `None` if only a change can bring something.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    fn next_due(
        &self,
        busy: Arc<BTreeSet<EndpointNumber>>,
        now: Now,
    ) -> impl Future<Output = Result<Option<Duration>, StoreError>> + Send;

    /// Makes due now what waits for its first attempt and is due later: it was accepted by a clock
    /// that was ahead. No ordered endpoint waits for a retry any more that is not to be made. A worker
    /// asks for it when it starts, after the wall clock was set back, and every five minutes.
    ///
    /// It may take long, if much is due later: it is done bit by bit, and others go on meanwhile.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    fn hasten(&self, now: Timestamp) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Gives up a delivery that waits or is in flight.
    ///
    /// # Errors
    /// [`OperationError`] when there is no such delivery, or it has ended already.
    fn cancel(
        &self,
        delivery: DeliveryId,
        now: Timestamp,
    ) -> impl Future<Output = Result<(), OperationError>> + Send;

    /// Makes deliveries due once more, with their retries from the start; at most
    /// [`ReplayRequest::limit`] a call.
    ///
    /// # Errors
    /// [`OperationError`] when what is named does not exist, cannot be replayed, or the store
    /// fails.
    fn replay(
        &self,
        request: ReplayRequest,
    ) -> impl Future<Output = Result<Replayed, OperationError>> + Send;

    /// Hands back what the store holds for a worker that ends, beyond what it has claimed; returns
    /// how many deliveries. Stores that hold nothing need not do anything.
    fn release_held(&self) -> impl Future<Output = usize> + Send {
        std::future::ready(0)
    }

    /// Returns what wakes a worker when there may be more to claim.
    fn changes(&self) -> ChangeListener;
}

/// Says that an event was kept, or had been before.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct Published {
    /// The event.
    pub event: EventId,
    /// How many endpoints get it.
    pub deliveries: usize,
    /// Whether the event had been published before.
    pub status: PublishStatus,
}

/// Whether an event was published for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third way")]
pub enum PublishStatus {
    /// The event was kept just now.
    Created,
    /// The same event had been kept before, and nothing was done.
    Duplicate,
}

/// Says that an event id stands for another event already.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("event id {event} was published before with other content")]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct Conflict {
    /// The id.
    pub event: EventId,
}

/// What a worker is ready to take.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "the engine and tests build it")]
pub struct ClaimRequest {
    /// The present time.
    pub now: Now,
    /// How long the claims last unless extended.
    pub lease: Duration,
    /// How many deliveries at most.
    pub limit: usize,
    /// How many of them at most for one endpoint.
    pub per_endpoint: usize,
    /// The endpoints that get nothing at present: full, or waiting.
    pub busy: Arc<BTreeSet<EndpointNumber>>,
}

/// A right to deliver, until its lease ends. The token fences: a store rejects all but the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct Claim {
    /// The delivery.
    pub delivery: DeliveryId,
    /// Tells this claim from others of the same delivery.
    pub token: u64,
}

/// A claimed delivery, with all that is needed to carry it out.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
#[must_use]
pub struct Claimed {
    /// The claim, by which the delivery is settled.
    pub claim: Claim,
    /// The endpoint as it is now; its limits may be a part of the whole, if workers share them.
    pub registration: Arc<Registration>,
    /// The event.
    pub event: Arc<SerializedEvent>,
    /// How many attempts were made, and since when.
    pub progress: Progress,
    /// Whether the endpoint's last attempt failed, as far as the store knows.
    pub is_failing: bool,
}

/// How far a delivery has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct Progress {
    /// When the delivery was accepted, or last replayed.
    pub queued_at: Timestamp,
    /// How many attempts were made in all.
    pub attempts: u32,
    /// How many of them before it was last replayed.
    pub attempts_before_replay: u32,
}

impl Progress {
    /// Returns the progress of a delivery that starts now.
    pub fn start(now: Timestamp) -> Self {
        Self { queued_at: now, attempts: 0, attempts_before_replay: 0 }
    }

    /// Returns the number of the coming attempt over all replays, from 1.
    pub fn next_attempt(&self) -> u32 {
        self.attempts.saturating_add(1)
    }

    /// Returns the number of the coming attempt by which the retry policy counts, from 1.
    pub fn next_attempt_in_policy(&self) -> u32 {
        self.next_attempt().saturating_sub(self.attempts_before_replay)
    }

    /// Returns the progress of the same delivery replayed now.
    #[must_use]
    pub fn replayed(self, now: Timestamp) -> Self {
        Self { queued_at: now, attempts_before_replay: self.attempts, ..self }
    }
}

/// What became of a claimed delivery.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "the engine and tests build it")]
pub struct Settlement {
    /// The claim.
    pub claim: Claim,
    /// Where the delivery goes from here.
    pub outcome: Outcome,
    /// The attempt that was made, if one was.
    pub attempt: Option<Attempt>,
}

/// Where a claimed delivery goes from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a store that misses one would lose deliveries")]
pub enum Outcome {
    /// The endpoint took it.
    Delivered,
    /// It is tried again, not before this time. An ordered endpoint waits as a whole.
    Retrying {
        /// When.
        due_at: Timestamp,
    },
    /// It is given up after its attempts.
    Failed,
    /// It grew older than its endpoint allows, and is given up without an attempt.
    Expired,
    /// Nothing was tried: it is due again as it was.
    Released,
}

/// One HTTP exchange of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it of their columns")]
pub struct Attempt {
    /// When it started.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// The status code of the response, if there was one (RFC 9110 §15).
    pub status_code: Option<u16>,
    /// The kind of failure, if there was no response.
    pub error_class: Option<ErrorClass>,
    /// Why it failed, in a sentence.
    pub error: Option<String>,
    /// The headers of the response that help to understand it and hold no secret, a line each:
    /// `retry-after: 120`.
    pub response_headers: String,
    /// The start of the response's body; of a text, whole characters.
    pub response: Bytes,
}

impl Attempt {
    /// Returns the start of the response's body for people to read.
    pub fn excerpt(&self) -> Excerpt<'_> {
        Excerpt::of(&self.response)
    }
}

/// Says whether a settlement was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the engine must know each")]
#[must_use]
pub enum Settled {
    /// It was kept.
    Recorded {
        /// How the endpoint fares.
        health: Health,
    },
    /// The claim was lost: its lease ended and another took it, or the delivery was cancelled.
    LeaseLost,
}

/// Says why a store failed. Nothing was changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store's data are damaged. Restore a backup.
    #[error("the store is damaged")]
    Corrupt {
        /// What was found.
        source: Box<dyn Error + Send + Sync>,
    },
    /// There is no room left. Make some; what was accepted is safe.
    #[error("the store has no room left")]
    Full {
        /// What the store said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The store cannot be reached, or failed; trying again later may help.
    #[error("the store is not available")]
    Unavailable {
        /// What the store said.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Why a delivery was given up without its attempts being spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CancelReason {
    /// Its endpoint was disabled.
    Disabled,
    /// It grew older than its endpoint allows.
    Expired,
    /// Somebody asked for it.
    Manual,
    /// Its endpoint was unregistered.
    Unregistered,
}

impl CancelReason {
    /// Returns the word that stores keep.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Expired => "expired",
            Self::Manual => "manual",
            Self::Unregistered => "unregistered",
        }
    }

    /// Returns the reason of a word, if it is one.
    pub fn from_word(word: &str) -> Option<Self> {
        let all = [Self::Disabled, Self::Expired, Self::Manual, Self::Unregistered];
        all.into_iter().find(|reason| reason.as_str() == word)
    }
}

impl fmt::Display for CancelReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Says why an operation on a delivery was not done.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OperationError {
    /// The endpoint is disabled. Enable it first.
    #[error("endpoint {endpoint} is disabled; enable it first")]
    DisabledEndpoint {
        /// The endpoint that was asked for.
        endpoint: EndpointKey,
    },
    /// The delivery's status does not allow it.
    #[error("delivery {delivery} is {status}, which rules this out")]
    WrongStatus {
        /// The delivery.
        delivery: DeliveryId,
        /// Its status.
        status: DeliveryStatus,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tenant has no such event, or no more.
    #[error("there is no event {event}")]
    UnknownEvent {
        /// The id that was asked for.
        event: EventId,
    },
    /// There is no such delivery, or no more.
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

/// Wakes those who hold [`ChangeListener`], in the order in which they began to wait.
#[derive(Debug, Clone)]
pub struct ChangeNotifier(Arc<Changes>);

/// Counts changes. A `watch` channel would wake in random order, and no run would repeat itself.
#[derive(Debug, Default)]
struct Changes {
    count: AtomicU64,
    notify: Notify,
}

impl ChangeNotifier {
    /// Returns a notifier that nobody listens to yet.
    pub fn new() -> Self {
        Self(Arc::default())
    }

    /// Wakes all who listen, now or when they next wait.
    pub fn notify(&self) {
        self.0.count.fetch_add(1, Ordering::Release);
        self.0.notify.notify_waiters();
    }

    /// Returns a listener.
    pub fn listen(&self) -> ChangeListener {
        let seen = self.0.count.load(Ordering::Acquire);
        ChangeListener { changes: Arc::clone(&self.0), seen }
    }
}

impl Default for ChangeNotifier {
    fn default() -> Self {
        Self::new()
    }
}

/// Tells a worker that there may be more to claim.
#[derive(Debug)]
pub struct ChangeListener {
    changes: Arc<Changes>,
    seen: u64,
}

impl ChangeListener {
    /// Returns whether the next call of [`changed`](Self::changed) returns at once.
    pub(crate) fn is_due(&self) -> bool {
        self.changes.count.load(Ordering::Acquire) != self.seen
    }

    /// Waits until something changed since the last call. Never returns once the store is gone.
    ///
    /// # Cancellation
    /// Nothing is missed: a change meanwhile ends the next call.
    pub async fn changed(&mut self) {
        loop {
            let mut notified = pin!(self.changes.notify.notified());
            // From here on a change is noticed: either the count has moved, or this is woken.
            notified.as_mut().enable();
            let count = self.changes.count.load(Ordering::Acquire);
            if count != self.seen {
                self.seen = count;
                return;
            }
            notified.await;
        }
    }
}
