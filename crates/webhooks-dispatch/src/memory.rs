//! The store in memory: for tests, and for programs that accept the loss.

mod delivery;
mod endpoints;
mod figures;
mod history;
mod jobs;
mod monitor;
mod operations;
mod replay;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use webhooks_core::{DeliveryId, DeliveryStatus, EndpointId, EventId, TenantId, Timestamp};
use webhooks_registry::{EndpointKey, EndpointNumber, Registration, Registry};

use self::figures::FigureTable;
use self::jobs::JobTable;
use crate::backlog::{Backlog, QueueKey, QueuedDelivery, Window};
use crate::figures::FigureKind;
use crate::report::WorkerReport;
use crate::serialized_event::SerializedEvent;
use crate::store::{
    Attempt, CancelReason, ChangeNotifier, Conflict, Failing, Health, Outcome, Progress,
    PublishStatus, Published, Settled, Settlement,
};

/// The default number of remembered events whose deliveries have all ended.
const DEFAULT_HISTORY: usize = 10_000;

/// A store of endpoints, events and deliveries in memory. It behaves as every store does, except
/// that its content is lost with the process.
///
/// It is cheap to clone; all clones are one store. It remembers the last 10,000 events whose
/// deliveries have ended, and forgets older ones.
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
    shared: Arc<MemoryInner>,
}

struct MemoryInner {
    state: Mutex<State>,
    notifier: ChangeNotifier,
}

struct State {
    registry: Registry,
    backlog: Backlog,
    events: BTreeMap<u64, EventEntry>,
    by_id: HashMap<(TenantId, EventId), u64>,
    deliveries: BTreeMap<DeliveryId, Entry>,
    attempts: BTreeMap<(DeliveryId, u32), Attempt>,
    failing: HashMap<EndpointNumber, Failing>,
    figures: FigureTable,
    jobs: JobTable,
    reports: BTreeMap<u64, WorkerReport>,
    /// The endpoints by the numbers that they have or had.
    keys_by_number: BTreeMap<EndpointNumber, EndpointKey>,
    /// The last versions of endpoints that were unregistered.
    last_versions: HashMap<EndpointKey, u64>,
    /// The events whose deliveries have all ended, in the order of their ends.
    ended: VecDeque<u64>,
    history: usize,
    next_endpoint: u64,
    next_event: u64,
    next_delivery: u64,
}

struct EventEntry {
    event: Arc<SerializedEvent>,
    accepted_at: Timestamp,
    /// The number of its deliveries when it was accepted.
    accepted_for: usize,
    deliveries: Vec<DeliveryId>,
    /// The number of them that have not ended.
    open: usize,
    expunged_at: Option<Timestamp>,
}

struct Entry {
    event: u64,
    endpoint: EndpointId,
    number: EndpointNumber,
    status: DeliveryStatus,
    cancelled: Option<CancelReason>,
    progress: Progress,
    due_at: Timestamp,
    is_scheduled: bool,
    created_at: Timestamp,
    ended_at: Option<Timestamp>,
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

    /// Returns an empty store that remembers at most `events` events whose deliveries have ended.
    pub fn with_history(events: usize) -> Self {
        let state = State {
            registry: Registry::new(),
            backlog: Backlog::new(Window::ALL),
            events: BTreeMap::new(),
            by_id: HashMap::new(),
            deliveries: BTreeMap::new(),
            attempts: BTreeMap::new(),
            failing: HashMap::new(),
            figures: FigureTable::default(),
            jobs: JobTable::default(),
            reports: BTreeMap::new(),
            keys_by_number: BTreeMap::new(),
            last_versions: HashMap::new(),
            ended: VecDeque::new(),
            history: events,
            next_endpoint: 1,
            next_event: 1,
            next_delivery: 1,
        };
        Self {
            shared: Arc::new(MemoryInner {
                state: Mutex::new(state),
                notifier: ChangeNotifier::new(),
            }),
        }
    }

    // A panic cannot leave the state half changed in a way that matters to others.
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.shared.notifier.notify();
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

impl State {
    fn publish(&mut self, event: SerializedEvent, now: Timestamp) -> Result<Published, Conflict> {
        let key = (event.tenant.clone(), event.id.clone());
        if let Some(known) = self.by_id.get(&key).and_then(|number| self.events.get(number)) {
            let deliveries = known.accepted_for;
            if known.expunged_at.is_some() || !event.is_same_content(&known.event.body) {
                return Err(Conflict { event: event.id });
            }
            let status = PublishStatus::Duplicate;
            return Ok(Published { event: event.id, deliveries, status });
        }
        self.make_room();
        let number = self.next_event;
        self.next_event += 1;
        let matching = event.recipients(&self.registry);
        let id = event.id.clone();
        let event = Arc::new(event);
        let accepted_for = matching.len();
        let entry = EventEntry {
            event,
            accepted_at: now,
            accepted_for,
            deliveries: Vec::new(),
            open: 0,
            expunged_at: None,
        };
        self.events.insert(number, entry);
        self.by_id.insert(key, number);
        for registration in &matching {
            self.deliver(number, registration, now);
        }
        // Without a delivery, nothing else would end the event.
        if matching.is_empty() {
            self.ended.push_back(number);
        }
        Ok(Published { event: id, deliveries: accepted_for, status: PublishStatus::Created })
    }

    /// Adds a delivery of an event.
    fn deliver(&mut self, number: u64, registration: &Registration, now: Timestamp) {
        let Some(event) = self.events.get_mut(&number) else { return };
        let id = DeliveryId::from_u64(self.next_delivery);
        self.next_delivery += 1;
        event.deliveries.push(id);
        event.open += 1;
        let queued = QueuedDelivery::new(Arc::clone(&event.event), now);
        let QueuedDelivery { progress, is_scheduled, .. } = queued;
        let due_at = queued.due_in_order(&registration.endpoint, now);
        self.backlog.push(registration.number, due_at, id, queued);
        let entry = Entry {
            event: number,
            endpoint: registration.id.clone(),
            number: registration.number,
            status: DeliveryStatus::Pending,
            cancelled: None,
            progress,
            due_at,
            is_scheduled,
            created_at: now,
            ended_at: None,
        };
        self.figures.count(registration.number, FigureKind::Accepted, now);
        self.deliveries.insert(id, entry);
    }

    fn settle(&mut self, settlement: Settlement, now: Timestamp) -> Settled {
        let claim = settlement.claim;
        // To check the claim; under the lock, nothing comes before `settle`, which ends the pin.
        if !self.backlog.pin(claim) {
            return Settled::LeaseLost;
        }
        self.backlog.settle(&settlement);
        let Some(entry) = self.deliveries.get_mut(&claim.delivery) else {
            return Settled::LeaseLost;
        };
        let endpoint = entry.number;
        let tenant = self.events.get(&entry.event).map(|event| event.event.tenant.clone());
        let key = tenant.map(|tenant| EndpointKey::new(tenant, entry.endpoint.clone()));
        self.figures.settled(endpoint, &settlement, now);
        if let Some(attempt) = settlement.attempt {
            entry.progress.attempts = entry.progress.next_attempt();
            self.attempts.insert((claim.delivery, entry.progress.attempts), attempt);
        }
        match settlement.outcome {
            Outcome::Delivered => self.end(claim.delivery, DeliveryStatus::Delivered, now),
            Outcome::Failed => self.end(claim.delivery, DeliveryStatus::Failed, now),
            Outcome::Expired => {
                entry.cancelled = Some(CancelReason::Expired);
                self.end(claim.delivery, DeliveryStatus::Cancelled, now);
            }
            Outcome::Retrying { due_at } => {
                entry.status = DeliveryStatus::Retrying;
                entry.is_scheduled = false;
                let is_ordered = (key.and_then(|key| self.registry.get_of(&key)))
                    .is_some_and(|registration| registration.endpoint.ordered);
                entry.due_at = if is_ordered { Timestamp::UNIX_EPOCH } else { due_at };
            }
            Outcome::Released => {}
        }
        Settled::Recorded { health: self.health(endpoint, settlement.outcome, now) }
    }

    fn hasten(&mut self, now: Timestamp) {
        let mut endpoints = BTreeSet::new();
        for entry in self.deliveries.values_mut() {
            let is_pending = entry.status == DeliveryStatus::Pending && !entry.is_scheduled;
            if is_pending && entry.due_at > now {
                entry.due_at = now;
                endpoints.insert(entry.number);
            }
        }
        let last = QueueKey::last_at(Timestamp::from_unix_microseconds(u64::MAX));
        for endpoint in endpoints {
            self.backlog.hasten(endpoint, now, last);
        }
        let retrying = |entry: &&Entry| entry.status == DeliveryStatus::Retrying;
        let with_retries: BTreeSet<EndpointNumber> =
            self.deliveries.values().filter(retrying).map(|entry| entry.number).collect();
        for registration in self.registry.list() {
            if !with_retries.contains(&registration.number) {
                self.backlog.unblock(registration.number);
            }
        }
    }

    /// Updates the health of an endpoint after an outcome, and returns it.
    fn health(&mut self, endpoint: EndpointNumber, outcome: Outcome, now: Timestamp) -> Health {
        let mut failing = self.failing.remove(&endpoint);
        let health = Health::after(&mut failing, outcome, now);
        self.failing.extend(failing.map(|failing| (endpoint, failing)));
        health
    }

    /// Cancels a delivery that is open.
    fn cancel(&mut self, delivery: DeliveryId, reason: CancelReason, now: Timestamp) {
        if let Some(entry) = self.deliveries.get_mut(&delivery) {
            entry.cancelled = Some(reason);
            self.figures.count(entry.number, FigureKind::Cancelled, now);
        }
        self.end(delivery, DeliveryStatus::Cancelled, now);
    }

    /// Ends a delivery that is open.
    fn end(&mut self, delivery: DeliveryId, status: DeliveryStatus, now: Timestamp) {
        let Some(entry) = self.deliveries.get_mut(&delivery) else { return };
        entry.status = status;
        entry.ended_at = Some(now);
        let number = entry.event;
        let Some(event) = self.events.get_mut(&number) else { return };
        event.open -= 1;
        if event.open == 0 {
            self.ended.push_back(number);
        }
    }

    /// Forgets the oldest events that have ended, if there are too many. It forgets two for each
    /// new one, so that a surplus shrinks and no call takes long.
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
        // A replay may have reopened it since it was added to `ended`. It is added again at its end.
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

    /// Cancels the deliveries that wait for an endpoint which is removed or disabled.
    fn close(&mut self, endpoint: EndpointNumber, reason: CancelReason, now: Timestamp) {
        self.backlog.close(endpoint);
        self.failing.remove(&endpoint);
        let open: Vec<DeliveryId> = (self.deliveries.iter())
            .filter(|(_, entry)| entry.is_open() && entry.number == endpoint)
            .map(|(id, _)| *id)
            .collect();
        for delivery in open {
            self.cancel(delivery, reason, now);
        }
    }
}
