//! Publishing: whatever waits is published in one transaction, by one statement.

use std::collections::BTreeMap;
use std::sync::Arc;

use sqlx::{PgConnection, Row as _};
use tokio::sync::{mpsc, oneshot};
use webhooks_core::Timestamp;
use webhooks_dispatch::{Conflict, Novelty, Published, SerializedEvent, StoreError};

use crate::error::{closed, persistently, store_error};
use crate::row::{At, count};
use crate::store::Shared;

/// How many callers may wait to be published; more wait to be queued.
const QUEUE: usize = 1_024;

/// How many events are published together, unless one caller has more.
const MAX_GROUP: usize = 256;

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
}

impl Publisher {
    pub(crate) fn new(shared: Arc<Shared>) -> (Self, mpsc::Sender<Request>) {
        let (sender, requests) = mpsc::channel(QUEUE);
        (Self { shared, requests }, sender)
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
    async fn publish(&self, group: Vec<Request>) {
        match self.commit(&group).await {
            Ok(outcomes) => answer(group, outcomes),
            Err(sqlx::Error::Database(_)) if group.len() > 1 => {
                for request in group {
                    let alone = std::slice::from_ref(&request);
                    let outcome = self.commit(alone).await.map_err(store_error);
                    // Whoever stopped waiting does not want the answer.
                    let _unheard = request.reply.send(outcome);
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

    async fn commit(&self, group: &[Request]) -> Result<Outcomes, sqlx::Error> {
        let events: Vec<(&SerializedEvent, Option<Timestamp>)> = (group.iter())
            .flat_map(|request| request.events.iter().map(|event| (event, Some(request.now))))
            .collect();
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let worker = Some(self.shared.workers.id);
        persistently(async || {
            let mut call = self.shared.call().await?;
            let prepares = call.prepares();
            let outcomes = publish_all(call.on(), &events, worker, prepares).await?;
            call.end().await?;
            Ok(outcomes)
        })
        .await
    }
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
