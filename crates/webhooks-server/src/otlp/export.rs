//! The task that sends spans to a collector: OpenTelemetry Protocol 1.x, "OTLP/HTTP".

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;
use tokio::time::timeout;
use webhooks_dispatch::clock::{Clock as _, SystemClock};
use webhooks_dispatch::transport::{Request, Response, Transport as _, TransportError};
use webhooks_http::HttpTransport;

use super::OtlpSettings;
use super::span::{Span, request};

/// The most spans of one request.
const MAX_GROUP: usize = 512;

/// The time for which a group waits for further spans.
const LINGER: Duration = Duration::from_secs(1);

/// The pauses before a group is sent again. Then it is lost.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// Something for the task.
#[derive(Debug)]
pub(super) enum Item {
    Span(Box<Span>),
    /// A caller who waits until what came before is exported or lost.
    Flush(oneshot::Sender<()>),
}

pub(super) struct Export {
    settings: OtlpSettings,
    transport: HttpTransport,
    lost: Arc<AtomicU64>,
    /// Whether the last group was lost, so that an outage is logged one time.
    is_failing: bool,
}

/// The reason why a group was not taken.
#[derive(Debug)]
enum Refusal {
    /// It may be taken later.
    Later(Reason),
    Never(Reason),
}

#[derive(Debug)]
enum Reason {
    Status(u16),
    Transport(TransportError),
}

impl Export {
    pub(super) fn new(
        mut settings: OtlpSettings,
        transport: HttpTransport,
        lost: Arc<AtomicU64>,
    ) -> Self {
        let media = HeaderValue::from_static("application/x-protobuf");
        settings.headers.insert(CONTENT_TYPE, media);
        if settings.url.as_str().starts_with("http:") {
            // The operator may send a token in clear, within a cluster, and the transport would refuse it.
            settings.headers.values_mut().for_each(|value| value.set_sensitive(false));
        }
        Self { settings, transport, lost, is_failing: false }
    }

    /// Exports until the last sender is gone.
    pub(super) async fn run(mut self, mut items: Receiver<Item>) {
        while let Some(first) = items.recv().await {
            let (mut group, mut flush) = (Vec::new(), None);
            let mut next = Some(first);
            let gather = async {
                while let Some(item) = next.take() {
                    match item {
                        Item::Span(span) => group.push(*span),
                        Item::Flush(done) => return flush = Some(done),
                    }
                    if group.len() < MAX_GROUP {
                        next = items.recv().await;
                    }
                }
            };
            // The spans that came in this time are sent.
            let _elapsed = timeout(LINGER, gather).await;
            if !group.is_empty() {
                self.send(&group, flush.is_some()).await;
            }
            if let Some(done) = flush {
                // A caller that stopped waiting does not want the answer.
                let _unheard = done.send(());
            }
        }
    }

    /// Sends a group, again if it may be taken later and nobody waits for the end.
    async fn send(&mut self, group: &[Span], is_last: bool) {
        let body = Bytes::from(request(&self.settings.service_name, group));
        let mut pauses = PAUSES.iter().filter(|_| !is_last);
        let reason = loop {
            match self.exchange(body.clone()).await {
                Ok(()) => {
                    if self.is_failing {
                        tracing::info!("spans are exported again");
                    }
                    self.is_failing = false;
                    return;
                }
                Err(Refusal::Never(reason)) => break reason,
                Err(Refusal::Later(reason)) => match pauses.next() {
                    Some(pause) => SystemClock.sleep(*pause).await,
                    None => break reason,
                },
            }
        };
        self.lost.fetch_add(group.len() as u64, Ordering::Relaxed);
        if !self.is_failing {
            let (status, error) = match &reason {
                Reason::Status(status) => (Some(*status), None),
                Reason::Transport(error) => (None, Some(error as &dyn std::error::Error)),
            };
            tracing::warn!(status, error, "spans are lost: the collector does not take them");
        }
        self.is_failing = true;
    }

    async fn exchange(&self, body: Bytes) -> Result<(), Refusal> {
        let OtlpSettings { url, headers, timeout, .. } = self.settings.clone();
        let (client_credentials, tls) = (None, None);
        let request = Request { url, headers, body, timeout, client_credentials, tls };
        match self.transport.send(request).await {
            Ok(Response { status: 200..=299, .. }) => Ok(()),
            // The retryable ones of "Failures".
            Ok(Response { status: status @ (429 | 502 | 503 | 504), .. }) => {
                Err(Refusal::Later(Reason::Status(status)))
            }
            Ok(Response { status, .. }) => Err(Refusal::Never(Reason::Status(status))),
            Err(error) => Err(Refusal::Later(Reason::Transport(error))),
        }
    }
}
