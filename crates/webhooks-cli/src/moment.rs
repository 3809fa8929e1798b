//! Times of the command line: of the wall clock, or an age.

use std::time::Duration;

use webhooks_core::Timestamp;

/// Reads a time such as `2026-11-30T09:00:00Z`, or an age such as `2h`.
pub(crate) fn past(text: &str) -> Result<Timestamp, String> {
    read(text, "2h for two hours ago", |age| Timestamp::now().saturating_sub(age))
}

/// Reads a time such as `2026-11-30T09:00:00Z`, or a delay such as `2h`. It must not be over.
pub(crate) fn future(text: &str) -> Result<Timestamp, String> {
    let time = read(text, "2h for in two hours", |delay| Timestamp::now() + delay)?;
    if time < Timestamp::now().saturating_sub(Duration::from_secs(1)) {
        return Err("this time is over".to_owned());
    }
    Ok(time)
}

fn read(
    text: &str,
    example: &str,
    from_now: impl Fn(Duration) -> Timestamp,
) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let duration = humantime::parse_duration(text);
    let expected =
        |_no_duration| format!("write a time such as 2026-11-30T09:00:00Z, or {example}");
    duration.map(from_now).map_err(expected)
}
