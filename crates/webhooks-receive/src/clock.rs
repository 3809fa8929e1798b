//! The clock of receivers and guards. For implementors: a [`Clock`] of your own, such as a simulated
//! one.
//!
//! webhooks-dispatch has a `Clock` of another shape: this crate does not depend on it, and boxes the
//! future so that the clock of a [`Receiver`](crate::Receiver) is no type parameter.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use webhooks_core::Timestamp;

/// The time, and timers. This crate reads no other clock, so that a simulated one controls all of it.
#[diagnostic::on_unimplemented(message = "`{Self}` is not a clock: implement `Clock`")]
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Returns the present time.
    fn now(&self) -> Timestamp;

    /// Waits for `duration`.
    ///
    /// # Cancellation
    /// Dropping the future ends the wait and leaves nothing behind.
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// The system's clock, and the timer of the tokio runtime that polls the future.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the Clock that all others use")]
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(duration))
    }
}
