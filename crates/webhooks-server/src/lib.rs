#![doc = include_str!("../README.md")]

// Each file uses only files above it, so read from top to bottom.

mod error;

mod attempt_id;
mod hint;

mod metrics;
mod operational_event;
mod schema;
mod throttle;

mod parameters;
mod service;

mod tell;

mod catch_up;

mod teller;

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
pub use service::{Service, ServiceSettings};
