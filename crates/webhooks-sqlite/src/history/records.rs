//! The rows of a history as records.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::Row;
use webhooks_core::DeliveryStatus;
use webhooks_dispatch::{
    history::{AttemptRecord, DeliveryRecord, EventRecord, EventSummary, LastAttempt},
    store::{Attempt, CancelReason},
    transport::ErrorClass,
};

use crate::error::BadRow;
use crate::row;

/// The columns that [`event_summary`] reads.
pub(super) const EVENT: &str =
    "events.id, events.type, events.tenant, events.channels, events.tags,
    events.accepted_at, events.deliver_at, events.recipients, events.deliveries,
    octet_length(events.body), events.expunged_at, events.trace";

/// The number of the columns of [`EVENT`].
pub(super) const EVENT_COLUMNS: usize = 12;

/// The columns that [`delivery_record`] reads.
pub(super) const DELIVERY: &str = "deliveries.number, events.id, events.type, events.tenant,
    endpoints.id, deliveries.status, deliveries.attempts, deliveries.attempts_before_replay,
    ifnull(deliveries.created_at, events.accepted_at), deliveries.queued_at, deliveries.due_at,
    deliveries.cancelled, deliveries.ended_at, endpoints.state, endpoints.state_since,
    last.started_at, last.duration, last.status_code, last.error_class, last.error";

/// The columns that [`attempt_record`] reads.
pub(super) const ATTEMPT: &str = "attempts.delivery, attempts.number, events.id, events.type,
    events.tenant, endpoints.id, attempts.started_at, attempts.duration, attempts.status_code,
    attempts.error_class, attempts.error, attempts.response_headers, attempts.response";

pub(super) fn event_summary(row: &Row<'_>, first: usize) -> rusqlite::Result<EventSummary> {
    Ok(EventSummary {
        id: row::event_id(row, first)?,
        event_type: row::event_type(row, first + 1)?,
        tenant: row::tenant(row, first + 2)?,
        channels: row::read_list(row, first + 3)?.unwrap_or_default(),
        tags: row::read_list(row, first + 4)?.unwrap_or_default(),
        accepted_at: row::time(row.get(first + 5)?),
        deliver_at: row::time_or_null(row, first + 6)?,
        only: row::read_list(row, first + 7)?,
        deliveries: usize::try_from(row.get::<_, i64>(first + 8)?).unwrap_or_default(),
        body_len: usize::try_from(row.get::<_, i64>(first + 9)?).unwrap_or_default(),
        expunged_at: row::time_or_null(row, first + 10)?,
        trace: row::trace(row, first + 11)?,
    })
}

/// Reads an event; its body comes behind the columns of its summary.
pub(super) fn event_record(row: &Row<'_>) -> rusqlite::Result<EventRecord> {
    let body = row.get_ref(EVENT_COLUMNS)?.as_bytes()?;
    Ok(EventRecord { summary: event_summary(row, 0)?, body: Bytes::copy_from_slice(body) })
}

/// Reads a delivery. Whether it is claimed, only memory knows.
pub(super) fn delivery_record(row: &Row<'_>) -> rusqlite::Result<DeliveryRecord> {
    let queued_at = row::time(row.get(9)?);
    let due_at = row::time_or_null(row, 10)?;
    let cancelled: Option<String> = row.get(11)?;
    let closed = match row.get_ref(13)?.as_str()? {
        "disabled" => Some(CancelReason::Disabled),
        "unregistered" => Some(CancelReason::Unregistered),
        _ => None,
    };
    // As in `STATUS`.
    let closed = closed.filter(|_| due_at.is_some());
    let is_closed = closed.is_some();
    let due_at = due_at.filter(|_| !is_closed);
    let ended_at =
        if is_closed { row::time_or_null(row, 14)? } else { row::time_or_null(row, 12)? };
    Ok(DeliveryRecord {
        id: row::delivery_id(row.get(0)?),
        event: row::event_id(row, 1)?,
        event_type: row::event_type(row, 2)?,
        tenant: row::tenant(row, 3)?,
        endpoint: row::endpoint_id(row, 4)?,
        status: if is_closed { DeliveryStatus::Cancelled } else { status(row, 5)? },
        cancelled: closed.or_else(|| cancelled.as_deref().and_then(CancelReason::from_word)),
        attempts: row.get(6)?,
        attempts_before_replay: row.get(7)?,
        created_at: row::time(row.get(8)?),
        queued_at,
        due_at: due_at.map(|due_at| due_at.max(queued_at)),
        is_claimed: false,
        ended_at,
        last_attempt: last_attempt(row, 15)?,
    })
}

fn last_attempt(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<LastAttempt>> {
    let Some(started_at) = row::time_or_null(row, first)? else { return Ok(None) };
    Ok(Some(LastAttempt {
        started_at,
        duration: duration(row, first + 1)?,
        status_code: row.get(first + 2)?,
        error_class: error_class(row, first + 3)?,
        error: row.get(first + 4)?,
    }))
}

pub(super) fn attempt_record(row: &Row<'_>) -> rusqlite::Result<AttemptRecord> {
    let headers: Option<String> = row.get(11)?;
    let response = row.get_ref(12)?.as_bytes_or_null()?;
    Ok(AttemptRecord {
        delivery: row::delivery_id(row.get(0)?),
        number: row.get(1)?,
        event: row::event_id(row, 2)?,
        event_type: row::event_type(row, 3)?,
        tenant: row::tenant(row, 4)?,
        endpoint: row::endpoint_id(row, 5)?,
        attempt: Attempt {
            started_at: row::time(row.get(6)?),
            duration: duration(row, 7)?,
            status_code: row.get(8)?,
            error_class: error_class(row, 9)?,
            error: row.get(10)?,
            response_headers: headers.unwrap_or_default(),
            response: response.map(Bytes::copy_from_slice).unwrap_or_default(),
        },
    })
}

pub(super) fn duration(row: &Row<'_>, column: usize) -> rusqlite::Result<Duration> {
    Ok(Duration::from_micros(row::unsigned(row.get(column)?)))
}

fn error_class(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<ErrorClass>> {
    let word: Option<String> = row.get(column)?;
    Ok(word.as_deref().map(ErrorClass::from_word))
}

/// Reads the status of a delivery.
pub(crate) fn status(row: &Row<'_>, column: usize) -> rusqlite::Result<DeliveryStatus> {
    let text: String = row.get(column)?;
    text.parse().map_err(|_why| BadRow::of("the status of a delivery").in_column(column))
}
