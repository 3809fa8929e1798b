//! Timestamps that are too old, too new, or in another form.

use webhooks_sign::Error;
use webhooks_sign::scheme::{TimestampFormat, TimestampSource};

use super::Search;
use crate::diagnosis::finding::{Cause, Finding};

/// The lead or age in seconds beyond which a timestamp is in another unit: fifty years.
const OTHER_UNIT: u64 = 50 * 365 * 24 * 60 * 60;

impl Search<'_> {
    /// Explains a timestamp that does not have its form.
    pub(super) fn timestamp_form(&mut self, expected: TimestampFormat) -> Option<Finding> {
        if let Some(finding) = self.swapped_headers() {
            return Some(finding);
        }
        let source = self.scheme.timestamp_source()?;
        let formats =
            [TimestampFormat::Seconds, TimestampFormat::Milliseconds, TimestampFormat::Rfc3339];
        for format in formats {
            let source = match source {
                TimestampSource::Field(name, _) => TimestampSource::Field(name, format),
                TimestampSource::Header(name, _) => TimestampSource::Header(name, format),
                _ => return None,
            };
            let scheme = self.scheme.customized().timestamp(source).dangerous_joined_parts();
            let Ok(scheme) = scheme.build() else { continue };
            let fits = self.fits_plainly(&scheme, self.case.head, self.case.body);
            if self.note(format!("the timestamp as {format}"), fits) {
                return Some(Finding::new(
                    Cause::TimestampForm,
                    format!("the timestamp is signed as {format}; the scheme has {expected}"),
                    "the sender must write the time in the scheme's form",
                ));
            }
        }
        let advice = "the sender must write the time in the scheme's form";
        let text = format!("the timestamp is malformed: expected {expected}");
        Some(Finding::new(Cause::TimestampForm, text, advice))
    }

    /// Explains a timestamp that is too old or too new.
    pub(super) fn stale(&mut self, error: Error) -> Option<Finding> {
        let fits = self.fits_plainly(&self.scheme, self.case.head, self.case.body);
        self.note("the signature, without regard to the time", fits);
        if !fits && let Some(finding) = self.mismatch() {
            let text = format!("{}; and {error}", finding.text);
            return Some(Finding { text, ..finding });
        }
        let also = if fits { "the signature fits" } else { "the signature does not fit either" };
        let (difference, cause) = match error {
            Error::TimestampTooOld { age, .. } => (age, Cause::TimestampOld),
            Error::TimestampTooNew { lead, .. } => (lead, Cause::TimestampNew),
            _ => return None,
        };
        if difference > OTHER_UNIT {
            let unit = match cause {
                Cause::TimestampNew => "milliseconds in place of seconds",
                _ => "seconds in place of milliseconds",
            };
            return Some(Finding::new(
                Cause::TimestampUnit,
                format!("the timestamp is in {unit}; {also}"),
                "the sender must write the time in the unit of the scheme",
            ));
        }
        let advice = match (cause, zone(difference)) {
            (_, Some(zone)) => format!(
                "the difference is {zone}: one side may take local time for UTC. Otherwise compare the clocks, and look for a queue before the receiver"
            ),
            (Cause::TimestampNew, None) => "compare the clocks of both machines".to_owned(),
            _ => "an old request was sent again, a clock is wrong, or a queue delays it: --at names another time, --tolerance another tolerance".to_owned(),
        };
        Some(Finding::new(cause, format!("{error}; {also}"), advice))
    }

    /// Tries the timestamp in the other unit.
    pub(super) fn timestamp_units(&mut self) -> Option<Finding> {
        let TimestampSource::Header(name, _) = self.scheme.timestamp_source()? else { return None };
        let time: u64 = str::from_utf8(self.value(name)).ok()?.parse().ok()?;
        let times = [time.checked_mul(1000), time.checked_div(1000)];
        let fits = times.into_iter().flatten().any(|time| {
            let head = self.head_with(name, time.to_string().as_bytes());
            head.is_some_and(|head| self.fits_plainly(&self.scheme, &head, self.case.body))
        });
        self.note("the timestamp in seconds or milliseconds", fits).then(|| {
            Finding::new(
                Cause::TimestampUnit,
                format!("the time is signed in another unit than {name} has"),
                "the sender must sign the text of the header, in the unit of the scheme",
            )
        })
    }
}

/// Returns the difference of two zones that a number of seconds may be, with a minute for the way.
fn zone(difference: u64) -> Option<String> {
    let halves = difference.saturating_add(60) / 1800;
    let is_near = (difference.saturating_add(60) % 1800) <= 120;
    (is_near && (1..=28).contains(&halves)).then(|| {
        let (hours, half) = (halves / 2, if halves % 2 == 1 { ".5" } else { "" });
        format!("about {hours}{half} h")
    })
}
