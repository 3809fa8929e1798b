//! Independent senders: the official `standardwebhooks` and `svix` packages of PyPI and npm sign
//! and send, over HTTP, and we receive. `cargo xtask test` installs them.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::process::Stdio;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::post;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinSet;
use webhooks_receive::provider::{Standard, Svix};
use webhooks_receive::{MemorySeenStore, ReceiveLayer, Receiver, ReplayGuard, provider::Provider};
use webhooks_sign::Key;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

const SECRET: &str = concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");

/// The customers of the invoices that handlers got.
type Customers = Arc<Mutex<Vec<String>>>;

fn hook<P: Provider>(customers: &Customers) -> Router {
    let receiver = Receiver::<P>::from_keys(Key::standard(SECRET).unwrap()).unwrap();
    let guard = ReplayGuard::new(&receiver, "billing", MemorySeenStore::new()).unwrap();
    let customers = Arc::clone(customers);
    let handler = move |body: String| async move {
        let event: Value = serde_json::from_str(&body).unwrap();
        customers.lock().unwrap().push(event["data"]["customer"].as_str().unwrap().to_owned());
        StatusCode::CREATED
    };
    let layer = ReceiveLayer::new(receiver).guard(guard);
    Router::new().route("/", post(handler)).layer(layer)
}

/// Makes a peer send to one of our servers, and checks the answers that it got.
async fn check(command: impl FnOnce(&str) -> Command) {
    let customers = Customers::default();
    let app = Router::new()
        .nest_service("/standard", hook::<Standard>(&customers))
        .nest_service("/svix", hook::<Svix>(&customers));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, app).await.unwrap() });

    let output = command(&url).stderr(Stdio::inherit()).output().await.unwrap();
    assert!(output.status.success(), "is it missing? `cargo xtask test` installs it");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let each = json!({ "new": 201, "repeated": 200, "changed": 401, "stale": 401 });
    assert_eq!(found, json!({ "standard": each, "svix": each }));
    assert_eq!(*customers.lock().unwrap(), ["Zoë 🦀", "Zoë 🦀"]);
}

#[tokio::test]
async fn what_the_packages_from_pypi_send_is_received() {
    check(|url| {
        let mut python = Command::new("python3");
        python.arg(format!("{ROOT}/tests/peers/send.py")).args([url, SECRET]);
        python.env("PYTHONPATH", format!("{ROOT}/target/peers/python"));
        python
    })
    .await;
}

#[tokio::test]
async fn what_the_packages_from_npm_send_is_received() {
    check(|url| {
        let mut node = Command::new("node");
        node.arg(format!("{ROOT}/tests/peers/send.mjs"));
        node.arg(format!("{ROOT}/target/peers/node")).args([url, SECRET]);
        node
    })
    .await;
}
