//! The troubles since a time, by the index that has no other attempts.

use rusqlite::{Connection, Row, params};
use webhooks_dispatch::history::{Trouble, TroubleRequest};

use super::filter::STATUS;
use super::records;
use crate::row;

/// Reads the next troubles.
pub(super) fn read(
    connection: &Connection,
    request: &TroubleRequest,
) -> rusqlite::Result<Vec<Trouble>> {
    // The condition of the index comes in its own words, so that SQLite knows it again.
    let select = format!(
        "SELECT attempts.delivery, attempts.number, events.tenant, endpoints.id,
                attempts.started_at, attempts.duration, attempts.error IS NOT NULL, {STATUS},
                deliveries.attempts, deliveries.attempts_before_replay
         FROM attempts INDEXED BY attempts_troubles
         CROSS JOIN deliveries ON deliveries.number = attempts.delivery
         CROSS JOIN events ON events.number = deliveries.event
         CROSS JOIN endpoints ON endpoints.number = deliveries.endpoint
         WHERE (attempts.number > 1 OR attempts.error IS NOT NULL)
           AND (attempts.started_at, attempts.delivery, attempts.number) > (?, ?, ?)
         ORDER BY attempts.started_at, attempts.delivery, attempts.number LIMIT ?"
    );
    let place = request.place();
    let limit = i64::try_from(request.page_size()).unwrap_or(i64::MAX);
    let (since, delivery) = (row::micros(request.since), row::integer(place.key));
    let mut statement = connection.prepare_cached(&select)?;
    statement.query_map(params![since, delivery, place.attempt, limit], trouble)?.collect()
}

fn trouble(row: &Row<'_>) -> rusqlite::Result<Trouble> {
    Ok(Trouble {
        delivery: row::delivery_id(row.get(0)?),
        number: row.get(1)?,
        tenant: row::tenant(row, 2)?,
        endpoint: row::endpoint_id(row, 3)?,
        started_at: row::time(row.get(4)?),
        duration: records::duration(row, 5)?,
        has_failed: row.get(6)?,
        status: records::status(row, 7)?,
        attempts: row.get(8)?,
        attempts_before_replay: row.get(9)?,
    })
}
