//! The end of a worker: when it may start its last attempt, and by when it ends.

use std::time::Duration;

use tokio::sync::oneshot;

use super::Stop;
use crate::clock::{Clock, MonotonicTime};

/// The way in which the loop of a worker ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ending {
    /// It goes on for a time, until nothing is left to deliver.
    Drain(Drain),
    /// It ends at once, and the worker by this time.
    Deadline(MonotonicTime),
}

/// The times at which a worker that drains stops starting attempts, and ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drain {
    /// The time until which it starts attempts: three quarters of its time, so that attempts in
    /// flight can end and are not made again.
    pub(super) starts_until: MonotonicTime,
    pub(super) ends_by: MonotonicTime,
}

impl Ending {
    pub(super) fn of(stop: Stop, now: MonotonicTime) -> Self {
        match stop {
            Stop::Grace(grace) => Self::Deadline(now + grace),
            Stop::Drained(grace) => {
                Self::Drain(Drain { starts_until: now + grace / 4 * 3, ends_by: now + grace })
            }
        }
    }
}

/// Waits until a worker that drains may start nothing more; returns the time at which it must end.
pub(super) async fn until_last_start(clock: &impl Clock, drain: Option<Drain>) -> MonotonicTime {
    match drain {
        Some(Drain { starts_until, ends_by }) => {
            clock.sleep(starts_until.saturating_since(clock.monotonic())).await;
            ends_by
        }
        None => std::future::pending().await,
    }
}

/// Waits for the order to end, which comes one time.
pub(super) async fn stop_order(stopped: &mut Option<oneshot::Receiver<Stop>>) -> Stop {
    let Some(receiver) = stopped else { return std::future::pending().await };
    // The handle is gone, so nothing waits for the worker.
    let stop = receiver.await.unwrap_or(Stop::Grace(Duration::ZERO));
    *stopped = None;
    stop
}

/// Waits for a future, at most until `deadline`.
pub(super) async fn within<F: Future>(
    clock: &impl Clock,
    deadline: MonotonicTime,
    future: F,
) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = clock.sleep(deadline.saturating_since(clock.monotonic())) => None,
    }
}
