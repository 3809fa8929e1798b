//! The last steps of a worker: it waits for its tasks, and releases what is left.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Driver, STORE_PAUSE};
use crate::clock::{Clock, MonotonicTime};
use crate::shutdown_report::ShutdownReport;
use crate::store_ports::Store;
use crate::transport::Transport;
use crate::worker::ending::within;

/// The largest number of waiting deliveries that are counted when a worker ends.
const MAX_COUNTED: u64 = 10_000;

impl<S, T, C> Driver<S, T, C>
where
    S: Store,
    T: Transport,
    C: Clock,
{
    pub(super) async fn finish(mut self, deadline: MonotonicTime) -> ShutdownReport {
        let shared = Arc::clone(&self.shared);
        let clock = &shared.engine.clock;
        shared.scheduler().stop();
        let _nobody_listens = self.stops_jobs.send(true);
        // It may take long, and the next worker asks for the same when it starts.
        self.hastener.shutdown().await;
        // The store gets a moment to release and settle, even if the grace time is zero.
        let last_moment = || deadline.max(clock.monotonic() + STORE_PAUSE);
        let release_until = last_moment();
        let _in_time = within(clock, release_until, self.release_unused()).await;
        let store = &shared.engine.store;
        let preclaimed = within(clock, release_until, store.release_preclaimed()).await;
        self.released += preclaimed.unwrap_or_default();
        let have_ended = self.all_end(|driver| &mut driver.attempts, deadline).await;
        let broken_off = if have_ended { 0 } else { shared.scheduler().in_flight() };
        self.attempts.shutdown().await;
        // The settler ends when the last result is settled, and no sender is left.
        self.results = mpsc::channel(1).0;
        self.all_end(|driver| &mut driver.settler, last_moment()).await;
        self.settler.shutdown().await;
        // A portion that is under way is recorded, or made again by the next worker.
        self.all_end(|driver| &mut driver.jobs, last_moment()).await;
        self.jobs.shutdown().await;
        self.all_end(|driver| &mut driver.disabler, last_moment()).await;
        self.disabler.shutdown().await;
        self.lease_keeper.shutdown().await;
        let held = shared.scheduler().held();
        // The claims of attempts that were broken off are among those that are left.
        let unsettled = held.len().saturating_sub(broken_off);
        let _in_time = within(clock, last_moment(), self.release(held)).await;
        let waiting = within(clock, last_moment(), store.waiting(MAX_COUNTED)).await;
        let waiting = waiting.and_then(Result::ok);
        let _forgotten_later = within(clock, last_moment(), self.report(None)).await;
        let failures = shared.failures.load(Ordering::Relaxed);
        let released = self.released;
        let report =
            ShutdownReport { released, broken_off, unsettled, waiting, failures, had_died: false };
        self.life.report = Some(report);
        report
    }

    /// Waits until all tasks of a set have ended, at most until `deadline`; returns whether they have.
    async fn all_end(
        &mut self,
        which: fn(&mut Self) -> &mut JoinSet<()>,
        deadline: MonotonicTime,
    ) -> bool {
        let shared = Arc::clone(&self.shared);
        let tasks = which(self);
        let ended = async { while tasks.join_next().await.is_some() {} };
        within(&shared.engine.clock, deadline, ended).await.is_some()
    }
}
