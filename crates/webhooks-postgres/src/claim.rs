//! Claiming: the deliveries that are due, from the local queues and the database in turn.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Row as _;
use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::query::Query;
use webhooks_core::{TenantId, Timestamp};
use webhooks_dispatch::{
    clock::Now,
    store::{ClaimRequest, Claimed, Room, StoreError},
};
use webhooks_registry::EndpointNumber;

use crate::attach::ClaimedDelivery;
use crate::call::{with_retries, with_timeout};
use crate::cancel_closed::{CANCEL_BATCH, LockedRows, cancel_closed};
use crate::error::store_error;
use crate::known_due::EndpointDue;
use crate::row::{self, At};
use crate::state::{PostgresInner, local_now};

/// The number of times that a claim asks the database while it has room for more.
const MAX_ASKS: usize = 4;

/// The rows that `webhooks.claim` returned.
#[derive(Default)]
struct ClaimRows {
    deliveries: Vec<ClaimedDelivery>,
    /// The error of a claimed delivery that cannot be read. It is due again when its lease ends.
    unreadable: Option<sqlx::Error>,
    /// The ordered endpoints some deliveries of which were sorted.
    sorted: Vec<EndpointNumber>,
    /// Whether all that is due was claimed.
    is_exhausted: bool,
    /// The endpoints as they are now, if so.
    dues: Vec<EndpointDue>,
}

impl PostgresInner {
    /// Claims deliveries from the local queues or from the database, in turn.
    pub(crate) async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, StoreError> {
        let mut turns = self.turns.lock().await;
        self.membership.record_lease(request.lease);
        let members =
            with_retries(|| self.membership.members(&self.database)).await.map_err(store_error)?;
        if members.is_empty() {
            // It has no share yet, or no more.
            self.stop_preclaiming().await;
            return Ok(Vec::new());
        }
        let stale = {
            let mut queues = self.local_queues();
            queues.start(request.lease);
            queues.take_stale(local_now())
        };
        self.release_preclaimed(stale, request.now.wall).await;
        with_retries(|| self.read_dues(&members, request.now)).await.map_err(store_error)?;
        let now = request.now.wall;
        self.cancel_some_closed(now).await;
        let is_due = |due_at: Timestamp| due_at <= now;
        let database_has_some = self.known_due().next(&request.room, now).is_some_and(is_due);
        if turns.database_is_next && database_has_some {
            turns.database_is_next = false;
            let claimed = self.claim_from_database(&request, &members).await?;
            if claimed.is_empty() {
                return self.take_preclaimed(&request, &members).await;
            }
            if self.local_queues().has_some(&request.room) {
                // A worker that gets less than it asked for does not claim again until it is
                // notified.
                self.notifier.notify();
            }
            return Ok(claimed);
        }
        turns.database_is_next = true;
        let claimed = self.take_preclaimed(&request, &members).await?;
        if !database_has_some {
            return Ok(claimed);
        }
        if claimed.is_empty() {
            return self.claim_from_database(&request, &members).await;
        }
        // As above: the database may have something too.
        self.notifier.notify();
        Ok(claimed)
    }

    /// Claims deliveries from the database. An endpoint that was asked before may have nothing more,
    /// which its answer tells; then the next ones are asked.
    async fn claim_from_database(
        &self,
        request: &ClaimRequest,
        members: &Arc<[i64]>,
    ) -> Result<Vec<Claimed>, StoreError> {
        let mut claimed = Vec::new();
        for _ in 0..MAX_ASKS {
            let left = left_to_claim(request, &claimed);
            if left.limit == 0 || left.bytes == 0 {
                break;
            }
            let asked = self.plan(&left, &claimed);
            if asked.is_empty() {
                break;
            }
            match self.ask(&left, &asked, members).await {
                Ok(more) => claimed.extend(more),
                Err(error) if claimed.is_empty() => return Err(error),
                // The claimed deliveries are not lost, and the next claim tells if the database still fails.
                Err(_) => break,
            }
        }
        Ok(claimed)
    }

    /// Returns the endpoints whose turn it is to be claimed from, without those that `claimed` is for.
    fn plan(&self, request: &ClaimRequest, claimed: &[Claimed]) -> Vec<EndpointNumber> {
        let done: HashSet<EndpointNumber> =
            claimed.iter().map(|claimed| claimed.registration.number).collect();
        let most = request.limit.saturating_add(done.len());
        let mut asked = self.known_due().plan(&request.room, most, request.now.wall);
        asked.retain(|endpoint| !done.contains(endpoint));
        asked.truncate(request.limit);
        asked
    }

    /// Claims deliveries of these endpoints.
    async fn ask(
        &self,
        request: &ClaimRequest,
        asked: &[EndpointNumber],
        members: &Arc<[i64]>,
    ) -> Result<Vec<Claimed>, StoreError> {
        // One token for all tries: a try whose answer was lost has claimed rows, and the next try
        // gets them.
        let token = fastrand::i64(1..);
        let claim = async || self.claim_rows(request, token, asked, members).await;
        let rows = with_retries(claim).await.map_err(store_error)?;
        let has_closed = {
            let mut known = self.known_due();
            if rows.is_exhausted {
                known.answer(asked, rows.dues);
            } else {
                // Those behind the last one that was claimed from were not reached.
                let last = rows.deliveries.last();
                let last = last.map(|delivery| row::endpoint_number(delivery.endpoint));
                let reached = asked.iter().position(|endpoint| Some(*endpoint) == last);
                known.rotate(&asked[..reached.map_or(asked.len(), |place| place + 1)]);
            }
            for endpoint in &rows.sorted {
                known.note(*endpoint, Timestamp::UNIX_EPOCH);
            }
            known.closed().is_some()
        };
        if has_closed || !rows.sorted.is_empty() {
            self.notifier.notify();
        }
        let is_none = rows.deliveries.is_empty();
        let claimed = self.attach_endpoints(rows.deliveries, members, request.now.wall).await?;
        if let Some(error) = rows.unreadable.filter(|_| is_none) {
            return Err(store_error(error));
        }
        if let Some(last) = claimed.last() {
            self.known_due().set_served(&last.registration.endpoint.tenant);
        }
        Ok(claimed)
    }

    async fn claim_rows(
        &self,
        request: &ClaimRequest,
        token: i64,
        asked: &[EndpointNumber],
        members: &[i64],
    ) -> Result<ClaimRows, sqlx::Error> {
        const CLAIM: &str =
            "SELECT id, endpoint, version, queued_at, attempts, attempts_before_replay,
            event_id, tenant, type, body, trace, is_failing
            FROM webhooks.claim($1, $2 * interval '1 microsecond', $3, $4, $5, $6, $7, $8, $9)";
        let limit =
            |endpoint: &EndpointNumber| request.per_endpoint.min(request.room.of(*endpoint));
        let mut call = self.database.call().await?;
        let rows = sqlx::query(CLAIM)
            .persistent(call.prepares())
            .bind(At(request.now.wall))
            .bind(row::micros(request.lease))
            .bind(token)
            .bind(row::int4(request.limit))
            .bind(i64::try_from(request.bytes).unwrap_or(i64::MAX))
            .bind(asked.iter().map(|endpoint| row::endpoint_int8(*endpoint)).collect::<Vec<_>>())
            .bind(asked.iter().map(|endpoint| row::int4(limit(endpoint))).collect::<Vec<_>>())
            .bind(self.membership.id)
            .bind(members)
            .fetch_all(call.connection())
            .await?;
        call.commit().await?;
        ClaimRows::read(&rows, token)
    }

    /// Reads all endpoints with pending deliveries, if what is known of them is not complete.
    async fn read_dues(&self, members: &Arc<[i64]>, now: Now) -> Result<(), sqlx::Error> {
        const DUES: &str = "SELECT endpoint, tenant, due_at
            FROM webhooks.dues($1, webhooks.pending_endpoints(), $2, $3)";
        if self.known_due().is_complete(members) {
            return Ok(());
        }
        self.known_due().begin_read(members);
        let started = local_now();
        let dues = sqlx::query(DUES).bind(At(now.wall)).bind(self.membership.id);
        let dues = dues.bind(&**members);
        let found = self.fetch_dues(dues).await.inspect_err(|_| self.known_due().forget())?;
        self.known_due().complete(found);
        self.set_read_time(local_now().saturating_since(started));
        Ok(())
    }

    /// Reads the endpoints whose times may be too early.
    async fn read_unsure_dues(&self, members: &[i64], now: Now) -> Result<(), sqlx::Error> {
        const DUES: &str = "SELECT endpoint, tenant, due_at FROM webhooks.dues($1, $2, $3, $4)";
        let unsure = self.known_due().take_unsure();
        if unsure.is_empty() {
            return Ok(());
        }
        let numbers: Vec<i64> = unsure.iter().map(|number| row::endpoint_int8(*number)).collect();
        let dues = sqlx::query(DUES).bind(At(now.wall)).bind(numbers);
        // If this fails, a claim that finds nothing is made too early.
        let found = self.fetch_dues(dues.bind(self.membership.id).bind(members)).await?;
        self.known_due().answer(&unsure, found);
        Ok(())
    }

    async fn fetch_dues(
        &self,
        dues: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<EndpointDue>, sqlx::Error> {
        let mut call = self.database.call().await?;
        let dues = dues.persistent(call.prepares());
        let rows = dues.fetch_all(call.connection()).await?;
        call.commit().await?;
        let found = rows.iter().map(|row| endpoint_due(row, 0, 1, 2));
        Ok(found.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// Cancels a batch of the deliveries that are pending for a closed endpoint, if there is one. A
    /// failure does not fail the claim: a later one tries again.
    async fn cancel_some_closed(&self, now: Timestamp) {
        let Some(endpoint) = self.known_due().closed() else { return };
        let cancelled = with_timeout(self.cancel_some(row::endpoint_int8(endpoint), now)).await;
        let is_more = match cancelled {
            Ok(CANCEL_BATCH) => true,
            Ok(_) => self.known_due().close_ended(endpoint),
            Err(_) => false,
        };
        if is_more {
            self.notifier.notify();
        }
    }

    async fn cancel_some(&self, endpoint: i64, now: Timestamp) -> Result<i32, sqlx::Error> {
        let mut call = self.database.call().await?;
        let cancelled = cancel_closed(call.connection(), endpoint, LockedRows::Skip, now).await?;
        call.commit().await?;
        Ok(cancelled)
    }

    /// Returns the time until something may be due. It asks the database only if what is known is
    /// not complete.
    pub(crate) async fn next_due(
        &self,
        room: &Room,
        now: Now,
    ) -> Result<Option<Duration>, sqlx::Error> {
        if self.local_queues().has_some(room) {
            return Ok(Some(Duration::ZERO));
        }
        let _turns = self.turns.lock().await;
        let members = self.membership.members(&self.database).await?;
        // A worker without a share can claim nothing until a later heartbeat, and then may get a
        // share of any endpoint.
        let (members, soonest) = match &*members {
            [] => (Arc::from([self.membership.id]), self.membership.heartbeat()),
            _ => (members, Duration::ZERO),
        };
        self.read_dues(&members, now).await?;
        self.read_unsure_dues(&members, now).await?;
        let due_at = self.known_due().next(room, now.wall);
        Ok(due_at.map(|due_at| due_at.saturating_since(now.wall).max(soonest)))
    }
}

impl ClaimRows {
    /// Reads rows of the kinds that `webhooks.claim` returns; their NULLs tell them apart.
    fn read(rows: &[PgRow], token: i64) -> Result<Self, sqlx::Error> {
        let mut found = Self::default();
        for row in rows {
            match (row.try_get::<Option<i64>, _>(0)?, row.try_get::<Option<i64>, _>(2)?) {
                (Some(id), _) => match delivery(row, id, token) {
                    Ok(delivery) => found.deliveries.push(delivery),
                    Err(error) => found.unreadable = Some(error),
                },
                (None, None) => found.dues.extend(endpoint_due(row, 1, 7, 3)?),
                (None, Some(0)) => found.sorted.push(row::endpoint_number(row.try_get(1)?)),
                (None, Some(_one)) => found.is_exhausted = true,
            }
        }
        Ok(found)
    }
}

/// Returns the request for what is left to claim.
fn left_to_claim(request: &ClaimRequest, claimed: &[Claimed]) -> ClaimRequest {
    let bytes: usize = claimed.iter().map(|claimed| claimed.event.body.len()).sum();
    ClaimRequest {
        limit: request.limit.saturating_sub(claimed.len()),
        bytes: request.bytes.saturating_sub(bytes),
        ..request.clone()
    }
}

/// Reads an endpoint and the time from which it has something to claim, from these columns. Its
/// tenant can always be read, unless somebody changed the row by hand.
fn endpoint_due(
    row: &PgRow,
    endpoint: usize,
    tenant: usize,
    due_at: usize,
) -> Result<Option<EndpointDue>, sqlx::Error> {
    let endpoint = row::endpoint_number(row.try_get(endpoint)?);
    let due_at: Option<At> = row.try_get(due_at)?;
    let due_at = due_at.map(|At(due_at)| due_at);
    let tenant = TenantId::new(row.try_get::<&str, _>(tenant)?).ok();
    Ok(tenant.map(|tenant| EndpointDue { endpoint, tenant, due_at }))
}

/// Reads a delivery that was claimed by this token.
fn delivery(row: &PgRow, id: i64, token: i64) -> Result<ClaimedDelivery, sqlx::Error> {
    Ok(ClaimedDelivery {
        claim: row::claim(id, token),
        endpoint: row.try_get(1)?,
        version: row.try_get(2)?,
        event: Arc::new(row::event(row, 6)?),
        progress: row::progress(row, 3)?,
        is_failing: row.try_get(11)?,
    })
}
