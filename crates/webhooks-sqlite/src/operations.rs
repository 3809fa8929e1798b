//! Operations on single deliveries and many: cancel, replay.

use std::sync::Arc;

use rusqlite::{OptionalExtension as _, params};
use webhooks_core::{DeliveryId, DeliveryStatus, EndpointId, Timestamp};
use webhooks_dispatch::backlog::{Waiting, due_in_order};
use webhooks_dispatch::{
    OperationError, Progress, Replay, ReplayRequest, Replayed, SerializedEvent,
};
use webhooks_registry::Registration;

use crate::error::BadRow;
use crate::row;
use crate::store::Shared;
use crate::tables::{Tables, waiting};
use crate::writer::Write;

/// A delivery's row, as operations need it.
struct Found {
    endpoint: EndpointId,
    status: DeliveryStatus,
    due_at: Option<Timestamp>,
    /// The number of its endpoint's row.
    row: i64,
    /// Whether that row is the current one.
    is_current: bool,
    /// Whether anything is delivered for that row; else what waits for it is being cancelled.
    is_live: bool,
}

fn find(tables: &Tables, delivery: DeliveryId) -> rusqlite::Result<Option<Found>> {
    const FIND: &str = "
        SELECT endpoints.id, deliveries.status, deliveries.due_at, endpoints.number,
               endpoints.is_current, endpoints.is_current AND endpoints.active
        FROM deliveries JOIN endpoints ON endpoints.number = deliveries.endpoint
        WHERE deliveries.number = ?";
    let mut statement = tables.connection().prepare_cached(FIND)?;
    let found = statement.query_row([row::number(delivery)], |row| {
        let (endpoint, status): (String, String) = (row.get(0)?, row.get(1)?);
        let due_at: Option<i64> = row.get(2)?;
        Ok(Found {
            endpoint: EndpointId::new(&endpoint)
                .map_err(|_why| BadRow::of("the id of an endpoint").in_column(0))?,
            status: status
                .parse()
                .map_err(|_why| BadRow::of("the status of a delivery").in_column(1))?,
            due_at: due_at.map(row::time),
            row: row.get(3)?,
            is_current: row.get(4)?,
            is_live: row.get(5)?,
        })
    });
    found.optional()
}

pub(crate) struct Cancel {
    delivery: DeliveryId,
    cancelled: Result<(EndpointId, Timestamp), OperationError>,
}

impl Cancel {
    pub(crate) fn new(delivery: DeliveryId) -> Self {
        Self { delivery, cancelled: Err(OperationError::UnknownDelivery { delivery }) }
    }
}

// It ends its group: it takes the lease away in `finish`, and `Settle` decides by the lease.
impl Write for Cancel {
    type Answer = Result<(), OperationError>;

    fn write(&mut self, tables: &mut Tables, _: &Shared) -> rusqlite::Result<()> {
        const CANCEL: &str =
            "UPDATE deliveries SET status = 'cancelled', due_at = NULL WHERE number = ?";
        // If it was the first one of an ordered endpoint, the next one need not wait for its retry.
        const UNBLOCK: &str = "UPDATE endpoints SET blocked_until = 0
            WHERE number = ?1 AND blocked_until > 0 AND NOT EXISTS (
                SELECT 1 FROM deliveries
                WHERE endpoint = ?1 AND due_at IS NOT NULL AND number < ?2)";
        let delivery = self.delivery;
        self.cancelled = match find(tables, delivery)? {
            None => Err(OperationError::UnknownDelivery { delivery }),
            Some(Found { status, due_at: None, .. }) => {
                Err(OperationError::Status { delivery, status })
            }
            // The drain just has not come to it yet.
            Some(Found { is_live: false, .. }) => {
                Err(OperationError::Status { delivery, status: DeliveryStatus::Cancelled })
            }
            Some(Found { endpoint, due_at: Some(due_at), row: number, .. }) => {
                tables.execute(CANCEL, [row::number(delivery)])?;
                tables.ended(delivery)?;
                tables.execute(UNBLOCK, [number, row::number(delivery)])?;
                Ok((endpoint, due_at))
            }
        };
        Ok(())
    }

    fn finish(self, _: &mut Tables, shared: &Shared) -> Self::Answer {
        let (endpoint, due_at) = self.cancelled?;
        shared.backlog().remove(&endpoint, due_at, self.delivery);
        Ok(())
    }
}

pub(crate) struct Replaying {
    request: ReplayRequest,
    outcome: Result<Replayed, OperationError>,
    due: Vec<(EndpointId, Timestamp, DeliveryId, Waiting)>,
}

impl Replaying {
    pub(crate) fn new(request: ReplayRequest) -> Self {
        Self { request, outcome: Ok(Replayed { deliveries: 0, next: None }), due: Vec::new() }
    }

    fn replay(
        &mut self,
        tables: &mut Tables,
        shared: &Shared,
    ) -> rusqlite::Result<Result<Replayed, OperationError>> {
        match self.request.replay.clone() {
            Replay::Delivery(delivery) => self.replay_one(tables, shared, delivery),
            Replay::Failed { endpoint, since } => match active(shared, &endpoint) {
                Ok(registration) => self.replay_failed(tables, &registration, since).map(Ok),
                Err(error) => Ok(Err(error)),
            },
            Replay::Missed { endpoint, since } => match active(shared, &endpoint) {
                Ok(registration) => self.replay_missed(tables, &registration, since).map(Ok),
                Err(error) => Ok(Err(error)),
            },
        }
    }

    fn replay_one(
        &mut self,
        tables: &Tables,
        shared: &Shared,
        delivery: DeliveryId,
    ) -> rusqlite::Result<Result<Replayed, OperationError>> {
        let Some(found) = find(tables, delivery)? else {
            return Ok(Err(OperationError::UnknownDelivery { delivery }));
        };
        if found.due_at.is_some() {
            return Ok(Err(OperationError::Status { delivery, status: found.status }));
        }
        let registration = match active(shared, &found.endpoint) {
            Ok(registration) if found.is_current => registration,
            Ok(_) => return Ok(Err(OperationError::UnknownEndpoint { endpoint: found.endpoint })),
            Err(error) => return Ok(Err(error)),
        };
        self.reopen(tables, &registration, delivery)?;
        Ok(Ok(Replayed { deliveries: 1, next: None }))
    }

    fn replay_failed(
        &mut self,
        tables: &Tables,
        registration: &Registration,
        since: Timestamp,
    ) -> rusqlite::Result<Replayed> {
        const FAILED: &str = "SELECT number FROM deliveries INDEXED BY deliveries_failed
            WHERE endpoint = ?1 AND status = 'failed' AND number > ?2 AND since >= ?3 AND since < ?4
            ORDER BY number LIMIT ?5";
        let failed: Vec<i64> = {
            let mut statement = tables.connection().prepare_cached(FAILED)?;
            let parameters = params![
                tables.number(&registration.id),
                self.request.after.map_or(0, row::integer),
                row::micros(since),
                row::micros(self.request.now),
                i64::try_from(self.request.limit).unwrap_or(i64::MAX),
            ];
            statement.query_map(parameters, |row| row.get(0))?.collect::<Result<_, _>>()?
        };
        for number in &failed {
            self.reopen(tables, registration, row::delivery_id(*number))?;
        }
        let next = failed.last().filter(|_| failed.len() >= self.request.limit);
        Ok(Replayed { deliveries: failed.len(), next: next.map(|next| row::unsigned(*next)) })
    }

    fn replay_missed(
        &mut self,
        tables: &mut Tables,
        registration: &Registration,
        since: Timestamp,
    ) -> rusqlite::Result<Replayed> {
        const EVENTS: &str = "
            SELECT number, id, tenant, type, body,
                   EXISTS (SELECT 1 FROM deliveries WHERE event = events.number AND endpoint IN (
                       SELECT number FROM endpoints WHERE id = ?4))
            FROM events WHERE number > ?1 AND accepted_at >= ?2 ORDER BY number LIMIT ?3";
        let seen: Vec<(i64, SerializedEvent, bool)> = {
            let mut statement = tables.connection().prepare_cached(EVENTS)?;
            let parameters = params![
                self.request.after.map_or(0, row::integer),
                row::micros(since),
                i64::try_from(self.request.limit).unwrap_or(i64::MAX),
                registration.id.as_str(),
            ];
            let rows = statement
                .query_map(parameters, |row| Ok((row.get(0)?, row::event(row, 1)?, row.get(5)?)))?;
            rows.collect::<Result<_, _>>()?
        };
        let next = seen.last().filter(|_| seen.len() >= self.request.limit);
        let next = next.map(|(number, ..)| row::unsigned(*number));
        let (now, endpoint) = (self.request.now, &registration.endpoint);
        let mut deliveries = 0;
        let mut insert = tables.insert()?;
        for (number, event, has_it) in seen {
            if has_it || event.tenant != endpoint.tenant || !endpoint.wants(&event.event_type) {
                continue;
            }
            let (id, due_at) = insert.delivery(number, registration, now)?;
            let waiting = waiting(&Arc::new(event), Progress::start(now));
            self.due.push((registration.id.clone(), due_at, id, waiting));
            deliveries += 1;
        }
        Ok(Replayed { deliveries, next })
    }

    /// Makes a delivery that has ended due once more.
    fn reopen(
        &mut self,
        tables: &Tables,
        registration: &Registration,
        delivery: DeliveryId,
    ) -> rusqlite::Result<()> {
        const READ: &str = "
            SELECT deliveries.since, deliveries.attempts, deliveries.earlier_attempts,
                   events.id, events.tenant, events.type, events.body
            FROM deliveries JOIN events ON events.number = deliveries.event
            WHERE deliveries.number = ?";
        const REOPEN: &str = "UPDATE deliveries SET status = 'pending', since = ?2,
            earlier_attempts = attempts, due_at = ?3 WHERE number = ?1";
        let (number, now) = (row::number(delivery), self.request.now);
        let mut statement = tables.connection().prepare_cached(READ)?;
        let read = |row: &rusqlite::Row<'_>| Ok((row::progress(row, 0)?, row::event(row, 3)?));
        let (progress, event) = statement.query_row([number], read)?;
        let due_at = due_in_order(&registration.endpoint, now);
        tables.execute(REOPEN, params![number, row::micros(now), row::micros(due_at)])?;
        let waiting = waiting(&Arc::new(event), progress.replayed(now));
        self.due.push((registration.id.clone(), due_at, delivery, waiting));
        Ok(())
    }
}

// It ends its group, as all that are not frequent do. It reads registrations and row numbers, which
// neither `Publish` nor `Settle` nor `Prune` changes, and deliveries from their rows.
impl Write for Replaying {
    type Answer = Result<Replayed, OperationError>;

    fn write(&mut self, tables: &mut Tables, shared: &Shared) -> rusqlite::Result<()> {
        self.due.clear();
        self.outcome = self.replay(tables, shared)?;
        Ok(())
    }

    fn finish(self, _: &mut Tables, shared: &Shared) -> Self::Answer {
        let mut backlog = shared.backlog();
        for (endpoint, due_at, id, waiting) in self.due {
            backlog.push(&endpoint, due_at, id, waiting);
        }
        self.outcome
    }
}

fn active(shared: &Shared, endpoint: &EndpointId) -> Result<Arc<Registration>, OperationError> {
    let found = shared.registry.get(endpoint.as_str());
    let found = found.filter(|registration| registration.endpoint.active);
    found.ok_or_else(|| OperationError::UnknownEndpoint { endpoint: endpoint.clone() })
}
