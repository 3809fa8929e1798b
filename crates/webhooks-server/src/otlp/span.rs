//! Spans, and their form on the wire: OpenTelemetry Protocol 1.x, `trace.proto`, `common.proto` and
//! `resource.proto`. The numbers of fields are those of these files.

use std::fmt;

use webhooks_core::{Timestamp, TraceContext};

use super::protobuf::Message;

/// The id of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TraceId(u128);

/// The id of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SpanId(u64);

impl TraceId {
    pub(super) fn random() -> Self {
        Self(fastrand::u128(1..))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Returns the ids of the trace and of the parent in a context, which has both.
pub(super) fn ids(context: &TraceContext) -> Option<(TraceId, SpanId)> {
    let trace = u128::from_str_radix(context.trace_id(), 16).ok()?;
    Some((TraceId(trace), SpanId(u64::from_str_radix(context.parent_id(), 16).ok()?)))
}

/// `SpanKind`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Server = 2,
    Client = 3,
}

/// The value of an attribute.
#[derive(Debug)]
pub(super) enum Value {
    Text(String),
    Number(u64),
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

#[derive(Debug)]
pub(super) struct Span {
    pub(super) trace_id: TraceId,
    pub(super) id: SpanId,
    parent: Option<SpanId>,
    /// The `tracestate`.
    pub(super) state: Option<String>,
    name: &'static str,
    kind: Kind,
    pub(super) started_at: Timestamp,
    pub(super) ended_at: Timestamp,
    attributes: Vec<(&'static str, Value)>,
    pub(super) error: Option<String>,
    pub(super) is_accepted: bool,
}

impl Span {
    pub(super) fn new(
        trace_id: TraceId,
        parent: Option<SpanId>,
        name: &'static str,
        kind: Kind,
        started_at: Timestamp,
    ) -> Self {
        Self {
            trace_id,
            id: SpanId(fastrand::u64(1..)),
            parent,
            state: None,
            name,
            kind,
            started_at,
            ended_at: started_at,
            attributes: Vec::new(),
            error: None,
            is_accepted: false,
        }
    }

    pub(super) fn add(&mut self, name: &'static str, value: impl Into<Value>) {
        self.attributes.push((name, value.into()));
    }

    /// Writes a `Span`.
    fn write(&self, message: &mut Message) {
        /// `STATUS_CODE_ERROR`.
        const ERROR: u64 = 2;
        let nanoseconds = |time: Timestamp| time.as_unix_microseconds().saturating_mul(1_000);
        message.bytes(1, &self.trace_id.0.to_be_bytes());
        message.bytes(2, &self.id.0.to_be_bytes());
        message.bytes(3, self.state.as_deref().unwrap_or_default().as_bytes());
        if let Some(parent) = self.parent {
            message.bytes(4, &parent.0.to_be_bytes());
        }
        message.bytes(5, self.name.as_bytes());
        message.number(6, self.kind as u64);
        message.fixed_64(7, nanoseconds(self.started_at));
        message.fixed_64(8, nanoseconds(self.ended_at));
        for (name, value) in &self.attributes {
            message.message(9, |message| write_attribute(message, name, value));
        }
        if let Some(error) = &self.error {
            message.message(15, |message| {
                message.bytes(2, error.as_bytes());
                message.number(3, ERROR);
            });
        }
    }
}

/// Writes a `KeyValue`.
fn write_attribute(message: &mut Message, name: &str, value: &Value) {
    message.bytes(1, name.as_bytes());
    message.message(2, |message| match value {
        // An empty text is left out, which reads as no value at all.
        Value::Text(text) => message.bytes(1, text.as_bytes()),
        Value::Number(number) => message.chosen_number(3, *number),
    });
}

/// Returns an `ExportTraceServiceRequest`.
pub(super) fn request(service_name: &str, spans: &[Span]) -> Vec<u8> {
    let mut request = Message::default();
    request.message(1, |resource_spans| {
        resource_spans.message(1, |resource| {
            let name = Value::Text(service_name.to_owned());
            resource.message(1, |message| write_attribute(message, "service.name", &name));
        });
        resource_spans.message(2, |scope_spans| {
            scope_spans.message(1, |scope| {
                scope.bytes(1, env!("CARGO_PKG_NAME").as_bytes());
                scope.bytes(2, env!("CARGO_PKG_VERSION").as_bytes());
            });
            for span in spans {
                scope_spans.message(2, |message| span.write(message));
            }
        });
    });
    request.0
}
