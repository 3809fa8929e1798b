//! Accepted events are delivered: a process publishes, is killed in the middle, and starts again.
//!
//! `cargo run --example durable` starts a receiver on this machine and a second process of this
//! program, which publishes 300 events into a SQLite file and delivers them. After a third of them
//! the example kills that process, without a chance to clean up. Started again, it delivers the
//! rest.
#![expect(clippy::print_stdout, reason = "an example tells what happens")]

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use webhooks_core::{EndpointId, Event, EventId, Timestamp};
use webhooks_dispatch::{
    Engine,
    clock::{Clock as _, SystemClock},
    monitor::MonitorStore as _,
};
use webhooks_http::HttpTransport;
use webhooks_registry::{Endpoint, EndpointKey, Secret};
use webhooks_sqlite::SqliteStore;
use webhooks_tests::Receiver;

type AnyError = Box<dyn Error + Send + Sync>;

const EVENTS: usize = 300;

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [store, url] => sender(Path::new(store), url).await,
        _ => story().await,
    }
}

/// The sender: what a program of yours would do.
async fn sender(store: &Path, url: &str) -> Result<(), AnyError> {
    let engine = Engine::new(SqliteStore::open(store).await?, HttpTransport::development()?);
    if engine.endpoints().get("shop").await?.is_none() {
        engine.endpoints().register("shop", Endpoint::new(url, Secret::generate())?).await?;
    }
    let worker = engine.start();
    for number in 0..EVENTS {
        // Each order has its own id, so publishing it again after a restart does nothing.
        let event = Event::new("order.paid", number)?.id(EventId::new(&format!("order-{number}"))?);
        let _accepted = engine.publish(&event).await?; // it is safe on disk now
    }
    while waiting(&engine).await? > 0 {
        SystemClock.sleep(Duration::from_millis(10)).await;
    }
    worker.shutdown(Duration::from_secs(10)).await;
    Ok(())
}

async fn waiting(engine: &Engine<SqliteStore, HttpTransport>) -> Result<u64, AnyError> {
    let shop = EndpointKey::of_default_tenant(EndpointId::new("shop")?);
    let statistics = engine.monitor().statistics(shop, Timestamp::UNIX_EPOCH).await?;
    Ok(statistics.pending + statistics.retrying)
}

async fn story() -> Result<(), AnyError> {
    let folder = tempfile::tempdir()?;
    let store = folder.path().join("webhooks.db");
    let receiver = Receiver::answering(200).await;

    println!("A sender publishes {EVENTS} events into {} and delivers them.", store.display());
    let mut process = start(&store, &receiver)?;
    while receiver.received().len() < EVENTS / 3 {
        SystemClock.sleep(Duration::from_millis(10)).await;
    }
    process.kill().await?;
    println!("After {} deliveries it is killed.", receiver.received().len());

    println!("It starts again on the same file.");
    let status = start(&store, &receiver)?.wait().await?;
    if !status.success() {
        return Err(format!("the sender failed: {status}").into());
    }

    let mut times = HashMap::<String, usize>::new();
    for request in receiver.received() {
        let id = request.headers["webhook-id"].to_str()?;
        *times.entry(id.to_owned()).or_default() += 1;
    }
    let repeated = times.values().filter(|times| **times > 1).count();
    println!("{} of {EVENTS} events arrived, {repeated} of them twice:", times.len());
    println!("they were in flight at the kill, and receivers know them by their ids.");
    let missing = EVENTS - times.len();
    if missing == 0 { Ok(()) } else { Err(format!("{missing} events are missing").into()) }
}

fn start(store: &Path, receiver: &Receiver) -> Result<Child, AnyError> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(store).arg(receiver.url()).stdin(Stdio::null()).kill_on_drop(true);
    Ok(command.spawn()?)
}
