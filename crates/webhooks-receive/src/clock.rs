//! The clock that receiving goes by.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use webhooks_core::Timestamp;

/// The time, and waiting for it. Nothing here reads another clock, so a simulated one moves all.
#[diagnostic::on_unimplemented(message = "`{Self}` is not a clock: implement `Clock`")]
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Returns the present time.
    fn now(&self) -> Timestamp;

    /// Waits so long.
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
