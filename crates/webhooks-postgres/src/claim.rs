//! Claiming: the deliveries that are due, from the local queues and the database in turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use webhooks_core::Timestamp;
use webhooks_dispatch::{
    clock::{MonotonicTime, Now},
    store::{ClaimRequest, Claimed, StoreError},
};
use webhooks_registry::EndpointNumber;

use crate::attach::ClaimedDelivery;
use crate::call::{with_retries, with_timeout};
use crate::cancel_closed::{CANCEL_BATCH, LockedRows, cancel_closed};
use crate::claim_state::{ClaimTurns, NextDueCache};
use crate::error::store_error;
use crate::row::{self, At};
use crate::state::{PostgresInner, local_now};

/// The rows that `webhooks.claim` returned.
#[derive(Default)]
struct ClaimRows {
    /// The number of deliveries that were claimed.
    count: usize,
    deliveries: Vec<ClaimedDelivery>,
    /// The error of a claimed delivery that cannot be read. It is due again when its lease ends.
    unreadable: Option<sqlx::Error>,
    /// The closed endpoints that still have pending deliveries.
    closed: Vec<i64>,
    /// Whether some deliveries of an ordered endpoint were sorted.
    has_sorted: bool,
    /// The next due time of each endpoint, if all that is due was claimed.
    next_due: BTreeMap<EndpointNumber, MonotonicTime>,
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
        let database_has_nothing = {
            let cache = self.next_due_cache();
            cache.is_valid(self.changes(), &request.busy)
                && cache.next(&request.busy).is_none_or(|due_at| due_at > request.now.monotonic)
        };
        if turns.database_is_next && !database_has_nothing {
            turns.database_is_next = false;
            let claimed = self.claim_from_database(&request, &mut turns, &members).await?;
            if claimed.is_empty() {
                return self.take_preclaimed(&request, &members).await;
            }
            if self.local_queues().has_some(&request.busy) {
                // A worker that gets less than it asked for does not claim again until it is
                // notified.
                self.notifier.notify();
            }
            return Ok(claimed);
        }
        turns.database_is_next = true;
        let claimed = self.take_preclaimed(&request, &members).await?;
        if database_has_nothing {
            return Ok(claimed);
        }
        if claimed.is_empty() {
            return self.claim_from_database(&request, &mut turns, &members).await;
        }
        // As above: the database may have something too.
        self.notifier.notify();
        Ok(claimed)
    }

    /// Claims deliveries from the database.
    async fn claim_from_database(
        &self,
        request: &ClaimRequest,
        turns: &mut ClaimTurns,
        members: &Arc<[i64]>,
    ) -> Result<Vec<Claimed>, StoreError> {
        // First the count changes, and then it is read: the times that an earlier claim found are
        // void from here on, and those of this claim are void if anything changes while it is made.
        self.note_change();
        let changes = self.changes();
        // One token for all tries: a try whose answer was lost has claimed rows, and the next try
        // gets them.
        let token = fastrand::i64(1..);
        let claim =
            async || self.claim_rows(request, token, turns.served.as_deref(), members).await;
        let rows = with_retries(claim).await.map_err(store_error)?;
        if rows.count < request.limit {
            let busy = Arc::clone(&request.busy);
            *self.next_due_cache() = NextDueCache {
                changes_when_found: Some(changes),
                busy,
                by_endpoint: rows.next_due,
            };
        }
        if rows.has_sorted {
            self.wake();
        }
        let is_none = rows.deliveries.is_empty();
        let claimed = self.attach_endpoints(rows.deliveries, members, request.now.wall).await?;
        if let Some(error) = rows.unreadable.filter(|_| is_none) {
            return Err(store_error(error));
        }
        if let Some(last) = claimed.last() {
            turns.served = Some(last.registration.endpoint.tenant.to_string());
        }
        // One closed endpoint is taken at random, so that one that fails does not block the others.
        // A failure does not fail the claim: the next claim finds the endpoint again.
        if let Some(endpoint) = fastrand::choice(&rows.closed) {
            let cancelled = with_timeout(self.cancel_some(*endpoint, request.now.wall))
                .await
                .unwrap_or_default();
            if cancelled == CANCEL_BATCH || (cancelled > 0 && rows.closed.len() > 1) {
                self.wake();
            }
        }
        Ok(claimed)
    }

    async fn claim_rows(
        &self,
        request: &ClaimRequest,
        token: i64,
        served: Option<&str>,
        members: &[i64],
    ) -> Result<ClaimRows, sqlx::Error> {
        const CLAIM: &str =
            "SELECT id, endpoint, version, queued_at, attempts, attempts_before_replay,
            event_id, tenant, type, body, is_failing
            FROM webhooks.claim($1, $2 * interval '1 microsecond', $3, $4, $5, $6, $7, $8, $9)";
        let busy: Vec<i64> =
            request.busy.iter().map(|number| row::endpoint_int8(*number)).collect();
        let mut call = self.database.call().await?;
        let rows = sqlx::query(CLAIM)
            .persistent(call.prepares())
            .bind(At(request.now.wall))
            .bind(row::micros(request.lease))
            .bind(token)
            .bind(row::int4(request.limit))
            .bind(row::int4(request.per_endpoint))
            .bind(busy)
            .bind(served.unwrap_or_default())
            .bind(self.membership.id)
            .bind(members)
            .fetch_all(call.connection())
            .await?;
        call.commit().await?;
        ClaimRows::read(&rows, token, request.now)
    }

    /// Cancels some of the deliveries that are pending for a closed endpoint; returns how many.
    async fn cancel_some(&self, endpoint: i64, now: Timestamp) -> Result<i32, sqlx::Error> {
        let mut call = self.database.call().await?;
        let cancelled = cancel_closed(call.connection(), endpoint, LockedRows::Skip, now).await?;
        call.commit().await?;
        Ok(cancelled)
    }

    /// Returns the time until something may be due. It asks the database only if something has
    /// changed since the last claim.
    pub(crate) async fn next_due(
        &self,
        busy: &BTreeSet<EndpointNumber>,
        now: Now,
    ) -> Result<Option<Duration>, sqlx::Error> {
        const NEXT_DUE: &str = "SELECT min(due_at) FROM webhooks.dues($1, $2, $3, $4)";
        if self.local_queues().has_some(busy) {
            return Ok(Some(Duration::ZERO));
        }
        {
            let cache = self.next_due_cache();
            if cache.is_valid(self.changes(), busy) {
                let next = cache.next(busy);
                return Ok(next.map(|next| next.saturating_since(now.monotonic)));
            }
        }
        let members = self.membership.members(&self.database).await?;
        // A worker without a share can claim nothing until a later heartbeat, and then may get a
        // share of any endpoint.
        let (members, soonest) = match &*members {
            [] => (Arc::from([self.membership.id]), self.membership.heartbeat()),
            _ => (members, Duration::ZERO),
        };
        let busy: Vec<i64> = busy.iter().map(|number| row::endpoint_int8(*number)).collect();
        let mut call = self.database.call().await?;
        let due_at: Option<At> = sqlx::query_scalar(NEXT_DUE)
            .persistent(call.prepares())
            .bind(At(now.wall))
            .bind(busy)
            .bind(self.membership.id)
            .bind(&*members)
            .fetch_one(call.connection())
            .await?;
        call.commit().await?;
        Ok(due_at.map(|At(due_at)| due_at.saturating_since(now.wall).max(soonest)))
    }
}

impl ClaimRows {
    /// Reads rows of the four kinds that `webhooks.claim` returns; their NULLs tell them apart.
    fn read(rows: &[PgRow], token: i64, now: Now) -> Result<Self, sqlx::Error> {
        let mut found = Self::default();
        for row in rows {
            let (id, queued_at): (Option<i64>, Option<At>) = (row.try_get(0)?, row.try_get(3)?);
            match (id, queued_at) {
                (Some(id), _) => {
                    found.count += 1;
                    match delivery(row, id, token) {
                        Ok(delivery) => found.deliveries.push(delivery),
                        Err(error) => found.unreadable = Some(error),
                    }
                }
                (None, Some(At(due_at))) => {
                    let endpoint = row::endpoint_number(row.try_get(1)?);
                    // The wall clock may step, so the rest of the wait is measured by the other
                    // clock.
                    let wait = due_at.saturating_since(now.wall);
                    found.next_due.insert(endpoint, now.monotonic + wait);
                }
                (None, None) => match row.try_get::<Option<i64>, _>(2)? {
                    Some(_zero) => found.has_sorted = true,
                    None => found.closed.push(row.try_get(1)?),
                },
            }
        }
        Ok(found)
    }
}

/// Reads a delivery that was claimed by this token.
fn delivery(row: &PgRow, id: i64, token: i64) -> Result<ClaimedDelivery, sqlx::Error> {
    Ok(ClaimedDelivery {
        claim: row::claim(id, token),
        endpoint: row.try_get(1)?,
        version: row.try_get(2)?,
        event: Arc::new(row::event(row, 6)?),
        progress: row::progress(row, 3)?,
        is_failing: row.try_get(10)?,
    })
}
