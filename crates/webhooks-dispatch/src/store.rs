//! The port to whatever keeps events and deliveries durably: the engine's part.

mod changes;
mod claim;
mod error;
mod health;
mod replay;
mod settlement;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use webhooks_core::{DeliveryId, EventId, Timestamp};
use webhooks_registry::EndpointNumber;

pub use self::changes::{ChangeListener, ChangeNotifier};
pub use self::claim::{Claim, ClaimRequest, Claimed, Progress};
pub use self::error::{CancelReason, OperationError, StoreError};
pub use self::health::{Failing, Health};
pub use self::replay::{
    Replay, ReplayCursor, ReplayCursorError, ReplayMode, ReplayRequest, Replayed, Undelivered,
};
pub use self::settlement::{Attempt, Outcome, Settled, Settlement};
pub use crate::clock::Now;
pub use crate::serialized_event::SerializedEvent;

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
