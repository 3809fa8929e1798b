//! A store in memory whose calls can be made to fail or stall.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use webhooks_core::{DeliveryId, Timestamp};
use webhooks_dispatch::{
    Conflict, MemoryStore, Published,
    clock::{Clock as _, Now},
    forward_store,
    store::{
        ChangeListener, Claim, ClaimRequest, Claimed, DeliveryStore, PruneRequest, Room,
        SerializedEvent, Settled, Settlement, StoreError,
    },
};
use webhooks_registry::{
    EndpointKey, EndpointPage, EndpointQuery, Registration,
    store::{EndpointStore, EndpointStoreError, RegisterRequest, Registered, StateChange},
};
use webhooks_tests::SimulatedClock;

/// A store in memory with switches.
#[derive(Debug, Clone)]
pub(crate) struct Switched {
    pub(crate) inner: MemoryStore,
    clock: SimulatedClock,
    switches: Arc<Mutex<Switches>>,
}

/// The settlements that a store cannot record.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Poison {
    Delivery(DeliveryId),
    ErrorText,
}

#[derive(Debug, Default)]
struct Switches {
    /// The number of calls of each name that fail from now on.
    failing: BTreeMap<&'static str, usize>,
    /// The time that calls of each name take.
    slow: BTreeMap<&'static str, Duration>,
    /// The number of calls of each name that panic from now on.
    panicking: BTreeMap<&'static str, usize>,
    /// The delivery, or the text in an attempt's error, that makes a settlement fail.
    poison: Option<Poison>,
    calls: BTreeMap<&'static str, usize>,
}

impl Switched {
    pub(crate) fn new(clock: SimulatedClock) -> Self {
        Self { inner: MemoryStore::new(), clock, switches: Arc::default() }
    }

    /// Makes the next `times` calls of a name fail.
    pub(crate) fn fail(&self, call: &'static str, times: usize) {
        self.switches.lock().unwrap().failing.insert(call, times);
    }

    /// Makes calls of a name wait for `by` before they do anything.
    pub(crate) fn slow_down(&self, call: &'static str, by: Duration) {
        self.switches.lock().unwrap().slow.insert(call, by);
    }

    /// Makes the next `times` calls of a name panic.
    pub(crate) fn panic(&self, call: &'static str, times: usize) {
        self.switches.lock().unwrap().panicking.insert(call, times);
    }

    /// Makes each settlement fail that contains `poison`.
    pub(crate) fn poison(&self, poison: Poison) {
        self.switches.lock().unwrap().poison = Some(poison);
    }

    fn is_poisoned(&self, settlements: &[Settlement]) -> bool {
        let poison = self.switches.lock().unwrap().poison;
        let has_error = |one: &Settlement| {
            one.attempt
                .as_ref()
                .is_some_and(|a| a.error.as_ref().is_some_and(|error| error.contains("connection")))
        };
        settlements.iter().any(|one| match poison {
            Some(Poison::Delivery(delivery)) => one.claim.delivery == delivery,
            Some(Poison::ErrorText) => has_error(one),
            None => false,
        })
    }

    /// Returns the number of calls of a name.
    pub(crate) fn calls(&self, call: &str) -> usize {
        self.switches.lock().unwrap().calls.get(call).copied().unwrap_or_default()
    }

    async fn enter(&self, call: &'static str) -> Result<(), StoreError> {
        let slow = {
            let mut switches = self.switches.lock().unwrap();
            *switches.calls.entry(call).or_default() += 1;
            switches.slow.get(call).copied()
        };
        if let Some(slow) = slow {
            self.clock.sleep(slow).await;
        }
        let mut switches = self.switches.lock().unwrap();
        if let Some(left) = switches.panicking.get_mut(call).filter(|left| **left > 0) {
            *left -= 1;
            drop(switches);
            std::panic::resume_unwind(Box::new("a planned panic"));
        }
        match switches.failing.get_mut(call) {
            Some(left) if *left > 0 => {
                *left -= 1;
                Err(StoreError::Unavailable { source: "switched off".into() })
            }
            _ => Ok(()),
        }
    }
}

impl DeliveryStore for Switched {
    async fn publish(
        &self,
        events: Vec<SerializedEvent>,
        now: Timestamp,
    ) -> Result<Vec<Result<Published, Conflict>>, StoreError> {
        self.enter("publish").await?;
        self.inner.publish(events, now).await
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, StoreError> {
        let stalls = self.switches.lock().unwrap().slow.get("answer").copied();
        self.enter("claim").await?;
        let claimed = self.inner.claim(request).await?;
        if let Some(stall) = stalls {
            self.clock.sleep(stall).await;
        }
        Ok(claimed)
    }

    async fn settle(
        &self,
        settlements: Vec<Settlement>,
        now: Timestamp,
    ) -> Result<Vec<Settled>, StoreError> {
        self.enter("settle").await?;
        if self.is_poisoned(&settlements) {
            return Err(StoreError::Unavailable { source: "poisoned".into() });
        }
        self.inner.settle(settlements, now).await
    }

    async fn extend(
        &self,
        claims: Vec<Claim>,
        lease: Duration,
        now: Now,
    ) -> Result<Vec<Claim>, StoreError> {
        self.enter("extend").await?;
        self.inner.extend(claims, lease, now).await
    }

    async fn next_due(&self, room: Room, now: Now) -> Result<Option<Duration>, StoreError> {
        self.enter("next_due").await?;
        self.inner.next_due(room, now).await
    }

    async fn hasten(&self, now: Timestamp) -> Result<(), StoreError> {
        self.enter("hasten").await?;
        self.inner.hasten(now).await
    }

    async fn prune(&self, request: PruneRequest) -> Result<usize, StoreError> {
        self.inner.prune(request).await
    }

    fn changes(&self) -> ChangeListener {
        self.inner.changes()
    }
}

impl EndpointStore for Switched {
    async fn register(&self, request: RegisterRequest) -> Result<Registered, EndpointStoreError> {
        self.inner.register(request).await
    }

    async fn unregister(
        &self,
        key: EndpointKey,
        now: Timestamp,
    ) -> Result<Arc<Registration>, EndpointStoreError> {
        self.inner.unregister(key, now).await
    }

    async fn set_state(
        &self,
        key: EndpointKey,
        change: StateChange,
        now: Timestamp,
    ) -> Result<Option<Arc<Registration>>, EndpointStoreError> {
        let failed = |error: StoreError| EndpointStoreError::Unavailable { source: error.into() };
        self.enter("set_state").await.map_err(failed)?;
        self.inner.set_state(key, change, now).await
    }

    async fn get(&self, key: EndpointKey) -> Result<Option<Arc<Registration>>, EndpointStoreError> {
        self.inner.get(key).await
    }

    async fn list(&self, query: EndpointQuery) -> Result<EndpointPage, EndpointStoreError> {
        self.inner.list(query).await
    }

    async fn count(&self, query: EndpointQuery, max: usize) -> Result<usize, EndpointStoreError> {
        self.inner.count(query, max).await
    }
}

forward_store!(Switched => inner: OperationStore, HistoryStore, MonitorStore, JobStore);
