//! The history of the store in memory.

use std::collections::VecDeque;

use webhooks_core::{DeliveryId, EventId, TenantId};

use super::{Entry, EventEntry, MemoryStore, State};
use crate::history::{
    AttemptRecord, Cursor, DeliveryRecord, EndedPage, EndedRequest, EventRecord, EventSummary,
    FeedPage, FeedRequest, HistoryStore, LastAttempt, Page, Query, SearchPage, SearchRequest,
    Trouble, TroubleRequest,
};
use crate::store::{Attempt, StoreError};

impl HistoryStore for MemoryStore {
    async fn event(
        &self,
        tenant: TenantId,
        id: EventId,
    ) -> Result<Option<EventRecord>, StoreError> {
        let state = self.state();
        let number = state.by_id.get(&(tenant, id));
        let found = number.and_then(|number| state.events.get(number));
        Ok(found.map(event_record))
    }

    async fn events(&self, query: Query) -> Result<Page<EventSummary>, StoreError> {
        let state = self.state();
        let found = state.events_of(&query).map(|(cursor, entry)| (cursor, event_summary(entry)));
        Ok(page(&query, found))
    }

    async fn search(&self, request: SearchRequest) -> Result<SearchPage, StoreError> {
        let state = self.state();
        let SearchRequest { query, text, .. } = &request;
        let mut found = SearchPage { items: Vec::new(), next: None, looked_to: None };
        let is_behind = |cursor: Cursor| query.after.is_none_or(|after| cursor < after);
        let mut events = state.events_of(query).filter(|(cursor, _)| is_behind(*cursor)).peekable();
        for (cursor, entry) in events.by_ref().take(request.looks()) {
            found.looked_to = Some(entry.accepted_at);
            found.next = Some(cursor);
            if has_text(&entry.event.body, text.as_bytes()) {
                found.items.push(event_summary(entry));
                if found.items.len() >= query.page_size() {
                    break;
                }
            }
        }
        if events.peek().is_none() {
            found.next = None;
        }
        Ok(found)
    }

    async fn feed(&self, request: FeedRequest) -> Result<FeedPage, StoreError> {
        let state = self.state();
        let is_in = |entry: &EventEntry| {
            request.tenant.as_ref().is_none_or(|tenant| *tenant == entry.event.tenant)
                && request.since.is_none_or(|since| entry.accepted_at >= since)
        };
        let first = request.place().key.saturating_add(1);
        let events = state.events.range(first..).filter(|(_, entry)| is_in(entry));
        let mut bytes = 0;
        let items = events.take(request.page_size()).take_while(|(_, entry)| {
            let is_room = bytes < request.max_bytes.max(1);
            bytes += entry.event.body.len();
            is_room
        });
        let items = items.map(|(number, entry)| (place(*number), event_record(entry))).collect();
        Ok(request.page(items))
    }

    async fn feed_end(&self) -> Result<Cursor, StoreError> {
        let state = self.state();
        Ok(place(state.next_event.saturating_sub(1)))
    }

    async fn troubles(&self, request: TroubleRequest) -> Result<Vec<Trouble>, StoreError> {
        let mut found: Vec<Trouble> = self.state().troubles_of(&request).collect();
        found.sort_by_key(|found| (found.started_at, found.delivery, found.number));
        found.truncate(request.page_size());
        Ok(found)
    }

    async fn ended_attempts(&self, request: EndedRequest) -> Result<EndedPage, StoreError> {
        let state = self.state();
        let all = state.attempts.iter().filter_map(|((id, number), attempt)| {
            let entry = state.deliveries.get(id)?;
            let event = state.events.get(&entry.event)?;
            let is_own = event.event.tenant == request.tenant;
            is_own.then(|| attempt_record((*id, entry, event), *number, attempt))
        });
        let is_behind = |found: &AttemptRecord| found.ended_place() > request.after;
        let mut found: Vec<AttemptRecord> = all.filter(is_behind).collect();
        found.sort_by_key(AttemptRecord::ended_place);
        found.truncate(request.page_size());
        Ok(request.page(found))
    }

    async fn deliveries(&self, query: Query) -> Result<Page<DeliveryRecord>, StoreError> {
        let state = self.state();
        let found = state.deliveries_of(&query).map(|(id, entry, event)| {
            let record = DeliveryRecord {
                id,
                event: event.event.id.clone(),
                event_type: event.event.event_type.clone(),
                tenant: event.event.tenant.clone(),
                endpoint: entry.endpoint.clone(),
                status: entry.status,
                cancelled: entry.cancelled,
                attempts: entry.progress.attempts,
                attempts_before_replay: entry.progress.attempts_before_replay,
                created_at: entry.created_at,
                queued_at: entry.progress.queued_at,
                due_at: entry.is_open().then(|| entry.due_at.max(entry.progress.queued_at)),
                is_claimed: state.backlog.is_claimed(id),
                ended_at: entry.ended_at,
                last_attempt: state.last_attempt(id).map(LastAttempt::from),
            };
            (Cursor { key: id.as_u64(), attempt: 0 }, record)
        });
        Ok(page(&query, found))
    }

    async fn attempts(&self, query: Query) -> Result<Page<AttemptRecord>, StoreError> {
        let state = self.state();
        // The filters for attempts judge each attempt here, and not the last one alone.
        let of_deliveries =
            Query { error_classes: Vec::new(), status_codes: None, ..query.clone() };
        let found = state.deliveries_of(&of_deliveries).flat_map(|(id, entry, event)| {
            let attempts = state.attempts.range((id, 0)..=(id, u32::MAX)).rev();
            let attempts = attempts.filter(|(_, attempt)| is_attempt_in(&query, Some(attempt)));
            attempts.map(move |((_, number), attempt)| {
                let record = attempt_record((id, entry, event), *number, attempt);
                (Cursor { key: id.as_u64(), attempt: *number }, record)
            })
        });
        Ok(page(&query, found))
    }
}

fn attempt_record(
    (delivery, entry, event): (DeliveryId, &Entry, &EventEntry),
    number: u32,
    attempt: &Attempt,
) -> AttemptRecord {
    AttemptRecord {
        delivery,
        event: event.event.id.clone(),
        event_type: event.event.event_type.clone(),
        tenant: event.event.tenant.clone(),
        endpoint: entry.endpoint.clone(),
        number,
        attempt: attempt.clone(),
    }
}

impl State {
    /// Returns all troubles behind the place of a request, in no order.
    fn troubles_of(&self, request: &TroubleRequest) -> impl Iterator<Item = Trouble> {
        let place = (request.since, request.place());
        let is_behind = move |id: DeliveryId, number: u32, attempt: &Attempt| {
            (attempt.started_at, Cursor { key: id.as_u64(), attempt: number }) > place
        };
        let troubles = self.attempts.iter().filter(move |((id, number), attempt)| {
            (*number > 1 || attempt.error.is_some()) && is_behind(*id, *number, attempt)
        });
        troubles.filter_map(|((id, number), attempt)| {
            let entry = self.deliveries.get(id)?;
            let event = self.events.get(&entry.event)?;
            Some(Trouble {
                delivery: *id,
                number: *number,
                tenant: event.event.tenant.clone(),
                endpoint: entry.endpoint.clone(),
                started_at: attempt.started_at,
                duration: attempt.duration,
                has_failed: attempt.error.is_some(),
                status: entry.status,
                attempts: entry.progress.attempts,
                attempts_before_replay: entry.progress.attempts_before_replay,
            })
        })
    }

    /// Returns the events that a query asks for, the newest first.
    fn events_of(&self, query: &Query) -> impl Iterator<Item = (Cursor, &EventEntry)> {
        // From the page on: the entries of the pages before it need not be looked at again.
        let last = query.after.map_or(u64::MAX, |after| after.key);
        let events = self.events.range(..=last).rev();
        let events = events.filter(|(_, entry)| self.is_event_of(query, entry));
        events.map(|(number, entry)| (place(*number), entry))
    }

    fn is_event_of(&self, query: &Query, entry: &EventEntry) -> bool {
        is_event_in(query, entry)
            && (!query.is_about_deliveries()
                || (entry.deliveries.iter())
                    .filter_map(|id| Some((*id, self.deliveries.get(id)?)))
                    .any(|(id, delivery)| self.is_delivery_in(query, id, delivery)))
    }

    /// Returns the deliveries that a query asks for, the newest first.
    fn deliveries_of(
        &self,
        query: &Query,
    ) -> impl Iterator<Item = (DeliveryId, &Entry, &EventEntry)> {
        let last = DeliveryId::from_u64(query.after.map_or(u64::MAX, |after| after.key));
        (self.deliveries.range(..=last).rev())
            .filter(|(id, entry)| self.is_delivery_in(query, **id, entry))
            .filter_map(|(id, entry)| Some((*id, entry, self.events.get(&entry.event)?)))
            .filter(|(_, _, event)| is_event_in(query, event))
    }

    fn is_delivery_in(&self, query: &Query, id: DeliveryId, entry: &Entry) -> bool {
        let attempts = &entry.progress.attempts;
        query.endpoint.as_ref().is_none_or(|endpoint| *endpoint == entry.endpoint)
            && query.delivery.is_none_or(|delivery| delivery == id)
            && (query.statuses.is_empty() || query.statuses.contains(&entry.status))
            && query.attempts.as_ref().is_none_or(|range| range.contains(attempts))
            && (!query.is_about_attempts() || is_attempt_in(query, self.last_attempt(id)))
    }

    fn last_attempt(&self, delivery: DeliveryId) -> Option<&Attempt> {
        let attempts = self.attempts.range((delivery, 0)..=(delivery, u32::MAX));
        attempts.last().map(|(_, attempt)| attempt)
    }
}

fn is_event_in(query: &Query, entry: &EventEntry) -> bool {
    let event = &entry.event;
    query.tenant.as_ref().is_none_or(|tenant| *tenant == event.tenant)
        && query.event.as_ref().is_none_or(|id| *id == event.id)
        && query.event_type.as_ref().is_none_or(|pattern| pattern.matches(&event.event_type))
        && query.channel.as_ref().is_none_or(|channel| event.channels.contains(channel))
        && query.tag.as_ref().is_none_or(|tag| event.tags.contains(tag))
        && query.since.is_none_or(|since| entry.accepted_at >= since)
        && query.until.is_none_or(|until| entry.accepted_at < until)
}

fn is_attempt_in(query: &Query, attempt: Option<&Attempt>) -> bool {
    let class = attempt.and_then(|attempt| attempt.error_class);
    let status = attempt.and_then(|attempt| attempt.status_code);
    (query.error_classes.is_empty()
        || class.is_some_and(|class| query.error_classes.contains(&class)))
        && (query.status_codes.as_ref())
            .is_none_or(|range| status.is_some_and(|status| range.contains(&status)))
}

/// Returns the page of a list, the newest first, that a query asks for.
fn page<T>(query: &Query, found: impl Iterator<Item = (Cursor, T)>) -> Page<T> {
    let limit = query.page_size();
    let found = found.filter(|(cursor, _)| query.after.is_none_or(|after| *cursor < after));
    let (kept, is_more) = match query.before {
        None => {
            // One more entry shows whether anything follows the page.
            let mut kept: VecDeque<(Cursor, T)> = found.take(limit + 1).collect();
            let is_more = kept.len() > limit;
            kept.truncate(limit);
            (kept, is_more)
        }
        Some(before) => {
            let mut kept = VecDeque::new();
            for entry in found.take_while(|(cursor, _)| *cursor > before) {
                kept.push_back(entry);
                if kept.len() > limit {
                    kept.pop_front();
                }
            }
            // The entry of the cursor follows at least.
            (kept, true)
        }
    };
    let next = kept.back().map(|(cursor, _)| *cursor).filter(|_| is_more);
    let previous = kept.front().map(|(cursor, _)| *cursor);
    Page { items: kept.into_iter().map(|(_, item)| item).collect(), next, previous }
}

fn has_text(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|window| window == text)
}

/// Returns the place of an event in lists of events.
fn place(number: u64) -> Cursor {
    Cursor { key: number, attempt: 0 }
}

fn event_record(entry: &EventEntry) -> EventRecord {
    EventRecord { summary: event_summary(entry), body: entry.event.body.clone() }
}

fn event_summary(entry: &EventEntry) -> EventSummary {
    let event = &entry.event;
    EventSummary {
        id: event.id.clone(),
        event_type: event.event_type.clone(),
        tenant: event.tenant.clone(),
        channels: event.channels.clone(),
        tags: event.tags.clone(),
        accepted_at: entry.accepted_at,
        deliver_at: event.deliver_at,
        only: event.only.clone(),
        deliveries: entry.accepted_for,
        body_len: event.body.len(),
        expunged_at: entry.expunged_at,
        trace: event.trace.clone(),
    }
}
