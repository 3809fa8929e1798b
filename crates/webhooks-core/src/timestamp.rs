//! Points in time, in UTC.

use std::fmt;
use std::ops::Add;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use jiff::SignedDuration;
use jiff::civil::{DateTime, date};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::excerpt;

/// The end of the year 9999 in microseconds since 1970: the last that RFC 3339 can write.
const MAX_MICROSECONDS: u64 = 253_402_300_799_999_999;

/// The start of 1970, without a time zone. `jiff::Timestamp` cannot replace it: it ends a day before
/// the year 9999 does, so that every time zone can show it.
const EPOCH: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);

/// The longest text that is parsed, in bytes: `2026-01-01T00:00:00.123456789+00:00`.
const MAX_LEN: usize = 35;

/// A point in time, in UTC, to the microsecond, from 1970 to 9999.
///
/// Its text is RFC 3339 (a profile of ISO 8601) with as many fractional digits as are needed, up
/// to six. Arithmetic saturates at both ends of the range.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use webhooks_core::Timestamp;
///
/// let at: Timestamp = "2026-01-01T00:00:00Z".parse()?;
/// assert_eq!((at + Duration::from_millis(1500)).to_string(), "2026-01-01T00:00:01.5Z");
/// assert_eq!(at.as_unix_seconds(), 1_767_225_600);
/// # Ok::<(), webhooks_core::TimestampError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    microseconds: u64,
}

/// The error of a text that is not an RFC 3339 timestamp between 1970 and 9999.
#[derive(Debug, Clone, Error)]
#[error("{text:?} is not an RFC 3339 timestamp between 1970 and 9999")]
pub struct TimestampError {
    text: String,
    #[source]
    source: Option<jiff::Error>,
}

impl Timestamp {
    /// The first moment of 1970.
    pub const UNIX_EPOCH: Self = Self { microseconds: 0 };

    /// Returns the time of the system's clock.
    ///
    /// Decisions never call this: they take `now` as an argument.
    #[expect(clippy::disallowed_methods, reason = "this crate's reading of the system's clock")]
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// Returns the time `microseconds` after the start of 1970.
    pub fn from_unix_microseconds(microseconds: u64) -> Self {
        Self { microseconds: microseconds.min(MAX_MICROSECONDS) }
    }

    /// Returns the time `seconds` after the start of 1970.
    pub fn from_unix_seconds(seconds: u64) -> Self {
        Self::from_unix_microseconds(seconds.saturating_mul(1_000_000))
    }

    /// Returns the microseconds since the start of 1970.
    pub fn as_unix_microseconds(self) -> u64 {
        self.microseconds
    }

    /// Returns the whole seconds since the start of 1970, the form of `webhook-timestamp`.
    pub fn as_unix_seconds(self) -> u64 {
        self.microseconds / 1_000_000
    }

    /// Returns the time from `earlier` to this one; zero if `earlier` is later.
    #[must_use]
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.microseconds.saturating_sub(earlier.microseconds))
    }

    /// Returns the time `duration` before this one, at least the start of the range.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        let microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self { microseconds: self.microseconds.saturating_sub(microseconds) }
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    /// Returns the time `duration` after this one, at most the end of the range.
    fn add(self, duration: Duration) -> Self {
        let microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self::from_unix_microseconds(self.microseconds.saturating_add(microseconds))
    }
}

impl From<SystemTime> for Timestamp {
    /// Converts the time; one before 1970 becomes the start of 1970.
    fn from(time: SystemTime) -> Self {
        Self::UNIX_EPOCH + time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since =
            SignedDuration::from_micros(i64::try_from(self.microseconds).unwrap_or(i64::MAX));
        match EPOCH.checked_add(since) {
            Ok(utc) => write!(f, "{utc}Z"),
            Err(_) => Err(fmt::Error),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    /// Parses RFC 3339 §5.6, `date-time`, with at most nine fractional digits, of which those past
    /// the microsecond are cut.
    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let error = |source| TimestampError { text: excerpt(text), source };
        let (local, ahead) = split(text).ok_or_else(|| error(None))?;
        let local: DateTime = local.parse().map_err(|source| error(Some(source)))?;
        let microseconds = u64::try_from((local.duration_since(EPOCH) - ahead).as_micros());
        match microseconds {
            Ok(microseconds) if microseconds <= MAX_MICROSECONDS => Ok(Self { microseconds }),
            _ => Err(error(None)),
        }
    }
}

/// Returns the local date and time of a `date-time`, and how far it is ahead of UTC.
fn split(text: &str) -> Option<(&str, SignedDuration)> {
    if !is_date_time(text) {
        return None;
    }
    if let Some(local) = text.strip_suffix(['Z', 'z']) {
        return Some((local, SignedDuration::ZERO));
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    // RFC 3339 §5.6: `time-hour` and `time-minute`.
    if hours > 23 || minutes > 59 {
        return None;
    }
    let ahead = SignedDuration::from_mins(hours * 60 + minutes);
    Some((local, if offset.starts_with('-') { -ahead } else { ahead }))
}

/// Returns whether a text has the form of `date-time`. jiff takes more: a space for `T`, times
/// without seconds, and the name of a zone, however long, in brackets.
fn is_date_time(text: &str) -> bool {
    if text.len() > MAX_LEN {
        return false;
    }
    let form = |c: char| if c.is_ascii_digit() { '0' } else { c.to_ascii_uppercase() };
    let form: String = text.chars().map(form).collect();
    let Some(rest) = form.strip_prefix("0000-00-00T00:00:00") else { return false };
    let offset = match rest.strip_prefix(".0") {
        Some(fraction) => fraction.trim_start_matches('0'),
        None => rest,
    };
    matches!(offset, "Z" | "+00:00" | "-00:00")
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_end_of_the_range_can_be_written_and_is_never_passed() {
        let end = Timestamp::from_unix_microseconds(u64::MAX);
        assert_eq!(end, end + Duration::MAX);
        assert_eq!(end, end.to_string().parse().unwrap());
        assert_eq!(end.to_string(), "9999-12-31T23:59:59.999999Z");
        for text in ["9999-12-31T23:59:59Z", "9999-12-31T22:59:59-01:00"] {
            assert_eq!(text.parse::<Timestamp>().unwrap().as_unix_seconds(), 253_402_300_799);
        }
    }

    #[test]
    fn texts_that_are_no_timestamp_are_refused() {
        for text in [
            "",
            "now",
            "2026-01-01",
            "2026-13-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "9999-12-31T23:59:59-00:01",
            "1970-01-01T00:59:59+01:00",
            "2026-02-29T00:00:00Z",
            "2026-01-01T24:00:00Z",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn texts_of_rfc_3339_and_no_others_are_taken() {
        for text in [
            "2026-01-01T00:00:00Z",
            "2026-01-01t00:00:00z",
            "2026-01-01T02:30:00+02:30",
            "2025-12-31T23:59:00-00:01",
            "2026-01-01T23:59:00+23:59",
            "2026-01-01T00:00:00-00:00",
            "2026-01-01T00:00:00.000000999Z",
        ] {
            let parsed: Timestamp = text.parse().unwrap();
            assert_eq!(parsed.as_unix_microseconds(), 1_767_225_600_000_000, "{text:?}");
        }
        for text in [
            "2026-01-01 00:00:00Z",
            "2026-01-01T00:00Z",
            "20260101T000000Z",
            "2026-01-01T00:00:00,5Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00.0000000000Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00+24:00",
            "2026-01-01T00:00:00+00:60",
            "2026-01-01T00:00:00+02",
            "2026-01-01T00:00:00+0200",
            "2026-01-01T00:00:00+00:00:00",
            "2026-01-01T00:00:00Z[UTC]",
            "2026-01-01T01:00:00+01:00[Europe/Paris]",
            "+002026-01-01T00:00:00Z",
            " 2026-01-01T00:00:00Z",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_error_keeps_the_start_of_a_long_text_alone() {
        let digits = "0".repeat(1000);
        let error = format!("2026-01-01T00:00:00.{digits}Z").parse::<Timestamp>().unwrap_err();
        let shown = format!("{error:?} {error}");
        assert!(shown.contains("\"2026-01-01T00:00:00.000") && shown.len() < 300, "{shown}");
    }

    proptest! {
        #[test]
        fn text_and_back_is_the_same_time(microseconds in 0..=MAX_MICROSECONDS) {
            let timestamp = Timestamp::from_unix_microseconds(microseconds);
            prop_assert_eq!(timestamp, timestamp.to_string().parse().unwrap());
        }
    }
}
