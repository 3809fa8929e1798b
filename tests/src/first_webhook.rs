//! The sender that tries the receiver of `docs/receive.md`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::exit;

use webhooks_core::Event;
use webhooks_dispatch::Dispatcher;
use webhooks_http::HttpTransport;
use webhooks_registry::{Endpoint, Registry};

/// Sends an invoice to `/hook` at this address, and ends the process, which would otherwise serve
/// for ever. The process ends with success if the receiver took the invoice, and always ends.
#[expect(clippy::exit, reason = "only so does what serves for ever come to an end")]
pub async fn send_first_webhook(address: SocketAddr, secret: &'static str) {
    // In a separate task, because its panic must end the process too.
    let taken = tokio::spawn(is_taken(address, secret)).await;
    exit(i32::from(!matches!(taken, Ok(true))));
}

async fn is_taken(address: SocketAddr, secret: &str) -> bool {
    let registry = Registry::new();
    let endpoint = Endpoint::new(&format!("http://{address}/hook"), secret).expect("an endpoint");
    registry.register("mine", endpoint).expect("a free id");
    let transport = HttpTransport::development().expect("root certificates");
    let event = Event::new("invoice.paid", BTreeMap::from([("number", 17)])).expect("an event");
    let results = Dispatcher::new(registry, transport).dispatch(&event).await;
    results[0].status_code == Some(200)
}
