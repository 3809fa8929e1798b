//! What the tests across crates share: a simulated clock, a receiver, and the docs as doctests.
#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a broken fixture fails its test"
)]

mod clock;
pub mod conformance;
pub mod crash;
#[cfg(doctest)]
mod docs;
mod forward;
pub mod postgres;
mod receiver;
pub mod simulation;

// The public interface is:
pub use clock::SimulatedClock;
pub use receiver::{Received, Receiver};
