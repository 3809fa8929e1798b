//! Serves a webhook service for development on <http://127.0.0.1:8071>, with its rows in `webhooks.db`. Deliveries
//! may go to this machine.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example")]

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::TcpListener;
use webhooks_admin::{
    Actor, Admin, ApiKey, ApiKeyText, Grant, IdKind, ListQuery, Role, SqliteRecordStore,
};
use webhooks_core::Timestamp;
use webhooks_dispatch::{BoxedStore, Engine};
use webhooks_http::HttpTransport;
use webhooks_server::{Metrics, Service, ServiceSettings};
use webhooks_sqlite::SqliteStore;

/// The address on which it listens.
const ADDRESS: &str = "127.0.0.1:8071";

#[tokio::main]
async fn main() -> ExitCode {
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut source = error.source();
            while let Some(error) = source {
                eprintln!("  because {error}");
                source = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), Box<dyn Error>> {
    if std::env::args().len() > 1 {
        return Err(
            "it takes no arguments: it serves http://127.0.0.1:8071 from ./webhooks.db".into()
        );
    }
    let settings = ServiceSettings::default();
    // Before the key is shown: a second copy must not use it up.
    let listener = TcpListener::bind(ADDRESS).await;
    let listener = listener.map_err(|error| format!("cannot listen on {ADDRESS}: {error}"))?;
    let store = SqliteStore::open("webhooks.db").await?;
    let admin = Admin::new(SqliteRecordStore::new(store.clone()).await?);
    let metrics = Metrics::default();
    let engine = Engine::builder(BoxedStore::new(store.clone()), HttpTransport::development()?);
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

    println!(
        "Listening on {}; its API is described at /docs. Ctrl-C ends it.",
        settings.public_url
    );
    let service = Service::new(engine, admin, settings, metrics);
    let router = service.router().into_make_service_with_connect_info::<SocketAddr>();
    tokio::select! {
        ended = axum::serve(listener, router) => ended?,
        stop = tokio::signal::ctrl_c() => stop?,
    }
    println!(
        "Ending: deliveries in flight have 30 s. Ctrl-C again ends it at once; nothing is lost."
    );
    tokio::select! {
        _report = worker.shutdown(Duration::from_secs(30)) => {}
        stop = tokio::signal::ctrl_c() => stop?,
    }
    // Until now it told operational endpoints how the last deliveries ended.
    drop(service);
    store.close().await;
    Ok(())
}
