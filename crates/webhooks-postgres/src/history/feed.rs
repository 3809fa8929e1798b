//! The feed of events. Transactions commit in another order than that of their numbers, so it ends where
//! one that is open may still store an event.

use sqlx::QueryBuilder;
use sqlx::postgres::Postgres;
use webhooks_dispatch::history::{Cursor, EventRecord, FeedPage, FeedRequest, Query};
use webhooks_dispatch::store::StoreError;

use super::filter::event_order;
use super::list::{push_events, push_limit, push_order, push_place};
use super::record::{SUMMARY, cursor, event_record};
use crate::call::with_read_retries;
use crate::error::store_error;
use crate::row;
use crate::state::PostgresInner;

impl PostgresInner {
    pub(crate) async fn feed(&self, request: FeedRequest) -> Result<FeedPage, StoreError> {
        // Before the snapshot of the page: it must have all that is stored up to there.
        let end = self.feed_end().await?;
        let query = Query {
            tenant: request.tenant.clone(),
            since: request.since,
            before: Some(request.place()),
            after: Some(Cursor { key: end.key.saturating_add(1), attempt: 0 }),
            ..Query::default()
        };
        let items = with_read_retries(|| self.feed_items(&request, &query)).await;
        Ok(request.page(items.map_err(store_error)?))
    }

    async fn feed_items(
        &self,
        request: &FeedRequest,
        query: &Query,
    ) -> Result<Vec<(Cursor, EventRecord)>, sqlx::Error> {
        let mut call = self.database.page_call().await?;
        let mut statement = statement(request, query);
        let rows =
            statement.build().persistent(call.prepares()).fetch_all(call.connection()).await?;
        call.commit().await?;
        rows.iter().map(|row| Ok((cursor(row, 0, None)?, event_record(row)?))).collect()
    }

    pub(crate) async fn feed_end(&self) -> Result<Cursor, StoreError> {
        let read = async || {
            let mut call = self.database.reading_call().await?;
            let end = sqlx::query_scalar("SELECT webhooks.feed_end()").persistent(call.prepares());
            let end: i64 = end.fetch_one(call.connection()).await?;
            call.commit().await?;
            Ok(Cursor { key: row::unsigned(end), attempt: 0 })
        };
        with_read_retries(read).await.map_err(store_error)
    }
}

/// Returns the statement of a page: the events that begin within the bytes.
fn statement(request: &FeedRequest, query: &Query) -> QueryBuilder<Postgres> {
    let mut statement = QueryBuilder::new(format!(
        "SELECT {SUMMARY}, v.body FROM (
            SELECT v.*, sum(octet_length(v.body)) OVER (ORDER BY v.number) AS bytes FROM (SELECT v.*"
    ));
    push_events(&mut statement, query, None);
    push_place(&mut statement, query, "v.number");
    push_order(&mut statement, query, event_order(query, None));
    push_limit(&mut statement, request.page_size());
    statement.push(") v) v WHERE v.bytes - octet_length(v.body) < ");
    let max_bytes = i64::try_from(request.max_bytes.max(1)).unwrap_or(i64::MAX);
    statement.push_bind(max_bytes).push(" ORDER BY v.number");
    statement
}
