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

mod ended;
mod feed;
mod filter;
mod list;
mod path;
mod record;
mod troubles;

use filter::event_order;
use list::{push_limit, push_order};
use record::{SUMMARY, attempt_record, cursor, delivery_record, event_record, event_summary};

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
        let query = self.of_one_tenant(query).await?;
        let numbers = self.numbers(&query).await?;
        let read = |row: &PgRow| Ok((cursor(row, 0, None)?, event_summary(row)?));
        self.page(|| list::events(&query, numbers.as_deref()), &query, read).await
    }

    pub(crate) async fn deliveries(
        &self,
        query: Query,
    ) -> Result<Page<DeliveryRecord>, StoreError> {
        let query = self.of_one_tenant(query).await?;
        let path = self.path(&query).await?;
        let read = |row: &PgRow| Ok((cursor(row, 0, None)?, delivery_record(row)?));
        self.page(|| list::deliveries(&query, &path), &query, read).await
    }

    pub(crate) async fn attempts(&self, query: Query) -> Result<Page<AttemptRecord>, StoreError> {
        let query = self.of_one_tenant(query).await?;
        let path = self.path(&query).await?;
        let read = |row: &PgRow| Ok((cursor(row, 0, Some(1))?, attempt_record(row)?));
        self.page(|| list::attempts(&query, &path), &query, read).await
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
        push_looked(&mut statement, query, numbers, request.looks());
        statement.push(HAS_TEXT).push_bind(&request.text).push(") > 0");
        push_order(&mut statement, query, &["v.number"]);
        push_limit(&mut statement, query.page_size());
        let mut call = self.database.page_call().await?;
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
        push_looked(&mut statement, &query, numbers, looks.saturating_add(1));
        let looks = i64::try_from(looks).unwrap_or(i64::MAX);
        statement.push(") looked) looked WHERE place = least(count, ").push_bind(looks).push(")");
        let mut call = self.database.page_call().await?;
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
    pub(crate) async fn numbers(&self, query: &Query) -> Result<Option<Vec<i64>>, StoreError> {
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
            let mut call = self.database.page_call().await?;
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

/// Adds the events that a search looks at.
fn push_looked(
    statement: &mut QueryBuilder<Postgres>,
    query: &Query,
    numbers: Option<&[i64]>,
    looks: usize,
) {
    list::push_events(statement, query, numbers);
    list::push_place(statement, query, "v.number");
    push_order(statement, query, event_order(query, numbers));
    push_limit(statement, looks);
}
