//! The methods of the ports, listed in one place: for stores around another store, and for
//! [`BoxedStore`](crate::BoxedStore).

/// The types that the lists of methods name.
#[doc(hidden)]
pub mod types {
    pub use std::sync::Arc;
    pub use std::time::Duration;

    pub use webhooks_core::{DeliveryId, EventId, TenantId, Timestamp};
    pub use webhooks_registry::store::{
        EndpointPage, EndpointQuery, EndpointStore, EndpointStoreError, RegisterRequest,
        Registered, StateChange,
    };
    pub use webhooks_registry::{EndpointKey, Registration};

    pub use crate::clock::Now;
    pub use crate::figures::{FiguresQuery, FiguresRow};
    pub use crate::history::{
        AttemptRecord, Cursor, DeliveryRecord, EndedPage, EndedRequest, EventRecord, EventSummary,
        FeedPage, FeedRequest, HistoryStore, Page, Query, SearchPage, SearchRequest, Trouble,
        TroubleRequest,
    };
    pub use crate::jobs::{
        Job, JobAdvance, JobChange, JobError, JobId, JobQuery, JobState, JobStore, LeasedJob,
        NewJob,
    };
    pub use crate::monitor::{EndpointHealth, MonitorStore, QueueDepth, Statistics, StoreActivity};
    pub use crate::report::WorkerReport;
    pub use crate::store::{
        ChangeListener, Claim, ClaimRequest, Claimed, Conflict, DeliveryStore, ExpungeRequest,
        Expunged, OperationError, OperationStore, PruneRequest, Published, ReplayRequest, Replayed,
        Room, SerializedEvent, Settled, Settlement, StoreError, TryNow,
    };
}

/// Implements ports for a store around another one: each method passes its call on to the store in a
/// field. For stores that change some calls and leave others as they are.
///
/// # Example
/// ```
/// use webhooks_dispatch::{MemoryStore, forward_store};
///
/// struct Counted {
///     inner: MemoryStore,
/// }
///
/// forward_store!(Counted => inner: HistoryStore, MonitorStore, JobStore);
/// ```
#[macro_export]
macro_rules! forward_store {
    ($store:ty => $field:ident: $($port:ident),+ $(,)?) => {
        $($crate::__methods! { $port => __forward ($store, $field) })+
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __forward {
    (
        ($store:ty, $field:ident) DeliveryStore
        $($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*
    ) => {
        impl $crate::__types::DeliveryStore for $store {
            $(async fn $name(&self, $($arg: $type),*) -> $out {
                $crate::__types::DeliveryStore::$name(&self.$field, $($arg),*).await
            })*
            fn changes(&self) -> $crate::__types::ChangeListener {
                $crate::__types::DeliveryStore::changes(&self.$field)
            }
        }
    };
    (
        ($store:ty, $field:ident) $port:ident
        $($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*
    ) => {
        impl $crate::__types::$port for $store {
            $(async fn $name(&self, $($arg: $type),*) -> $out {
                $crate::__types::$port::$name(&self.$field, $($arg),*).await
            })*
        }
    };
}

/// Passes the methods of a port to another macro.
#[doc(hidden)]
#[macro_export]
macro_rules! __methods {
    (EndpointStore => $then:ident $args:tt) => {
        $crate::$then! { $args EndpointStore
            register(request: $crate::__types::RegisterRequest)
                -> Result<$crate::__types::Registered, $crate::__types::EndpointStoreError>;
            unregister(key: $crate::__types::EndpointKey, now: $crate::__types::Timestamp)
                -> Result<
                    $crate::__types::Arc<$crate::__types::Registration>,
                    $crate::__types::EndpointStoreError,
                >;
            set_state(
                key: $crate::__types::EndpointKey,
                change: $crate::__types::StateChange,
                now: $crate::__types::Timestamp
            ) -> Result<
                Option<$crate::__types::Arc<$crate::__types::Registration>>,
                $crate::__types::EndpointStoreError,
            >;
            get(key: $crate::__types::EndpointKey) -> Result<
                Option<$crate::__types::Arc<$crate::__types::Registration>>,
                $crate::__types::EndpointStoreError,
            >;
            list(query: $crate::__types::EndpointQuery)
                -> Result<$crate::__types::EndpointPage, $crate::__types::EndpointStoreError>;
            count(query: $crate::__types::EndpointQuery, max: usize)
                -> Result<usize, $crate::__types::EndpointStoreError>;
        }
    };
    (OperationStore => $then:ident $args:tt) => {
        $crate::$then! { $args OperationStore
            cancel(
                deliveries: Vec<$crate::__types::DeliveryId>,
                now: $crate::__types::Timestamp
            ) -> Result<
                Vec<Result<(), $crate::__types::OperationError>>,
                $crate::__types::StoreError,
            >;
            replay(request: $crate::__types::ReplayRequest)
                -> Result<$crate::__types::Replayed, $crate::__types::OperationError>;
            try_now(delivery: $crate::__types::DeliveryId, now: $crate::__types::Timestamp)
                -> Result<$crate::__types::TryNow, $crate::__types::OperationError>;
            expunge(request: $crate::__types::ExpungeRequest)
                -> Result<$crate::__types::Expunged, $crate::__types::OperationError>;
            expunge_response(delivery: $crate::__types::DeliveryId, number: u32)
                -> Result<bool, $crate::__types::StoreError>;
        }
    };
    (HistoryStore => $then:ident $args:tt) => {
        $crate::$then! { $args HistoryStore
            event(tenant: $crate::__types::TenantId, id: $crate::__types::EventId)
                -> Result<Option<$crate::__types::EventRecord>, $crate::__types::StoreError>;
            events(query: $crate::__types::Query) -> Result<
                $crate::__types::Page<$crate::__types::EventSummary>,
                $crate::__types::StoreError,
            >;
            search(request: $crate::__types::SearchRequest)
                -> Result<$crate::__types::SearchPage, $crate::__types::StoreError>;
            feed(request: $crate::__types::FeedRequest)
                -> Result<$crate::__types::FeedPage, $crate::__types::StoreError>;
            feed_end() -> Result<$crate::__types::Cursor, $crate::__types::StoreError>;
            troubles(request: $crate::__types::TroubleRequest)
                -> Result<Vec<$crate::__types::Trouble>, $crate::__types::StoreError>;
            ended_attempts(request: $crate::__types::EndedRequest)
                -> Result<$crate::__types::EndedPage, $crate::__types::StoreError>;
            deliveries(query: $crate::__types::Query) -> Result<
                $crate::__types::Page<$crate::__types::DeliveryRecord>,
                $crate::__types::StoreError,
            >;
            delivery(id: $crate::__types::DeliveryId)
                -> Result<Option<$crate::__types::DeliveryRecord>, $crate::__types::StoreError>;
            attempts(query: $crate::__types::Query) -> Result<
                $crate::__types::Page<$crate::__types::AttemptRecord>,
                $crate::__types::StoreError,
            >;
            attempt(delivery: $crate::__types::DeliveryId, number: u32)
                -> Result<Option<$crate::__types::AttemptRecord>, $crate::__types::StoreError>;
        }
    };
    (MonitorStore => $then:ident $args:tt) => {
        $crate::$then! { $args MonitorStore
            ping() -> Result<(), $crate::__types::StoreError>;
            waiting(limit: u64) -> Result<u64, $crate::__types::StoreError>;
            statistics(endpoint: $crate::__types::EndpointKey, since: $crate::__types::Timestamp)
                -> Result<$crate::__types::Statistics, $crate::__types::StoreError>;
            depth(tenant: Option<$crate::__types::TenantId>, max: u64)
                -> Result<$crate::__types::QueueDepth, $crate::__types::StoreError>;
            health(endpoints: Vec<$crate::__types::EndpointKey>, max: u64)
                -> Result<Vec<$crate::__types::EndpointHealth>, $crate::__types::StoreError>;
            workers()
                -> Result<Vec<$crate::__types::WorkerReport>, $crate::__types::StoreError>;
            figures(query: $crate::__types::FiguresQuery)
                -> Result<Vec<$crate::__types::FiguresRow>, $crate::__types::StoreError>;
            activity() -> Result<$crate::__types::StoreActivity, $crate::__types::StoreError>;
        }
    };
    (JobStore => $then:ident $args:tt) => {
        $crate::$then! { $args JobStore
            create_job(job: $crate::__types::NewJob, now: $crate::__types::Timestamp)
                -> Result<$crate::__types::Job, $crate::__types::StoreError>;
            job(id: $crate::__types::JobId)
                -> Result<Option<$crate::__types::Job>, $crate::__types::StoreError>;
            jobs(query: $crate::__types::JobQuery)
                -> Result<Vec<$crate::__types::Job>, $crate::__types::StoreError>;
            change_job(
                id: $crate::__types::JobId,
                change: $crate::__types::JobChange,
                now: $crate::__types::Timestamp
            ) -> Result<$crate::__types::Job, $crate::__types::JobError>;
            lease_job(lease: $crate::__types::Duration, now: $crate::__types::Now)
                -> Result<Option<$crate::__types::LeasedJob>, $crate::__types::StoreError>;
            advance_job(
                advance: $crate::__types::JobAdvance,
                lease: $crate::__types::Duration,
                now: $crate::__types::Now
            ) -> Result<Option<$crate::__types::JobState>, $crate::__types::StoreError>;
        }
    };
    (DeliveryStore => $then:ident $args:tt) => {
        $crate::$then! { $args DeliveryStore
            publish(
                events: Vec<$crate::__types::SerializedEvent>,
                now: $crate::__types::Timestamp
            ) -> Result<
                Vec<Result<$crate::__types::Published, $crate::__types::Conflict>>,
                $crate::__types::StoreError,
            >;
            claim(request: $crate::__types::ClaimRequest)
                -> Result<Vec<$crate::__types::Claimed>, $crate::__types::StoreError>;
            settle(
                settlements: Vec<$crate::__types::Settlement>,
                now: $crate::__types::Timestamp
            ) -> Result<Vec<$crate::__types::Settled>, $crate::__types::StoreError>;
            extend(
                claims: Vec<$crate::__types::Claim>,
                lease: $crate::__types::Duration,
                now: $crate::__types::Now
            ) -> Result<Vec<$crate::__types::Claim>, $crate::__types::StoreError>;
            next_due(
                room: $crate::__types::Room,
                now: $crate::__types::Now
            ) -> Result<Option<$crate::__types::Duration>, $crate::__types::StoreError>;
            hasten(now: $crate::__types::Timestamp) -> Result<(), $crate::__types::StoreError>;
            refresh() -> ();
            release_preclaimed() -> usize;
            report(
                worker: u64,
                report: Option<$crate::__types::WorkerReport>,
                now: $crate::__types::Now
            ) -> Result<(), $crate::__types::StoreError>;
            prune(request: $crate::__types::PruneRequest)
                -> Result<usize, $crate::__types::StoreError>;
        }
    };
}
