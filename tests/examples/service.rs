//! The ports of a store, used as a service would use them: whatever store it is.
//!
//! `cargo run --example service` takes a SQLite file in a temporary folder. Give it the path of a file,
//! or the URL of a PostgreSQL database, and it does the same there:
//! `cargo run --example service postgres://localhost/webhooks`.
#![expect(clippy::print_stdout, reason = "an example tells what happens")]

use std::error::Error;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use webhooks_core::{Event, RetryPolicy, TenantId, Timestamp};
use webhooks_dispatch::{
    BoxedStore, Endpoints, Engine, FnTransport,
    clock::{Clock as _, SystemClock},
    figures::{FiguresQuery, FiguresStep},
    history::{HistoryStore as _, Query, SearchRequest},
    jobs::{JobState, JobWork, NewJob},
    monitor::MonitorStore as _,
    transport::Transport,
};
use webhooks_postgres::PostgresStore;
use webhooks_registry::{Endpoint, EndpointQuery, EndpointStoreError, Secret};
use webhooks_sqlite::SqliteStore;

type AnyError = Box<dyn Error + Send + Sync>;

const EVENTS: usize = 40;

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let folder = tempfile::tempdir()?;
    let store = match std::env::args().nth(1) {
        Some(url) if url.starts_with("postgres") => {
            BoxedStore::new(PostgresStore::open(&url).await?)
        }
        Some(path) => BoxedStore::new(SqliteStore::open(path).await?),
        None => BoxedStore::new(SqliteStore::open(folder.path().join("webhooks.db")).await?),
    };
    // Stands for the customers' servers: that of `crm` does not know the path at first.
    let is_mended = Arc::new(AtomicBool::new(false));
    let transport = FnTransport::new({
        let is_mended = Arc::clone(&is_mended);
        move |url: String, _, _, _| {
            let is_wrong = url.contains("crm") && !is_mended.load(Ordering::Relaxed);
            async move { if is_wrong { (404, "no such path") } else { (200, "") } }
        }
    });
    // A tenant of its own, so that the example can be run again on the same store.
    let tenant = TenantId::new(&format!("acme-{}", Timestamp::now().as_unix_microseconds()))?;
    let service = Service { engine: Engine::new(store, transport), tenant };
    let worker = service.engine.start();
    service.register().await?;
    service.publish().await?;
    service.overview().await?;
    service.search().await?;
    is_mended.store(true, Ordering::Relaxed);
    service.replay().await?;
    service.endpoints().resume("billing").await?;
    let report = worker.drain(Duration::from_secs(30)).await;
    println!("The worker ends; {:?} deliveries wait.", report.waiting.unwrap_or_default());
    service.figures().await
}

struct Service<T> {
    engine: Engine<BoxedStore, T>,
    tenant: TenantId,
}

impl<T: Transport> Service<T> {
    fn endpoints(&self) -> Endpoints<'_, BoxedStore, T> {
        self.engine.endpoints().tenant(self.tenant.clone())
    }

    /// Registers two endpoints; an id that is taken is refused.
    async fn register(&self) -> Result<(), AnyError> {
        let endpoints = self.endpoints();
        for id in ["crm", "billing"] {
            let url = format!("https://{id}.example.com/");
            let endpoint = Endpoint::new(&url, Secret::generate())?.name(format!("{id} of Acme"));
            let endpoint = endpoint.retry(RetryPolicy::fixed(Duration::from_secs(60), 0));
            endpoints.create(id, endpoint.clone()).await?;
            let again = endpoints.create(id, endpoint).await;
            if let Err(EndpointStoreError::AlreadyRegistered { .. }) = again {
                println!("{id} is registered, and only once.");
            }
        }
        endpoints.pause("billing").await?;
        Ok(())
    }

    /// Publishes events, and waits until `crm` has failed to take any of them.
    async fn publish(&self) -> Result<(), AnyError> {
        let event = |number| {
            let payload = json!({ "order": format!("A-{number}") });
            Ok(Event::new("order.paid", payload)?.tenant(self.tenant.clone()).tags(["import"])?)
        };
        let events: Vec<Event> = (0..EVENTS).map(event).collect::<Result<_, AnyError>>()?;
        self.engine.publish_all(&events).await?;
        let monitor = self.engine.monitor();
        while monitor.depth(Some(self.tenant.clone()), 1_000).await?.waiting > EVENTS as u64 {
            SystemClock.sleep(Duration::from_millis(20)).await;
        }
        println!("{EVENTS} events are published; crm takes none, and billing is paused.");
        Ok(())
    }

    /// Lists the endpoints with their health.
    async fn overview(&self) -> Result<(), AnyError> {
        for (view, health) in self.endpoints().overview(EndpointQuery::default()).await?.items {
            let failing = if health.failing.is_some() { "failing" } else { "healthy" };
            let waiting = health.queue.waiting;
            println!("  {:<8} {:<7} {failing}, {waiting} wait", view.id, view.state);
        }
        Ok(())
    }

    /// Finds an event by a text in its body.
    async fn search(&self) -> Result<(), AnyError> {
        let query = Query { tenant: Some(self.tenant.clone()), ..Query::default() };
        let request = SearchRequest { query, text: "\"A-17\"".to_owned(), max_looked: 1_000 };
        let found = self.engine.history().search(request).await?;
        println!("A search for order A-17 finds {} event.", found.items.len());
        Ok(())
    }

    /// Replays all that failed, a few each second, and shows the progress.
    async fn replay(&self) -> Result<(), AnyError> {
        let (tenant, jobs) = (Some(self.tenant.clone()), self.engine.jobs());
        let query = Query { tenant: tenant.clone(), ..Query::default() };
        let (work, rate) = (JobWork::ReplayFound(query), NonZeroU32::new(20));
        let mut job = jobs.create(NewJob { tenant, work, rate, request: None }).await?;
        let mut shown = None;
        while job.state == JobState::Running {
            SystemClock.sleep(Duration::from_millis(20)).await;
            job = jobs.get(job.id).await?.ok_or("the job is gone")?;
            if shown.replace(job.progress.done) != Some(job.progress.done) {
                println!("  {}: {} of {EVENTS} replayed", job.id, job.progress.done);
            }
        }
        println!("The replay has ended: {}.", job.state.as_str());
        Ok(())
    }

    /// Shows the figures of today.
    async fn figures(&self) -> Result<(), AnyError> {
        let (since, until) = (Timestamp::UNIX_EPOCH, Timestamp::now() + Duration::from_secs(60));
        let (tenant, step) = (Some(self.tenant.clone()), FiguresStep::Whole);
        let query = FiguresQuery { tenant, endpoint: None, since, until, step };
        for row in self.engine.monitor().figures(query).await? {
            let found = row.figures;
            let (accepted, delivered, failed) = (found.accepted, found.delivered, found.failed);
            println!("accepted {accepted}, delivered {delivered}, failed {failed}");
            println!("attempts {}, of which failed: {:?}", found.attempts(), found.failures);
        }
        Ok(())
    }
}
