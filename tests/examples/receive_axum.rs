//! Receives webhooks in axum: `cargo run --example receive_axum`, and send some to the URL that it
//! prints, signed with the secret below.
#![expect(clippy::print_stdout, reason = "this is what it is for")]

use std::error::Error;

use axum::routing::post;
use axum::{Json, Router};
use http::StatusCode;
use serde::Deserialize;
use tokio::net::TcpListener;
use webhooks_receive::{
    MemorySeenStore, ReceiveLayer, Receiver, ReplayGuard, VerifiedWebhook, provider::Standard,
};
use webhooks_sign::Key;

const SECRET: &str = concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");

#[derive(Deserialize)]
#[serde(tag = "event_type")]
enum Event {
    #[serde(rename = "invoice.paid")]
    InvoicePaid { payload: Invoice },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Invoice {
    number: u64,
}

async fn hook(
    VerifiedWebhook { body: Json(event), .. }: VerifiedWebhook<Json<Event>, Standard>,
) -> StatusCode {
    match event {
        Event::InvoicePaid { payload } => println!("invoice {} is paid", payload.number),
        Event::Other => println!("something else happened"),
    }
    StatusCode::NO_CONTENT
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let receiver = Receiver::<Standard>::from_keys(Key::standard(SECRET)?)?;
    let guard = ReplayGuard::new(&receiver, "billing", MemorySeenStore::new())?;
    let layer = ReceiveLayer::new(receiver.clone()).guard(guard);
    let app = Router::new().route("/hook", post(hook)).layer(layer).with_state(receiver);

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/hook", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
