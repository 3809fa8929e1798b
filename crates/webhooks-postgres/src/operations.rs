//! Operations on pending deliveries: cancel, hasten.

use std::collections::BTreeMap;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use webhooks_core::{DeliveryId, DeliveryStatus, Timestamp};
use webhooks_dispatch::OperationError;
use webhooks_registry::EndpointKey;

use crate::call::with_retries;
use crate::error::store_error;
use crate::row::{self, At};
use crate::state::PostgresInner;

/// The number of times that a cancel looks for a delivery which is replayed each time just after it
/// was not found pending.
const TRIES: usize = 10;

/// The maximum of deliveries that one statement of `hasten` looks at.
const HASTEN_BATCH: i64 = 1_000;

/// A delivery of any status.
pub(crate) struct FoundDelivery {
    pub(crate) endpoint: EndpointKey,
    pub(crate) status: DeliveryStatus,
    /// Whether it is pending or in flight, for an open endpoint.
    pub(crate) is_pending: bool,
    /// The time when it was accepted or last replayed.
    pub(crate) queued_at: Timestamp,
}

/// Reads those of the deliveries that exist. One that waits for a closed row of its endpoint has
/// the status cancelled.
pub(crate) async fn find(
    connection: &mut PgConnection,
    deliveries: &[DeliveryId],
) -> Result<BTreeMap<DeliveryId, FoundDelivery>, sqlx::Error> {
    const FIND: &str = "SELECT tenant, endpoint, status, due_at IS NOT NULL, id, queued_at
        FROM webhooks.deliveries_view WHERE id = ANY ($1)";
    let ids: Vec<i64> = deliveries.iter().map(|delivery| row::delivery_int8(*delivery)).collect();
    let rows = sqlx::query(FIND).persistent(false).bind(ids).fetch_all(connection).await?;
    let found = |row: PgRow| {
        let found = FoundDelivery {
            endpoint: EndpointKey::new(row::tenant(&row, 0)?, row::endpoint_id(&row, 1)?),
            status: row::parsed(&row, 2, str::parse, "the status of a delivery")?,
            is_pending: row.try_get(3)?,
            queued_at: row.try_get::<At, _>(5)?.0,
        };
        Ok((row::delivery_id(row.try_get(4)?), found))
    };
    rows.into_iter().map(found).collect()
}

impl PostgresInner {
    pub(crate) async fn cancel(&self, delivery: DeliveryId) -> Result<(), OperationError> {
        // An ordered endpoint is blocked until the retry of its first delivery. If that one is
        // cancelled, the block ends, unless the first that remains waits for a retry as well. The
        // row of the endpoint is changed in any case: a settlement may have blocked it while this
        // statement waited for the delivery's row, and workers that have preclaimed deliveries of
        // the endpoint see by `cancels` that they must check their claims.
        const CANCEL: &str = "
            WITH gone AS (
                DELETE FROM webhooks.pending_deliveries w USING webhooks.endpoints e
                WHERE w.id = $1 AND e.number = w.endpoint AND e.is_open RETURNING w.*
            ), noted AS (
                UPDATE webhooks.endpoints e SET cancels = e.cancels + 1,
                    blocked_until = CASE
                      WHEN e.is_ordered AND gone.attempts > gone.attempts_before_replay
                      AND NOT coalesce((
                        SELECT w.attempts > w.attempts_before_replay
                        FROM webhooks.pending_deliveries w
                        WHERE w.endpoint = gone.endpoint AND w.id <> gone.id
                        ORDER BY w.due_at, w.id LIMIT 1
                    ), false) THEN 'epoch' ELSE e.blocked_until END
                FROM gone WHERE e.number = gone.endpoint
            )
            INSERT INTO webhooks.ended_deliveries
                (id, event_at, endpoint, status, queued_at, attempts, attempts_before_replay,
                 cancelled)
            SELECT id, event_at, endpoint, 'cancelled', queued_at, attempts, attempts_before_replay,
                   'manual'
            FROM gone";
        let mut status = None;
        for _ in 0..TRIES {
            let mut transaction = self.database.begin().await.map_err(failed)?;
            let cancel = sqlx::query(CANCEL).persistent(false).bind(row::delivery_int8(delivery));
            let cancelled = cancel.execute(transaction.connection()).await.map_err(failed)?;
            if cancelled.rows_affected() > 0 {
                self.notify_others(&mut transaction).await.map_err(failed)?;
                transaction.commit().await.map_err(failed)?;
                self.local_queues().remove_cancelled(row::delivery_int8(delivery));
                // The next one of an ordered endpoint may follow.
                self.wake();
                return Ok(());
            }
            let found = find(transaction.connection(), &[delivery]).await.map_err(failed)?;
            transaction.commit().await.map_err(failed)?;
            let Some(found) = found.get(&delivery) else {
                return Err(OperationError::UnknownDelivery { delivery });
            };
            status = Some(found.status);
            // If it is pending, it was replayed between the two statements.
            if !found.is_pending {
                break;
            }
        }
        Err(match status {
            Some(status) => OperationError::WrongStatus { delivery, status },
            None => OperationError::UnknownDelivery { delivery },
        })
    }

    /// Makes deliveries due now that wait for their first attempt and have a due time in the
    /// future: a clock that was ahead may have accepted them. Also unblocks ordered endpoints that
    /// are blocked although no delivery of theirs waits for a retry.
    pub(crate) async fn hasten(&self, now: Timestamp) -> Result<(), sqlx::Error> {
        // One index lookup for each endpoint, however many deliveries wait.
        const NEXT: &str = "SELECT e.number FROM webhooks.endpoints e
            WHERE e.is_open AND e.number > $1 AND EXISTS (
                SELECT 1 FROM webhooks.pending_deliveries w
                WHERE w.endpoint = e.number AND w.due_at > $2)
            ORDER BY e.number LIMIT 1";
        Box::pin(with_retries(|| self.unblock(now))).await?;
        let mut endpoint = 0;
        loop {
            let next = async || {
                let mut call = self.database.call().await?;
                let next = sqlx::query_scalar(NEXT).persistent(false).bind(endpoint).bind(At(now));
                let next: Option<i64> = next.fetch_optional(call.connection()).await?;
                call.commit().await?;
                Ok(next)
            };
            let Some(next) = with_retries(next).await? else { return Ok(()) };
            endpoint = next;
            let mut after = Some((now, i64::MAX));
            while let Some(place) = after {
                let some = with_retries(|| self.hasten_some(endpoint, place, now));
                after = Box::pin(some).await?;
            }
        }
    }

    /// Looks at some of an endpoint's deliveries that are due later, after a place in their order;
    /// returns the place to go on from.
    async fn hasten_some(
        &self,
        endpoint: i64,
        (due_at, id): (Timestamp, i64),
        now: Timestamp,
    ) -> Result<Option<(Timestamp, i64)>, sqlx::Error> {
        // A row that is settled meanwhile is locked in its new version, and its conditions are
        // checked again.
        const HASTEN: &str = "
            WITH looked AS MATERIALIZED (
                SELECT due_at, id FROM webhooks.pending_deliveries
                WHERE endpoint = $1 AND (due_at, id) > ($2, $3) ORDER BY due_at, id LIMIT $4
            ), ahead AS (
                SELECT w.id FROM webhooks.pending_deliveries w
                WHERE w.id IN (SELECT id FROM looked)
                  AND w.due_at > $5 AND w.attempts = w.attempts_before_replay
                ORDER BY w.id FOR UPDATE SKIP LOCKED
            ), hastened AS (
                UPDATE webhooks.pending_deliveries w SET due_at = $5 FROM ahead
                WHERE w.id = ahead.id
            ), last AS (
                SELECT due_at, id FROM looked ORDER BY due_at, id OFFSET $4 - 1
            )
            SELECT count(*), (SELECT due_at FROM last), (SELECT id FROM last) FROM ahead";
        let mut transaction = self.database.begin().await?;
        let hasten = sqlx::query_as(HASTEN).persistent(false).bind(endpoint).bind(At(due_at));
        let hasten = hasten.bind(id).bind(HASTEN_BATCH).bind(At(now));
        let (hastened, due_at, id): (i64, Option<At>, Option<i64>) =
            hasten.fetch_one(transaction.connection()).await?;
        if hastened > 0 {
            self.notify_others(&mut transaction).await?;
        }
        transaction.commit().await?;
        if hastened > 0 {
            self.wake();
        }
        Ok(due_at.zip(id).map(|(At(due_at), id)| (due_at, id)))
    }

    /// Unblocks ordered endpoints that are blocked although no pending delivery of theirs is to be
    /// tried again.
    async fn unblock(&self, now: Timestamp) -> Result<(), sqlx::Error> {
        // The rows are locked first, as settlements do. The second statement then sees all that the
        // settlements before it have written.
        const LOCK: &str = "SELECT number FROM webhooks.endpoints
            WHERE is_ordered AND is_open AND blocked_until > $1
            ORDER BY number FOR NO KEY UPDATE SKIP LOCKED";
        const UNBLOCK: &str = "UPDATE webhooks.endpoints e SET blocked_until = 'epoch'
            WHERE e.number = ANY ($1) AND NOT EXISTS (
                SELECT 1 FROM webhooks.pending_deliveries w
                WHERE w.endpoint = e.number AND w.attempts > w.attempts_before_replay)";
        let mut transaction = self.database.begin().await?;
        let lock = sqlx::query_scalar(LOCK).persistent(false).bind(At(now));
        let locked: Vec<i64> = lock.fetch_all(transaction.connection()).await?;
        if !locked.is_empty() {
            let unblock = sqlx::query(UNBLOCK).persistent(false).bind(locked);
            unblock.execute(transaction.connection()).await?;
            self.notify_others(&mut transaction).await?;
        }
        transaction.commit().await?;
        self.wake();
        Ok(())
    }
}

pub(crate) fn failed(error: sqlx::Error) -> OperationError {
    store_error(error).into()
}
