//! History: lists of events, deliveries and attempts that filter and page, each with one statement.

use sqlx::QueryBuilder;
use sqlx::postgres::{PgRow, Postgres};
use webhooks_core::{EventId, TenantId, Timestamp};
use webhooks_dispatch::{
    history::{
        AttemptRecord, Cursor, DeliveryRecord, EventRecord, EventSummary, Page, Query, SearchPage,
        SearchRequest,
    },
    store::StoreError,
};

use crate::call::with_read_retries;
use crate::error::store_error;
use crate::row::{self, At};
use crate::state::PostgresInner;

mod filter;

mod record;

use filter::{
    ATTEMPT_TABLE, Table, of_attempt, of_delivery, of_event, of_events_deliveries, of_numbers,
};
use record::{
    ATTEMPT, DELIVERY, LAST_ATTEMPT, SUMMARY, attempt_record, cursor, delivery_record,
    event_record, event_summary,
};

/// The condition that a body has the text of a search.
const HAS_TEXT: &str = ") v WHERE strpos(v.body, ";

impl PostgresInner {
    pub(crate) async fn event(
        &self,
        tenant: TenantId,
        id: EventId,
    ) -> Result<Option<EventRecord>, StoreError> {
        let select = format!(
            "SELECT {SUMMARY}, v.body FROM webhooks.event_keys k
            JOIN webhooks.events v ON v.number = k.event AND v.accepted_at = k.event_at
            WHERE k.tenant = $1 AND k.id = $2"
        );
        let find = async || {
            let mut call = self.database.reading_call().await?;
            let select = sqlx::query(sqlx::AssertSqlSafe(select.as_str()))
                .persistent(call.prepares())
                .bind(tenant.as_str())
                .bind(id.to_string());
            let row = select.fetch_optional(call.connection()).await?;
            call.commit().await?;
            row.map(|row| event_record(&row)).transpose()
        };
        with_read_retries(find).await.map_err(store_error)
    }

    pub(crate) async fn events(&self, query: Query) -> Result<Page<EventSummary>, StoreError> {
        let numbers = self.numbers(&query).await?;
        let statement = || {
            let mut statement = QueryBuilder::new(format!("SELECT {SUMMARY}"));
            push_events(&mut statement, &query, numbers.as_deref());
            push_place(&mut statement, &query, "v.number");
            statement
        };
        let read = |row: &PgRow| Ok((cursor(row, 0, None)?, event_summary(row)?));
        self.page(statement, &query, read).await
    }

    pub(crate) async fn deliveries(
        &self,
        query: Query,
    ) -> Result<Page<DeliveryRecord>, StoreError> {
        let numbers = self.numbers(&query).await?;
        let statement = || {
            let mut statement = QueryBuilder::new(format!("SELECT {DELIVERY} FROM ("));
            statement.push("SELECT d.* FROM webhooks.deliveries_view d WHERE true");
            of_event(&mut statement, &query, &Table::DELIVERIES);
            of_delivery(&mut statement, &query);
            of_numbers(&mut statement, numbers.as_deref());
            push_place(&mut statement, &query, "d.id");
            statement.push(format!(") d {LAST_ATTEMPT}"));
            push_order(&mut statement, &query, "d.id");
            statement
        };
        let read = |row: &PgRow| Ok((cursor(row, 0, None)?, delivery_record(row)?));
        self.page(statement, &query, read).await
    }

    pub(crate) async fn attempts(&self, query: Query) -> Result<Page<AttemptRecord>, StoreError> {
        let numbers = self.numbers(&query).await?;
        // The filters for attempts judge each attempt here, and not the last one alone.
        let of_deliveries =
            Query { error_classes: Vec::new(), status_codes: None, ..query.clone() };
        let statement = || {
            let mut statement = QueryBuilder::new(format!("SELECT {ATTEMPT} {ATTEMPT_TABLE}"));
            of_event(&mut statement, &query, &Table::DELIVERIES);
            of_delivery(&mut statement, &of_deliveries);
            of_attempt(&mut statement, &query);
            of_numbers(&mut statement, numbers.as_deref());
            for (place, sign) in [(query.after, "<"), (query.before, ">")] {
                let Some(Cursor { key, attempt }) = place else { continue };
                statement.push(format!(" AND (a.delivery, a.number) {sign} ("));
                statement.push_bind(row::int8(key)).push(", ");
                statement.push_bind(i64::from(attempt)).push(")");
            }
            let order = order(&query);
            statement.push(format!(" ORDER BY a.delivery {order}, a.number {order}"));
            push_limit(&mut statement, &query);
            statement
        };
        let read = |row: &PgRow| Ok((cursor(row, 0, Some(1))?, attempt_record(row)?));
        self.page(statement, &query, read).await
    }

    pub(crate) async fn search(&self, request: SearchRequest) -> Result<SearchPage, StoreError> {
        let SearchRequest { query, text, .. } = &request;
        let query = Query { before: None, ..query.clone() };
        let numbers = self.numbers(&query).await?;
        // No body has a NUL, which PostgreSQL could not compare either.
        let items = if text.contains('\0') {
            Vec::new()
        } else {
            let find = || self.matches(&request, &query, numbers.as_deref());
            with_read_retries(find).await.map_err(store_error)?
        };
        // A full page ends with its last match: it looked no further.
        let last = items.last().filter(|_| items.len() >= query.page_size());
        let last = last.map(|(cursor, _)| *cursor);
        let end = || self.search_end(&request, &query, numbers.as_deref(), last);
        let (end, looked_to, is_more) = with_read_retries(end).await.map_err(store_error)?;
        let items = items.into_iter().map(|(_, item)| item).collect();
        Ok(SearchPage { items, next: end.filter(|_| is_more), looked_to })
    }

    /// Returns the first events among those that a search looks at whose bodies have its text.
    async fn matches(
        &self,
        request: &SearchRequest,
        query: &Query,
        numbers: Option<&[i64]>,
    ) -> Result<Vec<(Cursor, EventSummary)>, sqlx::Error> {
        let mut statement = QueryBuilder::new(format!("SELECT {SUMMARY} FROM (SELECT v.*"));
        push_events(&mut statement, query, numbers);
        push_place_of(&mut statement, query, "v.number", request.looks());
        statement.push(HAS_TEXT).push_bind(&request.text).push(") > 0 ORDER BY v.number DESC");
        statement.push(" LIMIT ").push_bind(row::int4(query.page_size()));
        let mut call = self.database.reading_call().await?;
        let rows =
            statement.build().persistent(call.prepares()).fetch_all(call.connection()).await?;
        call.commit().await?;
        rows.iter().map(|row| Ok((cursor(row, 0, None)?, event_summary(row)?))).collect()
    }

    /// Returns the place at which a search ended, which is `last` if its page is full, the time of
    /// acceptance there, and whether more events follow.
    async fn search_end(
        &self,
        request: &SearchRequest,
        query: &Query,
        numbers: Option<&[i64]>,
        last: Option<Cursor>,
    ) -> Result<(Option<Cursor>, Option<Timestamp>, bool), sqlx::Error> {
        // From the last match on, or from the start.
        let (after, looks) = match last {
            Some(Cursor { key, attempt }) => {
                (Some(Cursor { key: key.saturating_add(1), attempt }), 1)
            }
            None => (query.after, request.looks()),
        };
        let query = Query { after, ..query.clone() };
        let mut statement = QueryBuilder::new(
            "SELECT number, accepted_at, count FROM (
                SELECT number, accepted_at, row_number() OVER (ORDER BY number DESC) AS place,
                       count(*) OVER () AS count
                FROM (SELECT v.number, v.accepted_at",
        );
        push_events(&mut statement, &query, numbers);
        push_place_of(&mut statement, &query, "v.number", looks.saturating_add(1));
        let looks = i64::try_from(looks).unwrap_or(i64::MAX);
        statement.push(") looked) looked WHERE place = least(count, ").push_bind(looks).push(")");
        let mut call = self.database.reading_call().await?;
        let end: Option<(i64, At, i64)> = statement
            .build_query_as()
            .persistent(call.prepares())
            .fetch_optional(call.connection())
            .await?;
        call.commit().await?;
        Ok(match end {
            Some((number, At(at), count)) => {
                let end = Cursor { key: row::unsigned(number), attempt: 0 };
                (Some(end), Some(at), count > looks)
            }
            None => (None, None, false),
        })
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
        query: &Query,
        read: impl Fn(&PgRow) -> Result<(Cursor, T), sqlx::Error> + Sync,
    ) -> Result<Page<T>, StoreError> {
        let find = async || {
            let mut call = self.database.reading_call().await?;
            let mut statement = statement();
            let rows =
                statement.build().persistent(call.prepares()).fetch_all(call.connection()).await?;
            call.commit().await?;
            rows.iter().map(&read).collect::<Result<Vec<_>, _>>()
        };
        let mut found = with_read_retries(find).await.map_err(store_error)?;
        // The entry of the cursor, at least, follows a page that was read backwards.
        let is_more = query.before.is_some() || found.len() > query.page_size();
        found.truncate(query.page_size());
        if query.before.is_some() {
            found.reverse();
        }
        let next = found.last().map(|(cursor, _)| *cursor).filter(|_| is_more);
        let previous = found.first().map(|(cursor, _)| *cursor);
        Ok(Page { items: found.into_iter().map(|(_, item)| item).collect(), next, previous })
    }
}

/// Adds the table of events, and the conditions of a query.
fn push_events(statement: &mut QueryBuilder<Postgres>, query: &Query, numbers: Option<&[i64]>) {
    statement.push(" FROM webhooks.events v WHERE true");
    of_event(statement, query, &Table::EVENTS);
    if let Some(numbers) = numbers {
        statement.push(" AND v.number = ANY (").push_bind(numbers.to_vec()).push(")");
    }
    of_events_deliveries(statement, query);
}

/// Returns the order in which a page is read: from its place on, forwards or backwards.
fn order(query: &Query) -> &'static str {
    if query.before.is_some() { "ASC" } else { "DESC" }
}

fn push_order(statement: &mut QueryBuilder<Postgres>, query: &Query, column: &str) {
    statement.push(format!(" ORDER BY {column} {}", order(query)));
}

fn push_limit(statement: &mut QueryBuilder<Postgres>, query: &Query) {
    statement.push(" LIMIT ").push_bind(row::int4(query.page_size() + 1));
}

/// Adds the place and the length of a page of entries that a number identifies, and one more.
fn push_place(statement: &mut QueryBuilder<Postgres>, query: &Query, column: &str) {
    push_place_of(statement, query, column, query.page_size() + 1);
}

fn push_place_of(
    statement: &mut QueryBuilder<Postgres>,
    query: &Query,
    column: &str,
    limit: usize,
) {
    for (place, sign) in [(query.after, "<"), (query.before, ">")] {
        if let Some(Cursor { key, .. }) = place {
            statement.push(format!(" AND {column} {sign} ")).push_bind(row::int8(key));
        }
    }
    push_order(statement, query, column);
    statement.push(" LIMIT ").push_bind(row::int4(limit));
}
