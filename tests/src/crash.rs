//! What the tests that kill processes and these processes agree on.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use webhooks_dispatch::EngineSettings;
use webhooks_postgres::{PostgresOptions, PostgresStore};

use crate::Receiver;

/// How many tasks publish at once.
pub const PUBLISHERS: usize = 4;

/// How many exchanges are in flight at once.
pub const CONCURRENCY: usize = 8;

/// How many exchanges may be in flight or not settled yet: what one kill can repeat.
pub const MAX_UNSETTLED: usize = 24;

/// The endpoints of the test with many processes: one as usual, one in order.
pub const ENDPOINTS: [&str; 2] = ["free", "ordered"];

/// How long claims last: what a killed process held is delivered by others after that.
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

/// How long to wait before what failed is tried again, or looked at again.
pub const PAUSE: Duration = Duration::from_millis(100);

/// Opens a store; again if the server happens to be down.
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

/// Starts a process that is to be killed; returns it, and what it says.
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

/// Whether the receiver refuses its n-th request, so that retries are under way too.
pub fn refuses(n: usize) -> bool {
    n.is_multiple_of(7)
}

/// Starts that receiver.
///
/// # Panics
/// If there is no port for it.
pub async fn receiver() -> Receiver {
    Receiver::start(move |n, _| {
        let code = if refuses(n) { 503 } else { 200 };
        let response = http::Response::builder().status(code);
        response.body(http_body_util::Full::default()).expect("a response")
    })
    .await
}
