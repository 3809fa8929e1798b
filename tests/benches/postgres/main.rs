//! The cost of a delivery with PostgreSQL, compared with a bare loop of HTTP requests to the same
//! receiver.
//!
//! This takes the receiver and the rounds of the benchmark `deliver`. The server is a private one,
//! and its processor time counts. `--quick` measures less of each, `--json` adds one flat object as
//! the last line.
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a benchmark")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

mod backlog;
mod churn;
#[path = "../deliver/figures.rs"]
mod figures;
#[path = "../deliver/receiver.rs"]
#[expect(dead_code, reason = "latencies are the other benchmark's")]
mod receiver;
#[path = "../deliver/rounds.rs"]
mod rounds;
mod server;
mod throughput;

use std::path::Path;

use webhooks_tests::postgres::Cluster;

use self::figures::{Figures, has, only};
use self::receiver::Receiver;

/// The settings of a server that does nothing else: answers wait for the disk, the log has room,
/// and statements are counted.
const SETTINGS: &str = "
    shared_buffers = '512MB'
    max_wal_size = '4GB'
    shared_preload_libraries = 'pg_stat_statements'
";

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
        // On the disk that this program was built on: `/tmp` may be memory.
        let cluster = Cluster::start(Path::new(env!("CARGO_TARGET_TMPDIR")), SETTINGS);
        println!("{cores} processors; {}; fsync on", server::version(&cluster).await);
        let mut figures = Figures::new();
        let receiver = Receiver::start();
        if only("throughput") {
            throughput::measure(&cluster, &receiver, is_quick, &mut figures).await;
        }
        if only("backlog") {
            backlog::measure(&cluster, is_quick, &mut figures).await;
        }
        if only("churn") {
            churn::measure(&cluster, is_quick).await;
        }
        figures
    });
    let figures = runtime.block_on(measured).unwrap();
    if has("--json") {
        println!("{}", serde_json::Value::Object(figures));
    }
}
