//! Operations on waiting deliveries: cancelling them, and making them due now.

use rusqlite::params;
use webhooks_core::{DeliveryId, DeliveryStatus, Timestamp};
use webhooks_dispatch::backlog::QueueKey;
use webhooks_dispatch::figures::FigureKind;
use webhooks_dispatch::{OperationError, store::CancelReason};
use webhooks_registry::{EndpointKey, EndpointNumber};

use crate::command::WriteCommand;
use crate::delivery_row::DeliveryRow;
use crate::inner::SqliteInner;
use crate::row;
use crate::write_connection::WriteConnection;

/// The number of deliveries, and of endpoints, that one [`Hasten`] looks at. Other commands come in
/// between.
const MAX_LOOKS: usize = if cfg!(test) { 5 } else { 1_000 };

/// Selects waiting deliveries of an endpoint behind a place, in order, and whether a clock that was ahead
/// may have given them their due times: those that are scheduled have their own.
const LATE: &str = "SELECT due_at, number, status = 'pending' AND is_scheduled IS NULL
    FROM deliveries
    WHERE endpoint = ?1 AND due_at IS NOT NULL AND (due_at, number) > (?2, ?3)
    ORDER BY due_at, number LIMIT ?4";

/// Cancels deliveries that wait or are in flight.
pub(crate) struct Cancel {
    deliveries: Vec<DeliveryId>,
    now: Timestamp,
    outcomes: Vec<Result<(), OperationError>>,
    taken_back: TakenBack,
}

impl Cancel {
    pub(crate) fn new(deliveries: Vec<DeliveryId>, now: Timestamp) -> Self {
        Self { deliveries, now, outcomes: Vec::new(), taken_back: TakenBack::default() }
    }
}

// It ends its group: it removes the leases in `after_commit`, and `Settle` decides by the lease.
impl WriteCommand for Cancel {
    type Answer = Vec<Result<(), OperationError>>;

    fn write(&mut self, connection: &mut WriteConnection, _: &SqliteInner) -> rusqlite::Result<()> {
        (self.outcomes, self.taken_back) = (Vec::new(), TakenBack::default());
        for delivery in self.deliveries.iter().copied() {
            let found = DeliveryRow::find(connection.sqlite(), delivery)?;
            self.outcomes.push(match found {
                None => Err(OperationError::UnknownDelivery { delivery }),
                Some(DeliveryRow { status, due_at: None, .. }) => {
                    Err(OperationError::WrongStatus { delivery, status })
                }
                Some(found) => {
                    let reason = CancelReason::Manual;
                    self.taken_back.cancel(connection, delivery, &found, reason, self.now)?;
                    Ok(())
                }
            });
        }
        Ok(())
    }

    fn after_commit(self, _: &mut WriteConnection, inner: &SqliteInner) -> Self::Answer {
        self.taken_back.after_commit(inner);
        self.outcomes
    }
}

/// Deliveries that were cancelled although they waited or were in flight. Only a command that ends its
/// group takes back deliveries: it removes leases in memory.
#[derive(Debug, Default)]
pub(crate) struct TakenBack {
    deliveries: Vec<(EndpointNumber, Timestamp, DeliveryId)>,
    /// The ordered endpoints that no longer wait for a retry.
    unblocked: Vec<EndpointNumber>,
}

impl TakenBack {
    /// Cancels a delivery that waits or is in flight, in its row.
    pub(crate) fn cancel(
        &mut self,
        connection: &mut WriteConnection,
        delivery: DeliveryId,
        found: &DeliveryRow,
        reason: CancelReason,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        const CANCEL: &str = "UPDATE deliveries
            SET status = 'cancelled', due_at = NULL, cancelled = ?2, ended_at = ?3
            WHERE number = ?1";
        const UNBLOCK: &str = "UPDATE endpoints SET blocked_until = 0
            WHERE number = ?1 AND blocked_until > 0 AND ifnull((
                SELECT status FROM deliveries WHERE endpoint = ?1 AND due_at IS NOT NULL
                ORDER BY due_at, number LIMIT 1), '') <> 'retrying'";
        let Some(due_at) = found.due_at else { return Ok(()) };
        let parameters = params![row::number(delivery), reason.as_str(), row::micros(now)];
        connection.execute(CANCEL, parameters)?;
        connection.on_ended(delivery)?;
        connection.figures.count(found.number, FigureKind::Cancelled, 1, now);
        self.deliveries.push((found.number, due_at, delivery));
        // The endpoint goes on unless its first remaining delivery waits for a retry, too.
        if found.status == DeliveryStatus::Retrying
            && connection.execute(UNBLOCK, [row::endpoint(found.number)])? > 0
        {
            self.unblocked.push(found.number);
        }
        Ok(())
    }

    /// Removes the deliveries from the backlog, and ends claims on them.
    pub(crate) fn after_commit(self, inner: &SqliteInner) {
        let mut backlog = inner.backlog();
        for (endpoint, due_at, delivery) in self.deliveries {
            backlog.remove(endpoint, due_at, delivery);
        }
        for endpoint in self.unblocked {
            backlog.unblock(endpoint);
        }
    }
}

/// The position where a [`Hasten`] goes on: behind this endpoint, and behind this place of the next
/// endpoint.
pub(crate) type HastenCursor = (Option<EndpointKey>, Option<QueueKey>);

/// Makes deliveries due now that wait for their first attempt and are due later: the wall clock was
/// ahead when they were accepted. Answers with the position to go on from, if there is more to look at.
pub(crate) struct Hasten {
    now: Timestamp,
    from: HastenCursor,
    next: Option<HastenCursor>,
    /// The endpoints with hastened deliveries, each with the last place that was looked at.
    hastened: Vec<(EndpointNumber, QueueKey)>,
    unblocked: Vec<EndpointNumber>,
}

impl Hasten {
    pub(crate) fn new(now: Timestamp, from: HastenCursor) -> Self {
        Self { now, from, next: None, hastened: Vec::new(), unblocked: Vec::new() }
    }

    /// Looks at up to `limit` waiting deliveries of an endpoint; returns their number, and the last place.
    fn look(
        &mut self,
        connection: &WriteConnection,
        endpoint: EndpointNumber,
        after: Option<QueueKey>,
        limit: usize,
    ) -> rusqlite::Result<(usize, Option<QueueKey>)> {
        const HASTEN: &str = "UPDATE deliveries SET due_at = ?2 WHERE number = ?1";
        let QueueKey { due_at, delivery } = after.unwrap_or_else(|| QueueKey::last_at(self.now));
        let number = row::endpoint(endpoint);
        let late: Vec<(i64, i64, bool)> = {
            let mut statement = connection.sqlite().prepare_cached(LATE)?;
            let parameters =
                params![number, row::micros(due_at), row::number(delivery), row::count(limit)];
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
            statement.query_map(parameters, read)?.collect::<Result<_, _>>()?
        };
        let mut hastened = 0;
        for (_, delivery, _) in late.iter().filter(|(_, _, is_pending)| *is_pending) {
            hastened += connection.execute(HASTEN, params![delivery, row::micros(self.now)])?;
        }
        let last = late.last().map(|(due_at, delivery, _)| QueueKey {
            due_at: row::time(*due_at),
            delivery: row::delivery_id(*delivery),
        });
        self.hastened.extend(last.filter(|_| hastened > 0).map(|last| (endpoint, last)));
        Ok((late.len(), last))
    }
}

// It ends its group: `after_commit` changes the due times of deliveries in memory, and `Settle` puts
// deliveries back by these.
impl WriteCommand for Hasten {
    type Answer = Option<HastenCursor>;

    fn write(
        &mut self,
        connection: &mut WriteConnection,
        inner: &SqliteInner,
    ) -> rusqlite::Result<()> {
        const UNBLOCK: &str = "UPDATE endpoints SET blocked_until = 0
            WHERE number = ?1 AND blocked_until > ?2 AND NOT EXISTS (
                SELECT 1 FROM deliveries
                WHERE endpoint = ?1 AND due_at IS NOT NULL AND status = 'retrying')";
        (self.next, self.hastened, self.unblocked) = (None, Vec::new(), Vec::new());
        let (mut done, mut after) = self.from.clone();
        let endpoints = inner.registry.page(done.as_ref(), MAX_LOOKS);
        let is_page_full = endpoints.len() >= MAX_LOOKS;
        let mut room = MAX_LOOKS;
        for registration in endpoints {
            let endpoint = registration.number;
            let parameters = params![row::endpoint(endpoint), row::micros(self.now)];
            if registration.endpoint.ordered && connection.execute(UNBLOCK, parameters)? > 0 {
                self.unblocked.push(endpoint);
            }
            let (looked, last) = self.look(connection, endpoint, after.take(), room)?;
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

    fn after_commit(self, _: &mut WriteConnection, inner: &SqliteInner) -> Self::Answer {
        let mut backlog = inner.backlog();
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

    /// Hastening looks at each endpoint, however many deliveries there are.
    #[test]
    fn what_is_due_later_is_found_by_its_index() {
        let file = Connection::open_in_memory().unwrap();
        file.execute_batch(include_str!("../migrations/0001_start.sql")).unwrap();
        let plan = format!("EXPLAIN QUERY PLAN {LATE}");
        let plan: String = file.query_row(&plan, [1, 1, 1, 1], |row| row.get(3)).unwrap();
        assert!(plan.contains("INDEX deliveries_due (endpoint=? AND due_at>?)"), "{plan}");
    }
}
