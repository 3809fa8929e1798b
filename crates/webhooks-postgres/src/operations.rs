//! Operations on what waits: cancel, hasten.

use std::collections::BTreeMap;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use webhooks_core::{DeliveryId, DeliveryStatus, Timestamp};
use webhooks_dispatch::OperationError;
use webhooks_registry::EndpointKey;

use crate::error::{persistently, store_error};
use crate::row::{self, At};
use crate::store::{Call, Shared};

/// How often a delivery is looked for that is replayed whenever it was not found waiting.
const TRIES: usize = 10;

/// How many deliveries that are due later one statement looks at.
const HASTENED: i64 = 1_000;

/// A delivery, as operations need it.
pub(crate) struct Found {
    pub(crate) endpoint: EndpointKey,
    pub(crate) status: DeliveryStatus,
    /// Whether it waits or is in flight.
    pub(crate) is_open: bool,
    /// When it was accepted, or last replayed.
    pub(crate) queued_at: Timestamp,
}

/// Reads deliveries, those of them that there are. One that waits for a row that gets nothing more is
/// as good as cancelled.
pub(crate) async fn find(
    connection: &mut PgConnection,
    deliveries: &[DeliveryId],
) -> Result<BTreeMap<DeliveryId, Found>, sqlx::Error> {
    const FIND: &str = "SELECT tenant, endpoint, status, due_at IS NOT NULL, id, queued_at
        FROM webhooks.deliveries_view WHERE id = ANY ($1)";
    let ids: Vec<i64> = deliveries.iter().map(|delivery| row::number(*delivery)).collect();
    let rows = sqlx::query(FIND).persistent(false).bind(ids).fetch_all(connection).await?;
    let found = |row: PgRow| {
        let found = Found {
            endpoint: EndpointKey::new(row::tenant(&row, 0)?, row::endpoint_id(&row, 1)?),
            status: row::parsed(&row, 2, str::parse, "the status of a delivery")?,
            is_open: row.try_get(3)?,
            queued_at: row.try_get::<At, _>(5)?.0,
        };
        Ok((row::delivery_id(row.try_get(4)?), found))
    };
    rows.into_iter().map(found).collect()
}

impl Shared {
    pub(crate) async fn cancel(&self, delivery: DeliveryId) -> Result<(), OperationError> {
        // Nobody need wait for its retry at an ordered endpoint, unless the first that remains waits
        // for one: also not for one that was settled while this statement waited for the row, so the row of
        // the endpoint is changed in any case. Workers that have deliveries of it in memory see by
        // its count that they must look again.
        const CANCEL: &str = "
            WITH gone AS (
                DELETE FROM webhooks.pending_deliveries w USING webhooks.endpoints e
                WHERE w.id = $1 AND e.number = w.endpoint AND e.is_open RETURNING w.*
            ), noted AS (
                UPDATE webhooks.endpoints e SET cancels = e.cancels + 1,
                    blocked_until = CASE WHEN e.is_ordered AND gone.attempts > gone.attempts_before_replay
                      AND NOT coalesce((
                        SELECT w.attempts > w.attempts_before_replay FROM webhooks.pending_deliveries w
                        WHERE w.endpoint = gone.endpoint AND w.id <> gone.id
                        ORDER BY w.due_at, w.id LIMIT 1
                    ), false) THEN 'epoch' ELSE e.blocked_until END
                FROM gone WHERE e.number = gone.endpoint
            )
            INSERT INTO webhooks.ended_deliveries
                (id, event_at, endpoint, status, queued_at, attempts, attempts_before_replay, cancelled)
            SELECT id, event_at, endpoint, 'cancelled', queued_at, attempts, attempts_before_replay, 'manual'
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
            Some(status) => OperationError::WrongStatus { delivery, status },
            None => OperationError::UnknownDelivery { delivery },
        })
    }

    /// Makes due now what waits for its first attempt and is due later, and has ordered endpoints go on
    /// that wait for no retry.
    pub(crate) async fn hasten(&self, now: Timestamp) -> Result<(), sqlx::Error> {
        // One look into the index an endpoint, however many wait.
        const NEXT: &str = "SELECT e.number FROM webhooks.endpoints e
            WHERE e.is_open AND e.number > $1 AND EXISTS (
                SELECT 1 FROM webhooks.pending_deliveries w WHERE w.endpoint = e.number AND w.due_at > $2)
            ORDER BY e.number LIMIT 1";
        Box::pin(persistently(|| self.unblock(now))).await?;
        let mut endpoint = 0;
        loop {
            let next = async || {
                let mut call = self.call().await?;
                let next = sqlx::query_scalar(NEXT).persistent(false).bind(endpoint).bind(At(now));
                let next: Option<i64> = next.fetch_optional(call.on()).await?;
                call.end().await?;
                Ok(next)
            };
            let Some(next) = persistently(next).await? else { return Ok(()) };
            endpoint = next;
            let mut after = Some((now, i64::MAX));
            while let Some(place) = after {
                let some = persistently(|| self.hasten_some(endpoint, place, now));
                after = Box::pin(some).await?;
            }
        }
    }

    /// Looks at some of what is due later at an endpoint, behind a place; returns where to go on.
    async fn hasten_some(
        &self,
        endpoint: i64,
        (due_at, id): (Timestamp, i64),
        now: Timestamp,
    ) -> Result<Option<(Timestamp, i64)>, sqlx::Error> {
        // What is settled meanwhile is locked as it is then, and looked at once more.
        const HASTEN: &str = "
            WITH looked AS MATERIALIZED (
                SELECT due_at, id FROM webhooks.pending_deliveries
                WHERE endpoint = $1 AND (due_at, id) > ($2, $3) ORDER BY due_at, id LIMIT $4
            ), late AS (
                SELECT w.id FROM webhooks.pending_deliveries w
                WHERE w.id IN (SELECT id FROM looked)
                  AND w.due_at > $5 AND w.attempts = w.attempts_before_replay
                ORDER BY w.id FOR UPDATE SKIP LOCKED
            ), hastened AS (
                UPDATE webhooks.pending_deliveries w SET due_at = $5 FROM late WHERE w.id = late.id
            ), last AS (
                SELECT due_at, id FROM looked ORDER BY due_at, id OFFSET $4 - 1
            )
            SELECT count(*), (SELECT due_at FROM last), (SELECT id FROM last) FROM late";
        let mut transaction = self.begin().await?;
        let hasten = sqlx::query_as(HASTEN).persistent(false).bind(endpoint).bind(At(due_at));
        let hasten = hasten.bind(id).bind(HASTENED).bind(At(now));
        let (hastened, due_at, id): (i64, Option<At>, Option<i64>) =
            hasten.fetch_one(transaction.on()).await?;
        if hastened > 0 {
            self.notify(&mut transaction).await?;
        }
        transaction.end().await?;
        if hastened > 0 {
            self.wake();
        }
        Ok(due_at.zip(id).map(|(At(due_at), id)| (due_at, id)))
    }

    /// Has ordered endpoints go on that wait for the retry of nothing that waits.
    async fn unblock(&self, now: Timestamp) -> Result<(), sqlx::Error> {
        // First the rows are locked, as settlements do; then a statement sees what those left.
        const LOCK: &str = "SELECT number FROM webhooks.endpoints
            WHERE is_ordered AND is_open AND blocked_until > $1
            ORDER BY number FOR NO KEY UPDATE SKIP LOCKED";
        const UNBLOCK: &str = "UPDATE webhooks.endpoints e SET blocked_until = 'epoch'
            WHERE e.number = ANY ($1) AND NOT EXISTS (
                SELECT 1 FROM webhooks.pending_deliveries w
                WHERE w.endpoint = e.number AND w.attempts > w.attempts_before_replay)";
        let mut transaction = self.begin().await?;
        let lock = sqlx::query_scalar(LOCK).persistent(false).bind(At(now));
        let locked: Vec<i64> = lock.fetch_all(transaction.on()).await?;
        if !locked.is_empty() {
            let unblock = sqlx::query(UNBLOCK).persistent(false).bind(locked);
            unblock.execute(transaction.on()).await?;
            self.notify(&mut transaction).await?;
        }
        transaction.end().await?;
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
