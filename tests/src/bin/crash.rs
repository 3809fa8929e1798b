//! The process that the crash test kills: it publishes and delivers until then.
//!
//! `crash STORE URL LIFE` publishes events and writes the id of each on a line of its own once it
//! is accepted. `crash STORE URL drain` publishes nothing, delivers what is left, and ends.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test's other half")]

use std::io::Write as _;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use webhooks_core::{EndpointId, Event, EventId, RetryPolicy, Timestamp};
use webhooks_dispatch::{Engine, HistoryStore as _, Observer, Occurrence};
use webhooks_http::HttpTransport;
use webhooks_registry::{Endpoint, EndpointKey};
use webhooks_sqlite::SqliteStore;
use webhooks_tests::crash::{ENDPOINT, PUBLISHERS, settings};

type CrashEngine = Engine<SqliteStore, HttpTransport>;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, url, life] = &arguments[..] else {
        return println!("usage: crash STORE URL LIFE|drain");
    };
    let store = SqliteStore::open(store).await.unwrap();
    let settled = std::sync::Arc::new(Notify::new());
    let engine = Engine::new(store, HttpTransport::development().unwrap());
    let engine = engine.settings(settings()).observer(Settled(std::sync::Arc::clone(&settled)));
    if engine.endpoints().get(ENDPOINT).await.unwrap().is_none() {
        let retry = RetryPolicy::fixed(Duration::from_millis(20), 1_000);
        let endpoint = Endpoint::new(url, "my-secret-key").unwrap().retry(retry);
        engine.endpoints().register(ENDPOINT, endpoint).await.unwrap();
    }
    let worker = engine.start();
    if life == "drain" {
        while open_deliveries(&engine).await > 0 {
            settled.notified().await;
        }
        worker.shutdown(Duration::from_secs(10)).await;
        return;
    }
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        publishers.spawn(publish(engine.clone(), format!("{life}-{publisher}")));
    }
    publishers.join_all().await;
}

/// Publishes until killed, and says what was accepted.
async fn publish(engine: CrashEngine, name: String) {
    for number in 0.. {
        let id = format!("{name}-{number}");
        let event = Event::new("order.paid", &id).unwrap().id(EventId::new(&id).unwrap());
        let _published = engine.publish(&event).await.unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "{id}").unwrap();
        out.flush().unwrap();
    }
}

async fn open_deliveries(engine: &CrashEngine) -> u64 {
    let endpoint = EndpointKey::of_default_tenant(EndpointId::new(ENDPOINT).unwrap());
    let statistics = engine.history().statistics(endpoint, Timestamp::UNIX_EPOCH).await.unwrap();
    statistics.pending + statistics.retrying
}

/// Tells whenever something was settled.
#[derive(Debug)]
struct Settled(std::sync::Arc<Notify>);

impl Observer for Settled {
    fn observe(&self, _: &Occurrence<'_>) {
        self.0.notify_one();
    }
}
