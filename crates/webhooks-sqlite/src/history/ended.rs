//! The attempts of a tenant that ended behind a place, by the index of the ends of all.

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use webhooks_dispatch::history::{AttemptRecord, Cursor, EndedPage, EndedPlace, EndedRequest};

use super::records::{self, ATTEMPT};
use crate::row;

/// The largest number of entries of the index, of all tenants, that one page reads: some ten milliseconds.
pub(super) const MAX_ENTRIES: usize = 100_000;

/// Reads the next attempts, from at most `max_entries` entries of the index.
///
/// Entries of other tenants are passed over within the index. An index by tenant would have none of them, but each
/// settlement would write a page of it for each tenant (see the migration).
pub(super) fn read(
    connection: &Connection,
    request: &EndedRequest,
    max_entries: usize,
) -> rusqlite::Result<EndedPage> {
    let EndedRequest { tenant, after, .. } = request;
    let mut statement = connection.prepare_cached(&entries())?;
    let mut entries = statement.query(params![
        row::micros(after.ended_at),
        row::integer(after.attempt.key),
        after.attempt.attempt,
        tenant.as_str(),
    ])?;
    let mut page = EndedPage { items: Vec::new(), next: *after, is_last: true };
    for _ in 0..max_entries {
        let Some(entry) = entries.next()? else { return Ok(page) };
        page.next = place(entry)?;
        if entry.get(3)? {
            page.items.extend(attempt(connection, page.next.attempt)?);
        }
        if page.items.len() == request.page_size() {
            break;
        }
    }
    page.is_last = false;
    Ok(page)
}

/// Returns the statement that reads the entries of the index: their places, and whether they are the tenant's.
pub(super) fn entries() -> String {
    // The expression of the index comes in its own words, so that SQLite knows it again.
    const ENDED: &str = "attempts.started_at + attempts.duration";
    format!(
        "SELECT {ENDED}, delivery, number,
                endpoint IN (SELECT endpoints.number FROM endpoints WHERE tenant = ?4)
         FROM attempts INDEXED BY attempts_ended
         WHERE {ENDED} >= ?1 AND ({ENDED}, delivery, number) > (?1, ?2, ?3)
         ORDER BY {ENDED}, delivery, number"
    )
}

fn place(entry: &Row<'_>) -> rusqlite::Result<EndedPlace> {
    let delivery = row::delivery_id(entry.get(1)?);
    let attempt = Cursor { key: delivery.as_u64(), attempt: entry.get(2)? };
    Ok(EndedPlace { ended_at: row::time(entry.get(0)?), attempt })
}

/// Reads an attempt, unless it was deleted meanwhile.
fn attempt(connection: &Connection, place: Cursor) -> rusqlite::Result<Option<AttemptRecord>> {
    let select = format!(
        "SELECT {ATTEMPT} FROM attempts
         JOIN deliveries ON deliveries.number = attempts.delivery
         JOIN events ON events.number = deliveries.event
         JOIN endpoints ON endpoints.number = deliveries.endpoint
         WHERE attempts.delivery = ? AND attempts.number = ?"
    );
    let mut statement = connection.prepare_cached(&select)?;
    let key = params![row::integer(place.key), place.attempt];
    statement.query_row(key, records::attempt_record).optional()
}
