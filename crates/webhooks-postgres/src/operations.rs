//! Operations on pending deliveries: cancel, hasten.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use webhooks_core::{DeliveryId, DeliveryStatus, EventId, Timestamp};
use webhooks_dispatch::{
    OperationError,
    store::{CancelReason, StoreError},
};
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
    /// Its event, if its content was deleted.
    pub(crate) expunged: Option<EventId>,
}

/// Reads those of the deliveries that exist. One that waits for a closed row of its endpoint has
/// the status cancelled.
pub(crate) async fn find(
    connection: &mut PgConnection,
    deliveries: &[DeliveryId],
) -> Result<BTreeMap<DeliveryId, FoundDelivery>, sqlx::Error> {
    const FIND: &str = "SELECT tenant, endpoint, status, due_at IS NOT NULL, id, queued_at,
            expunged_at IS NOT NULL, event
        FROM webhooks.deliveries_view WHERE id = ANY ($1)";
    let ids: Vec<i64> = deliveries.iter().map(|delivery| row::delivery_int8(*delivery)).collect();
    let rows = sqlx::query(FIND).persistent(false).bind(ids).fetch_all(connection).await?;
    let found = |row: PgRow| {
        let found = FoundDelivery {
            endpoint: EndpointKey::new(row::tenant(&row, 0)?, row::endpoint_id(&row, 1)?),
            status: row::parsed(&row, 2, str::parse, "the status of a delivery")?,
            is_pending: row.try_get(3)?,
            queued_at: row.try_get::<At, _>(5)?.0,
            expunged: if row.try_get(6)? { Some(row::event_id(&row, 7)?) } else { None },
        };
        Ok((row::delivery_id(row.try_get(4)?), found))
    };
    rows.into_iter().map(found).collect()
}

impl PostgresInner {
    pub(crate) async fn cancel(
        &self,
        deliveries: &[DeliveryId],
        now: Timestamp,
    ) -> Result<Vec<Result<(), OperationError>>, StoreError> {
        let mut answers: BTreeMap<DeliveryId, Result<(), Option<DeliveryStatus>>> = BTreeMap::new();
        let mut left: BTreeSet<DeliveryId> = deliveries.iter().copied().collect();
        for _ in 0..TRIES {
            if left.is_empty() {
                break;
            }
            let (cancelled, found) = Box::pin(with_retries(|| self.cancel_once(&left, now)))
                .await
                .map_err(store_error)?;
            answers.extend(cancelled.iter().map(|delivery| (*delivery, Ok(()))));
            left.retain(|delivery| !cancelled.contains(delivery));
            for delivery in &left {
                let status = found.get(delivery).map(|found| found.status);
                answers.insert(*delivery, Err(status));
            }
            // One that is pending was replayed between the two statements.
            left.retain(|delivery| found.get(delivery).is_some_and(|found| found.is_pending));
        }
        let mut answered = BTreeSet::new();
        let answer = |delivery: DeliveryId| match answers.get(&delivery) {
            Some(Ok(())) if answered.insert(delivery) => Ok(()),
            Some(Ok(())) => {
                let status = DeliveryStatus::Cancelled;
                Err(OperationError::WrongStatus { delivery, status })
            }
            Some(Err(Some(status))) => {
                Err(OperationError::WrongStatus { delivery, status: *status })
            }
            Some(Err(None)) | None => Err(OperationError::UnknownDelivery { delivery }),
        };
        Ok(deliveries.iter().copied().map(answer).collect())
    }

    /// Cancels those of these deliveries that are pending; returns them, and the others as they are.
    async fn cancel_once(
        &self,
        deliveries: &BTreeSet<DeliveryId>,
        now: Timestamp,
    ) -> Result<(BTreeSet<DeliveryId>, BTreeMap<DeliveryId, FoundDelivery>), sqlx::Error> {
        const CANCEL: &str = "SELECT webhooks.cancel($1, $2, $3)";
        let ids: Vec<i64> = deliveries.iter().map(|id| row::delivery_int8(*id)).collect();
        let mut transaction = self.database.begin().await?;
        let cancel = sqlx::query_scalar(CANCEL).persistent(false).bind(ids);
        let cancel = cancel.bind(CancelReason::Manual.as_str()).bind(At(now));
        let cancelled: Vec<i64> = cancel.fetch_one(transaction.connection()).await?;
        if !cancelled.is_empty() {
            self.notify_others(&mut transaction).await?;
        }
        let done: BTreeSet<DeliveryId> = cancelled.iter().map(|id| row::delivery_id(*id)).collect();
        let others: Vec<DeliveryId> = deliveries.difference(&done).copied().collect();
        let found = if others.is_empty() {
            BTreeMap::new()
        } else {
            find(transaction.connection(), &others).await?
        };
        transaction.commit().await?;
        self.forget_cancelled(&cancelled);
        Ok((done, found))
    }

    /// Removes cancelled deliveries from the local queues.
    fn forget_cancelled(&self, cancelled: &[i64]) {
        if cancelled.is_empty() {
            return;
        }
        self.local_queues().remove_cancelled(cancelled);
        // The next one of an ordered endpoint may follow.
        self.wake();
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
                  AND w.is_scheduled IS NULL
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
