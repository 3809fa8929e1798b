//! The task of a worker that claims, starts all other tasks, and ends them.

mod closing;

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::attempts::FinishedAttempt;
use super::ending::{Drain, Ending, stop_order, until_last_start, within};
use super::life::Life;
use super::{Stop, WorkerShared, attempts, disabler, job_runner, lease_keeper, settler};
use crate::clock::{Clock, MonotonicTime, Now};
use crate::engine_shared::EngineShared;
use crate::gauges::Gauges;
use crate::observer::{Occurrence, WorkerPart};
use crate::report::WorkerReport;
use crate::scheduler::Scheduler;
use crate::shutdown_report::ShutdownReport;
use crate::store::{ChangeListener, Claim, DeliveryStore, Outcome, PruneRequest, Room, Settlement};
use crate::store_ports::Store;
use crate::transport::Transport;
use crate::worker_registry::SchedulerHandle;

/// The pause of the worker after the store failed.
pub(super) const STORE_PAUSE: Duration = Duration::from_millis(500);

/// The shortest wait for something that should be due already: a store that errs must not make
/// the worker spin.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// The interval at which idle lanes and old events are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// The interval at which the store is asked to hasten deliveries that a clock ahead of time
/// accepted.
const HASTEN_EVERY: Duration = Duration::from_secs(300);

/// The interval at which the worker reports about itself, if it does anything. An idle one reports after a
/// quarter of its lease.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// The number of old events that are forgotten in one step, small enough not to delay deliveries.
const PRUNE_BATCH: usize = 200;

/// The number of workers that were started in this process.
static STARTED: AtomicU64 = AtomicU64::new(0);

/// The task that claims, and starts all other tasks of the worker.
pub(super) struct Driver<S, T, C> {
    shared: Arc<WorkerShared<S, T, C>>,
    changes: ChangeListener,
    attempts: JoinSet<()>,
    results: mpsc::Sender<FinishedAttempt>,
    settler: JoinSet<()>,
    disabler: JoinSet<()>,
    hastener: JoinSet<()>,
    jobs: JoinSet<()>,
    lease_keeper: JoinSet<()>,
    /// The time at which the worker last looked for deliveries without a notice of the store.
    looked: MonotonicTime,
    /// Set if the next step looks: the clock is read there, where a panic of it is contained.
    looks: bool,
    /// Tells the task that works on jobs to end.
    stops_jobs: watch::Sender<bool>,
    swept: MonotonicTime,
    reported: Option<MonotonicTime>,
    /// The numbers of breakers and rests in that report.
    reported_holds: (u64, u64),
    /// Its number in this process, under which the store has its reports: engines may share a store.
    reporter: u64,
    /// The number of times that the wall clock had been set back at the last call of `hasten`, and
    /// the time of that call.
    hastened: Option<(u64, MonotonicTime)>,
    /// The number of claims that were released after the worker was stopped.
    released: usize,
    /// Last, so that it ends after the tasks above are aborted.
    life: Life<S, T, C>,
}

impl<S, T, C> Driver<S, T, C>
where
    S: Store,
    T: Transport,
    C: Clock,
{
    pub(super) fn new(engine: Arc<EngineShared<S, T, C>>) -> Self {
        let settings = &engine.settings;
        #[cfg_attr(not(feature = "sabotage"), expect(unused_mut, reason = "set by sabotage"))]
        let mut scheduler = Scheduler::new(settings.concurrency, settings.breaker);
        #[cfg(feature = "sabotage")]
        {
            scheduler.leaks_slots = engine.leaks_slots;
        }
        let (changes, now) = (engine.store.changes(), engine.clock.monotonic());
        let (max_unsettled, started_at) = (settings.max_unsettled, engine.now().wall);
        let scheduling = Arc::new(SchedulerHandle::new(scheduler, max_unsettled, started_at));
        let number = engine.workers.add(&scheduling);
        let (failures, answers) = (AtomicU64::new(0), AtomicU64::new(0));
        let shared = Arc::new(WorkerShared { engine, scheduling, failures, answers });
        let mut driver = Self {
            life: Life::begin(Arc::clone(&shared), number),
            shared,
            changes,
            attempts: JoinSet::new(),
            results: mpsc::channel(1).0,
            settler: JoinSet::new(),
            disabler: JoinSet::new(),
            hastener: JoinSet::new(),
            jobs: JoinSet::new(),
            lease_keeper: JoinSet::new(),
            looked: now,
            looks: false,
            stops_jobs: watch::Sender::new(false),
            swept: now,
            reported: None,
            reported_holds: (0, 0),
            reporter: STARTED.fetch_add(1, Ordering::Relaxed) + 1,
            hastened: None,
            released: 0,
        };
        driver.start_settling();
        let stopping = driver.stops_jobs.subscribe();
        driver.lease_keeper.spawn(lease_keeper::run(Arc::clone(&driver.shared)));
        driver.jobs.spawn(job_runner::run(Arc::clone(&driver.shared), stopping));
        driver
    }

    /// Starts the settler and the disabler.
    fn start_settling(&mut self) {
        // As many places as there are permits. Each result holds one, so `try_send` in attempts.rs
        // never meets a full channel. Change both together.
        let (results, finished) = mpsc::channel(self.shared.engine.settings.max_unsettled);
        let (requests, requested) = mpsc::channel(disabler::QUEUE_CAPACITY);
        self.results = results;
        self.settler.spawn(settler::run(Arc::clone(&self.shared), finished, requests));
        self.disabler.spawn(disabler::run(Arc::clone(&self.shared), requested));
    }

    /// Starts the settler anew if it has ended, which only a bug can do. Results that it had not
    /// settled are lost; their deliveries are due again when their leases end.
    fn heal(&mut self) {
        while self.disabler.try_join_next().is_some() {}
        if self.settler.try_join_next().is_some() {
            self.shared.tell_failure(WorkerPart::Settler);
            self.shared.scheduler().abandon();
            self.start_settling();
        }
    }

    pub(super) async fn run(mut self, stopped: oneshot::Receiver<Stop>) -> ShutdownReport {
        let shared = Arc::clone(&self.shared);
        let clock = &shared.engine.clock;
        let (mut stopped, mut drain) = (Some(stopped), None::<Drain>);
        // Step, then wait for a reason for the next step. A shutdown ends the loop at once; a drain
        // ends it when nothing is left or `starts_until` has come. A step that is under way then
        // gets until the deadline to end its call to the store.
        let deadline = loop {
            let pause = {
                let mut step = pin!(self.contained_step());
                let deadline = tokio::select! {
                    biased;
                    pause = &mut step => Ok(pause),
                    deadline = until_last_start(clock, drain) => Err(deadline),
                    stop = stop_order(&mut stopped) => match Ending::of(stop, clock.monotonic()) {
                        Ending::Deadline(deadline) => Err(deadline),
                        Ending::Drain(begun) => {
                            drain = Some(begun);
                            within(clock, begun.starts_until, &mut step).await.ok_or(begun.ends_by)
                        }
                    },
                };
                match deadline {
                    Ok(pause) => pause,
                    Err(deadline) => {
                        shared.scheduler().stop();
                        // A call to the store is under way. As the scheduler is stopped, it
                        // releases the claims that this call brings.
                        let _in_time = within(clock, deadline, step).await;
                        break deadline;
                    }
                }
            };
            if let Some(drain) = drain {
                let is_drained = within(clock, drain.starts_until, self.is_drained(drain)).await;
                if is_drained != Some(false) || clock.monotonic() >= drain.starts_until {
                    break drain.ends_by;
                }
            }
            // Several may be true at once; the order makes runs repeatable.
            tokio::select! {
                biased;
                stop = stop_order(&mut stopped) => match Ending::of(stop, clock.monotonic()) {
                    Ending::Deadline(deadline) => break deadline,
                    Ending::Drain(begun) => drain = Some(begun),
                },
                () = shared.scheduling.wake.notified() => {}
                () = self.changes.changed() => shared.scheduler().allow_claim(),
                _deadline = until_last_start(clock, drain) => {}
                () = clock.sleep(pause) => {
                    self.looks = true;
                    shared.scheduler().allow_claim();
                }
            }
        };
        self.finish(deadline).await
    }

    /// Returns whether the worker holds nothing, and nothing falls due while it may start.
    async fn is_drained(&mut self, drain: Drain) -> bool {
        // Deliveries that a clock ahead of time accepted are due, too.
        while self.hastener.join_next().await.is_some() {}
        // Released claims are due again, and would be missed by `next_due` before.
        self.release_unused().await;
        if !self.shared.scheduler().held().is_empty() {
            return false;
        }
        let engine = &self.shared.engine;
        let due = AssertUnwindSafe(async {
            engine.store.refresh().await;
            engine.store.next_due(Room::new(), engine.now()).await
        });
        match due.catch_unwind().await {
            Ok(Ok(due)) => {
                due.is_none_or(|due| engine.clock.monotonic() + due > drain.starts_until)
            }
            // Unknown: the store may answer next time.
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Makes a step. If it panics, which is a bug of the store or the clock, another one follows.
    async fn contained_step(&mut self) -> Duration {
        match AssertUnwindSafe(self.step()).catch_unwind().await {
            Ok(pause) => pause,
            Err(_panic) => {
                self.shared.tell_failure(WorkerPart::Driver);
                STORE_PAUSE
            }
        }
    }

    /// Does what can be done now, and returns the time to wait if nothing happens.
    async fn step(&mut self) -> Duration {
        while self.attempts.try_join_next().is_some() {}
        self.heal();
        self.hasten();
        self.probe();
        let is_claimed = self.claim().await;
        self.start_attempts();
        // Last: both steps before put lanes to rest or park them, and their claims are then
        // released.
        self.release_unused().await;
        let now = self.shared.engine.now();
        if self.reported.is_none_or(|at| now.monotonic.saturating_since(at) >= REPORT_EVERY) {
            self.reported = Some(now.monotonic);
            let report = self.shared.scheduling.report(now);
            self.reported_holds = holds(report.gauges);
            self.report(Some(report)).await;
        }
        if now.monotonic.saturating_since(self.swept) >= SWEEP_EVERY {
            self.shared.scheduler().sweep(now.monotonic);
            // As long as there is more to forget, the next step goes on.
            if self.prune(now).await < PRUNE_BATCH {
                self.swept = now.monotonic;
            }
        }
        if is_claimed { self.pause().await } else { STORE_PAUSE }
    }

    /// Starts a task that makes deliveries due which a clock ahead of time accepted: when the
    /// worker starts, after the clock was set back, and every five minutes, since other processes
    /// may use another clock. A task of its own, because the call may take long.
    fn hasten(&mut self) {
        while self.hastener.try_join_next().is_some() {}
        let (set_back, now) = (self.shared.engine.set_back(), self.shared.engine.clock.monotonic());
        let is_done = self
            .hastened
            .is_some_and(|(seen, at)| seen == set_back && now.saturating_since(at) < HASTEN_EVERY);
        if !is_done && self.hastener.is_empty() {
            self.hastened = Some((set_back, now));
            self.hastener.spawn(hasten(Arc::clone(&self.shared)));
        }
    }

    /// Ends the rests of endpoints that somebody wants to be tried now.
    fn probe(&mut self) {
        let endpoints = self.changes.probes();
        if endpoints.is_empty() {
            return;
        }
        let (now, mut scheduler) = (self.shared.engine.clock.monotonic(), self.shared.scheduler());
        for endpoint in endpoints {
            scheduler.probe(endpoint, now);
        }
    }

    /// Claims as much as there is room for; returns false if the store failed.
    async fn claim(&self) -> bool {
        let engine = &self.shared.engine;
        let (now, lease) = (engine.now(), engine.settings.lease);
        let Some(request) = self.shared.scheduler().request(now, lease) else { return true };
        // Before the store is asked, so that no change of an endpoint after its answer is missed.
        self.shared.scheduling.begin_claim();
        match engine.store.claim(request).await {
            Ok(claimed) => {
                self.shared.count_answer();
                let mut scheduler = self.shared.scheduler();
                // Counted from before the call: in the store the leases end at this time or later.
                scheduler.add_claimed(claimed, now.monotonic + lease);
                // While the scheduler is locked: no change can come between these lines.
                for endpoint in self.shared.scheduling.end_claim() {
                    scheduler.release_endpoint(endpoint);
                }
                true
            }
            Err(error) => {
                engine.observers.notify(&Occurrence::StoreFailed { error: &error });
                false
            }
        }
    }

    /// Starts attempts while deliveries are ready and there are permits.
    fn start_attempts(&mut self) {
        while let Some((flight, permit)) = attempts::next(&self.shared) {
            let (shared, results) = (Arc::clone(&self.shared), self.results.clone());
            self.attempts.spawn(attempts::run(shared, results, flight, permit));
        }
    }

    /// Releases the claims that no lane holds any more: those of lanes that rest, of parked lanes
    /// beyond a bound, of endpoints that were changed, and of a worker that is stopped.
    async fn release_unused(&mut self) {
        let (to_release, is_stopped) = {
            let mut scheduler = self.shared.scheduler();
            (scheduler.take_to_release(), scheduler.is_stopped())
        };
        let released = self.release(to_release).await;
        if is_stopped {
            self.released += released;
        }
    }

    async fn release(&self, claims: Vec<Claim>) -> usize {
        if claims.is_empty() {
            return 0;
        }
        let settlements: Vec<Settlement> = (claims.into_iter())
            .map(|claim| Settlement { claim, outcome: Outcome::Released, attempt: None })
            .collect();
        let released = settlements.len();
        let now = self.shared.engine.now().wall;
        // If this fails, they are due again when their leases end.
        if let Err(error) = self.shared.engine.store.settle(settlements, now).await {
            self.shared.engine.observers.notify(&Occurrence::StoreFailed { error: &error });
        }
        released
    }

    /// Has the store record a report of the worker, or forget it at its end.
    async fn report(&self, report: Option<WorkerReport>) {
        let engine = &self.shared.engine;
        if let Err(error) = engine.store.report(self.reporter, report, engine.now()).await {
            engine.observers.notify(&Occurrence::StoreFailed { error: &error });
        }
    }

    /// Forgets some old events; returns their number.
    async fn prune(&self, now: Now) -> usize {
        let engine = &self.shared.engine;
        let retentions = engine.retentions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let of_all = engine.settings.retention;
        let of_tenants = retentions.into_iter().filter(|(_, retention)| *retention < of_all);
        let of_tenants = of_tenants.map(|(tenant, retention)| (Some(tenant), retention));
        let mut forgotten = 0;
        for (tenant, retention) in [(None, of_all)].into_iter().chain(of_tenants) {
            let before = now.wall.saturating_sub(retention);
            // A clock that is wrong at the start must not cost the history.
            if !engine.is_sure_since(before, now) {
                continue;
            }
            let request = PruneRequest { tenant, before, limit: PRUNE_BATCH, now: now.wall };
            match engine.store.prune(request).await {
                Ok(found) => forgotten += found,
                Err(error) => engine.observers.notify(&Occurrence::StoreFailed { error: &error }),
            }
        }
        forgotten
    }

    /// Returns the time to wait if nothing happens.
    async fn pause(&mut self) -> Duration {
        if self.changes.is_due() {
            return SHORTEST_WAIT;
        }
        let engine = &self.shared.engine;
        let (wakes_at, room, holds) = {
            let scheduler = self.shared.scheduler();
            // Without a permit no attempt starts. The settler frees permits, and wakes the driver
            // then.
            let can_start = self.shared.scheduling.permits.available_permits() > 0;
            let wakes_at = scheduler.wakes_at().filter(|_| can_start);
            let room = scheduler.runs_low().then(|| scheduler.room());
            (wakes_at, room, holds(scheduler.gauges()))
        };
        let due = match room {
            Some(room) => match engine.store.next_due(room, engine.now()).await {
                Ok(due) => due,
                Err(error) => {
                    engine.observers.notify(&Occurrence::StoreFailed { error: &error });
                    return STORE_PAUSE;
                }
            },
            // The lanes are full: an attempt that ends makes room and wakes the driver.
            None => None,
        };
        let now = engine.clock.monotonic();
        let wakes_in = wakes_at.map(|at| at.saturating_since(now));
        // Others read in its reports that an endpoint is held back: not only when it next has work.
        let owed = self.reported.filter(|_| holds != self.reported_holds);
        let reports_in = owed.map(|at| (at + REPORT_EVERY).saturating_since(now));
        let pause = due.into_iter().chain(wakes_in).chain(reports_in).min();
        let pause = pause.unwrap_or(Duration::MAX);
        if std::mem::take(&mut self.looks) {
            self.looked = now;
        }
        // Also without a reason: a notice of the store may be lost, and idle lanes are forgotten.
        let look = (self.looked + engine.settings.lease / 4).saturating_since(now);
        pause.min(look).max(SHORTEST_WAIT)
    }
}

/// Returns the numbers of lanes that are held back: by breakers, and for a time.
fn holds(gauges: Gauges) -> (u64, u64) {
    (gauges.open_breakers, gauges.resting_lanes)
}

/// Asks the store to hasten until it has.
async fn hasten<S: DeliveryStore, T, C: Clock>(shared: Arc<WorkerShared<S, T, C>>) {
    let engine = &shared.engine;
    loop {
        let hasten = AssertUnwindSafe(async { engine.store.hasten(engine.now().wall).await });
        match hasten.catch_unwind().await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => engine.observers.notify(&Occurrence::StoreFailed { error: &error }),
            Err(_panic) => return shared.tell_failure(WorkerPart::Driver),
        }
        engine.clock.sleep(STORE_PAUSE).await;
    }
}

#[cfg(test)]
mod tests;
