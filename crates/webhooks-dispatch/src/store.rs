//! For implementors: the port to a durable store of events and deliveries, as the engine calls it.
//!
//! A publisher calls [`DeliveryStore::publish`]. A worker then goes round in this order:
//!
//! 1. [`changes`](DeliveryStore::changes), one time when it starts;
//! 2. [`extend`](DeliveryStore::extend), for leases that would end soon;
//! 3. [`hasten`](DeliveryStore::hasten), in a task of its own, when it starts and every five minutes;
//! 4. [`claim`](DeliveryStore::claim), if it has room for more deliveries;
//! 5. [`settle`](DeliveryStore::settle) with [`Outcome::Released`], for claims that it cannot use now;
//! 6. [`next_due`](DeliveryStore::next_due), to know how long to sleep if no change wakes it.
//!
//! A second task of the worker calls [`settle`](DeliveryStore::settle) with the outcomes of claims
//! meanwhile. When the worker ends, it releases its claims, and then calls
//! [`release_preclaimed`](DeliveryStore::release_preclaimed). Operators call the methods of
//! [`OperationStore`] at any time.
//!
#![doc = include_str!("../STORE.md")]

// In the order of reading.
mod changes;
mod claim;
mod error;
mod outcome;
mod room;

mod health;

mod replay;
mod settlement;

mod operation;

use std::time::Duration;

use thiserror::Error;
use webhooks_core::{EventId, TenantId, Timestamp};

pub use self::changes::{ChangeListener, ChangeNotifier};
pub use self::claim::{Claim, ClaimRequest, Claimed, Progress, RATE_SPAN};
pub use self::error::{CancelReason, OperationError, StoreError};
pub use self::health::{Failing, Health};
pub use self::operation::{ExpungeRequest, Expunged, OperationStore, TryNow};
pub use self::outcome::{Attempt, Outcome};
pub use self::replay::{
    Replay, ReplayCursor, ReplayCursorError, ReplayMode, ReplayRequest, Replayed, Undelivered,
};
pub use self::room::{Room, RoomReader};
pub use self::settlement::{Settled, Settlement};
use crate::report::WorkerReport;

pub use crate::clock::Now;
pub use crate::serialized_event::SerializedEvent;

/// A durable store of events and deliveries, from which workers claim what is due.
///
/// The engine calls it, and people do not: their operations are in [`OperationStore`], and what they
/// read is in [`history`](crate::history) and [`monitor`](crate::monitor).
///
/// The store is the queue: there is no second system. A call that returned `Ok` survives a crash;
/// one that returned `Err` has changed nothing. Time is an argument, so that stores run under a
/// simulated clock.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not store deliveries: implement `DeliveryStore`"
)]
pub trait DeliveryStore: Send + Sync + 'static {
    /// Stores each event with a delivery for each endpoint that wants it, all or nothing per event;
    /// returns a result for each event, in the same order.
    ///
    /// An event id that its tenant has used before, with the same content
    /// ([`SerializedEvent::is_same_content`]), gives the first result again, with the first number
    /// of deliveries and [`PublishStatus::Duplicate`]; with other content, a [`Conflict`].
    ///
    /// # Errors
    /// [`StoreError`] when no event was stored.
    ///
    /// # Cancellation
    /// A dropped future may or may not have stored the events; publishing them again is safe.
    fn publish(
        &self,
        events: Vec<SerializedEvent>,
        now: Timestamp,
    ) -> impl Future<Output = Result<Vec<Result<Published, Conflict>>, StoreError>> + Send;

    /// Claims deliveries that are due, each for this caller alone until its lease ends. Tenants
    /// take turns. [What may be claimed](self#what-may-be-claimed) is in the module's docs.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails; nothing is claimed then.
    fn claim(
        &self,
        request: ClaimRequest,
    ) -> impl Future<Output = Result<Vec<Claimed>, StoreError>> + Send;

    /// Records the outcomes of claimed deliveries, and the [`Failing`] of their endpoints; returns
    /// for each whether it was recorded, in the same order. A claim that was lost changes nothing.
    ///
    /// # Errors
    /// [`StoreError`] when no outcome was recorded. The claims go on, so that the same call can be
    /// made again.
    fn settle(
        &self,
        settlements: Vec<Settlement>,
        now: Timestamp,
    ) -> impl Future<Output = Result<Vec<Settled>, StoreError>> + Send;

    /// Extends claims to `lease` from now, unless they last longer already; returns those that were
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

    /// Returns the time until there may be something to claim for endpoints that are not busy in
    /// `room`: until a delivery is due or a lease ends. `None` if only a change can bring something.
    ///
    /// It is zero only if a claim now may find something. The worker then claims again after 1 ms.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    fn next_due(
        &self,
        room: Room,
        now: Now,
    ) -> impl Future<Output = Result<Option<Duration>, StoreError>> + Send;

    /// Makes the next call of [`next_due`](Self::next_due) see what other processes have committed,
    /// also if the store has not heard of it yet. A worker that drains calls this before it believes
    /// that nothing is left. A store that one process owns need not implement it.
    fn refresh(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Repairs due times after a clock that was ahead. A delivery that waits for its first attempt
    /// and is due in the future becomes due now. An ordered endpoint that waits, although none of
    /// its deliveries is retrying, goes on. A worker calls this when it starts, after the wall
    /// clock was set back, and every five minutes.
    ///
    /// It may take long, so a store does it in small steps, between which other calls go on.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    fn hasten(&self, now: Timestamp) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Releases deliveries that the store has claimed for a worker in advance and not yet returned
    /// from [`claim`](Self::claim), since the worker ends; returns their number. A store that
    /// claims nothing in advance need not implement it.
    fn release_preclaimed(&self) -> impl Future<Output = usize> + Send {
        std::future::ready(0)
    }

    /// Forgets at most `limit` events that were accepted before a time, with their deliveries and
    /// attempts, unless one of their deliveries still waits; returns the number of events. A worker
    /// calls it every minute, and again at once while there is more to forget.
    ///
    /// A call for all tenants also keeps the store's figures small: those that are older than
    /// [`figures::KEPT`](crate::figures::KEPT) are added up by the hour, or forgotten.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    fn prune(
        &self,
        request: PruneRequest,
    ) -> impl Future<Output = Result<usize, StoreError>> + Send;

    /// Records the report of a worker, so that other processes can read it, or forgets it when the
    /// worker ends: `None`. `worker` is its number in this process. A worker calls it every few
    /// seconds. A store that keeps no reports need not implement it.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    #[expect(unused_variables, reason = "a default does nothing")]
    fn report(
        &self,
        worker: u64,
        report: Option<WorkerReport>,
        now: Now,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        std::future::ready(Ok(()))
    }

    /// Returns a listener that wakes a worker when there may be more to claim.
    fn changes(&self) -> ChangeListener;
}

/// A request to forget old events.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the engine and tests build it")]
pub struct PruneRequest {
    /// Those of this tenant; those of all tenants if `None`.
    pub tenant: Option<TenantId>,
    /// The time before which they were accepted.
    pub before: Timestamp,
    /// The largest number of events.
    pub limit: usize,
    /// The present time.
    pub now: Timestamp,
}

/// The result of a publication: the event is stored, now or since an earlier publication.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct Published {
    /// The event.
    pub event: EventId,
    /// The number of endpoints that get it.
    pub deliveries: usize,
    /// The status: a new event, or a duplicate.
    pub status: PublishStatus,
}

/// The status of a publication: the first one of an event, or a duplicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third way")]
pub enum PublishStatus {
    /// The event was stored just now.
    Created,
    /// The same event was stored before, and nothing was changed.
    Duplicate,
}

/// An error: an event id was used before for an event with other content, or with content that was
/// expunged since.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "event id {event} was published before with other content, or with content that was expunged"
)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct Conflict {
    /// The id.
    pub event: EventId,
}
