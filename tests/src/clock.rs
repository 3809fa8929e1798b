//! A clock that jumps to the next thing that anybody waits for.

use std::time::Duration;

use tokio::time::Instant;
use webhooks_core::Timestamp;
use webhooks_dispatch::{Clock, MonotonicTime};

/// The paused clock of a tokio test (`start_paused = true`), from 2026 on.
#[derive(Debug, Clone, Copy)]
pub struct SimulatedClock {
    start: Instant,
}

impl SimulatedClock {
    /// Returns a clock that starts now.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Returns how much simulated time has passed since the start.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_seconds(1_767_225_600) + self.elapsed()
    }

    fn monotonic(&self) -> MonotonicTime {
        MonotonicTime::from_origin(self.elapsed())
    }

    #[expect(clippy::disallowed_methods, reason = "this is a Clock")]
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(duration)
    }
}
