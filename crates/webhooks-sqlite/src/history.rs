//! History: lists that filter and page, each by one statement, on connections that only read.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Row, params, params_from_iter};
use webhooks_core::{DeliveryStatus, EndpointId, Event, EventId, TenantId, Timestamp};
use webhooks_dispatch::{
    history::{
        AttemptRecord, Cursor, DeliveryRecord, EventRecord, HistoryStore, Page, Query, Statistics,
    },
    store::{Attempt, CancelReason, StoreError},
    transport::ErrorClass,
};
use webhooks_registry::{EndpointKey, Subscription};

use crate::SqliteStore;
use crate::error::BadRow;
use crate::retention::Prune;
use crate::row;

/// The columns that [`event_record`] reads.
const EVENT: &str = "events.id, events.tenant, events.type, events.body, events.accepted_at";

/// The number of small commands that one call of `prune` makes.
const MAX_PRUNES: usize = 20;

/// The status of a delivery. One that still waits for a closed endpoint counts as cancelled: the writer
/// cancels it in one of its next batches.
const STATUS: &str = "
    CASE WHEN deliveries.due_at IS NOT NULL AND endpoints.state IN ('disabled', 'unregistered')
    THEN 'cancelled' ELSE deliveries.status END";

impl HistoryStore for SqliteStore {
    async fn event(
        &self,
        tenant: TenantId,
        id: EventId,
    ) -> Result<Option<EventRecord>, StoreError> {
        self.read(move |connection| {
            let select = format!("SELECT {EVENT} FROM events WHERE id = ? AND tenant = ?");
            let mut statement = connection.prepare_cached(&select)?;
            let parameters = params![row::EventKey(&id), tenant.as_str()];
            statement.query_row(parameters, |row| event_record(row, 0)).optional()
        })
        .await
    }

    async fn events(&self, query: Query) -> Result<Page<EventRecord>, StoreError> {
        self.read(move |connection| {
            let mut filter = Filter::default();
            filter.event(&query);
            if query.endpoint.is_some() || query.status.is_some() || query.delivery.is_some() {
                filter.begin_exists();
                filter.delivery(&query);
                filter.end_exists();
            }
            if let Some(Cursor { key, .. }) = query.after {
                filter.add("events.number < ?", row::integer(key));
            }
            let select = format!("SELECT events.number, {EVENT} FROM events");
            let order = "ORDER BY events.number DESC";
            page(connection, &select, filter, order, query.page_size(), |row| {
                Ok((cursor(row.get(0)?, 0), event_record(row, 1)?))
            })
        })
        .await
    }

    async fn deliveries(&self, query: Query) -> Result<Page<DeliveryRecord>, StoreError> {
        const SELECT: &str = "
            SELECT deliveries.number, events.id, events.type, events.tenant, endpoints.id,
                   deliveries.status, deliveries.attempts, deliveries.queued_at, deliveries.due_at,
                   deliveries.cancelled, endpoints.state
            FROM deliveries JOIN events ON events.number = deliveries.event
            JOIN endpoints ON endpoints.number = deliveries.endpoint";
        self.read(move |connection| {
            let mut filter = Filter::default();
            filter.event(&query);
            filter.delivery(&query);
            if let Some(Cursor { key, .. }) = query.after {
                filter.add("deliveries.number < ?", row::integer(key));
            }
            let order = "ORDER BY deliveries.number DESC";
            page(connection, SELECT, filter, order, query.page_size(), |row| {
                Ok((cursor(row.get(0)?, 0), delivery_record(row)?))
            })
        })
        .await
    }

    async fn attempts(&self, query: Query) -> Result<Page<AttemptRecord>, StoreError> {
        const SELECT: &str = "
            SELECT attempts.delivery, attempts.number, endpoints.id, attempts.started_at,
                   attempts.duration, attempts.status_code, attempts.error_class, attempts.error,
                   attempts.response_headers, attempts.response
            FROM attempts JOIN deliveries ON deliveries.number = attempts.delivery
            JOIN events ON events.number = deliveries.event
            JOIN endpoints ON endpoints.number = deliveries.endpoint";
        self.read(move |connection| {
            let mut filter = Filter::default();
            filter.event(&query);
            filter.delivery(&query);
            if let Some(Cursor { key, attempt }) = query.after {
                filter.add("(attempts.delivery, attempts.number) < (?", row::integer(key));
                filter.extend(", ?)", i64::from(attempt));
            }
            let order = "ORDER BY attempts.delivery DESC, attempts.number DESC";
            page(connection, SELECT, filter, order, query.page_size(), |row| {
                Ok((cursor(row.get(0)?, row.get(1)?), attempt_record(row)?))
            })
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
        self.read(move |connection| {
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

    async fn waiting(&self, limit: u64) -> Result<u64, StoreError> {
        // The index `deliveries_due` has waiting deliveries only. Those that still wait for a closed
        // endpoint count as cancelled.
        const COUNT: &str = "SELECT count(*) FROM
            (SELECT 1 FROM deliveries JOIN endpoints ON endpoints.number = deliveries.endpoint
             WHERE deliveries.due_at IS NOT NULL
               AND endpoints.state NOT IN ('disabled', 'unregistered') LIMIT ?)";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read(move |connection| {
            let count = connection.query_row(COUNT, [limit], |row| row.get(0))?;
            Ok(row::unsigned(count))
        })
        .await
    }

    async fn prune(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let mut deleted = 0;
        // Other commands come in between. The next call goes on with the rest.
        for _ in 0..MAX_PRUNES {
            let pruned = self.write(Prune::new(before, limit - deleted)).await?;
            deleted += pruned.deleted;
            if !pruned.is_more || deleted >= limit {
                break;
            }
        }
        Ok(deleted)
    }
}

/// The conditions of a statement, and the values of their question marks.
#[derive(Default)]
struct Filter {
    text: String,
    values: Vec<Value>,
}

impl Filter {
    fn add(&mut self, condition: &str, value: impl Into<Value>) {
        self.text.push_str(" AND ");
        self.extend(condition, value);
    }

    fn extend(&mut self, text: &str, value: impl Into<Value>) {
        self.text.push_str(text);
        self.values.push(value.into());
    }

    fn begin_exists(&mut self) {
        self.text.push_str(
            " AND EXISTS (SELECT 1 FROM deliveries JOIN endpoints
              ON endpoints.number = deliveries.endpoint WHERE deliveries.event = events.number",
        );
    }

    fn end_exists(&mut self) {
        self.text.push(')');
    }

    /// Adds the conditions of a query on events.
    fn event(&mut self, query: &Query) {
        if let Some(tenant) = &query.tenant {
            self.add("events.tenant = ?", tenant.to_string());
        }
        if let Some(id) = &query.event {
            let key = match id.as_uuid_bytes() {
                Some(bytes) => Value::Blob(bytes.to_vec()),
                None => Value::Text(id.to_string()),
            };
            self.add("events.id = ?", key);
        }
        match query.event_type.as_ref().map(Subscription::as_str) {
            None | Some("*") => {}
            Some(pattern) => match pattern.strip_suffix(".*") {
                // A range that an index can serve: all that starts with `user.`, since '/' is the character
                // after '.'.
                Some(root) => {
                    self.add("events.type > ?", format!("{root}."));
                    self.add("events.type < ?", format!("{root}/"));
                }
                None => self.add("events.type = ?", pattern.to_owned()),
            },
        }
        if let Some(since) = query.since {
            self.add("events.accepted_at >= ?", row::micros(since));
        }
        if let Some(until) = query.until {
            self.add("events.accepted_at < ?", row::micros(until));
        }
    }

    /// Adds the conditions of a query on deliveries.
    fn delivery(&mut self, query: &Query) {
        if let Some(endpoint) = &query.endpoint {
            self.add("endpoints.id = ?", endpoint.to_string());
        }
        if let Some(delivery) = query.delivery {
            self.add("deliveries.number = ?", row::number(delivery));
        }
        if let Some(status) = query.status {
            self.add(&format!("{STATUS} = ?"), status.as_str().to_owned());
        }
    }
}

/// Reads a page, and one row more to know whether another page follows.
fn page<T>(
    connection: &Connection,
    select: &str,
    filter: Filter,
    order: &str,
    limit: usize,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<(Cursor, T)>,
) -> rusqlite::Result<Page<T>> {
    let statement = format!("{select} WHERE 1 {} {order} LIMIT {}", filter.text, limit + 1);
    let mut statement = connection.prepare_cached(&statement)?;
    let rows = statement.query_map(params_from_iter(filter.values), read)?;
    let mut found: Vec<(Cursor, T)> = rows.collect::<Result<_, _>>()?;
    let is_more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().map(|(cursor, _)| *cursor).filter(|_| is_more);
    Ok(Page { items: found.into_iter().map(|(_, item)| item).collect(), next })
}

fn cursor(key: i64, attempt: u32) -> Cursor {
    Cursor { key: row::unsigned(key), attempt }
}

fn event_record(row: &Row<'_>, first: usize) -> rusqlite::Result<EventRecord> {
    let stored = row::event(row, first)?;
    let event = Event::from_stored(&stored.body, stored.tenant)
        .map_err(|_shows_text| BadRow::of("the body of an event").in_column(first + 3))?;
    Ok(EventRecord { event, accepted_at: row::time(row.get(first + 4)?) })
}

fn delivery_record(row: &Row<'_>) -> rusqlite::Result<DeliveryRecord> {
    let queued_at = row::time(row.get(7)?);
    let due_at: Option<i64> = row.get(8)?;
    let cancelled: Option<String> = row.get(9)?;
    let closed = match row.get_ref(10)?.as_str()? {
        "disabled" => Some(CancelReason::Disabled),
        "unregistered" => Some(CancelReason::Unregistered),
        _ => None,
    };
    // As in `STATUS`.
    let closed = closed.filter(|_| due_at.is_some());
    let due_at = due_at.filter(|_| closed.is_none());
    Ok(DeliveryRecord {
        id: row::delivery_id(row.get(0)?),
        event: row::event_id(row, 1)?,
        event_type: row::event_type(row, 2)?,
        tenant: row::tenant(row, 3)?,
        endpoint: endpoint(row, 4)?,
        status: if closed.is_some() { DeliveryStatus::Cancelled } else { status(row, 5)? },
        cancelled: closed.or_else(|| cancelled.as_deref().and_then(CancelReason::from_word)),
        attempts: row.get(6)?,
        queued_at,
        due_at: due_at.map(|due_at| row::time(due_at).max(queued_at)),
    })
}

fn attempt_record(row: &Row<'_>) -> rusqlite::Result<AttemptRecord> {
    let error_class: Option<String> = row.get(6)?;
    let headers: Option<String> = row.get(8)?;
    let response = row.get_ref(9)?.as_bytes_or_null()?;
    Ok(AttemptRecord {
        delivery: row::delivery_id(row.get(0)?),
        number: row.get(1)?,
        endpoint: endpoint(row, 2)?,
        attempt: Attempt {
            started_at: row::time(row.get(3)?),
            duration: Duration::from_micros(row::unsigned(row.get(4)?)),
            status_code: row.get(5)?,
            error_class: error_class.as_deref().map(ErrorClass::from_word),
            error: row.get(7)?,
            response_headers: headers.unwrap_or_default(),
            response: response.map(Bytes::copy_from_slice).unwrap_or_default(),
        },
    })
}

fn endpoint(row: &Row<'_>, column: usize) -> rusqlite::Result<EndpointId> {
    let text: String = row.get(column)?;
    EndpointId::new(&text).map_err(|_why| BadRow::of("the id of an endpoint").in_column(column))
}

fn status(row: &Row<'_>, column: usize) -> rusqlite::Result<DeliveryStatus> {
    let text: String = row.get(column)?;
    text.parse().map_err(|_why| BadRow::of("the status of a delivery").in_column(column))
}
