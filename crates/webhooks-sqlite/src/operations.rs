//! Operations on what waits: cancel, hasten.

use rusqlite::{OptionalExtension as _, params};
use webhooks_core::{DeliveryId, DeliveryStatus, EndpointId, Timestamp};
use webhooks_dispatch::backlog::QueueKey;
use webhooks_dispatch::{OperationError, store::CancelReason};
use webhooks_registry::{EndpointKey, EndpointNumber};

use crate::error::BadRow;
use crate::row;
use crate::store::Shared;
use crate::tables::Tables;
use crate::writer::Write;

/// How many deliveries one [`Hasten`] looks at, at most.
const LOOK: usize = if cfg!(test) { 5 } else { 1_000 };

/// What waits for an endpoint behind a place, in order.
const LATE: &str = "SELECT due_at, number, status = 'pending' FROM deliveries
    WHERE endpoint = ?1 AND due_at IS NOT NULL AND (due_at, number) > (?2, ?3)
    ORDER BY due_at, number LIMIT ?4";

/// A delivery's row, as operations need it.
pub(crate) struct Found {
    /// The row of its endpoint, and the endpoint.
    number: EndpointNumber,
    pub(crate) endpoint: EndpointKey,
    pub(crate) status: DeliveryStatus,
    /// When it is due, if it waits or is in flight.
    pub(crate) due_at: Option<Timestamp>,
    /// When it was accepted, or last replayed.
    pub(crate) queued_at: Timestamp,
}

/// Reads a delivery. One that waits for a row that gets nothing more is as good as cancelled.
pub(crate) fn find(tables: &Tables, delivery: DeliveryId) -> rusqlite::Result<Option<Found>> {
    const FIND: &str = "
        SELECT endpoints.tenant, endpoints.id, endpoints.number, deliveries.status,
               deliveries.due_at, endpoints.state IN ('disabled', 'unregistered'),
               deliveries.queued_at
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
            queued_at: row::time(row.get(6)?),
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
        const UNBLOCK: &str = "UPDATE endpoints SET blocked_until = 0
            WHERE number = ?1 AND blocked_until > 0 AND ifnull((
                SELECT status FROM deliveries WHERE endpoint = ?1 AND due_at IS NOT NULL
                ORDER BY due_at, number LIMIT 1), '') <> 'retrying'";
        let delivery = self.delivery;
        self.cancelled = match find(tables, delivery)? {
            None => Err(OperationError::UnknownDelivery { delivery }),
            Some(Found { status, due_at: None, .. }) => {
                Err(OperationError::WrongStatus { delivery, status })
            }
            Some(Found { number, status, due_at: Some(due_at), .. }) => {
                let reason = CancelReason::Manual.as_str();
                tables.execute(CANCEL, params![row::number(delivery), reason])?;
                tables.ended(delivery)?;
                // Nobody need wait for its retry, unless the first that remains waits for one.
                self.unblocks = status == DeliveryStatus::Retrying
                    && tables.execute(UNBLOCK, [row::endpoint(number)])? > 0;
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

/// Where a [`Hasten`] goes on: behind which endpoint, and behind which delivery of the next one.
pub(crate) type HastenCursor = (Option<EndpointKey>, Option<QueueKey>);

/// Makes due now what waits for its first attempt and is due later; answers where to go on, if there is
/// more to look at.
pub(crate) struct Hasten {
    now: Timestamp,
    from: HastenCursor,
    next: Option<HastenCursor>,
    /// The endpoints of which something was hastened, and the last place that was looked at.
    hastened: Vec<(EndpointNumber, QueueKey)>,
    unblocked: Vec<EndpointNumber>,
}

impl Hasten {
    pub(crate) fn new(now: Timestamp, from: HastenCursor) -> Self {
        Self { now, from, next: None, hastened: Vec::new(), unblocked: Vec::new() }
    }

    /// Looks at some of what waits for an endpoint; returns how much that was, and the last of it.
    fn look(
        &mut self,
        tables: &Tables,
        endpoint: EndpointNumber,
        after: Option<QueueKey>,
        limit: usize,
    ) -> rusqlite::Result<(usize, Option<QueueKey>)> {
        const HASTEN: &str = "UPDATE deliveries SET due_at = ?2 WHERE number = ?1";
        let (due_at, delivery) = after.unwrap_or((self.now, DeliveryId::from_u64(u64::MAX)));
        let number = row::endpoint(endpoint);
        let late: Vec<(i64, i64, bool)> = {
            let mut statement = tables.connection().prepare_cached(LATE)?;
            let parameters =
                params![number, row::micros(due_at), row::number(delivery), row::count(limit)];
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
            statement.query_map(parameters, read)?.collect::<Result<_, _>>()?
        };
        let mut hastened = 0;
        for (_, delivery, _) in late.iter().filter(|(_, _, is_pending)| *is_pending) {
            hastened += tables.execute(HASTEN, params![delivery, row::micros(self.now)])?;
        }
        let last = late.last().map(|(due_at, id, _)| (row::time(*due_at), row::delivery_id(*id)));
        self.hastened.extend(last.filter(|_| hastened > 0).map(|last| (endpoint, last)));
        Ok((late.len(), last))
    }
}

// It ends its group: it changes in `finish` when what waits in memory is due, and `Settle` puts
// deliveries back by that.
impl Write for Hasten {
    type Answer = Option<HastenCursor>;

    fn write(&mut self, tables: &mut Tables, shared: &Shared) -> rusqlite::Result<()> {
        const UNBLOCK: &str = "UPDATE endpoints SET blocked_until = 0
            WHERE number = ?1 AND blocked_until > ?2 AND NOT EXISTS (
                SELECT 1 FROM deliveries
                WHERE endpoint = ?1 AND due_at IS NOT NULL AND status = 'retrying')";
        (self.next, self.hastened, self.unblocked) = (None, Vec::new(), Vec::new());
        let (mut done, mut after) = self.from.clone();
        let endpoints = shared.registry.page(None, done.as_ref(), LOOK);
        let is_page_full = endpoints.len() >= LOOK;
        let mut room = LOOK;
        for registration in endpoints {
            let endpoint = registration.number;
            let parameters = params![row::endpoint(endpoint), row::micros(self.now)];
            if registration.endpoint.ordered && tables.execute(UNBLOCK, parameters)? > 0 {
                self.unblocked.push(endpoint);
            }
            let (looked, last) = self.look(tables, endpoint, after.take(), room)?;
            room -= looked;
            if room == 0 {
                self.next = Some((done, last));
                return Ok(());
            }
            done = Some(registration.key());
        }
        self.next = is_page_full.then_some((done, None));
        Ok(())
    }

    fn finish(self, _: &mut Tables, shared: &Shared) -> Self::Answer {
        let mut backlog = shared.backlog();
        for (endpoint, last) in self.hastened {
            backlog.hasten(endpoint, self.now, last);
        }
        for endpoint in self.unblocked {
            backlog.unblock(endpoint);
        }
        self.next
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    /// The writer looks at each endpoint every few minutes, however many deliveries there are.
    #[test]
    fn what_is_due_later_is_found_by_its_index() {
        let file = Connection::open_in_memory().unwrap();
        file.execute_batch(include_str!("../migrations/0001_start.sql")).unwrap();
        let plan = format!("EXPLAIN QUERY PLAN {LATE}");
        let plan: String = file.query_row(&plan, [1, 1, 1, 1], |row| row.get(3)).unwrap();
        assert!(plan.contains("INDEX deliveries_due (endpoint=? AND due_at>?)"), "{plan}");
    }
}
