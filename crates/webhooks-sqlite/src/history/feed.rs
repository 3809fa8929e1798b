//! The feed of events. There is one writer, and numbers grow: what is committed is complete up to its end.

use rusqlite::{Connection, params_from_iter};
use webhooks_dispatch::history::{Cursor, FeedPage, FeedRequest, Query};

use super::{List, cursor, records};

/// Reads the next events of a feed.
pub(super) fn read(connection: &Connection, request: &FeedRequest) -> rusqlite::Result<FeedPage> {
    let query = Query {
        tenant: request.tenant.clone(),
        since: request.since,
        before: Some(request.place()),
        ..Query::default()
    };
    let mut list = List::events(&query);
    // The columns of a record begin with those of its summary.
    list.columns = format!("{}, events.body, events.number", records::EVENT);
    let mut statement = connection.prepare_cached(&list.statement("ASC", request.page_size()))?;
    let mut rows = statement.query(params_from_iter(list.values()))?;
    let (mut items, mut bytes) = (Vec::new(), 0);
    while bytes < request.max_bytes.max(1)
        && let Some(row) = rows.next()?
    {
        let event = records::event_record(row)?;
        bytes += event.body.len();
        items.push((cursor(row.get(records::EVENT_COLUMNS + 1)?, 0), event));
    }
    Ok(request.page(items))
}

/// Returns the place behind all events, the deleted ones included.
pub(super) fn end(connection: &Connection) -> rusqlite::Result<Cursor> {
    const END: &str = "SELECT max((SELECT ifnull(max(number), 0) FROM events),
        (SELECT next - 1 FROM counters WHERE name = 'event'))";
    connection.query_row(END, (), |row| Ok(cursor(row.get(0)?, 0)))
}
