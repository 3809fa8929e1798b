//! Real processes on a real store, killed again and again while operators change endpoints.
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test")]
#![expect(clippy::disallowed_methods, reason = "the seed of a failure comes by the environment")]

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use tokio::io::{BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use webhooks_tests::Received;
use webhooks_tests::crash::{MAX_UNSETTLED, receiver, refuses, spawn};
use webhooks_tests::operator::{after, endpoints_of};
use webhooks_tests::postgres::Cluster;

/// A process, and its output.
struct Running {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(store: &str, url: &str, operator: usize, life: &str) -> Self {
        let arguments = [store, url, &operator.to_string(), life];
        let (process, lines) = spawn(env!("CARGO_BIN_EXE_crash"), &arguments);
        Self { process, lines }
    }

    /// Follows the process until it has accepted `events` more events.
    async fn accept(&mut self, story: &mut Story, mut events: usize) {
        while events > 0 {
            let line = self.lines.next_line().await.unwrap();
            let line = line.unwrap(); // It publishes until it is killed.
            events -= usize::from(story.follow(&line));
        }
    }

    /// Kills the process. Its last lines count.
    async fn kill(mut self, story: &mut Story) {
        self.process.kill().await.unwrap();
        while let Ok(Some(line)) = self.lines.next_line().await {
            story.follow(&line);
        }
        story.lose_flights();
    }

    async fn end(mut self, story: &mut Story) {
        while let Some(line) = self.lines.next_line().await.unwrap() {
            story.follow(&line);
        }
        let status = self.process.wait().await.unwrap();
        assert!(status.success(), "{status}");
    }
}

/// The known state of an endpoint.
#[derive(Debug)]
struct State {
    told: String,
    /// The change that was begun and has not ended.
    begun: Option<String>,
    /// A change that a killed process had begun, and that was not there when the next process
    /// looked: a database may carry it out a little later.
    late: Option<String>,
}

/// A delivery whose cancellation was answered.
#[derive(Debug)]
struct Cancelled {
    event: String,
    /// Whether one attempt of it may still be in flight, in the process that cancelled it.
    may_be_in_flight: bool,
}

/// The lines of the processes.
#[derive(Default)]
struct Story {
    accepted: BTreeSet<String>,
    states: BTreeMap<String, State>,
    /// The cancelled deliveries, by endpoint and delivery, except those that a replay had to make
    /// due.
    cancelled: BTreeMap<(String, String), Cancelled>,
    /// The deliveries that the last process found cancelled, by endpoint and delivery.
    kept: BTreeSet<(String, String)>,
    /// Whether lines of several processes are mixed, so that `sent` and `cancelled` have no order.
    is_shared: bool,
    changes: usize,
    cancels: usize,
    /// The number of deliveries that were due again after each kind of replay.
    replays: BTreeMap<String, usize>,
}

impl Story {
    /// Follows a line; returns whether it reports an accepted event.
    fn follow(&mut self, line: &str) -> bool {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["accepted", id] => return self.accepted.insert(id.to_owned()),
            ["found", endpoint, state] => self.find(endpoint, state),
            ["begin", endpoint, change] => self.begin(endpoint, change),
            ["state", endpoint, state] => self.change(endpoint, state),
            ["cancelled", endpoint, delivery, event] => {
                self.cancels += 1;
                // A database may carry out a replay of the process before a little later.
                let late = self.states[endpoint].late.as_deref().unwrap_or_default();
                if !revives(late) {
                    let key = (endpoint.to_owned(), delivery.to_owned());
                    let event = event.to_owned();
                    self.cancelled.insert(key, Cancelled { event, may_be_in_flight: true });
                }
            }
            ["cancelled-kept", endpoint, delivery] => {
                self.kept.insert((endpoint.to_owned(), delivery.to_owned()));
            }
            ["replayed", endpoint, replay, ended, answered, due] => {
                let numbers = [ended, answered, due].map(|number| number.parse().unwrap());
                self.replay(endpoint, replay, numbers);
            }
            ["sent", endpoint, event] if !self.is_shared => self.send(endpoint, event),
            ["sent", ..] => {}
            _ => panic!("{line:?} is no line of a process"),
        }
        false
    }

    fn find(&mut self, endpoint: &str, state: &str) {
        let gone = || State { told: "gone".to_owned(), begun: None, late: None };
        let known = self.states.entry(endpoint.to_owned()).or_insert_with(gone);
        let begun = known.begun.take();
        let changed =
            begun.as_ref().map_or_else(|| known.told.clone(), |begun| after(&known.told, begun));
        let why = format!("{endpoint}: {known:?}, {begun:?} was begun, now {state}");
        assert!([&*known.told, &*changed].contains(&state), "{why}");
        known.late = begun.filter(|_| state == known.told);
        state.clone_into(&mut known.told);
    }

    fn begin(&mut self, endpoint: &str, change: &str) {
        self.states.get_mut(endpoint).unwrap().begun = Some(change.to_owned());
        if change == "replay-all" {
            let lost = |key: &&(String, String)| key.0 == endpoint && !self.kept.contains(*key);
            let revived: Vec<_> = self.cancelled.keys().filter(lost).collect();
            assert!(revived.is_empty(), "cancelled, and open again: {revived:?}");
        }
        if revives(change) {
            self.cancelled.retain(|(of, _), _| of != endpoint);
        }
    }

    fn change(&mut self, endpoint: &str, state: &str) {
        let known = self.states.get_mut(endpoint).unwrap();
        let change = known.begun.take().unwrap();
        let changed = after(&known.told, &change);
        if changed != state {
            let late = known.late.take().unwrap_or_default();
            let orders = [after(&after(&known.told, &late), &change), after(&changed, &late)];
            let why = format!("{endpoint}: {known:?}, {change}, {late:?} came late, now {state}");
            assert!(orders.iter().any(|order| order == state), "{why}");
        }
        state.clone_into(&mut known.told);
        self.changes += 1;
    }

    /// Follows a replay: the number of ended deliveries that it had to reach, the number in its
    /// answer, and the number of the former that were due again.
    fn replay(&mut self, endpoint: &str, replay: &str, [ended, answered, due]: [usize; 3]) {
        let line = format!("{endpoint} {replay}: {ended} ended, {answered} answered, {due} due");
        assert_eq!(due, ended, "{line}");
        // Another operator may have replayed a failed delivery's event just before, and a database
        // may have carried out the replay of a killed process.
        let late = self.states[endpoint].late.as_deref().unwrap_or_default();
        if revives(replay) && !revives(late) {
            assert!(answered >= ended, "{line}");
        }
        // A delivery that is skipped because its endpoint was closed in the meantime does not count
        // as ended.
        if replay == "replay-ids" && ended > 0 {
            assert!(answered <= ended, "{line}");
        }
        *self.replays.entry(replay.to_owned()).or_default() += due;
    }

    fn send(&mut self, endpoint: &str, event: &str) {
        for ((of, delivery), cancelled) in &mut self.cancelled {
            if of == endpoint && cancelled.event == event {
                let is_excused = std::mem::take(&mut cancelled.may_be_in_flight);
                assert!(is_excused, "{endpoint}: {delivery} of {event} is cancelled, and sent");
            }
        }
    }

    /// Follows a kill: it ends all attempts.
    fn lose_flights(&mut self) {
        self.cancelled.values_mut().for_each(|one| one.may_be_in_flight = false);
    }
}

/// Whether a change makes cancelled deliveries due.
fn revives(change: &str) -> bool {
    ["replay-all", "replay-cancelled", "replay-ids"].contains(&change)
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

/// Returns the source of a run's randomness, and prints how to repeat it.
fn random() -> Rng {
    let seed: u64 = setting("CRASH_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}: repeat by CRASH_SEED={seed}");
    Rng::with_seed(seed)
}

/// Runs processes that are killed, one per operator at a time, and the last one, which delivers
/// what is left. In the middle the server crashes, if there is one. Returns their lines, and the
/// requests.
async fn run(
    store: &str,
    server: Option<&Cluster>,
    operators: usize,
    kills: usize,
) -> (Story, Vec<Received>) {
    let mut random = random();
    let receiver = receiver().await;
    let url = receiver.url();
    let mut story = Story { is_shared: operators > 1, ..Story::default() };
    // Nobody publishes before all steady endpoints are registered.
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
        // The file is free only after its process has ended.
        all.swap_remove(victim).kill(&mut story).await;
        all.push(start(victim, operators + kill, random.u32(..)));
        all.swap(victim, operators - 1);
        if let Some(server) = server.filter(|_| kill == kills / 2) {
            server.crash();
        }
    }
    for process in all {
        process.kill(&mut story).await;
    }
    Running::start(store, &url, operators, "drain").end(&mut story).await;
    (story, receiver.received())
}

/// Checks that all accepted events reached all endpoints; returns the number of events that reached
/// the steady ones more than once.
fn check(story: &Story, received: &[Received], operators: usize, kills: usize) -> usize {
    let Story { accepted, changes, cancels, replays, .. } = story;
    println!("{kills} kills, {changes} changes, {cancels} cancelled, due again: {replays:?}");
    assert!(accepted.len() > kills, "it was under load");
    assert!(*changes > kills && *cancels > 0, "it was operated");
    assert!(replays.values().sum::<usize>() > 0, "what had ended was replayed: {replays:?}");
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

/// Goal: accepted events arrive, whatever kills the process, and whatever an operator does to the
/// endpoints in the meantime. The answers that the operator got hold after a kill: states and
/// settings, cancelled deliveries that are not sent any more, and deliveries that a replay made
/// due. A kill repeats no more than was in flight. Method: a process publishes, delivers and is
/// operated under load; the test kills it after a random number of events, 50 times over, so that
/// kills fall into commits, attempts, changes and start-ups. The receiver refuses every seventh
/// request, so that kills meet retries too. The last process replays what one endpoint did not get
/// while it was disabled or unregistered, and delivers what is left.
#[tokio::test]
async fn what_was_accepted_survives_fifty_kills() {
    let kills = usize::try_from(setting("CRASH_KILLS").unwrap_or(50)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("crash.db");
    let (story, received) = run(store.to_str().unwrap(), None, 1, kills).await;
    let repeated = check(&story, &received, 1, kills);
    assert!(repeated <= (kills + 1) * MAX_UNSETTLED, "{repeated} repeated by {kills} kills");
}

/// Goal: the same with processes that share a database, each with its own operator. The server
/// crashes too, and the processes survive that.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_survives_operators_kills_and_a_crash_of_their_database() {
    const PROCESSES: usize = 3;
    let kills = usize::try_from(setting("CRASH_KILLS").unwrap_or(50)).unwrap() / 3;
    let cluster = Cluster::start(&std::env::temp_dir(), "");
    let database = cluster.database().await;
    let (story, received) = run(&database, Some(&cluster), PROCESSES, kills).await;
    check(&story, &received, PROCESSES, kills);
}
