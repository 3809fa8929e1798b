//! Times and versions as columns of SQL, which has no unsigned numbers.

use webhooks_core::Timestamp;

/// Returns the microseconds since 1970.
pub(crate) fn micros(time: Timestamp) -> i64 {
    signed(time.as_unix_microseconds())
}

/// Returns the time that is these microseconds after 1970.
pub(crate) fn at(micros: i64) -> Timestamp {
    Timestamp::from_unix_microseconds(unsigned(micros))
}

pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
