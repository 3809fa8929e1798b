//! The HTTP transport against real servers on loopback.
#![expect(clippy::unwrap_used, reason = "tests")]

mod access;
mod bypasses;
mod exchange;
mod field;
mod hostile;
mod http_2;
mod limits;
mod names;
mod once;
mod proxy;
mod tls;

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use webhooks_dispatch::transport::{ErrorClass, Request, Response, Transport as _, TransportError};
use webhooks_http::{AddressPolicy, HttpTransport, HttpTransportBuilder};
use webhooks_registry::Endpoint;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn endpoint(url: &str) -> Endpoint {
    Endpoint::new(url, SECRET).unwrap()
}

/// Returns a request with the body `{}`, to be over within 30 s.
fn request(url: &str) -> Request {
    request_to(&endpoint(url))
}

/// Returns the same request for an endpoint.
fn request_to(endpoint: &Endpoint) -> Request {
    Request::new(endpoint, HeaderMap::new(), Bytes::from_static(b"{}"))
}

/// Returns a request that has little time.
fn short_request(url: &str) -> Request {
    Request { timeout: Duration::from_millis(300), ..request(url) }
}

/// Returns the builder of a transport that reaches this machine.
fn builder() -> HttpTransportBuilder {
    HttpTransport::builder().address_policy(AddressPolicy::development())
}

async fn send(url: &str) -> Result<Response, TransportError> {
    builder().build().unwrap().send(request(url)).await
}

async fn class(url: &str) -> ErrorClass {
    send(url).await.unwrap_err().class
}

/// Returns the text of a failure that the owner of an endpoint reads.
fn told(error: &TransportError) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {source}")
}
