//! For operators: the present state of a store's queues, endpoints and workers, and figures over time.

use webhooks_core::{DeliveryStatus, TenantId, Timestamp};
use webhooks_registry::EndpointKey;

pub use crate::activity::{
    ConnectionGauges, DurationCounts, DurationHistogram, StoreActivity, Waiting, WaitingCall,
};
use crate::figures::{FiguresQuery, FiguresRow};
pub use crate::report::{RestReason, WorkerReport};
pub use crate::sending::Sending;
use crate::store::{Failing, StoreError};

/// The present state of a store, and its figures over time.
///
/// A worker calls [`waiting`](Self::waiting) when it ends, and nothing else. A method that is added
/// later has a default, which returns [`StoreError::Unsupported`] or, for
/// [`activity`](Self::activity), nothing.
pub trait MonitorStore: Send + Sync + 'static {
    /// Returns `Ok` if the store can be reached, and writes.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot, or does not.
    fn ping(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Returns the number of deliveries of all tenants that wait for their first attempt or a
    /// retry; at most `limit` are counted.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    fn waiting(&self, limit: u64) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Counts the deliveries of an endpoint that were accepted or last replayed at `since` or
    /// later.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    fn statistics(
        &self,
        endpoint: EndpointKey,
        since: Timestamp,
    ) -> impl Future<Output = Result<Statistics, StoreError>> + Send;

    /// Returns the depth of a tenant's queues together, or of all; at most `max` deliveries are
    /// counted.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    #[expect(unused_variables, reason = "a default refuses every call")]
    fn depth(
        &self,
        tenant: Option<TenantId>,
        max: u64,
    ) -> impl Future<Output = Result<QueueDepth, StoreError>> + Send {
        std::future::ready(Err(StoreError::Unsupported { call: "depth" }))
    }

    /// Returns the health of each of these endpoints, in their order; at most `max` waiting deliveries
    /// of each are counted. An endpoint that is not registered has the default.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    #[expect(unused_variables, reason = "a default refuses every call")]
    fn health(
        &self,
        endpoints: Vec<EndpointKey>,
        max: u64,
    ) -> impl Future<Output = Result<Vec<EndpointHealth>, StoreError>> + Send {
        std::future::ready(Err(StoreError::Unsupported { call: "health" }))
    }

    /// Returns the last report of each worker that is alive, those of other processes included.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails, or keeps no reports.
    fn workers(&self) -> impl Future<Output = Result<Vec<WorkerReport>, StoreError>> + Send {
        std::future::ready(Err(StoreError::Unsupported { call: "workers" }))
    }

    /// Returns the figures of the steps that have any, the earliest first. Steps without figures are
    /// left out, also the only one of [`FiguresStep::Whole`](crate::figures::FiguresStep::Whole).
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    #[expect(unused_variables, reason = "a default refuses every call")]
    fn figures(
        &self,
        query: FiguresQuery,
    ) -> impl Future<Output = Result<Vec<FiguresRow>, StoreError>> + Send {
        std::future::ready(Err(StoreError::Unsupported { call: "figures" }))
    }

    /// Returns the work of this store in this process since it was opened. It asks no database, and costs
    /// next to nothing. A store without commits and connections returns the default.
    ///
    /// # Errors
    /// [`StoreError`] when the store is closed.
    fn activity(&self) -> impl Future<Output = Result<StoreActivity, StoreError>> + Send {
        std::future::ready(Ok(StoreActivity::default()))
    }
}

/// The numbers of an endpoint's deliveries by status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct Statistics {
    /// Deliveries without an attempt yet.
    pub pending: u64,
    /// Deliveries that the endpoint took.
    pub delivered: u64,
    /// Deliveries that failed: no retry is left, or none would help.
    pub failed: u64,
    /// Deliveries that wait for a retry.
    pub retrying: u64,
    /// Deliveries that were cancelled.
    pub cancelled: u64,
    /// The time of the first failure since the endpoint's last success, if it is failing.
    pub failing_since: Option<Timestamp>,
}

impl Statistics {
    /// Counts deliveries of a status.
    pub fn count(&mut self, status: DeliveryStatus, deliveries: u64) {
        match status {
            DeliveryStatus::Pending => self.pending += deliveries,
            DeliveryStatus::Delivered => self.delivered += deliveries,
            DeliveryStatus::Failed => self.failed += deliveries,
            DeliveryStatus::Retrying => self.retrying += deliveries,
            DeliveryStatus::Cancelled => self.cancelled += deliveries,
            // A status that is not counted yet.
            _ => {}
        }
    }
}

/// The depth of a queue. Deliveries of paused endpoints and scheduled ones are counted, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct QueueDepth {
    /// The number of deliveries that wait or are in flight; it may be capped.
    pub waiting: u64,
    /// The due time of the delivery that is due first, if one waits: in the past if workers are late,
    /// or if its endpoint is paused. An ordered endpoint's deliveries are due when they were accepted, as
    /// are their retries.
    pub oldest_due_at: Option<Timestamp>,
    /// The due time of the first delivery that workers should have attempted, if one waits: in the past if
    /// workers are late. Paused endpoints are left out, and an ordered endpoint that waits for the retry of
    /// its first delivery counts from the time of that retry.
    pub oldest_servable_at: Option<Timestamp>,
}

impl QueueDepth {
    /// Returns the depth of both queues together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let first = |one: Option<Timestamp>, another: Option<Timestamp>| {
            one.into_iter().chain(another).min()
        };
        Self {
            waiting: self.waiting.saturating_add(other.waiting),
            oldest_due_at: first(self.oldest_due_at, other.oldest_due_at),
            oldest_servable_at: first(self.oldest_servable_at, other.oldest_servable_at),
        }
    }
}

/// The health of an endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct EndpointHealth {
    /// The depth of its queue.
    pub queue: QueueDepth,
    /// Its failures since its last success, if there are any.
    pub failing: Option<Failing>,
    /// The minute in which it last took a delivery; the hour, if that was more than 48 hours ago.
    pub delivered_at: Option<Timestamp>,
}
