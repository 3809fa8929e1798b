//! What is done to the engine in a run, step by step.

use std::sync::Arc;
use std::time::Duration;

use webhooks_core::{DeliveryStatus, Event, EventId};
use webhooks_dispatch::{
    Clock as _, Engine, HistoryStore as _, MemoryStore, Novelty, PublishError, Published, Query,
    Replay, Undelivered, Worker,
};

use webhooks_registry::EndpointKey;

use super::Sabotage;
use super::faulty_store::FaultyStore;
use super::faulty_transport::FaultyTransport;
use super::finale;
use super::plan::{EVENT_TYPES, Plan, RETRY_AFTER_CAP, Step, number, tenant};
use super::record::World;
use super::watcher::Watcher;
use crate::SimulatedClock;
use crate::invariants::{Key, Limits, WorkerNumber};

/// How often a publisher tries.
const PUBLISH_TRIES: usize = 3;

pub(super) type SimulatedEngine = Engine<FaultyStore, FaultyTransport, SimulatedClock>;

/// A run.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) plan: Plan,
    pub(super) world: Arc<World>,
    pub(super) store: MemoryStore,
    /// An engine that only publishes.
    pub(super) publisher: SimulatedEngine,
    pub(super) workers: Vec<Option<(WorkerNumber, Worker)>>,
    pub(super) events: usize,
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
    finale::play(&mut script).await;
}

impl Script {
    fn new(plan: Plan, world: &Arc<World>) -> Self {
        let store = MemoryStore::new();
        let mut record = world.record();
        let limits = Limits::of(&plan.settings);
        record.checker.limits = Limits { retry_after_cap: RETRY_AFTER_CAP, ..limits };
        record.store_faults = plan.store_faults;
        record.on_time = on_time(&plan);
        for endpoint in &plan.endpoints {
            record.add_endpoint(endpoint.clone());
        }
        drop(record);
        let publisher = engine(&plan, world, &store, 0);
        let workers = (0..plan.workers).map(|_| None).collect();
        Self { plan, world: Arc::clone(world), store, publisher, workers, events: 0 }
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

    pub(super) async fn register(&self, endpoint: usize) {
        let settings = self.plan.endpoints[endpoint].endpoint.clone();
        let id = format!("e{endpoint}");
        self.publisher.endpoints().register(&id, settings).await.expect("the id is its tenant's");
    }

    /// Returns what names an endpoint.
    pub(super) fn key(&self, endpoint: usize) -> EndpointKey {
        let tenant = self.plan.endpoints[endpoint].endpoint.tenant.clone();
        EndpointKey::new(tenant, id(endpoint))
    }

    pub(super) fn start(&mut self, worker: usize) {
        if self.workers[worker].is_some() {
            return;
        }
        let number = self.world.record().checker.add_worker();
        self.world.note(format_args!("worker {number} starts"));
        let engine = engine(&self.plan, &self.world, &self.store, number);
        self.workers[worker] = Some((number, engine.start()));
    }

    async fn step(&mut self, step: Step) {
        self.world.note(format_args!("{step:?}"));
        match step {
            Step::Cancel => self.cancel().await,
            Step::Crash { worker } => self.crash(worker).await,
            Step::Publish { tenant, event_type, events } => {
                for _ in 0..events {
                    self.publish(tenant, event_type).await;
                }
            }
            Step::Register { endpoint } => self.register(endpoint).await,
            Step::ReplayDelivery => self.replay_delivery().await,
            Step::ReplayFailed { endpoint } => {
                let endpoint = self.key(endpoint);
                self.replay(Replay::of_endpoint(endpoint, Undelivered::FAILED)).await;
            }
            Step::ReplayMissed { endpoint } => {
                let endpoint = self.key(endpoint);
                self.replay(Replay::of_endpoint(endpoint, Undelivered::MISSED)).await;
            }
            Step::Shutdown { worker, grace } => self.shut_down(worker, grace).await,
            Step::Start { worker } => self.start(worker),
            Step::Unregister { endpoint } => {
                // It may be gone already.
                let EndpointKey { tenant, id } = self.key(endpoint);
                let endpoints = self.publisher.endpoints().tenant(tenant);
                let _gone = endpoints.unregister(id.as_str()).await;
            }
        }
    }

    /// Publishes an event, more than once if need be.
    pub(super) async fn publish(&mut self, number: usize, event_type: &'static str) {
        self.events += 1;
        let event = self.events;
        let made = Event::new(event_type, event).expect("a valid event").tenant(tenant(number));
        let made = made.id(EventId::new(&format!("event-{event}")).expect("a valid id"));
        let made = made.timestamp(self.world.clock.now());
        for _ in 0..PUBLISH_TRIES {
            match self.publisher.publish(&made).await {
                Ok(published) => return self.promise(event, &made, &published).await,
                Err(PublishError::Store(_)) => self.world.record().checker.tally.refused += 1,
                Err(error) => self.world.violate(format_args!("publish is idempotent: {error}")),
            }
        }
    }

    /// Holds the engine to what publish returned; now and then asks it to publish again.
    async fn promise(&self, event: usize, made: &Event, published: &Published) {
        let now = self.world.now();
        let is_again = {
            let mut record = self.world.record();
            record.checker.note(now, format_args!("event {event} is accepted: {published:?}"));
            record.checker.tally.accepted += 1;
            let all = Key { event, endpoint: 0 }..=Key { event, endpoint: usize::MAX };
            for (_, delivery) in record.checker.deliveries.by_key.range_mut(all) {
                delivery.is_promised = true;
            }
            record.rng.u8(..10) == 0
        };
        if !is_again {
            return;
        }
        if let Ok(again) = self.publisher.publish(made).await {
            self.world.record().checker.tally.repeated += 1;
            if again.novelty != Novelty::Repeated || again.deliveries < published.deliveries {
                self.world.violate(format_args!("publish is idempotent: {again:?}"));
            }
        }
        let other = made.clone().source("another");
        match self.publisher.publish(&other).await {
            Err(PublishError::Conflict(_) | PublishError::Store(_)) => {}
            other => self.world.violate(format_args!("publish is idempotent: {other:?}")),
        }
    }

    async fn cancel(&self) {
        let open = [DeliveryStatus::Pending, DeliveryStatus::Retrying];
        let status = Some(open[self.world.record().rng.usize(..2)]);
        let page = self.store.deliveries(Query { status, ..Query::default() }).await;
        let page = page.expect("memory does not fail");
        let Some(found) = page.items.last() else { return };
        let event = number(&found.event.to_string());
        let key = Key { event, endpoint: number(found.endpoint.as_str()) };
        self.publisher.cancel(found.id).await.expect("it was open just now");
        if let Some(delivery) = self.world.record().checker.deliveries.by_key.get_mut(&key) {
            delivery.cancel("by hand");
        }
    }

    async fn replay_delivery(&self) {
        let ended = [DeliveryStatus::Failed, DeliveryStatus::Delivered, DeliveryStatus::Cancelled];
        let status = Some(ended[self.world.record().rng.usize(..3)]);
        let page = self.store.deliveries(Query { status, ..Query::default() }).await;
        if let Some(found) = page.expect("memory does not fail").items.first() {
            self.replay(Replay::Delivery(found.id)).await;
        }
    }

    async fn replay(&self, replay: Replay) {
        // The endpoint may be gone or inactive.
        let _gone = self.publisher.replay(replay).await;
    }

    async fn crash(&mut self, worker: usize) {
        let Some((number, running)) = self.workers[worker].take() else { return };
        self.world.record().checker.tally.crashes += 1;
        drop(running);
        self.ended(number).await;
    }

    pub(super) async fn shut_down(&mut self, worker: usize, grace: Duration) {
        let Some((number, running)) = self.workers[worker].take() else { return };
        self.world.record().checker.tally.shutdowns += 1;
        let report = running.shutdown(grace).await;
        self.world.note(format_args!("worker {number} is shut down: {report:?}"));
        self.ended(number).await;
        let mut record = self.world.record();
        if record.store_faults.is_none() || record.is_healed {
            let left = record.checker.deliveries.by_key.iter().find(|(_, delivery)| {
                let last = delivery.claims.last();
                delivery.is_open
                    && last.is_some_and(|last| last.worker == number && last.settled.is_none())
            });
            let left = left.map(|(key, _)| *key);
            if let Some(key) = left {
                let line = format_args!("a shutdown hands back: {key} is still claimed");
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
                self.publish(tenant, event_type).await;
            }
        }
    }
}

pub(super) fn id(endpoint: usize) -> webhooks_core::EndpointId {
    webhooks_core::EndpointId::new(&format!("e{endpoint}")).expect("a valid id")
}

fn engine(
    plan: &Plan,
    world: &Arc<World>,
    store: &MemoryStore,
    worker: WorkerNumber,
) -> SimulatedEngine {
    let patience = plan.settings.patience;
    let transport = FaultyTransport { world: Arc::clone(world), worker, patience };
    let store = FaultyStore {
        inner: store.clone(),
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

/// Returns when healthy endpoints are served at the latest, if sick ones cannot take all slots.
fn on_time(plan: &Plan) -> Option<Duration> {
    let settings = &plan.settings;
    let in_flight = |max: u32| usize::try_from(max).unwrap_or(usize::MAX);
    let sick: usize = (plan.endpoints.iter())
        .filter(|endpoint| !endpoint.is_always_well())
        .map(|endpoint| in_flight(endpoint.endpoint.max_in_flight.get()))
        .sum();
    let can_hold =
        sick <= settings.concurrency * 4 && settings.max_unsettled > settings.concurrency * 5;
    let events: usize = (plan.steps.iter())
        .map(|(_, step)| if let Step::Publish { events, .. } = step { *events } else { 0 })
        .sum();
    let deliveries = u32::try_from(events * plan.endpoints.len()).unwrap_or(u32::MAX);
    let work = Duration::from_millis(60) * deliveries;
    (plan.is_calm && can_hold).then(|| settings.patience * 10 + work + Duration::from_secs(1))
}
