//! For implementors: the clocks of the engine, one that people read and one that never steps.
//!
//! `webhooks-receive` has a `Clock` of its own, since a receiver does not depend on this crate.

use std::fmt;
use std::ops::Add;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use webhooks_core::Timestamp;

/// A source of time and a way to wait. The engine reads no other clock, so a simulated one controls
/// all of it.
#[diagnostic::on_unimplemented(message = "`{Self}` is not a clock: implement `Clock`")]
pub trait Clock: Send + Sync + 'static {
    /// Returns the present time of the wall clock, which may step forward and back.
    fn now(&self) -> Timestamp;

    /// Returns the present time of a clock that only goes forward, to measure durations.
    fn monotonic(&self) -> MonotonicTime;

    /// Returns the present time of both clocks.
    fn clocks(&self) -> Now {
        Now { wall: self.now(), monotonic: self.monotonic() }
    }

    /// Waits for `duration`.
    ///
    /// # Cancellation
    /// Dropping the future ends the wait and leaves nothing behind.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send;
}

/// A time of a clock that only goes forward, counted from an origin of the clock's own. Times of
/// two processes cannot be compared.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use webhooks_dispatch::clock::MonotonicTime;
///
/// let start = MonotonicTime::from_origin(Duration::from_secs(5));
/// let later = start + Duration::from_secs(2);
/// assert_eq!(later.saturating_since(start), Duration::from_secs(2));
/// assert_eq!(start.saturating_since(later), Duration::ZERO);
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonotonicTime(Duration);

impl MonotonicTime {
    /// A time that never comes.
    pub const NEVER: Self = Self(Duration::MAX);

    /// Returns the time that is `elapsed` after the clock's origin.
    pub const fn from_origin(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// Returns the time since `earlier`; zero if this time is not later.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for MonotonicTime {
    type Output = Self;

    /// Returns the later time; [`NEVER`](Self::NEVER) if it is out of range.
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

impl fmt::Debug for MonotonicTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The present time of both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the engine and tests build it")]
pub struct Now {
    /// The time of the wall clock, for due times and texts.
    pub wall: Timestamp,
    /// The time of the clock that never steps, for leases.
    pub monotonic: MonotonicTime,
}

/// The system's clocks, and the timer of the tokio runtime that polls the future.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

/// The origin of the process's monotonic clock.
#[expect(clippy::disallowed_methods, reason = "this is the Clock that all others use")]
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> MonotonicTime {
        MonotonicTime::from_origin(ORIGIN.elapsed())
    }

    #[expect(clippy::disallowed_methods, reason = "this is the Clock that all others use")]
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(duration)
    }
}
