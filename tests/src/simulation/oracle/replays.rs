//! The deliveries that a replay must make due.

use std::collections::BTreeSet;

use webhooks_core::{DeliveryId, DeliveryStatus, TenantId, Timestamp};
use webhooks_dispatch::{
    OperationError, Replay, Undelivered,
    store::{ReplayCursor, ReplayRequest, Replayed},
};
use webhooks_registry::EndpointKey;

use super::{Oracle, Verdict, fails};
use crate::invariants::Key;
use crate::simulation::plan::number;

/// The deliveries that a portion of a replay may make due, and whether it must be all of them.
struct Expected {
    keys: BTreeSet<Key>,
    is_all: bool,
}

/// The reason for which a replay must be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Disabled,
    Status(DeliveryStatus),
    UnknownDelivery,
    UnknownEndpoint,
    UnknownEvent,
}

impl Oracle {
    /// Follows a portion of a replay, after which these deliveries are pending; returns those that
    /// it made due.
    pub(in crate::simulation) fn replay(
        &mut self,
        request: &ReplayRequest,
        answer: &Result<Replayed, OperationError>,
        pending: &BTreeSet<Key>,
    ) -> Verdict<Vec<Key>> {
        let expected = self.expected(request, answer.as_ref().ok().and_then(|done| done.next));
        let due: Vec<Key> = (pending.iter().copied())
            .filter(|key| self.deliveries.get(key).is_none_or(|row| !row.is_open()))
            .collect();
        match (answer, expected) {
            (Err(OperationError::Store(_)), _) if due.is_empty() => return Ok(due),
            (Err(error), Err(refusal)) if due.is_empty() && refusal.is(error) => return Ok(due),
            (Ok(done), Ok(expected)) => {
                let is_allowed = due.iter().all(|key| expected.keys.contains(key));
                let is_all = !expected.is_all || due.len() == expected.keys.len();
                if !is_allowed || !is_all || done.deliveries != due.len() {
                    let Expected { keys, .. } = expected;
                    let line = format!("{due:?} instead of {keys:?}, and {done:?} is told");
                    return fails(format!("{:?} makes due {line}", request.replay));
                }
            }
            (answer, expected) => {
                let refusal = expected.err();
                let line = format!("gives {answer:?} and makes due {due:?}");
                return fails(format!("{:?}, refused as {refusal:?}, {line}", request.replay));
            }
        }
        for key in &due {
            if let Some(row) = self.deliveries.get_mut(key) {
                (row.status, row.cancelled) = (DeliveryStatus::Pending, None);
                row.progress = row.progress.replayed(request.now);
            } else {
                let mut endpoints = self.endpoints.keys();
                let found = endpoints.find(|found| number(found.id.as_str()) == key.endpoint);
                if let Some(endpoint) = found.cloned() {
                    self.add(key.event, endpoint, request.now);
                }
            }
        }
        Ok(due)
    }

    fn expected(
        &self,
        request: &ReplayRequest,
        next: Option<ReplayCursor>,
    ) -> Result<Expected, Refusal> {
        match &request.replay {
            Replay::Delivery(id) => {
                let known = self.by_id.get(id).filter(|key| self.deliveries.contains_key(key));
                if known.is_some_and(|key| !self.is_again(key, request)) {
                    return Ok(Expected { keys: BTreeSet::new(), is_all: true });
                }
                Ok(Expected { keys: [self.ended(*id)?].into(), is_all: true })
            }
            Replay::Deliveries(ids) => {
                let keys = ids.iter().filter_map(|id| self.ended(*id).ok());
                let keys = keys.filter(|key| self.is_again(key, request)).collect();
                Ok(Expected { keys, is_all: request.after.is_none() && next.is_none() })
            }
            Replay::Endpoint { endpoint, which, since, until } => {
                self.check_open(endpoint)?;
                let span = (*since, *until);
                let keys = |begin| match begin {
                    ReplayCursor::Ended(_) => self.undelivered(endpoint, *which, span, request),
                    ReplayCursor::Missed(_) => self.missed(endpoint, span),
                };
                Ok(portion(request, *which, next, keys))
            }
            Replay::Event { tenant, event, which } => {
                let event = number(&event.to_string());
                if self.events.get(&event).is_none_or(|found| found.tenant != *tenant) {
                    return Err(Refusal::UnknownEvent);
                }
                let keys = |begin| match begin {
                    ReplayCursor::Ended(_) => (self.of_event(event))
                        .filter(|(key, row)| {
                            which.includes(row.status) && self.is_again(key, request)
                        })
                        .filter(|(_, row)| self.check_open(&row.endpoint).is_ok())
                        .map(|(key, _)| *key)
                        .collect(),
                    ReplayCursor::Missed(_) => self.missed_of(tenant, event),
                };
                Ok(portion(request, *which, next, keys))
            }
        }
    }

    fn ended(&self, id: DeliveryId) -> Result<Key, Refusal> {
        let key = self.by_id.get(&id).ok_or(Refusal::UnknownDelivery)?;
        let row = self.deliveries.get(key).ok_or(Refusal::UnknownDelivery)?;
        if row.is_open() {
            return Err(Refusal::Status(row.status));
        }
        self.check_open(&row.endpoint)?;
        Ok(*key)
    }

    /// Returns whether a replay has not made a delivery due before.
    fn is_again(&self, key: &Key, request: &ReplayRequest) -> bool {
        self.deliveries.get(key).is_some_and(|row| !request.has_replayed(row.progress.queued_at))
    }

    fn check_open(&self, key: &EndpointKey) -> Result<(), Refusal> {
        let state = self.state(key).ok_or(Refusal::UnknownEndpoint)?;
        if state.is_open() { Ok(()) } else { Err(Refusal::Disabled) }
    }

    fn undelivered(
        &self,
        endpoint: &EndpointKey,
        which: Undelivered,
        (since, until): (Timestamp, Option<Timestamp>),
        request: &ReplayRequest,
    ) -> BTreeSet<Key> {
        let found = self.deliveries.iter().filter(|(_, row)| {
            row.endpoint == *endpoint
                && which.includes(row.status)
                && row.progress.queued_at >= since
                && until.is_none_or(|until| row.progress.queued_at < until)
                && !request.has_replayed(row.progress.queued_at)
        });
        found.map(|(key, _)| *key).collect()
    }

    fn missed(
        &self,
        endpoint: &EndpointKey,
        (since, until): (Timestamp, Option<Timestamp>),
    ) -> BTreeSet<Key> {
        let Some(found) = self.endpoints.get(endpoint) else { return BTreeSet::new() };
        let to = number(endpoint.id.as_str());
        let events = self.events.iter().filter(|(_, event)| {
            event.tenant == endpoint.tenant
                && found.endpoint.wants(&event.event_type)
                && event.accepted_at >= since
                && until.is_none_or(|until| event.accepted_at < until)
        });
        let keys = events.map(|(event, _)| Key { event: *event, endpoint: to });
        keys.filter(|key| !self.deliveries.contains_key(key)).collect()
    }

    fn missed_of(&self, tenant: &TenantId, event: usize) -> BTreeSet<Key> {
        let Some(found) = self.events.get(&event) else { return BTreeSet::new() };
        let wanting = self.wanting(tenant, &found.event_type).into_iter();
        let keys = wanting.map(|key| Key { event, endpoint: number(key.id.as_str()) });
        keys.filter(|key| !self.deliveries.contains_key(key)).collect()
    }
}

/// Returns the deliveries that a portion may make due. It must be all that are left if the portion
/// began with the first and no other one goes on after the last.
fn portion(
    request: &ReplayRequest,
    which: Undelivered,
    next: Option<ReplayCursor>,
    keys: impl FnOnce(ReplayCursor) -> BTreeSet<Key>,
) -> Expected {
    let Some(begin) = request.begin(which) else {
        return Expected { keys: BTreeSet::new(), is_all: true };
    };
    let is_all = match begin {
        ReplayCursor::Ended(after) => after == 0 && !matches!(next, Some(ReplayCursor::Ended(_))),
        ReplayCursor::Missed(after) => after == 0 && next.is_none(),
    };
    Expected { keys: keys(begin), is_all }
}

impl Refusal {
    fn is(self, error: &OperationError) -> bool {
        match error {
            OperationError::DisabledEndpoint { .. } => self == Self::Disabled,
            OperationError::WrongStatus { status, .. } => self == Self::Status(*status),
            OperationError::UnknownDelivery { .. } => self == Self::UnknownDelivery,
            OperationError::UnknownEndpoint { .. } => self == Self::UnknownEndpoint,
            OperationError::UnknownEvent { .. } => self == Self::UnknownEvent,
            _ => false,
        }
    }
}
