//! A delivery's row, as operations and replays read it.

use rusqlite::{Connection, OptionalExtension as _};
use webhooks_core::{DeliveryId, DeliveryStatus, EventId, Timestamp};
use webhooks_registry::{EndpointKey, EndpointNumber};

use crate::error::BadRow;
use crate::row;

/// A delivery's row.
pub(crate) struct DeliveryRow {
    /// The row of its endpoint, which may be an earlier one of the endpoint.
    pub(crate) number: EndpointNumber,
    pub(crate) endpoint: EndpointKey,
    pub(crate) status: DeliveryStatus,
    /// The time at which it is due, if it waits or is in flight.
    pub(crate) due_at: Option<Timestamp>,
    pub(crate) is_scheduled: bool,
    /// The time at which it was accepted, or last replayed.
    pub(crate) queued_at: Timestamp,
    /// Its event, if that was expunged.
    pub(crate) expunged: Option<EventId>,
}

impl DeliveryRow {
    /// Reads a delivery. One that still waits for a closed endpoint counts as cancelled: the writer
    /// cancels it in one of its next batches.
    pub(crate) fn find(
        connection: &Connection,
        delivery: DeliveryId,
    ) -> rusqlite::Result<Option<Self>> {
        const FIND: &str = "
            SELECT endpoints.tenant, endpoints.id, endpoints.number, deliveries.status,
                   deliveries.due_at, endpoints.state IN ('disabled', 'unregistered'),
                   deliveries.queued_at, events.id, events.expunged_at IS NOT NULL,
                   deliveries.is_scheduled IS NOT NULL
            FROM deliveries JOIN endpoints ON endpoints.number = deliveries.endpoint
            JOIN events ON events.number = deliveries.event
            WHERE deliveries.number = ?";
        let mut statement = connection.prepare_cached(FIND)?;
        let found = statement.query_row([row::number(delivery)], |row| {
            let (id, status): (_, String) = (row::endpoint_id(row, 1)?, row.get(3)?);
            let status = status.parse();
            let status =
                status.map_err(|_why| BadRow::of("the status of a delivery").in_column(3))?;
            let due_at: Option<i64> = row.get(4)?;
            let is_closed: bool = row.get(5)?;
            let is_cancelled = is_closed && due_at.is_some();
            Ok(Self {
                number: row::endpoint_number(row.get(2)?),
                endpoint: EndpointKey::new(row::tenant(row, 0)?, id),
                status: if is_cancelled { DeliveryStatus::Cancelled } else { status },
                due_at: due_at.map(row::time).filter(|_| !is_closed),
                is_scheduled: row.get(9)?,
                queued_at: row::time(row.get(6)?),
                expunged: if row.get(8)? { Some(row::event_id(row, 7)?) } else { None },
            })
        });
        found.optional()
    }
}
