//! Publishing: whatever waits is published in one transaction, by one statement.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use webhooks_core::Timestamp;
use webhooks_dispatch::{
    Conflict, Published,
    store::{SerializedEvent, StoreError},
};

use crate::error::{attempt, closed, is_cancelled, is_held, lost, persistently, rest, store_error};
use crate::hand_over::Offer;
use crate::handed::Handed;
use crate::publication::{Publication, event_of};
use crate::store::Shared;

/// How many callers may wait to be published; more wait to be queued.
const QUEUE: usize = 1_024;

/// How many events are published together, unless one caller has more.
const MAX_GROUP: usize = 256;

/// How many groups of callers may be tried again beside the others, because transactions hold ids of
/// theirs. Each takes a connection for a moment.
const MAX_HELD: usize = 32;

/// How often these are tried again, each try waiting as long as `webhooks.publish_all` does for
/// whoever holds the id; and how long to wait in between, so that it is about a second in all.
const TRIES: usize = 7;
const PAUSE: Duration = Duration::from_millis(100);

/// What became of a caller's events.
type Outcomes = Vec<Result<Published, Conflict>>;

/// The events of one caller, who waits.
pub(crate) struct Request {
    events: Vec<Arc<SerializedEvent>>,
    now: Timestamp,
    /// By which tries before may have claimed some of them.
    tokens: Vec<i64>,
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
        let events = events.into_iter().map(Arc::new).collect();
        let tokens = Vec::new();
        publisher.send(Self { events, now, tokens, reply }).await.map_err(|_gone| closed())?;
        answer.await.map_err(|_gone| lost())?
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
            // A panic here is a bug; it costs this group, whose callers are told, and not the rest.
            let _panic = AssertUnwindSafe(self.publish(group)).catch_unwind().await;
            // Whoever has just been answered may have more, which then goes with the next group.
            tokio::task::yield_now().await;
        }
    }

    /// Publishes a group at once; if the database refuses that, apart from those whose ids somebody
    /// holds, who are tried again meanwhile and keep nobody else waiting.
    async fn publish(&mut self, group: Vec<Request>) {
        while self.held.try_join_next().is_some() {}
        if let Some((held, error)) = publish_apart(&self.shared, group).await {
            if self.held.len() < MAX_HELD {
                self.held.spawn(publish_held(Arc::clone(&self.shared), held, error));
            } else {
                refuse(held, error);
            }
        }
        self.shared.notifier.notify();
    }
}

/// Callers whose ids somebody's open transaction holds, and the error that says so.
type Held = (Vec<Request>, sqlx::Error);

/// Publishes a group, as a whole if possible, and answers it; returns those whose ids are held.
async fn publish_apart(shared: &Shared, mut group: Vec<Request>) -> Option<Held> {
    let error = match commit(shared, &mut group).await {
        Ok(outcomes) => {
            answer(group, outcomes);
            return None;
        }
        Err(error) => error,
    };
    if !matches!(error, sqlx::Error::Database(_)) || is_cancelled(&error) {
        refuse(group, error);
        return None;
    }
    if group.len() == 1 {
        // Of a caller who is alone it is known already.
        if is_held(&error) {
            return Some((group, error));
        }
        refuse(group, error);
        return None;
    }
    let (mut free, held) = match part(shared, group).await {
        Ok(parted) => parted,
        Err((group, error)) => {
            refuse(group, error);
            return None;
        }
    };
    let late = match commit(shared, &mut free).await {
        Ok(outcomes) => {
            answer(free, outcomes);
            Vec::new()
        }
        // What is held is no id, but what all of them need.
        Err(error) if is_held(&error) => free,
        Err(sqlx::Error::Database(_)) => publish_one_by_one(shared, free).await,
        Err(error) => {
            refuse(free, error);
            Vec::new()
        }
    };
    let held: Vec<Request> = held.into_iter().chain(late).collect();
    (!held.is_empty()).then_some((held, error))
}

/// Publishes each caller's events alone, so that one bad event does no harm to others; returns those
/// whose ids are held.
async fn publish_one_by_one(shared: &Shared, group: Vec<Request>) -> Vec<Request> {
    let mut held = Vec::new();
    for mut request in group {
        match commit(shared, std::slice::from_mut(&mut request)).await {
            Err(error) if is_held(&error) => held.push(request),
            outcome => {
                // Whoever stopped waiting does not want the answer.
                let _unheard = request.reply.send(outcome.map_err(store_error));
            }
        }
    }
    held
}

/// Parts a group into callers whose ids are free, and callers of whose ids an open transaction holds
/// one.
async fn part(
    shared: &Shared,
    group: Vec<Request>,
) -> Result<(Vec<Request>, Vec<Request>), (Vec<Request>, sqlx::Error)> {
    const HELD: &str = "SELECT webhooks.held_keys($1, $2)";
    let events = || group.iter().flat_map(|request| &request.events);
    let ids: Vec<String> = events().map(|event| event.id.to_string()).collect();
    let tenants: Vec<&str> = events().map(|event| event.tenant.as_str()).collect();
    let find = persistently(async || {
        let mut call = shared.call().await?;
        let find = sqlx::query_scalar(HELD).persistent(false).bind(&ids).bind(&tenants);
        let held: Vec<i32> = find.fetch_one(call.on()).await?;
        call.end().await?;
        Ok(held)
    });
    let places: BTreeSet<usize> = match find.await {
        Ok(held) => held.into_iter().filter_map(|place| usize::try_from(place).ok()).collect(),
        Err(error) => return Err((group, error)),
    };
    let mut last = 0;
    let is_free = |request: &Request| {
        let first = last + 1;
        last += request.events.len();
        places.range(first..=last).next().is_none()
    };
    Ok(group.into_iter().partition(is_free))
}

/// Tells callers that nothing of theirs was published.
fn refuse(group: Vec<Request>, error: sqlx::Error) {
    let text = error.to_string();
    let mut first = Some(store_error(error));
    for request in group {
        let source = || StoreError::Unavailable { source: text.clone().into() };
        let error = first.take().unwrap_or_else(source);
        let _unheard = request.reply.send(Err(error));
    }
}

/// Publishes the events of callers of which other transactions hold ids, as soon as those end.
async fn publish_held(shared: Arc<Shared>, group: Vec<Request>, error: sqlx::Error) {
    let mut held = (group, error);
    for _ in 0..TRIES {
        rest(PAUSE).await;
        let left = publish_apart(&shared, held.0).await;
        shared.notifier.notify();
        let Some(left) = left else { return };
        held = left;
    }
    refuse(held.0, held.1);
}

/// Publishes the events of these callers in one transaction, and hands over what may be.
async fn commit(shared: &Shared, group: &mut [Request]) -> Result<Outcomes, sqlx::Error> {
    let offer = {
        let events = || group.iter().flat_map(|request| &request.events);
        shared.offer((events().count(), events().map(|event| event.body.len()).sum()))
    };
    let mut unheard: BTreeSet<i64> = BTreeSet::new();
    for request in &mut *group {
        unheard.extend(&request.tokens);
        request.tokens.extend(offer.as_ref().map(|offer| offer.token));
    }
    let group = &*group;
    let events: Vec<(&Arc<SerializedEvent>, Timestamp)> = (group.iter())
        .flat_map(|request| request.events.iter().map(|event| (event, request.now)))
        .collect();
    let Some(now) = events.iter().map(|(_, now)| *now).max() else { return Ok(Vec::new()) };
    let publication = Publication {
        events: events.iter().map(|(event, now)| (&***event, *now)).collect(),
        worker: shared.workers.id,
        offer,
    };
    let tries = AtomicU32::new(0);
    let kept = persistently(async || {
        tries.fetch_add(1, Ordering::Relaxed);
        let mut call = shared.call().await?;
        let prepares = call.prepares();
        match publication.publish(call.on(), prepares).await {
            // The connection is as good as it was.
            Err(error) if is_held(&error) => call.abandon().await.and(Err(error)),
            kept => {
                let kept = kept?;
                call.end().await?;
                Ok(kept)
            }
        }
    })
    .await
    // What failed may have been kept all the same.
    .inspect_err(|_| shared.change())?;
    if tries.into_inner() > 1 {
        unheard.extend(publication.offer.as_ref().map(|offer| offer.token));
    }
    if !unheard.is_empty() {
        // A try before may have been committed, and nobody heard what it claimed. An event that was
        // given twice is repeated and new.
        let fresh: BTreeSet<i64> = kept.handed.iter().map(|(_, id, _)| event_of(*id)).collect();
        let repeated = kept.repeated.iter().copied().filter(|event| !fresh.contains(event));
        let repeated: Vec<i64> = repeated.collect();
        if !repeated.is_empty() {
            let _due_later = attempt(give_up(shared, &repeated, unheard)).await;
        }
    }
    if let Some(Offer { token, until, open, .. }) = publication.offer {
        let handed = kept.handed.iter().filter_map(|(index, id, endpoint)| {
            let (event, queued_at) = *events.get(*index)?;
            let (endpoint, event) = (*endpoint, Arc::clone(event));
            let cancels = open.get(&endpoint).copied().flatten();
            Some(Handed { id: *id, endpoint, token, queued_at, until, cancels, event })
        });
        shared.put(handed.collect(), now).await;
    }
    // What was published before counts too: some of it may have been given up just now.
    let deliveries: usize = kept.outcomes.iter().flatten().map(|kept| kept.deliveries).sum();
    if deliveries > kept.handed.len() {
        shared.change();
    }
    Ok(kept.outcomes)
}

/// Gives each caller what became of its events.
fn answer(group: Vec<Request>, outcomes: Outcomes) {
    let mut outcomes = outcomes.into_iter();
    for request in group {
        let own = outcomes.by_ref().take(request.events.len()).collect();
        let _unheard = request.reply.send(Ok(own));
    }
}

/// Gives up what was claimed by these tokens of these events.
async fn give_up(
    shared: &Shared,
    events: &[i64],
    tokens: BTreeSet<i64>,
) -> Result<(), sqlx::Error> {
    const GIVE_UP: &str = "UPDATE webhooks.pending_deliveries SET leased_until = NULL, token = NULL
        FROM unnest($1::bigint[]) AS event(number)
        WHERE webhooks.is_of(id, event.number) AND token = ANY ($2)";
    let tokens = Vec::from_iter(tokens);
    let mut call = shared.call().await?;
    sqlx::query(GIVE_UP).persistent(false).bind(events).bind(tokens).execute(call.on()).await?;
    call.end().await
}
