//! Values of Rust as columns of rows, and back.

use std::time::Duration;

use rusqlite::Row;
use rusqlite::types::{ToSqlOutput, ValueRef};
use webhooks_core::{
    DeliveryId, EndpointId, EventId, EventType, TenantId, Timestamp, TraceContext,
};
use webhooks_dispatch::store::{Progress, SerializedEvent};
use webhooks_registry::EndpointNumber;

use crate::error::BadRow;

/// Returns a time as a number of microseconds.
pub(crate) fn micros(time: Timestamp) -> i64 {
    integer(time.as_unix_microseconds())
}

pub(crate) fn time(microseconds: i64) -> Timestamp {
    Timestamp::from_unix_microseconds(unsigned(microseconds))
}

/// Returns the number of a delivery's row.
pub(crate) fn number(delivery: DeliveryId) -> i64 {
    integer(delivery.as_u64())
}

pub(crate) fn delivery_id(number: i64) -> DeliveryId {
    DeliveryId::from_u64(unsigned(number))
}

/// Returns the number of an endpoint's row.
pub(crate) fn endpoint(number: EndpointNumber) -> i64 {
    integer(number.as_u64())
}

pub(crate) fn endpoint_number(number: i64) -> EndpointNumber {
    EndpointNumber::from_u64(unsigned(number))
}

/// Returns a number as a signed one, since SQLite has no others. One that does not fit becomes the
/// largest.
pub(crate) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Returns a duration as a number of microseconds.
pub(crate) fn span(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Returns a size or a limit as an integer of SQLite.
pub(crate) fn count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// The id of an event as a column: the 16 bytes of a UUID, or the publisher's text.
pub(crate) struct EventKey<'e>(pub(crate) &'e EventId);

impl rusqlite::ToSql for EventKey<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.0.as_uuid_bytes() {
            Some(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
            None => ToSqlOutput::from(self.0.to_string()),
        })
    }
}

/// Reads the id of an event.
pub(crate) fn event_id(row: &Row<'_>, column: usize) -> rusqlite::Result<EventId> {
    let found = match row.get_ref(column)? {
        ValueRef::Blob(bytes) => bytes.try_into().ok().map(EventId::from_uuid_bytes),
        ValueRef::Text(text) => {
            std::str::from_utf8(text).ok().and_then(|text| EventId::new(text).ok())
        }
        _ => None,
    };
    found.ok_or_else(|| BadRow::of("the id of an event").in_column(column))
}

pub(crate) fn tenant(row: &Row<'_>, column: usize) -> rusqlite::Result<TenantId> {
    let text: String = row.get(column)?;
    TenantId::new(&text).map_err(|_why| BadRow::of("the tenant of an event").in_column(column))
}

pub(crate) fn event_type(row: &Row<'_>, column: usize) -> rusqlite::Result<EventType> {
    let text: String = row.get(column)?;
    EventType::new(&text).map_err(|_why| BadRow::of("the type of an event").in_column(column))
}

/// Reads an event from five columns: id, tenant, type, body, trace.
pub(crate) fn event(row: &Row<'_>, first: usize) -> rusqlite::Result<SerializedEvent> {
    let body: String = row.get(first + 3)?;
    let (id, tenant) = (event_id(row, first)?, tenant(row, first + 1)?);
    let event = SerializedEvent::claimed(id, event_type(row, first + 2)?, tenant, body.into());
    Ok(SerializedEvent { trace: trace(row, first + 4)?, ..event })
}

/// Reads the place of an event in a trace. A text that is none is left out.
pub(crate) fn trace(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<TraceContext>> {
    Ok(row.get_ref(column)?.as_str_or_null()?.and_then(TraceContext::from_stored))
}

/// Returns a list as a column: a JSON array; `None` if it is empty.
pub(crate) fn list<T: serde::Serialize>(list: &[T]) -> rusqlite::Result<Option<String>> {
    if list.is_empty() { Ok(None) } else { json(list).map(Some) }
}

/// Returns a value as a column of JSON.
pub(crate) fn json<T: serde::Serialize + ?Sized>(value: &T) -> rusqlite::Result<String> {
    let failed = |error: serde_json::Error| rusqlite::Error::ToSqlConversionFailure(error.into());
    serde_json::to_string(value).map_err(failed)
}

/// Reads a list, which may be missing.
pub(crate) fn read_list<T: serde::de::DeserializeOwned>(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<Option<Vec<T>>> {
    let Some(text) = row.get_ref(column)?.as_str_or_null()? else { return Ok(None) };
    let list = serde_json::from_str(text);
    list.map(Some).map_err(|_shows_text| BadRow::of("a list of an event").in_column(column))
}

/// Reads a time, which may be missing.
pub(crate) fn time_or_null(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(time))
}

/// Reads the id of an endpoint.
pub(crate) fn endpoint_id(row: &Row<'_>, column: usize) -> rusqlite::Result<EndpointId> {
    let text: String = row.get(column)?;
    EndpointId::new(&text).map_err(|_why| BadRow::of("the id of an endpoint").in_column(column))
}

/// Reads the progress of a delivery from three columns: queued at, attempts, attempts before the
/// replay.
pub(crate) fn progress(row: &Row<'_>, first: usize) -> rusqlite::Result<Progress> {
    Ok(Progress {
        queued_at: time(row.get(first)?),
        attempts: row.get(first + 1)?,
        attempts_before_replay: row.get(first + 2)?,
    })
}

/// A body as text. It is JSON, so it is not checked again for valid UTF-8.
pub(crate) struct Json<'b>(pub(crate) &'b [u8]);

impl rusqlite::ToSql for Json<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0)))
    }
}
