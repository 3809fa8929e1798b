//! Events of `tracing` as lines of JSON.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;

use serde::Serialize;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::{LookupSpan, Scope};
use webhooks_core::Timestamp;

use crate::error::with_causes;

/// The members that each line has, or may have; a field with such a name gets `_` behind it.
const OWN: [&str; 5] = ["level", "message", "spans", "target", "timestamp"];

/// Formats an event as a line of JSON. The format of tracing-subscriber leaves out the causes of errors.
pub(super) struct JsonLines;

#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    level: String,
    target: &'a str,
    message: Option<Value>,
    #[serde(flatten)]
    fields: BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    spans: Vec<String>,
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Fields { message, fields } = fields;
        let metadata = event.metadata();
        let spans = context.event_scope().into_iter().flat_map(Scope::from_root);
        let spans = spans.map(|span| {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<N>>().filter(|found| !found.is_empty());
            let fields = fields.map(|found| format!("{{{found}}}"));
            format!("{}{}", span.name(), fields.unwrap_or_default())
        });
        let line = Line {
            timestamp: Timestamp::now().to_string(),
            level: metadata.level().as_str().to_ascii_lowercase(),
            target: metadata.target(),
            message,
            fields,
            spans: spans.collect(),
        };
        // All members are texts, numbers and booleans, which always have a form.
        let line = serde_json::to_string(&line).or(Err(fmt::Error))?;
        writeln!(writer, "{line}")
    }
}

/// The fields of an event.
#[derive(Default)]
struct Fields {
    message: Option<Value>,
    fields: BTreeMap<String, Value>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        match field.name() {
            "message" => self.message = Some(value),
            name if OWN.contains(&name) => drop(self.fields.insert(format!("{name}_"), value)),
            name => drop(self.fields.insert(name.to_owned(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.add(field, with_causes(value).into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}").into());
    }
}
