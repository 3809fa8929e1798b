//! Real processes that share a real PostgreSQL. The test kills processes and server again and
//! again.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]
#![expect(clippy::disallowed_methods, reason = "the seed of a failure comes by the environment")]

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use tokio::io::{BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use webhooks_core::{EndpointId, RetryPolicy, Timestamp};
use webhooks_dispatch::history::{DeliveryRecord, HistoryStore as _, Query};
use webhooks_postgres::PostgresStore;
use webhooks_registry::{
    Endpoint,
    store::{EndpointStore as _, RegisterRequest},
};
use webhooks_tests::Received;
use webhooks_tests::cluster::{Journal, judge};
use webhooks_tests::crash::{ENDPOINTS, MAX_UNSETTLED, receiver, refuses, settings, spawn};
use webhooks_tests::postgres::Cluster;

const PROCESSES: usize = 4;
const KILLS: usize = 24;

/// The largest number of attempts in flight at the endpoint that is not ordered, over all
/// processes.
const MAX_IN_FLIGHT: u32 = 6;

/// The kill after which the server crashes.
const CRASH: usize = KILLS / 2;

/// The largest number of duplicates at an endpoint because of the kills and the crash: each kill
/// repeats what the process had in flight, the crash what all processes were settling.
const MOST_REPEATED: usize = (KILLS + 2 * PROCESSES) * MAX_UNSETTLED;

/// A process, and the events that it reports as published.
struct Worker {
    life: String,
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// The state that the processes of a run share.
struct Run {
    database: String,
    /// The test's own end of the journal, and its file.
    journal: Journal,
    file: tempfile::NamedTempFile,
}

impl Run {
    fn start(&self, life: &str) -> Worker {
        let arguments = [&*self.database, self.file.path().to_str().unwrap(), life];
        let (process, lines) = spawn(env!("CARGO_BIN_EXE_cluster"), &arguments);
        Worker { life: life.to_owned(), process, lines }
    }

    /// Kills a process; the events in its last lines were accepted too.
    async fn kill(&self, mut worker: Worker, accepted: &mut BTreeSet<String>) {
        worker.process.kill().await.unwrap();
        self.journal.note_kill(&worker.life);
        while let Ok(Some(line)) = worker.lines.next_line().await {
            accepted.insert(line);
        }
    }
}

/// Returns the events that an endpoint took, in order.
fn taken_by<'r>(received: &'r [Received], endpoint: &str) -> Vec<&'r str> {
    let is_its = |request: &Received| request.uri.query() == Some(endpoint);
    let taken = (1..).zip(received).filter(|(n, request)| !refuses(*n) && is_its(request));
    taken.map(|(_, request)| request.headers["x-webhook-event-id"].to_str().unwrap()).collect()
}

/// Returns the name and the number of an event.
fn parts(id: &str) -> (&str, usize) {
    let (name, number) = id.rsplit_once('-').unwrap();
    (name, number.parse().unwrap())
}

/// Registers the endpoints, which lead to the receiver; returns them.
async fn register(store: &PostgresStore, url: &str) -> BTreeMap<EndpointId, Endpoint> {
    let mut endpoints = BTreeMap::new();
    for id in ENDPOINTS {
        let retry = RetryPolicy::fixed(Duration::from_millis(20), 1_000);
        let endpoint = Endpoint::new(&format!("{url}?{id}"), "my-secret-key").unwrap().retry(retry);
        let endpoint = if id == "ordered" {
            endpoint.ordered()
        } else {
            endpoint.max_in_flight(NonZeroU32::new(MAX_IN_FLIGHT).unwrap())
        };
        store
            .register(RegisterRequest::new(id.parse().unwrap(), endpoint.clone(), Timestamp::now()))
            .await
            .unwrap();
        endpoints.insert(id.parse().unwrap(), endpoint);
    }
    endpoints
}

/// Returns all deliveries in the store.
async fn deliveries(store: &PostgresStore) -> Vec<DeliveryRecord> {
    let mut query = Query { limit: Query::MAX_LIMIT, ..Query::default() };
    let mut all = Vec::new();
    loop {
        let page = store.deliveries(query.clone()).await.unwrap();
        all.extend(page.items);
        query.after = page.next;
        if query.after.is_none() {
            return all;
        }
    }
}

/// Goal: an event that any of the processes accepted arrives at every endpoint, whatever is killed.
/// A duplicate is explained by an attempt that was in flight. An ordered endpoint still gets the
/// events in order, and no process exceeds its bounds. Method: four processes publish and deliver
/// under load; the test kills one after another after a random number of events and replaces it; in
/// the middle the server crashes, and the processes survive that. The last process delivers what is
/// left. All processes record their actions, and the simulation's checker judges the record.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_survives_kills_of_workers_and_a_crash_of_the_server() {
    let seed = std::env::var("CRASH_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}: repeat by CRASH_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let cluster = Cluster::start(&std::env::temp_dir(), "");
    let receiver = receiver().await;
    let database = cluster.database().await;
    let store = PostgresStore::open(&database).await.unwrap();
    let endpoints = register(&store, &receiver.url()).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let journal = Journal::open(file.path(), "test");
    let run = Run { database, journal, file };
    let mut accepted = BTreeSet::new();
    let mut workers: Vec<Worker> =
        (0..PROCESSES).map(|n| run.start(&format!("first{n}"))).collect();
    for kill in 0..KILLS {
        let victim = random.usize(..PROCESSES);
        let mut left = if random.u8(..10) == 0 { 0 } else { random.usize(30..90) };
        while left > 0 {
            let line = workers[victim].lines.next_line().await.unwrap();
            accepted.insert(line.expect("it publishes until it is killed"));
            left -= 1;
        }
        let next = run.start(&format!("life{kill}"));
        run.kill(std::mem::replace(&mut workers[victim], next), &mut accepted).await;
        if kill == CRASH {
            cluster.stop();
            // Nobody claims anything before the server is back.
            run.journal.note_crash();
            cluster.resume();
        }
    }
    for worker in workers {
        run.kill(worker, &mut accepted).await;
    }
    let status = run.start("drain").process.wait().await.unwrap();
    assert!(status.success(), "{status}");
    let kept = deliveries(&store).await;
    let counters = judge(run.file.path(), &endpoints, &settings(), &kept);
    let counters = counters.unwrap_or_else(|story| {
        let (_, journal) = run.file.keep().unwrap();
        panic!("seed {seed}, journal {}:\n{story}", journal.display());
    });
    println!("{counters}");
    let received = receiver.received();
    let told = usize::try_from(counters.attempts).unwrap();
    assert!(received.len() <= told, "{} requests came, {told} were sent", received.len());
    check(&accepted, &received);
}

fn check(accepted: &BTreeSet<String>, received: &[Received]) {
    assert!(accepted.len() > MOST_REPEATED, "{} accepted: it was under load", accepted.len());
    for endpoint in ENDPOINTS {
        let taken = taken_by(received, endpoint);
        let different: BTreeSet<&str> = taken.iter().copied().collect();
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
    for id in taken_by(received, "ordered") {
        let (name, number) = parts(id);
        let before = last.insert(name, number);
        assert!(before.is_none_or(|before| before <= number), "{id} comes after {before:?}");
    }
}
