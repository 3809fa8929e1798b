//! History: lists that filter and page, each by one statement, on connections that only read.

mod path;

mod filter;
mod records;

mod ended;
mod feed;
mod troubles;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Row, params, params_from_iter};
use webhooks_core::{EventId, TenantId};
use webhooks_dispatch::{
    history::{
        AttemptRecord, Cursor, DeliveryRecord, EndedPage, EndedRequest, EventRecord, EventSummary,
        FeedPage, FeedRequest, HistoryStore, Page, Query, SearchPage, SearchRequest, Trouble,
        TroubleRequest,
    },
    store::StoreError,
};

use self::filter::{Filter, LAST_ATTEMPT};
use self::path::{Path, Tables};
use self::records::{ATTEMPT, DELIVERY, EVENT};
use crate::SqliteStore;
use crate::row;

pub(crate) use self::filter::STATUS;
pub(crate) use self::records::status;

impl HistoryStore for SqliteStore {
    async fn event(
        &self,
        tenant: TenantId,
        id: EventId,
    ) -> Result<Option<EventRecord>, StoreError> {
        self.read_rows(move |connection| {
            let select =
                format!("SELECT {EVENT}, events.body FROM events WHERE id = ? AND tenant = ?");
            let mut statement = connection.prepare_cached(&select)?;
            let parameters = params![row::EventKey(&id), tenant.as_str()];
            statement.query_row(parameters, records::event_record).optional()
        })
        .await
    }

    async fn events(&self, query: Query) -> Result<Page<EventSummary>, StoreError> {
        self.read_rows(move |connection| {
            let list = List::events(&query);
            list.page(connection, &query, |row| {
                Ok((cursor(row.get(0)?, 0), records::event_summary(row, 1)?))
            })
        })
        .await
    }

    /// Reads the bodies of the events that the query lets through, one by one, until the page is full.
    async fn search(&self, request: SearchRequest) -> Result<SearchPage, StoreError> {
        self.read_rows(move |connection| search(connection, &request)).await
    }

    async fn feed(&self, request: FeedRequest) -> Result<FeedPage, StoreError> {
        self.read_rows(move |connection| feed::read(connection, &request)).await
    }

    async fn feed_end(&self) -> Result<Cursor, StoreError> {
        self.read_rows(feed::end).await
    }

    async fn troubles(&self, request: TroubleRequest) -> Result<Vec<Trouble>, StoreError> {
        self.read_rows(move |connection| troubles::read(connection, &request)).await
    }

    async fn ended_attempts(&self, request: EndedRequest) -> Result<EndedPage, StoreError> {
        let read =
            move |connection: &Connection| ended::read(connection, &request, ended::MAX_ENTRIES);
        self.read_rows(read).await
    }

    async fn deliveries(&self, query: Query) -> Result<Page<DeliveryRecord>, StoreError> {
        let read = move |connection: &Connection| {
            let list = List::deliveries(&query, Path::of_deliveries(connection, &query)?);
            list.page(connection, &query, |row| {
                Ok((cursor(row.get(0)?, 0), records::delivery_record(row)?))
            })
        };
        let mut page = self.read_rows(read).await?;
        let backlog = self.inner.backlog();
        for delivery in page.items.iter_mut().filter(|delivery| delivery.due_at.is_some()) {
            delivery.is_claimed = backlog.is_claimed(delivery.id);
        }
        drop(backlog);
        Ok(page)
    }

    async fn attempts(&self, query: Query) -> Result<Page<AttemptRecord>, StoreError> {
        self.read_rows(move |connection| {
            let list = List::attempts(&query, Path::of_attempts(connection, &query)?);
            list.page(connection, &query, |row| {
                Ok((cursor(row.get(0)?, row.get(1)?), records::attempt_record(row)?))
            })
        })
        .await
    }
}

/// A list: its columns, first the keys by which it is ordered; its tables, as a whole or in halves; and its
/// conditions.
struct List {
    columns: String,
    keys: &'static [&'static str],
    tables: &'static [Tables],
    filter: Filter,
    /// More conditions of the first half.
    of_first: Filter,
}

impl List {
    fn events(query: &Query) -> Self {
        const TABLES: &[Tables] = &[Tables { joined: "events", order: &["events.number"] }];
        let mut filter = Filter::default();
        filter.events(query);
        filter.page(query, "events.number");
        let columns = format!("events.number, {EVENT}");
        Self { columns, keys: &["1"], tables: TABLES, filter, of_first: Filter::default() }
    }

    fn deliveries(query: &Query, path: Path) -> Self {
        let mut filter = Filter { joins: LAST_ATTEMPT, ..Filter::default() };
        filter.event(query);
        filter.delivery(query);
        filter.attempt(query, "last");
        filter.page(query, "deliveries.number");
        let (columns, tables) = (DELIVERY.to_owned(), path.deliveries());
        Self { columns, keys: &["1"], tables, filter, of_first: path.events(query) }
    }

    fn attempts(query: &Query, path: Path) -> Self {
        let mut filter = Filter::default();
        filter.event(query);
        filter.delivery(query);
        filter.attempt(query, "attempts");
        filter.page_of_attempts(query);
        let (columns, tables) = (ATTEMPT.to_owned(), path.attempts());
        Self { columns, keys: &["1", "2"], tables, filter, of_first: path.events(query) }
    }

    fn statement(&self, direction: &str, limit: usize) -> String {
        let Self { columns, keys, tables, filter: Filter { joins, text, .. }, of_first } = self;
        let ends = |columns: &[&str]| {
            let columns = columns.join(&format!(" {direction}, "));
            format!("ORDER BY {columns} {direction} LIMIT {limit}")
        };
        let part = |(place, Tables { joined, order }): (usize, &Tables)| {
            let more = if place == 0 { &*of_first.text } else { "" };
            let end = ends(order);
            format!("SELECT {columns} FROM {joined} {joins} WHERE 1 {text} {more} {end}")
        };
        let parts: Vec<_> = tables.iter().enumerate().map(part).collect();
        match parts.as_slice() {
            [whole] => whole.clone(),
            halves => {
                let halves = halves.join(") UNION ALL SELECT * FROM (");
                format!("SELECT * FROM ({halves}) {}", ends(keys))
            }
        }
    }

    /// Returns the values of the statement's question marks.
    fn values(&self) -> impl Iterator<Item = &Value> {
        let (first, rest) = (&self.filter.values, self.tables.iter().skip(1));
        let first = first.iter().chain(&self.of_first.values);
        first.chain(rest.flat_map(|_half| &self.filter.values))
    }

    /// Reads a page, and one row more to know whether another page follows. A page before a cursor is
    /// read from its end.
    fn page<T>(
        self,
        connection: &Connection,
        query: &Query,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<(Cursor, T)>,
    ) -> rusqlite::Result<Page<T>> {
        let limit = query.page_size();
        let is_back = query.before.is_some();
        let statement = if is_back {
            self.statement("ASC", limit)
        } else {
            self.statement("DESC", limit.saturating_add(1))
        };
        let mut statement = connection.prepare_cached(&statement)?;
        let rows = statement.query_map(params_from_iter(self.values()), read)?;
        let mut found: Vec<(Cursor, T)> = rows.collect::<Result<_, _>>()?;
        // The entry of the cursor follows a page before it.
        let is_more = is_back || found.len() > limit;
        if is_back {
            found.reverse();
        }
        found.truncate(limit);
        let next = found.last().map(|(cursor, _)| *cursor).filter(|_| is_more);
        let previous = found.first().map(|(cursor, _)| *cursor);
        Ok(Page { items: found.into_iter().map(|(_, item)| item).collect(), next, previous })
    }
}

fn search(connection: &Connection, request: &SearchRequest) -> rusqlite::Result<SearchPage> {
    let query = Query { before: None, ..request.query.clone() };
    let mut list = List::events(&query);
    // SQLite looks for characters and not for bytes; in UTF-8, both find the same.
    list.columns.push_str(", instr(events.body, ?) > 0");
    list.filter.values.insert(0, request.text.clone().into());
    let looks = request.looks();
    let mut statement = connection.prepare_cached(&list.statement("DESC", looks + 1))?;
    let mut rows = statement.query(params_from_iter(list.values()))?;
    let mut found = SearchPage { items: Vec::new(), next: None, looked_to: None };
    let (mut looked, mut last) = (0, None);
    while let Some(row) = rows.next()? {
        if looked >= looks || found.items.len() >= query.page_size() {
            found.next = last;
            break;
        }
        looked += 1;
        last = Some(cursor(row.get(0)?, 0));
        found.looked_to = Some(row::time(row.get(6)?));
        if row.get(records::EVENT_COLUMNS + 1)? {
            found.items.push(records::event_summary(row, 1)?);
        }
    }
    Ok(found)
}

fn cursor(key: i64, attempt: u32) -> Cursor {
    Cursor { key: row::unsigned(key), attempt }
}

#[cfg(test)]
mod tests;
