//! Trying a delivery now that waits for a later time.

use rusqlite::params;
use webhooks_core::{DeliveryId, Timestamp};
use webhooks_dispatch::backlog::due_in_order;
use webhooks_dispatch::{OperationError, store::TryNow};
use webhooks_registry::{EndpointNumber, Registration};

use crate::command::WriteCommand;
use crate::delivery_row::DeliveryRow;
use crate::inner::SqliteInner;
use crate::row;
use crate::write_connection::WriteConnection;

/// Makes a delivery due now that waits for a later time.
pub(crate) struct TryingNow {
    delivery: DeliveryId,
    now: Timestamp,
    outcome: Result<TryNow, OperationError>,
    /// The endpoint of the delivery, if it has not ended.
    endpoint: Option<EndpointNumber>,
    moved: Option<Moved>,
}

/// The change of a delivery's place. It is out of the backlog in memory until it is committed.
#[derive(Debug, Clone, Copy)]
struct Moved {
    endpoint: EndpointNumber,
    before: Timestamp,
    after: Timestamp,
    /// Whether its endpoint waited for its retry.
    was_blocking: bool,
}

impl TryingNow {
    pub(crate) fn new(delivery: DeliveryId, now: Timestamp) -> Self {
        let outcome = Err(OperationError::UnknownDelivery { delivery });
        Self { delivery, now, outcome, endpoint: None, moved: None }
    }

    fn try_now(
        &mut self,
        connection: &WriteConnection,
        inner: &SqliteInner,
    ) -> rusqlite::Result<Result<TryNow, OperationError>> {
        let delivery = self.delivery;
        let found = DeliveryRow::find(connection.sqlite(), delivery)?;
        let registration = found.as_ref().and_then(|found| inner.registry.get_of(&found.endpoint));
        let Some((found, registration)) = found.zip(registration) else {
            return Ok(Err(OperationError::UnknownDelivery { delivery }));
        };
        let Some(due_at) = found.due_at else {
            return Ok(Err(OperationError::WrongStatus { delivery, status: found.status }));
        };
        self.endpoint = Some(found.number);
        let was_blocking = self.is_blocking(connection, &found, &registration)?;
        let waits_in_order = registration.endpoint.ordered && !found.is_scheduled;
        let is_later = if waits_in_order { was_blocking } else { due_at > self.now };
        {
            let mut backlog = inner.backlog();
            if backlog.is_claimed(delivery) {
                return Ok(Ok(TryNow::InFlight));
            }
            if is_later {
                let after = due_in_order(&registration.endpoint, self.now);
                self.moved =
                    Some(Moved { endpoint: found.number, before: due_at, after, was_blocking });
                // Until the commit nobody can claim it.
                backlog.remove(found.number, due_at, delivery);
            }
        }
        if let Some(moved) = self.moved {
            self.write_row(connection, moved)?;
        }
        Ok(Ok(TryNow::of(registration.state, is_later)))
    }

    /// Returns whether an ordered endpoint waits for the retry of this delivery.
    fn is_blocking(
        &self,
        connection: &WriteConnection,
        found: &DeliveryRow,
        registration: &Registration,
    ) -> rusqlite::Result<bool> {
        const IS_BLOCKING: &str = "SELECT EXISTS (
            SELECT 1 FROM endpoints WHERE number = ?1 AND blocked_until > ?3 AND (
                SELECT number FROM deliveries
                WHERE endpoint = ?1 AND due_at IS NOT NULL
                ORDER BY due_at, number LIMIT 1) = ?2)
            AND (SELECT status FROM deliveries WHERE number = ?2) = 'retrying'";
        if !registration.endpoint.ordered {
            return Ok(false);
        }
        let mut statement = connection.sqlite().prepare_cached(IS_BLOCKING)?;
        let delivery = row::number(self.delivery);
        let parameters = params![row::endpoint(found.number), delivery, row::micros(self.now)];
        statement.query_row(parameters, |row| row.get(0))
    }

    fn write_row(&self, connection: &WriteConnection, moved: Moved) -> rusqlite::Result<()> {
        const MOVE: &str = "UPDATE deliveries SET status = 'pending', queued_at = ?2,
            attempts_before_replay = attempts, due_at = ?3, is_scheduled = NULL
            WHERE number = ?1";
        const UNBLOCK: &str = "UPDATE endpoints SET blocked_until = 0 WHERE number = ?";
        let (now, after) = (row::micros(self.now), row::micros(moved.after));
        connection.execute(MOVE, params![row::number(self.delivery), now, after])?;
        if moved.was_blocking {
            connection.execute(UNBLOCK, [row::endpoint(moved.endpoint)])?;
        }
        Ok(())
    }
}

// It ends its group: it takes the delivery out of the backlog in memory, and adds it again in
// `after_commit`. It may follow `Publish`, `Settle` and `Prune`: it reads deliveries from their rows, and a
// delivery that an earlier command of its group settles is still claimed for it.
impl WriteCommand for TryingNow {
    type Answer = Result<TryNow, OperationError>;

    fn write(
        &mut self,
        connection: &mut WriteConnection,
        inner: &SqliteInner,
    ) -> rusqlite::Result<()> {
        self.outcome = self.try_now(connection, inner)?;
        Ok(())
    }

    fn after_commit(self, _: &mut WriteConnection, inner: &SqliteInner) -> Self::Answer {
        if let Some(Moved { endpoint, before, after, was_blocking }) = self.moved {
            let mut backlog = inner.backlog();
            // A `Publish` of the same group adds it with its old due time.
            if !backlog.is_claimed(self.delivery) {
                backlog.remove(endpoint, before, self.delivery);
                backlog.push_unread(endpoint, after, self.delivery);
            }
            if was_blocking {
                backlog.unblock(endpoint);
            }
        }
        inner.notifier.probe(self.endpoint);
        self.outcome
    }

    fn undo(&mut self, inner: &SqliteInner) {
        if let Some(Moved { endpoint, before, .. }) = self.moved.take() {
            inner.backlog().push_unread(endpoint, before, self.delivery);
        }
    }
}
