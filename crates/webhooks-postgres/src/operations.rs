//! Operations on what waits: cancel, hasten.

use std::collections::BTreeMap;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use webhooks_core::{DeliveryId, DeliveryStatus, Timestamp};
use webhooks_dispatch::OperationError;
use webhooks_registry::EndpointKey;

use crate::error::store_error;
use crate::row::{self, At};
use crate::store::{Call, Shared};

/// How often a delivery is looked for that is replayed whenever it was not found waiting.
const TRIES: usize = 10;

/// How many deliveries are hastened in one transaction.
const HASTENED: i64 = 1_000;

/// A delivery, as operations need it.
pub(crate) struct Found {
    pub(crate) endpoint: EndpointKey,
    pub(crate) status: DeliveryStatus,
    /// Whether it waits or is in flight.
    pub(crate) is_open: bool,
    /// When it was accepted, or last replayed.
    pub(crate) since: Timestamp,
}

/// Reads deliveries, those of them that there are. One that waits for a row that gets nothing more is
/// as good as cancelled.
pub(crate) async fn find(
    connection: &mut PgConnection,
    deliveries: &[DeliveryId],
) -> Result<BTreeMap<DeliveryId, Found>, sqlx::Error> {
    const FIND: &str = "SELECT tenant, endpoint, status, due_at IS NOT NULL, id, since
        FROM webhooks.deliveries WHERE id = ANY ($1)";
    let ids: Vec<i64> = deliveries.iter().map(|delivery| row::number(*delivery)).collect();
    let rows = sqlx::query(FIND).persistent(false).bind(ids).fetch_all(connection).await?;
    let found = |row: PgRow| {
        let found = Found {
            endpoint: EndpointKey::new(row::tenant(&row, 0)?, row::endpoint_id(&row, 1)?),
            status: row::parsed(&row, 2, str::parse, "the status of a delivery")?,
            is_open: row.try_get(3)?,
            since: row.try_get::<At, _>(5)?.0,
        };
        Ok((row::delivery_id(row.try_get(4)?), found))
    };
    rows.into_iter().map(found).collect()
}

impl Shared {
    pub(crate) async fn cancel(&self, delivery: DeliveryId) -> Result<(), OperationError> {
        // If it was the first one of an ordered endpoint, the next one need not wait for its retry,
        // unless for its own: also not for one that was settled while this statement waited for the row, so the row of
        // the endpoint is changed in any case. Workers that have deliveries of it in memory see by
        // its count that they must look again.
        const CANCEL: &str = "
            WITH gone AS (
                DELETE FROM webhooks.waiting w USING webhooks.endpoints e
                WHERE w.id = $1 AND e.number = w.endpoint AND e.is_open RETURNING w.*
            ), noted AS (
                UPDATE webhooks.endpoints e SET cancels = e.cancels + 1,
                    blocked_until = CASE WHEN e.is_ordered AND NOT EXISTS (
                        SELECT 1 FROM webhooks.waiting w WHERE w.endpoint = gone.endpoint
                          AND (w.due_at, w.id) < (gone.due_at, gone.id)
                    ) AND NOT coalesce((
                        SELECT w.attempts > w.earlier_attempts FROM webhooks.waiting w
                        WHERE w.endpoint = gone.endpoint AND w.id <> gone.id
                        ORDER BY w.due_at, w.id LIMIT 1
                    ), false) THEN 'epoch' ELSE e.blocked_until END
                FROM gone WHERE e.number = gone.endpoint
            )
            INSERT INTO webhooks.ended
                (id, event_at, endpoint, status, since, attempts, earlier_attempts, cancelled)
            SELECT id, event_at, endpoint, 'cancelled', since, attempts, earlier_attempts, 'manual'
            FROM gone";
        let mut status = None;
        for _ in 0..TRIES {
            let mut transaction = self.begin().await.map_err(failed)?;
            let cancel = sqlx::query(CANCEL).persistent(false).bind(row::number(delivery));
            let cancelled = cancel.execute(transaction.on()).await.map_err(failed)?;
            if cancelled.rows_affected() > 0 {
                self.notify(&mut transaction).await.map_err(failed)?;
                transaction.end().await.map_err(failed)?;
                self.handed().forget(row::number(delivery));
                // The next one of an ordered endpoint may follow.
                self.wake();
                return Ok(());
            }
            let found = find(transaction.on(), &[delivery]).await.map_err(failed)?;
            transaction.end().await.map_err(failed)?;
            let Some(found) = found.get(&delivery) else {
                return Err(OperationError::UnknownDelivery { delivery });
            };
            status = Some(found.status);
            // One that waits was replayed between the two statements.
            if !found.is_open {
                break;
            }
        }
        Err(match status {
            Some(status) => OperationError::Status { delivery, status },
            None => OperationError::UnknownDelivery { delivery },
        })
    }

    /// Makes due now what waits for its first attempt and is due later.
    pub(crate) async fn hasten(&self, now: Timestamp) -> Result<(), sqlx::Error> {
        // One look into the index an endpoint, however many wait.
        const HASTEN: &str = "
            WITH late AS (
                SELECT w.id FROM webhooks.endpoints e CROSS JOIN LATERAL (
                    SELECT id FROM webhooks.waiting
                    WHERE endpoint = e.number AND due_at > $1 AND attempts = earlier_attempts
                    ORDER BY due_at, id LIMIT $2
                ) found JOIN webhooks.waiting w ON w.id = found.id
                WHERE e.is_open ORDER BY w.id LIMIT $2 FOR UPDATE OF w SKIP LOCKED
            )
            UPDATE webhooks.waiting w SET due_at = $1 FROM late WHERE w.id = late.id";
        loop {
            let mut transaction = self.begin().await?;
            let hasten = sqlx::query(HASTEN).persistent(false).bind(At(now)).bind(HASTENED);
            let hastened = hasten.execute(transaction.on()).await?.rows_affected();
            if hastened > 0 {
                self.notify(&mut transaction).await?;
            }
            transaction.end().await?;
            self.wake();
            if hastened < HASTENED.unsigned_abs() {
                return Ok(());
            }
        }
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
