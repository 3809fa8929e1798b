//! The service, over real connections, on each store.
#![expect(clippy::unwrap_used, reason = "a test")]

mod access;
mod api;
mod clients;
mod more;
mod openapi;
mod running;
