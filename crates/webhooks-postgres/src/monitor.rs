//! The present state of the store, and its figures over time.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::Row as _;
use webhooks_core::{TenantId, Timestamp};
use webhooks_dispatch::{
    figures::{FigureKind, FiguresQuery, FiguresRow, by_step},
    monitor::{EndpointHealth, QueueDepth, Statistics},
    store::{Failing, StoreError},
};
use webhooks_registry::EndpointKey;

use crate::call::{with_read_retries, with_retries};
use crate::error::store_error;
use crate::row::{self, At};
use crate::state::PostgresInner;

/// The depth of the queue of an open endpoint `e`: it counts in the index, up to a limit. The first
/// delivery in the index is the one that is due first.
const DEPTH: &str = "(SELECT count(*) FROM (
        SELECT 1 FROM webhooks.pending_deliveries w WHERE w.endpoint = e.number LIMIT $1) w),
    (SELECT greatest(w.due_at, w.queued_at) FROM webhooks.pending_deliveries w
     WHERE w.endpoint = e.number ORDER BY w.due_at, w.id LIMIT 1)";

/// The time from which workers should have attempted the first delivery of an endpoint, which is due at
/// `oldest`; NULL if it is paused, or nothing waits.
const SERVABLE: &str = "CASE WHEN e.state = 'active' AND oldest IS NOT NULL
    THEN greatest(oldest, e.blocked_until) END";

impl PostgresInner {
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        // It changes no row, and a server that does not write refuses it all the same.
        const PING: &str = "UPDATE webhooks.settings SET is_only = is_only WHERE NOT is_only";
        let ping = async || {
            let mut call = self.database.call().await?;
            sqlx::query(PING).persistent(call.prepares()).execute(call.connection()).await?;
            call.commit().await
        };
        with_retries(ping).await.map_err(store_error)
    }

    pub(crate) async fn waiting(&self, limit: u64) -> Result<u64, StoreError> {
        // Deliveries of a closed endpoint do not wait: they are about to be cancelled.
        const COUNT: &str = "SELECT count(*) FROM
            (SELECT 1 FROM webhooks.pending_deliveries w
             JOIN webhooks.endpoints e ON e.number = w.endpoint
             WHERE e.is_open LIMIT $1) AS waiting";
        let limit = row::int8(limit);
        let count = async || {
            let mut call = self.database.reading_call().await?;
            let count = sqlx::query_scalar(COUNT).persistent(call.prepares()).bind(limit);
            let count: i64 = count.fetch_one(call.connection()).await?;
            call.commit().await?;
            Ok(row::unsigned(count))
        };
        with_read_retries(count).await.map_err(store_error)
    }

    pub(crate) async fn statistics(
        &self,
        endpoint: EndpointKey,
        since: Timestamp,
    ) -> Result<Statistics, StoreError> {
        const COUNT: &str = "
            SELECT CASE WHEN NOT e.is_open THEN 'cancelled'
                        WHEN w.attempts > w.attempts_before_replay THEN 'retrying'
                        ELSE 'pending' END,
                   count(*)
            FROM webhooks.endpoints e JOIN webhooks.pending_deliveries w ON w.endpoint = e.number
            WHERE e.tenant = $1 AND e.id = $2 AND w.queued_at >= $3 GROUP BY 1
            UNION ALL
            SELECT d.status, count(*)
            FROM webhooks.endpoints e JOIN webhooks.ended_deliveries d ON d.endpoint = e.number
            WHERE e.tenant = $1 AND e.id = $2 AND d.queued_at >= $3 GROUP BY 1";
        const FAILING: &str = "SELECT failing_since FROM webhooks.endpoints
            WHERE tenant = $1 AND id = $2 AND is_current";
        let (tenant, id) = (endpoint.tenant.as_str(), endpoint.id.as_str());
        let count = async || {
            let mut call = self.database.reading_call().await?;
            let failing =
                sqlx::query_scalar(FAILING).persistent(call.prepares()).bind(tenant).bind(id);
            let failing: Option<Option<At>> = failing.fetch_optional(call.connection()).await?;
            let count = sqlx::query(COUNT)
                .persistent(call.prepares())
                .bind(tenant)
                .bind(id)
                .bind(At(since));
            let rows = count.fetch_all(call.connection()).await?;
            call.commit().await?;
            let failing_since = failing.flatten().map(|At(since)| since);
            let mut statistics = Statistics { failing_since, ..Statistics::default() };
            for row in &rows {
                let status = row::parsed(row, 0, str::parse, "the status of a delivery")?;
                statistics.count(status, row::unsigned(row.try_get(1)?));
            }
            Ok(statistics)
        };
        with_read_retries(count).await.map_err(store_error)
    }

    pub(crate) async fn depth(
        &self,
        tenant: Option<TenantId>,
        max: u64,
    ) -> Result<QueueDepth, StoreError> {
        // One lookup for each endpoint with pending deliveries finds the one that is due first.
        const OF_ALL: &str = "
            WITH RECURSIVE walk AS (
                (SELECT endpoint, due_at, queued_at FROM webhooks.pending_deliveries
                 ORDER BY endpoint, due_at, id LIMIT 1)
                UNION ALL
                SELECT next.* FROM walk CROSS JOIN LATERAL (
                    SELECT endpoint, due_at, queued_at FROM webhooks.pending_deliveries
                    WHERE endpoint > walk.endpoint ORDER BY endpoint, due_at, id LIMIT 1
                ) next
            )
            SELECT (SELECT count(*) FROM (
                        SELECT 1 FROM webhooks.pending_deliveries w
                        JOIN webhooks.endpoints e ON e.number = w.endpoint
                        WHERE e.is_open LIMIT $1) w),
                   min(greatest(walk.due_at, walk.queued_at)),
                   min(greatest(walk.due_at, walk.queued_at, e.blocked_until))
                       FILTER (WHERE e.state = 'active')
            FROM walk JOIN webhooks.endpoints e ON e.number = walk.endpoint WHERE e.is_open";
        let of_tenant = format!(
            "SELECT least(coalesce(sum(waiting), 0), $1)::bigint, min(oldest), min({SERVABLE})
            FROM (SELECT {DEPTH}, e.state, e.blocked_until FROM webhooks.endpoints e
                  WHERE e.tenant = $2 AND e.is_current AND e.is_open
                 ) AS e(waiting, oldest, state, blocked_until)"
        );
        let depth = async || {
            let mut call = self.database.reading_call().await?;
            let (statement, tenant) = match &tenant {
                None => (OF_ALL, None),
                Some(tenant) => (of_tenant.as_str(), Some(tenant.as_str())),
            };
            let depth = sqlx::query_as(sqlx::AssertSqlSafe(statement)).persistent(call.prepares());
            let mut depth = depth.bind(row::int8(max));
            if let Some(tenant) = tenant {
                depth = depth.bind(tenant);
            }
            let depth: (Option<i64>, Option<At>, Option<At>) =
                depth.fetch_one(call.connection()).await?;
            call.commit().await?;
            Ok(queue_depth(depth))
        };
        with_read_retries(depth).await.map_err(store_error)
    }

    pub(crate) async fn health(
        &self,
        endpoints: Vec<EndpointKey>,
        max: u64,
    ) -> Result<Vec<EndpointHealth>, StoreError> {
        // The last delivery may have been that of an earlier row of the same endpoint.
        let select = format!(
            "SELECT g.place, queue.waiting, queue.oldest, {SERVABLE}, e.failing_since, e.failed_at,
                e.tried_for, e.is_open, (
                SELECT max(last.at) FROM webhooks.endpoints o CROSS JOIN LATERAL (
                    SELECT f.at FROM webhooks.figures f
                    WHERE f.endpoint = o.number AND f.kind = 'delivered' ORDER BY f.at DESC LIMIT 1
                ) last
                WHERE o.tenant = e.tenant AND o.id = e.id)
            FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS g(tenant, id, place)
            JOIN webhooks.endpoints e ON e.tenant = g.tenant AND e.id = g.id AND e.is_current
            CROSS JOIN LATERAL (SELECT {DEPTH}) AS queue(waiting, oldest)"
        );
        let read = async || {
            let mut call = self.database.reading_call().await?;
            let rows = sqlx::query(sqlx::AssertSqlSafe(select.as_str()))
                .persistent(call.prepares())
                .bind(row::int8(max))
                .bind(endpoints.iter().map(|key| key.tenant.as_str()).collect::<Vec<_>>())
                .bind(endpoints.iter().map(|key| key.id.as_str()).collect::<Vec<_>>())
                .fetch_all(call.connection())
                .await?;
            call.commit().await?;
            let mut found = BTreeMap::new();
            for row in rows {
                let place = row::unsigned(row.try_get(0)?);
                let (since, last): (Option<At>, Option<At>) = (row.try_get(4)?, row.try_get(5)?);
                let tried_for: Option<i64> = row.try_get(6)?;
                let tried_for = Duration::from_micros(row::unsigned(tried_for.unwrap_or_default()));
                let failing =
                    since.zip(last).map(|(At(since), At(last))| Failing { since, last, tried_for });
                let queue = if row.try_get(7)? {
                    queue_depth((row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))
                } else {
                    QueueDepth::default()
                };
                let delivered_at: Option<At> = row.try_get(8)?;
                let delivered_at = delivered_at.map(|At(at)| at);
                found.insert(place, EndpointHealth { queue, failing, delivered_at });
            }
            Ok(found)
        };
        let mut found = with_read_retries(read).await.map_err(store_error)?;
        let places = 1..=endpoints.len() as u64;
        Ok(places.map(|place| found.remove(&place).unwrap_or_default()).collect())
    }

    pub(crate) async fn figures(&self, query: FiguresQuery) -> Result<Vec<FiguresRow>, StoreError> {
        const OF_ALL: &str = "SELECT f.at, f.kind, sum(f.count)::bigint FROM webhooks.figures f
            WHERE f.at >= $1 AND f.at < $2 GROUP BY f.at, f.kind";
        const OF_SOME: &str = "SELECT f.at, f.kind, sum(f.count)::bigint
            FROM webhooks.endpoints e JOIN webhooks.figures f ON f.endpoint = e.number
            WHERE f.at >= $1 AND f.at < $2 AND ($3::text IS NULL OR e.tenant = $3)
              AND ($4::text IS NULL OR e.tenant = $4 AND e.id = $5)
            GROUP BY f.at, f.kind";
        let tenant = query.tenant.as_ref().map(TenantId::as_str);
        let key = query.endpoint.as_ref();
        let read = async || {
            let mut call = self.database.reading_call().await?;
            let is_all = tenant.is_none() && key.is_none();
            let mut read = sqlx::query_as(if is_all { OF_ALL } else { OF_SOME })
                .persistent(call.prepares())
                .bind(At(query.since))
                .bind(At(query.until));
            if !is_all {
                read = read.bind(tenant).bind(key.map(|key| key.tenant.as_str()));
                read = read.bind(key.map(|key| key.id.as_str()));
            }
            let rows: Vec<(At, String, i64)> = read.fetch_all(call.connection()).await?;
            call.commit().await?;
            Ok(rows)
        };
        let rows = with_read_retries(read).await.map_err(store_error)?;
        // A word that a later version wrote is left out.
        let counts = rows.into_iter().filter_map(|(At(at), kind, count)| {
            Some((at, FigureKind::from_word(&kind)?, row::unsigned(count)))
        });
        Ok(by_step(&query, counts))
    }
}

fn queue_depth((waiting, oldest, servable): (Option<i64>, Option<At>, Option<At>)) -> QueueDepth {
    QueueDepth {
        waiting: row::unsigned(waiting.unwrap_or_default()),
        oldest_due_at: oldest.map(|At(oldest)| oldest),
        oldest_servable_at: servable.map(|At(servable)| servable),
    }
}
