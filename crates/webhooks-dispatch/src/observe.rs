//! Hooks: what the engine tells those who watch it.

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use webhooks_core::{DeliveryId, EndpointId, EventId, TenantId, Timestamp};
use webhooks_registry::DisableReason;

use crate::StoreError;

/// Watches an engine: for metrics, logs and operational events.
///
/// It is called after what it tells was kept, in the engine's own tasks, so it must be quick and
/// must not block. A panic is contained.
///
/// # Example
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use webhooks_dispatch::{Observer, Occurrence};
///
/// #[derive(Debug, Default)]
/// struct Delivered(AtomicU64);
///
/// impl Observer for Delivered {
///     fn observe(&self, occurrence: &Occurrence<'_>) {
///         if let Occurrence::Delivered { .. } = occurrence {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
/// ```
pub trait Observer: Debug + Send + Sync + 'static {
    /// Takes note of what happened.
    fn observe(&self, occurrence: &Occurrence<'_>);
}

/// Something that happened in an engine.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Occurrence<'a> {
    /// An event was accepted for the first time.
    Published {
        /// The event.
        event: &'a EventId,
        /// How many endpoints get it.
        deliveries: usize,
    },
    /// An endpoint took an event.
    Delivered {
        /// Which delivery.
        delivery: Subject<'a>,
        /// How long the exchange took.
        duration: Duration,
    },
    /// An attempt failed, and another follows.
    AttemptFailed {
        /// Which delivery.
        delivery: Subject<'a>,
        /// Why, in a sentence.
        error: &'a str,
        /// When the next attempt is due.
        retry_at: Timestamp,
    },
    /// The last attempt failed: the delivery is given up.
    Exhausted {
        /// Which delivery.
        delivery: Subject<'a>,
        /// Why, in a sentence.
        error: &'a str,
    },
    /// A delivery grew older than its endpoint allows, and is given up.
    Expired {
        /// Which delivery.
        delivery: Subject<'a>,
    },
    /// What became of a delivery was not kept, since its claim was lost: it may be sent again.
    LeaseLost {
        /// Which delivery.
        delivery: Subject<'a>,
    },
    /// The engine disabled an endpoint.
    EndpointDisabled {
        /// The endpoint's tenant.
        tenant: &'a TenantId,
        /// The endpoint.
        endpoint: &'a EndpointId,
        /// Why.
        reason: DisableReason,
    },
    /// An endpoint has failed for a tenth of the time after which it is disabled. It is told once,
    /// until the endpoint takes an event.
    EndpointFailing {
        /// The endpoint's tenant.
        tenant: &'a TenantId,
        /// The endpoint.
        endpoint: &'a EndpointId,
        /// When the first failure since its last success was settled.
        since: Timestamp,
    },
    /// An endpoint that had been failing took an event.
    EndpointRecovered {
        /// The endpoint's tenant.
        tenant: &'a TenantId,
        /// The endpoint.
        endpoint: &'a EndpointId,
    },
    /// A part of a worker panicked, which is a bug of the engine or of what was given to it. The worker
    /// goes on.
    WorkerFailed {
        /// Which part.
        part: WorkerPart,
    },
    /// The store failed. The engine goes on trying; nothing is lost.
    StoreFailed {
        /// What it said.
        error: &'a StoreError,
    },
}

/// A part of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerPart {
    /// It disables endpoints.
    Disabler,
    /// It claims, and starts the others.
    Driver,
    /// It carries deliveries out.
    Pilot,
    /// It settles results.
    Settler,
}

/// Which delivery something is about.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Subject<'a> {
    /// The delivery.
    pub id: DeliveryId,
    /// The event.
    pub event: &'a EventId,
    /// The tenant of both.
    pub tenant: &'a TenantId,
    /// The endpoint.
    pub endpoint: &'a EndpointId,
    /// The number of the attempt, from 1; of the last one made, 0 if none was.
    pub attempt: u32,
}

/// The observers of an engine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observers(Vec<Arc<dyn Observer>>);

impl Observers {
    pub(crate) fn push(&mut self, observer: Arc<dyn Observer>) {
        self.0.push(observer);
    }

    pub(crate) fn tell(&self, occurrence: &Occurrence<'_>) {
        for observer in &self.0 {
            // What a panicking observer loses is its own affair.
            let _contained = catch_unwind(AssertUnwindSafe(|| observer.observe(occurrence)));
        }
    }
}
