//! What must be true of a run, be it simulated or real: nothing accepted is lost, one holder at a
//! time, endpoints within their limits, order kept, and every repeat explained.
//!
//! Whoever drives a run tells the [`Checker`] what happened, in order; it notes the first promise
//! that was broken.

mod checker;
mod ending;
mod leases;
mod limits;
mod tally;

// What the runs use is:
pub(crate) use self::checker::{Checker, Terms, WorkerNumber};
pub(crate) use self::leases::{Footing, Grant, Key};
pub(crate) use self::limits::{Ending, Limits};
pub use self::tally::Tally;
