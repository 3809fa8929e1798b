//! The cost of the service beside a bare loop of HTTP requests to the same receiver: events come in and go
//! out over HTTP.
//!
//! The service, the receiver and the publishers are three processes on one machine, over HTTP/1.1 on
//! loopback. The service keeps its rows in SQLite, and has 32 requests in flight. A body has the same
//! 500 bytes on both sides. Rounds alternate with the bare loop, and the figures are medians. `--quick`
//! measures less of each, `--json` adds one flat object as the last line, and `--only=NAME` measures
//! one part.
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a benchmark")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

mod accept;
mod arrivals;
mod axum_alone;
mod connection;
mod deliver;
#[path = "../deliver/figures.rs"]
#[expect(dead_code, reason = "some are the other benchmarks'")]
mod figures;
mod footprint;
mod latency;
#[path = "../deliver/receiver.rs"]
mod receiver;
#[path = "../deliver/rounds.rs"]
#[expect(dead_code, reason = "the rounds of an engine are the other benchmark's")]
mod rounds;
mod service;

use std::path::Path;

use tempfile::TempDir;

use self::figures::{Figures, has, only};
use self::receiver::Receiver;

fn main() {
    if has("--receiver") {
        return receiver::serve();
    }
    if has("--axum-alone") {
        return axum_alone::serve();
    }
    let provider = tokio_rustls::rustls::crypto::ring::default_provider();
    provider.install_default().unwrap();
    let is_quick = has("--quick");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    // In a task, as in a real program: the thread that blocks on it does not belong to the runtime.
    let figures = runtime.block_on(runtime.spawn(measure(is_quick))).unwrap();
    if has("--json") {
        println!("{}", serde_json::Value::Object(figures));
    }
}

async fn measure(is_quick: bool) -> Figures {
    let cores = std::thread::available_parallelism().unwrap();
    let place = folder();
    println!("{cores} processors; SQLite: WAL, synchronous=FULL; in {}", place.path().display());
    let mut figures = Figures::new();
    let receiver = Receiver::start();
    if only("deliver") {
        deliver::measure(&receiver, is_quick, &mut figures).await;
    }
    if only("accept") {
        accept::measure(&receiver, is_quick, &mut figures).await;
    }
    if only("latency") {
        latency::measure(&receiver, is_quick, &mut figures).await;
    }
    if only("footprint") {
        footprint::measure(&receiver, is_quick, &mut figures).await;
    }
    figures
}

/// Returns a folder on the disk that this program was built on: `/tmp` may be memory.
fn folder() -> TempDir {
    tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap()
}
