//! Times of the command line: of the wall clock, or an age.

use webhooks_core::Timestamp;

/// Reads a time such as `2026-11-30T09:00:00Z`, or an age such as `2h`.
pub(crate) fn past(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let age =
        humantime::parse_duration(text).map_err(|_no_duration| expected("2h for two hours ago"))?;
    Ok(Timestamp::now().saturating_sub(age))
}

/// Reads a time such as `2026-11-30T09:00:00Z`, or a delay such as `2h`.
pub(crate) fn future(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let delay =
        humantime::parse_duration(text).map_err(|_no_duration| expected("2h for in two hours"))?;
    Ok(Timestamp::now() + delay)
}

fn expected(example: &str) -> String {
    format!("write a time such as 2026-11-30T09:00:00Z, or {example}")
}
