//! Sends webhooks to a receiver on this machine and shows what happens: `cargo run --example
//! quickstart`. It needs no network.
#![expect(clippy::print_stdout, reason = "this is what it is for")]

use std::convert::Infallible;
use std::error::Error;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use webhooks_core::{DeliveryResult, Event, RetryPolicy, Timestamp};
use webhooks_dispatch::{
    Dispatcher,
    transport::{Request, Response, Transport, TransportError},
};
use webhooks_http::HttpTransport;
use webhooks_registry::{Endpoint, Registry};
use webhooks_sign::{Key, KeyRing, standard};

/// The secret that both sides share; make yours with `Secret::generate()`.
const SECRET: &str = concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = start_receiver().await?;
    println!("A receiver listens on {url}. It knows the secret and verifies every body.\n");

    // The sender: who wants what, and the transport that carries it.
    let registry = Registry::new();
    let endpoint = Endpoint::new(&url, SECRET)?.events(["created", "updated"])?;
    registry.register("my-webhook", endpoint)?;
    let dispatcher = Dispatcher::new(registry, HttpTransport::development()?);

    println!("1. A user is created; my-webhook wants to know.");
    let event = Event::new("created", json!({ "user_id": "123" }))?.source("user-service");
    report(&dispatcher.dispatch_with_retry(&event, Some(5)).await);

    println!("2. A user is deleted; my-webhook wants `created` and `updated` alone.");
    let event = Event::new("deleted", json!({ "user_id": "123" }))?.source("user-service");
    report(&dispatcher.dispatch_with_retry(&event, Some(5)).await);

    println!("3. The receiver is down and comes back at the third attempt.");
    let retry = RetryPolicy::fixed(Duration::from_millis(200), 3);
    let flaky = Endpoint::new(&format!("{url}/flaky"), SECRET)?.retry(retry);
    dispatcher.registry().register("my-webhook", flaky)?;
    let event = Event::new("updated", json!({ "user_id": "123" }))?.source("user-service");
    report(&dispatcher.dispatch_with_retry(&event, None).await);

    println!("4. Somebody on the way changes the body.");
    let registry = Registry::new();
    registry.register("my-webhook", Endpoint::new(&url, SECRET)?)?;
    let dispatcher = Dispatcher::new(registry, Tampering(HttpTransport::development()?));
    report(&dispatcher.dispatch(&event).await);
    Ok(())
}

/// A transport that makes somebody an administrator after the body was signed.
struct Tampering(HttpTransport);

impl Transport for Tampering {
    async fn send(&self, request: Request) -> Result<Response, TransportError> {
        let body = String::from_utf8_lossy(&request.body);
        let body = body.replace(r#""user_id""#, r#""admin":true,"user_id""#).into();
        self.0.send(Request { body, ..request }).await
    }
}

fn report(results: &[DeliveryResult]) {
    if results.is_empty() {
        println!("   sender:   nobody wants it, nothing is sent");
    }
    for result in results {
        let DeliveryResult { endpoint_id, status, attempt, error, .. } = result;
        let error = error.as_deref().map(|error| format!(" ({error})")).unwrap_or_default();
        println!("   sender:   {endpoint_id} {status} after {attempt} attempt(s){error}");
    }
    println!();
}

/// Starts a receiver on a free port and returns its URL. It needs only webhooks-sign.
async fn start_receiver() -> Result<String, Box<dyn Error>> {
    let keys = KeyRing::from(Key::standard(SECRET)?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let keys = keys.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| receive(&keys, request));
                http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
            });
        }
    });
    Ok(url)
}

/// The number of requests to the flaky path, which succeeds from the third on.
static FLAKY_CALLS: AtomicU32 = AtomicU32::new(0);

async fn receive(
    keys: &KeyRing<1>,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    if head.uri.path() == "/flaky" && FLAKY_CALLS.fetch_add(1, Ordering::Relaxed) < 2 {
        println!("   receiver: answers 503, it is down");
        return Ok(answer(503));
    }
    let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
        return Ok(answer(400));
    };
    // Verify the bytes as they came. Only `verified` leads on to the event.
    let now = Timestamp::now().as_unix_seconds();
    let verified = match standard::verify(keys, &head.headers, &body, now) {
        Ok(verified) => verified,
        Err(error) => {
            println!("   receiver: refuses it: {error}");
            return Ok(answer(if error.is_malformed() { 400 } else { 401 }));
        }
    };
    match serde_json::from_slice::<Event>(verified.body()) {
        Ok(event) => {
            println!(
                "   receiver: verified {}, payload {}",
                event.event_type,
                event.payload.as_str()
            );
            Ok(answer(200))
        }
        Err(_) => Ok(answer(400)),
    }
}

fn answer(status: u16) -> hyper::Response<Full<Bytes>> {
    let mut response = hyper::Response::new(Full::default());
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    response
}
