//! Values in rows: how they are written and read.

use std::time::Duration;

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgRow, PgTypeInfo, PgValueRef, Postgres};
use sqlx::{Decode, Encode, Row as _, Type};
use webhooks_core::{
    Channel, DeliveryId, EndpointId, EventId, EventType, TenantId, Timestamp, TraceContext,
};
use webhooks_dispatch::store::{Claim, Progress, SerializedEvent};
use webhooks_registry::EndpointNumber;

use crate::error::BadRow;

/// The epoch of PostgreSQL, the start of 2000, in microseconds since the start of 1970.
const YEAR_2000: i64 = 946_684_800_000_000;

/// A time as a `timestamptz`. Both count microseconds, so nothing is rounded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At(pub(crate) Timestamp);

impl Type<Postgres> for At {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1184))
    }
}

impl PgHasArrayType for At {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1185))
    }
}

impl Encode<'_, Postgres> for At {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let microseconds = int8(self.0.as_unix_microseconds()) - YEAR_2000;
        buffer.extend_from_slice(&microseconds.to_be_bytes());
        Ok(IsNull::No)
    }
}

impl Decode<'_, Postgres> for At {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        let bytes: [u8; 8] = value.as_bytes()?.try_into()?;
        let microseconds = i64::from_be_bytes(bytes).saturating_add(YEAR_2000);
        Ok(Self(Timestamp::from_unix_microseconds(unsigned(microseconds))))
    }
}

/// Returns the id of a delivery as PostgreSQL stores it.
pub(crate) fn delivery_int8(delivery: DeliveryId) -> i64 {
    int8(delivery.as_u64())
}

pub(crate) fn delivery_id(number: i64) -> DeliveryId {
    DeliveryId::from_u64(unsigned(number))
}

pub(crate) fn claim(delivery: i64, token: i64) -> Claim {
    Claim { delivery: delivery_id(delivery), token: unsigned(token) }
}

/// Returns the number of an endpoint's row as PostgreSQL stores it.
pub(crate) fn endpoint_int8(number: EndpointNumber) -> i64 {
    int8(number.as_u64())
}

pub(crate) fn endpoint_number(number: i64) -> EndpointNumber {
    EndpointNumber::from_u64(unsigned(number))
}

/// Replaces the only character that a text of PostgreSQL cannot hold.
pub(crate) fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Returns a duration in microseconds, as intervals are bound.
pub(crate) fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// Returns a number as an `int8`, which is signed; the largest one if it does not fit.
pub(crate) fn int8(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Returns a number as an `int4`; the largest one if it does not fit.
pub(crate) fn int4(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Returns a count, which PostgreSQL stores as a signed number.
pub(crate) fn count(count: i32) -> u32 {
    u32::try_from(count).unwrap_or(0)
}

pub(crate) fn event_id(row: &PgRow, column: usize) -> Result<EventId, sqlx::Error> {
    parsed(row, column, EventId::new, "the id of an event")
}

pub(crate) fn tenant(row: &PgRow, column: usize) -> Result<TenantId, sqlx::Error> {
    parsed(row, column, TenantId::new, "the tenant of an event")
}

pub(crate) fn event_type(row: &PgRow, column: usize) -> Result<EventType, sqlx::Error> {
    parsed(row, column, EventType::new, "the type of an event")
}

/// Reads the channels of an event; NULL is none.
pub(crate) fn channels(row: &PgRow, column: usize) -> Result<Vec<Channel>, sqlx::Error> {
    Ok(list(row, column, Channel::new, "a channel of an event")?.unwrap_or_default())
}

/// Reads a list of texts and parses each. The error does not show the text.
pub(crate) fn list<T, E>(
    row: &PgRow,
    column: usize,
    parse: impl Fn(&str) -> Result<T, E>,
    what: &'static str,
) -> Result<Option<Vec<T>>, sqlx::Error> {
    let texts: Option<Vec<String>> = row.try_get(column)?;
    let parsed = texts.map(|texts| texts.iter().map(|text| parse(text)).collect());
    parsed.transpose().map_err(|_shows_text: E| BadRow::of(what).in_column(column))
}

pub(crate) fn endpoint_id(row: &PgRow, column: usize) -> Result<EndpointId, sqlx::Error> {
    parsed(row, column, EndpointId::new, "the id of an endpoint")
}

/// Reads a text and parses it. The error does not show the text.
pub(crate) fn parsed<T, E>(
    row: &PgRow,
    column: usize,
    parse: impl FnOnce(&str) -> Result<T, E>,
    what: &'static str,
) -> Result<T, sqlx::Error> {
    let text: &str = row.try_get(column)?;
    parse(text).map_err(|_shows_text| BadRow::of(what).in_column(column))
}

/// Reads an event from five columns: id, tenant, type, body, trace.
pub(crate) fn event(row: &PgRow, first: usize) -> Result<SerializedEvent, sqlx::Error> {
    let body: String = row.try_get(first + 3)?;
    let (id, event_type) = (event_id(row, first)?, event_type(row, first + 2)?);
    let event = SerializedEvent::claimed(id, event_type, tenant(row, first + 1)?, body.into());
    Ok(SerializedEvent { trace: trace(row, first + 4)?, ..event })
}

/// Reads the place of an event in a trace. A text that is none is left out.
pub(crate) fn trace(row: &PgRow, column: usize) -> Result<Option<TraceContext>, sqlx::Error> {
    Ok(row.try_get::<Option<&str>, _>(column)?.and_then(TraceContext::from_stored))
}

/// Reads the progress of a delivery from three columns: queued at, attempts, attempts before
/// replay.
pub(crate) fn progress(row: &PgRow, first: usize) -> Result<Progress, sqlx::Error> {
    let At(queued_at) = row.try_get(first)?;
    Ok(Progress {
        queued_at,
        attempts: count(row.try_get(first + 1)?),
        attempts_before_replay: count(row.try_get(first + 2)?),
    })
}
