//! The constants and functions that the crash tests and the processes they kill share.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use webhooks_dispatch::EngineSettings;
use webhooks_postgres::{PostgresOptions, PostgresStore};

use crate::Receiver;

/// The number of tasks that publish at once.
pub const PUBLISHERS: usize = 4;

/// The number of attempts in flight at once.
pub const CONCURRENCY: usize = 8;

/// The largest number of attempts that are in flight or not settled, which one kill can repeat.
pub const MAX_UNSETTLED: usize = 24;

/// The endpoints of the test with many processes: one without order, and one ordered.
pub const ENDPOINTS: [&str; 2] = ["free", "ordered"];

/// The lease of claims. Other workers deliver a killed process's claims after it ends.
pub const LEASE: Duration = Duration::from_secs(5);

/// Returns the settings of the engines that are killed.
pub fn settings() -> EngineSettings {
    EngineSettings {
        concurrency: CONCURRENCY,
        max_unsettled: MAX_UNSETTLED,
        linger: Duration::from_millis(2),
        lease: LEASE,
        ..EngineSettings::default()
    }
}

/// The wait before a failed call is tried again, or a condition is checked again.
pub const PAUSE: Duration = Duration::from_millis(100);

/// Opens a store, and tries again while the server is down.
///
/// # Panics
/// If this is no URL of a database.
pub async fn open(database: &str) -> PostgresStore {
    let options = PostgresOptions::new(database).expect("a URL").heartbeat(PAUSE);
    let mut ticks = tokio::time::interval(PAUSE);
    loop {
        ticks.tick().await;
        if let Ok(store) = options.clone().open().await {
            return store;
        }
    }
}

/// Starts a process that is to be killed; returns it, and its output.
///
/// # Panics
/// If it cannot be started.
pub fn spawn(program: &str, arguments: &[&str]) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut command = Command::new(program);
    let command = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = command.kill_on_drop(true).spawn().expect("it starts");
    let lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
    (process, lines)
}

/// Whether the receiver refuses its n-th request, so that kills meet retries too.
pub fn refuses(n: usize) -> bool {
    n.is_multiple_of(7)
}

/// Starts that receiver.
///
/// # Panics
/// If no port is free.
pub async fn receiver() -> Receiver {
    Receiver::start(move |n, _| {
        let code = if refuses(n) { 503 } else { 200 };
        let response = http::Response::builder().status(code);
        response.body(http_body_util::Full::default()).expect("a response")
    })
    .await
}
