//! The process that the crash tests kill: it publishes, delivers and is operated until it is
//! killed.
//!
//! `crash STORE URL OPERATOR LIFE` publishes events, and writes `accepted` and the id of each on
//! its own line once it is accepted. Between these lines stand the operator's actions, and `sent`
//! with the endpoint and the event of each request. `crash STORE URL OPERATORS begin` registers the
//! endpoints of all operators, and ends. `crash STORE URL OPERATORS drain` publishes nothing, makes
//! their endpoints active, replays and delivers what is left, and ends. STORE is a file or the URL
//! of a database.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test's other half")]

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use webhooks_core::{Event, EventId};
use webhooks_dispatch::{
    Engine, Store,
    observer::{Observer, Occurrence},
    transport::{Request, Response, Transport, TransportError},
};
use webhooks_http::HttpTransport;
use webhooks_registry::Endpoint;
use webhooks_sqlite::SqliteStore;
use webhooks_tests::crash::{PAUSE, PUBLISHERS, open, settings};
use webhooks_tests::operator::{Operator, tell};

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, url, operator, life] = &arguments[..] else {
        return println!("usage: crash STORE URL OPERATOR LIFE|begin|drain");
    };
    let operator = operator.parse().unwrap();
    if store.starts_with("postgres") {
        let store = open(store).await;
        run(store.clone(), url, operator, life).await;
        store.close().await;
    } else {
        run(SqliteStore::open(store).await.unwrap(), url, operator, life).await;
    }
}

async fn run<S>(store: S, url: &str, operator: usize, life: &str)
where
    S: Store,
{
    let occurred = Arc::new(Notify::new());
    let engine = Engine::builder(store, Telling(HttpTransport::development().unwrap()));
    let engine = engine.settings(settings()).observer(Occurred(Arc::clone(&occurred))).build();
    let operators =
        |count| (0..count).map(|number| Operator::new(engine.clone(), url, number)).collect();
    match life {
        "begin" => return begin(operators(operator)).await,
        "drain" => return drain(&engine, operators(operator)).await,
        _ => {}
    }
    let operator = Operator::new(engine.clone(), url, operator);
    let mut ticks = tokio::time::interval(PAUSE);
    while operator.begin().await.is_err() {
        ticks.tick().await;
    }
    let _worker = engine.start();
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        publishers.spawn(publish(engine.clone(), format!("{life}-{publisher}")));
    }
    operator.operate(fastrand::Rng::with_seed(seed_of(life)), &occurred).await;
}

async fn begin<S>(operators: Vec<Operator<S, Telling>>)
where
    S: Store,
{
    for operator in operators {
        operator.begin().await.unwrap();
    }
}

async fn drain<S>(engine: &Engine<S, Telling>, operators: Vec<Operator<S, Telling>>)
where
    S: Store,
{
    let worker = engine.start();
    for operator in &operators {
        operator.end().await.unwrap();
    }
    let mut ticks = tokio::time::interval(PAUSE);
    for operator in &operators {
        loop {
            while operator.open().await > 0 {
                ticks.tick().await;
            }
            if operator.replay_rest().await == 0 {
                break;
            }
        }
    }
    worker.shutdown(Duration::from_secs(10)).await;
}

/// Publishes until killed, and prints each accepted id. An event that fails is published again: the
/// store may have accepted it all the same.
async fn publish<S>(engine: Engine<S, Telling>, name: String)
where
    S: Store,
{
    let mut ticks = tokio::time::interval(PAUSE);
    for number in 0.. {
        let id = format!("{name}-{number}");
        let event = Event::new("order.paid", &id).unwrap().id(EventId::new(&id).unwrap());
        while engine.publish(&event).await.is_err() {
            ticks.tick().await;
        }
        tell(&format!("accepted {id}"));
    }
}

/// Returns the seed of an operator's changes: the number behind the last `-` of its life's name.
fn seed_of(life: &str) -> u64 {
    life.rsplit('-').next().and_then(|seed| seed.parse().ok()).unwrap()
}

/// Prints each request before it is sent.
#[derive(Debug)]
struct Telling(HttpTransport);

impl Transport for Telling {
    async fn send(&self, request: Request) -> Result<Response, TransportError> {
        let event = request.headers["x-webhook-event-id"].to_str().unwrap();
        let (_, endpoint) = request.url.as_str().rsplit_once('?').unwrap();
        tell(&format!("sent {endpoint} {event}"));
        self.0.send(request).await
    }

    fn longest_wait(&self) -> Duration {
        self.0.longest_wait()
    }

    fn check(&self, endpoint: &Endpoint) -> Result<(), TransportError> {
        self.0.check(endpoint)
    }
}

/// Notifies the operator of each occurrence.
#[derive(Debug)]
struct Occurred(Arc<Notify>);

impl Observer for Occurred {
    fn observe(&self, _: &Occurrence<'_>) {
        self.0.notify_one();
    }
}
