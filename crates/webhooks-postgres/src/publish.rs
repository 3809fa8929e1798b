//! Publishing: whatever waits is published in one transaction, by one statement.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{PgConnection, Row as _};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use webhooks_core::Timestamp;
use webhooks_dispatch::{Conflict, Novelty, Published, SerializedEvent, StoreError};

use crate::error::{closed, persistently, rest, store_error};
use crate::row::{At, count};
use crate::store::Shared;

/// How many callers may wait to be published; more wait to be queued.
const QUEUE: usize = 1_024;

/// How many events are published together, unless one caller has more.
const MAX_GROUP: usize = 256;

/// How many callers may be tried again beside the others, because a transaction holds an id of theirs.
const MAX_HELD: usize = 256;

/// How often these are tried again, each try waiting as long as `webhooks.publish_all` does for
/// whoever holds the id; and how long to wait in between, so that it is about a second in all.
const TRIES: usize = 7;
const PAUSE: Duration = Duration::from_millis(100);

/// What became of a caller's events.
type Outcomes = Vec<Result<Published, Conflict>>;

/// The events of one caller, who waits.
pub(crate) struct Request {
    events: Vec<SerializedEvent>,
    now: Timestamp,
    reply: oneshot::Sender<Result<Outcomes, StoreError>>,
}

impl Request {
    /// Hands events over and returns what became of them.
    pub(crate) async fn send(
        publisher: &mpsc::Sender<Self>,
        events: Vec<SerializedEvent>,
        now: Timestamp,
    ) -> Result<Outcomes, StoreError> {
        let (reply, answer) = oneshot::channel();
        publisher.send(Self { events, now, reply }).await.map_err(|_gone| closed())?;
        answer.await.map_err(|_gone| closed())?
    }
}

/// The task that publishes: while one group is committed, the next one gathers.
pub(crate) struct Publisher {
    shared: Arc<Shared>,
    requests: mpsc::Receiver<Request>,
    /// Publishes again what met somebody's open transaction.
    held: JoinSet<()>,
}

impl Publisher {
    pub(crate) fn new(shared: Arc<Shared>) -> (Self, mpsc::Sender<Request>) {
        let (sender, requests) = mpsc::channel(QUEUE);
        (Self { shared, requests, held: JoinSet::new() }, sender)
    }

    /// Publishes until the last caller is gone.
    pub(crate) async fn run(mut self) {
        while let Some(first) = self.requests.recv().await {
            let mut events = first.events.len();
            let mut group = vec![first];
            while events < MAX_GROUP
                && let Ok(request) = self.requests.try_recv()
            {
                events += request.events.len();
                group.push(request);
            }
            self.publish(group).await;
        }
    }

    /// Publishes a group at once; if the database refuses that, each caller's events alone, so that
    /// one bad event does no harm to others.
    async fn publish(&mut self, group: Vec<Request>) {
        while self.held.try_join_next().is_some() {}
        match commit(&self.shared, &group).await {
            Ok(outcomes) => answer(group, outcomes),
            Err(error @ sqlx::Error::Database(_)) => {
                // Of a caller who was alone it is known already.
                let mut known = (group.len() == 1).then_some(error);
                for request in group {
                    let outcome = match known.take() {
                        Some(error) => Err(error),
                        None => commit(&self.shared, std::slice::from_ref(&request)).await,
                    };
                    self.answer_one(request, outcome);
                }
            }
            Err(error) => {
                let text = error.to_string();
                let mut first = Some(store_error(error));
                for request in group {
                    let source = || StoreError::Unavailable { source: text.clone().into() };
                    let error = first.take().unwrap_or_else(source);
                    let _unheard = request.reply.send(Err(error));
                }
            }
        }
        self.shared.wake();
    }

    /// Tells a caller what became of its events. If somebody's open transaction holds an id of theirs,
    /// they are tried again meanwhile, and keep nobody else waiting.
    fn answer_one(&mut self, request: Request, outcome: Result<Outcomes, sqlx::Error>) {
        match outcome {
            Err(error) if is_held(&error) && self.held.len() < MAX_HELD => {
                self.held.spawn(publish_held(Arc::clone(&self.shared), request));
            }
            outcome => {
                // Whoever stopped waiting does not want the answer.
                let _unheard = request.reply.send(outcome.map_err(store_error));
            }
        }
    }
}

/// Publishes the events of a caller of which another transaction holds an id, as soon as that ends.
async fn publish_held(shared: Arc<Shared>, request: Request) {
    let mut outcome = Err(sqlx::Error::RowNotFound);
    for _ in 0..TRIES {
        rest(PAUSE).await;
        outcome = commit(&shared, std::slice::from_ref(&request)).await;
        if !outcome.as_ref().is_err_and(is_held) {
            break;
        }
    }
    let _unheard = request.reply.send(outcome.map_err(store_error));
    shared.wake();
}

/// Returns whether a lock was waited for in vain.
fn is_held(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.as_deref() == Some("55P03")
}

/// Publishes the events of these callers in one transaction.
async fn commit(shared: &Shared, group: &[Request]) -> Result<Outcomes, sqlx::Error> {
    let events: Vec<(&SerializedEvent, Option<Timestamp>)> = (group.iter())
        .flat_map(|request| request.events.iter().map(|event| (event, Some(request.now))))
        .collect();
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let worker = Some(shared.workers.id);
    persistently(async || {
        let mut call = shared.call().await?;
        let prepares = call.prepares();
        match publish_all(call.on(), &events, worker, prepares).await {
            // The connection is as good as it was.
            Err(error) if is_held(&error) => call.abandon().await.and(Err(error)),
            outcomes => {
                let outcomes = outcomes?;
                call.end().await?;
                Ok(outcomes)
            }
        }
    })
    .await
}

/// Gives each caller what became of its events.
fn answer(group: Vec<Request>, outcomes: Outcomes) {
    let mut outcomes = outcomes.into_iter();
    for request in group {
        let own = outcomes.by_ref().take(request.events.len()).collect();
        let _unheard = request.reply.send(Ok(own));
    }
}

/// Publishes events by the function of the schema that does so for all callers, each accepted at its
/// time, or now by the database's clock. `prepares` keeps the statement for the next time.
pub(crate) async fn publish_all(
    connection: &mut PgConnection,
    events: &[(&SerializedEvent, Option<Timestamp>)],
    worker: Option<i64>,
    prepares: bool,
) -> Result<Outcomes, sqlx::Error> {
    const PUBLISH: &str = "SELECT place, deliveries, is_new, stored
        FROM webhooks.publish_all($1, $2, $3, $4, $5, $6, $7)";
    let texts = |text: fn(&SerializedEvent) -> String| -> Vec<String> {
        events.iter().map(|(event, _)| text(event)).collect()
    };
    let bodies: Result<Vec<&str>, _> =
        events.iter().map(|(event, _)| std::str::from_utf8(&event.body)).collect();
    let times: Vec<Option<At>> =
        events.iter().map(|(_, accepted_at)| accepted_at.map(At)).collect();
    let rows = sqlx::query(PUBLISH)
        .persistent(prepares)
        .bind(texts(|event| event.id.to_string()))
        .bind(texts(|event| event.tenant.to_string()))
        .bind(texts(|event| event.event_type.to_string()))
        .bind(texts(patterns))
        .bind(bodies.map_err(|error| sqlx::Error::Encode(error.into()))?)
        .bind(times)
        .bind(worker)
        .fetch_all(connection)
        .await?;
    let mut outcomes = BTreeMap::new();
    for row in rows {
        let place: i64 = row.try_get(0)?;
        let event = usize::try_from(place - 1).ok().and_then(|index| events.get(index));
        let Some((event, _)) = event else { continue };
        let deliveries = usize::try_from(count(row.try_get(1)?)).unwrap_or_default();
        let stored: Option<&str> = row.try_get(3)?;
        let novelty = if row.try_get(2)? { Novelty::New } else { Novelty::Repeated };
        let is_same = stored.is_none_or(|stored| event.is_same_content(stored.as_bytes()));
        let published = Published { event: event.id.clone(), deliveries, novelty };
        let conflict = Conflict { event: event.id.clone() };
        // What is new comes first, and is then found under its key too.
        outcomes.entry(place).or_insert_with(|| is_same.then_some(published).ok_or(conflict));
    }
    if outcomes.len() != events.len() {
        // Its key was forgotten just now; whoever publishes it again publishes it anew.
        return Err(sqlx::Error::RowNotFound);
    }
    Ok(outcomes.into_values().collect())
}

fn patterns(event: &SerializedEvent) -> String {
    event.event_type.patterns().collect::<Vec<_>>().join(" ")
}
