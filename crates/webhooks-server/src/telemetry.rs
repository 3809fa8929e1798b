//! Logs of a program: a subscriber of `tracing` that writes to standard error.

mod json_lines;

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use tracing::Subscriber;
use tracing::subscriber::{SetGlobalDefaultError, set_global_default};
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use webhooks_core::Timestamp;

use self::json_lines::JsonLines;

/// The form of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LogFormat {
    /// One JSON object per line: `timestamp`, `level`, `target`, `message`, and the fields of the event. An
    /// error is a text with its causes.
    Json,
    /// Lines for people.
    #[default]
    Pretty,
}

/// The reason why there is no log.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error("the filter of the log is not like info,webhooks_dispatch=debug")]
    Filter {
        /// The parser's error.
        source: ParseError,
    },
    /// The word is none of a format.
    #[error("a log has the format json or pretty, and not {word:?}")]
    Format {
        /// The word as it was given.
        word: String,
    },
    /// The program has a subscriber.
    #[error("the program has a subscriber of tracing already")]
    Installed {
        /// The error of `tracing`.
        source: SetGlobalDefaultError,
    },
}

impl FromStr for LogFormat {
    type Err = TelemetryError;

    fn from_str(word: &str) -> Result<Self, TelemetryError> {
        match word {
            "json" => Ok(Self::Json),
            "pretty" => Ok(Self::Pretty),
            _ => Err(TelemetryError::Format { word: word.to_owned() }),
        }
    }
}

/// Makes the whole program log to standard error. `filter` has a level, levels of targets, or both:
/// `info,webhooks_dispatch=debug,hyper=off`. A target is that of an event, or the start of one at `::`.
///
/// An engine is logged by a `LogObserver` of webhooks-dispatch (feature `tracing`), which it must have as an
/// observer. No log has a payload, a URL of an endpoint, a key or a secret in it.
///
/// # Errors
/// [`TelemetryError::Filter`] when the filter cannot be read, and [`TelemetryError::Installed`] when the
/// program has a subscriber.
///
/// # Example
/// ```
/// use webhooks_server::telemetry::{LogFormat, install};
///
/// install(LogFormat::Json, "info,webhooks_dispatch=debug")?;
/// tracing::info!(port = 8071, "the service listens");
/// # Ok::<(), webhooks_server::telemetry::TelemetryError>(())
/// ```
pub fn install(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    let subscriber = subscriber(format, filter, std::io::stderr)?;
    set_global_default(subscriber).map_err(|source| TelemetryError::Installed { source })
}

/// Returns the subscriber that [`install`] installs, with a writer of the caller.
///
/// # Errors
/// [`TelemetryError::Filter`] when the filter cannot be read.
pub fn subscriber<W>(
    format: LogFormat,
    filter: &str,
    writer: W,
) -> Result<impl Subscriber + Send + Sync, TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter: Targets = filter.parse().map_err(|source| TelemetryError::Filter { source })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let layer = match format {
        LogFormat::Json => lines.event_format(JsonLines).boxed(),
        LogFormat::Pretty => lines.with_timer(Now).boxed(),
    };
    Ok(tracing_subscriber::registry().with(layer.with_filter(filter)))
}

/// The time of a line.
struct Now;

impl FormatTime for Now {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", Timestamp::now())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};
    use tracing::subscriber::with_default;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, filter: &str, log: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = subscriber(format, filter, move || writer.clone()).unwrap();
        with_default(subscriber, log);
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[derive(Debug, Error)]
    #[error("the outer\n\"one\"")]
    struct Outer(#[source] io::Error);

    fn log() {
        let error = Outer(io::Error::other("the inner one"));
        let error = &error as &dyn std::error::Error;
        let span = tracing::info_span!("request", number = 7);
        let _entered = span.enter();
        tracing::info!(
            target: "webhooks_dispatch", error, text = "a\n\u{1b}b", count = u64::MAX, less = -1,
            part = 0.5, is_so = true, level = "own", shown = %"c", "delivered {}", 1
        );
    }

    #[test]
    fn a_line_of_json_has_all_fields_and_the_causes_of_errors() {
        let text = logged(LogFormat::Json, "info", log);
        assert!(text.ends_with("}\n") && text.lines().count() == 1, "{text}");
        let mut line: Value = serde_json::from_str(&text).unwrap();
        let timestamp = line["timestamp"].take();
        timestamp.as_str().unwrap().parse::<Timestamp>().unwrap();
        let expected = json!({
            "timestamp": null, "level": "info", "target": "webhooks_dispatch",
            "message": "delivered 1", "error": "the outer\n\"one\": the inner one",
            "text": "a\n\u{1b}b", "count": u64::MAX, "less": -1, "part": 0.5, "is_so": true,
            "level_": "own", "shown": "c", "spans": ["request{number=7}"],
        });
        assert_eq!(line, expected);
        assert!(text.starts_with("{\"timestamp\":"), "people see the time first: {text}");
    }

    #[test]
    fn a_line_for_people_has_the_same() {
        let text = logged(LogFormat::Pretty, "info", log);
        for part in ["INFO", "webhooks_dispatch", "delivered 1", "the inner one", "count=184467"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(text.lines().count(), 1 + "\n".len(), "an error of two lines: {text}");
    }

    #[test]
    fn a_filter_has_levels_of_targets() {
        let logs = || {
            tracing::debug!(target: "webhooks_dispatch", "a");
            tracing::debug!(target: "webhooks_server::tell", "b");
            tracing::error!(target: "hyper", "c");
        };
        for (filter, expected) in [
            ("debug", 3),
            ("info", 1),
            ("warn,webhooks_dispatch=debug", 2),
            ("debug,hyper=off", 2),
            ("webhooks_server=trace", 1),
            ("off", 0),
        ] {
            assert_eq!(logged(LogFormat::Json, filter, logs).lines().count(), expected, "{filter}");
        }
        let error = subscriber(LogFormat::Json, "a=loud", io::stderr).err().unwrap();
        assert!(matches!(error, TelemetryError::Filter { .. }), "{error:?}");
        assert_eq!("json".parse::<LogFormat>().unwrap(), LogFormat::Json);
        assert!("JSON".parse::<LogFormat>().is_err());
    }
}
