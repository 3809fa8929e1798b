//! Serves a webhook service for development on <http://127.0.0.1:8071>, with its rows in `webhooks.db`. Deliveries
//! may go to this machine.
#![expect(clippy::print_stdout, reason = "an example")]

use std::error::Error;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use webhooks_admin::{
    Actor, Admin, ApiKey, ApiKeyText, Grant, IdKind, ListQuery, Role, SqliteRecordStore,
};
use webhooks_core::Timestamp;
use webhooks_dispatch::{BoxedStore, Engine};
use webhooks_http::HttpTransport;
use webhooks_server::{Metrics, Service, ServiceSettings};
use webhooks_sqlite::SqliteStore;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = SqliteStore::open("webhooks.db").await?;
    let admin = Admin::new(SqliteRecordStore::new(store.clone()).await?);
    let metrics = Metrics::default();
    let engine = Engine::builder(BoxedStore::new(store), HttpTransport::development()?);
    let engine = engine.observer(metrics.clone()).build();
    let worker = engine.start();

    let now = Timestamp::now();
    let one = ListQuery { limit: 1, ..ListQuery::default() };
    if admin.keys().list(one, now).await?.items.is_empty() {
        let text = ApiKeyText::generate();
        let key = ApiKey::new("administrator", text.hash(), Grant::new(Role::Admin), now);
        admin.keys().add(IdKind::ApiKey.generate(), key, &Actor::service(), now).await?;
        println!("The key of the administrator, shown this once: {}", text.reveal());
    }

    let settings = ServiceSettings::default();
    let listener = TcpListener::bind("127.0.0.1:8071").await?;
    println!("Listening on {}", settings.public_url);
    let router = Service::new(engine, admin, settings, metrics).router();
    let router = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::select! {
        ended = axum::serve(listener, router) => ended?,
        stop = tokio::signal::ctrl_c() => stop?,
    }
    worker.shutdown(std::time::Duration::from_secs(30)).await;
    Ok(())
}
