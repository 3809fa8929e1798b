//! Lists of endpoints: filters and pages, in both directions and both orders.

use std::collections::BTreeMap;
use std::sync::Arc;

use sqlx::QueryBuilder;
use sqlx::postgres::{PgRow, Postgres};
use webhooks_registry::{
    Registration,
    store::{
        EndpointCursor, EndpointOrder, EndpointPage, EndpointQuery, EndpointStoreError, PagePlace,
        StateKind,
    },
};

use crate::call::with_read_retries;
use crate::endpoint_row::{self, registration};
use crate::error::store_error;
use crate::row::{self, At, without_nul};
use crate::state::PostgresInner;

/// The character between the parts of [`words`].
const SEPARATOR: char = '\u{1}';

/// Returns the texts of an endpoint that a list is searched for, in lower case.
pub(crate) fn words(registration: &Registration) -> String {
    let endpoint = &registration.endpoint;
    let texts = [endpoint.name.as_deref(), endpoint.description.as_deref()];
    let texts = texts.into_iter().flatten().chain([endpoint.url.as_str()]);
    let mut words = registration.id.to_string();
    for text in texts {
        words.push(SEPARATOR);
        words.push_str(text);
    }
    words.make_ascii_lowercase();
    without_nul(&words)
}

/// Returns metadata as JSON that PostgreSQL can compare.
pub(crate) fn metadata(metadata: &BTreeMap<String, String>) -> String {
    let entries = metadata.iter().map(|(key, value)| (without_nul(key), without_nul(value).into()));
    serde_json::Value::Object(entries.collect()).to_string()
}

impl PostgresInner {
    pub(crate) async fn endpoints(
        &self,
        query: &EndpointQuery,
    ) -> Result<EndpointPage, EndpointStoreError> {
        query.check()?;
        let limit = query.page_size();
        let (mut found, mut place) = (Vec::new(), query.place.clone());
        let is_backwards = matches!(place, Some(PagePlace::Before(_)));
        // One more than the page shows whether there is more. An endpoint that cannot be read is
        // left out, so that the others can be listed.
        while found.len() <= limit {
            let left = limit + 1 - found.len();
            let rows = with_read_retries(|| self.endpoint_rows(query, place.as_ref(), left));
            let rows = rows.await.map_err(unavailable)?;
            let is_last = rows.len() < left;
            for row in &rows {
                let cursor = cursor(query, row).map_err(unavailable)?;
                place = Some(if is_backwards {
                    PagePlace::Before(cursor)
                } else {
                    PagePlace::After(cursor)
                });
                found.extend(registration(row, &self.keys).map(Arc::new));
            }
            if is_last {
                break;
            }
        }
        let is_more = found.len() > limit;
        found.truncate(limit);
        // Something is on the other side of the page if that is where the reader came from: the
        // entry of the place, unless it is gone.
        let is_behind = match &query.place {
            None => false,
            Some(PagePlace::After(cursor) | PagePlace::Before(cursor)) => {
                let beyond = match found.first() {
                    Some(first) => query.cursor(first),
                    None => cursor.clone(),
                };
                let beyond =
                    if is_backwards { PagePlace::After(beyond) } else { PagePlace::Before(beyond) };
                let beyond = with_read_retries(|| self.endpoint_rows(query, Some(&beyond), 1));
                !found.is_empty() && !beyond.await.map_err(unavailable)?.is_empty()
            }
        };
        if is_backwards {
            found.reverse();
        }
        let (has_next, has_previous) =
            if is_backwards { (is_behind, is_more) } else { (is_more, is_behind) };
        Ok(EndpointPage {
            next: found.last().filter(|_| has_next).map(|last| query.cursor(last)),
            previous: found.first().filter(|_| has_previous).map(|first| query.cursor(first)),
            items: found,
        })
    }

    pub(crate) async fn count_endpoints(
        &self,
        query: &EndpointQuery,
        max: usize,
    ) -> Result<usize, EndpointStoreError> {
        let count = async || {
            let mut statement = QueryBuilder::new("SELECT count(*) FROM (SELECT 1");
            statement.push(" FROM webhooks.endpoints WHERE is_current");
            filter(&mut statement, query);
            statement.push(" LIMIT ").push_bind(row::int4(max)).push(") AS found");
            let mut call = self.database.reading_call().await?;
            let count = statement.build_query_scalar().persistent(false);
            let count: i64 = count.fetch_one(call.connection()).await?;
            call.commit().await?;
            Ok(count)
        };
        let count = with_read_retries(count).await.map_err(unavailable)?;
        Ok(usize::try_from(count).unwrap_or_default())
    }

    /// Returns at most `limit` rows of endpoints, from a place on. Those before a place come in the
    /// opposite order, the nearest first.
    async fn endpoint_rows(
        &self,
        query: &EndpointQuery,
        place: Option<&PagePlace>,
        limit: usize,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let mut statement = QueryBuilder::new(endpoint_row::SELECT);
        statement.push(" WHERE is_current");
        filter(&mut statement, query);
        let is_backwards = matches!(place, Some(PagePlace::Before(_)));
        let is_descending = (query.order == EndpointOrder::NewestFirst) != is_backwards;
        let (sign, order) = if is_descending { ("<", "DESC") } else { (">", "ASC") };
        if let Some(PagePlace::After(cursor) | PagePlace::Before(cursor)) = place {
            let key = cursor.key();
            match cursor {
                EndpointCursor::ById(_) => {
                    statement.push(format!(" AND (tenant, id) {sign} ("));
                }
                EndpointCursor::ByCreation(at, _) => {
                    statement.push(format!(" AND (created_at, tenant, id) {sign} ("));
                    statement.push_bind(At(*at)).push(", ");
                }
            }
            statement.push_bind(key.tenant.to_string()).push(", ");
            statement.push_bind(key.id.to_string()).push(")");
        }
        statement.push(match query.order {
            EndpointOrder::ById => format!(" ORDER BY tenant {order}, id {order}"),
            EndpointOrder::NewestFirst => {
                format!(" ORDER BY created_at {order}, tenant {order}, id {order}")
            }
        });
        statement.push(" LIMIT ").push_bind(row::int4(limit));
        let mut call = self.database.reading_call().await?;
        let rows = statement.build().persistent(false).fetch_all(call.connection()).await?;
        call.commit().await?;
        Ok(rows)
    }
}

/// Adds the conditions of a query.
fn filter(statement: &mut QueryBuilder<Postgres>, query: &EndpointQuery) {
    if let Some(tenant) = &query.tenant {
        statement.push(" AND tenant = ").push_bind(tenant.to_string());
    }
    if !query.states.is_empty() {
        let states: Vec<&str> = query.states.iter().map(|state| state_word(*state)).collect();
        statement.push(" AND state = ANY (").push_bind(states).push(")");
    }
    if let Some(url) = &query.url {
        statement.push(" AND url = ").push_bind(without_nul(url));
    }
    if let Some(event_type) = &query.event_type {
        let patterns: Vec<String> = event_type.patterns().map(Into::into).collect();
        statement.push(" AND patterns && ").push_bind(patterns);
    }
    if !query.metadata.is_empty() {
        statement.push(" AND metadata @> ").push_bind(metadata(&query.metadata)).push("::jsonb");
    }
    if let Some(text) = &query.text {
        let text = without_nul(&text.to_ascii_lowercase());
        statement.push(" AND strpos(words, ").push_bind(text).push(") > 0");
    }
}

fn state_word(state: StateKind) -> &'static str {
    match state {
        StateKind::Active => "active",
        StateKind::Paused => "paused",
        StateKind::Disabled => "disabled",
    }
}

/// Returns the cursor of a row, which may be of an endpoint that cannot be read.
fn cursor(query: &EndpointQuery, row: &PgRow) -> Result<EndpointCursor, sqlx::Error> {
    let key = endpoint_row::key(row)?;
    Ok(match query.order {
        EndpointOrder::ById => EndpointCursor::ById(key),
        EndpointOrder::NewestFirst => {
            EndpointCursor::ByCreation(endpoint_row::created_at(row)?, key)
        }
    })
}

fn unavailable(error: sqlx::Error) -> EndpointStoreError {
    EndpointStoreError::Unavailable { source: store_error(error).into() }
}
