//! The cost of large numbers: of endpoints, of waiting deliveries, of bytes, of events of others.
//!
//! Each part compares a large number with a small one in the same run, in alternating rounds, or
//! measures a process of its own. The figures are medians. `--quick` measures smaller numbers and
//! fewer rounds, `--json` adds one flat object as the last line, and `--only=NAME` measures one part.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

mod bodies;
mod claims;
mod clocks;
mod crowd;
mod delivered;
mod endpoints;
mod fanout;
#[path = "../deliver/figures.rs"]
#[expect(dead_code, reason = "some are the other benchmarks'")]
mod figures;
mod hanging;
mod history;
mod idle;
mod place;
mod process;
mod rate;
#[path = "../deliver/receiver.rs"]
mod receiver;
mod request;

use std::path::Path;

use tempfile::TempDir;
use webhooks_tests::postgres::Cluster;

use self::crowd::Kind;
use self::figures::{Figures, has, only};
use self::receiver::Receiver;

/// The settings of a server that does nothing else: answers wait for the disk, and the log has room.
const SETTINGS: &str = "
    shared_buffers = '512MB'
    max_wal_size = '4GB'
";

fn main() {
    if has("--receiver") {
        return receiver::serve();
    }
    let provider = tokio_rustls::rustls::crypto::ring::default_provider();
    provider.install_default().unwrap();
    let is_quick = has("--quick");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let Some(arguments) = process::arguments() {
        let figures = runtime.block_on(runtime.spawn(measure_alone(arguments))).unwrap();
        return println!("{}", serde_json::json!(figures));
    }
    // In a task, as in a real program: the thread that blocks on it does not belong to the runtime.
    let figures = runtime.block_on(runtime.spawn(measure(is_quick))).unwrap();
    if has("--json") {
        println!("{}", serde_json::Value::Object(figures));
    }
}

async fn measure(is_quick: bool) -> Figures {
    let cores = std::thread::available_parallelism().unwrap();
    // On the disk that this program was built on: `/tmp` may be memory.
    let cluster = Cluster::start(Path::new(env!("CARGO_TARGET_TMPDIR")), SETTINGS);
    println!("{cores} processors; SQLite: WAL, synchronous=FULL; PostgreSQL: fsync on");
    let mut figures = Figures::new();
    let receiver = Receiver::start();
    for kind in Kind::ALL {
        if only("claims") || only("busy") {
            claims::measure(kind, &cluster, is_quick, &mut figures).await;
        }
    }
    if only("rate") {
        rate::measure(&mut figures).await;
    }
    if only("bodies") {
        bodies::measure(&cluster, &receiver, is_quick, &mut figures).await;
    }
    if only("history") {
        history::measure(&cluster, is_quick, &mut figures).await;
    }
    if only("endpoints") {
        endpoints::measure(&cluster, is_quick, &mut figures).await;
    }
    if only("idle") {
        idle::measure(&cluster, is_quick, &mut figures).await;
    }
    if only("hanging") {
        hanging::measure(&cluster, &receiver, is_quick, &mut figures).await;
    }
    if only("fanout") {
        fanout::measure(&cluster, is_quick, &mut figures).await;
    }
    figures
}

/// Measures what a process of its own measures.
async fn measure_alone(arguments: Vec<String>) -> Vec<f64> {
    match &*arguments[0] {
        "bodies" => bodies::run(&arguments[1..]).await,
        "endpoints" => endpoints::run(&arguments[1..]).await,
        "idle" => idle::run(&arguments[1..]).await,
        part => unreachable!("{part} needs no process"),
    }
}

/// Returns a folder on the disk that this program was built on: `/tmp` may be memory.
fn folder() -> TempDir {
    tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap()
}
