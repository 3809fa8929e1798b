#![doc = include_str!("../README.md")]

// Each file uses only files above it, so read from top to bottom.

mod error;

mod auth;
mod service;

mod extract;

mod idempotent;
mod paging;

mod api;

mod router;

// The public interface is:
pub use service::{Service, ServiceSettings};
