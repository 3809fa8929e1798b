//! The cost of a delivery, compared with a bare loop of HTTP requests to the same receiver.
//!
//! The receiver is a second process of this program. All sides send the same 500 bytes over
//! HTTP/1.1 on loopback with 32 requests in flight, in alternating rounds. The figures are medians;
//! only their ratios count. `--quick` measures less of each, `--json` adds one flat object as the
//! last line.
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a benchmark")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

mod allocations;
mod backlog;
mod figures;
mod latency;
mod publish;
mod receiver;
mod rounds;
mod throughput;

use std::path::Path;

use tempfile::TempDir;

use self::figures::{
    CONCURRENCY, Figures, PAID, cpu, endpoint, event, float, has, median, note, only, settlements,
};
use self::receiver::Receiver;

fn main() {
    if has("--receiver") {
        return receiver::serve();
    }
    let provider = tokio_rustls::rustls::crypto::ring::default_provider();
    provider.install_default().unwrap();
    let is_quick = has("--quick");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    // In a task, as in a real program: the thread that blocks on it does not belong to the runtime.
    let measured = runtime.spawn(async move {
        let cores = std::thread::available_parallelism().unwrap();
        println!(
            "{cores} processors; SQLite: WAL, synchronous=FULL; in {}",
            folder().path().display()
        );
        let mut figures = Figures::new();
        let receiver = Receiver::start();
        if only("throughput") {
            throughput::measure(&receiver, is_quick, &mut figures).await;
        }
        if only("publish") {
            publish::measure(is_quick, &mut figures).await;
        }
        if only("backlog") {
            backlog::measure(is_quick, &mut figures).await;
        }
        if only("latency") {
            latency::measure(&receiver, is_quick, &mut figures).await;
        }
        figures
    });
    let mut figures = runtime.block_on(measured).unwrap();
    if only("allocations") {
        allocations::measure(&mut figures);
    }
    if has("--json") {
        println!("{}", serde_json::Value::Object(figures));
    }
}

/// Returns a folder on the disk that this program was built on: `/tmp` may be memory.
fn folder() -> TempDir {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tempfile::tempdir_in(target).unwrap()
}
