//! Receives webhooks in hyper, or any other server with `http::Request`: `cargo run --example
//! receive_hyper`, and send some to the URL that it prints, signed with the secret below.
#![expect(clippy::print_stdout, reason = "this is what it is for")]

use std::convert::Infallible;
use std::error::Error;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use webhooks_receive::{MemorySeenStore, Receiver, Rejection, ReplayGuard, RunOutcome, Webhook};
use webhooks_sign::Key;
use webhooks_sign::standard::STANDARD;

const SECRET: &str = concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");

/// The whole receiver: the request in, a verified webhook out, and the handler run once.
async fn receive(
    receiver: &Receiver,
    guard: &ReplayGuard<MemorySeenStore>,
    request: Request<Incoming>,
) -> Result<StatusCode, Rejection> {
    let webhook = receiver.receive(request).await?.into_body();
    let guarded = guard.run(&webhook, async { handle(&webhook) }).await?;
    if let RunOutcome::Ran { remembered: Err(error), .. } = &guarded {
        println!("it may be handled again: {error}");
    }
    Ok(guarded.status())
}

fn handle(webhook: &Webhook) -> Result<(), Rejection> {
    let event: Value = webhook.json()?;
    println!("invoice {} is paid", event["payload"]["number"]);
    Ok(())
}

async fn answer(
    receiver: Receiver,
    guard: ReplayGuard<MemorySeenStore>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::default());
    match receive(&receiver, &guard, request).await {
        Ok(status) => *response.status_mut() = status,
        Err(rejection) => response = rejection.to_response(),
    }
    Ok(response)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let receiver = Receiver::new(STANDARD, Key::standard(SECRET)?)?;
    let guard = ReplayGuard::new(&receiver, "billing", MemorySeenStore::new())?;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/hook", listener.local_addr()?);
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        let (receiver, guard) = (receiver.clone(), guard.clone());
        let service = service_fn(move |request| answer(receiver.clone(), guard.clone(), request));
        // With a timer, hyper closes connections whose headers never end.
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new());
        connections.spawn(server.serve_connection(TokioIo::new(stream), service));
        while connections.try_join_next().is_some() {}
    }
}
