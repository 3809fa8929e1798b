//! For operators: observers that an engine notifies, for metrics, logs and operational events; the
//! present numbers of its workers, and their reports.

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use webhooks_core::{
    DeliveryId, EndpointId, EventId, EventType, TenantId, Timestamp, TraceContext,
};
use webhooks_registry::DisableReason;

use crate::jobs::{JobId, JobState};
use crate::serialized_event::SerializedEvent;
use crate::shutdown_report::ShutdownReport;
use crate::store::{Replay, StoreError};
use crate::transport::ErrorClass;

pub use crate::gauges::Gauges;
pub use crate::report::{
    BreakerState, EndpointReport, RestReason, WorkerReport, WorkerReportError,
};

/// An observer of an engine: for metrics, logs and operational events.
///
/// The engine calls it in its own tasks or in that of a caller, after the change is stored, so it
/// must be quick and must not block. A panic is contained. An `Arc` of an observer is an observer,
/// too, so that its owner can read its counters. `LogObserver` (feature `tracing`) writes a log.
///
/// # Example
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use webhooks_dispatch::observer::{Observer, Occurrence};
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

impl<T: Observer + ?Sized> Observer for Arc<T> {
    fn observe(&self, occurrence: &Occurrence<'_>) {
        (**self).observe(occurrence);
    }
}

/// Something that happened in an engine. It is not called an event, since events are what users
/// publish.
///
/// An engine notices what it does itself, and nothing that other processes do with the same store.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Occurrence<'a> {
    /// This engine accepted an event for the first time. It does not notice events that the
    /// application publishes in a transaction of its own.
    Published {
        /// The event.
        event: &'a EventId,
        /// Its type.
        event_type: &'a EventType,
        /// Its tenant.
        tenant: &'a TenantId,
        /// The number of endpoints that get it.
        deliveries: usize,
    },
    /// An endpoint took an event.
    Delivered {
        /// The delivery.
        delivery: DeliveryRef<'a>,
        /// The time that the attempt took.
        duration: Duration,
        /// The time from the acceptance of the delivery, or its last replay, to the end of the
        /// attempt, by wall clocks: zero if they differ by more.
        age: Duration,
        /// The status code of the response.
        status_code: Option<u16>,
    },
    /// An attempt failed, and another follows.
    AttemptFailed {
        /// The delivery.
        delivery: DeliveryRef<'a>,
        /// The failure.
        failure: Failure<'a>,
        /// The time at which the next attempt is due.
        retry_at: Timestamp,
    },
    /// The last attempt failed, and the delivery with it: no retry is left, or none would help.
    DeliveryFailed {
        /// The delivery.
        delivery: DeliveryRef<'a>,
        /// The time from the acceptance of the delivery, or its last replay, to the end of the
        /// attempt.
        age: Duration,
        /// The failure.
        failure: Failure<'a>,
    },
    /// A delivery grew older than its endpoint allows, and is cancelled.
    Expired {
        /// The delivery.
        delivery: DeliveryRef<'a>,
        /// The time since the delivery was accepted, or last replayed.
        age: Duration,
    },
    /// [`Engine::cancel`](crate::Engine::cancel) cancelled a delivery. Deliveries that are
    /// cancelled with their endpoint are not listed one by one.
    Cancelled {
        /// The delivery.
        delivery: DeliveryId,
    },
    /// A portion of a replay made deliveries due once more. Portions without any, and dry runs, are
    /// left out.
    Replayed {
        /// The replay.
        replay: &'a Replay,
        /// The tenant, if the replay names one.
        tenant: Option<&'a TenantId>,
        /// The number of deliveries.
        deliveries: usize,
    },
    /// The outcome of a delivery was not recorded: its claim was lost, or the store refused this
    /// result again and again. The delivery may be sent again.
    LeaseLost {
        /// The delivery.
        delivery: DeliveryRef<'a>,
    },
    /// An endpoint was changed: by the application, or by the engine, which disables endpoints for
    /// any reason except [`DisableReason::Manual`]. One call may make several changes.
    EndpointChanged {
        /// The endpoint's tenant.
        tenant: &'a TenantId,
        /// The endpoint.
        endpoint: &'a EndpointId,
        /// The change.
        change: EndpointChange,
        /// The time at which the first failure since the last success was settled, if the engine
        /// disabled the endpoint.
        failing_since: Option<Timestamp>,
    },
    /// An endpoint has failed for a tenth of the time after which it is disabled. Observers are
    /// notified one time until the endpoint takes an event.
    EndpointFailing {
        /// The endpoint's tenant.
        tenant: &'a TenantId,
        /// The endpoint.
        endpoint: &'a EndpointId,
        /// The time at which the first failure since its last success was settled.
        since: Timestamp,
    },
    /// An endpoint that had been failing took an event.
    EndpointRecovered {
        /// The endpoint's tenant.
        tenant: &'a TenantId,
        /// The endpoint.
        endpoint: &'a EndpointId,
    },
    /// The circuit breaker of an endpoint opened in a worker: after several failures in a row, or
    /// after a probe that failed. The deliveries of the endpoint wait.
    BreakerOpened {
        /// The endpoint's tenant.
        tenant: &'a TenantId,
        /// The endpoint.
        endpoint: &'a EndpointId,
        /// The time for which the worker sends nothing to the endpoint. Then comes a probe.
        pause: Duration,
    },
    /// An endpoint answered, and its circuit breaker, which had opened in the same worker, is
    /// closed. A breaker that a change of the endpoint resets, or that is forgotten after a time
    /// without failures, is not listed.
    BreakerClosed {
        /// The endpoint's tenant.
        tenant: &'a TenantId,
        /// The endpoint.
        endpoint: &'a EndpointId,
    },
    /// The transport had no room for a delivery ([`ErrorClass::Busy`]), which is tried again soon.
    /// This does not count as an attempt.
    TransportBusy {
        /// The delivery.
        delivery: DeliveryRef<'a>,
    },
    /// A job has ended: it is finished, or failed.
    JobEnded {
        /// The job.
        id: JobId,
        /// The state in which it ended.
        state: JobState,
        /// The number of deliveries that were replayed or cancelled.
        done: u64,
    },
    /// A worker started.
    WorkerStarted {
        /// Its number in this engine, from 1.
        worker: u64,
    },
    /// A worker ended.
    WorkerEnded {
        /// Its number in this engine, from 1.
        worker: u64,
        /// How it ended; `None` if it was dropped, or a bug ended it.
        report: Option<ShutdownReport>,
    },
    /// A part of a worker panicked, which is a bug of the engine, the store, the transport or the
    /// clock. The worker goes on.
    WorkerFailed {
        /// The part.
        part: WorkerPart,
    },
    /// The store failed. The engine goes on trying; nothing is lost.
    StoreFailed {
        /// The error of the store.
        error: &'a StoreError,
    },
}

/// A change of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndpointChange {
    /// It was registered, and there was none under its id.
    Registered,
    /// Settings other than its secrets were changed.
    Updated,
    /// It was unregistered. Deliveries that waited for it are cancelled.
    Unregistered,
    /// It was enabled.
    Enabled,
    /// It was disabled. Deliveries that waited for it are cancelled.
    Disabled(DisableReason),
    /// It was paused.
    Paused,
    /// It was resumed.
    Resumed,
    /// Its secrets were changed.
    SecretRotated,
}

impl EndpointChange {
    /// Returns the word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Updated => "updated",
            Self::Unregistered => "unregistered",
            Self::Enabled => "enabled",
            Self::Disabled(_) => "disabled",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::SecretRotated => "secret_rotated",
        }
    }
}

/// A part of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerPart {
    /// The task that disables endpoints.
    Disabler,
    /// The task that claims, and starts the others.
    Driver,
    /// The task that works on jobs.
    Jobs,
    /// The task that extends leases.
    Leases,
    /// The tasks that make attempts.
    Attempts,
    /// The task that settles results.
    Settler,
}

/// A reference to a delivery: its ids.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct DeliveryRef<'a> {
    /// The delivery.
    pub id: DeliveryId,
    /// The event.
    pub event: &'a EventId,
    /// The event's type.
    pub event_type: &'a EventType,
    /// The tenant of both.
    pub tenant: &'a TenantId,
    /// The endpoint.
    pub endpoint: &'a EndpointId,
    /// The number of the attempt, from 1. If none was made now, that of the last one; 0 if none was
    /// made.
    pub attempt: u32,
    /// The start of the attempt, if one was made now.
    pub started_at: Option<Timestamp>,
    /// The place of the event in a distributed trace.
    pub trace: Option<&'a TraceContext>,
}

/// The failure of an attempt.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Failure<'a> {
    /// The reason, in a sentence without URL and payload. The endpoint's owner sees it, too.
    pub error: &'a str,
    /// The kind of failure, if there was no response.
    pub class: Option<ErrorClass>,
    /// The status code of the response, if there was one.
    pub status_code: Option<u16>,
    /// The time that the attempt took.
    pub duration: Duration,
}

/// The observers of an engine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observers(Vec<Arc<dyn Observer>>);

impl Observers {
    pub(crate) fn push(&mut self, observer: Arc<dyn Observer>) {
        self.0.push(observer);
    }

    /// Returns the type and the tenant of each event, if anybody is to be notified.
    pub(crate) fn of_publications(&self, events: &[SerializedEvent]) -> Vec<(EventType, TenantId)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        events.iter().map(|event| (event.event_type.clone(), event.tenant.clone())).collect()
    }

    pub(crate) fn notify(&self, occurrence: &Occurrence<'_>) {
        for observer in &self.0 {
            // An observer that panics misses this occurrence, and hears of the next.
            let _contained = catch_unwind(AssertUnwindSafe(|| observer.observe(occurrence)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Debug, Default)]
    struct Count(AtomicUsize);

    impl Observer for Count {
        fn observe(&self, _: &Occurrence<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn an_observer_can_be_shared() {
        let count = Arc::new(Count::default());
        let of_any_kind: Arc<dyn Observer> = Arc::clone(&count) as _;
        let mut observers = Observers::default();
        observers.push(Arc::new(Arc::clone(&count)));
        observers.push(Arc::new(of_any_kind));
        observers.notify(&Occurrence::WorkerFailed { part: WorkerPart::Attempts });
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
    }
}
