//! The attempts that ended since a time, by the index of their ends.

use rusqlite::{Connection, params};
use webhooks_dispatch::history::{AttemptRecord, EndedRequest};

use super::records::{self, ATTEMPT};
use crate::row;

/// Reads the next attempts.
pub(super) fn read(
    connection: &Connection,
    request: &EndedRequest,
) -> rusqlite::Result<Vec<AttemptRecord>> {
    // The expression of the index comes in its own words, so that SQLite knows it again.
    const ENDED: &str = "attempts.started_at + attempts.duration";
    let select = format!(
        "SELECT {ATTEMPT}
         FROM attempts INDEXED BY attempts_ended
         CROSS JOIN deliveries ON deliveries.number = attempts.delivery
         CROSS JOIN events ON events.number = deliveries.event
         CROSS JOIN endpoints ON endpoints.number = deliveries.endpoint
         WHERE {ENDED} >= ?1 AND ({ENDED}, attempts.delivery, attempts.number) > (?1, ?2, ?3)
         ORDER BY {ENDED}, attempts.delivery, attempts.number LIMIT ?4"
    );
    let place = request.place();
    let limit = i64::try_from(request.page_size()).unwrap_or(i64::MAX);
    let (since, delivery) = (row::micros(request.since), row::integer(place.key));
    let mut statement = connection.prepare_cached(&select)?;
    let parameters = params![since, delivery, place.attempt, limit];
    statement.query_map(parameters, records::attempt_record)?.collect()
}
