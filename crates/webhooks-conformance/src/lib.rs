#![doc = include_str!("../README.md")]
#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::panic,
    missing_docs,
    reason = "each function is a test: it panics by design, and its name is what it shows"
)]

pub mod delivery_store;
#[cfg(feature = "receive")]
pub mod seen_store;
mod suites;
