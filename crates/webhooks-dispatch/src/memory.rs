//! The store in memory: for tests, and for programs that accept the loss.

mod history;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use webhooks_core::{DeliveryId, DeliveryStatus, EndpointId, EventId, TenantId, Timestamp};
use webhooks_registry::{
    DisableReason, Endpoint, EndpointStore, EndpointStoreError, Registration, Registry,
    UnknownEndpoint,
};

use crate::backlog::{Backlog, Waiting, Window, due_in_order};
use crate::{
    Attempt, Claim, ClaimRequest, Claimed, Conflict, DeliveryStore, Health, Novelty,
    OperationError, Outcome, Progress, Published, Replay, ReplayRequest, Replayed, SerializedEvent,
    Settled, Settlement, StoreError, Waker, Wakeups,
};

/// How many events whose deliveries have all ended are remembered unless told otherwise.
const DEFAULT_HISTORY: usize = 10_000;

/// Keeps endpoints, events and deliveries in memory, with the semantics of every store: but what
/// it holds is gone with the process.
///
/// Cheap to clone; all clones are one store. It remembers the last 10,000 events whose deliveries
/// have ended, and forgets older ones.
///
/// # Example
/// ```
/// use webhooks_dispatch::{Engine, FnTransport, MemoryStore};
///
/// let transport = FnTransport::new(|_, _, _, _| async { (200, "") });
/// let engine = Engine::new(MemoryStore::new(), transport);
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    waker: Waker,
}

struct State {
    registry: Registry,
    backlog: Backlog,
    events: BTreeMap<u64, EventEntry>,
    by_id: HashMap<(TenantId, EventId), u64>,
    deliveries: BTreeMap<DeliveryId, Entry>,
    attempts: BTreeMap<(DeliveryId, u32), Attempt>,
    failing_since: HashMap<EndpointId, Timestamp>,
    /// Events whose deliveries have all ended, in this order.
    ended: VecDeque<u64>,
    history: usize,
    next_event: u64,
    next_delivery: u64,
}

struct EventEntry {
    event: Arc<SerializedEvent>,
    accepted_at: Timestamp,
    deliveries: Vec<DeliveryId>,
    /// How many of them have not ended.
    open: usize,
}

struct Entry {
    event: u64,
    endpoint: EndpointId,
    status: DeliveryStatus,
    progress: Progress,
    due_at: Timestamp,
}

impl Entry {
    fn is_open(&self) -> bool {
        is_open(self.status)
    }
}

fn is_open(status: DeliveryStatus) -> bool {
    matches!(status, DeliveryStatus::Pending | DeliveryStatus::Retrying)
}

impl MemoryStore {
    /// Returns an empty store.
    pub fn new() -> Self {
        Self::with_history(DEFAULT_HISTORY)
    }

    /// Returns an empty store that remembers so many events whose deliveries have ended.
    pub fn with_history(events: usize) -> Self {
        let state = State {
            registry: Registry::new(),
            backlog: Backlog::new(Window::ALL),
            events: BTreeMap::new(),
            by_id: HashMap::new(),
            deliveries: BTreeMap::new(),
            attempts: BTreeMap::new(),
            failing_since: HashMap::new(),
            ended: VecDeque::new(),
            history: events,
            next_event: 1,
            next_delivery: 1,
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), waker: Waker::new() }) }
    }

    // A panic cannot leave the state half changed in a way that matters to others.
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.shared.waker.wake();
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

impl DeliveryStore for MemoryStore {
    async fn publish(
        &self,
        events: Vec<SerializedEvent>,
        now: Timestamp,
    ) -> Result<Vec<Result<Published, Conflict>>, StoreError> {
        let mut state = self.state();
        let published = events.into_iter().map(|event| state.publish(event, now)).collect();
        drop(state);
        self.wake();
        Ok(published)
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, StoreError> {
        Ok(self.state().backlog.claim(&request))
    }

    async fn settle(
        &self,
        settlements: Vec<Settlement>,
        now: Timestamp,
    ) -> Result<Vec<Settled>, StoreError> {
        let mut state = self.state();
        let settled = settlements.into_iter().map(|settlement| state.settle(settlement, now));
        let settled = settled.collect();
        drop(state);
        self.wake();
        Ok(settled)
    }

    async fn extend(&self, claims: Vec<Claim>, until: Timestamp) -> Result<Vec<Claim>, StoreError> {
        let mut state = self.state();
        Ok(claims.into_iter().filter(|claim| !state.backlog.extend(*claim, until)).collect())
    }

    async fn next_due(
        &self,
        busy: Arc<BTreeSet<EndpointId>>,
    ) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.state().backlog.next_due(&busy))
    }

    async fn cancel(&self, delivery: DeliveryId, _now: Timestamp) -> Result<(), OperationError> {
        let mut state = self.state();
        let entry = state.deliveries.get(&delivery);
        let entry = entry.ok_or(OperationError::UnknownDelivery { delivery })?;
        if !entry.is_open() {
            return Err(OperationError::Status { delivery, status: entry.status });
        }
        let (endpoint, due_at) = (entry.endpoint.clone(), entry.due_at);
        state.backlog.remove(&endpoint, due_at, delivery);
        state.end(delivery, DeliveryStatus::Cancelled);
        drop(state);
        self.wake();
        Ok(())
    }

    async fn replay(&self, request: ReplayRequest) -> Result<Replayed, OperationError> {
        let replayed = self.state().replay(&request)?;
        self.wake();
        Ok(replayed)
    }

    fn wakeups(&self) -> Wakeups {
        self.shared.waker.listen()
    }
}

impl State {
    fn publish(&mut self, event: SerializedEvent, now: Timestamp) -> Result<Published, Conflict> {
        let key = (event.tenant.clone(), event.id.clone());
        if let Some(known) = self.by_id.get(&key).and_then(|number| self.events.get(number)) {
            let deliveries = known.deliveries.len();
            if !event.is_same_content(&known.event.body) {
                return Err(Conflict { event: event.id });
            }
            let novelty = Novelty::Repeated;
            return Ok(Published { event: event.id, deliveries, novelty });
        }
        self.make_room();
        let number = self.next_event;
        self.next_event += 1;
        let matching = self.registry.matching_type(&event.tenant, &event.event_type);
        let id = event.id.clone();
        let event = Arc::new(event);
        let entry = EventEntry { event, accepted_at: now, deliveries: Vec::new(), open: 0 };
        self.events.insert(number, entry);
        self.by_id.insert(key, number);
        for registration in &matching {
            self.deliver(number, registration, now);
        }
        if matching.is_empty() {
            self.ended.push_back(number);
        }
        Ok(Published { event: id, deliveries: matching.len(), novelty: Novelty::New })
    }

    /// Adds a delivery of an event.
    fn deliver(&mut self, number: u64, registration: &Registration, now: Timestamp) {
        let Some(event) = self.events.get_mut(&number) else { return };
        let id = DeliveryId::from_u64(self.next_delivery);
        self.next_delivery += 1;
        event.deliveries.push(id);
        event.open += 1;
        let progress = Progress::start(now);
        let waiting = Waiting { event: Arc::clone(&event.event), progress };
        let due_at = due_in_order(&registration.endpoint, now);
        let endpoint = registration.id.clone();
        self.backlog.push(&endpoint, due_at, id, waiting);
        let status = DeliveryStatus::Pending;
        let entry = Entry { event: number, endpoint, status, progress, due_at };
        self.deliveries.insert(id, entry);
    }

    fn settle(&mut self, settlement: Settlement, now: Timestamp) -> Settled {
        let claim = settlement.claim;
        if !self.backlog.hold(claim) {
            return Settled::LeaseLost;
        }
        self.backlog.settle(&settlement);
        let Some(entry) = self.deliveries.get_mut(&claim.delivery) else {
            return Settled::LeaseLost;
        };
        let endpoint = entry.endpoint.clone();
        if let Some(attempt) = settlement.attempt {
            entry.progress.attempts = entry.progress.next_attempt();
            self.attempts.insert((claim.delivery, entry.progress.attempts), attempt);
        }
        match settlement.outcome {
            Outcome::Delivered => self.end(claim.delivery, DeliveryStatus::Delivered),
            Outcome::Failed => self.end(claim.delivery, DeliveryStatus::Failed),
            Outcome::Cancelled => self.end(claim.delivery, DeliveryStatus::Cancelled),
            Outcome::Retrying { due_at } => {
                entry.status = DeliveryStatus::Retrying;
                let is_ordered = (self.registry.get(endpoint.as_str()))
                    .is_some_and(|registration| registration.endpoint.ordered);
                entry.due_at = if is_ordered { Timestamp::UNIX_EPOCH } else { due_at };
            }
            Outcome::Released => {}
        }
        let health = match settlement.outcome {
            Outcome::Delivered if self.failing_since.remove(&endpoint).is_some() => {
                Health::Recovered
            }
            Outcome::Failed | Outcome::Retrying { .. } => {
                Health::Failing { since: *self.failing_since.entry(endpoint).or_insert(now) }
            }
            _ => Health::Well,
        };
        Settled::Kept { health }
    }

    /// Ends a delivery that is open.
    fn end(&mut self, delivery: DeliveryId, status: DeliveryStatus) {
        let Some(entry) = self.deliveries.get_mut(&delivery) else { return };
        entry.status = status;
        let number = entry.event;
        let Some(event) = self.events.get_mut(&number) else { return };
        event.open -= 1;
        if event.open == 0 {
            self.ended.push_back(number);
        }
    }

    /// Forgets the oldest events that have ended, if there are too many: two for each new one, so
    /// that their memory is free just when it is needed, and no call takes long.
    fn make_room(&mut self) {
        for _ in 0..2 {
            if self.ended.len() > self.history
                && let Some(oldest) = self.ended.pop_front()
            {
                self.forget(oldest);
            }
        }
    }

    /// Forgets an event unless one of its deliveries is open; returns whether it did.
    fn forget(&mut self, number: u64) -> bool {
        if self.events.get(&number).is_none_or(|event| event.open > 0) {
            return false;
        }
        if let Some(EventEntry { event, deliveries, .. }) = self.events.remove(&number) {
            self.by_id.remove(&(event.tenant.clone(), event.id.clone()));
            for delivery in deliveries {
                let made = self.deliveries.remove(&delivery).map_or(0, |d| d.progress.attempts);
                for number in 1..=made {
                    self.attempts.remove(&(delivery, number));
                }
            }
        }
        true
    }

    fn replay(&mut self, request: &ReplayRequest) -> Result<Replayed, OperationError> {
        match &request.replay {
            Replay::Delivery(delivery) => {
                let delivery = *delivery;
                let entry = self.deliveries.get(&delivery);
                let entry = entry.ok_or(OperationError::UnknownDelivery { delivery })?;
                if entry.is_open() {
                    return Err(OperationError::Status { delivery, status: entry.status });
                }
                let endpoint = entry.endpoint.clone();
                let registration = self.active(&endpoint)?;
                self.reopen(delivery, &registration, request.now);
                Ok(Replayed { deliveries: 1, next: None })
            }
            Replay::Failed { endpoint, since } => self.replay_failed(endpoint, *since, request),
            Replay::Missed { endpoint, since } => self.replay_missed(endpoint, *since, request),
        }
    }

    fn replay_failed(
        &mut self,
        endpoint: &EndpointId,
        since: Timestamp,
        request: &ReplayRequest,
    ) -> Result<Replayed, OperationError> {
        let registration = self.active(endpoint)?;
        let first = DeliveryId::from_u64(request.after.map_or(0, |after| after + 1));
        let failed: Vec<DeliveryId> = (self.deliveries.range(first..))
            .filter(|(_, entry)| entry.endpoint == *endpoint)
            .filter(|(_, entry)| entry.status == DeliveryStatus::Failed)
            .filter(|(_, entry)| (since..request.now).contains(&entry.progress.since))
            .map(|(id, _)| *id)
            .take(request.limit)
            .collect();
        for delivery in &failed {
            self.reopen(*delivery, &registration, request.now);
        }
        let next = failed.last().filter(|_| failed.len() == request.limit);
        Ok(Replayed { deliveries: failed.len(), next: next.map(|id| id.as_u64()) })
    }

    fn replay_missed(
        &mut self,
        endpoint: &EndpointId,
        since: Timestamp,
        request: &ReplayRequest,
    ) -> Result<Replayed, OperationError> {
        let registration = self.active(endpoint)?;
        let first = request.after.map_or(0, |after| after + 1);
        let wanted = &registration.endpoint;
        let seen: Vec<(u64, bool)> = (self.events.range(first..))
            .filter(|(_, entry)| entry.accepted_at >= since)
            .take(request.limit)
            .map(|(number, entry)| {
                let is_wanted = entry.event.tenant == wanted.tenant
                    && wanted.wants(&entry.event.event_type)
                    && !(entry.deliveries.iter())
                        .any(|id| self.deliveries.get(id).is_some_and(|d| d.endpoint == *endpoint));
                (*number, is_wanted)
            })
            .collect();
        let missed: Vec<u64> =
            seen.iter().filter(|(_, is_wanted)| *is_wanted).map(|(number, _)| *number).collect();
        for number in &missed {
            self.deliver(*number, &registration, request.now);
        }
        let next = seen.last().filter(|_| seen.len() == request.limit);
        Ok(Replayed { deliveries: missed.len(), next: next.map(|(number, _)| *number) })
    }

    fn active(&self, endpoint: &EndpointId) -> Result<Arc<Registration>, OperationError> {
        let found = self.registry.get(endpoint.as_str());
        let found = found.filter(|registration| registration.endpoint.active);
        found.ok_or_else(|| OperationError::UnknownEndpoint { endpoint: endpoint.clone() })
    }

    /// Makes a delivery that has ended due once more.
    fn reopen(&mut self, delivery: DeliveryId, registration: &Registration, now: Timestamp) {
        let Some(entry) = self.deliveries.get_mut(&delivery) else { return };
        let Some(event) = self.events.get_mut(&entry.event) else { return };
        event.open += 1;
        entry.status = DeliveryStatus::Pending;
        entry.progress = entry.progress.replayed(now);
        entry.due_at = due_in_order(&registration.endpoint, now);
        let waiting = Waiting { event: Arc::clone(&event.event), progress: entry.progress };
        self.backlog.push(&registration.id, entry.due_at, delivery, waiting);
    }

    /// Cancels what waits for an endpoint that is gone or inactive.
    fn close(&mut self, endpoint: &EndpointId) {
        self.backlog.close(endpoint);
        let open: Vec<DeliveryId> = (self.deliveries.iter())
            .filter(|(_, entry)| entry.is_open() && entry.endpoint == *endpoint)
            .map(|(id, _)| *id)
            .collect();
        for delivery in open {
            self.end(delivery, DeliveryStatus::Cancelled);
        }
    }

    /// Follows a change of an endpoint.
    fn follow(&mut self, registration: &Arc<Registration>) {
        if !registration.endpoint.active {
            return self.close(&registration.id);
        }
        if registration.endpoint.ordered {
            let open = self.deliveries.values_mut().filter(|entry| entry.is_open());
            for entry in open.filter(|entry| entry.endpoint == registration.id) {
                entry.due_at = Timestamp::UNIX_EPOCH;
            }
        }
        self.backlog.open(registration, None, Timestamp::UNIX_EPOCH);
    }
}

impl EndpointStore for MemoryStore {
    async fn register(
        &self,
        id: EndpointId,
        endpoint: Endpoint,
    ) -> Result<Option<Arc<Registration>>, EndpointStoreError> {
        let mut state = self.state();
        let replaced = state.registry.restore(Registration::new(id.clone(), endpoint))?;
        if let Some(registration) = state.registry.get(id.as_str()) {
            state.failing_since.remove(&id);
            state.follow(&registration);
        }
        drop(state);
        self.wake();
        Ok(replaced)
    }

    async fn unregister(&self, id: EndpointId) -> Result<Arc<Registration>, EndpointStoreError> {
        let mut state = self.state();
        let removed = state.registry.unregister(id.as_str())?;
        state.failing_since.remove(&id);
        state.close(&id);
        drop(state);
        self.wake();
        Ok(removed)
    }

    async fn disable(
        &self,
        id: EndpointId,
        reason: DisableReason,
    ) -> Result<bool, EndpointStoreError> {
        let mut state = self.state();
        let current = state.registry.get(id.as_str());
        let current = current.ok_or_else(|| UnknownEndpoint { id: id.to_string() })?;
        match state.registry.disable(&current, reason) {
            Some(disabled) => {
                state.follow(&disabled);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    async fn get(&self, id: EndpointId) -> Result<Option<Arc<Registration>>, EndpointStoreError> {
        Ok(self.state().registry.get(id.as_str()))
    }

    async fn list(
        &self,
        tenant: Option<TenantId>,
        after: Option<EndpointId>,
        limit: usize,
    ) -> Result<Vec<Arc<Registration>>, EndpointStoreError> {
        Ok(self.state().registry.page(tenant.as_ref(), after.as_ref(), limit))
    }
}
