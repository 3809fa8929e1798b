//! History: lists that filter and page, each by one statement, on connections that only read.

mod path;

mod filter;
mod records;

use rusqlite::{Connection, OptionalExtension as _, Row, params, params_from_iter};
use webhooks_core::{EventId, TenantId};
use webhooks_dispatch::{
    history::{
        AttemptRecord, Cursor, DeliveryRecord, EventRecord, EventSummary, HistoryStore, Page,
        Query, SearchPage, SearchRequest,
    },
    store::StoreError,
};

use self::filter::{Filter, LAST_ATTEMPT};
use self::path::Path;
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

/// A list: what it selects, its conditions, and the numbers by which it is ordered, the last first.
struct List {
    select: String,
    filter: Filter,
    order: &'static [&'static str],
}

impl List {
    fn events(query: &Query) -> Self {
        let mut filter = Filter::default();
        filter.events(query);
        filter.page(query, "events.number");
        let select = format!("SELECT events.number, {EVENT} FROM events");
        Self { select, filter, order: &["events.number"] }
    }

    fn deliveries(query: &Query, path: Path) -> Self {
        let mut filter = Filter::default();
        filter.event(query);
        filter.delivery(query);
        filter.attempt(query, "last");
        filter.page(query, "deliveries.number");
        let select = format!("SELECT {DELIVERY} FROM {} {LAST_ATTEMPT}", path.deliveries());
        Self { select, filter, order: &["deliveries.number"] }
    }

    fn attempts(query: &Query, path: Path) -> Self {
        let mut filter = Filter::default();
        filter.event(query);
        filter.delivery(query);
        filter.attempt(query, "attempts");
        filter.page_of_attempts(query);
        let select = format!("SELECT {ATTEMPT} FROM {}", path.attempts());
        Self { select, filter, order: &["attempts.delivery", "attempts.number"] }
    }

    fn statement(&self, direction: &str, limit: usize) -> String {
        let Self { select, filter: Filter { text, .. }, order } = self;
        let order = order.join(&format!(" {direction}, "));
        format!("{select} WHERE 1 {text} ORDER BY {order} {direction} LIMIT {limit}")
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
        let rows = statement.query_map(params_from_iter(self.filter.values), read)?;
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
    let List { filter, order, .. } = List::events(&query);
    // SQLite looks for characters and not for bytes; in UTF-8, both find the same.
    let select = format!("SELECT events.number, {EVENT}, instr(events.body, ?) > 0 FROM events");
    let Filter { text, mut values } = filter;
    values.insert(0, request.text.clone().into());
    let list = List { select, filter: Filter { text, values }, order };
    let looks = request.looks();
    let mut statement = connection.prepare_cached(&list.statement("DESC", looks + 1))?;
    let mut rows = statement.query(params_from_iter(list.filter.values))?;
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
mod tests {
    use rusqlite::types::Value;
    use webhooks_core::{Channel, DeliveryId, DeliveryStatus, EndpointId, Tag, Timestamp};
    use webhooks_dispatch::backlog::Window;
    use webhooks_dispatch::transport::ErrorClass;

    use super::*;

    fn plan(list: &List) -> String {
        let file = Connection::open_in_memory().unwrap();
        file.execute_batch(include_str!("../migrations/0001_start.sql")).unwrap();
        let plan = format!("EXPLAIN QUERY PLAN {}", list.statement("DESC", 101));
        let mut statement = file.prepare(&plan).unwrap();
        let values: Vec<Value> = list.filter.values.clone();
        let rows = statement.query_map(params_from_iter(values), |row| row.get(3)).unwrap();
        rows.collect::<rusqlite::Result<Vec<String>>>().unwrap().join("\n")
    }

    fn query() -> Query {
        let (tenant, endpoint) = (TenantId::default(), EndpointId::new("crm").unwrap());
        Query { tenant: Some(tenant), endpoint: Some(endpoint), ..Query::default() }
    }

    /// A page must not cost a sort of the whole history.
    #[test]
    fn a_page_of_a_long_history_is_read_in_its_order() {
        let (channel, tag) = (Channel::new("a").ok(), Tag::new("b").ok());
        for query in [
            Query::default(),
            query(),
            Query { tenant: None, ..query() },
            Query { channel, tag, since: Some(Timestamp::UNIX_EPOCH), ..query() },
            Query { statuses: vec![DeliveryStatus::Failed], attempts: Some(2..=5), ..query() },
            Query { status_codes: Some(500..=599), ..query() },
            Query { error_classes: vec![ErrorClass::Timeout], ..query() },
        ] {
            let lists = [
                List::events(&query),
                List::deliveries(&query, Path::Walk),
                List::attempts(&query, Path::Walk),
            ];
            for list in lists {
                let plan = plan(&list);
                assert!(!plan.contains("TEMP B-TREE"), "{query:?}\n{plan}");
            }
            let plan = plan(&List::events(&query));
            let expected = if query.tenant.is_some() { "events_tenant (tenant=?)" } else { "SCAN" };
            assert!(plan.contains(expected), "{query:?}\n{plan}");
        }
    }

    #[test]
    fn what_a_query_names_is_found_by_its_index() {
        let event = Query { event: Some(EventId::random()), ..query() };
        let delivery = Query { delivery: Some(DeliveryId::from_u64(3)), ..Query::default() };
        let with = |statuses| Query { statuses, ..query() };
        let waiting = with(vec![DeliveryStatus::Pending, DeliveryStatus::Retrying]);
        let failed = with(vec![DeliveryStatus::Failed]);
        for (query, path, expected) in [
            (&event, Path::Events, "INDEX deliveries_event (event=?"),
            (&delivery, Path::Events, "INTEGER PRIMARY KEY (rowid=?"),
            (&waiting, Path::Endpoint, "INDEX deliveries_due (endpoint=?"),
            (&failed, Path::Endpoint, "INDEX deliveries_undelivered (endpoint=?"),
        ] {
            let plan = plan(&List::deliveries(query, path));
            assert!(plan.contains(&format!("SEARCH deliveries USING {expected}")), "{plan}");
        }
        for list in [List::events(&event), List::events(&delivery)] {
            let plan = plan(&list);
            assert!(plan.contains("SEARCH events USING"), "{plan}");
        }
    }

    #[test]
    fn the_path_of_a_list_depends_on_the_rows_to_look_at() {
        use crate::writer::tests::side::{Order, Side, at};

        let mut side = Side::new(Window::ALL, false);
        let register =
            |endpoint| Order::Register { endpoint, active: true, ordered: false, picky: false };
        side.do_all(&[register(0)], at(0));
        let failed = Query { statuses: vec![DeliveryStatus::Failed], ..query() };
        let failed = Query { endpoint: EndpointId::new("a").ok(), ..failed };
        let waiting = Query { statuses: vec![DeliveryStatus::Pending], ..failed.clone() };
        let paths = |side: &Side, query: &Query| {
            let file = side.writer.connection.sqlite();
            let paths = (Path::of_deliveries(file, query), Path::of_attempts(file, query));
            (paths.0.unwrap(), paths.1.unwrap())
        };
        assert_eq!(paths(&side, &query()), (Path::Events, Path::Events));
        assert_eq!(paths(&side, &waiting), (Path::Endpoint, Path::Events));
        side.do_all(
            &(0..20).map(|event| Order::Publish { event, wanted: true }).collect::<Vec<_>>(),
            at(1),
        );
        assert_eq!(paths(&side, &query()), (Path::Walk, Path::Walk));
        assert_eq!(paths(&side, &waiting), (Path::Walk, Path::Walk));
        assert_eq!(paths(&side, &failed), (Path::Endpoint, Path::Walk));
        // A bulk cancellation of the last ones must not walk along all that have ended.
        let of_all = |query: &Query| Query { tenant: None, endpoint: None, ..query.clone() };
        assert_eq!(paths(&side, &of_all(&waiting)).0, Path::Walk);
        assert_eq!(paths(&side, &of_all(&failed)).0, Path::Endpoint);
        let plan = plan(&List::deliveries(&of_all(&failed), Path::Endpoint));
        assert!(plan.contains("USING INDEX deliveries_undelivered (endpoint=?"), "{plan}");
        let event = Query { event: EventId::new("event-1").ok(), ..waiting };
        assert_eq!(paths(&side, &event), (Path::Events, Path::Events));
    }
}
