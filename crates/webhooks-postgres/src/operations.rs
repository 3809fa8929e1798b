//! Operations on single deliveries: cancel.

use sqlx::{PgConnection, Row as _};
use webhooks_core::{DeliveryId, DeliveryStatus};
use webhooks_dispatch::OperationError;
use webhooks_registry::EndpointKey;

use crate::error::store_error;
use crate::row;
use crate::store::{Call, Shared};

/// A delivery, as operations need it.
pub(crate) struct Found {
    pub(crate) endpoint: EndpointKey,
    pub(crate) status: DeliveryStatus,
    /// Whether it waits or is in flight.
    pub(crate) is_open: bool,
}

/// Reads a delivery. One that waits for a row that gets nothing more is as good as cancelled.
pub(crate) async fn find(
    connection: &mut PgConnection,
    delivery: DeliveryId,
) -> Result<Option<Found>, sqlx::Error> {
    const FIND: &str = "SELECT tenant, endpoint, status, due_at IS NOT NULL
        FROM webhooks.deliveries WHERE id = $1";
    let find = sqlx::query(FIND).persistent(false).bind(row::number(delivery));
    let Some(row) = find.fetch_optional(connection).await? else { return Ok(None) };
    Ok(Some(Found {
        endpoint: EndpointKey::new(row::tenant(&row, 0)?, row::endpoint_id(&row, 1)?),
        status: row::parsed(&row, 2, str::parse, "the status of a delivery")?,
        is_open: row.try_get(3)?,
    }))
}

impl Shared {
    pub(crate) async fn cancel(&self, delivery: DeliveryId) -> Result<(), OperationError> {
        // If it was the first one of an ordered endpoint, the next one need not wait for its retry.
        const CANCEL: &str = "
            WITH gone AS (
                DELETE FROM webhooks.waiting w USING webhooks.endpoints e
                WHERE w.id = $1 AND e.number = w.endpoint AND e.is_open RETURNING w.*
            ), freed AS (
                UPDATE webhooks.endpoints e SET blocked_until = 'epoch' FROM gone
                WHERE e.number = gone.endpoint AND e.is_ordered AND e.blocked_until > 'epoch'
                  AND NOT EXISTS (
                      SELECT 1 FROM webhooks.waiting w WHERE w.endpoint = gone.endpoint
                        AND (w.due_at, w.id) < (gone.due_at, gone.id))
            )
            INSERT INTO webhooks.ended
                (id, event_at, endpoint, status, since, attempts, earlier_attempts, cancelled)
            SELECT id, event_at, endpoint, 'cancelled', since, attempts, earlier_attempts, 'manual'
            FROM gone";
        let mut transaction = self.begin().await.map_err(failed)?;
        let cancel = sqlx::query(CANCEL).persistent(false).bind(row::number(delivery));
        let cancelled = cancel.execute(transaction.on()).await.map_err(failed)?;
        if cancelled.rows_affected() == 0 {
            let found = find(transaction.on(), delivery).await.map_err(failed)?;
            transaction.end().await.map_err(failed)?;
            return Err(match found {
                Some(Found { status, .. }) => OperationError::Status { delivery, status },
                None => OperationError::UnknownDelivery { delivery },
            });
        }
        self.notify(&mut transaction).await.map_err(failed)?;
        transaction.end().await.map_err(failed)?;
        self.handed().forget(row::number(delivery));
        // The next one of an ordered endpoint may follow.
        self.wake();
        Ok(())
    }

    /// Wakes the other workers when the transaction is committed.
    pub(crate) async fn notify(&self, transaction: &mut Call) -> Result<(), sqlx::Error> {
        let notify = sqlx::query("SELECT webhooks.notify_others($1)")
            .persistent(false)
            .bind(self.workers.id);
        notify.execute(transaction.on()).await.map(drop)
    }
}

pub(crate) fn failed(error: sqlx::Error) -> OperationError {
    store_error(error).into()
}
