//! The parts that tests of several crates share: a simulated clock, a receiver, and the docs as
//! doctests.
#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a broken fixture fails its test"
)]

mod clock;
pub mod cluster;
pub mod crash;
#[cfg(doctest)]
mod docs;
mod first_webhook;
mod invariants;
pub mod model;
mod name_server;
pub mod operator;
pub mod postgres;
mod raw_server;
mod receiver;
pub mod simulation;

// The public interface is:
pub use clock::SimulatedClock;
pub use first_webhook::send_first_webhook;
pub use name_server::{NameServer, Treat};
pub use raw_server::{Connection, RawServer, Wire};
pub use receiver::{Received, Receiver};
