//! An order and its event in one transaction, in an axum handler: either both are stored, or
//! neither.
//!
//! ```sh
//! cargo run -p webhooks-postgres --example outbox -- postgres://localhost/shop
//! curl -i localhost:3000/orders/17 -X POST
//! curl -i localhost:3000/orders/17 -X POST    # refused, and nothing is sent
//! ```
#![expect(clippy::print_stdout, reason = "an example")]

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::json;
use sqlx::PgPool;
use tokio::net::TcpListener;
use webhooks_core::Event;
use webhooks_dispatch::{Engine, FnTransport};
use webhooks_postgres::{PostgresStore, publish_in};
use webhooks_registry::{Endpoint, Secret};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Some(database) = std::env::args().nth(1) else {
        println!("usage: outbox DATABASE");
        return Ok(());
    };
    let store = PostgresStore::open(&database).await?;
    let pool = store.pool().clone();
    sqlx::query("CREATE TABLE IF NOT EXISTS orders (id bigint PRIMARY KEY)").execute(&pool).await?;

    // The worker may also run in another process, or in several. `HttpTransport` of webhooks-http
    // sends the requests that this transport prints.
    let transport = FnTransport::new(|url, body, _headers, _timeout| async move {
        println!("to {url}: {}", String::from_utf8_lossy(&body));
        (200, "")
    });
    let engine = Engine::new(store, transport);
    let endpoint = Endpoint::new("https://example.com/", Secret::generate())?;
    engine.endpoints().register("example", endpoint).await?;
    let worker = engine.start();

    let app = Router::new().route("/orders/{id}", post(place_order)).with_state(pool);
    println!("place an order: curl -i localhost:3000/orders/17 -X POST");
    axum::serve(TcpListener::bind("127.0.0.1:3000").await?, app)
        .with_graceful_shutdown(async { drop(tokio::signal::ctrl_c().await) })
        .await?;
    worker.shutdown(Duration::from_secs(30)).await;
    Ok(())
}

async fn place_order(State(pool): State<PgPool>, Path(id): Path<i64>) -> (StatusCode, String) {
    match place(&pool, id).await {
        Ok(()) => (StatusCode::CREATED, format!("order {id} is placed\n")),
        Err(error) => (StatusCode::CONFLICT, format!("order {id} is not placed: {error}\n")),
    }
}

/// Places an order. Any error drops the transaction, which rolls everything back.
async fn place(pool: &PgPool, id: i64) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut transaction = pool.begin().await?;
    sqlx::query("INSERT INTO orders (id) VALUES ($1)").bind(id).execute(&mut *transaction).await?;
    let event = Event::new("order.placed", json!({ "order_id": id }))?.source("shop");
    let _published = publish_in(&mut transaction, &event).await?;
    transaction.commit().await?;
    Ok(())
}
