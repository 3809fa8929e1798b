//! Real processes that share a real PostgreSQL, killed again and again, and so is the server.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]
#![expect(clippy::disallowed_methods, reason = "the seed of a failure comes by the environment")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use webhooks_core::{RetryPolicy, Timestamp};
use webhooks_postgres::PostgresStore;
use webhooks_registry::{Endpoint, EndpointStore as _};
use webhooks_tests::crash::{ENDPOINTS, LEASE, MAX_UNSETTLED};
use webhooks_tests::postgres::Cluster;
use webhooks_tests::{Received, Receiver};

const PROCESSES: usize = 4;
const KILLS: usize = 24;

/// The kill after which the server crashes.
const CRASH: usize = KILLS / 2;

/// What the kills and the crash can repeat at an endpoint at most: each kill what the process had in
/// flight, the crash what all of them were settling.
const MOST_REPEATED: usize = (KILLS + 2 * PROCESSES) * MAX_UNSETTLED;

/// How long it may take to settle what was taken, on a machine that is busy.
const SETTLING: Duration = Duration::from_secs(2);

/// A process, and what it says it published.
struct Worker {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

fn start(database: &str, life: &str) -> Worker {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cluster"));
    let command = command.arg(database).arg(life).stdin(Stdio::null()).kill_on_drop(true);
    let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    Worker { process, lines }
}

impl Worker {
    /// Kills the process; what it said before it died was accepted too.
    async fn kill(mut self, accepted: &mut BTreeSet<String>) {
        self.process.kill().await.unwrap();
        while let Ok(Some(line)) = self.lines.next_line().await {
            accepted.insert(line);
        }
    }
}

/// Whether the receiver refuses its n-th request, so that retries are under way too.
fn refuses(n: usize) -> bool {
    n.is_multiple_of(7)
}

/// Returns what an endpoint took, in order, each with the number of its request.
fn taken_by<'r>(received: &'r [Received], endpoint: &str) -> Vec<(usize, &'r str)> {
    let is_its = |request: &Received| request.uri.query() == Some(endpoint);
    let taken = (1..).zip(received).filter(|(n, request)| !refuses(*n) && is_its(request));
    taken.map(|(n, request)| (n, request.headers["x-webhook-event-id"].to_str().unwrap())).collect()
}

/// When each request came, by its number from 1; and when something was killed.
#[derive(Default)]
struct Times {
    requests: BTreeMap<usize, Timestamp>,
    kills: Vec<Timestamp>,
}

impl Times {
    /// Notes that something is killed now.
    fn kill(&mut self, what: &str) {
        let now = Timestamp::now();
        println!("{now}: {what} is killed");
        self.kills.push(now);
    }

    /// Returns whether a kill explains that what was taken by this request is taken once more: it
    /// was claimed then, and perhaps not settled yet.
    fn explain(&self, request: usize) -> bool {
        let taken_at = self.requests[&request];
        let until = taken_at + LEASE + SETTLING;
        self.kills.iter().any(|killed_at| (taken_at..=until).contains(killed_at))
    }
}

/// Returns the name and the number of an event.
fn parts(id: &str) -> (&str, usize) {
    let (name, number) = id.rsplit_once('-').unwrap();
    (name, number.parse().unwrap())
}

/// Goal: what any of the processes accepted arrives at every endpoint, whatever is killed; what
/// arrives twice is explained by what was in flight; and an ordered endpoint gets the events of each
/// publisher in order all the same. Method: four processes publish and deliver under load; one after
/// another is killed after a random number of events and replaced; in the middle the server crashes,
/// which the processes survive. The last process delivers what is left.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_survives_kills_of_workers_and_a_crash_of_the_server() {
    let seed = std::env::var("CRASH_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}: repeat by CRASH_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let cluster = Cluster::start(&std::env::temp_dir(), "");
    let times = Arc::new(Mutex::new(Times::default()));
    let seen = Arc::clone(&times);
    let receiver = Receiver::start(move |n, _| {
        seen.lock().unwrap().requests.insert(n, Timestamp::now());
        let code = if refuses(n) { 503 } else { 200 };
        http::Response::builder().status(code).body(http_body_util::Full::default()).unwrap()
    })
    .await;
    let database = cluster.database().await;
    let store = PostgresStore::open(&database).await.unwrap();
    for endpoint in ENDPOINTS {
        let retry = RetryPolicy::fixed(Duration::from_millis(20), 1_000);
        let url = format!("{}?{endpoint}", receiver.url());
        let settings = Endpoint::new(&url, "my-secret-key").unwrap().retry(retry);
        let settings = if endpoint == "ordered" { settings.ordered() } else { settings };
        store.register(endpoint.parse().unwrap(), settings).await.unwrap();
    }
    let mut accepted = BTreeSet::new();
    let mut workers: Vec<Worker> =
        (0..PROCESSES).map(|n| start(&database, &format!("first{n}"))).collect();
    for kill in 0..KILLS {
        let victim = random.usize(..PROCESSES);
        let mut left = if random.u8(..10) == 0 { 0 } else { random.usize(30..90) };
        while left > 0 {
            let line = workers[victim].lines.next_line().await.unwrap();
            accepted.insert(line.expect("it publishes until it is killed"));
            left -= 1;
        }
        let next = start(&database, &format!("life{kill}"));
        std::mem::replace(&mut workers[victim], next).kill(&mut accepted).await;
        times.lock().unwrap().kill(&format!("process {victim}"));
        if kill == CRASH {
            cluster.crash();
            times.lock().unwrap().kill("the server");
        }
    }
    for worker in workers {
        worker.kill(&mut accepted).await;
        times.lock().unwrap().kill("the last of the processes");
    }
    let status = start(&database, "drain").process.wait().await.unwrap();
    assert!(status.success(), "{status}");
    check(&accepted, &receiver.received(), &times.lock().unwrap());
}

fn check(accepted: &BTreeSet<String>, received: &[Received], times: &Times) {
    assert!(accepted.len() > 2 * MOST_REPEATED, "{} accepted: it was under load", accepted.len());
    for endpoint in ENDPOINTS {
        let taken = taken_by(received, endpoint);
        let mut last_taken = BTreeMap::new();
        for (request, id) in &taken {
            let before = last_taken.insert(*id, *request);
            let is_explained = before.is_none_or(|before| times.explain(before));
            assert!(is_explained, "{id} was taken again by {endpoint}, and nothing was killed");
        }
        let different: BTreeSet<&str> = taken.iter().map(|(_, id)| *id).collect();
        let lost: Vec<&String> =
            accepted.iter().filter(|id| !different.contains(id.as_str())).collect();
        let repeated = taken.len() - different.len();
        println!(
            "{endpoint}: {} accepted, {} taken, {repeated} repeated",
            accepted.len(),
            taken.len()
        );
        assert!(lost.is_empty(), "accepted and never delivered to {endpoint}: {lost:?}");
        assert!(repeated <= MOST_REPEATED, "{repeated} repeated, {MOST_REPEATED} explained");
    }
    let mut last = BTreeMap::new();
    for (_, id) in taken_by(received, "ordered") {
        let (name, number) = parts(id);
        let before = last.insert(name, number);
        assert!(before.is_none_or(|before| before <= number), "{id} comes after {before:?}");
    }
}
