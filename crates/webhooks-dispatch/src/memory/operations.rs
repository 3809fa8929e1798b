//! Operations of people on the store in memory: cancellations, replays, attempts at once and expunctions.

use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use bytes::Bytes;
use webhooks_core::{DeliveryId, DeliveryStatus, Timestamp};
use webhooks_registry::{EndpointKey, EndpointNumber};

use super::{MemoryStore, State};
use crate::backlog::{QueuedDelivery, due_in_order};
use crate::serialized_event::SerializedEvent;
use crate::store::{
    Attempt, CancelReason, ExpungeRequest, Expunged, OperationError, OperationStore, ReplayRequest,
    Replayed, StoreError, TryNow,
};

impl OperationStore for MemoryStore {
    async fn cancel(
        &self,
        deliveries: Vec<DeliveryId>,
        now: Timestamp,
    ) -> Result<Vec<Result<(), OperationError>>, StoreError> {
        let mut state = self.state();
        let cancelled = deliveries.into_iter().map(|delivery| state.cancel_by_hand(delivery, now));
        let cancelled = cancelled.collect();
        drop(state);
        self.wake();
        Ok(cancelled)
    }

    async fn replay(&self, request: ReplayRequest) -> Result<Replayed, OperationError> {
        let (replayed, endpoints) = self.state().replay(&request)?;
        if request.probes() {
            self.shared.notifier.probe(endpoints);
        }
        self.wake();
        Ok(replayed)
    }

    async fn try_now(
        &self,
        delivery: DeliveryId,
        now: Timestamp,
    ) -> Result<TryNow, OperationError> {
        let (tried, endpoint) = self.state().try_now(delivery, now)?;
        self.shared.notifier.probe([endpoint]);
        Ok(tried)
    }

    async fn expunge(&self, request: ExpungeRequest) -> Result<Expunged, OperationError> {
        let expunged = self.state().expunge(&request)?;
        self.wake();
        Ok(expunged)
    }

    async fn expunge_response(
        &self,
        delivery: DeliveryId,
        number: u32,
    ) -> Result<bool, StoreError> {
        let mut state = self.state();
        Ok(state.attempts.get_mut(&(delivery, number)).is_some_and(delete_response))
    }
}

/// Deletes the response to an attempt; returns whether there was any.
fn delete_response(attempt: &mut Attempt) -> bool {
    let had_any = !attempt.response_headers.is_empty() || !attempt.response.is_empty();
    attempt.response_headers = String::new();
    attempt.response = Bytes::new();
    had_any
}

impl State {
    fn cancel_by_hand(
        &mut self,
        delivery: DeliveryId,
        now: Timestamp,
    ) -> Result<(), OperationError> {
        let entry = self.deliveries.get(&delivery);
        let entry = entry.ok_or(OperationError::UnknownDelivery { delivery })?;
        if !entry.is_open() {
            return Err(OperationError::WrongStatus { delivery, status: entry.status });
        }
        self.take_back(delivery, CancelReason::Manual, now);
        Ok(())
    }

    /// Cancels a delivery that waits or is in flight, and ends the claim on it.
    fn take_back(&mut self, delivery: DeliveryId, reason: CancelReason, now: Timestamp) {
        let Some(entry) = self.deliveries.get(&delivery) else { return };
        let (endpoint, due_at) = (entry.number, entry.due_at);
        // An ordered endpoint waited for the retry of its first delivery. It goes on unless the
        // next one waits for a retry of its own.
        let was_retrying = entry.status == DeliveryStatus::Retrying;
        let backlog = &mut self.backlog;
        backlog.remove(endpoint, due_at, delivery);
        if was_retrying && backlog.head(endpoint).is_none_or(QueuedDelivery::awaits_first_attempt) {
            backlog.unblock(endpoint);
        }
        self.cancel(delivery, reason, now);
    }

    /// Makes a delivery due now; returns its endpoint, too.
    fn try_now(
        &mut self,
        delivery: DeliveryId,
        now: Timestamp,
    ) -> Result<(TryNow, EndpointNumber), OperationError> {
        let entry = self.deliveries.get_mut(&delivery);
        let entry = entry.ok_or(OperationError::UnknownDelivery { delivery })?;
        if !entry.is_open() {
            return Err(OperationError::WrongStatus { delivery, status: entry.status });
        }
        if self.backlog.is_claimed(delivery) {
            return Ok((TryNow::InFlight, entry.number));
        }
        let event = self.events.get(&entry.event).map(|event| Arc::clone(&event.event));
        let event = event.ok_or(OperationError::UnknownDelivery { delivery })?;
        let key = EndpointKey::new(event.tenant.clone(), entry.endpoint.clone());
        let registration = self.registry.get_of(&key);
        let registration = registration.ok_or(OperationError::UnknownDelivery { delivery })?;
        let waits_in_order = registration.endpoint.ordered && !entry.is_scheduled;
        let is_later = if waits_in_order {
            self.backlog.is_blocked_by(entry.number, delivery, now)
        } else {
            entry.due_at > now
        };
        if is_later {
            self.backlog.remove(entry.number, entry.due_at, delivery);
            entry.progress = entry.progress.replayed(now);
            (entry.status, entry.is_scheduled) = (DeliveryStatus::Pending, false);
            entry.due_at = due_in_order(&registration.endpoint, now);
            let waiting = QueuedDelivery { event, progress: entry.progress, is_scheduled: false };
            self.backlog.push(entry.number, entry.due_at, delivery, waiting);
            if waits_in_order {
                self.backlog.unblock(entry.number);
            }
        }
        Ok((TryNow::of(registration.state, is_later), entry.number))
    }

    fn expunge(&mut self, request: &ExpungeRequest) -> Result<Expunged, OperationError> {
        let Some(event) = &request.event else { return Ok(self.expunge_tenant(request)) };
        let found = self.by_id.get(&(request.tenant.clone(), event.clone())).copied();
        let number = found.ok_or_else(|| OperationError::UnknownEvent { event: event.clone() })?;
        let events = usize::from(self.expunge_event(number, request.now));
        Ok(Expunged { events, next: None })
    }

    fn expunge_tenant(&mut self, request: &ExpungeRequest) -> Expunged {
        let after = request.after.unwrap_or_default();
        let looked: Vec<u64> = (self.events.range((Excluded(after), Unbounded)))
            .filter(|(_, entry)| entry.event.tenant == request.tenant)
            .filter(|(_, entry)| entry.accepted_at <= request.now)
            .map(|(number, _)| *number)
            .take(request.limit)
            .collect();
        let next = looked.last().copied().filter(|_| looked.len() == request.limit);
        let expunged = looked.into_iter().filter(|number| self.expunge_event(*number, request.now));
        Expunged { events: expunged.count(), next }
    }

    /// Deletes the content of an event; returns whether it had any.
    fn expunge_event(&mut self, number: u64, now: Timestamp) -> bool {
        let Some(entry) = self.events.get_mut(&number) else { return false };
        if entry.expunged_at.is_some() {
            return false;
        }
        entry.expunged_at = Some(now);
        entry.event = Arc::new(SerializedEvent {
            body: Bytes::new(),
            ..SerializedEvent::clone(&entry.event)
        });
        let deliveries = entry.deliveries.clone();
        for delivery in deliveries {
            if self.deliveries.get(&delivery).is_some_and(super::Entry::is_open) {
                self.take_back(delivery, CancelReason::Expunged, now);
            }
            for (_, attempt) in self.attempts.range_mut((delivery, 0)..=(delivery, u32::MAX)) {
                delete_response(attempt);
            }
        }
        true
    }
}
