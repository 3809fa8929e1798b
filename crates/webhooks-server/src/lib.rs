#![doc = include_str!("../README.md")]

// Each file uses only files above it, so read from top to bottom.

mod address;
mod base_path;
mod deadline;
mod error;

mod attempt_id;
mod hint;

mod metrics;
mod operational_event;
mod overrides;
mod refused_keys;
mod schema;
mod schema_cache;
mod throttle;
mod tls;

mod serve;

#[cfg(feature = "otlp")]
pub mod otlp;
#[cfg(feature = "telemetry")]
pub mod telemetry;

mod parameters;
mod service;

mod trace;

mod tell;

mod catch_up;

mod teller;

mod auth;
mod expunge;

mod content_end;
mod deletion;
mod endpoint_walk;
mod extract;

mod event_type_document;

mod find;

mod broadcast;
mod endpoint_log;
mod idempotent;

mod background;
mod left_changes;
mod paging;
mod payload_check;
mod quota;

mod api;

mod document;
mod reference;

mod openapi;
mod unoffered;

mod router;

// The public interface is:
pub use base_path::{BasePath, BasePathError};
pub use metrics::Metrics;
pub use serve::{ServeSettings, serve, serve_tls};
pub use service::{Service, ServiceSettings};
pub use tls::{Tls, TlsCertificate, TlsError};
