//! An operator who changes endpoints all the time, in a process that is killed.
//!
//! It says what it is about to do, and the state that it finds afterwards. Who reads that knows what
//! the next process must find: the last state that was told, or the one after what was begun.

use std::io::Write as _;

use fastrand::Rng;
use tokio::sync::Notify;
use webhooks_core::{DeliveryStatus, EndpointId, Timestamp};
use webhooks_dispatch::{
    DeliveryRecord, DeliveryStore, Engine, HistoryStore, OperationError, Query, Replay, Transport,
    Undelivered,
};
use webhooks_registry::{Endpoint, EndpointKey, EndpointStore};

/// Returns the endpoints of an operator. The first gets everything sooner or later, by what is done to
/// it: it is paused and resumed. The second gets everything once it is enabled in the end, and what it
/// did not get is replayed.
pub fn endpoints_of(operator: usize) -> [String; 2] {
    [format!("steady-{operator}"), format!("switched-{operator}")]
}

/// What is done to the endpoints.
const STEADY_CHANGES: [&str; 4] = ["pause", "resume", "resume", "register"];
const SWITCHED_CHANGES: [&str; 11] = [
    "pause",
    "resume",
    "register",
    "register",
    "disable",
    "enable",
    "enable",
    "unregister",
    "cancel",
    "cancel",
    "replay",
];

/// Changes endpoints until it is killed.
#[derive(Debug)]
pub struct Operator<S, T> {
    engine: Engine<S, T>,
    url: String,
    steady: String,
    switched: String,
}

impl<S, T> Operator<S, T>
where
    S: DeliveryStore + EndpointStore + HistoryStore,
    T: Transport,
{
    /// Returns an operator, by number, who registers endpoints under a URL.
    pub fn new(engine: Engine<S, T>, url: &str, number: usize) -> Self {
        let [steady, switched] = endpoints_of(number);
        Self { engine, url: url.to_owned(), steady, switched }
    }

    /// Registers the steady endpoint, as programs do when they start, and tells both states.
    pub async fn begin(&self) {
        for endpoint in [&*self.steady, &*self.switched] {
            tell(&format!("found {endpoint} {}", self.state(endpoint).await));
        }
        self.change(&self.steady, "register").await;
    }

    /// Makes a random change after each occurrence, until killed.
    pub async fn operate(self, mut random: Rng, occurred: &Notify) {
        loop {
            occurred.notified().await;
            let (endpoint, changes) = match random.u8(..4) {
                0 => (&self.steady, &STEADY_CHANGES[..]),
                _ => (&self.switched, &SWITCHED_CHANGES[..]),
            };
            self.change(endpoint, changes[random.usize(..changes.len())]).await;
        }
    }

    /// Makes both endpoints active, says what is cancelled, and replays all that was not delivered.
    pub async fn end(&self) {
        for endpoint in [&*self.steady, &*self.switched] {
            for change in ["register", "enable", "resume"] {
                self.change(endpoint, change).await;
            }
        }
        let mut query = Query { limit: Query::MAX_LIMIT, ..self.those(DeliveryStatus::Cancelled) };
        loop {
            let page = self.engine.history().deliveries(query.clone()).await;
            let page = page.expect("a store that works");
            page.items.iter().for_each(|found| tell(&format!("cancelled-kept {}", found.id)));
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        let replay = Replay::of_endpoint(key(&self.switched), Undelivered::ALL);
        self.engine.replay(replay).await.expect("a replay");
    }

    /// Returns how many deliveries wait or are in flight.
    pub async fn open(&self) -> u64 {
        let mut open = 0;
        for endpoint in [&*self.steady, &*self.switched] {
            let statistics =
                self.engine.history().statistics(key(endpoint), Timestamp::UNIX_EPOCH).await;
            let statistics = statistics.expect("a store that works");
            open += statistics.pending + statistics.retrying;
        }
        open
    }

    async fn change(&self, id: &str, change: &str) {
        tell(&format!("begin {id} {change}"));
        let endpoints = self.engine.endpoints();
        // What the state does not allow is refused and changes nothing.
        let _refused = match change {
            "register" => {
                let _outcome = endpoints.register(id, self.endpoint(id)).await.expect("it fits");
                true
            }
            "unregister" => endpoints.unregister(id).await.is_ok(),
            "enable" => endpoints.enable(id).await.is_ok(),
            "pause" => endpoints.pause(id).await.is_ok(),
            "resume" => endpoints.resume(id).await.is_ok(),
            "disable" => endpoints.disable(id).await.is_ok(),
            "cancel" => self.cancel_one().await.is_ok(),
            _ => {
                let replay = Replay::of_endpoint(key(id), Undelivered::MISSED);
                self.engine.replay(replay).await.is_ok()
            }
        };
        tell(&format!("state {id} {}", self.state(id).await));
    }

    async fn cancel_one(&self) -> Result<(), OperationError> {
        let query = Query { limit: 1, ..self.those(DeliveryStatus::Pending) };
        let page = self.engine.history().deliveries(query).await?;
        if let Some(DeliveryRecord { id, .. }) = page.items.first() {
            self.engine.cancel(*id).await?;
            tell(&format!("cancelled {id}"));
        }
        Ok(())
    }

    /// Returns a query for the deliveries of the switched endpoint with this status.
    fn those(&self, status: DeliveryStatus) -> Query {
        let endpoint = Some(key(&self.switched).id);
        Query { endpoint, status: Some(status), ..Query::default() }
    }

    async fn state(&self, id: &str) -> &'static str {
        let found = self.engine.endpoints().get(id).await.expect("a store that works");
        found.map_or("gone", |found| found.state.as_str())
    }

    fn endpoint(&self, id: &str) -> Endpoint {
        let retry = webhooks_core::RetryPolicy::fixed(std::time::Duration::from_millis(20), 1_000);
        let endpoint = Endpoint::new(&format!("{}?{id}", self.url), "my-secret-key");
        endpoint.expect("a URL").retry(retry)
    }
}

/// Returns the state after a change, as those who read what was told expect it.
pub fn after<'s>(state: &'s str, change: &str) -> &'s str {
    match (change, state) {
        ("register", "gone") | ("enable", "disabled") | ("resume", "paused") => "active",
        ("pause", "active") => "paused",
        ("disable", "active" | "paused") => "disabled",
        ("unregister", _) => "gone",
        _ => state,
    }
}

/// Says something on a line of its own.
pub fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody reads on once the process is to be killed.
    let _unread = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn key(id: &str) -> EndpointKey {
    EndpointKey::of_default_tenant(EndpointId::new(id).expect("an id"))
}
