//! Replays in the store in memory.

use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use webhooks_core::{DeliveryId, DeliveryStatus, EventId, TenantId, Timestamp};
use webhooks_registry::{EndpointKey, EndpointNumber, Registration};

use super::{Entry, State};
use crate::backlog::QueuedDelivery;
use crate::serialized_event::SerializedEvent;
use crate::store::{
    OperationError, Replay, ReplayCursor, ReplayMode, ReplayRequest, Replayed, Undelivered,
};

/// The deliveries and events of a portion.
struct Portion {
    /// The deliveries that have ended, and the endpoints to which they go now.
    ended: Vec<(DeliveryId, Arc<Registration>)>,
    /// The events that were missed, and the endpoints that missed them.
    missed: Vec<(u64, Arc<Registration>)>,
    next: Option<ReplayCursor>,
}

impl State {
    /// Carries out a portion of a replay; returns its endpoints, too.
    pub(super) fn replay(
        &mut self,
        request: &ReplayRequest,
    ) -> Result<(Replayed, Vec<EndpointNumber>), OperationError> {
        let portion = match &request.replay {
            Replay::Delivery(delivery) => {
                let ended = if self.has_replayed(*delivery, request) {
                    Vec::new()
                } else {
                    vec![(*delivery, self.target(*delivery)?)]
                };
                Portion { ended, missed: Vec::new(), next: None }
            }
            Replay::Deliveries(ids) => self.several(ids, request),
            Replay::Endpoint { endpoint, which, since, until } => {
                self.of_endpoint(endpoint, *which, (*since, *until), request)?
            }
            Replay::Event { tenant, event, which } => {
                self.of_event(tenant, event, *which, request)?
            }
        };
        let deliveries = portion.ended.len() + portion.missed.len();
        let endpoints = portion.ended.iter().map(|(_, registration)| registration.number);
        let endpoints = endpoints.chain(portion.missed.iter().map(|(_, missed)| missed.number));
        let endpoints = endpoints.collect();
        if request.mode == ReplayMode::Replay {
            for (delivery, registration) in portion.ended {
                self.reopen(delivery, &registration, request.now);
            }
            for (event, registration) in portion.missed {
                self.deliver(event, &registration, request.now);
            }
        }
        Ok((Replayed { deliveries, next: portion.next }, endpoints))
    }

    /// Returns the endpoint to which a delivery goes that has ended.
    fn target(&self, delivery: DeliveryId) -> Result<Arc<Registration>, OperationError> {
        let entry = self.deliveries.get(&delivery);
        let entry = entry.ok_or(OperationError::UnknownDelivery { delivery })?;
        if entry.is_open() {
            return Err(OperationError::WrongStatus { delivery, status: entry.status });
        }
        let event = self.events.get(&entry.event);
        if let Some(event) = event.filter(|event| event.expunged_at.is_some()) {
            return Err(OperationError::Expunged { event: event.event.id.clone() });
        }
        self.open(&self.key(entry).ok_or(OperationError::UnknownDelivery { delivery })?)
    }

    fn several(&self, ids: &[DeliveryId], request: &ReplayRequest) -> Portion {
        let (ids, next) = request.portion(ids);
        let ended = ids.iter().filter_map(|id| self.again(*id, request)).collect();
        Portion { ended, missed: Vec::new(), next }
    }

    /// Returns a delivery that has ended and that the replay has not made due before, and its
    /// endpoint.
    fn again(
        &self,
        delivery: DeliveryId,
        request: &ReplayRequest,
    ) -> Option<(DeliveryId, Arc<Registration>)> {
        if self.has_replayed(delivery, request) {
            return None;
        }
        Some((delivery, self.target(delivery).ok()?))
    }

    fn has_replayed(&self, delivery: DeliveryId, request: &ReplayRequest) -> bool {
        let found = self.deliveries.get(&delivery);
        found.is_some_and(|entry| request.has_replayed(entry.progress.queued_at))
    }

    fn of_endpoint(
        &self,
        endpoint: &EndpointKey,
        which: Undelivered,
        (since, until): (Timestamp, Option<Timestamp>),
        request: &ReplayRequest,
    ) -> Result<Portion, OperationError> {
        let registration = self.open(endpoint)?;
        let mut portion = Portion { ended: Vec::new(), missed: Vec::new(), next: None };
        let Some(begin) = request.begin(which) else { return Ok(portion) };
        let last = match begin {
            ReplayCursor::Ended(after) => {
                let ended: Vec<DeliveryId> = (self
                    .deliveries
                    .range((Excluded(DeliveryId::from_u64(after)), Unbounded)))
                .filter(|(_, entry)| entry.endpoint == endpoint.id && which.includes(entry.status))
                .filter(|(_, entry)| {
                    let at = entry.progress.queued_at;
                    let is_in_time = at >= since && until.is_none_or(|until| at < until);
                    is_in_time && !request.has_replayed(at)
                })
                .filter(|(_, entry)| self.key(entry).is_some_and(|key| key == *endpoint))
                .filter(|(_, entry)| !self.is_expunged(entry))
                .map(|(id, _)| *id)
                .take(request.limit)
                .collect();
                let last = ended.last().filter(|_| ended.len() == request.limit);
                let last = last.map(|id| id.as_u64());
                portion.ended =
                    ended.into_iter().map(|id| (id, Arc::clone(&registration))).collect();
                last
            }
            ReplayCursor::Missed(after) => {
                // The limit counts events that are looked at, not those that were missed: a portion
                // over many events must not take long.
                let seen: Vec<u64> = (self.events.range((Excluded(after), Unbounded)))
                    .filter(|(_, entry)| entry.accepted_at >= since)
                    .filter(|(_, entry)| until.is_none_or(|until| entry.accepted_at < until))
                    .map(|(number, _)| *number)
                    .take(request.limit)
                    .collect();
                let last = seen.last().copied().filter(|_| seen.len() == request.limit);
                let missed =
                    seen.into_iter().filter(|event| self.has_missed(*event, &registration));
                portion.missed = missed.map(|event| (event, Arc::clone(&registration))).collect();
                last
            }
        };
        portion.next = ReplayRequest::next(begin, which, last);
        Ok(portion)
    }

    fn of_event(
        &self,
        tenant: &TenantId,
        event: &EventId,
        which: Undelivered,
        request: &ReplayRequest,
    ) -> Result<Portion, OperationError> {
        let number = self.by_id.get(&(tenant.clone(), event.clone())).copied();
        let found = number.and_then(|number| Some((number, self.events.get(&number)?)));
        let (number, entry) =
            found.ok_or_else(|| OperationError::UnknownEvent { event: event.clone() })?;
        let mut portion = Portion { ended: Vec::new(), missed: Vec::new(), next: None };
        let Some(begin) = request.begin(which) else { return Ok(portion) };
        let last = match begin {
            ReplayCursor::Ended(after) => {
                let mut looked: Vec<DeliveryId> = entry.deliveries.clone();
                looked.sort_unstable();
                looked.retain(|id| id.as_u64() > after);
                looked.truncate(request.limit);
                let last = looked.last().filter(|_| looked.len() == request.limit);
                let last = last.map(|id| id.as_u64());
                let is_included = |id: &DeliveryId| {
                    self.deliveries.get(id).is_some_and(|d| which.includes(d.status))
                };
                let included = looked.into_iter().filter(is_included);
                portion.ended = included.filter_map(|id| self.again(id, request)).collect();
                last
            }
            ReplayCursor::Missed(_) => {
                let recipients = entry.event.recipients(&self.registry);
                let missed = recipients.into_iter().filter(|found| self.has_missed(number, found));
                portion.missed = missed.map(|registration| (number, registration)).collect();
                None
            }
        };
        portion.next = ReplayRequest::next(begin, which, last);
        Ok(portion)
    }

    /// Returns whether an endpoint wants an event and has no delivery of it.
    fn has_missed(&self, event: u64, registration: &Registration) -> bool {
        let Some(entry) = self.events.get(&event) else { return false };
        let mut deliveries = entry.deliveries.iter().filter_map(|id| self.deliveries.get(id));
        let SerializedEvent { tenant, event_type, channels, only, .. } = &*entry.event;
        *tenant == registration.endpoint.tenant
            && entry.expunged_at.is_none()
            && registration.is_recipient(event_type, channels, only.as_deref())
            && !deliveries.any(|delivery| delivery.endpoint == registration.id)
    }

    fn is_expunged(&self, entry: &Entry) -> bool {
        self.events.get(&entry.event).is_some_and(|event| event.expunged_at.is_some())
    }

    /// Returns an endpoint that deliveries are stored for.
    fn open(&self, key: &EndpointKey) -> Result<Arc<Registration>, OperationError> {
        let found = self.registry.get_of(key);
        Replay::target(key, found.map(|found| (found.state, found)))
    }

    fn key(&self, entry: &Entry) -> Option<EndpointKey> {
        let event = self.events.get(&entry.event)?;
        Some(EndpointKey::new(event.event.tenant.clone(), entry.endpoint.clone()))
    }

    /// Makes a delivery that has ended due once more.
    fn reopen(&mut self, delivery: DeliveryId, registration: &Registration, now: Timestamp) {
        let Some(entry) = self.deliveries.get_mut(&delivery) else { return };
        let Some(event) = self.events.get_mut(&entry.event) else { return };
        if entry.is_open() {
            return;
        }
        event.open += 1;
        entry.number = registration.number;
        entry.status = DeliveryStatus::Pending;
        entry.cancelled = None;
        entry.ended_at = None;
        entry.is_scheduled = false;
        entry.progress = entry.progress.replayed(now);
        let event = Arc::clone(&event.event);
        let waiting = QueuedDelivery { event, progress: entry.progress, is_scheduled: false };
        entry.due_at = waiting.due_in_order(&registration.endpoint, now);
        self.backlog.push(registration.number, entry.due_at, delivery, waiting);
    }
}
