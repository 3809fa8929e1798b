//! The page that shows what came: on this machine, in a browser.
//!
//! Everything that came is hostile. The page itself is the same for all requests and holds nothing of them: its script
//! gets them as JSON, and shows them as texts alone.

mod archive;
mod curl;
mod entry;
mod hidden;
mod host;
mod shelf;

use std::future::{pending, ready};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use webhooks_core::EventId;

pub(crate) use self::hidden::Hidden;
use self::shelf::Shelf;
use super::seen::Seen;
use crate::failure::{Exit, Failure};
use crate::loopback::{Loopback, READ_TIMEOUT};
use crate::output::Output;

const PAGE: &str = include_str!("../../../assets/listen.html");

/// The place of the nonce in the page.
const NONCE: &str = "(nonce)";

/// No other site may read, frame or open what is here.
const ALONE: [(HeaderName, HeaderValue); 6] = [
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (HeaderName::from_static("x-frame-options"), HeaderValue::from_static("DENY")),
];

/// Reads the address of the page: a port of loopback, or an address and a port.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let port = text.parse().ok().map(|port: u16| SocketAddr::from(([127, 0, 0, 1], port)));
    let address = port.or_else(|| text.parse().ok());
    let address = address.ok_or("write it as PORT or ADDRESS:PORT")?;
    if address.ip().is_unspecified() {
        // A browser's Host header could be any name of this machine.
        return Err("name one address of this machine: the page answers under no other".to_owned());
    }
    Ok(address)
}

/// The page, which is there until this is dropped.
#[derive(Debug)]
pub(crate) struct Inspector {
    pub(crate) url: String,
    shelf: Arc<Shelf>,
    /// Ends with this.
    _serving: JoinSet<()>,
}

impl Inspector {
    /// Starts the page. `target` is where the commands that it shows send requests to.
    pub(crate) async fn start(
        address: SocketAddr,
        target: String,
        hidden: Hidden,
    ) -> Result<Self, Failure> {
        let failed = |error| {
            Failure::new(Exit::Failed, format!("cannot show a page at {address}")).because(error)
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        if !address.ip().is_loopback() {
            Output::warn(format!(
                "the page at {address} is not on loopback: others who reach it read what comes"
            ));
        }
        let shelf = Arc::new(Shelf::new(target, hidden));
        let of_handler = Arc::clone(&shelf);
        let handler = move |head: Parts, _body| {
            let response = answer(&of_handler, address, &head);
            ready(Ok(response))
        };
        // Browsers open connections in advance, of which there is nothing to tell.
        let (read_timeout, output) = (READ_TIMEOUT, None);
        let loopback = Loopback { listener, read_timeout, resets: false, output };
        let mut serving = JoinSet::new();
        serving.spawn(loopback.run(handler, pending()));
        Ok(Self { url: format!("http://{address}/"), shelf, _serving: serving })
    }

    /// Shows a request.
    pub(crate) fn add(&self, seen: Arc<Seen>) {
        self.shelf.add(seen);
    }
}

fn answer(shelf: &Shelf, own: SocketAddr, head: &Parts) -> Response<Full<Bytes>> {
    if !host::is_own(head, own) {
        // A name of another site that leads here would let its pages read this one.
        return text(StatusCode::MISDIRECTED_REQUEST, "open the address that listen printed\n");
    }
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "this page only shows\n");
    }
    let path: Vec<&str> = head.uri.path().split('/').skip(1).collect();
    match path[..] {
        [""] => page(),
        ["requests"] => match after(head.uri.query()) {
            Some(after) => file("application/json", shelf.json_after(after)),
            None => text(StatusCode::BAD_REQUEST, "after is a number\n"),
        },
        ["requests", name] => download(shelf, name),
        _ => text(StatusCode::NOT_FOUND, "there is no such page\n"),
    }
}

/// Reads the number behind which requests are asked for.
fn after(query: Option<&str>) -> Option<u64> {
    query.map_or(Some(0), |query| query.strip_prefix("after=")?.parse().ok())
}

/// Returns the page, whose script and style alone may run.
fn page() -> Response<Full<Bytes>> {
    // Two, because each has fewer random bits than a nonce needs.
    let nonce = format!("{}{}", EventId::random(), EventId::random()).replace('-', "");
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let mut response = file("text/html; charset=utf-8", PAGE.replace(NONCE, &nonce));
    if let Ok(policy) = HeaderValue::try_from(policy) {
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// Returns a request as a file: `3.http` or `3.har`.
fn download(shelf: &Shelf, name: &str) -> Response<Full<Bytes>> {
    let found = name.split_once('.').and_then(|(number, kind)| {
        let entry = shelf.get(number.parse().ok()?)?;
        match kind {
            "har" => Some(("application/json", archive::har(&entry, shelf).into_bytes())),
            "http" => Some(("application/octet-stream", entry.request(shelf.hidden()))),
            _ => None,
        }
    });
    let Some((kind, bytes)) = found else {
        return text(StatusCode::NOT_FOUND, "there is no such request, or no longer\n");
    };
    let mut response = file(kind, bytes);
    let name = format!("attachment; filename=\"request-{name}\"");
    if let Ok(name) = HeaderValue::try_from(name) {
        response.headers_mut().insert(CONTENT_DISPOSITION, name);
    }
    response
}

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = file("text/plain; charset=utf-8", text);
    *response.status_mut() = status;
    response
}

fn file(kind: &'static str, bytes: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(bytes.into()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // Nothing else may come from here, also if somebody opens a file in the browser.
    let nothing = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; sandbox");
    headers.insert(CONTENT_SECURITY_POLICY, nothing);
    headers.extend(ALONE);
    response
}
