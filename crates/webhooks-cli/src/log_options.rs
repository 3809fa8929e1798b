//! The log of the service, and the spans that it exports.

use std::time::Duration;

use clap::{Args, ValueEnum};
use webhooks_server::otlp::{OtlpSettings, SpanExporter};
use webhooks_server::telemetry::{LogFormat, install};

use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::secret;

/// The longest time for the last spans.
const FLUSH: Duration = Duration::from_secs(5);

/// The options for logs and spans.
#[derive(Debug, Args)]
pub(crate) struct LogOptions {
    /// Form of the log on standard error
    #[arg(long, env = "WEBHOOKS_LOG", value_name = "FORM", default_value = "pretty")]
    log: LogForm,
    /// Least level of the log, such as info or debug; levels by target are possible
    #[arg(long, env = "WEBHOOKS_LOG_LEVEL", value_name = "LEVELS", default_value = "info")]
    log_level: String,
    /// URL of an OpenTelemetry collector for spans, such as <http://127.0.0.1:4318/v1/traces>
    #[arg(long, env = "WEBHOOKS_OTLP_URL", value_name = "URL")]
    otlp_url: Option<String>,
    /// Header for the collector, as NAME=VALUE: @FILE; may be given several times
    #[arg(long, env = "WEBHOOKS_OTLP_HEADER", value_name = "@FILE", hide_env_values = true)]
    otlp_header: Vec<String>,
}

/// The forms of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogForm {
    /// Lines for people
    Pretty,
    /// One JSON object per line
    Json,
}

impl LogOptions {
    /// Starts the log of the process. `name` returns the name of a setting in errors, by its option.
    pub(crate) fn install(&self, name: &dyn Fn(&str) -> String) -> Result<(), Failure> {
        let format = match self.log {
            LogForm::Pretty => LogFormat::Pretty,
            LogForm::Json => LogFormat::Json,
        };
        install(format, &self.log_level).map_err(|error| {
            Failure::usage(format!("{} is refused", name("log-level"))).because(error)
        })
    }

    /// Returns what exports spans, if there is a collector. `name` returns the name of a setting in errors.
    pub(crate) fn settings(
        &self,
        name: &dyn Fn(&str) -> String,
    ) -> Result<Option<OtlpSettings>, Failure> {
        let Some(url) = &self.otlp_url else { return Ok(None) };
        let refused = |option| {
            let text = format!("{} is refused", name(option));
            move |error| Failure::usage(text).because(error)
        };
        let mut settings = OtlpSettings::new(url).map_err(refused("otlp-url"))?;
        for text in &self.otlp_header {
            let header = secret::read(&name("otlp-header"), text)?;
            settings = settings.header(&header).map_err(refused("otlp-header"))?;
        }
        Ok(Some(settings))
    }

    /// Returns the values of settings that should not stand on the command line, by option.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = (&'static str, &String)> {
        self.otlp_header.iter().map(|text| ("otlp-header", text))
    }

    /// Warns people of something; in the form of the log if programs read it.
    pub(crate) fn warn(&self, text: &str) {
        match self.log {
            LogForm::Pretty => Output::warn(text),
            LogForm::Json => tracing::warn!("{text}"),
        }
    }

    /// Returns whether programs read the log.
    pub(crate) fn is_json(&self) -> bool {
        self.log == LogForm::Json
    }

    /// Tells people something; in the form of the log if programs read it.
    pub(crate) fn tell(&self, output: Output, text: &str) {
        match self.log {
            LogForm::Pretty => output.note(text),
            LogForm::Json => tracing::info!("{text}"),
        }
    }
}

/// Starts the export of spans.
pub(crate) fn start(settings: OtlpSettings) -> Result<SpanExporter, Failure> {
    SpanExporter::start(settings)
        .map_err(|error| Failure::new(Exit::Failed, "cannot export spans").because(error))
}

/// Exports the last spans, unless the collector is slow or gone.
pub(crate) async fn flush(spans: Option<SpanExporter>) {
    if let Some(spans) = spans
        && !spans.shutdown(FLUSH).await
    {
        tracing::warn!(lost = spans.lost(), "spans were lost: the collector is slow or gone");
    }
}
