//! The wall clock without sudden steps: a step counts only after it has lasted.

use std::time::Duration;

use webhooks_core::Timestamp;

use crate::clock::{MonotonicTime, Now};

/// The difference from the monotonic clock up to which the wall clock is not doubted: time servers
/// correct that much at once.
const TOLERANCE: Duration = Duration::from_secs(2);

/// The time that a step of the wall clock must last before it is believed. A machine that wakes up
/// with a wrong clock has it corrected sooner; a machine that slept makes its retries this much
/// later.
const BELIEVED_AFTER: Duration = Duration::from_secs(300);

/// The time that the engine uses, a pure structure: readings of both clocks go in.
///
/// While the wall clock agrees with the monotonic one, it is believed. After a step, time goes on
/// evenly from before, and the step is believed once it has lasted. So a clock that steps back
/// stops nothing, and one that leaps ahead for a moment expires nothing.
#[derive(Debug)]
pub(crate) struct SteadyTime {
    /// The readings of both clocks when they last agreed.
    anchor: Now,
    doubted: Option<Doubted>,
    started: Now,
    /// The number of times that the wall clock was set back and stayed so.
    set_back: u64,
}

/// A step that has not lasted yet.
#[derive(Debug, Clone, Copy)]
struct Doubted {
    /// The first readings of both clocks after the step.
    first: Now,
}

impl SteadyTime {
    /// Returns the time that starts with these readings.
    pub(crate) fn new(clocks: Now) -> Self {
        Self { anchor: clocks, doubted: None, started: clocks, set_back: 0 }
    }

    /// Returns the time to use.
    pub(crate) fn read(&mut self, clocks: Now) -> Now {
        let expected = after(self.anchor, clocks.monotonic);
        if is_near(clocks.wall, expected) {
            // The anchor moves along, so that small corrections never add up to a step.
            self.doubted = None;
            self.anchor = clocks;
            return clocks;
        }
        // After another step, the time that a step must last begins anew.
        let step =
            self.doubted.filter(|step| is_near(clocks.wall, after(step.first, clocks.monotonic)));
        let first = step.map_or(clocks, |step| step.first);
        if clocks.monotonic.saturating_since(first.monotonic) >= BELIEVED_AFTER {
            self.doubted = None;
            self.anchor = clocks;
            self.set_back += u64::from(clocks.wall < expected);
            return clocks;
        }
        self.doubted = Some(Doubted { first });
        Now { wall: expected, ..clocks }
    }

    /// Returns the number of times that the wall clock was set back and stayed so.
    pub(crate) fn set_back(&self) -> u64 {
        self.set_back
    }

    /// Returns whether an age that began at `since` is sure enough for a decision that cannot be
    /// undone.
    ///
    /// An age from before the start is not sure at first: the clock may have been wrong when the
    /// process started, and is then found wrong within [`BELIEVED_AFTER`].
    pub(crate) fn is_sure_since(&self, since: Timestamp, now: MonotonicTime) -> bool {
        // A clock that is corrected is doubted first, and believed after the same time.
        let has_lasted = now.saturating_since(self.started.monotonic) >= BELIEVED_AFTER;
        since >= self.started.wall || (has_lasted && self.doubted.is_none())
    }
}

/// Returns the time of the wall clock at `monotonic` if it goes on evenly from `earlier`.
fn after(earlier: Now, monotonic: MonotonicTime) -> Timestamp {
    earlier.wall + monotonic.saturating_since(earlier.monotonic)
}

fn is_near(one: Timestamp, other: Timestamp) -> bool {
    one.saturating_since(other).max(other.saturating_since(one)) <= TOLERANCE
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_767_225_600; // 2026-01-01T00:00:00Z
    const HOUR: u64 = 3_600;

    /// Returns the readings of the clocks after a time, with the wall clock off by some seconds.
    fn clocks(elapsed: u64, off: i64) -> Now {
        let wall = (START + elapsed).checked_add_signed(off).unwrap();
        let monotonic = MonotonicTime::from_origin(Duration::from_secs(elapsed));
        Now { wall: Timestamp::from_unix_seconds(wall), monotonic }
    }

    /// Feeds readings, and returns the seconds by which the last answer is off.
    fn off_after(readings: &[(u64, i64)]) -> i64 {
        let mut time = SteadyTime::new(clocks(0, 0));
        let mut off = 0;
        for (elapsed, wall_off) in readings {
            let read = time.read(clocks(*elapsed, *wall_off)).wall.as_unix_microseconds();
            let even = (START + elapsed) * 1_000_000;
            off = i64::try_from(read).unwrap() - i64::try_from(even).unwrap();
        }
        off / 1_000_000
    }

    #[test]
    fn a_step_is_believed_once_it_has_lasted() {
        for step in [-7_200, 7_200, 315_360_000] {
            assert_eq!(off_after(&[(10, step)]), 0);
            assert_eq!(off_after(&[(10, step), (309, step)]), 0);
            assert_eq!(off_after(&[(10, step), (310, step)]), step);
            assert_eq!(off_after(&[(10, step), (310, step), (311, step)]), step);
        }
    }

    #[test]
    fn a_leap_for_a_moment_changes_nothing() {
        let leap = 315_360_000;
        assert_eq!(off_after(&[(10, leap), (20, leap), (30, 0), (400, 0)]), 0);
        assert_eq!(
            off_after(&[(10, leap), (200, 0), (210, leap), (400, leap)]),
            0,
            "it began anew"
        );
        assert_eq!(off_after(&[(10, leap), (100, -7_200), (399, -7_200)]), 0, "another step");
    }

    #[test]
    fn a_clock_that_is_set_back_is_counted_once() {
        let mut time = SteadyTime::new(clocks(0, 0));
        for (elapsed, off, set_back) in
            [(10, 7_200, 0), (310, 7_200, 0), (320, 0, 0), (620, 0, 1), (630, 0, 1), (640, -1, 1)]
        {
            time.read(clocks(elapsed, off));
            assert_eq!(time.set_back(), set_back, "after {elapsed} s");
        }
    }

    #[test]
    fn no_age_is_sure_while_a_clock_that_was_wrong_at_the_start_is_being_found_out() {
        let mut time = SteadyTime::new(clocks(0, 7_200));
        time.read(clocks(2, 0));
        time.read(clocks(301, 0));
        let (since, at) = (clocks(0, 0).wall, |elapsed| clocks(elapsed, 0).monotonic);
        assert!(!time.is_sure_since(since, at(301)), "it goes by the wrong time yet");
        time.read(clocks(302, 0));
        assert!(time.is_sure_since(since, at(302)));
    }

    #[test]
    fn small_corrections_are_followed_at_once() {
        assert_eq!(off_after(&[(10, 1), (20, 2), (30, 3), (40, 4)]), 4);
        assert_eq!(off_after(&[(10, -1), (20, -2), (30, -3)]), -3);
    }

    #[test]
    fn an_age_from_before_the_start_is_sure_once_the_clock_has_lasted() {
        let time = SteadyTime::new(clocks(HOUR, 0));
        let at = |elapsed| clocks(elapsed, 0).monotonic;
        let since = |elapsed| clocks(elapsed, 0).wall;
        assert!(time.is_sure_since(since(HOUR), at(HOUR)));
        assert!(!time.is_sure_since(since(HOUR - 1), at(HOUR + 299)));
        assert!(time.is_sure_since(since(HOUR - 1), at(HOUR + 300)));
    }
}
