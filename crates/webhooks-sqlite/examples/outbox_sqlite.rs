//! An order and its event in one file and one commit: either both are stored, or neither.
//!
//! ```sh
//! cargo run -p webhooks-sqlite --example outbox_sqlite
//! ```
#![expect(clippy::print_stdout, reason = "an example")]

use std::error::Error;
use std::time::Duration;

use serde_json::json;
use webhooks_core::Event;
use webhooks_dispatch::{Engine, FnTransport};
use webhooks_registry::{Endpoint, Secret};
use webhooks_sqlite::{SqliteStore, Transaction};

type Refusal = Box<dyn Error + Send + Sync>;

const TABLE: &str =
    "CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, item TEXT NOT NULL)";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let store = SqliteStore::open(folder.path().join("shop.db")).await?;
    store.transaction(|transaction| transaction.execute_batch(TABLE)).await?;

    // `HttpTransport` of webhooks-http sends the requests that this transport prints.
    let transport = FnTransport::new(|_url, body, _headers, _timeout| async move {
        println!("sent: {}", String::from_utf8_lossy(&body));
        (200, "")
    });
    let engine = Engine::new(store.clone(), transport);
    let endpoint = Endpoint::new("https://example.com/", Secret::generate())?;
    engine.endpoints().register("example", endpoint).await?;
    let worker = engine.start();

    for (id, item) in [(17, "tea"), (17, "coffee"), (18, "coffee")] {
        match store.transaction(move |transaction| place(transaction, id, item)).await {
            Ok(()) => println!("order {id} is placed: {item}"),
            Err(error) => println!("order {id} is not placed, and nothing is sent: {error}"),
        }
    }
    let count = "SELECT count(*) FROM orders";
    let count: i64 = store.read(move |file| file.query_row(count, (), |row| row.get(0))).await?;
    println!("there are {count} orders");

    worker.drain(Duration::from_secs(30)).await;
    store.close().await;
    Ok(())
}

/// Places an order. It may run more than once, so it does nothing except through the transaction. Any
/// error rolls everything back.
fn place(transaction: &mut Transaction<'_>, id: i64, item: &str) -> Result<(), Refusal> {
    transaction.execute("INSERT INTO orders (id, item) VALUES (?, ?)", (id, item))?;
    let event = Event::new("order.placed", json!({ "order_id": id, "item": item }))?;
    transaction.publish(&event.source("shop"))?;
    Ok(())
}
