//! The history of the store in memory.

use std::collections::HashSet;

use webhooks_core::{DeliveryId, DeliveryStatus, Event, EventId, TenantId, Timestamp};
use webhooks_registry::EndpointKey;

use super::{Entry, EventEntry, MemoryStore, State};
use crate::history::{
    AttemptRecord, Cursor, DeliveryRecord, EventRecord, HistoryStore, Page, Query, Statistics,
};
use crate::store::StoreError;

impl HistoryStore for MemoryStore {
    async fn event(
        &self,
        tenant: TenantId,
        id: EventId,
    ) -> Result<Option<EventRecord>, StoreError> {
        let state = self.state();
        let number = state.by_id.get(&(tenant, id));
        number.and_then(|number| state.events.get(number)).map(event_record).transpose()
    }

    async fn events(&self, query: Query) -> Result<Page<EventRecord>, StoreError> {
        let state = self.state();
        let after = query.after.map_or(u64::MAX, |cursor| cursor.key);
        let found = (state.events.range(..after).rev())
            .filter(|(_, entry)| state.is_event_of(&query, entry))
            .map(|(number, entry)| (Cursor { key: *number, attempt: 0 }, entry));
        let Page { items, next } = page(found, query.page_size());
        Ok(Page { items: items.into_iter().map(event_record).collect::<Result<_, _>>()?, next })
    }

    async fn deliveries(&self, query: Query) -> Result<Page<DeliveryRecord>, StoreError> {
        let state = self.state();
        let after = query.after.map_or(u64::MAX, |cursor| cursor.key);
        let found =
            (state.deliveries_of(&query, DeliveryId::from_u64(after))).map(|(id, entry, event)| {
                let record = DeliveryRecord {
                    id,
                    event: event.event.id.clone(),
                    event_type: event.event.event_type.clone(),
                    tenant: event.event.tenant.clone(),
                    endpoint: entry.endpoint.clone(),
                    status: entry.status,
                    cancelled: entry.cancelled,
                    attempts: entry.progress.attempts,
                    queued_at: entry.progress.queued_at,
                    due_at: entry.is_open().then(|| entry.due_at.max(entry.progress.queued_at)),
                };
                (Cursor { key: id.as_u64(), attempt: 0 }, record)
            });
        Ok(page(found, query.page_size()))
    }

    async fn attempts(&self, query: Query) -> Result<Page<AttemptRecord>, StoreError> {
        let state = self.state();
        let after = query.after.unwrap_or(Cursor { key: u64::MAX, attempt: 0 });
        let to = DeliveryId::from_u64(after.key.saturating_add(1));
        let found = (state.deliveries_of(&query, to))
            .flat_map(|(id, entry, _)| {
                let attempts = state.attempts.range((id, 0)..=(id, u32::MAX)).rev();
                attempts.map(move |((_, number), attempt)| {
                    let record = AttemptRecord {
                        delivery: id,
                        endpoint: entry.endpoint.clone(),
                        number: *number,
                        attempt: attempt.clone(),
                    };
                    (Cursor { key: id.as_u64(), attempt: *number }, record)
                })
            })
            .filter(|(cursor, _)| *cursor < after);
        Ok(page(found, query.page_size()))
    }

    async fn statistics(
        &self,
        endpoint: EndpointKey,
        since: Timestamp,
    ) -> Result<Statistics, StoreError> {
        let state = self.state();
        let current = state.registry.get_of(&endpoint);
        let failing = current.and_then(|current| state.failing.get(&current.number));
        let failing_since = failing.map(|failing| failing.since);
        let mut statistics = Statistics { failing_since, ..Statistics::default() };
        for entry in state.deliveries.values() {
            let is_tenants = || {
                let event = state.events.get(&entry.event);
                event.is_some_and(|event| event.event.tenant == endpoint.tenant)
            };
            if entry.endpoint == endpoint.id && entry.progress.queued_at >= since && is_tenants() {
                statistics.count(entry.status, 1);
            }
        }
        Ok(statistics)
    }

    async fn waiting(&self, limit: u64) -> Result<u64, StoreError> {
        let state = self.state();
        let waiting = state.deliveries.values().filter(|entry| {
            matches!(entry.status, DeliveryStatus::Pending | DeliveryStatus::Retrying)
        });
        Ok(waiting.zip(0..limit).count() as u64)
    }

    async fn prune(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let mut state = self.state();
        // Only events that have ended are looked at, so a long queue does not make this slow.
        let old: Vec<u64> = (state.ended.iter())
            .filter(|number| {
                let entry = state.events.get(number);
                entry.is_some_and(|entry| entry.open == 0 && entry.accepted_at < before)
            })
            .copied()
            .take(limit)
            .collect();
        let forgotten = old.iter().filter(|number| state.forget(**number)).count();
        if forgotten > 0 {
            let old: HashSet<u64> = old.into_iter().collect();
            state.ended.retain(|number| !old.contains(number));
        }
        Ok(forgotten)
    }
}

impl State {
    fn is_event_of(&self, query: &Query, entry: &EventEntry) -> bool {
        let about_deliveries =
            query.endpoint.is_some() || query.status.is_some() || query.delivery.is_some();
        is_event_in(query, entry)
            && (!about_deliveries
                || (entry.deliveries.iter())
                    .filter_map(|id| Some((*id, self.deliveries.get(id)?)))
                    .any(|(id, delivery)| is_delivery_in(query, id, delivery)))
    }

    /// Returns the deliveries before `to` that a query asks for, the newest first.
    fn deliveries_of<'s>(
        &'s self,
        query: &'s Query,
        to: DeliveryId,
    ) -> impl Iterator<Item = (DeliveryId, &'s Entry, &'s EventEntry)> {
        (self.deliveries.range(..to).rev())
            .filter(|(id, entry)| is_delivery_in(query, **id, entry))
            .filter_map(|(id, entry)| Some((*id, entry, self.events.get(&entry.event)?)))
            .filter(|(_, _, event)| is_event_in(query, event))
    }
}

fn is_event_in(query: &Query, entry: &EventEntry) -> bool {
    let event = &entry.event;
    query.tenant.as_ref().is_none_or(|tenant| *tenant == event.tenant)
        && query.event.as_ref().is_none_or(|id| *id == event.id)
        && query.event_type.as_ref().is_none_or(|pattern| pattern.matches(&event.event_type))
        && query.since.is_none_or(|since| entry.accepted_at >= since)
        && query.until.is_none_or(|until| entry.accepted_at < until)
}

fn is_delivery_in(query: &Query, id: DeliveryId, entry: &Entry) -> bool {
    query.endpoint.as_ref().is_none_or(|endpoint| *endpoint == entry.endpoint)
        && query.delivery.is_none_or(|delivery| delivery == id)
        && query.status.is_none_or(|status| status == entry.status)
}

/// Takes a page, and one more entry to see whether anything follows it.
fn page<T>(found: impl Iterator<Item = (Cursor, T)>, limit: usize) -> Page<T> {
    let mut found: Vec<(Cursor, T)> = found.take(limit + 1).collect();
    let is_more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().map(|(cursor, _)| *cursor).filter(|_| is_more);
    Page { items: found.into_iter().map(|(_, item)| item).collect(), next }
}

fn event_record(entry: &EventEntry) -> Result<EventRecord, StoreError> {
    let event = Event::from_stored(&entry.event.body, entry.event.tenant.clone())
        .map_err(|source| StoreError::Corrupt { source: source.into() })?;
    Ok(EventRecord { event, accepted_at: entry.accepted_at })
}
