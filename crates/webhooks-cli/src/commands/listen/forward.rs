//! Forwarding: which receivers get a request, and their answers.

use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use reqwest::Response;
use serde_json::{Value, json};
use url::Url;
use webhooks_core::EventType;
use webhooks_dispatch::clock::{Clock as _, SystemClock};
use webhooks_registry::Subscription;

use crate::failure::{Exit, Failure};

/// The headers that belong to a connection, or that the client writes itself.
const OF_CONNECTION: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The most bytes of an answer's body that are read.
const MAX_RESPONSE: usize = 1024;

/// A receiver that gets requests.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    url: Url,
    /// The events that it gets; all without one.
    only: Option<Subscription>,
}

/// Reads an URL.
pub(crate) fn target(text: &str) -> Result<Target, String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let url = url.ok_or("it is not an http or https URL")?;
    Ok(Target { url, only: None })
}

/// Reads `TYPE=URL`.
pub(crate) fn typed_target(text: &str) -> Result<Target, String> {
    let (event_type, url) = text.split_once('=').ok_or("write it as TYPE=URL")?;
    let only = Subscription::new(event_type).map_err(|error| error.to_string())?;
    Ok(Target { only: Some(only), ..target(url)? })
}

impl Target {
    /// Returns whether it gets an event of this type.
    fn wants(&self, event_type: Option<&str>) -> bool {
        let Some(only) = &self.only else { return true };
        let event_type = event_type.and_then(|text| EventType::new(text).ok());
        event_type.is_some_and(|event_type| only.matches(&event_type))
    }

    /// Returns the URL as requests name it, without a path.
    pub(crate) fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    fn place(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }
}

/// The receivers, and the client for them.
#[derive(Debug)]
pub(crate) struct Forwarder {
    http: reqwest::Client,
    targets: Vec<Target>,
}

/// A request that was forwarded.
#[derive(Debug)]
pub(crate) struct Forwarded {
    pub(crate) place: String,
    pub(crate) status: Result<StatusCode, String>,
    /// The start of the answer's body.
    pub(crate) response: Bytes,
    took: Duration,
}

impl Forwarder {
    pub(crate) fn new(targets: Vec<Target>, timeout: Duration) -> Result<Self, Failure> {
        let http = reqwest::Client::builder().timeout(timeout);
        let http = http.redirect(reqwest::redirect::Policy::none()).no_proxy().build();
        let http =
            http.map_err(|error| Failure::new(Exit::Failed, "cannot set up HTTP").because(error))?;
        Ok(Self { http, targets })
    }

    /// Sends a request to each receiver that wants it, one after the other.
    pub(crate) async fn forward(
        &self,
        head: &Parts,
        body: &Bytes,
        event_type: Option<&str>,
    ) -> Vec<Forwarded> {
        let mut all = Vec::new();
        for target in self.targets.iter().filter(|target| target.wants(event_type)) {
            let start = SystemClock.monotonic();
            let request = self.http.request(head.method.clone(), target.url.clone());
            let sent = request.headers(end_to_end(&head.headers)).body(body.clone()).send().await;
            let (status, response) = match sent {
                Ok(answer) => (Ok(answer.status()), start_of(answer).await),
                Err(error) if error.is_timeout() => (Err("no answer in time"), Bytes::new()),
                Err(_gone) => (Err("not reachable"), Bytes::new()),
            };
            let status = status.map_err(str::to_owned);
            let took = SystemClock.monotonic().saturating_since(start);
            all.push(Forwarded { place: target.place(), status, response, took });
        }
        all
    }
}

/// Reads the start of an answer's body. One that breaks off is an answer all the same.
async fn start_of(mut answer: Response) -> Bytes {
    let mut start = BytesMut::new();
    while let Ok(Some(piece)) = answer.chunk().await {
        start.extend(piece.iter().take(MAX_RESPONSE - start.len()));
        if start.len() >= MAX_RESPONSE {
            break;
        }
    }
    start.freeze()
}

impl Forwarded {
    pub(crate) fn json(&self) -> Value {
        let took = u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX);
        json!({
            "to": self.place,
            "status": self.status.as_ref().ok().map(StatusCode::as_u16),
            "error": self.status.as_ref().err(),
            "duration_ms": took,
        })
    }
}

impl fmt::Display for Forwarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let took = self.took.as_millis();
        match &self.status {
            Ok(status) => write!(f, "{} {} ({took} ms)", self.place, status.as_u16()),
            Err(error) => write!(f, "{} {error} ({took} ms)", self.place),
        }
    }
}

/// Returns the headers that are for the receiver and not for the connection.
pub(super) fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for name in OF_CONNECTION {
        headers.remove(name);
    }
    headers
}
