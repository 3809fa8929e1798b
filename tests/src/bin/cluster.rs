//! One of the processes that share a PostgreSQL in the cluster test: it publishes and delivers until
//! it is killed.
//!
//! `cluster DATABASE JOURNAL LIFE` publishes events, one after another, and writes the id of each
//! on its own line once it is accepted. `cluster DATABASE JOURNAL drain` publishes nothing,
//! delivers what is left, and ends.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test's other half")]

use std::io::Write as _;
use std::time::Duration;

use tokio::time::interval;
use webhooks_core::{EndpointId, Event, EventId, Timestamp};
use webhooks_dispatch::{Engine, monitor::MonitorStore as _};
use webhooks_http::HttpTransport;
use webhooks_registry::EndpointKey;
use webhooks_tests::cluster::{Journal, RecordingStore, RecordingTransport};
use webhooks_tests::crash::{ENDPOINTS, PAUSE, open, settings};

type ClusterEngine = Engine<RecordingStore, RecordingTransport>;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [database, journal, life] = &arguments[..] else {
        return println!("usage: cluster DATABASE JOURNAL LIFE|drain");
    };
    let journal = Journal::open(journal.as_ref(), life);
    let store = open(database).await;
    let transport = HttpTransport::development().unwrap();
    let transport = RecordingTransport::new(transport, journal.clone());
    let engine = Engine::builder(RecordingStore::new(store.clone(), journal), transport)
        .settings(settings())
        .build();
    let worker = engine.start();
    if life == "drain" {
        let mut ticks = interval(PAUSE);
        while open_deliveries(&engine).await != Some(0) {
            ticks.tick().await;
        }
        worker.shutdown(Duration::from_secs(10)).await;
        return store.close().await;
    }
    publish(&engine, life).await;
}

/// Publishes until killed, and prints each accepted id. An event that fails is published again: the
/// store may have accepted it all the same.
async fn publish(engine: &ClusterEngine, name: &str) {
    let mut ticks = interval(PAUSE);
    for number in 0.. {
        let id = format!("{name}-{number}");
        let event = Event::new("order.paid", number).unwrap().id(EventId::new(&id).unwrap());
        while engine.publish(&event).await.is_err() {
            ticks.tick().await;
        }
        let mut out = std::io::stdout().lock();
        writeln!(out, "{id}").unwrap();
        out.flush().unwrap();
    }
}

/// Returns how many deliveries are pending or in flight; `None` if the store cannot answer now.
async fn open_deliveries(engine: &ClusterEngine) -> Option<u64> {
    let mut open = 0;
    for endpoint in ENDPOINTS {
        let endpoint = EndpointKey::of_default_tenant(EndpointId::new(endpoint).unwrap());
        let statistics = engine.monitor().statistics(endpoint, Timestamp::UNIX_EPOCH).await.ok()?;
        open += statistics.pending + statistics.retrying;
    }
    Some(open)
}
