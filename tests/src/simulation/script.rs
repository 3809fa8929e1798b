//! The steps of a run, one by one.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinHandle;
use webhooks_dispatch::backlog::Window;
use webhooks_dispatch::{Engine, MemoryStore, Worker, clock::Clock as _, history::Query};
use webhooks_registry::{EndpointQuery, store::EndpointStore as _};
use webhooks_sqlite::SqliteOptions;

use super::committer::Committer;
use super::faulty_store::FaultyStore;
use super::faulty_transport::FaultyTransport;
use super::kept::Kept;
use super::operator::{Operator, SimulatedEngine};
use super::plan::{EVENT_TYPES, OUTAGE_PACE, Plan, RETRY_AFTER_CAP, Step, TEN_YEARS};
use super::record::World;
use super::recovery;
use super::watcher::Watcher;
use super::{Sabotage, Store};
use crate::invariants::{Limits, WorkerNumber};

/// A run.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) plan: Plan,
    pub(super) world: Arc<World>,
    pub(super) shelf: Shelf,
    /// An engine that only publishes.
    publisher: SimulatedEngine,
    pub(super) workers: Vec<Option<Running>>,
    /// The tasks of publishers and operators.
    tasks: Vec<JoinHandle<()>>,
}

/// A worker, and the engine that it belongs to.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) number: WorkerNumber,
    worker: Worker,
    engine: SimulatedEngine,
}

/// A store, and its writer.
#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) store: Kept,
    committer: Arc<Committer>,
    writing: Option<JoinHandle<()>>,
    /// The path of the file, if there is one.
    folder: Option<TempDir>,
    window: Window,
}

/// Plays a plan to its end, or until a promise is broken.
pub(super) async fn play(plan: Plan, world: &Arc<World>) {
    let mut script = Script::new(plan, world);
    script.begin().await;
    let steps = std::mem::take(&mut script.plan.steps);
    for (at, step) in &steps {
        script.world.clock.sleep(at.saturating_sub(script.world.now())).await;
        script.step(*step).await;
        if script.world.is_violated() {
            return;
        }
    }
    script.plan.steps = steps;
    let heals_at = script.plan.heals_at();
    script.world.clock.sleep(heals_at.saturating_sub(script.world.now())).await;
    recovery::play(&mut script).await;
}

impl Shelf {
    fn new(plan: &Plan, world: &Arc<World>) -> Self {
        let window = plan.window;
        match world.options().store {
            Store::Memory => Self {
                store: Kept::memory(MemoryStore::new()),
                committer: Committer::in_memory(),
                writing: None,
                folder: None,
                window,
            },
            Store::Sqlite => {
                // In memory if possible: a simulation should not wait for the disk.
                let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
                Self::open(folder.expect("a folder"), window, world)
            }
        }
    }

    fn open(folder: TempDir, window: Window, world: &Arc<World>) -> Self {
        let options = SqliteOptions::new(folder.path().join("store.db")).window(window);
        let (store, mut writer) = options.dangerous_open_manually().expect("the file opens");
        if let Some(Sabotage::GroupsGoOn { behind }) = world.options().sabotage {
            writer.go_on_behind(behind);
        }
        let store = Kept::sqlite(store);
        let committer = Committer::on_disk(writer);
        let writing = tokio::spawn(Arc::clone(&committer).run(Arc::clone(world)));
        Self { store, committer, writing: Some(writing), folder: Some(folder), window }
    }

    /// Ends the store as a crash would, after the next `groups` groups. Nobody may use it any more.
    async fn crash(&mut self, groups: usize) {
        if let Some(writing) = self.writing.take() {
            writing.abort();
            let _aborted = writing.await;
        }
        self.committer.commit(groups);
        self.store = Kept::memory(MemoryStore::new());
        self.committer = Committer::in_memory();
    }

    /// Opens the store again with its contents on disk.
    fn reopen(&mut self, world: &Arc<World>) {
        if let Some(folder) = self.folder.take() {
            *self = Self::open(folder, self.window, world);
        }
    }

    /// Compares everything in the store with what must be there.
    pub(super) async fn compare(&self, world: &World) {
        let deliveries = self.store.all(Query::default()).await.expect("reads don't fail");
        let endpoints =
            self.store.list(EndpointQuery { limit: 1_000, ..EndpointQuery::default() }).await;
        let endpoints = endpoints.expect("reads don't fail").items;
        let verdict = world.record().oracle.compare(&deliveries, &endpoints);
        if let Err(why) = verdict {
            world.violate(format_args!("what was answered is kept: {why}"));
        }
    }
}

impl Script {
    fn new(plan: Plan, world: &Arc<World>) -> Self {
        let shelf = Shelf::new(&plan, world);
        let mut record = world.record();
        let limits = Limits::of(&plan.settings);
        record.checker.limits = Limits { retry_after_cap: RETRY_AFTER_CAP, ..limits };
        record.store_faults = plan.store_faults;
        record.retention = plan.settings.retention;
        record.on_time = on_time(&plan);
        record.is_outage = plan.is_outage;
        for endpoint in &plan.endpoints {
            record.add_endpoint(endpoint.clone());
        }
        drop(record);
        let publisher = engine(&plan, world, &shelf, 0);
        let workers = (0..plan.workers).map(|_| None).collect();
        Self { plan, world: Arc::clone(world), shelf, publisher, workers, tasks: Vec::new() }
    }

    async fn begin(&mut self) {
        let settings = self.plan.settings.clone();
        self.world.note(format_args!("{settings:?}"));
        for endpoint in 0..self.plan.endpoints.len() {
            self.register(endpoint).await;
        }
        for worker in 0..self.workers.len() {
            self.start(worker);
        }
    }

    /// Registers an endpoint as planned.
    pub(super) async fn register(&self, endpoint: usize) {
        let settings = self.plan.endpoints[endpoint].endpoint.clone();
        self.operator().register(endpoint, settings).await;
    }

    /// Returns a user of the engine of a worker that runs, if there is one.
    pub(super) fn operator(&self) -> Operator {
        let running = self.workers.iter().flatten().next();
        let engine = running.map_or(&self.publisher, |running| &running.engine);
        let alone = running.filter(|_| self.workers.len() == 1).map(|running| running.number);
        let (world, store) = (Arc::clone(&self.world), self.shelf.store.clone());
        Operator { world, engine: engine.clone(), store, alone }
    }

    pub(super) fn start(&mut self, worker: usize) {
        if self.workers[worker].is_some() {
            return;
        }
        let number = self.world.record().checker.add_worker();
        self.world.note(format_args!("worker {number} starts"));
        let engine = engine(&self.plan, &self.world, &self.shelf, number);
        let worker_of_engine = engine.start();
        self.workers[worker] = Some(Running { number, worker: worker_of_engine, engine });
    }

    async fn step(&mut self, step: Step) {
        self.world.note(format_args!("{step:?}"));
        match step {
            Step::Clock { off, is_believed } => {
                let mut record = self.world.record();
                record.checker.counters.clock_steps += 1;
                record.checker.limits.is_wall_off |= is_believed;
                self.world.clock.step(off);
            }
            Step::Crash { worker } => self.crash(worker).await,
            Step::CrashStore { groups } => self.crash_store(groups).await,
            Step::Full(is_full) => self.fill(is_full),
            Step::Operate(operation) => {
                let operator = self.operator();
                let task = async move { operator.operate(operation).await };
                self.tasks.push(tokio::spawn(task));
            }
            Step::Publish { tenant, event_type, events } => {
                let operator = self.operator();
                self.tasks.push(tokio::spawn(async move {
                    for _ in 0..events {
                        operator.publish(tenant, event_type).await;
                    }
                }));
            }
            Step::Shutdown { worker, grace } => self.shut_down(worker, grace).await,
            Step::Start { worker } => self.start(worker),
            Step::Unread(is_unread) => {
                self.world.record().checker.counters.unread += u64::from(is_unread);
                self.shelf.committer.with_writer(|writer| writer.fail_refills(is_unread));
            }
        }
    }

    pub(super) fn fill(&self, is_full: bool) {
        let mut record = self.world.record();
        record.checker.counters.full += u64::from(is_full);
        record.is_full = is_full;
        drop(record);
        self.shelf.committer.with_writer(|writer| {
            // Less than publishing must leave for other writes.
            let room = is_full.then_some(ROOM);
            writer.limit(room).expect("the file can be read");
        });
    }

    /// Makes the clock right, and gives the store room and makes it readable.
    pub(super) fn mend(&self) {
        self.world.clock.step(0);
        self.fill(false);
        self.shelf.committer.with_writer(|writer| writer.fail_refills(false));
    }

    /// Waits until publishers and operators are done.
    pub(super) async fn join(&mut self) {
        for task in self.tasks.drain(..) {
            task.await.expect("nothing panics");
        }
    }

    async fn crash(&mut self, worker: usize) {
        let Some(Running { number, worker, .. }) = self.workers[worker].take() else { return };
        self.world.record().checker.counters.crashes += 1;
        drop(worker);
        self.ended(number).await;
    }

    /// Ends the process of the whole run; the contents on disk stay.
    async fn crash_store(&mut self, groups: usize) {
        if self.world.options().store == Store::Memory {
            return;
        }
        self.world.record().checker.counters.store_crashes += 1;
        for task in self.tasks.drain(..) {
            task.abort();
            let _aborted = task.await;
        }
        let running: Vec<_> = self.workers.iter_mut().filter_map(Option::take).collect();
        let numbers: Vec<_> = running.iter().map(|running| running.number).collect();
        drop(running);
        if let Some(writing) = self.shelf.writing.take() {
            writing.abort();
            let _aborted = writing.await;
        }
        for number in numbers {
            self.ended(number).await;
        }
        self.shelf.crash(groups).await;
        self.publisher = engine(&self.plan, &self.world, &self.shelf, 0);
        self.shelf.reopen(&self.world);
        {
            let now = self.world.now();
            let mut record = self.world.record();
            record.checker.on_all_crashed(now);
            record.oracle.restart();
            record.is_full = false;
        }
        self.shelf.compare(&self.world).await;
        self.publisher = engine(&self.plan, &self.world, &self.shelf, 0);
    }

    pub(super) async fn shut_down(&mut self, worker: usize, grace: Duration) {
        let Some(Running { number, worker, .. }) = self.workers[worker].take() else { return };
        self.world.record().checker.counters.shutdowns += 1;
        let report = worker.shutdown(grace).await;
        self.world.note(format_args!("worker {number} is shut down: {report:?}"));
        self.ended(number).await;
        let mut record = self.world.record();
        if record.store_faults.is_none() && !record.is_full || record.is_healed {
            let left = record.checker.deliveries.by_key.iter().find(|(_, delivery)| {
                let last = delivery.claims.last();
                delivery.is_open
                    && last.is_some_and(|last| last.worker == number && last.is_unsettled())
            });
            let left = left.map(|(key, _)| *key);
            if let Some(key) = left {
                let line = format_args!("a shutdown releases its claims: {key} is still claimed");
                record.checker.violate(self.world.now(), line);
            }
        }
    }

    /// Waits until all tasks of a worker are gone.
    async fn ended(&self, worker: WorkerNumber) {
        self.world.clock.sleep(Duration::from_millis(1)).await;
        let in_flight = self.world.record().checker.workers[worker].in_flight;
        self.world.record().checker.on_worker_ended(worker);
        if in_flight > 0 {
            self.world.violate(format_args!("tasks are owned: {in_flight} exchanges go on"));
        }
    }

    /// Publishes one event of each type to each tenant.
    pub(super) async fn publish_round(&mut self) {
        for tenant in 0..3 {
            for event_type in EVENT_TYPES {
                self.operator().publish(tenant, event_type).await;
            }
        }
    }
}

/// The number of bytes by which a file may grow that publishers find full.
const ROOM: u64 = 16 * 1024;

fn engine(plan: &Plan, world: &Arc<World>, shelf: &Shelf, worker: WorkerNumber) -> SimulatedEngine {
    // An engine that starts while the clock is off believes it. If it were off by ten years, the
    // engine would plan retries by it.
    if world.clock.off() == TEN_YEARS {
        world.clock.step(0);
    }
    world.record().checker.limits.is_wall_off |= world.clock.off() != 0;
    let slow_after = plan.settings.slow_after;
    let transport = FaultyTransport { world: Arc::clone(world), worker, slow_after };
    let store = FaultyStore {
        inner: shelf.store.clone(),
        committer: Arc::clone(&shelf.committer),
        world: Arc::clone(world),
        worker,
        stash: Arc::default(),
    };
    let engine = Engine::builder(store, transport)
        .clock(world.clock)
        .settings(plan.settings.clone())
        .observer(Watcher { world: Arc::clone(world) });
    let leaks_slots = world.record().sabotages(Sabotage::PermitLeaked);
    let engine = if leaks_slots { engine.dangerous_leak_slots() } else { engine };
    engine.build()
}

/// Returns the latest time at which healthy endpoints are served, if sick ones cannot take all
/// slots.
fn on_time(plan: &Plan) -> Option<Duration> {
    let settings = &plan.settings;
    let in_flight = |max: u32| usize::try_from(max).unwrap_or(usize::MAX);
    let sick: usize = (plan.endpoints.iter())
        .filter(|endpoint| !endpoint.is_always_well())
        .map(|endpoint| in_flight(endpoint.endpoint.max_in_flight.get()))
        .sum();
    // In an outage most endpoints hang. In that case slots are reserved for those that the worker
    // knows to answer.
    let are_slots_kept = plan.is_outage && plan.workers == 1;
    let can_hold = (sick <= settings.concurrency * 4 || are_slots_kept)
        && settings.max_unsettled > settings.concurrency * 5;
    let well = plan.endpoints.iter().filter(|endpoint| endpoint.is_always_well()).count();
    let events = plan.steps.iter().map(|(_, step)| match step {
        Step::Publish { events, .. } => *events,
        _ => 0,
    });
    // In an outage most published deliveries are not delivered, and a few publications come at the
    // same time.
    let (deliveries, each) = if plan.is_outage {
        (events.max().unwrap_or_default() * 3 * well, OUTAGE_PACE * 2)
    } else {
        (events.sum::<usize>() * plan.endpoints.len(), Duration::from_millis(60))
    };
    let work = each * u32::try_from(deliveries).unwrap_or(u32::MAX);
    (plan.is_calm && can_hold).then(|| settings.slow_after * 10 + work + Duration::from_secs(1))
}
