//! History: lists of events, deliveries and attempts that filter and page, each with one statement.

use std::time::Duration;

use bytes::Bytes;
use sqlx::postgres::{PgRow, Postgres};
use sqlx::{QueryBuilder, Row as _};
use webhooks_core::{Event, EventId, TenantId, Timestamp};
use webhooks_dispatch::{
    history::{AttemptRecord, Cursor, DeliveryRecord, EventRecord, Page, Query, Statistics},
    store::{Attempt, CancelReason, StoreError},
    transport::ErrorClass,
};
use webhooks_registry::{EndpointKey, Subscription};

use crate::call::with_read_retries;
use crate::error::{BadRow, store_error};
use crate::row::{self, At};
use crate::state::PostgresInner;

impl PostgresInner {
    pub(crate) async fn event(
        &self,
        tenant: TenantId,
        id: EventId,
    ) -> Result<Option<EventRecord>, StoreError> {
        const SELECT: &str = "
            SELECT v.number, v.id, v.tenant, v.type, v.body, v.accepted_at
            FROM webhooks.event_keys k
            JOIN webhooks.events v ON v.number = k.event AND v.accepted_at = k.event_at
            WHERE k.tenant = $1 AND k.id = $2";
        let find = async || {
            let mut call = self.database.reading_call().await?;
            let select = sqlx::query(SELECT)
                .persistent(call.prepares())
                .bind(tenant.as_str())
                .bind(id.to_string());
            let row = select.fetch_optional(call.connection()).await?;
            call.commit().await?;
            row.map(|row| event_record(&row)).transpose()
        };
        with_read_retries(find).await.map_err(store_error)
    }

    pub(crate) async fn events(&self, query: Query) -> Result<Page<EventRecord>, StoreError> {
        const SELECT: &str = "SELECT v.number, v.id, v.tenant, v.type, v.body, v.accepted_at
            FROM webhooks.events v WHERE true";
        const GOT: &str = " AND EXISTS (SELECT 1 FROM webhooks.deliveries_view d
            WHERE d.event_number = v.number AND d.event_at = v.accepted_at";
        let numbers = self.numbers(&query).await?;
        let statement = || {
            let mut statement = QueryBuilder::new(SELECT);
            of_event(&mut statement, &query, "v.accepted_at", "v");
            if let Some(numbers) = &numbers {
                statement.push(" AND v.number = ANY (").push_bind(numbers.clone()).push(")");
            }
            if query.endpoint.is_some() || query.status.is_some() || query.delivery.is_some() {
                statement.push(GOT);
                of_delivery(&mut statement, &query);
                statement.push(")");
            }
            if let Some(Cursor { key, .. }) = query.after {
                statement.push(" AND v.number < ").push_bind(row::int8(key));
            }
            statement.push(" ORDER BY v.number DESC");
            statement
        };
        let read = |row: &PgRow| Ok((cursor(row.try_get(0)?, 0), event_record(row)?));
        self.page(statement, query.page_size(), read).await
    }

    pub(crate) async fn deliveries(
        &self,
        query: Query,
    ) -> Result<Page<DeliveryRecord>, StoreError> {
        const SELECT: &str = "SELECT d.id, d.event, d.type, d.tenant, d.endpoint, d.status,
                d.attempts, d.queued_at, d.due_at, d.cancelled
            FROM webhooks.deliveries_view d WHERE true";
        let numbers = self.numbers(&query).await?;
        let statement = || {
            let mut statement = QueryBuilder::new(SELECT);
            of_event(&mut statement, &query, "d.event_at", "d");
            of_delivery(&mut statement, &query);
            of_numbers(&mut statement, numbers.as_deref());
            if let Some(Cursor { key, .. }) = query.after {
                statement.push(" AND d.id < ").push_bind(row::int8(key));
            }
            statement.push(" ORDER BY d.id DESC");
            statement
        };
        let read = |row: &PgRow| Ok((cursor(row.try_get(0)?, 0), delivery_record(row)?));
        self.page(statement, query.page_size(), read).await
    }

    pub(crate) async fn attempts(&self, query: Query) -> Result<Page<AttemptRecord>, StoreError> {
        const SELECT: &str = "SELECT a.delivery, a.number, d.endpoint, a.started_at, a.duration_us,
                a.status_code, a.error_class, a.error,
                a.response_headers, a.response
            FROM webhooks.attempts a
            JOIN webhooks.deliveries_view d ON d.id = a.delivery AND d.event_at = a.event_at
            WHERE true";
        let numbers = self.numbers(&query).await?;
        let statement = || {
            let mut statement = QueryBuilder::new(SELECT);
            of_event(&mut statement, &query, "d.event_at", "d");
            of_delivery(&mut statement, &query);
            of_numbers(&mut statement, numbers.as_deref());
            if let Some(Cursor { key, attempt }) = query.after {
                statement.push(" AND (a.delivery, a.number) < (").push_bind(row::int8(key));
                statement.push(", ").push_bind(i64::from(attempt)).push(")");
            }
            statement.push(" ORDER BY a.delivery DESC, a.number DESC");
            statement
        };
        let read = |row: &PgRow| {
            Ok((cursor(row.try_get(0)?, row::count(row.try_get(1)?)), attempt_record(row)?))
        };
        self.page(statement, query.page_size(), read).await
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

    pub(crate) async fn waiting(&self, limit: u64) -> Result<u64, StoreError> {
        // Deliveries of a closed endpoint do not wait: they are about to be cancelled.
        const COUNT: &str = "SELECT count(*) FROM
            (SELECT 1 FROM webhooks.pending_deliveries w
             JOIN webhooks.endpoints e ON e.number = w.endpoint
             WHERE e.is_open LIMIT $1) AS waiting";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let count = async || {
            let mut call = self.database.reading_call().await?;
            let count = sqlx::query_scalar(COUNT).persistent(call.prepares()).bind(limit);
            let count: i64 = count.fetch_one(call.connection()).await?;
            call.commit().await?;
            Ok(row::unsigned(count))
        };
        with_read_retries(count).await.map_err(store_error)
    }

    /// Returns the numbers of the events with the id that a query asks for, one for each tenant;
    /// `None` if it asks for no id.
    async fn numbers(&self, query: &Query) -> Result<Option<Vec<i64>>, StoreError> {
        const NUMBERS: &str = "SELECT event FROM webhooks.event_keys
            WHERE id = $1 AND ($2::text IS NULL OR tenant = $2)";
        let Some(event) = &query.event else { return Ok(None) };
        let find = async || {
            let mut call = self.database.reading_call().await?;
            let numbers = sqlx::query_scalar(NUMBERS).persistent(call.prepares());
            let tenant = query.tenant.as_ref().map(TenantId::as_str);
            let numbers = numbers.bind(event.to_string()).bind(tenant);
            let numbers = numbers.fetch_all(call.connection()).await?;
            call.commit().await?;
            Ok(numbers)
        };
        with_read_retries(find).await.map(Some).map_err(store_error)
    }

    /// Reads a page, and one row more to see whether another page follows.
    async fn page<T>(
        &self,
        statement: impl Fn() -> QueryBuilder<Postgres> + Sync,
        limit: usize,
        read: impl Fn(&PgRow) -> Result<(Cursor, T), sqlx::Error> + Sync,
    ) -> Result<Page<T>, StoreError> {
        let find = async || {
            let mut call = self.database.reading_call().await?;
            let mut statement = statement();
            statement.push(" LIMIT ").push_bind(row::int4(limit + 1));
            let rows =
                statement.build().persistent(call.prepares()).fetch_all(call.connection()).await?;
            call.commit().await?;
            rows.iter().map(&read).collect::<Result<Vec<_>, _>>()
        };
        let mut found = with_read_retries(find).await.map_err(store_error)?;
        let is_more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().map(|(cursor, _)| *cursor).filter(|_| is_more);
        Ok(Page { items: found.into_iter().map(|(_, item)| item).collect(), next })
    }
}

/// Adds the conditions of a query on events. `accepted_at` and `table` are their names in the
/// statement.
fn of_event(statement: &mut QueryBuilder<Postgres>, query: &Query, accepted_at: &str, table: &str) {
    if let Some(tenant) = &query.tenant {
        statement.push(format!(" AND {table}.tenant = ")).push_bind(tenant.to_string());
    }
    match query.event_type.as_ref().map(Subscription::as_str) {
        None | Some("*") => {}
        Some(pattern) => match pattern.strip_suffix(".*") {
            // Everything that starts with `user.`: '/' is the character after '.'.
            Some(root) => {
                statement.push(format!(" AND {table}.type > ")).push_bind(format!("{root}."));
                statement.push(format!(" AND {table}.type < ")).push_bind(format!("{root}/"));
            }
            None => {
                statement.push(format!(" AND {table}.type = ")).push_bind(pattern.to_owned());
            }
        },
    }
    if let Some(since) = query.since {
        statement.push(format!(" AND {accepted_at} >= ")).push_bind(At(since));
    }
    if let Some(until) = query.until {
        statement.push(format!(" AND {accepted_at} < ")).push_bind(At(until));
    }
}

/// Adds the condition that deliveries belong to events with these numbers. The range of ids lets
/// the statement use indexes by id, since a delivery's id begins with the number of its event.
fn of_numbers(statement: &mut QueryBuilder<Postgres>, numbers: Option<&[i64]>) {
    let Some(numbers) = numbers else { return };
    let (first, last) = (numbers.iter().min().copied(), numbers.iter().max().copied());
    statement.push(" AND d.id >= webhooks.first_delivery(").push_bind(first.unwrap_or(0));
    statement
        .push(") AND d.id < webhooks.first_delivery(")
        .push_bind(last.map_or(0, |last| last + 1));
    statement.push(") AND d.event_number = ANY (").push_bind(numbers.to_vec()).push(")");
}

/// Adds the conditions of a query on deliveries.
fn of_delivery(statement: &mut QueryBuilder<Postgres>, query: &Query) {
    if let Some(endpoint) = &query.endpoint {
        // By number: both tables of deliveries have an index of it.
        statement.push(" AND d.endpoint_number = ANY (ARRAY(SELECT number FROM webhooks.endpoints");
        statement.push(" WHERE id = ").push_bind(endpoint.to_string()).push("))");
    }
    if let Some(delivery) = query.delivery {
        statement.push(" AND d.id = ").push_bind(row::delivery_int8(delivery));
    }
    if let Some(status) = query.status {
        statement.push(" AND d.status = ").push_bind(status.as_str());
    }
}

fn cursor(key: i64, attempt: u32) -> Cursor {
    Cursor { key: row::unsigned(key), attempt }
}

fn event_record(row: &PgRow) -> Result<EventRecord, sqlx::Error> {
    let stored = row::event(row, 1)?;
    let event = Event::from_stored(&stored.body, stored.tenant)
        .map_err(|_shows_text| BadRow::of("the body of an event").in_column(4))?;
    let At(accepted_at) = row.try_get(5)?;
    Ok(EventRecord { event, accepted_at })
}

fn delivery_record(row: &PgRow) -> Result<DeliveryRecord, sqlx::Error> {
    let (At(queued_at), due_at): (At, Option<At>) = (row.try_get(7)?, row.try_get(8)?);
    let cancelled: Option<&str> = row.try_get(9)?;
    Ok(DeliveryRecord {
        id: row::delivery_id(row.try_get(0)?),
        event: row::event_id(row, 1)?,
        event_type: row::event_type(row, 2)?,
        tenant: row::tenant(row, 3)?,
        endpoint: row::endpoint_id(row, 4)?,
        status: row::parsed(row, 5, str::parse, "the status of a delivery")?,
        cancelled: cancelled.and_then(CancelReason::from_word),
        attempts: row::count(row.try_get(6)?),
        queued_at,
        due_at: due_at.map(|At(due_at)| due_at),
    })
}

fn attempt_record(row: &PgRow) -> Result<AttemptRecord, sqlx::Error> {
    let At(started_at) = row.try_get(3)?;
    let status_code: Option<i32> = row.try_get(5)?;
    let error_class: Option<&str> = row.try_get(6)?;
    let headers: Option<String> = row.try_get(8)?;
    let response: Option<Vec<u8>> = row.try_get(9)?;
    Ok(AttemptRecord {
        delivery: row::delivery_id(row.try_get(0)?),
        number: row::count(row.try_get(1)?),
        endpoint: row::endpoint_id(row, 2)?,
        attempt: Attempt {
            started_at,
            duration: Duration::from_micros(row::unsigned(row.try_get(4)?)),
            status_code: status_code.and_then(|code| u16::try_from(code).ok()),
            error_class: error_class.map(ErrorClass::from_word),
            error: row.try_get(7)?,
            response_headers: headers.unwrap_or_default(),
            response: response.map(Bytes::from).unwrap_or_default(),
        },
    })
}
