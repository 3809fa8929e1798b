//! Replay: ended deliveries become due again, and missed events get the deliveries that they lack.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{PgConnection, Row as _};
use webhooks_core::{DeliveryId, DeliveryStatus, EventId, TenantId, Timestamp};
use webhooks_dispatch::{
    OperationError, Replay, Undelivered,
    store::{ReplayCursor, ReplayMode, ReplayRequest, Replayed},
};
use webhooks_registry::{Endpoint, EndpointKey};

use crate::drain::{LockedRows, drain};
use crate::endpoint_row::{Locked, lock, lock_all};
use crate::operations::{FoundDelivery, failed, find};
use crate::row::{self, At};
use crate::state::PostgresInner;

/// The number of events that are looked at for each missed one that is asked for: most may be those
/// of other tenants, which cost little.
const LOOK: usize = 40;

/// Locks the events of a tenant for the transaction that adds deliveries to them: the id of a new
/// delivery is the last id of its event, plus one. It comes before the lock of the endpoint, which
/// settlements may wait for.
const LOCK_EVENTS: &str = "SELECT pg_advisory_xact_lock(7305003, hashtext($1))";

/// An endpoint that deliveries are stored for; it stays so until the transaction ends.
struct Open {
    number: i64,
    endpoint: Endpoint,
}

/// A delivery or an event, and the row of the endpoint that it goes to.
#[derive(Debug, Clone, Copy)]
struct Target {
    number: i64,
    endpoint: i64,
    is_ordered: bool,
}

/// A portion of a replay: the deliveries to reopen, the events to deliver, and where to go on.
#[derive(Default)]
struct Portion {
    ended: Vec<Target>,
    missed: Vec<Target>,
    next: Option<ReplayCursor>,
}

impl PostgresInner {
    pub(crate) async fn replay(&self, request: ReplayRequest) -> Result<Replayed, OperationError> {
        let mut transaction = self.database.begin().await.map_err(failed)?;
        let portion = match self.portion(transaction.connection(), &request).await {
            Ok(portion) => portion,
            // The connection may be broken, and is closed.
            Err(error @ OperationError::Store(_)) => return Err(error),
            Err(error) => return Err(transaction.refuse(error).await),
        };
        let mut deliveries = portion.ended.len() + portion.missed.len();
        if request.mode == ReplayMode::Replay {
            let reopened = reopen(transaction.connection(), &portion.ended, request.now).await;
            let delivered = deliver(transaction.connection(), &portion.missed, request.now).await;
            deliveries = reopened.map_err(failed)? + delivered.map_err(failed)?;
            self.notify_others(&mut transaction).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)?;
        self.wake();
        Ok(Replayed { deliveries, next: portion.next })
    }

    async fn portion(
        &self,
        connection: &mut PgConnection,
        request: &ReplayRequest,
    ) -> Result<Portion, OperationError> {
        match &request.replay {
            Replay::Delivery(delivery) => {
                let targets = self.targets(connection, &[*delivery], request, |_| true).await?;
                let ended = targets.into_iter().collect::<Result<_, _>>()?;
                Ok(Portion { ended, ..Portion::default() })
            }
            Replay::Deliveries(ids) => self.several(connection, ids, request).await,
            Replay::Endpoint { endpoint, which, since, until } => {
                self.of_endpoint(connection, endpoint, *which, (*since, *until), request).await
            }
            Replay::Event { tenant, event, which } => {
                self.of_event(connection, (tenant, event), *which, request).await
            }
        }
    }

    /// Returns the target of each delivery that has ended with a wanted status, or why it has none.
    /// Deliveries that ended with another status are left out, and so are those that this replay
    /// has made due before. `deliveries` has each once.
    ///
    /// All replays lock in this order: pending deliveries by their ids, and then endpoints. So they
    /// never wait for each other in a circle. Once the endpoints are locked, no other replay
    /// touches their ended deliveries.
    async fn targets(
        &self,
        connection: &mut PgConnection,
        deliveries: &[DeliveryId],
        request: &ReplayRequest,
        is_wanted: impl Fn(DeliveryStatus) -> bool,
    ) -> Result<Vec<Result<Target, OperationError>>, OperationError> {
        let before = find(connection, deliveries).await.map_err(failed)?;
        let has_ended = |found: &&FoundDelivery| {
            !found.is_open && !request.has_replayed(found.queued_at) && is_wanted(found.status)
        };
        let keys: BTreeSet<EndpointKey> =
            before.values().filter(has_ended).map(|found| found.endpoint.clone()).collect();
        // Some may still wait for closed rows of their endpoints, which counts as cancelled.
        cancel_closed(connection, deliveries).await.map_err(failed)?;
        let locked = lock_all(connection, &keys).await.map_err(failed)?;
        let locked: BTreeMap<EndpointKey, Locked> = locked.into_iter().collect();
        // Another replay may have been quicker.
        let found = find(connection, deliveries).await.map_err(failed)?;
        let mut targets = Vec::with_capacity(deliveries.len());
        for delivery in deliveries.iter().copied() {
            let target = match found.get(&delivery) {
                None => Err(OperationError::UnknownDelivery { delivery }),
                Some(found) if request.has_replayed(found.queued_at) => continue,
                Some(FoundDelivery { status, is_open: true, .. }) => {
                    Err(OperationError::WrongStatus { delivery, status: *status })
                }
                Some(found) if !is_wanted(found.status) => continue,
                // It ended after the first look, so it was pending when the replay was asked for.
                Some(FoundDelivery { endpoint, .. }) if !keys.contains(endpoint) => {
                    let status =
                        before.get(&delivery).map_or(DeliveryStatus::Pending, |found| found.status);
                    Err(OperationError::WrongStatus { delivery, status })
                }
                Some(FoundDelivery { endpoint, .. }) => {
                    match self.read(endpoint, locked.get(endpoint)) {
                        Err(error @ OperationError::Store(_)) => return Err(error),
                        open => open.map(|open| open.target(row::number(delivery))),
                    }
                }
            };
            targets.push(target);
        }
        Ok(targets)
    }

    async fn several(
        &self,
        connection: &mut PgConnection,
        ids: &[DeliveryId],
        request: &ReplayRequest,
    ) -> Result<Portion, OperationError> {
        let (ids, next) = request.portion(ids);
        let given: BTreeSet<DeliveryId> = ids.iter().copied().collect();
        let given = Vec::from_iter(given);
        let targets = self.targets(connection, &given, request, |_| true).await?;
        let ended = targets.into_iter().filter_map(Result::ok).collect();
        Ok(Portion { ended, missed: Vec::new(), next })
    }

    async fn of_endpoint(
        &self,
        connection: &mut PgConnection,
        endpoint: &EndpointKey,
        which: Undelivered,
        (since, until): (Timestamp, Option<Timestamp>),
        request: &ReplayRequest,
    ) -> Result<Portion, OperationError> {
        let mut portion = Portion::default();
        match request.begin(which) {
            Some(ReplayCursor::Missed(_)) => {
                lock_events(connection, &endpoint.tenant).await.map_err(failed)?;
            }
            // It may wait for other transactions, and so comes before the lock of the endpoint.
            Some(begin @ ReplayCursor::Ended(_))
                if drain_before(connection, endpoint).await.map_err(failed)? =>
            {
                portion.next = Some(begin);
                return Ok(portion);
            }
            _ => {}
        }
        let open = self.open(connection, endpoint).await?;
        let Some(begin) = request.begin(which) else { return Ok(portion) };
        let last = match begin {
            ReplayCursor::Ended(after) => {
                let ended = ended(connection, endpoint, after, which, (since, until), request);
                let ended = ended.await.map_err(failed)?;
                let last = ended.last().filter(|_| ended.len() >= request.limit).copied();
                portion.ended = ended.into_iter().map(|delivery| open.target(delivery)).collect();
                last
            }
            ReplayCursor::Missed(after) => {
                let missed =
                    missed(connection, endpoint, &open, after, (since, until), request.limit);
                let (missed, last) = missed.await.map_err(failed)?;
                portion.missed = missed.into_iter().map(|event| open.target(event)).collect();
                last
            }
        };
        portion.next = ReplayRequest::next(begin, which, last.map(row::unsigned));
        Ok(portion)
    }

    async fn of_event(
        &self,
        connection: &mut PgConnection,
        (tenant, event): (&TenantId, &EventId),
        which: Undelivered,
        request: &ReplayRequest,
    ) -> Result<Portion, OperationError> {
        const EVENT: &str = "SELECT event FROM webhooks.event_keys WHERE id = $1 AND tenant = $2";
        const LOOK: &str = "SELECT id FROM webhooks.deliveries_view
            WHERE webhooks.is_of(id, $1) AND id > $2 ORDER BY id LIMIT $3";
        let found = sqlx::query_scalar(EVENT).persistent(false).bind(event.to_string());
        let found: Option<i64> =
            found.bind(tenant.as_str()).fetch_optional(&mut *connection).await.map_err(failed)?;
        let number = found.ok_or_else(|| OperationError::UnknownEvent { event: event.clone() })?;
        let mut portion = Portion::default();
        let Some(begin) = request.begin(which) else { return Ok(portion) };
        let last = match begin {
            ReplayCursor::Ended(after) => {
                let look = sqlx::query_scalar(LOOK).persistent(false).bind(number);
                let look = look.bind(row::integer(after)).bind(row::limit(request.limit));
                let looked: Vec<i64> = look.fetch_all(&mut *connection).await.map_err(failed)?;
                let ids: Vec<DeliveryId> = looked.iter().map(|id| row::delivery_id(*id)).collect();
                let includes = |status| which.includes(status);
                let targets = self.targets(connection, &ids, request, includes).await?;
                portion.ended = targets.into_iter().filter_map(Result::ok).collect();
                looked.last().filter(|_| looked.len() >= request.limit).copied()
            }
            ReplayCursor::Missed(_) => {
                lock_events(connection, tenant).await.map_err(failed)?;
                portion.missed = missed_by(connection, number, tenant).await.map_err(failed)?;
                None
            }
        };
        portion.next = ReplayRequest::next(begin, which, last.map(row::unsigned));
        Ok(portion)
    }

    /// Locks and reads an endpoint; an error if no deliveries are stored for it.
    async fn open(
        &self,
        connection: &mut PgConnection,
        key: &EndpointKey,
    ) -> Result<Open, OperationError> {
        let locked = lock(connection, key).await.map_err(failed)?;
        self.read(key, locked.as_ref())
    }

    /// Reads a locked endpoint; an error if no deliveries are stored for it.
    fn read(&self, key: &EndpointKey, locked: Option<&Locked>) -> Result<Open, OperationError> {
        let locked = Replay::target(key, locked.map(|locked| (locked.state, locked)))?;
        let registration = locked.read(&self.keys).map_err(failed)?;
        Ok(Open { number: locked.number, endpoint: registration.endpoint })
    }
}

impl Open {
    fn target(&self, number: i64) -> Target {
        Target { number, endpoint: self.number, is_ordered: self.endpoint.ordered }
    }
}

async fn lock_events(connection: &mut PgConnection, tenant: &TenantId) -> Result<(), sqlx::Error> {
    sqlx::query(LOCK_EVENTS)
        .persistent(false)
        .bind(tenant.as_str())
        .execute(connection)
        .await
        .map(drop)
}

/// Cancels those of these deliveries that wait for closed rows.
async fn cancel_closed(
    connection: &mut PgConnection,
    deliveries: &[DeliveryId],
) -> Result<(), sqlx::Error> {
    const LOCK: &str = "SELECT w.id FROM webhooks.pending_deliveries w
        JOIN webhooks.endpoints e ON e.number = w.endpoint
        WHERE w.id = ANY ($1) AND NOT e.is_open ORDER BY w.id FOR UPDATE OF w";
    const CANCEL: &str = "
        WITH gone AS (
            DELETE FROM webhooks.pending_deliveries w USING webhooks.endpoints e
            WHERE w.id = ANY ($1) AND e.number = w.endpoint AND NOT e.is_open
            RETURNING w.*, e.state
        )
        INSERT INTO webhooks.ended_deliveries
            (id, event_at, endpoint, status, queued_at, attempts, attempts_before_replay, cancelled)
        SELECT id, event_at, endpoint, 'cancelled', queued_at, attempts, attempts_before_replay,
               state
        FROM gone";
    let ids: Vec<i64> = deliveries.iter().map(|delivery| row::number(*delivery)).collect();
    let lock = sqlx::query_scalar(LOCK).persistent(false).bind(ids);
    let locked: Vec<i64> = lock.fetch_all(&mut *connection).await?;
    if locked.is_empty() {
        return Ok(());
    }
    sqlx::query(CANCEL).persistent(false).bind(locked).execute(connection).await.map(drop)
}

/// Cancels some of the deliveries that wait for earlier, closed rows of an open endpoint; returns
/// whether there were any. It waits for other transactions that do so, so that the caller sees the
/// outcome.
async fn drain_before(
    connection: &mut PgConnection,
    endpoint: &EndpointKey,
) -> Result<bool, sqlx::Error> {
    const BEFORE: &str = "SELECT e.number FROM webhooks.endpoints e
        JOIN webhooks.endpoints c ON c.tenant = e.tenant AND c.id = e.id
             AND c.is_current AND c.is_open
        WHERE e.tenant = $1 AND e.id = $2 AND NOT e.is_current
          AND EXISTS (SELECT 1 FROM webhooks.pending_deliveries w WHERE w.endpoint = e.number)
        LIMIT 1";
    let before = sqlx::query_scalar(BEFORE).persistent(false).bind(endpoint.tenant.as_str());
    let before: Option<i64> =
        before.bind(endpoint.id.as_str()).fetch_optional(&mut *connection).await?;
    let Some(before) = before else { return Ok(false) };
    let _some_or_all = drain(connection, before, LockedRows::WaitFor).await?;
    Ok(true)
}

/// Returns the first deliveries after one that have ended for an endpoint, in the order of their
/// ids.
async fn ended(
    connection: &mut PgConnection,
    endpoint: &EndpointKey,
    after: u64,
    which: Undelivered,
    (since, until): (Timestamp, Option<Timestamp>),
    request: &ReplayRequest,
) -> Result<Vec<i64>, sqlx::Error> {
    // For each row of the endpoint, the index returns its deliveries in order, and no more of them
    // than the limit.
    const ENDED: &str = "SELECT d.id
        FROM webhooks.endpoints e CROSS JOIN LATERAL (
            SELECT id FROM webhooks.ended_deliveries
            WHERE endpoint = e.number AND status IN ('failed', 'cancelled') AND id > $3
              AND (status = 'failed' AND $4 OR status = 'cancelled' AND $5)
              AND queued_at >= $6 AND ($7::timestamptz IS NULL OR queued_at < $7)
              AND queued_at NOT BETWEEN $8 AND $9
            ORDER BY id LIMIT $10
        ) d
        WHERE e.tenant = $1 AND e.id = $2 ORDER BY d.id LIMIT $10";
    sqlx::query_scalar(ENDED)
        .persistent(false)
        .bind(endpoint.tenant.as_str())
        .bind(endpoint.id.as_str())
        .bind(row::integer(after))
        .bind(which.failed)
        .bind(which.cancelled)
        .bind(At(since))
        .bind(until.map(At))
        .bind(At(request.started_at))
        .bind(At(request.now))
        .bind(row::limit(request.limit))
        .fetch_all(connection)
        .await
}

/// Looks at events after one; returns those of its tenant that an endpoint missed, and the last one
/// that was looked at if there may be more.
async fn missed(
    connection: &mut PgConnection,
    key: &EndpointKey,
    open: &Open,
    after: u64,
    (since, until): (Timestamp, Option<Timestamp>),
    limit: usize,
) -> Result<(Vec<i64>, Option<i64>), sqlx::Error> {
    // An endpoint that was enabled or registered again has several rows. A delivery of any of them
    // counts.
    const MISSED: &str = "
        WITH looked AS MATERIALIZED (
            SELECT number, accepted_at, tenant, type FROM webhooks.events
            WHERE number > $1 AND accepted_at >= $4 AND ($5::timestamptz IS NULL OR accepted_at < $5)
            ORDER BY number LIMIT $6
        ), rows AS (SELECT number FROM webhooks.endpoints WHERE tenant = $2 AND id = $3)
        SELECT v.number, v.type, false FROM looked v
        WHERE v.tenant = $2
          AND NOT EXISTS (SELECT 1 FROM webhooks.pending_deliveries w
                          WHERE webhooks.is_of(w.id, v.number)
                            AND w.endpoint IN (SELECT * FROM rows))
          AND NOT EXISTS (SELECT 1 FROM webhooks.ended_deliveries d
                          WHERE webhooks.is_of(d.id, v.number) AND d.event_at = v.accepted_at
                            AND d.endpoint IN (SELECT * FROM rows))
        UNION ALL
        SELECT max(number), '', true FROM looked HAVING count(*) >= $6
        ORDER BY 1";
    let looked = limit.saturating_mul(LOOK);
    let rows = sqlx::query(MISSED)
        .persistent(false)
        .bind(row::integer(after))
        .bind(key.tenant.as_str())
        .bind(key.id.as_str())
        .bind(At(since))
        .bind(until.map(At))
        .bind(row::limit(looked))
        .fetch_all(connection)
        .await?;
    let (mut missed, mut last) = (Vec::new(), None);
    for row in &rows {
        let number: i64 = row.try_get(0)?;
        if row.try_get(2)? {
            last = Some(number);
        } else if open.endpoint.wants(&row::event_type(row, 1)?) {
            missed.push(number);
        }
    }
    if missed.len() > limit {
        missed.truncate(limit);
        last = missed.last().copied();
    }
    Ok((missed, last))
}

/// Returns the endpoints of the event's tenant that want the event and have no delivery of it.
async fn missed_by(
    connection: &mut PgConnection,
    event: i64,
    tenant: &TenantId,
) -> Result<Vec<Target>, sqlx::Error> {
    const MISSED: &str = "
        SELECT DISTINCT s.endpoint, s.is_ordered
        FROM webhooks.event_keys k
        JOIN webhooks.events v ON v.number = k.event AND v.accepted_at = k.event_at
        JOIN webhooks.subscriptions s ON s.tenant = k.tenant
             AND s.pattern = ANY (string_to_array(webhooks.patterns(v.type), ' '))
        JOIN webhooks.endpoints e ON e.number = s.endpoint
        WHERE k.event = $1 AND k.tenant = $2 AND v.number = $1 AND NOT EXISTS (
            SELECT 1 FROM webhooks.endpoints o
            WHERE o.tenant = e.tenant AND o.id = e.id AND (
                EXISTS (SELECT 1 FROM webhooks.pending_deliveries w
                        WHERE webhooks.is_of(w.id, $1) AND w.endpoint = o.number)
                OR EXISTS (SELECT 1 FROM webhooks.ended_deliveries d
                           WHERE webhooks.is_of(d.id, $1) AND d.event_at = v.accepted_at
                             AND d.endpoint = o.number)))
        ORDER BY s.endpoint";
    let missed = sqlx::query_as(MISSED).persistent(false).bind(event).bind(tenant.as_str());
    let missed: Vec<(i64, bool)> = missed.fetch_all(connection).await?;
    let target = |(endpoint, is_ordered)| Target { number: event, endpoint, is_ordered };
    Ok(missed.into_iter().map(target).collect())
}

/// Makes ended deliveries due again, and returns how many. The attempts that ended them become
/// earlier attempts.
async fn reopen(
    connection: &mut PgConnection,
    ended: &[Target],
    now: Timestamp,
) -> Result<usize, sqlx::Error> {
    const REOPEN: &str = "
        WITH given AS (
            SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::boolean[])
            AS g(id, endpoint, is_ordered)
        ), reopened AS (
            DELETE FROM webhooks.ended_deliveries d USING given g WHERE d.id = g.id
            RETURNING d.*, g.endpoint AS target, g.is_ordered
        ), attempt AS (
            INSERT INTO webhooks.earlier_attempts
            SELECT id, attempts, event_at, started_at, duration_us, status_code, error_class, error,
                   response_headers, response
            FROM reopened WHERE started_at IS NOT NULL
        )
        INSERT INTO webhooks.pending_deliveries
            (id, endpoint, due_at, event_at, queued_at, attempts, attempts_before_replay)
        SELECT id, target, CASE WHEN is_ordered THEN 'epoch' ELSE $4 END, event_at, $4, attempts,
               attempts
        FROM reopened ORDER BY id";
    if ended.is_empty() {
        return Ok(0);
    }
    let done = bind(REOPEN, ended).bind(At(now)).execute(connection).await?;
    Ok(usize::try_from(done.rows_affected()).unwrap_or(usize::MAX))
}

/// Adds the deliveries of missed events, and returns how many.
async fn deliver(
    connection: &mut PgConnection,
    missed: &[Target],
    now: Timestamp,
) -> Result<usize, sqlx::Error> {
    const INSERT: &str = "
        INSERT INTO webhooks.pending_deliveries (id, endpoint, due_at, event_at, queued_at)
        SELECT row_number() OVER (PARTITION BY v.number ORDER BY g.endpoint) + greatest(
                   webhooks.first_delivery(v.number) - 1,
                   (SELECT max(w.id) FROM webhooks.pending_deliveries w
                    WHERE webhooks.is_of(w.id, v.number)),
                   (SELECT max(d.id) FROM webhooks.ended_deliveries d
                    WHERE webhooks.is_of(d.id, v.number) AND d.event_at = v.accepted_at)),
               g.endpoint, CASE WHEN g.is_ordered THEN 'epoch' ELSE $4 END, v.accepted_at, $4
        FROM unnest($1::bigint[], $2::bigint[], $3::boolean[]) AS g(number, endpoint, is_ordered)
        JOIN webhooks.events v ON v.number = g.number ORDER BY v.number, g.endpoint";
    if missed.is_empty() {
        return Ok(0);
    }
    let done = bind(INSERT, missed).bind(At(now)).execute(connection).await?;
    Ok(usize::try_from(done.rows_affected()).unwrap_or(usize::MAX))
}

fn bind(
    statement: &'static str,
    targets: &[Target],
) -> sqlx::query::Query<'static, sqlx::Postgres, sqlx::postgres::PgArguments> {
    sqlx::query(statement)
        .persistent(false)
        .bind(targets.iter().map(|target| target.number).collect::<Vec<_>>())
        .bind(targets.iter().map(|target| target.endpoint).collect::<Vec<_>>())
        .bind(targets.iter().map(|target| target.is_ordered).collect::<Vec<_>>())
}
