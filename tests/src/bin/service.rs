//! A service that a test kills: `service STORE KEY` serves over a file or a database, accepts this key of an
//! administrator, and prints its URL.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test's other half")]

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use webhooks_admin::{
    Actor, Admin, ApiKey, ApiKeyText, Grant, IdKind, PostgresRecordStore, Role, SqliteRecordStore,
};
use webhooks_core::Timestamp;
use webhooks_dispatch::{BoxedStore, Engine};
use webhooks_http::HttpTransport;
use webhooks_server::{Metrics, ServeSettings, Service, ServiceSettings, serve};
use webhooks_sqlite::SqliteStore;
use webhooks_tests::crash::{open, settings};

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, key] = &arguments[..] else {
        return println!("usage: service STORE KEY");
    };
    let (store, admin) = if store.starts_with("postgres:") {
        let store = open(store).await;
        let records = PostgresRecordStore::new(&store).await.unwrap();
        (BoxedStore::new(store), Admin::new(records))
    } else {
        let store = SqliteStore::open(store).await.unwrap();
        let records = SqliteRecordStore::new(store.clone()).await.unwrap();
        (BoxedStore::new(store), Admin::new(records))
    };
    let now = Timestamp::now();
    let text = ApiKeyText::parse(key).unwrap();
    let key = ApiKey::new("test", text.hash(), Grant::new(Role::Admin), now);
    let added = admin.keys().add(IdKind::ApiKey.generate(), key, &Actor::service(), now).await;
    // An earlier life has added it.
    let _added_before = added;
    let engine = Engine::builder(store, HttpTransport::development().unwrap());
    let engine = engine.settings(settings()).build();
    let worker = engine.start();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    let service = Service::new(engine, admin, ServiceSettings::default(), Metrics::default());
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    let stop = async { terminate.recv().await.unwrap_or_default() };
    serve(listener, service.router(), ServeSettings::default(), stop).await;
    worker.shutdown(Duration::from_secs(30)).await;
}
