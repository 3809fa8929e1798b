//! Adding events and deliveries, and the numbers that they get.

use rusqlite::{CachedStatement, Connection, params};
use webhooks_core::{DeliveryId, Timestamp};
use webhooks_dispatch::backlog::QueuedDelivery;
use webhooks_dispatch::store::SerializedEvent;
use webhooks_registry::Registration;

use crate::row;

/// The numbers of the next event and the next delivery.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    event: i64,
    delivery: i64,
}

impl Numbers {
    /// Reads the next numbers: behind all rows, the deleted ones included.
    pub(crate) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        const NEXT: &str = "
            SELECT max((SELECT ifnull(max(number), 0) + 1 FROM events),
                       (SELECT next FROM counters WHERE name = 'event')),
                   max((SELECT ifnull(max(number), 0) + 1 FROM deliveries),
                       (SELECT next FROM counters WHERE name = 'delivery'))";
        let numbers =
            |row: &rusqlite::Row<'_>| Ok(Self { event: row.get(0)?, delivery: row.get(1)? });
        connection.query_row(NEXT, (), numbers)
    }

    /// Stores the numbers. Without it, the numbers of deleted rows would be used again after a restart,
    /// and a delivery's id would name another delivery than before.
    pub(crate) fn save(self, connection: &Connection) -> rusqlite::Result<()> {
        const SAVE: &str = "UPDATE counters SET next = CASE name
            WHEN 'event' THEN ?1 WHEN 'delivery' THEN ?2 END";
        connection.prepare_cached(SAVE)?.execute([self.event, self.delivery]).map(drop)
    }
}

/// The statements that add events and deliveries, looked up once for many rows.
pub(crate) struct Inserter<'t> {
    event: CachedStatement<'t>,
    delivery: CachedStatement<'t>,
    next: &'t mut Numbers,
}

impl<'t> Inserter<'t> {
    pub(crate) fn prepare(
        connection: &'t Connection,
        next: &'t mut Numbers,
    ) -> rusqlite::Result<Self> {
        const EVENT: &str = "INSERT INTO events
            (number, id, tenant, type, accepted_at, deliveries, channels, tags, deliver_at,
             recipients, body, trace)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id, tenant) DO NOTHING";
        const DELIVERY: &str = "INSERT INTO deliveries
            (number, event, endpoint, status, queued_at, due_at, is_scheduled, created_at)
            VALUES (?, ?, ?, 'pending', ?, ?, ?, ?)";
        let event = connection.prepare_cached(EVENT)?;
        let delivery = connection.prepare_cached(DELIVERY)?;
        Ok(Self { event, delivery, next })
    }

    /// Adds an event, unless its tenant has one of this id. Returns the number of the new row.
    pub(crate) fn event(
        &mut self,
        event: &SerializedEvent,
        now: Timestamp,
        deliveries: usize,
    ) -> rusqlite::Result<Option<i64>> {
        let number = self.next.event;
        let added = self.event.execute(params![
            number,
            row::EventKey(&event.id),
            event.tenant.as_str(),
            event.event_type.as_str(),
            row::micros(now),
            row::count(deliveries),
            row::list(&event.channels)?,
            row::list(&event.tags)?,
            event.deliver_at.map(row::micros),
            event.only.as_ref().map(row::json).transpose()?,
            row::Json(&event.body),
            event.trace.as_ref().map(ToString::to_string),
        ])?;
        self.next.event += i64::from(added > 0);
        Ok((added > 0).then_some(number))
    }

    /// Adds a delivery that is due now unless it is scheduled; returns its id and the due time that is
    /// stored. `created_at` is set if it does not come with its event.
    pub(crate) fn delivery(
        &mut self,
        event: i64,
        registration: &Registration,
        queued: &QueuedDelivery,
        now: Timestamp,
        created_at: Option<Timestamp>,
    ) -> rusqlite::Result<(DeliveryId, Timestamp)> {
        let number = self.next.delivery;
        let endpoint = row::endpoint(registration.number);
        let due_at = queued.due_in_order(&registration.endpoint, now);
        self.delivery.execute(params![
            number,
            event,
            endpoint,
            row::micros(queued.progress.queued_at),
            row::micros(due_at),
            queued.is_scheduled.then_some(true),
            created_at.map(row::micros),
        ])?;
        self.next.delivery += 1;
        Ok((row::delivery_id(number), due_at))
    }
}
