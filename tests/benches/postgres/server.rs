//! The server's own statistics, and its cost.

use std::path::Path;

use webhooks_tests::postgres::{Cluster, connect};

use super::figures::cpu;

/// The ticks of `/proc` per second, on every Linux that matters.
const TICKS: f64 = 100.0;

pub(crate) async fn version(cluster: &Cluster) -> String {
    let url = cluster.database().await;
    let version: String =
        sqlx::query_scalar("SELECT 'PostgreSQL ' || current_setting('server_version')")
            .fetch_one(&mut connect(&url).await)
            .await
            .unwrap();
    version
}

/// Returns the processor time that this process and the server have used together, in seconds.
pub(crate) fn cpu_with(cluster: &Cluster) -> f64 {
    cpu() + server_cpu(cluster)
}

/// Returns the processor time of the server's processes, including those that have ended.
pub(crate) fn server_cpu(cluster: &Cluster) -> f64 {
    let postmaster = cluster.process();
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    processes.filter_map(|path| ticks(&path, postmaster)).sum::<f64>() / TICKS
}

/// Returns the time of a process if it is the postmaster or one of its children (proc(5),
/// "/proc/pid/stat").
fn ticks(process: &Path, postmaster: u32) -> Option<f64> {
    let is_postmaster = process.ends_with(postmaster.to_string());
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    if is_postmaster {
        return Some(field(14)? + field(15)? + field(16)? + field(17)?);
    }
    let is_child = fields.get(1)?.parse() == Ok(postmaster);
    is_child.then_some(field(14)? + field(15)?)
}

/// Returns the number of transactions committed in a database, and of statements from clients,
/// after all connections to it are closed.
pub(crate) async fn counts(url: &str) -> (f64, f64) {
    const COUNTS: &str = "
        SELECT (SELECT xact_commit::float8 FROM pg_stat_database
                WHERE datname = current_database()),
               (SELECT sum(calls)::float8 FROM pg_stat_statements s
                JOIN pg_database d ON d.oid = s.dbid WHERE datname = current_database())";
    let mut connection = connect(url).await;
    let create = "CREATE EXTENSION IF NOT EXISTS pg_stat_statements";
    sqlx::query(create).execute(&mut connection).await.unwrap();
    sqlx::query_as(COUNTS).fetch_one(&mut connection).await.unwrap()
}

/// Prints the statements that took the server's time.
pub(crate) async fn show_statements(url: &str, deliveries: f64) {
    const STATEMENTS: &str = "
        SELECT left(regexp_replace(query, '\\s+', ' ', 'g'), 60), calls::float8, total_exec_time * 1e3
        FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
        WHERE datname = current_database() ORDER BY total_exec_time DESC LIMIT 6";
    let statements = sqlx::query_as(STATEMENTS);
    let rows: Vec<(String, f64, f64)> =
        statements.fetch_all(&mut connect(url).await).await.unwrap();
    for (query, calls, micros) in rows {
        println!("{:>9.1} µs a delivery, {calls:>7} calls: {query}", micros / deliveries);
    }
}
