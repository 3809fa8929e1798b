#![doc = include_str!("../README.md")]

// Each file uses only files above it, so read from top to bottom.

mod address;
mod deadline;
mod error;
mod metrics;
mod refused_keys;
mod schema;
mod serve;
mod throttle;

mod parameters;
mod service;

mod auth;
mod deletion;
mod extract;

mod find;
mod idempotent;
mod paging;

mod api;

mod document;
mod reference;

mod openapi;

mod router;

// The public interface is:
pub use metrics::Metrics;
pub use serve::{ServeSettings, serve};
pub use service::{Service, ServiceSettings};
