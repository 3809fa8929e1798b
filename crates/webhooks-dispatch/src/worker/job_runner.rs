//! The task that works on jobs: it leases one, works on it portion by portion, and records its
//! progress after each.

use std::num::NonZeroU32;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use webhooks_core::{DeliveryId, DeliveryStatus};

use super::WorkerShared;
use crate::attempt::with_causes;
use crate::clock::Clock;
use crate::history::{Cursor, Page, Query};
use crate::jobs::{Job, JobAdvance, JobProgress, JobState, JobWork, LeasedJob};
use crate::observer::{Occurrence, WorkerPart};
use crate::replaying::{PORTION, notify_replayed};
use crate::store::{OperationError, Replay, ReplayCursor, ReplayMode, ReplayRequest, StoreError};
use crate::store_ports::Store;

/// The lease of a job: much longer than a portion takes.
const LEASE: Duration = Duration::from_secs(60);

/// The number of portions, of a second at most, after which a job lets others have their turns: one at
/// a low rate may last for days.
const TURN: usize = 10;

/// The interval at which the store is asked for jobs that other processes created. Jobs of this
/// process wake the runner.
const POLL: Duration = Duration::from_secs(5);

/// The pause after the store failed.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// Works on jobs until `stopping` says so or its sender is gone.
pub(super) async fn run<S: Store, T, C: Clock>(
    shared: Arc<WorkerShared<S, T, C>>,
    stopping: watch::Receiver<bool>,
) where
    T: Send + Sync + 'static,
{
    let mut runner = Runner { shared: &shared, stopping };
    while !runner.is_stopping() {
        // A panic of the store must not end the jobs of this worker: the lease ends, and the job goes
        // on where the last record says.
        let step = AssertUnwindSafe(runner.step()).catch_unwind().await;
        let pause = step.unwrap_or_else(|_panic| {
            shared.tell_failure(WorkerPart::Jobs);
            STORE_PAUSE
        });
        runner.pause(pause).await;
    }
}

struct Runner<'s, S, T, C> {
    shared: &'s WorkerShared<S, T, C>,
    stopping: watch::Receiver<bool>,
}

/// A portion of a job that was done.
struct Portion {
    done: usize,
    /// The place at which the next portion goes on; `None` after the last.
    next: Option<String>,
}

impl<S: Store, T, C: Clock> Runner<'_, S, T, C> {
    /// Works on a job, if there is one; returns the time to wait before the next.
    async fn step(&mut self) -> Duration {
        let engine = &self.shared.engine;
        match engine.store.lease_job(LEASE, engine.now()).await {
            Ok(Some(leased)) => {
                self.work(leased).await;
                Duration::ZERO
            }
            Ok(None) => POLL,
            Err(error) => {
                engine.observers.notify(&Occurrence::StoreFailed { error: &error });
                STORE_PAUSE
            }
        }
    }

    /// Works on a leased job until it ends, is stopped, its lease is lost, or its turn is over.
    async fn work(&mut self, leased: LeasedJob) {
        let LeasedJob { job, token } = leased;
        let mut progress = job.progress.clone();
        for portion in 0.. {
            if portion >= TURN || self.is_stopping() {
                // The lease ends at once, so that another worker goes on, or this one when the jobs
                // that have waited for longer have had their turns.
                let _ended_later =
                    self.advance(&job, token, &progress, JobState::Running, Duration::ZERO).await;
                return;
            }
            let (mut state, mut pause) = (JobState::Running, Duration::ZERO);
            match self.portion(&job, progress.cursor.as_deref()).await {
                Ok(Portion { done, next }) => {
                    progress.done += done as u64;
                    state = if next.is_some() { JobState::Running } else { JobState::Finished };
                    progress.cursor = next.or(progress.cursor);
                    // A portion has as many deliveries as a second allows, at most.
                    let share = |rate: NonZeroU32| {
                        let nanos = done as u64 * 1_000_000_000 / u64::from(rate.get());
                        Duration::from_nanos(nanos)
                    };
                    pause = job.rate.map_or(pause, share);
                }
                Err(OperationError::Store(error)) => {
                    self.tell(&error);
                    pause = STORE_PAUSE;
                }
                Err(error) => {
                    progress.error = Some(with_causes(&error));
                    state = JobState::Failed;
                }
            }
            match self.advance(&job, token, &progress, state, LEASE).await {
                Some(JobState::Running) => self.rest(pause).await,
                Some(_) | None => return,
            }
        }
    }

    /// Records progress until the store answers; returns the state of the job, or `None` if the lease
    /// was lost.
    async fn advance(
        &mut self,
        job: &Job,
        token: u64,
        progress: &JobProgress,
        state: JobState,
        lease: Duration,
    ) -> Option<JobState> {
        let engine = &self.shared.engine;
        loop {
            let (id, done, progress) = (job.id, progress.done, progress.clone());
            let advance = JobAdvance { id, token, progress, state };
            match engine.store.advance_job(advance, lease, engine.now()).await {
                Ok(after) => {
                    if let Some(state @ (JobState::Finished | JobState::Failed)) = after {
                        engine.observers.notify(&Occurrence::JobEnded { id, state, done });
                    }
                    return after;
                }
                Err(error) => {
                    self.tell(&error);
                    if self.is_stopping() {
                        return None;
                    }
                    self.rest(STORE_PAUSE).await;
                }
            }
        }
    }

    async fn portion(&self, job: &Job, cursor: Option<&str>) -> Result<Portion, OperationError> {
        let limit = job
            .rate
            .map_or(PORTION, |rate| usize::try_from(rate.get()).unwrap_or(PORTION).min(PORTION));
        match &job.work {
            JobWork::Replay(replay) => {
                let after = cursor.and_then(|cursor| cursor.parse().ok());
                self.replay(job, replay.clone(), after, limit).await
            }
            JobWork::ReplayFound(query) => {
                let mut query = query.clone();
                if query.statuses.is_empty() {
                    query.statuses = vec![DeliveryStatus::Failed, DeliveryStatus::Cancelled];
                }
                let (found, next) = self.find(job, query, cursor, limit).await?;
                let replay = Replay::Deliveries(found);
                // One portion for all that were found: `limit` is at least their number. Those of later pages begin
                // at the first place, too, but have nobody probe their endpoints once more.
                let after = cursor.map(|_| ReplayCursor::Ended(0));
                let done = self.replay(job, replay, after, limit).await?.done;
                Ok(Portion { done, next })
            }
            JobWork::Cancel(query) => {
                let mut query = query.clone();
                let open = [DeliveryStatus::Pending, DeliveryStatus::Retrying];
                let is_wanted = |status: &DeliveryStatus| {
                    query.statuses.is_empty() || query.statuses.contains(status)
                };
                query.statuses = open.into_iter().filter(is_wanted).collect();
                if query.statuses.is_empty() {
                    return Ok(Portion { done: 0, next: None });
                }
                let (found, next) = self.find(job, query, cursor, limit).await?;
                let done = self.cancel(found).await?;
                Ok(Portion { done, next })
            }
        }
    }

    /// Cancels deliveries; returns the number of those that had not ended.
    async fn cancel(&self, deliveries: Vec<DeliveryId>) -> Result<usize, StoreError> {
        let engine = &self.shared.engine;
        let cancelled = engine.store.cancel(deliveries.clone(), engine.now().wall).await?;
        let mut done = 0;
        for (delivery, cancelled) in deliveries.into_iter().zip(cancelled) {
            if cancelled.is_ok() {
                done += 1;
                engine.observers.notify(&Occurrence::Cancelled { delivery });
            }
        }
        Ok(done)
    }

    async fn replay(
        &self,
        job: &Job,
        replay: Replay,
        after: Option<ReplayCursor>,
        limit: usize,
    ) -> Result<Portion, OperationError> {
        let (started_at, now) = (job.created_at, self.shared.engine.now().wall);
        let mode = ReplayMode::Replay;
        let request = ReplayRequest { replay, limit, started_at, now, after, mode };
        let engine = &self.shared.engine;
        let replayed = engine.store.replay(request.clone()).await?;
        notify_replayed(&engine.observers, &request, replayed.deliveries);
        let next = replayed.next.map(|next| next.to_string());
        Ok(Portion { done: replayed.deliveries, next })
    }

    /// Finds the next deliveries of a query that were there when the job was created.
    async fn find(
        &self,
        job: &Job,
        query: Query,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<DeliveryId>, Option<String>), StoreError> {
        let after: Option<Cursor> = cursor.and_then(|cursor| cursor.parse().ok()).or(query.after);
        // The job goes from the newest on, to the place that the query ends before.
        let is_before = |key: u64| query.before.is_none_or(|before| key > before.key);
        let page = Query { after, before: None, limit, ..query.clone() };
        let Page { items, next, .. } = self.shared.engine.store.deliveries(page).await?;
        let next = next.filter(|next| is_before(next.key)).map(|next| next.to_string());
        let known = items.into_iter().filter(|found| found.created_at <= job.created_at);
        let known = known.map(|found| found.id).filter(|id| is_before(id.as_u64()));
        Ok((known.collect(), next))
    }

    fn tell(&self, error: &StoreError) {
        self.shared.engine.observers.notify(&Occurrence::StoreFailed { error });
    }

    fn is_stopping(&self) -> bool {
        *self.stopping.borrow() || self.stopping.has_changed().is_err()
    }

    /// Waits for `duration`, or until the worker stops.
    async fn rest(&mut self, duration: Duration) {
        if duration.is_zero() {
            return;
        }
        tokio::select! {
            biased;
            _stopping = self.stopping.changed() => {}
            () = self.shared.engine.clock.sleep(duration) => {}
        }
    }

    /// Waits for `duration`, or until a job was created or resumed in this process, or the worker
    /// stops.
    async fn pause(&mut self, duration: Duration) {
        let engine = &self.shared.engine;
        tokio::select! {
            biased;
            _stopping = self.stopping.changed() => {}
            () = engine.jobs_changed.notified() => {}
            () = engine.clock.sleep(duration) => {}
        }
    }
}

#[cfg(test)]
mod tests;
