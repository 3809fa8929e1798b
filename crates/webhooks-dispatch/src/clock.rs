//! The clock that the engine goes by.

use std::time::Duration;

use webhooks_core::Timestamp;

/// The time, and waiting for it. The engine reads no other clock, so a simulated one moves all.
#[diagnostic::on_unimplemented(message = "`{Self}` is not a clock: implement `Clock`")]
pub trait Clock: Send + Sync + 'static {
    /// Returns the present time.
    fn now(&self) -> Timestamp;

    /// Waits so long.
    ///
    /// # Cancellation
    /// Dropping the future ends the wait and leaves nothing behind.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send;
}

/// The system's clock, and the timer of the tokio runtime that polls the future.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the Clock that all others use")]
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(duration)
    }
}
