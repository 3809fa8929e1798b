//! Real processes on a real store, killed again and again while operators change endpoints.
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test")]
#![expect(clippy::disallowed_methods, reason = "the seed of a failure comes by the environment")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use fastrand::Rng;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use webhooks_tests::crash::MAX_UNSETTLED;
use webhooks_tests::operator::{after, endpoints_of};
use webhooks_tests::postgres::Cluster;
use webhooks_tests::{Received, Receiver};

/// A process, and what it says.
struct Running {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(store: &str, url: &str, operator: usize, life: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_crash"));
        command.args([store, url, &operator.to_string(), life]).stdin(Stdio::null());
        let mut process = command.kill_on_drop(true).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// Follows until this many events were accepted.
    async fn accept(&mut self, story: &mut Story, mut events: usize) {
        while events > 0 {
            let line = self.lines.next_line().await.unwrap();
            let line = line.unwrap(); // It publishes until it is killed.
            events -= usize::from(story.follow(&line));
        }
    }

    /// Kills the process. What it said before it died is so.
    async fn kill(mut self, story: &mut Story) {
        self.process.kill().await.unwrap();
        while let Ok(Some(line)) = self.lines.next_line().await {
            story.follow(&line);
        }
    }

    async fn end(mut self, story: &mut Story) {
        while let Some(line) = self.lines.next_line().await.unwrap() {
            story.follow(&line);
        }
        let status = self.process.wait().await.unwrap();
        assert!(status.success(), "{status}");
    }
}

/// What is known of the state of an endpoint.
#[derive(Debug)]
struct State {
    told: String,
    /// What was begun and not ended.
    begun: Option<String>,
    /// What was begun by a process that was killed, and had not come about when the next one looked: a
    /// database may carry it out a little later.
    late: Option<String>,
}

/// What the processes have said.
#[derive(Default)]
struct Story {
    accepted: BTreeSet<String>,
    states: BTreeMap<String, State>,
    cancelled: BTreeSet<String>,
    /// What the last process found cancelled.
    kept: BTreeSet<String>,
    changes: usize,
}

impl Story {
    /// Follows a line; returns whether it told of an event.
    fn follow(&mut self, line: &str) -> bool {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["accepted", id] => return self.accepted.insert(id.to_owned()),
            ["found", endpoint, state] => {
                let gone = || State { told: "gone".to_owned(), begun: None, late: None };
                let known = self.states.entry(endpoint.to_owned()).or_insert_with(gone);
                let begun = known.begun.take();
                let changed =
                    begun.as_deref().map_or(&*known.told, |begun| after(&known.told, begun));
                let why = format!("{endpoint}: {known:?}, {begun:?} was begun, now {state}");
                assert!([&*known.told, changed].contains(&state), "{why}");
                known.late = begun.filter(|_| state == known.told);
                state.clone_into(&mut known.told);
            }
            ["begin", endpoint, change] => {
                self.states.get_mut(endpoint).unwrap().begun = Some(change.to_owned());
            }
            ["state", endpoint, state] => {
                let known = self.states.get_mut(endpoint).unwrap();
                let change = known.begun.take().unwrap();
                let changed = after(&known.told, &change);
                if changed != state {
                    let late = known.late.take().unwrap_or_default();
                    let orders = [after(after(&known.told, &late), &change), after(changed, &late)];
                    assert!(
                        orders.contains(&state),
                        "{endpoint}: {known:?}, {change}, now {state}"
                    );
                }
                state.clone_into(&mut known.told);
                self.changes += 1;
            }
            ["cancelled", delivery] => {
                self.cancelled.insert(delivery.to_owned());
            }
            ["cancelled-kept", delivery] => {
                self.kept.insert(delivery.to_owned());
            }
            _ => panic!("{line:?} is no line of a process"),
        }
        false
    }
}

/// Whether the receiver refuses its n-th request, so that retries are under way too.
fn refuses(n: usize) -> bool {
    n.is_multiple_of(7)
}

/// Returns how often an endpoint took each event.
fn taken_by(received: &[Received], endpoint: &str) -> BTreeMap<String, usize> {
    let mut taken = BTreeMap::new();
    for (n, request) in (1..).zip(received) {
        if !refuses(n) && request.uri.query() == Some(endpoint) {
            let id = request.headers["x-webhook-event-id"].to_str().unwrap();
            *taken.entry(id.to_owned()).or_default() += 1;
        }
    }
    taken
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// Returns the source of a run's randomness, and tells how to repeat it.
fn random() -> Rng {
    let seed: u64 = setting("CRASH_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}: repeat by CRASH_SEED={seed}");
    Rng::with_seed(seed)
}

/// Runs processes that are killed, one of each operator at a time, and the one that delivers what is
/// left; returns what they said, and what came.
async fn run(store: &str, operators: usize, kills: usize) -> (Story, Vec<Received>) {
    let mut random = random();
    let receiver = Receiver::start(move |n, _| {
        let code = if refuses(n) { 503 } else { 200 };
        http::Response::builder().status(code).body(http_body_util::Full::default()).unwrap()
    })
    .await;
    let url = receiver.url();
    let mut story = Story::default();
    // Nobody publishes before all steady endpoints are there.
    Running::start(store, &url, operators, "begin").end(&mut story).await;
    let start = |operator, life, seed: u32| {
        Running::start(store, &url, operator, &format!("life{life}-{seed}"))
    };
    let mut all: Vec<Running> =
        (0..operators).map(|operator| start(operator, operator, random.u32(..))).collect();
    for kill in 0..kills {
        let victim = random.usize(..operators);
        let events = if random.u8(..10) == 0 { 0 } else { random.usize(1..150) };
        all[victim].accept(&mut story, events).await;
        // The file is free only once its process is gone.
        all.swap_remove(victim).kill(&mut story).await;
        all.push(start(victim, operators + kill, random.u32(..)));
        all.swap(victim, operators - 1);
    }
    for process in all {
        process.kill(&mut story).await;
    }
    Running::start(store, &url, operators, "drain").end(&mut story).await;
    (story, receiver.received())
}

/// Checks that all that was accepted came to all endpoints; returns how much came to the steady ones
/// more than once.
fn check(story: &Story, received: &[Received], operators: usize, kills: usize) -> usize {
    let Story { accepted, cancelled, kept, changes, .. } = story;
    println!("{kills} kills, {changes} changes, {} cancelled one by one", cancelled.len());
    assert!(accepted.len() > kills, "it was under load");
    assert!(*changes > kills && !cancelled.is_empty(), "it was operated");
    let revived: Vec<&String> = cancelled.difference(kept).collect();
    assert!(revived.is_empty(), "cancelled, and open again: {revived:?}");
    let mut steady = 0;
    for operator in 0..operators {
        for endpoint in endpoints_of(operator) {
            let taken = taken_by(received, &endpoint);
            let lost: Vec<&String> =
                accepted.iter().filter(|id| !taken.contains_key(*id)).collect();
            let repeated: usize = taken.values().map(|times| times - 1).sum();
            let (accepted, taken) = (accepted.len(), taken.len());
            println!("{endpoint}: {accepted} accepted, {taken} taken, {repeated} repeated");
            assert!(lost.is_empty(), "accepted and never delivered to {endpoint}: {lost:?}");
            steady += if endpoint.starts_with("steady") { repeated } else { 0 };
        }
    }
    steady
}

/// Goal: what was accepted arrives, whatever kills the process and whatever an operator does to the
/// endpoints meanwhile; what the operator was told is so after the kill; and a kill repeats no more than
/// was in flight. Method: a process publishes, delivers and is operated under load; after a random
/// number of events it is killed, 50 times over, so that kills fall into commits, exchanges, changes
/// and start-ups. The receiver refuses every seventh request, so that retries are under way too. The
/// last process replays what one endpoint did not get while it was disabled or unregistered, and
/// delivers what is left.
#[tokio::test]
async fn what_was_accepted_survives_fifty_kills() {
    let kills = usize::try_from(setting("CRASH_KILLS").unwrap_or(50)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("crash.db");
    let (story, received) = run(store.to_str().unwrap(), 1, kills).await;
    let repeated = check(&story, &received, 1, kills);
    assert!(repeated <= (kills + 1) * MAX_UNSETTLED, "{repeated} repeated by {kills} kills");
}

/// Goal: the same with processes that share a database, each with an operator of its own.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_survives_operators_and_kills_on_one_database() {
    const PROCESSES: usize = 3;
    let kills = usize::try_from(setting("CRASH_KILLS").unwrap_or(50)).unwrap() / 3;
    let cluster = Cluster::start(&std::env::temp_dir(), "");
    let database = cluster.database().await;
    let (story, received) = run(&database, PROCESSES, kills).await;
    check(&story, &received, PROCESSES, kills);
}
