//! A store whose calls fail, stall, or do their work and then fail.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use webhooks_core::{DeliveryId, DeliveryStatus, Timestamp};
use webhooks_dispatch::{
    Conflict, OperationError, Published,
    clock::{Clock as _, Now},
    forward_store,
    history::Query,
    store::{
        ChangeListener, Claim, ClaimRequest, Claimed, DeliveryStore, ExpungeRequest, Expunged,
        Health, OperationStore, PruneRequest, ReplayRequest, Replayed, Room, SerializedEvent,
        Settled, Settlement, StoreError, TryNow,
    },
};
use webhooks_registry::{
    EndpointKey, EndpointPage, EndpointQuery, Registration,
    store::{EndpointStore, EndpointStoreError, RegisterRequest, Registered, StateChange},
};

use super::Sabotage;
use super::committer::Committer;
use super::kept::Kept;
use super::oracle::{Changed, Verdict, registration};
use super::plan::number;
use super::record::World;
use crate::invariants::{Footing, Grant, Key, WorkerNumber};

/// A worker's access to the store.
#[derive(Debug, Clone)]
pub(super) struct FaultyStore {
    pub(super) inner: Kept,
    pub(super) committer: Arc<Committer>,
    pub(super) world: Arc<World>,
    pub(super) worker: WorkerNumber,
    /// A claim that is returned once more, for sabotage.
    pub(super) stash: Arc<Mutex<Option<Claimed>>>,
}

/// The fault of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// It fails, and nothing was done.
    Undone,
    /// It does its work, and then fails.
    Done,
    /// It takes long.
    Stall,
}

impl FaultyStore {
    /// Draws a fault, and waits before the work is done.
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
                Fault::Undone => record.checker.counters.failed_before += 1,
                Fault::Done => record.checker.counters.failed_after += 1,
                _ => record.checker.counters.stalled += 1,
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

    /// Waits after the work is done, and returns the answer or the fault.
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

    /// Returns whether a store in memory, which has no bound, must behave as if it were full.
    fn is_memory_full(&self) -> bool {
        self.inner.is_memory && self.world.record().is_full
    }

    /// Carries out a call that changes the store, and notes the result.
    async fn change<T, F>(&self, call: impl FnOnce(Kept, Arc<World>) -> F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        self.committer.carry_out(call(self.inner.clone(), Arc::clone(&self.world))).await
    }

    /// Makes the faults before and after a call on endpoints.
    async fn begin_of_endpoints(
        &self,
        call: &str,
    ) -> Result<(Fault, Duration), EndpointStoreError> {
        self.begin(call).await.map_err(of_endpoints)
    }

    async fn end_of_endpoints(&self, fault: (Fault, Duration)) -> Result<(), EndpointStoreError> {
        self.end(fault).await.map_err(of_endpoints)
    }

    /// Returns once more a claim that is leased already.
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
        attempt: progress.next_attempt_in_policy(),
        since: progress.queued_at,
        until,
        footing,
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable { source: "a planned fault".into() }
}

fn of_endpoints(error: StoreError) -> EndpointStoreError {
    EndpointStoreError::Unavailable { source: error.into() }
}

impl World {
    /// Notes that an answer of the store is wrong; returns the correct one, if there is one.
    fn judge<T>(&self, verdict: Verdict<T>) -> Option<T> {
        match verdict {
            Ok(found) => Some(found),
            Err(why) => {
                self.violate(format_args!("a store answers by what came before: {why}"));
                None
            }
        }
    }

    /// Notes the published events.
    fn on_published(
        &self,
        events: &[SerializedEvent],
        now: Timestamp,
        published: &[Result<Published, Conflict>],
    ) {
        for (event, published) in events.iter().zip(published) {
            let new = self.record().oracle.publish(event, now, published);
            for key in self.judge(new).into_iter().flatten() {
                self.record().checker.deliveries.accept(key, self.now());
            }
        }
    }

    fn on_settled(&self, settlements: &[Settlement], settled: &[Settled]) {
        let (now, time) = (self.now(), self.even());
        let monotonic = self.clock.monotonic();
        for (settlement, settled) in settlements.iter().zip(settled) {
            let verdict = self.record().oracle.settle(settlement, *settled, monotonic);
            if let Settled::Recorded { .. } = settled {
                let Settlement { claim, outcome, .. } = settlement;
                self.record().checker.on_settled(*claim, *outcome, (now, time));
            }
            self.judge(verdict);
        }
    }

    /// Notes that an endpoint changed; if it is closed, its pending deliveries are cancelled.
    fn on_changed(&self, key: &EndpointKey, verdict: Verdict<Changed>, what: &'static str) {
        let Some(changed) = self.judge(verdict) else { return };
        let mut record = self.record();
        let line = format_args!("{} is {what}: {changed:?}", key.id);
        record.checker.note(self.now(), line);
        record.on_changed(key, changed, what);
    }

    async fn on_replayed(
        &self,
        store: &Kept,
        request: &ReplayRequest,
        replayed: &Result<Replayed, OperationError>,
    ) -> Result<(), StoreError> {
        let statuses = vec![DeliveryStatus::Pending];
        let mut pending = BTreeSet::new();
        for found in store.all(Query { statuses, ..Query::default() }).await? {
            let event = number(&found.event.to_string());
            let key = Key { event, endpoint: number(found.endpoint.as_str()) };
            self.record().oracle.learn(found.id, key);
            pending.insert(key);
        }
        let due = self.record().oracle.replay(request, replayed, &pending);
        let now = self.now();
        for key in self.judge(due).into_iter().flatten() {
            let mut record = self.record();
            record.checker.counters.replayed += 1;
            record.checker.deliveries.replay(key, now);
            record.checker.note(now, format_args!("{key} is replayed"));
        }
        Ok(())
    }
}

impl DeliveryStore for FaultyStore {
    async fn publish(
        &self,
        events: Vec<SerializedEvent>,
        now: Timestamp,
    ) -> Result<Vec<Result<Published, Conflict>>, StoreError> {
        let fault = self.begin("publish").await?;
        if self.is_memory_full() {
            self.end(fault).await?;
            return Err(StoreError::Full { source: "a planned fault".into() });
        }
        let publish = |inner: Kept, world: Arc<World>| async move {
            let published = inner.publish(events.clone(), now).await?;
            world.on_published(&events, now, &published);
            Ok(published)
        };
        let published: Result<_, StoreError> = self.change(publish).await;
        self.end(fault).await?;
        published
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, StoreError> {
        let fault = self.begin("claim").await?;
        let (asked_at, lease) = (request.now, request.lease);
        let (now, time) = (self.world.now(), self.world.even());
        let footing = if fault.0 == Fault::Done { Footing::Unheard } else { Footing::Firm };
        // The lease began when the worker asked for it.
        let late = self.world.clock.monotonic().saturating_since(asked_at.monotonic);
        let until = time.saturating_sub(late) + lease;
        let claimed = self.inner.claim(request).await;
        self.committer.look();
        let mut claimed = claimed?;
        for claimed in &claimed {
            let ends = asked_at.monotonic + lease;
            let heard = Now { monotonic: self.world.clock.monotonic(), ..asked_at };
            let verdict = self.world.record().oracle.claim(claimed, heard, ends);
            self.world.judge(verdict);
            let grant = grant(claimed, until, footing);
            self.world.record().checker.on_claimed(self.worker, &grant, (now, time));
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
        let answered = settlements.iter().filter(|settlement| settlement.attempt.is_some()).count();
        let settle = move |inner: Kept, world: Arc<World>| async move {
            let settled = if is_lost {
                vec![Settled::Recorded { health: Health::Healthy }; settlements.len()]
            } else {
                inner.settle(settlements.clone(), now).await?
            };
            world.on_settled(&settlements, &settled);
            Ok(settled)
        };
        let settled: Result<_, StoreError> = self.change(settle).await;
        if settled.is_err() {
            // This commit failed by plan. Claims that it should have ended run out.
            let now = self.world.now();
            self.world.record().checker.workers[self.worker].last_fault = Some(now);
        }
        self.end(fault).await?;
        let settled = settled?;
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
        let lost = self.inner.extend(claims.clone(), lease, now).await?;
        let late = self.world.clock.monotonic().saturating_since(now.monotonic);
        let until = self.world.even().saturating_sub(late) + lease;
        for claim in claims {
            let is_lost = lost.contains(&claim);
            let (ends, present) = (now.monotonic + lease, self.world.clock.monotonic());
            let verdict = self.world.record().oracle.extend(claim, is_lost, ends, present);
            self.world.judge(verdict);
            if !is_lost {
                self.world.record().checker.on_extended(claim, until);
            }
        }
        self.end(fault).await?;
        Ok(lost)
    }

    async fn next_due(&self, room: Room, now: Now) -> Result<Option<Duration>, StoreError> {
        let fault = self.begin("next_due").await?;
        let due = self.inner.next_due(room, now).await?;
        self.end(fault).await?;
        Ok(due)
    }

    async fn hasten(&self, now: Timestamp) -> Result<(), StoreError> {
        let fault = self.begin("hasten").await?;
        let hasten = move |inner: Kept, _world| async move { inner.hasten(now).await };
        let hastened = self.change(hasten).await;
        self.end(fault).await?;
        hastened
    }

    async fn prune(&self, request: PruneRequest) -> Result<usize, StoreError> {
        let fault = self.begin("prune").await?;
        let before = request.before;
        let prune = move |inner: Kept, world: Arc<World>| async move {
            let pruned = inner.prune(request).await?;
            if pruned > 0 {
                let left = inner.all_events().await?;
                let left = left.iter().map(|found| number(&found.id.to_string()));
                world.on_pruned(before, pruned, left.collect());
            }
            Ok(pruned)
        };
        let pruned = self.change(prune).await;
        self.end(fault).await?;
        pruned
    }

    fn changes(&self) -> ChangeListener {
        self.inner.changes()
    }
}

impl EndpointStore for FaultyStore {
    async fn register(&self, request: RegisterRequest) -> Result<Registered, EndpointStoreError> {
        let fault = self.begin_of_endpoints("register").await?;
        let register = move |inner: Kept, world: Arc<World>| async move {
            let registered = inner.register(request.clone()).await;
            let registration = registration(request.id, request.endpoint);
            let key = registration.key();
            let verdict = world.record().oracle.register(registration, &registered);
            world.on_changed(&key, verdict, "registered");
            registered
        };
        let registered = self.change(register).await;
        self.end_of_endpoints(fault).await?;
        registered
    }

    async fn unregister(
        &self,
        key: EndpointKey,
        now: Timestamp,
    ) -> Result<Arc<Registration>, EndpointStoreError> {
        let fault = self.begin_of_endpoints("unregister").await?;
        let unregister = move |inner: Kept, world: Arc<World>| async move {
            let removed = inner.unregister(key.clone(), now).await;
            let verdict = world.record().oracle.unregister(&key, &removed);
            world.on_changed(&key, verdict, "unregistered");
            removed
        };
        let removed = self.change(unregister).await;
        self.end_of_endpoints(fault).await?;
        removed
    }

    async fn set_state(
        &self,
        key: EndpointKey,
        change: StateChange,
        now: Timestamp,
    ) -> Result<Option<Arc<Registration>>, EndpointStoreError> {
        let fault = self.begin_of_endpoints("set_state").await?;
        let set_state = move |inner: Kept, world: Arc<World>| async move {
            let before = inner.set_state(key.clone(), change, now).await;
            let verdict = world.record().oracle.set_state(&key, change, &before);
            let what = match change {
                StateChange::Disable(_) => "disabled",
                StateChange::Enable => "enabled",
                StateChange::Pause => "paused",
                StateChange::Resume => "resumed",
            };
            world.on_changed(&key, verdict, what);
            before
        };
        let before = self.change(set_state).await;
        self.end_of_endpoints(fault).await?;
        before
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

impl OperationStore for FaultyStore {
    async fn cancel(
        &self,
        deliveries: Vec<DeliveryId>,
        now: Timestamp,
    ) -> Result<Vec<Result<(), OperationError>>, StoreError> {
        let fault = self.begin("cancel").await?;
        let cancel = move |inner: Kept, world: Arc<World>| async move {
            let answers = inner.cancel(deliveries.clone(), now).await?;
            for (delivery, cancelled) in deliveries.into_iter().zip(&answers) {
                let verdict = world.record().oracle.cancel(delivery, cancelled);
                world.judge(verdict);
                if cancelled.is_ok() {
                    let mut record = world.record();
                    record.checker.note(world.now(), format_args!("{delivery} is cancelled"));
                    record.cancel(delivery, "by hand");
                }
            }
            Ok(answers)
        };
        let cancelled = self.change(cancel).await;
        self.end(fault).await?;
        cancelled
    }

    async fn replay(&self, request: ReplayRequest) -> Result<Replayed, OperationError> {
        let fault = self.begin("replay").await?;
        let replay = move |inner: Kept, world: Arc<World>| async move {
            // Before the call: a worker may hear of it before it returns.
            world.record().wish(&request);
            let replayed = inner.replay(request.clone()).await;
            world.on_replayed(&inner, &request, &replayed).await?;
            replayed
        };
        let replayed = self.change(replay).await;
        self.end(fault).await?;
        replayed
    }

    async fn try_now(
        &self,
        delivery: DeliveryId,
        now: Timestamp,
    ) -> Result<TryNow, OperationError> {
        self.inner.try_now(delivery, now).await
    }

    async fn expunge(&self, request: ExpungeRequest) -> Result<Expunged, OperationError> {
        self.inner.expunge(request).await
    }
}

// Only the run reads.
forward_store!(FaultyStore => inner: HistoryStore, MonitorStore, JobStore);
