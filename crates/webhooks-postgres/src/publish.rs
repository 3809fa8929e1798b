//! Publishing: the events of waiting callers, in groups of about 256. Each group is one transaction
//! and one statement.

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

use crate::call::{pause, with_retries, with_timeout};
use crate::error::{closed, is_cancelled, is_lock_timeout, lost, store_error};
use crate::known_due::EndpointDue;
use crate::local_queue::{PreclaimGrant, PreclaimedDelivery};
use crate::publish_statement::{PublishReply, PublishStatement, event_of};
use crate::state::PostgresInner;

/// The maximum of callers in the queue. Further callers wait for a place in it.
const QUEUE_CAPACITY: usize = 1_024;

/// A group with this many events, or bytes of their bodies, takes no further caller.
const MAX_GROUP: usize = 256;
const MAX_GROUP_BYTES: usize = 16 << 20;

/// The maximum of blocked groups that are tried again beside the others. Each takes a connection
/// for a moment.
const MAX_BLOCKED: usize = 32;

/// The number of further tries of a blocked group, and the pause before each. Each try waits up to
/// 50 ms for the lock (`lock_timeout` in `webhooks.publish_all`), so all take about a second.
const BLOCKED_TRIES: usize = 7;
const BLOCKED_PAUSE: Duration = Duration::from_millis(100);

/// The outcomes of a caller's events.
type Outcomes = Vec<Result<Published, Conflict>>;

/// The events of one caller, who waits for the reply.
pub(crate) struct PublishRequest {
    events: Vec<Arc<SerializedEvent>>,
    now: Timestamp,
    /// The tokens of earlier tries, which may have preclaimed some of the deliveries.
    tokens: Vec<i64>,
    reply: oneshot::Sender<Result<Outcomes, StoreError>>,
}

impl PublishRequest {
    fn bytes(&self) -> usize {
        self.events.iter().map(|event| event.body.len()).sum()
    }

    /// Gives events to the publisher and returns their outcomes.
    pub(crate) async fn send(
        requests: &mpsc::Sender<Self>,
        events: Vec<SerializedEvent>,
        now: Timestamp,
    ) -> Result<Outcomes, StoreError> {
        let (reply, answer) = oneshot::channel();
        let events = events.into_iter().map(Arc::new).collect();
        let tokens = Vec::new();
        requests.send(Self { events, now, tokens, reply }).await.map_err(|_gone| closed())?;
        answer.await.map_err(|_gone| lost())?
    }
}

/// The task that publishes: while one group is committed, the next one gathers.
pub(crate) struct Publisher {
    inner: Arc<PostgresInner>,
    requests: mpsc::Receiver<PublishRequest>,
    /// The tasks that try blocked groups again.
    blocked: JoinSet<()>,
}

impl Publisher {
    pub(crate) fn new(inner: Arc<PostgresInner>) -> (Self, mpsc::Sender<PublishRequest>) {
        let (sender, requests) = mpsc::channel(QUEUE_CAPACITY);
        (Self { inner, requests, blocked: JoinSet::new() }, sender)
    }

    /// Publishes until the last caller is gone.
    pub(crate) async fn run(mut self) {
        while let Some(first) = self.requests.recv().await {
            let (mut events, mut bytes) = (first.events.len(), first.bytes());
            let mut group = vec![first];
            while events < MAX_GROUP
                && bytes < MAX_GROUP_BYTES
                && let Ok(request) = self.requests.try_recv()
            {
                events += request.events.len();
                bytes += request.bytes();
                group.push(request);
            }
            // A panic here is a bug. It fails this group, whose callers get an error, and no other.
            let _panic = AssertUnwindSafe(self.publish(group)).catch_unwind().await;
            // Callers that were just answered may publish again. Then those events go with the next
            // group.
            tokio::task::yield_now().await;
        }
    }

    /// Publishes a group. Its blocked callers are tried again beside the groups that follow, which
    /// so do not wait for them.
    async fn publish(&mut self, group: Vec<PublishRequest>) {
        while self.blocked.try_join_next().is_some() {}
        if let Some((blocked, error)) = publish_apart(&self.inner, group).await {
            if self.blocked.len() < MAX_BLOCKED {
                self.blocked.spawn(publish_blocked(Arc::clone(&self.inner), blocked, error));
            } else {
                refuse(blocked, error);
            }
        }
        // Not `wake`: `publish_group` has noted what the database has for the worker.
        self.inner.notifier.notify();
    }
}

/// Callers that are blocked, because an open transaction has published one of their ids, and the
/// error of the lock.
type Blocked = (Vec<PublishRequest>, sqlx::Error);

/// Publishes a group, as a whole if possible, and answers it; returns its blocked callers.
async fn publish_apart(inner: &PostgresInner, mut group: Vec<PublishRequest>) -> Option<Blocked> {
    let error = match publish_group(inner, &mut group).await {
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
        // No other caller can be the blocked one.
        if is_lock_timeout(&error) {
            return Some((group, error));
        }
        refuse(group, error);
        return None;
    }
    let (mut free, blocked) = match split(inner, group).await {
        Ok(split) => split,
        Err((group, error)) => {
            refuse(group, error);
            return None;
        }
    };
    let also_blocked = match publish_group(inner, &mut free).await {
        Ok(outcomes) => {
            answer(free, outcomes);
            Vec::new()
        }
        // The lock is not that of an id, but of something that all events need, such as a
        // partition.
        Err(error) if is_lock_timeout(&error) => free,
        Err(sqlx::Error::Database(_)) => publish_one_by_one(inner, free).await,
        Err(error) => {
            refuse(free, error);
            Vec::new()
        }
    };
    let blocked: Vec<PublishRequest> = blocked.into_iter().chain(also_blocked).collect();
    (!blocked.is_empty()).then_some((blocked, error))
}

/// Publishes each caller's events alone, so that one bad event fails no other caller; returns the
/// blocked callers.
async fn publish_one_by_one(
    inner: &PostgresInner,
    group: Vec<PublishRequest>,
) -> Vec<PublishRequest> {
    let mut blocked = Vec::new();
    for mut request in group {
        match publish_group(inner, std::slice::from_mut(&mut request)).await {
            Err(error) if is_lock_timeout(&error) => blocked.push(request),
            outcome => {
                // A caller that stopped waiting gets no answer.
                let _unheard = request.reply.send(outcome.map_err(store_error));
            }
        }
    }
    blocked
}

/// Splits a group into the callers whose ids are free, and those with an id that an open
/// transaction has published.
async fn split(
    inner: &PostgresInner,
    group: Vec<PublishRequest>,
) -> Result<(Vec<PublishRequest>, Vec<PublishRequest>), (Vec<PublishRequest>, sqlx::Error)> {
    const BLOCKED: &str = "SELECT webhooks.blocked_keys($1, $2)";
    let events = || group.iter().flat_map(|request| &request.events);
    let ids: Vec<String> = events().map(|event| event.id.to_string()).collect();
    let tenants: Vec<&str> = events().map(|event| event.tenant.as_str()).collect();
    let find = with_retries(async || {
        let mut call = inner.database.call().await?;
        let find = sqlx::query_scalar(BLOCKED).persistent(false).bind(&ids).bind(&tenants);
        let blocked: Vec<i32> = find.fetch_one(call.connection()).await?;
        call.commit().await?;
        Ok(blocked)
    });
    let places: BTreeSet<usize> = match find.await {
        Ok(blocked) => {
            blocked.into_iter().filter_map(|place| usize::try_from(place).ok()).collect()
        }
        Err(error) => return Err((group, error)),
    };
    let mut last = 0;
    let is_free = |request: &PublishRequest| {
        let first = last + 1;
        last += request.events.len();
        places.range(first..=last).next().is_none()
    };
    Ok(group.into_iter().partition(is_free))
}

/// Answers callers that nothing of theirs was published.
fn refuse(group: Vec<PublishRequest>, error: sqlx::Error) {
    let text = error.to_string();
    let mut first = Some(store_error(error));
    for request in group {
        let source = || StoreError::Unavailable { source: text.clone().into() };
        let error = first.take().unwrap_or_else(source);
        let _unheard = request.reply.send(Err(error));
    }
}

/// Publishes the events of blocked callers as soon as the transactions end that block them.
async fn publish_blocked(
    inner: Arc<PostgresInner>,
    group: Vec<PublishRequest>,
    error: sqlx::Error,
) {
    let mut blocked = (group, error);
    for _ in 0..BLOCKED_TRIES {
        pause(BLOCKED_PAUSE).await;
        let left = publish_apart(&inner, blocked.0).await;
        inner.notifier.notify();
        let Some(left) = left else { return };
        blocked = left;
    }
    refuse(blocked.0, blocked.1);
}

/// Publishes the events of these callers in one transaction, and puts the deliveries that it
/// preclaimed into the local queues.
async fn publish_group(
    inner: &PostgresInner,
    group: &mut [PublishRequest],
) -> Result<Outcomes, sqlx::Error> {
    let grant = {
        let events = || group.iter().flat_map(|request| &request.events);
        inner.preclaim_grant((events().count(), events().map(|event| event.body.len()).sum()))
    };
    // A try may be committed although its answer is lost. So its token is kept, and the next try
    // releases the deliveries that it preclaimed.
    let mut lost_tokens: BTreeSet<i64> = BTreeSet::new();
    for request in &mut *group {
        lost_tokens.extend(&request.tokens);
        request.tokens.extend(grant.as_ref().map(|grant| grant.token));
    }
    let group = &*group;
    let events: Vec<(&Arc<SerializedEvent>, Timestamp)> = (group.iter())
        .flat_map(|request| request.events.iter().map(|event| (event, request.now)))
        .collect();
    let Some(now) = events.iter().map(|(_, now)| *now).max() else { return Ok(Vec::new()) };
    let statement = PublishStatement {
        events: events.iter().map(|(event, now)| (&***event, *now)).collect(),
        worker: inner.membership.id,
        grant,
    };
    let tries = AtomicU32::new(0);
    let publish = with_retries(async || {
        tries.fetch_add(1, Ordering::Relaxed);
        let mut call = inner.database.call().await?;
        let prepares = call.prepares();
        match statement.execute(call.connection(), prepares).await {
            // The connection is as good as before.
            Err(error) if is_lock_timeout(&error) => call.rollback().await.and(Err(error)),
            reply => {
                let reply = reply?;
                call.commit().await?;
                Ok(reply)
            }
        }
    });
    // A publish that failed may be committed all the same: its answer was lost.
    let reply = publish.await.inspect_err(|_| inner.known_due().forget())?;
    if tries.into_inner() > 1 {
        lost_tokens.extend(statement.grant.as_ref().map(|grant| grant.token));
    }
    inner.database.note_group(group.len());
    release_lost(inner, &reply, lost_tokens).await;
    if let Some(PreclaimGrant { token, until, endpoints, .. }) = statement.grant {
        let preclaimed = reply.preclaimed.iter().filter_map(|(index, id, endpoint)| {
            let (event, queued_at) = *events.get(*index)?;
            let (endpoint, event) = (*endpoint, Arc::clone(event));
            let cancels = endpoints.get(&endpoint).copied().flatten();
            let id = *id;
            Some(PreclaimedDelivery { id, endpoint, token, queued_at, until, cancels, event })
        });
        inner.push_preclaimed(preclaimed.collect(), now).await;
    }
    if !reply.waiting.is_empty() {
        let mut known = inner.known_due();
        for EndpointDue { endpoint, tenant, due_at } in &reply.waiting {
            known.note_tenant(*endpoint, tenant);
            known.note(*endpoint, due_at.unwrap_or(now));
        }
    }
    Ok(reply.outcomes)
}

/// Releases the deliveries that an earlier try may have preclaimed with these tokens: it may be
/// committed, although its answer was lost. Without this they would wait for the end of their
/// leases.
async fn release_lost(inner: &PostgresInner, reply: &PublishReply, tokens: BTreeSet<i64>) {
    const RELEASE: &str = "UPDATE webhooks.pending_deliveries SET leased_until = NULL, token = NULL
        FROM unnest($1::bigint[]) AS event(number)
        WHERE webhooks.is_of(id, event.number) AND token = ANY ($2)";
    if tokens.is_empty() {
        return;
    }
    // An event that the group has twice is a duplicate, and its deliveries are preclaimed by this
    // try.
    let own: BTreeSet<i64> = reply.preclaimed.iter().map(|(_, id, _)| event_of(*id)).collect();
    let duplicates = reply.duplicates.iter().copied().filter(|event| !own.contains(event));
    let duplicates: Vec<i64> = duplicates.collect();
    if duplicates.is_empty() {
        return;
    }
    let release = async {
        let tokens = Vec::from_iter(tokens);
        let mut call = inner.database.call().await?;
        let release = sqlx::query(RELEASE).persistent(false).bind(&duplicates).bind(tokens);
        release.execute(call.connection()).await?;
        call.commit().await
    };
    let _due_later = with_timeout(release).await;
    inner.known_due().forget();
}

/// Gives each caller the outcomes of its events.
fn answer(group: Vec<PublishRequest>, outcomes: Outcomes) {
    let mut outcomes = outcomes.into_iter();
    for request in group {
        let own = outcomes.by_ref().take(request.events.len()).collect();
        let _unheard = request.reply.send(Ok(own));
    }
}
