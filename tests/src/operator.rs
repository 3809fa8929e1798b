//! An operator who changes endpoints all the time, in a process that is killed.
//!
//! The operator prints each change before it makes it, and the state that it finds afterwards. The
//! reader then knows the state that the next process must find: the last printed one, or the one
//! after the change that was begun. A state is a word and, behind a `-`, the settings with which
//! the endpoint was registered last.

use std::io::Write as _;
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::Notify;
use webhooks_core::{DeliveryStatus, EndpointId, RetryPolicy, TenantId, Timestamp};
use webhooks_dispatch::{
    Engine, OperationError, Replay, Store, Undelivered,
    history::{DeliveryRecord, HistoryStore as _, Query},
    monitor::MonitorStore as _,
    store::StoreError,
    transport::Transport,
};
use webhooks_registry::{Endpoint, EndpointKey, store::EndpointStoreError};

/// Returns the endpoints of an operator. The first gets everything sooner or later, because it is
/// only paused and resumed. The second gets everything once it is enabled in the end and its missed
/// events are replayed.
pub fn endpoints_of(operator: usize) -> [String; 2] {
    [format!("steady-{operator}"), format!("switched-{operator}")]
}

/// The changes of the endpoints.
const STEADY_CHANGES: [&str; 5] = ["pause", "resume", "resume", "register", "order"];
const SWITCHED_CHANGES: [&str; 19] = [
    "pause",
    "resume",
    "resume",
    "register",
    "register",
    "order",
    "hurry",
    "hurry",
    "disable",
    "enable",
    "enable",
    "unregister",
    "cancel",
    "cancel",
    "replay-cancelled",
    "replay-event",
    "replay-failed",
    "replay-ids",
    "replay-missed",
];

/// The number of deliveries that are checked of those that a replay must reach.
const LOOKED_AT: usize = 20;

/// The time from a failed attempt to its retry.
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// A store call failed: the store may have carried it out all the same.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "there is nothing to add")]
pub struct StoreFailed;

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
    S: Store,
    T: Transport,
{
    /// Returns an operator with this number, who registers endpoints under a URL.
    pub fn new(engine: Engine<S, T>, url: &str, number: usize) -> Self {
        let [steady, switched] = endpoints_of(number);
        Self { engine, url: url.to_owned(), steady, switched }
    }

    /// Registers the steady endpoint, as programs do when they start, and prints both states.
    ///
    /// # Errors
    /// [`StoreFailed`] when the store fails.
    pub async fn begin(&self) -> Result<(), StoreFailed> {
        self.look().await?;
        self.change(&self.steady, "register").await
    }

    /// Prints both states as they are: a change that a process had begun when it was killed, or
    /// when its store failed, may have been carried out.
    async fn look(&self) -> Result<(), StoreFailed> {
        for endpoint in [&*self.steady, &*self.switched] {
            tell(&format!("found {endpoint} {}", self.state(endpoint).await?));
        }
        Ok(())
    }

    /// Makes a random change after each occurrence, until killed. When the store fails, it reads
    /// the states again once the store is back.
    pub async fn operate(self, mut random: Rng, occurred: &Notify) {
        let mut has_failed = false;
        loop {
            occurred.notified().await;
            if has_failed {
                has_failed = self.look().await.is_err();
                continue;
            }
            let (endpoint, changes) = match random.u8(..4) {
                0 => (&self.steady, &STEADY_CHANGES[..]),
                _ => (&self.switched, &SWITCHED_CHANGES[..]),
            };
            let change = changes[random.usize(..changes.len())];
            has_failed = self.change(endpoint, change).await.is_err();
        }
    }

    /// Makes both endpoints active, prints the cancelled deliveries, and replays all that were not
    /// delivered. The worker must run. An attempt that began before an endpoint with retries was
    /// registered may fail for good, so this replays until none is left.
    ///
    /// # Errors
    /// [`StoreFailed`] when the store fails.
    pub async fn end(&self) -> Result<(), StoreFailed> {
        self.look().await?;
        for endpoint in [&*self.steady, &*self.switched] {
            for change in ["register", "enable", "resume"] {
                self.change(endpoint, change).await?;
            }
        }
        let mut query = Query { limit: Query::MAX_LIMIT, ..self.those(DeliveryStatus::Cancelled) };
        loop {
            let page = self.engine.history().deliveries(query.clone()).await?;
            page.items
                .iter()
                .for_each(|found| tell(&format!("cancelled-kept {} {}", self.switched, found.id)));
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        self.change(&self.switched, "replay-all").await
    }

    /// Replays the deliveries that failed since the end began, and returns their number.
    pub async fn replay_rest(&self) -> usize {
        let replay = Replay::of_endpoint(key(&self.switched), Undelivered::ALL);
        self.engine.replay(replay).await.expect("the endpoint is active")
    }

    /// Returns the number of deliveries that are pending or in flight.
    pub async fn open(&self) -> u64 {
        let mut open = 0;
        for endpoint in [&*self.steady, &*self.switched] {
            let statistics =
                self.engine.monitor().statistics(key(endpoint), Timestamp::UNIX_EPOCH).await;
            let statistics = statistics.expect("a store that works");
            open += statistics.pending + statistics.retrying;
        }
        open
    }

    async fn change(&self, id: &str, change: &str) -> Result<(), StoreFailed> {
        tell(&format!("begin {id} {change}"));
        let endpoints = self.engine.endpoints();
        let of_endpoints = |error: EndpointStoreError| {
            matches!(error, EndpointStoreError::Unavailable { .. }).then_some(StoreFailed)
        };
        let of_operation = |error: OperationError| {
            matches!(error, OperationError::Store(_)).then_some(StoreFailed)
        };
        let changed = match change {
            "register" | "order" | "hurry" => {
                let endpoint = self.endpoint(id, change);
                endpoints.register(id, endpoint).await.map(drop).map_err(of_endpoints)
            }
            "unregister" => endpoints.unregister(id).await.map(drop).map_err(of_endpoints),
            "enable" => endpoints.enable(id).await.map(drop).map_err(of_endpoints),
            "pause" => endpoints.pause(id).await.map(drop).map_err(of_endpoints),
            "resume" => endpoints.resume(id).await.map(drop).map_err(of_endpoints),
            "disable" => endpoints.disable(id).await.map(drop).map_err(of_endpoints),
            "cancel" => self.cancel_one().await.map_err(of_operation),
            _ => self.replay(change).await.map_err(of_operation),
        };
        // A change that the state does not allow is refused and changes nothing.
        if let Err(Some(failed)) = changed {
            return Err(failed);
        }
        tell(&format!("state {id} {}", self.state(id).await?));
        Ok(())
    }

    /// Replays deliveries of the switched endpoint, and prints three numbers about those that had
    /// ended before: how many there were, how many the answer counts, and how many became due.
    async fn replay(&self, change: &str) -> Result<(), OperationError> {
        let status = match change {
            "replay-failed" | "replay-event" => DeliveryStatus::Failed,
            _ => DeliveryStatus::Cancelled,
        };
        let query = Query { limit: LOOKED_AT, ..self.those(status) };
        let ended = self.engine.history().deliveries(query).await?.items;
        let of_endpoint = |which| Some(Replay::of_endpoint(key(&self.switched), which));
        let replay = match change {
            "replay-all" => of_endpoint(Undelivered::ALL),
            "replay-cancelled" => of_endpoint(Undelivered::CANCELLED),
            "replay-failed" => of_endpoint(Undelivered::FAILED),
            "replay-missed" => of_endpoint(Undelivered::MISSED),
            "replay-ids" => Some(Replay::Deliveries(ended.iter().map(|one| one.id).collect())),
            // Deliveries that other operators cancelled are left to those operators.
            _ => ended.first().map(|one| {
                let which = Undelivered { cancelled: false, ..Undelivered::ALL };
                Replay::of_event(TenantId::default(), one.event.clone(), which)
            }),
        };
        let Some(replay) = replay else { return Ok(()) };
        let ended = match replay {
            Replay::Event { .. } => ended.into_iter().take(1).collect(),
            Replay::Endpoint { which, .. } if !which.includes(status) => Vec::new(),
            _ => ended,
        };
        let was_closed = is_closed(&self.state(&self.switched).await?);
        let answered = self.engine.replay(replay).await?;
        // A replay skips an endpoint that is disabled or gone. A database may carry out a change a
        // little after its process was killed, so this looks twice.
        let is_closed = was_closed || is_closed(&self.state(&self.switched).await?);
        let ended = if is_closed { Vec::new() } else { ended };
        let mut due = 0;
        for before in &ended {
            let query = Query { delivery: Some(before.id), ..Query::default() };
            let found = self.engine.history().deliveries(query).await?.items;
            due +=
                usize::from(found.first().is_some_and(|after| after.queued_at > before.queued_at));
        }
        tell(&format!("replayed {} {change} {} {answered} {due}", self.switched, ended.len()));
        Ok(())
    }

    async fn cancel_one(&self) -> Result<(), OperationError> {
        let query = Query { limit: 1, ..self.those(DeliveryStatus::Pending) };
        let page = self.engine.history().deliveries(query).await?;
        if let Some(DeliveryRecord { id, event, .. }) = page.items.first() {
            self.engine.cancel(*id).await?;
            tell(&format!("cancelled {} {id} {event}", self.switched));
        }
        Ok(())
    }

    /// Returns a query for the deliveries of the switched endpoint with this status.
    fn those(&self, status: DeliveryStatus) -> Query {
        let endpoint = Some(key(&self.switched).id);
        Query { endpoint, statuses: vec![status], ..Query::default() }
    }

    async fn state(&self, id: &str) -> Result<String, StoreError> {
        let unavailable =
            |error: EndpointStoreError| StoreError::Unavailable { source: error.into() };
        let found = self.engine.endpoints().get(id).await.map_err(unavailable)?;
        let Some(found) = found else { return Ok("gone".to_owned()) };
        let settings = [("", "register"), ("-ordered", "order"), ("-hasty", "hurry")];
        let stored =
            settings.iter().find(|(_, change)| self.endpoint(id, change) == found.endpoint);
        let (settings, _) = stored.expect("it was registered by one of these");
        Ok(format!("{}{settings}", found.state.as_str()))
    }

    /// Returns the registration of a change: an endpoint as usual, in order, or without retries.
    fn endpoint(&self, id: &str, change: &str) -> Endpoint {
        let retries = if change == "hurry" { 0 } else { 1_000 };
        let endpoint = Endpoint::new(&format!("{}?{id}", self.url), "my-secret-key");
        let endpoint = endpoint.expect("a URL").retry(RetryPolicy::fixed(RETRY_AFTER, retries));
        if change == "order" { endpoint.ordered() } else { endpoint }
    }
}

impl From<StoreError> for StoreFailed {
    fn from(_: StoreError) -> Self {
        Self
    }
}

/// Whether an endpoint in this state gets nothing.
fn is_closed(state: &str) -> bool {
    state == "gone" || state.starts_with("disabled")
}

/// Returns the state after a change, as readers of the printed lines expect it.
pub fn after(state: &str, change: &str) -> String {
    let (word, settings) = match state.split_once('-') {
        Some((word, settings)) => (word, format!("-{settings}")),
        None => (state, String::new()),
    };
    let after = match (change, word) {
        ("register" | "order" | "hurry", "gone") => "active",
        ("enable", "disabled") | ("resume", "paused") => "active",
        ("pause", "active") => "paused",
        ("disable", "active" | "paused") => "disabled",
        ("unregister", _) => return "gone".to_owned(),
        _ => word,
    };
    match change {
        "register" => after.to_owned(),
        "order" => format!("{after}-ordered"),
        "hurry" => format!("{after}-hasty"),
        _ => format!("{after}{settings}"),
    }
}

/// Prints a line.
pub fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody reads on once the process is to be killed.
    let _unread = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn key(id: &str) -> EndpointKey {
    EndpointKey::of_default_tenant(EndpointId::new(id).expect("an id"))
}
