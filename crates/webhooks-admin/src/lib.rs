#![doc = include_str!("../README.md")]

// Each file uses only files above it, so read from top to bottom.

#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod column;
mod grant;
mod public_id;
pub mod record;
#[cfg(feature = "sqlite")]
mod record_cache;
mod resource;
mod schema_part;

mod idempotency;
mod payload_schema;

mod api_key;
mod application;
mod audit;
mod event_type_info;
mod jwt;
#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
mod service_job;
#[cfg(feature = "sqlite")]
mod sqlite;
mod watermark;

mod collection;
mod content_end;
mod endpoint_entry;
mod limits;
mod one_time_token;
mod poller;
mod poller_attempt;

mod admin;

mod answers;
mod endpoint_change;
mod job_lease;

// The public interface is:
pub use admin::Admin;
pub use api_key::{ApiKey, ApiKeyHash, ApiKeyText, ApiKeyTextError, KeyRefusal};
pub use application::{Application, Deletion};
pub use audit::{Actor, AuditEntry};
pub use collection::{AdminError, Collection, ListPage, ListQuery, Walk};
pub use content_end::ContentEnd;
pub use endpoint_change::EndpointChange;
pub use endpoint_entry::EndpointEntry;
pub use event_type_info::{EventTypeInfo, SchemaEnforcement};
pub use grant::{Action, Denial, Grant, Role};
pub use idempotency::{Answer, Begin, End, IdempotentRequest, Run, number_of};
pub use job_lease::{JobClaim, JobLease};
pub use jwt::{JwtHolder, JwtRefusal, JwtSecret, JwtSecretError};
pub use limits::{Limits, RetrySchedule, Usage};
#[cfg(feature = "memory")]
pub use memory::MemoryRecordStore;
pub use payload_schema::{Mismatch, PayloadSchema, PayloadSchemaError};
pub use poller::{Consumer, Poller};
pub use poller_attempt::PollerAttempt;
#[cfg(feature = "postgres")]
pub use postgres::PostgresRecordStore;
pub use public_id::{IdKind, PublicIdError};
pub use resource::{Entry, FieldError, Resource, check_metadata, check_name};
pub use schema_part::change_schemas;
pub use service_job::{Broadcast, ServiceJob, ServiceJobState, ServiceWork};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteRecordStore;
pub use watermark::Watermark;
