//! The actions of publishers and operators, each in its own task.

use std::sync::Arc;
use std::time::Duration;

use webhooks_core::{DeliveryId, DeliveryStatus, EndpointId, Event, EventId};
use webhooks_dispatch::{
    Engine, OperationError, PublishError, PublishStatus, Published, Replay,
    clock::Clock as _,
    history::{DeliveryRecord, HistoryStore as _, Query},
};
use webhooks_registry::{
    DisableReason, EndpointKey,
    store::{Registered, StateChange},
};

use super::faulty_store::FaultyStore;
use super::faulty_transport::FaultyTransport;
use super::kept::Kept;
use super::plan::{Operation, number, tenant};
use super::record::World;
use crate::SimulatedClock;
use crate::invariants::{Key, WorkerNumber};

/// The number of times that a publisher tries.
const PUBLISH_TRIES: usize = 3;

/// The number of failures that an operator watches for, and for how long.
const FAILURES: usize = 8;
const WATCH: Duration = Duration::from_secs(10);

/// The largest number of deliveries that an operator looks at.
const LOOK: usize = 20;

pub(super) type SimulatedEngine = Engine<FaultyStore, FaultyTransport, SimulatedClock>;

/// A user of an engine.
#[derive(Debug, Clone)]
pub(super) struct Operator {
    pub(super) world: Arc<World>,
    pub(super) engine: SimulatedEngine,
    pub(super) store: Kept,
    /// The worker whose engine it is, if only that one delivers: it learns of changes at once.
    pub(super) alone: Option<WorkerNumber>,
}

impl Operator {
    /// Publishes an event, more than once if need be.
    pub(super) async fn publish(&self, number: usize, event_type: &'static str) {
        let event = {
            let mut record = self.world.record();
            record.events += 1;
            record.events
        };
        let made = Event::new(event_type, event).expect("a valid event").tenant(tenant(number));
        let made = made.id(EventId::new(&format!("event-{event}")).expect("a valid id"));
        let made = made.timestamp(self.world.even());
        for _ in 0..PUBLISH_TRIES {
            match self.engine.publish(&made).await {
                Ok(published) => return self.promise(event, &made, &published).await,
                Err(PublishError::Store(_)) => self.world.record().checker.counters.refused += 1,
                Err(error) => self.world.violate(format_args!("publish is idempotent: {error}")),
            }
        }
    }

    /// Checks that the engine fulfils the answer to a publish; now and then publishes the event
    /// again.
    async fn promise(&self, event: usize, made: &Event, published: &Published) {
        let now = self.world.now();
        let is_again = {
            let mut record = self.world.record();
            record.checker.note(now, format_args!("event {event} is accepted: {published:?}"));
            record.checker.counters.accepted += 1;
            let all = Key { event, endpoint: 0 }..=Key { event, endpoint: usize::MAX };
            for (_, delivery) in record.checker.deliveries.by_key.range_mut(all) {
                delivery.is_promised = true;
            }
            record.rng.u8(..10) == 0
        };
        if !is_again {
            return;
        }
        if let Ok(again) = self.engine.publish(made).await {
            let is_wall_off = {
                let mut record = self.world.record();
                record.checker.counters.repeated += 1;
                record.checker.limits.is_wall_off
            };
            // A clock that was behind, and is right now, can make the event old enough to be
            // deleted.
            if is_wall_off {
                return;
            }
            if again.status != PublishStatus::Duplicate || again.deliveries < published.deliveries {
                self.world.violate(format_args!("publish is idempotent: {again:?}"));
            }
        }
        let other = made.clone().source("another");
        match self.engine.publish(&other).await {
            Err(PublishError::Conflict(_) | PublishError::Store(_)) => {}
            other => self.world.violate(format_args!("publish is idempotent: {other:?}")),
        }
    }

    /// Carries out an operation. The store must fulfil its answer; the oracle knows when it is
    /// refused.
    pub(super) async fn operate(&self, operation: Operation) {
        self.world.record().checker.counters.operations += 1;
        match operation {
            Operation::Cancel => {
                if let Some(found) = self.pick(&OPEN).await {
                    self.cancel(found.id).await;
                }
            }
            Operation::CancelFailing => self.cancel_failing().await,
            Operation::Change { endpoint, change } => self.change(endpoint, change).await,
            Operation::Register { endpoint, active, ordered, narrow } => {
                let plan = self.world.record().endpoints[endpoint].endpoint.clone();
                let mut settings = plan;
                settings.ordered ^= ordered;
                settings.active = active;
                if narrow {
                    settings = settings.events(["order.paid"]).expect("a valid subscription");
                }
                self.register(endpoint, settings).await;
            }
            Operation::ReplayDelivery => {
                if let Some(found) = self.pick(&ENDED).await {
                    self.replay(Replay::Delivery(found.id)).await;
                }
            }
            Operation::ReplayDeliveries => {
                let mut ids: Vec<DeliveryId> = Vec::new();
                for status in [ENDED[0], ENDED[2], OPEN[0]] {
                    let query = Query { statuses: vec![status], limit: LOOK, ..Query::default() };
                    ids.extend(self.look(query).await.iter().map(|found| found.id));
                }
                self.replay(Replay::Deliveries(ids)).await;
            }
            Operation::ReplayEndpoint { endpoint, which } => {
                self.replay(Replay::of_endpoint(self.key(endpoint), which)).await;
            }
            Operation::ReplayEvent { which } => {
                let query = Query { limit: LOOK, ..Query::default() };
                let page = self.store.events(query).await.expect("reads don't fail");
                if let Some(found) = page.items.first() {
                    let (tenant, id) = (found.tenant.clone(), found.id.clone());
                    self.replay(Replay::of_event(tenant, id, which)).await;
                }
            }
            Operation::Unregister { endpoint } => {
                let EndpointKey { tenant, id } = self.key(endpoint);
                let endpoints = self.engine.endpoints().tenant(tenant);
                let answer = endpoints.unregister(id.as_str()).await;
                self.has_changed(endpoint, answer.is_ok());
            }
        }
    }

    pub(super) async fn register(&self, endpoint: usize, settings: webhooks_registry::Endpoint) {
        let answer = self.engine.endpoints().register(&format!("e{endpoint}"), settings).await;
        self.has_changed(endpoint, matches!(answer, Ok(Registered::Changed { .. })));
    }

    /// Returns the key of an endpoint.
    pub(super) fn key(&self, endpoint: usize) -> EndpointKey {
        let tenant = self.world.record().endpoints[endpoint].endpoint.tenant.clone();
        EndpointKey::new(tenant, id(endpoint))
    }

    pub(super) async fn change(&self, endpoint: usize, change: StateChange) {
        let EndpointKey { tenant, id } = self.key(endpoint);
        let endpoints = self.engine.endpoints().tenant(tenant);
        let id = id.as_str();
        let answer = match change {
            StateChange::Disable(DisableReason::Manual) => endpoints.disable(id).await,
            // Only the engine has other reasons.
            StateChange::Disable(_) => return,
            StateChange::Enable => endpoints.enable(id).await,
            StateChange::Pause => endpoints.pause(id).await,
            StateChange::Resume => endpoints.resume(id).await,
        };
        self.has_changed(endpoint, matches!(answer, Ok(true)));
    }

    /// Checks that the engine obeys a change: an endpoint that is not active any more gets nothing
    /// from now on.
    fn has_changed(&self, endpoint: usize, is_changed: bool) {
        let key = self.key(endpoint);
        let mut record = self.world.record();
        // A change may have reset the health of its breaker, as late as now.
        record.checker.forgive(endpoint);
        let is_heard = self.alone.is_some_and(|worker| !record.checker.workers[worker].has_ended);
        if is_changed && is_heard && !record.is_active(&key) {
            record.silent.insert(endpoint, self.world.now());
        }
    }

    async fn look(&self, query: Query) -> Vec<DeliveryRecord> {
        let page = self.store.deliveries(query).await.expect("reads don't fail");
        for found in &page.items {
            let endpoint = number(found.endpoint.as_str());
            let key = Key { event: number(&found.event.to_string()), endpoint };
            self.world.record().oracle.learn(found.id, key);
        }
        page.items
    }

    /// Returns a delivery of one of these statuses.
    async fn pick(&self, statuses: &[DeliveryStatus]) -> Option<DeliveryRecord> {
        let statuses = vec![statuses[self.world.record().rng.usize(..statuses.len())]];
        let mut found = self.look(Query { statuses, limit: LOOK, ..Query::default() }).await;
        if found.is_empty() {
            return None;
        }
        let index = self.world.record().rng.usize(..found.len());
        Some(found.swap_remove(index))
    }

    async fn cancel_failing(&self) {
        let mut failures = self.world.failures.subscribe();
        for _ in 0..FAILURES {
            tokio::select! {
                biased;
                failed = failures.changed() => failed.expect("the world stays"),
                () = self.world.clock.sleep(WATCH) => return,
            }
            let failed = *failures.borrow_and_update();
            let id = failed.and_then(|key| self.world.record().oracle.id(key));
            if let Some(id) = id {
                self.cancel(id).await;
            }
        }
    }

    async fn cancel(&self, delivery: DeliveryId) {
        match self.engine.cancel(delivery).await {
            Ok(()) => {
                let mut record = self.world.record();
                record.checker.note(self.world.now(), format_args!("{delivery} was cancelled"));
            }
            // It may have ended in the meantime; the oracle knows.
            Err(OperationError::WrongStatus { .. } | OperationError::UnknownDelivery { .. }) => {}
            Err(_) => self.world.record().checker.counters.refused += 1,
        }
    }

    async fn replay(&self, replay: Replay) {
        // The endpoint may be gone or inactive; the oracle knows.
        let _refused = self.engine.replay(replay).await;
    }
}

const OPEN: [DeliveryStatus; 2] = [DeliveryStatus::Pending, DeliveryStatus::Retrying];
const ENDED: [DeliveryStatus; 3] =
    [DeliveryStatus::Failed, DeliveryStatus::Delivered, DeliveryStatus::Cancelled];

pub(super) fn id(endpoint: usize) -> EndpointId {
    EndpointId::new(&format!("e{endpoint}")).expect("a valid id")
}
