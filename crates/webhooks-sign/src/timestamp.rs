//! Parsing of timestamps.

use crate::Error;
use crate::grammar::TimestampFormat;

/// Returns the Unix seconds that a timestamp stands for.
#[inline]
pub(crate) fn parse(text: &[u8], format: TimestampFormat) -> Result<u64, Error> {
    let seconds = match format {
        TimestampFormat::Seconds => decimal(text),
        TimestampFormat::Milliseconds => decimal(text).and_then(|number| number.checked_div(1000)),
        TimestampFormat::Rfc3339 => rfc3339(text),
    };
    seconds.ok_or(Error::InvalidTimestamp { expected: format })
}

/// Reads canonical digits only, without a sign or a leading zero: so the number, when written again,
/// gives the same signed bytes as the text that was received.
#[inline]
fn decimal(text: &[u8]) -> Option<u64> {
    if let [b'0', _, ..] = text { None } else { digits(text) }
}

/// Reads one digit or more.
#[inline]
fn digits(text: &[u8]) -> Option<u64> {
    // 19 digits never overflow; more would lie beyond the year 300,000,000,000.
    if !(1..=19).contains(&text.len()) {
        return None;
    }
    let (number, largest) = text.iter().fold((0_u64, 0), |(number, largest), byte| {
        let digit = byte.wrapping_sub(b'0');
        (number.wrapping_mul(10).wrapping_add(u64::from(digit)), digit.max(largest))
    });
    (largest < 10).then_some(number)
}

/// Reads `YYYY-MM-DDTHH:MM:SS[.fraction]` and `Z` or an offset (RFC 3339 §5.6), from 1970 on.
fn rfc3339(text: &[u8]) -> Option<u64> {
    let (date, rest) = text.split_first_chunk::<19>()?;
    let [y1, y2, y3, y4, b'-', mo1, mo2, b'-', d1, d2, b'T', h1, h2, b':', m1, m2, b':', s1, s2] =
        *date
    else {
        return None;
    };
    let (fraction, zone) = match rest.strip_suffix(b"Z") {
        Some(fraction) => (fraction, b"+00:00"),
        None => rest.split_last_chunk::<6>()?,
    };
    let offset = offset(*zone)?;
    if let [dot, places @ ..] = fraction
        && (*dot != b'.' || places.is_empty() || !places.iter().all(u8::is_ascii_digit))
    {
        return None;
    }
    let year = digits(&[y1, y2, y3, y4])?;
    let (month, day) = (digits(&[mo1, mo2])?, digits(&[d1, d2])?);
    let (hour, minute, second) = (digits(&[h1, h2])?, digits(&[m1, m2])?, digits(&[s1, s2])?);
    let is_in_range = year >= 1970
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    let local = is_in_range.then(|| seconds([year, month, day], [hour, minute, second]))?;
    local.checked_add_signed(offset)
}

/// Reads `+HH:MM` or `-HH:MM`, and returns the seconds to add to get UTC.
fn offset(zone: [u8; 6]) -> Option<i64> {
    let [sign, h1, h2, b':', m1, m2] = zone else { return None };
    let (hours, minutes) = (digits(&[h1, h2])?, digits(&[m1, m2])?);
    let ahead =
        i64::try_from(hours.checked_mul(60)?.checked_add(minutes)?.checked_mul(60)?).ok()?;
    match sign {
        _ if hours > 23 || minutes > 59 => None,
        b'+' => ahead.checked_neg(),
        b'-' => Some(ahead),
        _ => None,
    }
}

/// Counts days as Howard Hinnant's `days_from_civil` does: years begin in March, so that the day
/// that leap years add is their last.
#[expect(clippy::arithmetic_side_effects, reason = "years from 1970 to 9999: nothing overflows")]
fn seconds([year, month, day]: [u64; 3], [hour, minute, second]: [u64; 3]) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468;
    ((days * 24 + hour) * 60 + minute) * 60 + second
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(format: TimestampFormat, text: &str, expected: Option<u64>) {
        assert_eq!(parse(text.as_bytes(), format).ok(), expected, "{text:?}");
    }

    #[test]
    fn rfc3339_is_read_in_utc_and_with_an_offset() {
        let check = |text, expected| check(TimestampFormat::Rfc3339, text, expected);
        check("1970-01-01T00:00:00Z", Some(0));
        check("2000-02-29T23:59:59Z", Some(951_868_799));
        check("2019-11-16T10:11:12.634234626Z", Some(1_573_899_072));
        check("2100-03-01T00:00:00Z", Some(4_107_542_400));
        check("9999-12-31T23:59:59Z", Some(253_402_300_799));
        // Box's, in `vectors/providers.json`.
        check("2020-01-01T00:00:00-07:00", Some(1_577_862_000));
        check("2021-01-01T00:00:00.25+05:30", Some(1_609_439_400));
        check("1970-01-01T00:00:00-00:00", Some(0));
        for text in [
            "",
            "1969-12-31T23:59:59Z",
            "2021-13-01T00:00:00Z",
            "2021-01-00T00:00:00Z",
            "2021-01-01T24:00:00Z",
            "2021-01-01 00:00:00Z",
            "2021-01-01T00:00:00",
            "2021-01-01T00:00:00+0000",
            "2021-01-01T00:00:00+24:00",
            "2021-01-01T00:00:00+00:60",
            "2021-01-01T00:00:00 00:00",
            "2021-01-01T00:00:00Z+00:00",
            "2021-01-01T00:00:00.+00:00",
            "1970-01-01T00:00:00+00:01",
            "2021-01-01T00:00:00.Z",
            "2021-01-01T00:00:00.5xZ",
            "+021-01-01T00:00:00Z",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn seconds_are_digits_without_a_leading_zero() {
        let check = |text, expected| check(TimestampFormat::Seconds, text, expected);
        check("0", Some(0));
        check("1767225600", Some(1_767_225_600));
        check("9999999999999999999", Some(9_999_999_999_999_999_999));
        for text in ["", "00", "01", "+1", "-1", "1 ", "1/", "1:", "1.5", "10000000000000000000"] {
            check(text, None);
        }
    }

    #[test]
    fn milliseconds_are_cut_to_seconds() {
        check(TimestampFormat::Milliseconds, "1752613922216", Some(1_752_613_922));
        check(TimestampFormat::Milliseconds, "1.5", None);
    }
}
