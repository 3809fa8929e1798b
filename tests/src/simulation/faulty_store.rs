//! The store in memory behind calls that fail, stall, or do their work and fail then.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use webhooks_core::{DeliveryId, DeliveryStatus, EndpointId, TenantId, Timestamp};
use webhooks_dispatch::{
    Claim, ClaimRequest, Claimed, Clock as _, Conflict, DeliveryStore, Health, HistoryStore as _,
    MemoryStore, Novelty, Now, OperationError, Published, Query, ReplayRequest, Replayed,
    SerializedEvent, Settled, Settlement, StoreError, Wakeups,
};
use webhooks_registry::{
    Endpoint, EndpointKey, EndpointNumber, EndpointStore, EndpointStoreError, Registered,
    Registration, StateChange,
};

use super::Sabotage;
use super::plan::number;
use super::record::World;
use crate::invariants::{Footing, Grant, Key, WorkerNumber};

/// A worker's way to the store.
#[derive(Debug, Clone)]
pub(super) struct FaultyStore {
    pub(super) inner: MemoryStore,
    pub(super) world: Arc<World>,
    pub(super) worker: WorkerNumber,
    /// A claim to hand out once more, for sabotage.
    pub(super) stash: Arc<Mutex<Option<Claimed>>>,
}

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// It fails, and nothing was done.
    Undone,
    /// It does its work, and fails then.
    Done,
    /// It takes long.
    Stall,
}

impl FaultyStore {
    /// Draws what goes wrong, and waits before the work is done.
    async fn begin(&self, call: &str) -> Result<(Fault, Duration), StoreError> {
        let (fault, before, after) = {
            let mut record = self.world.record();
            let Some(one_in) = record.store_faults.filter(|_| !record.is_healed) else {
                return Ok((Fault::None, Duration::ZERO));
            };
            let fault = match record.rng.u32(..one_in) {
                0 => [Fault::Undone, Fault::Done, Fault::Stall][record.rng.usize(..3)],
                _ => return Ok((Fault::None, Duration::ZERO)),
            };
            let longest = if record.rng.u8(..8) == 0 { 40_000 } else { 400 };
            let [before, after] =
                [(); 2].map(|()| Duration::from_millis(record.rng.u64(..longest)));
            let worker = self.worker;
            record.checker.workers[worker].faults += 1;
            match fault {
                Fault::Undone => record.checker.tally.failed_before += 1,
                Fault::Done => record.checker.tally.failed_after += 1,
                _ => record.checker.tally.stalled += 1,
            }
            record
                .checker
                .note(self.world.now(), format_args!("store of {worker}: {fault:?} {call}"));
            (fault, before, after)
        };
        self.world.clock.sleep(before).await;
        if fault == Fault::Undone {
            self.recover();
            return Err(unavailable());
        }
        Ok((fault, after))
    }

    /// Waits after the work was done, and says what is said of it.
    async fn end(&self, (fault, after): (Fault, Duration)) -> Result<(), StoreError> {
        if fault == Fault::None {
            return Ok(());
        }
        self.world.clock.sleep(after).await;
        self.recover();
        if fault == Fault::Done { Err(unavailable()) } else { Ok(()) }
    }

    fn recover(&self) {
        let worker = &mut self.world.record().checker.workers[self.worker];
        worker.faults -= 1;
        worker.last_fault = Some(self.world.now());
    }

    fn times(&self) -> (Duration, Timestamp) {
        (self.world.now(), self.world.clock.now())
    }

    /// Notes what was accepted, by asking every endpoint.
    async fn accept(&self, events: &[(usize, SerializedEvent)]) {
        let all = self.inner.list(None, None, usize::MAX).await.expect("memory does not fail");
        let mut record = self.world.record();
        for (event, serialized) in events {
            for Registration { id, endpoint, state, .. } in all.iter().map(|found| &**found) {
                if state.is_open()
                    && endpoint.tenant == serialized.tenant
                    && endpoint.wants(&serialized.event_type)
                {
                    let key = Key { event: *event, endpoint: number(id.as_str()) };
                    record.checker.deliveries.accept(key, self.world.now());
                }
            }
        }
    }

    /// Notes that an endpoint is gone or inactive: what waits for it is cancelled.
    fn close(&self, endpoint: &EndpointId, why: &'static str) {
        let mut record = self.world.record();
        record.checker.note(self.world.now(), format_args!("{endpoint} is closed: {why}"));
        record.checker.tally.endpoint_changes += 1;
        let endpoint = number(endpoint.as_str());
        record.checker.forgive(endpoint);
        for (key, delivery) in &mut record.checker.deliveries.by_key {
            if key.endpoint == endpoint && delivery.is_open {
                delivery.cancel(why);
            }
        }
    }

    /// Hands out once more what is leased already.
    fn ignore_lease(&self, claimed: &mut Vec<Claimed>) {
        let mut record = self.world.record();
        if !record.sabotages(Sabotage::LeaseIgnored) || record.is_healed {
            return;
        }
        let mut stash = self.stash.lock().unwrap_or_else(PoisonError::into_inner);
        if record.rng.u8(..4) == 0 {
            claimed.extend(stash.take());
        } else if let Some(claimed) = claimed.first() {
            *stash = Some(claimed.clone());
        }
    }
}

fn grant(claimed: &Claimed, until: Timestamp, footing: Footing) -> Grant {
    let Claimed { claim, registration, event, progress, .. } = claimed;
    let endpoint = number(registration.id.as_str());
    Grant {
        claim: *claim,
        key: Key { event: number(&event.id.to_string()), endpoint },
        attempt: progress.next_attempt_of_policy(),
        since: progress.since,
        until,
        footing,
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable { source: "a planned fault".into() }
}

impl DeliveryStore for FaultyStore {
    async fn publish(
        &self,
        events: Vec<SerializedEvent>,
        now: Timestamp,
    ) -> Result<Vec<Result<Published, Conflict>>, StoreError> {
        let fault = self.begin("publish").await?;
        let published = self.inner.publish(events.clone(), now).await?;
        let is_new = |published: &Result<Published, Conflict>| {
            matches!(published, Ok(Published { novelty: Novelty::New, .. }))
        };
        let new: Vec<(usize, SerializedEvent)> = (events.into_iter().zip(&published))
            .filter(|(_, published)| is_new(published))
            .map(|(event, _)| (number(&event.id.to_string()), event))
            .collect();
        self.accept(&new).await;
        self.end(fault).await?;
        Ok(published)
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, StoreError> {
        let fault = self.begin("claim").await?;
        let until = request.now.wall + request.lease;
        let footing = if fault.0 == Fault::Done { Footing::Unheard } else { Footing::Firm };
        let mut claimed = self.inner.claim(request).await?;
        for claimed in &claimed {
            let grant = grant(claimed, until, footing);
            self.world.record().checker.on_claimed(self.worker, &grant, self.times());
        }
        self.ignore_lease(&mut claimed);
        self.end(fault).await?;
        Ok(claimed)
    }

    async fn settle(
        &self,
        settlements: Vec<Settlement>,
        now: Timestamp,
    ) -> Result<Vec<Settled>, StoreError> {
        let fault = self.begin("settle").await?;
        let is_lost = {
            let mut record = self.world.record();
            record.sabotages(Sabotage::SettleLost) && record.rng.u8(..20) == 0
        };
        let settled = if is_lost {
            vec![Settled::Kept { health: Health::Well }; settlements.len()]
        } else {
            self.inner.settle(settlements.clone(), now).await?
        };
        for (Settlement { claim, outcome, .. }, settled) in settlements.iter().zip(&settled) {
            if let Settled::Kept { .. } = settled {
                self.world.record().checker.on_settled(*claim, *outcome, self.times());
            }
        }
        self.end(fault).await?;
        let answered = settlements.iter().filter(|settlement| settlement.attempt.is_some()).count();
        self.world.record().checker.on_answered(self.worker, answered);
        Ok(settled)
    }

    async fn extend(
        &self,
        claims: Vec<Claim>,
        lease: Duration,
        now: Now,
    ) -> Result<Vec<Claim>, StoreError> {
        let fault = self.begin("extend").await?;
        let until = now.wall + lease;
        let lost = self.inner.extend(claims.clone(), lease, now).await?;
        for claim in claims.into_iter().filter(|claim| !lost.contains(claim)) {
            self.world.record().checker.on_extended(claim, until);
        }
        self.end(fault).await?;
        Ok(lost)
    }

    async fn next_due(
        &self,
        busy: Arc<BTreeSet<EndpointNumber>>,
        now: Now,
    ) -> Result<Option<Duration>, StoreError> {
        let fault = self.begin("next_due").await?;
        let due = self.inner.next_due(busy, now).await?;
        self.end(fault).await?;
        Ok(due)
    }

    async fn cancel(&self, delivery: DeliveryId, now: Timestamp) -> Result<(), OperationError> {
        self.inner.cancel(delivery, now).await?;
        let mut record = self.world.record();
        record.checker.note(self.world.now(), format_args!("{delivery} is cancelled"));
        if let Some(delivery) = record.checker.deliveries.by_id(delivery) {
            delivery.cancel("by hand");
        }
        Ok(())
    }

    async fn replay(&self, request: ReplayRequest) -> Result<Replayed, OperationError> {
        let replayed = self.inner.replay(request).await?;
        let status = Some(DeliveryStatus::Pending);
        let mut query = Query { status, limit: Query::MAX_LIMIT, ..Query::default() };
        let mut open = Vec::new();
        loop {
            let page = self.inner.deliveries(query.clone()).await?;
            open.extend(page.items);
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        let mut record = self.world.record();
        let now = self.world.now();
        record.checker.tally.replayed += u64::try_from(replayed.deliveries).unwrap_or(u64::MAX);
        for found in open {
            let event = number(&found.event.to_string());
            let key = Key { event, endpoint: number(found.endpoint.as_str()) };
            let is_known = record.checker.deliveries.by_key.contains_key(&key);
            let delivery = record.checker.deliveries.accept(key, now);
            if !is_known || !delivery.is_open {
                delivery.is_open = true;
                delivery.was_replayed = true;
                delivery.was_taken = false;
                delivery.cancelled = None;
                delivery.due_at = None;
                record.checker.note(now, format_args!("{key} is replayed"));
            }
        }
        Ok(replayed)
    }

    fn wakeups(&self) -> Wakeups {
        self.inner.wakeups()
    }
}

impl EndpointStore for FaultyStore {
    async fn register(
        &self,
        id: EndpointId,
        endpoint: Endpoint,
    ) -> Result<Registered, EndpointStoreError> {
        self.world.note(format_args!("{id} is registered"));
        let endpoint_number = number(id.as_str());
        let registered = self.inner.register(id, endpoint).await?;
        // Exchanges of its life before may have ended since that was closed.
        if matches!(registered, Registered::Added) {
            self.world.record().checker.forgive(endpoint_number);
        }
        Ok(registered)
    }

    async fn unregister(&self, key: EndpointKey) -> Result<Arc<Registration>, EndpointStoreError> {
        let removed = self.inner.unregister(key.clone()).await?;
        self.close(&key.id, "unregistered");
        Ok(removed)
    }

    async fn set_state(
        &self,
        key: EndpointKey,
        change: StateChange,
    ) -> Result<Option<Arc<Registration>>, EndpointStoreError> {
        let failed = |error: StoreError| EndpointStoreError::Unavailable { source: error.into() };
        let fault = self.begin("set_state").await.map_err(failed)?;
        let before = self.inner.set_state(key.clone(), change).await?;
        if before.is_some() && matches!(change, StateChange::Disable(_)) {
            self.close(&key.id, "disabled");
        }
        if before.is_some() && change == StateChange::Enable {
            self.world.record().checker.forgive(number(key.id.as_str()));
        }
        self.end(fault).await.map_err(failed)?;
        Ok(before)
    }

    async fn get(&self, key: EndpointKey) -> Result<Option<Arc<Registration>>, EndpointStoreError> {
        self.inner.get(key).await
    }

    async fn list(
        &self,
        tenant: Option<TenantId>,
        after: Option<EndpointKey>,
        limit: usize,
    ) -> Result<Vec<Arc<Registration>>, EndpointStoreError> {
        self.inner.list(tenant, after, limit).await
    }
}

// What is remembered is not what is simulated.
crate::forward_history!(FaultyStore);
