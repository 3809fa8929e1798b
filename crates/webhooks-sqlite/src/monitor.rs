//! The present state of queues and endpoints, and figures over time.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, params, params_from_iter};
use webhooks_core::{TenantId, Timestamp};
use webhooks_dispatch::{
    figures::{FigureKind, FiguresQuery, FiguresRow, by_step},
    monitor::{
        ConnectionGauges, EndpointHealth, MonitorStore, QueueDepth, Statistics, StoreActivity,
    },
    observer::WorkerReport,
    store::{Failing, StoreError},
};
use webhooks_registry::EndpointKey;

use crate::SqliteStore;
use crate::command::WriteCommand;
use crate::history::{STATUS, status};
use crate::inner::SqliteInner;
use crate::row;
use crate::write_connection::WriteConnection;

/// Changes nothing: an answer means that the writer writes.
struct Ping;

impl WriteCommand for Ping {
    type Answer = ();

    // Others may follow it: it changes no memory.
    const ENDS_GROUP: bool = false;

    fn write(&mut self, _: &mut WriteConnection, _: &SqliteInner) -> rusqlite::Result<()> {
        Ok(())
    }

    fn after_commit(self, _: &mut WriteConnection, _: &SqliteInner) {}
}

impl MonitorStore for SqliteStore {
    /// Waits for the writer, which begins and commits a transaction.
    async fn ping(&self) -> Result<(), StoreError> {
        self.write(Ping).await
    }

    async fn waiting(&self, limit: u64) -> Result<u64, StoreError> {
        // The index `deliveries_due` has waiting deliveries only. Those that still wait for a closed
        // endpoint count as cancelled.
        const COUNT: &str = "SELECT count(*) FROM
            (SELECT 1 FROM deliveries JOIN endpoints ON endpoints.number = deliveries.endpoint
             WHERE deliveries.due_at IS NOT NULL
               AND endpoints.state NOT IN ('disabled', 'unregistered') LIMIT ?)";
        self.read_rows(move |connection| {
            let count = connection.query_row(COUNT, [row::integer(limit)], |row| row.get(0))?;
            Ok(row::unsigned(count))
        })
        .await
    }

    /// Counts row by row, which takes about a second for ten million deliveries.
    async fn statistics(
        &self,
        endpoint: EndpointKey,
        since: Timestamp,
    ) -> Result<Statistics, StoreError> {
        const FAILING: &str = "SELECT failing_since FROM endpoints
            WHERE tenant = ? AND id = ? AND is_current = 1";
        let count = format!(
            "SELECT {STATUS}, count(*)
             FROM endpoints JOIN deliveries ON deliveries.endpoint = endpoints.number
             WHERE endpoints.tenant = ?1 AND endpoints.id = ?2 AND deliveries.queued_at >= ?3
             GROUP BY 1"
        );
        self.read_rows(move |connection| {
            let key = [endpoint.tenant.as_str(), endpoint.id.as_str()];
            let failing: Option<Option<i64>> =
                connection.query_row(FAILING, key, |row| row.get(0)).optional()?;
            let failing_since = failing.flatten().map(row::time);
            let mut statistics = Statistics { failing_since, ..Statistics::default() };
            let mut statement = connection.prepare_cached(&count)?;
            let parameters = params![key[0], key[1], row::micros(since)];
            let mut rows = statement.query(parameters)?;
            while let Some(row) = rows.next()? {
                statistics.count(status(row, 0)?, row::unsigned(row.get(1)?));
            }
            Ok(statistics)
        })
        .await
    }

    /// Reads one row of the backlog per endpoint, and counts in an index.
    async fn depth(&self, tenant: Option<TenantId>, max: u64) -> Result<QueueDepth, StoreError> {
        self.read_rows(move |connection| depth(connection, tenant.as_ref(), max)).await
    }

    async fn health(
        &self,
        endpoints: Vec<EndpointKey>,
        max: u64,
    ) -> Result<Vec<EndpointHealth>, StoreError> {
        self.read_rows(move |connection| {
            endpoints.iter().map(|endpoint| health(connection, endpoint, max)).collect()
        })
        .await
    }

    async fn workers(&self) -> Result<Vec<WorkerReport>, StoreError> {
        Ok(self.inner.reports().values().cloned().collect())
    }

    async fn figures(&self, query: FiguresQuery) -> Result<Vec<FiguresRow>, StoreError> {
        self.read_rows(move |connection| figures(connection, &query)).await
    }

    async fn activity(&self) -> Result<StoreActivity, StoreError> {
        let writes = &self.inner.writes;
        let in_use = u64::from(writes.is_writing.load(Ordering::Relaxed));
        let waiting = self.commands.max_capacity() - self.commands.capacity();
        let writer = ConnectionGauges {
            purpose: "write",
            max: 1,
            idle: 1 - in_use,
            in_use,
            waiting: waiting as u64,
        };
        Ok(StoreActivity {
            commits: writes.commits.read(),
            calls: writes.calls.load(Ordering::Relaxed),
            connections: vec![writer, self.inner.readers.gauges()],
        })
    }
}

/// Selects the waiting deliveries of open endpoints; the conditions on endpoints come in between.
const WAITING: (&str, &str) = (
    "SELECT count(*) FROM (SELECT 1 FROM endpoints CROSS JOIN deliveries
        WHERE endpoints.is_current = 1 AND endpoints.state IN ('active', 'paused')",
    "AND deliveries.endpoint = endpoints.number AND deliveries.due_at IS NOT NULL LIMIT ?2)",
);

/// Selects the due time of the first delivery that waits for an endpoint. Those of an ordered one have
/// no due time of their own.
const FIRST: &str = "SELECT max(due_at, queued_at) FROM deliveries
    WHERE endpoint = endpoints.number AND due_at IS NOT NULL ORDER BY due_at, number LIMIT 1";

/// Selects the time from which workers should have attempted the delivery `first` of an endpoint; NULL if it
/// is paused, or nothing waits.
const SERVABLE: &str = "CASE state WHEN 'active' THEN max(first, blocked_until) END";

/// Returns the statements that count what waits, and that find what is due first.
fn depth_statements(is_of_tenant: bool) -> (String, String) {
    // Without a tenant, the parameter is there, too.
    let of_tenant = if is_of_tenant { "AND endpoints.tenant = ?1" } else { "AND ?1 IS NULL" };
    let count = format!("{} {of_tenant} {}", WAITING.0, WAITING.1);
    let first = format!(
        "SELECT min(first), min({SERVABLE}) FROM (
            SELECT ({FIRST}) AS first, state, blocked_until FROM endpoints
            WHERE is_current = 1 AND state IN ('active', 'paused') {of_tenant})"
    );
    (count, first)
}

fn depth(
    connection: &Connection,
    tenant: Option<&TenantId>,
    max: u64,
) -> rusqlite::Result<QueueDepth> {
    let (count, first) = depth_statements(tenant.is_some());
    let tenant = tenant.map(TenantId::as_str);
    let mut count = connection.prepare_cached(&count)?;
    let waiting = count.query_row(params![tenant, row::integer(max)], |row| row.get(0))?;
    let mut first = connection.prepare_cached(&first)?;
    let (oldest_due_at, oldest_servable_at) = first
        .query_row([tenant], |row| Ok((row::time_or_null(row, 0)?, row::time_or_null(row, 1)?)))?;
    Ok(QueueDepth { waiting: row::unsigned(waiting), oldest_due_at, oldest_servable_at })
}

fn health(
    connection: &Connection,
    endpoint: &EndpointKey,
    max: u64,
) -> rusqlite::Result<EndpointHealth> {
    const COUNT: &str = "SELECT count(*) FROM (SELECT 1 FROM deliveries
        WHERE endpoint = ? AND due_at IS NOT NULL LIMIT ?)";
    const DELIVERED: &str = "SELECT max((SELECT at FROM figures
            WHERE endpoint = endpoints.number AND kind = ?3 ORDER BY at DESC LIMIT 1))
        FROM endpoints WHERE tenant = ?1 AND id = ?2";
    let (tenant, id) = (endpoint.tenant.as_str(), endpoint.id.as_str());
    let select = format!(
        "SELECT number, state IN ('active', 'paused'), failing_since, failed_at, tried_for, first,
             {SERVABLE}
         FROM (SELECT *, ({FIRST}) AS first FROM endpoints
               WHERE tenant = ? AND id = ? AND is_current = 1)"
    );
    let mut statement = connection.prepare_cached(&select)?;
    let mut rows = statement.query([tenant, id])?;
    let Some(row) = rows.next()? else { return Ok(EndpointHealth::default()) };
    let failing = match (row::time_or_null(row, 2)?, row::time_or_null(row, 3)?) {
        (Some(since), Some(last)) => {
            let tried_for: Option<i64> = row.get(4)?;
            let tried_for = Duration::from_micros(row::unsigned(tried_for.unwrap_or_default()));
            Some(Failing { since, last, tried_for })
        }
        _ => None,
    };
    let is_open: bool = row.get(1)?;
    let mut queue = QueueDepth::default();
    if is_open {
        let parameters = params![row.get::<_, i64>(0)?, row::integer(max)];
        let mut count = connection.prepare_cached(COUNT)?;
        queue.waiting = row::unsigned(count.query_row(parameters, |row| row.get(0))?);
        queue.oldest_due_at = row::time_or_null(row, 5)?;
        queue.oldest_servable_at = row::time_or_null(row, 6)?;
    }
    let kind = FigureKind::Delivered.to_string();
    let mut delivered = connection.prepare_cached(DELIVERED)?;
    let delivered_at = delivered.query_row([tenant, id, &kind], |row| row::time_or_null(row, 0))?;
    Ok(EndpointHealth { queue, failing: failing.filter(|_| is_open), delivered_at })
}

/// Returns the statement that reads figures, and its parameters.
///
/// It adds the figures up: the rows of many endpoints may be too many for memory.
fn figures_statement(query: &FiguresQuery) -> (String, Vec<Value>) {
    let mut select = "SELECT figures.at, figures.kind, sum(figures.count)
        FROM endpoints CROSS JOIN figures
        WHERE figures.endpoint = endpoints.number AND figures.at >= ? AND figures.at < ?"
        .to_owned();
    let times = [query.since, query.until].map(row::micros);
    let mut values: Vec<Value> = times.into_iter().map(Into::into).collect();
    if let Some(tenant) = &query.tenant {
        select.push_str(" AND endpoints.tenant = ?");
        values.push(tenant.to_string().into());
    }
    if let Some(EndpointKey { tenant, id, .. }) = &query.endpoint {
        select.push_str(" AND endpoints.tenant = ? AND endpoints.id = ?");
        values.extend([tenant.to_string().into(), id.to_string().into()]);
    }
    select.push_str(" GROUP BY figures.at, figures.kind");
    (select, values)
}

fn figures(connection: &Connection, query: &FiguresQuery) -> rusqlite::Result<Vec<FiguresRow>> {
    let (select, values) = figures_statement(query);
    let mut statement = connection.prepare_cached(&select)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut counts = Vec::new();
    while let Some(row) = rows.next()? {
        // A kind of a later version is left out.
        if let Some(kind) = FigureKind::from_word(row.get_ref(1)?.as_str()?) {
            counts.push((row::time(row.get(0)?), kind, row::unsigned(row.get(2)?)));
        }
    }
    Ok(by_step(query, counts))
}

#[cfg(test)]
mod tests {
    use webhooks_core::EndpointId;
    use webhooks_dispatch::figures::FiguresStep;

    use super::*;

    /// Waiting deliveries cost an index entry each, and one row per endpoint.
    #[test]
    fn waiting_deliveries_are_counted_in_their_index() {
        let file = Connection::open_in_memory().unwrap();
        file.execute_batch(include_str!("../migrations/0001_start.sql")).unwrap();
        let plan = |statement: &str| {
            let mut statement = file.prepare(&format!("EXPLAIN QUERY PLAN {statement}")).unwrap();
            let any = vec![Value::Null; statement.parameter_count()];
            let rows = statement.query_map(params_from_iter(any), |row| row.get::<_, String>(3));
            let rows = rows.unwrap();
            rows.map(Result::unwrap).collect::<Vec<_>>().join("\n")
        };
        let (count, first) = depth_statements(true);
        let found = plan(&count);
        assert!(found.contains("SEARCH endpoints USING INDEX endpoints_id (tenant=?)"), "{found}");
        let by_index =
            "SEARCH deliveries USING COVERING INDEX deliveries_due (endpoint=? AND due_at>?)";
        assert!(found.contains(by_index), "{found}");
        let by_index = "SEARCH deliveries USING INDEX deliveries_due (endpoint=? AND due_at>?)";
        for statement in [first, depth_statements(false).1] {
            let found = plan(&statement);
            assert!(found.contains(by_index) && !found.contains("TEMP B-TREE"), "{found}");
        }
        let query = FiguresQuery {
            tenant: None,
            endpoint: Some(EndpointKey::of_default_tenant(EndpointId::new("crm").unwrap())),
            since: Timestamp::UNIX_EPOCH,
            until: Timestamp::UNIX_EPOCH,
            step: FiguresStep::Whole,
        };
        let found = plan(&figures_statement(&query).0);
        assert!(found.contains("SEARCH endpoints USING COVERING INDEX endpoints_id"), "{found}");
        assert!(
            found.contains("SEARCH figures USING PRIMARY KEY (endpoint=? AND at>? AND at<?)"),
            "{found}"
        );
    }
}
