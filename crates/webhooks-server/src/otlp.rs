//! Spans for OpenTelemetry: requests that publish, and attempts, exported over OTLP.

mod export;
mod protobuf;
mod span;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use webhooks_core::{EventId, TenantId, Timestamp, TraceContext};
use webhooks_dispatch::observer::{DeliveryRef, Failure, Observer, Occurrence};
use webhooks_dispatch::transport::ErrorClass;
use webhooks_http::{AddressPolicy, HttpTransport, HttpTransportError};
use webhooks_registry::{EndpointUrl, EndpointUrlError};

use self::export::{Export, Item};
use self::span::{Kind, Span, TraceId};

/// The spans that may wait for their export. Further ones are lost.
const QUEUE: usize = 8_192;

/// The settings of an export.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OtlpSettings {
    /// The URL of the collector for traces, such as `http://127.0.0.1:4318/v1/traces`.
    pub url: EndpointUrl,
    /// The name of the service in traces; `webhooks` by default.
    pub service_name: String,
    /// Headers of each request to the collector, such as one with a token; they are never logged. With an
    /// `http` URL they are sent in clear.
    pub headers: HeaderMap,
    /// The time for one request to the collector; 10 s by default.
    pub timeout: Duration,
    /// The share of requests without a `traceparent` that begin a trace, from 0 to 1; all by default. For others,
    /// the caller's flag `sampled` decides.
    pub root_share: f64,
}

/// The reason why spans cannot be exported.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OtlpError {
    /// The URL of the collector is none.
    #[error("the URL of the collector is not like http://127.0.0.1:4318/v1/traces")]
    Url {
        /// The parser's error.
        #[from]
        source: EndpointUrlError,
    },
    /// A header is none.
    #[error("a header for the collector has the form name=value")]
    Header,
    /// The HTTP client cannot be set up.
    #[error("cannot set up the HTTP client for the collector")]
    Client {
        /// The client's error.
        #[from]
        source: HttpTransportError,
    },
}

impl OtlpSettings {
    /// Returns the settings for a collector, whose URL is that of its traces.
    ///
    /// # Errors
    /// [`OtlpError::Url`] when the text is no URL.
    pub fn new(url: &str) -> Result<Self, OtlpError> {
        Ok(Self {
            url: EndpointUrl::new(url)?,
            service_name: "webhooks".to_owned(),
            headers: HeaderMap::new(),
            timeout: Duration::from_secs(10),
            root_share: 1.0,
        })
    }

    /// Adds a header of each request, as `name=value`.
    ///
    /// # Errors
    /// [`OtlpError::Header`] when the text has another form.
    pub fn header(mut self, text: &str) -> Result<Self, OtlpError> {
        let (name, value) = text.split_once('=').ok_or(OtlpError::Header)?;
        let name = HeaderName::try_from(name.trim()).or(Err(OtlpError::Header))?;
        let mut value = HeaderValue::try_from(value.trim()).or(Err(OtlpError::Header))?;
        value.set_sensitive(true);
        self.headers.insert(name, value);
        Ok(self)
    }
}

/// Exports spans to a collector: of requests that publish, if the service has it, and of attempts, if the engine
/// has it as an observer. Both are in the trace with which an event was published.
///
/// A request without a `traceparent` begins a trace. Its deliveries, and those of a request with one, have a
/// `traceparent` whose parent is the span of the request, so that receivers go on with the same trace.
///
/// Spans are sent in groups by a task of their own. Nothing waits for the collector: if it is slow or gone, spans are
/// [`lost`](Self::lost), and no event.
///
/// Clones share the queue.
///
/// # Example
/// ```no_run
/// # async fn example(store: webhooks_dispatch::BoxedStore, http: webhooks_http::HttpTransport)
/// # -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use webhooks_dispatch::Engine;
/// use webhooks_server::otlp::{OtlpSettings, SpanExporter};
///
/// let spans = SpanExporter::start(OtlpSettings::new("http://127.0.0.1:4318/v1/traces")?)?;
/// let engine = Engine::builder(store, http).observer(spans.clone()).build();
/// // … and for the service: `service.export_spans(spans.clone())`. At the end:
/// spans.shutdown(Duration::from_secs(5)).await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct SpanExporter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    queue: mpsc::Sender<Item>,
    lost: Arc<AtomicU64>,
    root_share: f64,
}

impl SpanExporter {
    /// Starts a task that exports. It must be called within a runtime.
    ///
    /// # Errors
    /// [`OtlpError::Client`] when the HTTP client cannot be set up.
    pub fn start(settings: OtlpSettings) -> Result<Self, OtlpError> {
        // The URL is the operator's, so it may lead anywhere.
        let everywhere = ["0.0.0.0/0", "::/0"].into_iter().filter_map(|net| net.parse().ok());
        let policy = everywhere.fold(AddressPolicy::public(), AddressPolicy::allow_network);
        let transport = HttpTransport::builder().address_policy(policy).build()?;
        let (queue, items) = mpsc::channel(QUEUE);
        let (lost, root_share) = (Arc::<AtomicU64>::default(), settings.root_share);
        let export = Export::new(settings, transport, Arc::clone(&lost));
        tokio::spawn(export.run(items));
        Ok(Self(Arc::new(Inner { queue, lost, root_share })))
    }

    /// Returns the number of spans that were lost, since the collector was slow or gone.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// Exports the spans that wait, for at most `grace`, and returns whether none was lost meanwhile. Spans that
    /// come later are exported while the program runs.
    ///
    /// # Cancellation
    /// A caller that is dropped leaves the export to its task.
    pub async fn shutdown(&self, grace: Duration) -> bool {
        let (before, (done, all)) = (self.lost(), oneshot::channel());
        let flush = async {
            self.0.queue.send(Item::Flush(done)).await.ok()?;
            all.await.ok()
        };
        let is_flushed = timeout(grace, flush).await.ok().flatten().is_some();
        is_flushed && self.lost() == before
    }

    fn send(&self, span: Span) {
        if self.0.queue.try_send(Item::Span(Box::new(span))).is_err() {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sends the span of an attempt.
    fn attempt(&self, delivery: &DeliveryRef<'_>, attempt: Attempt<'_>) {
        let (Some(trace), Some(started_at)) = (delivery.trace, delivery.started_at) else { return };
        let Some((trace_id, parent)) = span::ids(trace) else { return };
        if !trace.is_sampled() {
            return;
        }
        let mut span = Span::new(trace_id, Some(parent), "deliver", Kind::Client, started_at);
        span.ended_at = started_at + attempt.duration;
        span.state = trace.state().map(str::to_owned);
        span.add("messaging.message.id", delivery.event.to_string());
        span.add("webhooks.tenant", delivery.tenant.to_string());
        span.add("webhooks.endpoint", delivery.endpoint.to_string());
        span.add("webhooks.event_type", delivery.event_type.to_string());
        span.add("webhooks.delivery", delivery.id.to_string());
        span.add("webhooks.attempt", u64::from(delivery.attempt));
        if let Some(status) = attempt.status_code {
            span.add("http.response.status_code", u64::from(status));
        }
        if let Some(class) = attempt.class {
            span.add("error.type", class.as_str().to_owned());
        }
        span.error = attempt.error.map(str::to_owned);
        self.send(span);
    }
}

/// The result of an attempt.
#[derive(Clone, Copy, Default)]
struct Attempt<'a> {
    duration: Duration,
    status_code: Option<u16>,
    class: Option<ErrorClass>,
    error: Option<&'a str>,
}

impl<'a> From<&Failure<'a>> for Attempt<'a> {
    fn from(failure: &Failure<'a>) -> Self {
        let Failure { error, class, status_code, duration, .. } = *failure;
        Self { duration, status_code, class, error: Some(error) }
    }
}

impl Observer for SpanExporter {
    fn observe(&self, occurrence: &Occurrence<'_>) {
        match occurrence {
            Occurrence::Delivered { delivery, duration, status_code, .. } => {
                let (duration, status_code) = (*duration, *status_code);
                self.attempt(delivery, Attempt { duration, status_code, ..Attempt::default() });
            }
            Occurrence::AttemptFailed { delivery, failure, .. }
            | Occurrence::DeliveryFailed { delivery, failure, .. } => {
                self.attempt(delivery, failure.into());
            }
            _ => {}
        }
    }
}

/// The span of a request that publishes. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct PublishSpan {
    exporter: SpanExporter,
    span: Option<Span>,
}

impl PublishSpan {
    /// Begins the span of a request, if it is sampled; returns the context for the messages of the request, whose
    /// parent is the span.
    pub(crate) fn begin(
        exporter: &OnceLock<SpanExporter>,
        caller: Option<TraceContext>,
    ) -> (Option<TraceContext>, Option<Self>) {
        let Some(exporter) = exporter.get() else { return (caller, None) };
        let is_sampled = match &caller {
            Some(caller) => caller.is_sampled(),
            None => fastrand::f64() < exporter.0.root_share,
        };
        if !is_sampled {
            return (caller, None);
        }
        let (trace_id, parent) = match caller.as_ref().and_then(span::ids) {
            Some((trace_id, parent)) => (trace_id, Some(parent)),
            None => (TraceId::random(), None),
        };
        let mut span = Span::new(trace_id, parent, "publish", Kind::Server, Timestamp::now());
        span.state = caller.as_ref().and_then(|caller| caller.state()).map(str::to_owned);
        let traceparent = format!("00-{}-{}-01", span.trace_id, span.id);
        let context = TraceContext::parse(&traceparent, span.state.as_deref());
        (context, Some(Self { exporter: exporter.clone(), span: Some(span) }))
    }

    /// Notes that the messages of the request are accepted. Otherwise the span has an error.
    pub(crate) fn accepted(&mut self, tenant: &TenantId, messages: usize, id: Option<&EventId>) {
        let Some(span) = &mut self.span else { return };
        span.add("webhooks.tenant", tenant.to_string());
        span.add("messaging.batch.message_count", messages as u64);
        if let Some(id) = id {
            span.add("messaging.message.id", id.to_string());
        }
        span.is_accepted = true;
    }
}

impl Drop for PublishSpan {
    fn drop(&mut self) {
        let Some(mut span) = self.span.take() else { return };
        span.ended_at = Timestamp::now().max(span.started_at);
        if !span.is_accepted {
            span.error = Some("the messages were not accepted".to_owned());
        }
        self.exporter.send(span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_loses_spans_and_blocks_nobody() {
        let (queue, _items) = mpsc::channel(1);
        let exporter =
            SpanExporter(Arc::new(Inner { queue, lost: Arc::default(), root_share: 1.0 }));
        let service = OnceLock::from(exporter.clone());
        for lost in [0, 1, 2] {
            let (context, span) = PublishSpan::begin(&service, None);
            assert!(context.unwrap().is_sampled());
            drop(span);
            assert_eq!(exporter.lost(), lost);
        }
    }

    #[test]
    fn no_trace_begins_without_an_exporter_or_outside_the_share() {
        let (queue, _items) = mpsc::channel(1);
        let none = SpanExporter(Arc::new(Inner { queue, lost: Arc::default(), root_share: 0.0 }));
        for service in [OnceLock::new(), OnceLock::from(none)] {
            let (context, span) = PublishSpan::begin(&service, None);
            assert!(context.is_none() && span.is_none());
        }
    }

    #[test]
    fn a_header_for_the_collector_is_not_shown() {
        let settings = OtlpSettings::new("https://collector.example.com/v1/traces").unwrap();
        let settings = settings.header("authorization = Bearer hush=").unwrap();
        assert_eq!(settings.headers["authorization"], "Bearer hush=");
        assert!(!format!("{settings:?}").contains("hush"));
        for text in ["", "authorization", "a b=c", "a=b\nc"] {
            assert!(OtlpSettings::new("http://localhost:4318/").unwrap().header(text).is_err());
        }
        assert!(matches!(OtlpSettings::new("localhost:4318"), Err(OtlpError::Url { .. })));
    }
}
