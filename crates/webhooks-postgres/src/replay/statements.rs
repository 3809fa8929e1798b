//! The statements of a replay, on the connection of its transaction.

use sqlx::postgres::{PgArguments, Postgres};
use sqlx::{PgConnection, Row as _};
use webhooks_core::{DeliveryId, TenantId, Timestamp};
use webhooks_dispatch::{Undelivered, figures::FigureKind, store::ReplayRequest};
use webhooks_registry::{Endpoint, EndpointKey};

use crate::row::{self, At};

/// The number of events that are looked at for each missed one that is asked for: the endpoint may have
/// most of them.
const EVENTS_PER_MISSED: usize = 10;

/// Locks the events of a tenant for the transaction that adds deliveries to them: the id of a new
/// delivery is the last id of its event, plus one. It comes before the lock of the endpoint, which
/// settlements may wait for.
const LOCK_EVENTS: &str = "SELECT pg_advisory_xact_lock(7305003, hashtext($1))";

/// An open endpoint: one that deliveries are stored for. It stays open until the transaction ends.
pub(super) struct OpenEndpoint {
    pub(super) number: i64,
    pub(super) endpoint: Endpoint,
}

/// A delivery or an event, and the row of the endpoint that it goes to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) number: i64,
    pub(super) endpoint: i64,
    pub(super) is_ordered: bool,
}

impl OpenEndpoint {
    pub(super) fn target(&self, number: i64) -> Target {
        Target { number, endpoint: self.number, is_ordered: self.endpoint.ordered }
    }
}

pub(super) async fn lock_events(
    connection: &mut PgConnection,
    tenant: &TenantId,
) -> Result<(), sqlx::Error> {
    sqlx::query(LOCK_EVENTS)
        .persistent(false)
        .bind(tenant.as_str())
        .execute(connection)
        .await
        .map(drop)
}

/// Locks the events of tenants for a transaction that makes ended deliveries of them pending: their
/// content is not deleted meanwhile. It comes before all other locks.
pub(super) async fn share_events(
    connection: &mut PgConnection,
    tenants: impl IntoIterator<Item = &TenantId>,
) -> Result<(), sqlx::Error> {
    const SHARE: &str = "SELECT pg_advisory_xact_lock_shared(7305003, hash) FROM (
        SELECT DISTINCT hashtext(tenant) AS hash FROM unnest($1::text[]) AS t(tenant) ORDER BY 1) h";
    let tenants: Vec<&str> = tenants.into_iter().map(TenantId::as_str).collect();
    sqlx::query(SHARE).persistent(false).bind(tenants).execute(connection).await.map(drop)
}

/// Cancels those of these deliveries that are pending for closed rows.
pub(super) async fn cancel_if_closed(
    connection: &mut PgConnection,
    deliveries: &[DeliveryId],
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    const CANCEL: &str = "SELECT webhooks.cancel_if_closed($1, $2)";
    let ids: Vec<i64> = deliveries.iter().map(|delivery| row::delivery_int8(*delivery)).collect();
    let cancel = sqlx::query(CANCEL).persistent(false).bind(ids).bind(At(now));
    cancel.execute(connection).await.map(drop)
}

/// Returns an earlier, closed row of an open endpoint for which deliveries are pending.
pub(super) async fn earlier_row(
    connection: &mut PgConnection,
    endpoint: &EndpointKey,
) -> Result<Option<i64>, sqlx::Error> {
    const EARLIER: &str = "SELECT e.number FROM webhooks.endpoints e
        JOIN webhooks.endpoints c ON c.tenant = e.tenant AND c.id = e.id
             AND c.is_current AND c.is_open
        WHERE e.tenant = $1 AND e.id = $2 AND NOT e.is_current
          AND EXISTS (SELECT 1 FROM webhooks.pending_deliveries w WHERE w.endpoint = e.number)
        LIMIT 1";
    let earlier = sqlx::query_scalar(EARLIER).persistent(false).bind(endpoint.tenant.as_str());
    earlier.bind(endpoint.id.as_str()).fetch_optional(connection).await
}

/// Returns the first deliveries after one that have ended for an endpoint, in the order of their
/// ids.
pub(super) async fn ended(
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
            SELECT id FROM webhooks.ended_deliveries o
            WHERE endpoint = e.number AND status IN ('failed', 'cancelled') AND id > $3
              AND (status = 'failed' AND $4 OR status = 'cancelled' AND $5)
              AND queued_at >= $6 AND ($7::timestamptz IS NULL OR queued_at < $7)
              AND queued_at NOT BETWEEN $8 AND $9
              AND NOT EXISTS (SELECT 1 FROM webhooks.events v
                              WHERE v.number = webhooks.event_of(o.id)
                                AND v.accepted_at = o.event_at AND v.expunged_at IS NOT NULL)
            ORDER BY id LIMIT $10
        ) d
        WHERE e.tenant = $1 AND e.id = $2 ORDER BY d.id LIMIT $10";
    sqlx::query_scalar(ENDED)
        .persistent(false)
        .bind(endpoint.tenant.as_str())
        .bind(endpoint.id.as_str())
        .bind(row::int8(after))
        .bind(which.failed)
        .bind(which.cancelled)
        .bind(At(since))
        .bind(until.map(At))
        .bind(At(request.started_at))
        .bind(At(request.now))
        .bind(row::int4(request.limit))
        .fetch_all(connection)
        .await
}

/// Looks at events of a tenant after one; returns those that its endpoint missed, and the last one
/// that was looked at if there may be more.
pub(super) async fn missed(
    connection: &mut PgConnection,
    key: &EndpointKey,
    open: &OpenEndpoint,
    after: u64,
    (since, until): (Timestamp, Option<Timestamp>),
    limit: usize,
) -> Result<(Vec<i64>, Option<i64>), sqlx::Error> {
    // An endpoint that was enabled or registered again has several rows. A delivery of any of them
    // counts. A range of one tenant, in the order of both columns: the planner must not walk along the
    // events of all tenants.
    const MISSED: &str = "
        WITH looked AS MATERIALIZED (
            SELECT number, accepted_at, type, channels, only_ids, expunged_at FROM webhooks.events
            WHERE tenant >= $2 AND tenant <= $2 AND number > $1 AND accepted_at >= $4
              AND ($5::timestamptz IS NULL OR accepted_at < $5)
            ORDER BY tenant, number LIMIT $6
        ), rows AS (SELECT number FROM webhooks.endpoints WHERE tenant = $2 AND id = $3)
        SELECT v.number, v.type, false, v.channels, v.only_ids IS NOT NULL FROM looked v
        WHERE v.expunged_at IS NULL
          AND (v.only_ids IS NULL OR $3 = ANY (v.only_ids))
          AND NOT EXISTS (SELECT 1 FROM webhooks.pending_deliveries w
                          WHERE webhooks.is_of(w.id, v.number)
                            AND w.endpoint IN (SELECT * FROM rows))
          AND NOT EXISTS (SELECT 1 FROM webhooks.ended_deliveries d
                          WHERE webhooks.is_of(d.id, v.number) AND d.event_at = v.accepted_at
                            AND d.endpoint IN (SELECT * FROM rows))
        UNION ALL
        SELECT max(number), '', true, NULL, false FROM looked HAVING count(*) >= $6
        ORDER BY 1";
    let looked = limit.saturating_mul(EVENTS_PER_MISSED);
    let rows = sqlx::query(MISSED)
        .persistent(false)
        .bind(row::int8(after))
        .bind(key.tenant.as_str())
        .bind(key.id.as_str())
        .bind(At(since))
        .bind(until.map(At))
        .bind(row::int4(looked))
        .fetch_all(connection)
        .await?;
    let (mut missed, mut last) = (Vec::new(), None);
    for row in &rows {
        let number: i64 = row.try_get(0)?;
        if row.try_get(2)? {
            last = Some(number);
        } else if row.try_get(4)?
            || (open.endpoint.wants(&row::event_type(row, 1)?)
                && open.endpoint.listens_to(&row::channels(row, 3)?))
        {
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
pub(super) async fn missed_by(
    connection: &mut PgConnection,
    event: i64,
    tenant: &TenantId,
) -> Result<Vec<Target>, sqlx::Error> {
    const MISSED: &str = "
        SELECT e.number, e.is_ordered
        FROM webhooks.event_keys k
        JOIN webhooks.events v ON v.number = k.event AND v.accepted_at = k.event_at
        JOIN webhooks.endpoints e ON e.tenant = k.tenant AND e.is_current AND e.is_open
             AND CASE WHEN v.only_ids IS NOT NULL THEN e.id = ANY (v.only_ids)
                 ELSE EXISTS (
                     SELECT 1 FROM webhooks.subscriptions s
                     WHERE s.endpoint = e.number AND s.tenant = k.tenant
                       AND s.pattern = ANY (string_to_array(webhooks.patterns(v.type), ' '))
                       AND (s.channels IS NULL OR s.channels && v.channels)) END
        WHERE k.event = $1 AND k.tenant = $2 AND v.number = $1 AND v.expunged_at IS NULL
          AND NOT EXISTS (
            SELECT 1 FROM webhooks.endpoints o
            WHERE o.tenant = e.tenant AND o.id = e.id AND (
                EXISTS (SELECT 1 FROM webhooks.pending_deliveries w
                        WHERE webhooks.is_of(w.id, $1) AND w.endpoint = o.number)
                OR EXISTS (SELECT 1 FROM webhooks.ended_deliveries d
                           WHERE webhooks.is_of(d.id, $1) AND d.event_at = v.accepted_at
                             AND d.endpoint = o.number)))
        ORDER BY e.number";
    let missed = sqlx::query_as(MISSED).persistent(false).bind(event).bind(tenant.as_str());
    let missed: Vec<(i64, bool)> = missed.fetch_all(connection).await?;
    let target = |(endpoint, is_ordered)| Target { number: event, endpoint, is_ordered };
    Ok(missed.into_iter().map(target).collect())
}

/// Makes ended deliveries due again, and returns how many. The attempts that ended them become
/// earlier attempts.
pub(super) async fn reopen(
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
                   response_headers, response, tenant
            FROM reopened WHERE started_at IS NOT NULL
        )
        INSERT INTO webhooks.pending_deliveries
            (id, endpoint, due_at, event_at, queued_at, created_at, attempts,
             attempts_before_replay, bytes)
        SELECT r.id, r.target, CASE WHEN r.is_ordered THEN 'epoch' ELSE $4 END, r.event_at, $4,
               r.created_at, r.attempts, r.attempts, octet_length(v.body)
        FROM reopened r JOIN webhooks.events v
            ON v.number = webhooks.event_of(r.id) AND v.accepted_at = r.event_at
        ORDER BY r.id";
    if ended.is_empty() {
        return Ok(0);
    }
    let done = bound(REOPEN, ended, now).execute(connection).await?;
    Ok(usize::try_from(done.rows_affected()).unwrap_or(usize::MAX))
}

/// Adds the deliveries of missed events, and returns how many. Those of an event that is scheduled
/// wait for its time. It is the last statement of its transaction, since it counts them.
pub(super) async fn deliver(
    connection: &mut PgConnection,
    missed: &[Target],
    now: Timestamp,
) -> Result<usize, sqlx::Error> {
    const INSERT: &str = "
        INSERT INTO webhooks.pending_deliveries
            (id, endpoint, due_at, event_at, queued_at, created_at, is_scheduled, bytes)
        SELECT row_number() OVER (PARTITION BY v.number ORDER BY g.endpoint) + greatest(
                   webhooks.first_delivery(v.number) - 1,
                   (SELECT max(w.id) FROM webhooks.pending_deliveries w
                    WHERE webhooks.is_of(w.id, v.number)),
                   (SELECT max(d.id) FROM webhooks.ended_deliveries d
                    WHERE webhooks.is_of(d.id, v.number) AND d.event_at = v.accepted_at)),
               g.endpoint,
               CASE WHEN v.deliver_at > $4 THEN v.deliver_at WHEN g.is_ordered THEN 'epoch'
                    ELSE $4 END,
               v.accepted_at, greatest(v.deliver_at, $4), $4,
               CASE WHEN v.deliver_at > $4 THEN true END, octet_length(v.body)
        FROM unnest($1::bigint[], $2::bigint[], $3::boolean[]) AS g(number, endpoint, is_ordered)
        JOIN webhooks.events v ON v.number = g.number ORDER BY v.number, g.endpoint
        RETURNING endpoint";
    const COUNT: &str = "SELECT webhooks.add_figures($1, $2, $3, webhooks.own_writer())";
    if missed.is_empty() {
        return Ok(0);
    }
    let rows = bound(INSERT, missed, now).fetch_all(&mut *connection).await?;
    let endpoints: Vec<i64> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let kinds = vec![FigureKind::Accepted.to_string(); endpoints.len()];
    let count = sqlx::query(COUNT).persistent(false).bind(endpoints).bind(kinds).bind(At(now));
    count.execute(connection).await?;
    Ok(rows.len())
}

/// Returns a statement on targets.
fn bound(
    statement: &'static str,
    targets: &[Target],
    now: Timestamp,
) -> sqlx::query::Query<'static, Postgres, PgArguments> {
    sqlx::query(statement)
        .persistent(false)
        .bind(targets.iter().map(|target| target.number).collect::<Vec<_>>())
        .bind(targets.iter().map(|target| target.endpoint).collect::<Vec<_>>())
        .bind(targets.iter().map(|target| target.is_ordered).collect::<Vec<_>>())
        .bind(At(now))
}
