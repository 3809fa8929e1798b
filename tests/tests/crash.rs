//! A real process on a real file, killed again and again.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]
#![expect(clippy::disallowed_methods, reason = "the seed of a failure comes by the environment")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use webhooks_tests::Receiver;
use webhooks_tests::crash::MAX_UNSETTLED;

const KILLS: usize = 50;

fn process(store: &Path, url: &str, life: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crash"));
    let command = command.arg(store).arg(url).arg(life).stdin(Stdio::null()).kill_on_drop(true);
    command.stdout(Stdio::piped()).spawn().unwrap()
}

/// Goal: what was accepted arrives, whatever kills the process, and a kill repeats no more than
/// was in flight. Method: a process publishes and delivers under load; after a random number of
/// events it is killed, 50 times over, so that kills fall into commits, exchanges and start-ups.
/// The receiver refuses every seventh request, so that retries are under way too. The last process
/// delivers what is left.
#[tokio::test]
async fn what_was_accepted_survives_fifty_kills() {
    let seed = std::env::var("CRASH_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}: repeat by CRASH_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("crash.db");
    let refuses = |n: usize| n.is_multiple_of(7);
    let receiver = Receiver::start(move |n, _| {
        let code = if refuses(n) { 503 } else { 200 };
        http::Response::builder().status(code).body(http_body_util::Full::default()).unwrap()
    })
    .await;
    let mut accepted = BTreeSet::new();
    for life in 0..KILLS {
        let mut process = process(&store, &receiver.url(), &format!("life{life}"));
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut left = if random.u8(..10) == 0 { 0 } else { random.usize(1..150) };
        while left > 0 {
            let line = lines.next_line().await.unwrap();
            accepted.insert(line.expect("it publishes until it is killed"));
            left -= 1;
        }
        process.kill().await.unwrap();
        // What it said before it died was accepted too; a line that broke off may not have been.
        while let Ok(Some(line)) = lines.next_line().await {
            accepted.insert(line);
        }
    }
    let status = process(&store, &receiver.url(), "drain").wait().await.unwrap();
    assert!(status.success(), "{status}");

    let mut taken = BTreeMap::<String, usize>::new();
    for (n, request) in (1..).zip(receiver.received()) {
        if !refuses(n) {
            let id = request.headers["x-webhook-event-id"].to_str().unwrap();
            *taken.entry(id.to_owned()).or_default() += 1;
        }
    }
    let lost: Vec<&String> = accepted.iter().filter(|id| !taken.contains_key(*id)).collect();
    let repeated: usize = taken.values().map(|times| times - 1).sum();
    println!("{} accepted, {} taken, {repeated} repeated", accepted.len(), taken.len());
    assert!(lost.is_empty(), "accepted and never delivered: {lost:?}");
    assert!(accepted.len() > KILLS, "it was under load");
    assert!(repeated <= KILLS * MAX_UNSETTLED, "{repeated} repeated by {KILLS} kills");
}
