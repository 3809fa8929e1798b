//! Operations on single deliveries and many: cancel, replay.

use sqlx::{PgConnection, Row as _};
use webhooks_core::{DeliveryId, DeliveryStatus, EndpointId, Timestamp};
use webhooks_dispatch::{OperationError, Replay, ReplayRequest, Replayed};
use webhooks_registry::Registration;

use crate::endpoints::{Locked, lock};
use crate::error::store_error;
use crate::row::{self, At};
use crate::store::{Call, Shared};

/// Makes deliveries that have ended due once more: those with the numbers `$1`. The attempts that
/// ended them do so no more.
const REOPEN: &str = "
    WITH reopened AS (DELETE FROM webhooks.ended WHERE id = ANY ($1) RETURNING *),
    retried AS (
        INSERT INTO webhooks.retried
        SELECT id, attempts, event_at, started_at, duration_us, status_code, error_class, error,
               response_headers, response
        FROM reopened WHERE started_at IS NOT NULL
    )
    INSERT INTO webhooks.waiting (id, endpoint, due_at, event_at, since, attempts, earlier_attempts)
    SELECT id, endpoint, CASE WHEN $3 THEN 'epoch' ELSE $2 END, event_at, $2, attempts, attempts
    FROM reopened ORDER BY id";

/// Lets deliveries be added to events by one after another, as their ids follow each other. It comes
/// before the lock of the endpoint, which settlements may wait for.
const ADD: &str = "SELECT pg_advisory_xact_lock(7305000, 5)";

/// A delivery, as operations need it.
struct Found {
    endpoint: EndpointId,
    status: DeliveryStatus,
    is_current: bool,
    /// Whether it waits or is in flight.
    is_open: bool,
}

async fn find(
    connection: &mut PgConnection,
    delivery: DeliveryId,
) -> Result<Option<Found>, sqlx::Error> {
    const FIND: &str = "
        SELECT d.endpoint, d.status, e.is_current, d.due_at IS NOT NULL
        FROM webhooks.deliveries d JOIN webhooks.endpoints e ON e.number = d.endpoint_number
        WHERE d.id = $1";
    let find = sqlx::query(FIND).persistent(false).bind(row::number(delivery));
    let Some(row) = find.fetch_optional(connection).await? else { return Ok(None) };
    Ok(Some(Found {
        endpoint: row::endpoint_id(&row, 0)?,
        status: row::parsed(&row, 1, str::parse, "the status of a delivery")?,
        is_current: row.try_get(2)?,
        is_open: row.try_get(3)?,
    }))
}

impl Shared {
    pub(crate) async fn cancel(&self, delivery: DeliveryId) -> Result<(), OperationError> {
        // If it was the first one of an ordered endpoint, the next one need not wait for its retry.
        const CANCEL: &str = "
            WITH gone AS (DELETE FROM webhooks.waiting WHERE id = $1 RETURNING *),
            freed AS (
                UPDATE webhooks.endpoints e SET blocked_until = 'epoch' FROM gone
                WHERE e.number = gone.endpoint AND e.is_ordered AND e.blocked_until > 'epoch'
                  AND NOT EXISTS (
                      SELECT 1 FROM webhooks.waiting w WHERE w.endpoint = gone.endpoint
                        AND (w.due_at, w.id) < (gone.due_at, gone.id))
            )
            INSERT INTO webhooks.ended
                (id, event_at, endpoint, status, since, attempts, earlier_attempts)
            SELECT id, event_at, endpoint, 'cancelled', since, attempts, earlier_attempts
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

    pub(crate) async fn replay(&self, request: ReplayRequest) -> Result<Replayed, OperationError> {
        let mut transaction = self.begin().await.map_err(failed)?;
        let replayed = match self.replay_in(transaction.on(), &request).await {
            Ok(replayed) => replayed,
            Err(error @ OperationError::Store(_)) => return Err(error),
            Err(error) => return Err(transaction.refuse(error).await),
        };
        self.notify(&mut transaction).await.map_err(failed)?;
        transaction.end().await.map_err(failed)?;
        self.wake();
        Ok(replayed)
    }

    /// Makes due again what is asked for.
    async fn replay_in(
        &self,
        connection: &mut PgConnection,
        request: &ReplayRequest,
    ) -> Result<Replayed, OperationError> {
        match &request.replay {
            Replay::Delivery(delivery) => self.replay_one(connection, *delivery, request.now).await,
            Replay::Failed { endpoint, since } => {
                let (number, found) = self.active(connection, endpoint).await?;
                replay_failed(connection, number, &found, *since, request).await.map_err(failed)
            }
            Replay::Missed { endpoint, since } => {
                let lock = sqlx::query(ADD).persistent(false).execute(&mut *connection);
                lock.await.map_err(failed)?;
                let (number, found) = self.active(connection, endpoint).await?;
                replay_missed(connection, number, &found, *since, request).await.map_err(failed)
            }
        }
    }

    /// Wakes the other workers when the transaction is committed.
    async fn notify(&self, transaction: &mut Call) -> Result<(), sqlx::Error> {
        let notify = sqlx::query("SELECT webhooks.notify_others($1)")
            .persistent(false)
            .bind(self.workers.id);
        notify.execute(transaction.on()).await.map(drop)
    }

    async fn replay_one(
        &self,
        connection: &mut PgConnection,
        delivery: DeliveryId,
        now: Timestamp,
    ) -> Result<Replayed, OperationError> {
        let found = find(connection, delivery).await.map_err(failed)?;
        let found = found.ok_or(OperationError::UnknownDelivery { delivery })?;
        if found.is_open {
            return Err(OperationError::Status { delivery, status: found.status });
        }
        let (_, registration) = self.active(connection, &found.endpoint).await?;
        if !found.is_current {
            return Err(OperationError::UnknownEndpoint { endpoint: found.endpoint });
        }
        let ids = vec![row::number(delivery)];
        let reopened = reopen(connection, ids, &registration, now).await.map_err(failed)?;
        Ok(Replayed { deliveries: reopened, next: None })
    }

    /// Returns an endpoint that can get something; it stays so until the transaction ends.
    async fn active(
        &self,
        connection: &mut PgConnection,
        endpoint: &EndpointId,
    ) -> Result<(i64, Registration), OperationError> {
        let found = lock(connection, endpoint).await.map_err(failed)?;
        let read = |found: Locked| Ok((found.number, found.read(&self.keys)?));
        let found = found.map(read).transpose().map_err(failed)?;
        let found = found.filter(|(_, registration)| registration.endpoint.active);
        found.ok_or_else(|| OperationError::UnknownEndpoint { endpoint: endpoint.clone() })
    }
}

async fn reopen(
    connection: &mut PgConnection,
    ids: Vec<i64>,
    registration: &Registration,
    now: Timestamp,
) -> Result<usize, sqlx::Error> {
    let reopen = sqlx::query(REOPEN)
        .persistent(false)
        .bind(ids)
        .bind(At(now))
        .bind(registration.endpoint.ordered);
    let reopened = reopen.execute(connection).await?.rows_affected();
    Ok(usize::try_from(reopened).unwrap_or(usize::MAX))
}

async fn replay_failed(
    connection: &mut PgConnection,
    number: i64,
    registration: &Registration,
    since: Timestamp,
    request: &ReplayRequest,
) -> Result<Replayed, sqlx::Error> {
    const FAILED: &str = "SELECT id FROM webhooks.ended
        WHERE endpoint = $1 AND status = 'failed' AND id > $2 AND since >= $3 AND since < $4
        ORDER BY id LIMIT $5";
    let failed: Vec<i64> = sqlx::query_scalar(FAILED)
        .persistent(false)
        .bind(number)
        .bind(request.after.map_or(0, row::integer))
        .bind(At(since))
        .bind(At(request.now))
        .bind(row::limit(request.limit))
        .fetch_all(&mut *connection)
        .await?;
    let next = failed.last().filter(|_| failed.len() >= request.limit);
    let next = next.map(|next| row::unsigned(*next));
    let deliveries = reopen(connection, failed, registration, request.now).await?;
    Ok(Replayed { deliveries, next })
}

async fn replay_missed(
    connection: &mut PgConnection,
    number: i64,
    registration: &Registration,
    since: Timestamp,
    request: &ReplayRequest,
) -> Result<Replayed, sqlx::Error> {
    // An endpoint that was registered anew has had what its earlier rows have.
    const ROWS: &str = "SELECT number FROM webhooks.endpoints WHERE id = $1";
    const EVENTS: &str = "
        SELECT v.number, v.type, v.tenant = $5
            AND NOT EXISTS (SELECT 1 FROM webhooks.waiting w
                            WHERE webhooks.is_of(w.id, v.number) AND w.endpoint = ANY ($4))
            AND NOT EXISTS (SELECT 1 FROM webhooks.ended d
                            WHERE webhooks.is_of(d.id, v.number) AND d.event_at = v.accepted_at
                              AND d.endpoint = ANY ($4))
        FROM webhooks.events v WHERE v.number > $1 AND v.accepted_at >= $2
        ORDER BY v.number LIMIT $3";
    const INSERT: &str = "
        INSERT INTO webhooks.waiting (id, endpoint, due_at, event_at, since)
        SELECT 1 + greatest(
                   webhooks.first_delivery(v.number) - 1,
                   (SELECT max(w.id) FROM webhooks.waiting w WHERE webhooks.is_of(w.id, v.number)),
                   (SELECT max(d.id) FROM webhooks.ended d
                    WHERE webhooks.is_of(d.id, v.number) AND d.event_at = v.accepted_at)),
               $2, CASE WHEN $4 THEN 'epoch' ELSE $3 END, v.accepted_at, $3
        FROM webhooks.events v WHERE v.number = ANY ($1) ORDER BY v.number";
    let endpoint = &registration.endpoint;
    let numbers: Vec<i64> = sqlx::query_scalar(ROWS)
        .persistent(false)
        .bind(registration.id.as_str())
        .fetch_all(&mut *connection)
        .await?;
    let rows = sqlx::query(EVENTS)
        .persistent(false)
        .bind(request.after.map_or(0, row::integer))
        .bind(At(since))
        .bind(row::limit(request.limit))
        .bind(numbers)
        .bind(endpoint.tenant.as_str())
        .fetch_all(&mut *connection)
        .await?;
    let (mut missed, mut last) = (Vec::new(), None);
    for row in &rows {
        let event: i64 = row.try_get(0)?;
        last = Some(row::unsigned(event));
        if row.try_get(2)? && endpoint.wants(&row::event_type(row, 1)?) {
            missed.push(event);
        }
    }
    let insert =
        sqlx::query(INSERT).persistent(false).bind(missed).bind(number).bind(At(request.now));
    let inserted = insert.bind(endpoint.ordered).execute(connection).await?.rows_affected();
    let deliveries = usize::try_from(inserted).unwrap_or(usize::MAX);
    Ok(Replayed { deliveries, next: last.filter(|_| rows.len() >= request.limit) })
}

fn failed(error: sqlx::Error) -> OperationError {
    store_error(error).into()
}
