//! Serves a webhook service for development on <http://127.0.0.1:8071>, with its rows in `webhooks.db`. Deliveries
//! may go to this machine.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example")]

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use webhooks_admin::{
    Actor, Admin, ApiKey, ApiKeyText, Grant, IdKind, ListQuery, Role, SqliteRecordStore,
};
use webhooks_core::Timestamp;
use webhooks_dispatch::{BoxedStore, Engine};
use webhooks_http::HttpTransport;
use webhooks_server::{Metrics, ServeSettings, Service, ServiceSettings, serve};
use webhooks_sqlite::SqliteStore;

/// The address on which it listens.
const ADDRESS: &str = "127.0.0.1:8071";

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
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

async fn run() -> Result<(), Box<dyn Error>> {
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
    let router = service.router();
    let (stop, stopped) = oneshot::channel();
    let ended = async {
        let stopped = async { stopped.await.unwrap_or_default() };
        serve(listener, router, ServeSettings::default(), stopped).await;
        worker.shutdown(Duration::from_secs(30)).await
    };
    let signals = async {
        signal().await?;
        println!(
            "Ending: requests and deliveries in flight have 30 s each. Ctrl-C again ends it at once; \
             nothing is lost."
        );
        let _gone = stop.send(());
        signal().await
    };
    tokio::select! {
        _report = ended => {}
        signal = signals => signal?,
    }
    // Until now it told operational endpoints how the last deliveries ended.
    drop(service);
    store.close().await;
    Ok(())
}

/// Waits for Ctrl-C, or for the signal by which a service manager ends a program.
async fn signal() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};

        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            _received = terminate.recv() => Ok(()),
            interrupt = tokio::signal::ctrl_c() => interrupt,
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
