//! For implementors: the port that keeps what the service has, as records.

use std::error::Error;
use std::fmt;

use futures_util::future::BoxFuture;
use thiserror::Error;
use webhooks_core::Timestamp;

/// The kind of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RecordKind {
    /// An [`Application`](crate::Application).
    Application,
    /// An [`ApiKey`](crate::ApiKey).
    ApiKey,
    /// A row of the audit log.
    Audit,
    /// A [`Consumer`](crate::Consumer) of a poller.
    Consumer,
    /// A [`ContentEnd`](crate::ContentEnd).
    ContentEnd,
    /// The deletion of an application that goes on.
    Deletion,
    /// An [`EndpointChange`](crate::EndpointChange) that is under way.
    EndpointChange,
    /// The entry of an endpoint, beside its registration in the engine.
    Endpoint,
    /// An [`EventTypeInfo`](crate::EventTypeInfo).
    EventType,
    /// The answer to a request with an idempotency key.
    Idempotency,
    /// The [`Limits`](crate::Limits) of an application.
    Limits,
    /// A token that opens one more session, once.
    OneTimeToken,
    /// A [`Poller`](crate::Poller).
    Poller,
    /// A [`PollerAttempt`](crate::PollerAttempt).
    PollerAttempt,
    /// The [`RetrySchedule`](crate::RetrySchedule) of an event type.
    RetrySchedule,
    /// The [`Usage`](crate::Usage) of an application on a day.
    Usage,
    /// A [`ServiceJob`](crate::ServiceJob).
    ServiceJob,
    /// The [`JobLease`](crate::JobLease) of a job that is not done.
    JobLease,
    /// A [`Watermark`](crate::Watermark).
    Watermark,
}

impl RecordKind {
    /// Returns the name of such a thing for people, as the API uses it.
    pub fn thing(self) -> &'static str {
        match self {
            Self::ApiKey => "API key",
            Self::EventType => "event type",
            Self::PollerAttempt => "attempt",
            Self::RetrySchedule => "retry schedule",
            Self::ServiceJob => "task",
            other => other.as_str(),
        }
    }

    /// Returns the word for this kind in stores.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::ApiKey => "api_key",
            Self::Audit => "audit",
            Self::Consumer => "consumer",
            Self::ContentEnd => "content_end",
            Self::Deletion => "deletion",
            Self::EndpointChange => "endpoint_change",
            Self::Endpoint => "endpoint",
            Self::EventType => "event_type",
            Self::Idempotency => "idempotency",
            Self::Limits => "limits",
            Self::OneTimeToken => "one_time_token",
            Self::Poller => "poller",
            Self::PollerAttempt => "poller_attempt",
            Self::RetrySchedule => "retry_schedule",
            Self::Usage => "usage",
            Self::ServiceJob => "service_job",
            Self::JobLease => "job_lease",
            Self::Watermark => "watermark",
        }
    }
}

/// The place of a record. Within a kind and scope, keys are unique, and so are aliases.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct RecordPlace {
    /// The kind.
    pub kind: RecordKind,
    /// The thing that it belongs to, such as the id of an application; empty for the service.
    pub scope: String,
    /// Its key, by which lists are ordered, as bytes.
    pub key: String,
}

/// A record: JSON, with what a store must know of it.
#[derive(Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct Record {
    /// Its place.
    pub place: RecordPlace,
    /// A second key by which it is found.
    pub alias: Option<String>,
    /// 1 at first; grows with each replacement.
    pub version: u64,
    /// The time of its insertion.
    pub created_at: Timestamp,
    /// The time of its last change.
    pub updated_at: Timestamp,
    /// The time from which it counts as absent.
    pub expires_at: Option<Timestamp>,
    /// Its content.
    pub body: String,
}

impl fmt::Debug for Record {
    /// Leaves out the body, which may be private.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("place", &self.place)
            .field("alias", &self.alias)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// One of the changes that [`RecordStore::write`] makes together.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_enums, reason = "a change that a store ignores must not compile")]
pub enum RecordChange {
    /// Adds a record, in place of one that has expired.
    Insert(Record),
    /// Replaces the record at the same place if its version is the one before.
    Replace(Record),
    /// Deletes a record, if it is there.
    Delete(RecordPlace),
}

/// A page of the records of a kind and scope, in the order of their keys.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct RecordQuery {
    /// The kind.
    pub kind: RecordKind,
    /// The scope.
    pub scope: String,
    /// The key behind which the page begins, in its order.
    pub after: Option<String>,
    /// Whether the largest key comes first.
    pub is_descending: bool,
    /// The most records.
    pub limit: usize,
    /// The time at which records must not have expired.
    pub now: Timestamp,
}

/// The key or the alias of a record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a name that a store ignores must not compile")]
pub enum RecordName {
    /// The key.
    Key(String),
    /// The alias.
    Alias(String),
}

/// The reason why a call failed. Nothing was changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A record with this key or alias is there already.
    #[error("there is a record of this name already")]
    Exists {
        /// The number of the change, from 0.
        change: usize,
    },
    /// The record was changed meanwhile, or is gone.
    #[error("the record was changed at the same time; try again")]
    Changed {
        /// The number of the change, from 0.
        change: usize,
    },
    /// The store failed.
    #[error("the store is not available")]
    Unavailable {
        /// The reason.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Keeps records. Each method returns when the answer is safe.
///
/// Futures are boxed: one call per request, beside which a box costs nothing, and a server needs no type
/// parameter for its store.
pub trait RecordStore: Send + Sync + 'static {
    /// Returns a record that has not expired.
    fn get(
        &self,
        kind: RecordKind,
        scope: String,
        name: RecordName,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Option<Record>, RecordError>>;

    /// Returns a page.
    fn list(&self, query: RecordQuery) -> BoxFuture<'_, Result<Vec<Record>, RecordError>>;

    /// Makes all changes or none, in their order. A record whose time is over before `now` counts as
    /// absent; the store may delete some of them.
    fn write(
        &self,
        changes: Vec<RecordChange>,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<(), RecordError>>;
}
