//! The columns of the entries of a history, and how they are read.

use std::time::Duration;

use bytes::Bytes;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use webhooks_core::{EndpointId, Tag, Timestamp};
use webhooks_dispatch::{
    history::{AttemptRecord, Cursor, DeliveryRecord, EventRecord, EventSummary, LastAttempt},
    store::{Attempt, CancelReason},
    transport::ErrorClass,
};

use crate::row::{self, At};

/// The columns of an event without its body, as [`event_summary`] reads them.
pub(super) const SUMMARY: &str = "v.number, v.id, v.tenant, v.type, v.channels, v.tags,
    v.accepted_at, v.deliver_at, v.only_ids, v.deliveries, octet_length(v.body), v.expunged_at,
    v.trace";

/// The columns of a delivery with its last attempt, as [`delivery_record`] reads them. A lease lasts
/// until the server's clock says otherwise; under a simulated clock, nobody asks for the time here.
pub(super) const DELIVERY: &str = "d.id, d.event, d.type, d.tenant, d.endpoint, d.status,
    d.cancelled, d.attempts, d.attempts_before_replay, d.created_at, d.queued_at, d.due_at,
    coalesce(d.leased_until > webhooks.lease_clock(NULL), d.leased_until IS NOT NULL), d.ended_at,
    l.started_at, l.duration_us, l.status_code, l.error_class, l.error";

/// The last attempt of a delivery. `OFFSET 0` keeps the planner from reading all attempts for a join.
pub(super) const LAST_ATTEMPT: &str = "LEFT JOIN LATERAL (
        SELECT a.* FROM webhooks.attempts a
        WHERE a.delivery = d.id AND a.event_at = d.event_at AND a.number = d.attempts
        OFFSET 0
    ) l ON true";

/// The columns of an attempt, as [`attempt_record`] reads them.
pub(super) const ATTEMPT: &str = "a.delivery, a.number, d.event, d.type, d.tenant, d.endpoint,
    a.started_at, a.duration_us, a.status_code, a.error_class, a.error, a.response_headers,
    a.response";

/// Reads a cursor from the column of its key, and that of the number of an attempt.
pub(super) fn cursor(
    row: &PgRow,
    key: usize,
    attempt: Option<usize>,
) -> Result<Cursor, sqlx::Error> {
    let attempt = attempt.map(|column| row.try_get(column)).transpose()?;
    let key = row::unsigned(row.try_get(key)?);
    Ok(Cursor { key, attempt: row::count(attempt.unwrap_or(0)) })
}

/// Reads an event from the columns of [`SUMMARY`].
pub(super) fn event_summary(row: &PgRow) -> Result<EventSummary, sqlx::Error> {
    let deliveries = row::count(row.try_get(9)?);
    let body_len = row::count(row.try_get(10)?);
    Ok(EventSummary {
        id: row::event_id(row, 1)?,
        tenant: row::tenant(row, 2)?,
        event_type: row::event_type(row, 3)?,
        channels: row::channels(row, 4)?,
        tags: row::list(row, 5, Tag::new, "a tag of an event")?.unwrap_or_default(),
        accepted_at: row.try_get::<At, _>(6)?.0,
        deliver_at: time(row, 7)?,
        only: row::list(row, 8, EndpointId::new, "the id of an endpoint")?,
        deliveries: usize::try_from(deliveries).unwrap_or(usize::MAX),
        body_len: usize::try_from(body_len).unwrap_or(usize::MAX),
        expunged_at: time(row, 11)?,
        trace: row::trace(row, 12)?,
    })
}

/// Reads an event from the columns of [`SUMMARY`] and its body.
pub(super) fn event_record(row: &PgRow) -> Result<EventRecord, sqlx::Error> {
    let body: String = row.try_get(13)?;
    Ok(EventRecord { summary: event_summary(row)?, body: body.into() })
}

/// Reads a delivery from the columns of [`DELIVERY`].
pub(super) fn delivery_record(row: &PgRow) -> Result<DeliveryRecord, sqlx::Error> {
    let cancelled: Option<&str> = row.try_get(6)?;
    let (At(created_at), At(queued_at)) = (row.try_get(9)?, row.try_get(10)?);
    let last_attempt = match time(row, 14)? {
        None => None,
        Some(started_at) => Some(LastAttempt {
            started_at,
            duration: duration(row, 15)?,
            status_code: status_code(row, 16)?,
            error_class: error_class(row, 17)?,
            error: row.try_get(18)?,
        }),
    };
    Ok(DeliveryRecord {
        id: row::delivery_id(row.try_get(0)?),
        event: row::event_id(row, 1)?,
        event_type: row::event_type(row, 2)?,
        tenant: row::tenant(row, 3)?,
        endpoint: row::endpoint_id(row, 4)?,
        status: row::parsed(row, 5, str::parse, "the status of a delivery")?,
        cancelled: cancelled.and_then(CancelReason::from_word),
        attempts: row::count(row.try_get(7)?),
        attempts_before_replay: row::count(row.try_get(8)?),
        created_at,
        queued_at,
        due_at: time(row, 11)?,
        is_claimed: row.try_get(12)?,
        ended_at: time(row, 13)?,
        last_attempt,
    })
}

/// Reads an attempt from the columns of [`ATTEMPT`].
pub(super) fn attempt_record(row: &PgRow) -> Result<AttemptRecord, sqlx::Error> {
    let headers: Option<String> = row.try_get(11)?;
    let response: Option<Vec<u8>> = row.try_get(12)?;
    Ok(AttemptRecord {
        delivery: row::delivery_id(row.try_get(0)?),
        number: row::count(row.try_get(1)?),
        event: row::event_id(row, 2)?,
        event_type: row::event_type(row, 3)?,
        tenant: row::tenant(row, 4)?,
        endpoint: row::endpoint_id(row, 5)?,
        attempt: Attempt {
            started_at: row.try_get::<At, _>(6)?.0,
            duration: duration(row, 7)?,
            status_code: status_code(row, 8)?,
            error_class: error_class(row, 9)?,
            error: row.try_get(10)?,
            response_headers: headers.unwrap_or_default(),
            response: response.map(Bytes::from).unwrap_or_default(),
        },
    })
}

fn time(row: &PgRow, column: usize) -> Result<Option<Timestamp>, sqlx::Error> {
    Ok(row.try_get::<Option<At>, _>(column)?.map(|At(time)| time))
}

pub(super) fn duration(row: &PgRow, column: usize) -> Result<Duration, sqlx::Error> {
    Ok(Duration::from_micros(row::unsigned(row.try_get(column)?)))
}

fn status_code(row: &PgRow, column: usize) -> Result<Option<u16>, sqlx::Error> {
    let code: Option<i32> = row.try_get(column)?;
    Ok(code.and_then(|code| u16::try_from(code).ok()))
}

fn error_class(row: &PgRow, column: usize) -> Result<Option<ErrorClass>, sqlx::Error> {
    Ok(row.try_get::<Option<&str>, _>(column)?.map(ErrorClass::from_word))
}
