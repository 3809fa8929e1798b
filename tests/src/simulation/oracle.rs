//! The answers that a store must give: its contract as plain rows, for commands one after the
//! other.
//!
//! The run passes it each command in the order in which the store carried them out, with the
//! store's answer. The oracle returns the error in the answer, if there is one.

mod replays;

use std::collections::BTreeMap;
use std::sync::Arc;

use webhooks_core::{DeliveryId, DeliveryStatus, EventType, TenantId, Timestamp};
use webhooks_dispatch::{
    Conflict, OperationError, PublishStatus, Published,
    clock::{MonotonicTime, Now},
    history::DeliveryRecord,
    store::{
        CancelReason, Claim, Claimed, Outcome, Progress, SerializedEvent, Settled, Settlement,
    },
};
use webhooks_registry::{
    Endpoint, EndpointKey, EndpointNumber, EndpointState, Registration,
    store::{EndpointStoreError, Registered, StateChange},
};

use super::plan::number;
use crate::invariants::Key;

/// An error in an answer.
pub(super) type Verdict<T = ()> = Result<T, String>;

#[derive(Debug, Default)]
pub(super) struct Oracle {
    endpoints: BTreeMap<EndpointKey, Registration>,
    events: BTreeMap<usize, EventRow>,
    deliveries: BTreeMap<Key, Row>,
    by_id: BTreeMap<DeliveryId, Key>,
}

#[derive(Debug)]
struct EventRow {
    tenant: TenantId,
    event_type: EventType,
    accepted_at: Timestamp,
    /// The number of deliveries that were made for it when it was accepted.
    deliveries: usize,
}

/// A delivery.
#[derive(Debug)]
struct Row {
    endpoint: EndpointKey,
    status: DeliveryStatus,
    cancelled: Option<CancelReason>,
    progress: Progress,
    due_at: Option<Timestamp>,
    /// The worker that has claimed it, and the earliest possible end of the lease.
    claim: Option<(u64, MonotonicTime)>,
}

impl Row {
    fn is_open(&self) -> bool {
        matches!(self.status, DeliveryStatus::Pending | DeliveryStatus::Retrying)
    }

    fn end(&mut self, status: DeliveryStatus, cancelled: Option<CancelReason>) {
        (self.status, self.cancelled) = (status, cancelled);
        (self.claim, self.due_at) = (None, None);
    }
}

/// The effect of a change on an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changed {
    /// It is as it was, or its pending deliveries are unharmed.
    Open,
    /// It gets nothing more, and its pending deliveries are cancelled.
    Closed,
}

fn fails<T>(why: impl Into<String>) -> Verdict<T> {
    Err(why.into())
}

impl Oracle {
    /// Returns the state of an endpoint, if it is registered.
    pub(super) fn state(&self, key: &EndpointKey) -> Option<EndpointState> {
        self.endpoints.get(key).map(|found| found.state)
    }

    /// Returns the settings of an endpoint, if it is registered.
    pub(super) fn settings(&self, key: &EndpointKey) -> Option<&Endpoint> {
        self.endpoints.get(key).map(|found| &found.endpoint)
    }

    /// Returns the delivery with an id, if that is known.
    pub(super) fn key(&self, id: DeliveryId) -> Option<Key> {
        self.by_id.get(&id).copied()
    }

    /// Returns the id of a delivery, if that is known.
    pub(super) fn id(&self, key: Key) -> Option<DeliveryId> {
        self.by_id.iter().find(|(_, found)| **found == key).map(|(id, _)| *id)
    }

    /// Notes the id of a delivery.
    pub(super) fn learn(&mut self, id: DeliveryId, key: Key) {
        self.by_id.insert(id, key);
    }

    fn wanting(&self, tenant: &TenantId, event_type: &EventType) -> Vec<EndpointKey> {
        let wants = |found: &&Registration| {
            found.state.is_open()
                && found.endpoint.tenant == *tenant
                && found.endpoint.wants(event_type)
        };
        self.endpoints.values().filter(wants).map(Registration::key).collect()
    }

    fn add(&mut self, event: usize, endpoint: EndpointKey, now: Timestamp) -> Key {
        let key = Key { event, endpoint: number(endpoint.id.as_str()) };
        let row = Row {
            endpoint,
            status: DeliveryStatus::Pending,
            cancelled: None,
            progress: Progress::start(now),
            due_at: None,
            claim: None,
        };
        self.deliveries.insert(key, row);
        key
    }

    fn of_event(&self, event: usize) -> impl Iterator<Item = (&Key, &Row)> {
        self.deliveries.range(Key { event, endpoint: 0 }..=Key { event, endpoint: usize::MAX })
    }

    /// Follows a publication; returns the new deliveries. The caller compares contents.
    pub(super) fn publish(
        &mut self,
        event: &SerializedEvent,
        now: Timestamp,
        answer: &Result<Published, Conflict>,
    ) -> Verdict<Vec<Key>> {
        let id = number(&event.id.to_string());
        let known = self.events.get(&id).map(|event| event.deliveries);
        let wanting = self.wanting(&event.tenant, &event.event_type);
        match (answer, known) {
            // The content decides whether it is a conflict; the script looks at it.
            (Err(_), Some(_)) => Ok(Vec::new()),
            (Ok(Published { status: PublishStatus::Duplicate, deliveries, .. }), Some(known)) => {
                if *deliveries == known {
                    return Ok(Vec::new());
                }
                fails(format!(
                    "event {id} got {known} deliveries at first, and {deliveries} were told"
                ))
            }
            (Ok(Published { status: PublishStatus::Created, deliveries, .. }), None) => {
                if *deliveries != wanting.len() {
                    let wanting = wanting.len();
                    let line = format!("{wanting} endpoints want event {id}, {deliveries} get it");
                    return fails(line);
                }
                let (tenant, event_type) = (event.tenant.clone(), event.event_type.clone());
                self.events.insert(
                    id,
                    EventRow { tenant, event_type, accepted_at: now, deliveries: *deliveries },
                );
                Ok(wanting.into_iter().map(|endpoint| self.add(id, endpoint, now)).collect())
            }
            (answer, known) => fails(format!("event {id} (known: {known:?}) gives {answer:?}")),
        }
    }

    pub(super) fn claim(&mut self, claimed: &Claimed, now: Now, until: MonotonicTime) -> Verdict {
        let Claimed { claim, registration, event, progress, .. } = claimed;
        let endpoint = number(registration.id.as_str());
        let key = Key { event: number(&event.id.to_string()), endpoint };
        self.by_id.insert(claim.delivery, key);
        let current = self.endpoints.get(&registration.key());
        let is_current = current.is_some_and(|current| {
            current.state == EndpointState::Active && current.endpoint == registration.endpoint
        });
        if !is_current {
            let state = current.map(|current| current.state);
            return fails(format!("{key} is handed out for an endpoint that is {state:?} now"));
        }
        let Some(row) = self.deliveries.get_mut(&key).filter(|row| row.is_open()) else {
            return fails(format!("{key} is handed out, and does not wait"));
        };
        if row.progress != *progress {
            return fails(format!(
                "{key} is at {:?}, and handed out at {progress:?}",
                row.progress
            ));
        }
        if row.claim.is_some_and(|(_, until)| until > now.monotonic) {
            return fails(format!("{key} is handed out while another has it"));
        }
        if row.due_at.is_some_and(|due_at| due_at > now.wall) {
            return fails(format!("{key} is handed out before it is due"));
        }
        row.claim = Some((claim.token, until));
        Ok(())
    }

    pub(super) fn settle(
        &mut self,
        settlement: &Settlement,
        answer: Settled,
        now: MonotonicTime,
    ) -> Verdict {
        let Settlement { claim: Claim { delivery, token }, outcome, attempt } = settlement;
        let found = self.by_id.get(delivery).copied();
        let row = found.and_then(|key| Some((key, self.deliveries.get_mut(&key)?)));
        let held = row.and_then(|(key, row)| {
            let (held, until) = row.claim?;
            (held == *token).then_some((key, row, until))
        });
        match (answer, held) {
            (Settled::LeaseLost, Some((key, _, until))) if until > now => {
                fails(format!("the claim of {key} holds, and its outcome {outcome:?} is refused"))
            }
            (Settled::LeaseLost, _) => Ok(()),
            (Settled::Recorded { .. }, None) => {
                fails(format!("{found:?} is not held, and its outcome {outcome:?} is kept"))
            }
            (Settled::Recorded { .. }, Some((key, row, _))) => {
                row.claim = None;
                row.progress.attempts += u32::from(attempt.is_some());
                match *outcome {
                    Outcome::Delivered => row.end(DeliveryStatus::Delivered, None),
                    Outcome::Failed => row.end(DeliveryStatus::Failed, None),
                    Outcome::Expired => {
                        row.end(DeliveryStatus::Cancelled, Some(CancelReason::Expired));
                    }
                    Outcome::Retrying { due_at } => {
                        (row.status, row.due_at) = (DeliveryStatus::Retrying, Some(due_at));
                        let endpoint = row.endpoint.clone();
                        if self.endpoints.get(&endpoint).is_some_and(|found| found.endpoint.ordered)
                        {
                            self.forget_dues(&endpoint, key);
                        }
                    }
                    Outcome::Released => {}
                }
                Ok(())
            }
        }
    }

    /// Notes that an ordered endpoint waits for one retry, the last: those of others, which were in
    /// flight when it became ordered, may be made before they are due.
    fn forget_dues(&mut self, endpoint: &EndpointKey, except: Key) {
        for (key, row) in &mut self.deliveries {
            if row.endpoint == *endpoint && *key != except {
                row.due_at = None;
            }
        }
    }

    pub(super) fn extend(
        &mut self,
        claim: Claim,
        is_lost: bool,
        until: MonotonicTime,
        now: MonotonicTime,
    ) -> Verdict {
        let key = self.by_id.get(&claim.delivery).copied();
        let row = key.and_then(|key| self.deliveries.get_mut(&key));
        let held = row.and_then(|row| row.claim.as_mut().filter(|held| held.0 == claim.token));
        match held {
            Some((_, ends)) if is_lost && *ends > now => {
                fails(format!("the claim of {key:?} holds, and is told to be lost"))
            }
            None if !is_lost => fails(format!("a claim of {key:?} is extended that was lost")),
            Some((_, ends)) if !is_lost => {
                *ends = (*ends).max(until);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn cancel(
        &mut self,
        delivery: DeliveryId,
        answer: &Result<(), OperationError>,
    ) -> Verdict {
        let key = self.by_id.get(&delivery).copied();
        let row = key.and_then(|key| self.deliveries.get_mut(&key));
        match (answer, row) {
            (Err(OperationError::Store(_)), _) => Ok(()),
            (Ok(()), Some(row)) if row.is_open() => {
                row.end(DeliveryStatus::Cancelled, Some(CancelReason::Manual));
                Ok(())
            }
            (Err(OperationError::WrongStatus { status, .. }), Some(row))
                if !row.is_open() && *status == row.status =>
            {
                Ok(())
            }
            (Err(OperationError::UnknownDelivery { .. }), None) => Ok(()),
            (answer, row) => {
                let status = row.map(|row| row.status);
                fails(format!("cancelling {key:?}, which is {status:?}, gives {answer:?}"))
            }
        }
    }

    pub(super) fn register(
        &mut self,
        endpoint: Registration,
        answer: &Result<Registered, EndpointStoreError>,
    ) -> Verdict<Changed> {
        let key = endpoint.key();
        let before = self.endpoints.get(&key);
        let expected = match before {
            None => Some(endpoint),
            Some(before) => before.again(endpoint.endpoint, Timestamp::UNIX_EPOCH),
        };
        let is_right = match answer {
            Err(EndpointStoreError::Unavailable { .. }) => return Ok(Changed::Open),
            Err(_) => false,
            Ok(Registered::Added) => before.is_none(),
            Ok(Registered::Unchanged) => expected.is_none(),
            Ok(Registered::Changed { before: told }) => {
                expected.is_some() && before.is_some_and(|before| is_same(before, told))
            }
        };
        if !is_right {
            let answer = answer.as_ref().map_err(ToString::to_string);
            return fails(format!("registering {} as {expected:?} gives {answer:?}", key.id));
        }
        Ok(expected.map_or(Changed::Open, |after| self.put(after)))
    }

    pub(super) fn unregister(
        &mut self,
        key: &EndpointKey,
        answer: &Result<Arc<Registration>, EndpointStoreError>,
    ) -> Verdict<Changed> {
        match (answer, self.endpoints.get(key)) {
            (Err(EndpointStoreError::Unavailable { .. }), _)
            | (Err(EndpointStoreError::Unknown(_)), None) => Ok(Changed::Open),
            (Ok(told), Some(found)) if is_same(found, told) => {
                self.endpoints.remove(key);
                self.close(key, CancelReason::Unregistered);
                Ok(Changed::Closed)
            }
            (answer, found) => {
                let state = found.map(|found| found.state);
                let answer = answer.as_ref().map(|found| found.state).map_err(ToString::to_string);
                fails(format!("unregistering {}, {state:?}, gives {answer:?}", key.id))
            }
        }
    }

    pub(super) fn set_state(
        &mut self,
        key: &EndpointKey,
        change: StateChange,
        answer: &Result<Option<Arc<Registration>>, EndpointStoreError>,
    ) -> Verdict<Changed> {
        let before = self.endpoints.get(key);
        let after = before.map(|before| before.state.after(change));
        match (answer, before, after) {
            (Err(EndpointStoreError::Unavailable { .. }), ..)
            | (Err(EndpointStoreError::Unknown(_)), None, _)
            | (Err(EndpointStoreError::IsDisabled(_)), _, Some(Err(_)))
            | (Ok(None), _, Some(Ok(None))) => Ok(Changed::Open),
            (Ok(Some(told)), Some(before), Some(Ok(Some(after)))) if is_same(before, told) => {
                let after = before.in_state(after, Timestamp::UNIX_EPOCH);
                Ok(self.put(after))
            }
            (answer, before, _) => {
                let state = before.map(|before| before.state);
                let told = answer.as_ref().map(|found| found.as_ref().map(|found| found.state));
                let told = told.map_err(ToString::to_string);
                fails(format!("{change:?} of {}, {state:?}, gives {told:?}", key.id))
            }
        }
    }

    fn put(&mut self, after: Registration) -> Changed {
        let (key, is_open) = (after.key(), after.state.is_open());
        let before = self.endpoints.insert(key.clone(), after);
        // After a change of the order, retries may be made at once.
        let open = self.deliveries.values_mut().filter(|row| row.endpoint == key);
        open.for_each(|row| row.due_at = None);
        if is_open || before.is_none_or(|before| !before.state.is_open()) {
            return Changed::Open;
        }
        self.close(&key, CancelReason::Disabled);
        Changed::Closed
    }

    fn close(&mut self, key: &EndpointKey, reason: CancelReason) {
        for row in self.deliveries.values_mut().filter(|row| row.endpoint == *key && row.is_open())
        {
            row.end(DeliveryStatus::Cancelled, Some(reason));
        }
    }

    /// Follows a store that deleted old events; returns the deliveries that it deleted with them.
    pub(super) fn prune(
        &mut self,
        before: Timestamp,
        count: usize,
        left: &[usize],
    ) -> Verdict<Vec<Key>> {
        let is_left = |event: &usize| left.binary_search(event).is_ok();
        let gone: Vec<usize> = self.events.keys().copied().filter(|id| !is_left(id)).collect();
        // Unknown events were published later in the same group.
        if gone.len() != count {
            return fails(format!(
                "{count} events are told to be forgotten, and {} are",
                gone.len()
            ));
        }
        let mut forgotten = Vec::new();
        for event in gone {
            if let Some((key, row)) = self.of_event(event).find(|(_, row)| row.is_open()) {
                return fails(format!("{key} is {} and forgotten", row.status));
            }
            let accepted_at = self.events.remove(&event).map(|event| event.accepted_at);
            if accepted_at.is_some_and(|accepted_at| accepted_at >= before) {
                return fails(format!("event {event} is forgotten too early"));
            }
            forgotten.extend(self.of_event(event).map(|(key, _)| *key));
        }
        for key in &forgotten {
            self.deliveries.remove(key);
        }
        self.by_id.retain(|_, key| forgotten.binary_search(key).is_err());
        Ok(forgotten)
    }

    /// Notes that all claims ended together with their workers.
    pub(super) fn restart(&mut self) {
        for row in self.deliveries.values_mut() {
            row.claim = None;
        }
    }

    /// Compares everything in the store with what must be there.
    pub(super) fn compare(
        &self,
        deliveries: &[DeliveryRecord],
        endpoints: &[Arc<Registration>],
    ) -> Verdict {
        let mut kept: BTreeMap<Key, &DeliveryRecord> = BTreeMap::new();
        for found in deliveries {
            let endpoint = number(found.endpoint.as_str());
            kept.insert(Key { event: number(&found.event.to_string()), endpoint }, found);
        }
        if kept.len() != deliveries.len() {
            return fails("an endpoint has two deliveries of an event");
        }
        for (key, row) in &self.deliveries {
            let found = kept.remove(key);
            let found = found.map(|found| (found.status, found.cancelled, found.attempts));
            let expected = (row.status, row.cancelled, row.progress.attempts);
            if found != Some(expected) {
                return fails(format!("{key} is {expected:?}, and {found:?} is kept"));
            }
        }
        if let Some(key) = kept.keys().next() {
            return fails(format!("{key} is kept, and there is no such delivery"));
        }
        let is_kept = endpoints.iter().all(|found| {
            self.endpoints.get(&found.key()).is_some_and(|expected| is_same(expected, found))
        });
        if !is_kept || endpoints.len() != self.endpoints.len() {
            let kept: Vec<_> = endpoints.iter().map(|found| (&found.id, found.state)).collect();
            return fails(format!("these endpoints are kept: {kept:?}"));
        }
        Ok(())
    }
}

/// Returns an endpoint as it is registered, without the number that its store assigns.
pub(super) fn registration(id: webhooks_core::EndpointId, endpoint: Endpoint) -> Registration {
    Registration::new(EndpointNumber::default(), id, endpoint)
}

/// Compares everything except the number, which the store assigns.
fn is_same(one: &Registration, other: &Registration) -> bool {
    one.key() == other.key() && one.endpoint == other.endpoint && one.state == other.state
}
