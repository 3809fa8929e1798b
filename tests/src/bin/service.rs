//! A service that a test or a benchmark starts and ends: `service STORE KEY [CONCURRENCY]` serves over a
//! file or a database, accepts this key of an administrator, prints its URL, and ends on SIGTERM. With a
//! number of requests in flight, it has an engine's usual settings.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test's other half")]

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use webhooks_admin::{
    Actor, Admin, ApiKey, ApiKeyText, Grant, IdKind, PostgresRecordStore, Role, SqliteRecordStore,
};
use webhooks_core::Timestamp;
use webhooks_dispatch::{BoxedStore, Engine, EngineSettings};
use webhooks_http::HttpTransport;
use webhooks_postgres::PostgresStore;
use webhooks_server::{Metrics, ServeSettings, Service, ServiceSettings, serve};
use webhooks_sqlite::{SqliteOptions, SqliteStore};
use webhooks_tests::crash::{open, settings};

/// The time that attempts in flight have to end.
const GRACE: Duration = Duration::from_secs(30);

enum Opened {
    Sqlite(SqliteStore),
    Postgres(PostgresStore),
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (store, key, settings) = match &arguments[..] {
        [store, key] => (store, key, settings()),
        [store, key, concurrency] => {
            let concurrency = concurrency.parse().unwrap();
            (store, key, EngineSettings { concurrency, ..EngineSettings::default() })
        }
        _ => return println!("usage: service STORE KEY [CONCURRENCY]"),
    };
    let mut terminated = signal(SignalKind::terminate()).unwrap();
    let (opened, store, admin) = open_store(store).await;
    add_key(&admin, key).await;
    let engine = Engine::builder(store, HttpTransport::development().unwrap());
    let metrics = Metrics::default();
    let engine = engine.settings(settings).observer(metrics.clone()).build();
    let worker = engine.start();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    let service = Service::new(engine, admin, ServiceSettings::default(), metrics);
    // First the requests end, then the attempts, then the store.
    let terminated = async move {
        terminated.recv().await;
    };
    serve(listener, service.router(), ServeSettings::default(), terminated).await;
    worker.shutdown(GRACE).await;
    match opened {
        Opened::Sqlite(store) => store.close().await,
        Opened::Postgres(store) => Box::pin(store.close()).await,
    }
}

async fn open_store(store: &str) -> (Opened, BoxedStore, Admin) {
    if store.starts_with("postgres:") {
        let store = open(store).await;
        let records = PostgresRecordStore::new(&store).await.unwrap();
        (Opened::Postgres(store.clone()), BoxedStore::new(store), Admin::new(records))
    } else {
        let store = SqliteOptions::new(store).reserve_log().open().await.unwrap();
        let records = SqliteRecordStore::new(store.clone()).await.unwrap();
        (Opened::Sqlite(store.clone()), BoxedStore::new(store), Admin::new(records))
    }
}

async fn add_key(admin: &Admin, key: &str) {
    let (text, now) = (ApiKeyText::parse(key).unwrap(), Timestamp::now());
    let key = ApiKey::new("test", text.hash(), Grant::new(Role::Admin), now);
    let added = admin.keys().add(IdKind::ApiKey.generate(), key, &Actor::service(), now).await;
    // An earlier life has added it.
    let _added_before = added;
}
