//! The invariants of a run, simulated or real: no accepted event is lost, one worker at a time has
//! a delivery, endpoints stay within their limits, order is preserved, and every duplicate is
//! explained.
//!
//! The driver of a run reports the actions to the [`Checker`], in order. The checker notes the
//! first promise that was broken.

mod checker;
mod counters;
mod ending;
mod leases;
mod limits;

// The runs use:
pub(crate) use self::checker::{Checker, Terms, WorkerNumber};
pub use self::counters::Counters;
pub(crate) use self::leases::{Footing, Grant, Key};
pub(crate) use self::limits::{Ending, Limits};
