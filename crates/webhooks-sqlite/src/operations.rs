//! Operations on what waits: cancel, hasten.

use rusqlite::{OptionalExtension as _, params};
use webhooks_core::{DeliveryId, DeliveryStatus, EndpointId, Timestamp};
use webhooks_dispatch::{CancelReason, OperationError};
use webhooks_registry::{EndpointKey, EndpointNumber};

use crate::error::BadRow;
use crate::row;
use crate::store::Shared;
use crate::tables::Tables;
use crate::writer::Write;

/// A delivery's row, as operations need it.
pub(crate) struct Found {
    /// The row of its endpoint, and the endpoint.
    number: EndpointNumber,
    pub(crate) endpoint: EndpointKey,
    pub(crate) status: DeliveryStatus,
    /// When it is due, if it waits or is in flight.
    pub(crate) due_at: Option<Timestamp>,
    /// When it was accepted, or last replayed.
    pub(crate) since: Timestamp,
}

/// Reads a delivery. One that waits for a row that gets nothing more is as good as cancelled.
pub(crate) fn find(tables: &Tables, delivery: DeliveryId) -> rusqlite::Result<Option<Found>> {
    const FIND: &str = "
        SELECT endpoints.tenant, endpoints.id, endpoints.number, deliveries.status,
               deliveries.due_at, endpoints.state IN ('disabled', 'unregistered'),
               deliveries.since
        FROM deliveries JOIN endpoints ON endpoints.number = deliveries.endpoint
        WHERE deliveries.number = ?";
    let mut statement = tables.connection().prepare_cached(FIND)?;
    let found = statement.query_row([row::number(delivery)], |row| {
        let (id, status): (String, String) = (row.get(1)?, row.get(3)?);
        let id = EndpointId::new(&id);
        let id = id.map_err(|_why| BadRow::of("the id of an endpoint").in_column(1))?;
        let status = status.parse();
        let status = status.map_err(|_why| BadRow::of("the status of a delivery").in_column(3))?;
        let due_at: Option<i64> = row.get(4)?;
        let is_closed: bool = row.get(5)?;
        let is_cancelled = is_closed && due_at.is_some();
        Ok(Found {
            number: row::endpoint_number(row.get(2)?),
            endpoint: EndpointKey::new(row::tenant(row, 0)?, id),
            status: if is_cancelled { DeliveryStatus::Cancelled } else { status },
            due_at: due_at.map(row::time).filter(|_| !is_closed),
            since: row::time(row.get(6)?),
        })
    });
    found.optional()
}

pub(crate) struct Cancel {
    delivery: DeliveryId,
    cancelled: Result<(EndpointNumber, Timestamp), OperationError>,
    /// Whether its endpoint, an ordered one, waits no more for its retry.
    unblocks: bool,
}

impl Cancel {
    pub(crate) fn new(delivery: DeliveryId) -> Self {
        let cancelled = Err(OperationError::UnknownDelivery { delivery });
        Self { delivery, cancelled, unblocks: false }
    }
}

// It ends its group: it takes the lease away in `finish`, and `Settle` decides by the lease.
impl Write for Cancel {
    type Answer = Result<(), OperationError>;

    fn write(&mut self, tables: &mut Tables, _: &Shared) -> rusqlite::Result<()> {
        const CANCEL: &str = "UPDATE deliveries
            SET status = 'cancelled', due_at = NULL, cancelled = ?2 WHERE number = ?1";
        // If it was the first one of an ordered endpoint, the next one need not wait for its retry,
        // unless for its own.
        const UNBLOCK: &str = "UPDATE endpoints SET blocked_until = 0
            WHERE number = ?1 AND blocked_until > 0 AND NOT EXISTS (
                SELECT 1 FROM (
                    SELECT number, status FROM deliveries
                    WHERE endpoint = ?1 AND due_at IS NOT NULL ORDER BY due_at, number LIMIT 1
                ) next WHERE next.number < ?2 OR next.status = 'retrying')";
        let delivery = self.delivery;
        self.cancelled = match find(tables, delivery)? {
            None => Err(OperationError::UnknownDelivery { delivery }),
            Some(Found { status, due_at: None, .. }) => {
                Err(OperationError::Status { delivery, status })
            }
            Some(Found { number, due_at: Some(due_at), .. }) => {
                let reason = CancelReason::Manual.as_str();
                tables.execute(CANCEL, params![row::number(delivery), reason])?;
                tables.ended(delivery)?;
                let parameters = params![row::endpoint(number), row::number(delivery)];
                self.unblocks = tables.execute(UNBLOCK, parameters)? > 0;
                Ok((number, due_at))
            }
        };
        Ok(())
    }

    fn finish(self, _: &mut Tables, shared: &Shared) -> Self::Answer {
        let (endpoint, due_at) = self.cancelled?;
        let mut backlog = shared.backlog();
        backlog.remove(endpoint, due_at, self.delivery);
        if self.unblocks {
            backlog.unblock(endpoint);
        }
        Ok(())
    }
}

pub(crate) struct Hasten {
    now: Timestamp,
    endpoints: Vec<EndpointNumber>,
}

impl Hasten {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { now, endpoints: Vec::new() }
    }
}

// It ends its group: it changes in `finish` when what waits in memory is due, and `Settle` puts
// deliveries back by that.
impl Write for Hasten {
    type Answer = ();

    fn write(&mut self, tables: &mut Tables, shared: &Shared) -> rusqlite::Result<()> {
        const HASTEN: &str = "UPDATE deliveries SET due_at = ?2
            WHERE endpoint = ?1 AND due_at > ?2 AND status = 'pending'";
        self.endpoints.clear();
        for registration in shared.registry.page(None, None, usize::MAX) {
            let endpoint = registration.number;
            let parameters = params![row::endpoint(endpoint), row::micros(self.now)];
            if tables.execute(HASTEN, parameters)? > 0 {
                self.endpoints.push(endpoint);
            }
        }
        Ok(())
    }

    fn finish(self, _: &mut Tables, shared: &Shared) -> Self::Answer {
        let mut backlog = shared.backlog();
        for endpoint in self.endpoints {
            backlog.hasten(endpoint, self.now);
        }
    }
}
