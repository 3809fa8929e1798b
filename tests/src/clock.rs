//! A clock that jumps to the next time that any task waits for.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use webhooks_core::Timestamp;
use webhooks_dispatch::clock::{Clock, MonotonicTime};

/// 2026-01-01T00:00:00Z.
const START: u64 = 1_767_225_600;

/// The paused clock of a tokio test (`start_paused = true`), starting in 2026. Its wall clock can
/// step.
#[derive(Debug, Clone, Copy)]
pub struct SimulatedClock {
    start: Instant,
    /// The offset of the wall clock in seconds, shared by all copies.
    off: &'static AtomicI64,
}

impl SimulatedClock {
    /// Returns a clock that starts now.
    pub fn start() -> Self {
        // A few leaked bytes per test make the clock `Copy`, because it is used everywhere.
        Self { start: Instant::now(), off: Box::leak(Box::default()) }
    }

    /// Sets the offset of the wall clock, in seconds.
    pub fn step(&self, off: i64) {
        self.off.store(off, Ordering::Relaxed);
    }

    /// Returns the offset of the wall clock, in seconds.
    pub fn off(&self) -> i64 {
        self.off.load(Ordering::Relaxed)
    }

    /// Returns the time by a wall clock that never steps.
    pub fn even(&self) -> Timestamp {
        Timestamp::from_unix_seconds(START) + self.elapsed()
    }

    /// Returns the simulated time that has passed since the start.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        let start = START.saturating_add_signed(self.off());
        Timestamp::from_unix_seconds(start) + self.elapsed()
    }

    fn monotonic(&self) -> MonotonicTime {
        MonotonicTime::from_origin(self.elapsed())
    }

    #[expect(clippy::disallowed_methods, reason = "this is a Clock")]
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(duration)
    }
}
