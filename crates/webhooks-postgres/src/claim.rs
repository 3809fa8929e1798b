//! Claiming: what is due, with the endpoint as it is now and this worker's share of its limits.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use webhooks_core::Timestamp;
use webhooks_dispatch::{
    clock::{MonotonicTime, Now},
    store::{
        Claim, ClaimRequest, Claimed, Outcome, Progress, SerializedEvent, Settlement, StoreError,
    },
};
use webhooks_registry::{EndpointNumber, Registration};

use crate::endpoints;
use crate::error::{attempt, persistently, store_error};
use crate::hand_over::elapsed;
use crate::row::{self, At};
use crate::share::shared;
use crate::store::Shared;

/// How many endpoints are remembered between claims.
const MAX_REMEMBERED: usize = 10_000;

/// How many deliveries of an endpoint that is gone are cancelled in one transaction.
pub(crate) const DRAIN: i32 = 1_000;

/// Endpoints by the number and version of their rows, with this worker's share among these workers.
#[derive(Debug, Default)]
pub(crate) struct Registrations {
    members: Arc<[i64]>,
    known: HashMap<(i64, i64), Option<Arc<Registration>>>,
}

/// When endpoints that were not busy have something due next, as long as nothing has changed.
#[derive(Debug, Default)]
pub(crate) struct Dues {
    /// After how many changes it was found; never if `None`.
    found_at: Option<u64>,
    busy: Arc<BTreeSet<EndpointNumber>>,
    by_endpoint: BTreeMap<EndpointNumber, MonotonicTime>,
}

impl Dues {
    /// Returns whether it holds after so many changes, and of all that are not busy.
    fn are_known(&self, changes: u64, busy: &BTreeSet<EndpointNumber>) -> bool {
        self.found_at == Some(changes) && self.busy.is_subset(busy)
    }

    /// Returns what is due next for endpoints that are not busy.
    fn next(&self, busy: &BTreeSet<EndpointNumber>) -> Option<MonotonicTime> {
        let is_free = |(endpoint, _): &(&EndpointNumber, &MonotonicTime)| !busy.contains(*endpoint);
        self.by_endpoint.iter().filter(is_free).map(|(_, due_at)| *due_at).min()
    }
}

/// Whose turn it is at the next claim.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// The tenant that was served last.
    served: Option<String>,
    /// Whether the database comes first, or what was handed over.
    is_of_database: bool,
}

/// What a claim found in the database.
#[derive(Default)]
struct Found {
    /// How many deliveries were claimed.
    claimed: usize,
    deliveries: Vec<Delivery>,
    /// Why some of what was claimed cannot be read. It is due again when its lease ends.
    unreadable: Option<sqlx::Error>,
    /// Endpoints that are gone and have something left over.
    gone: Vec<i64>,
    /// Whether some of what waits for an ordered endpoint was put into order.
    is_repaired: bool,
    /// What is due next, if all that is due was claimed.
    dues: BTreeMap<EndpointNumber, MonotonicTime>,
}

/// A delivery that was claimed.
pub(crate) struct Delivery {
    pub(crate) claim: Claim,
    pub(crate) endpoint: i64,
    pub(crate) version: i64,
    pub(crate) event: Arc<SerializedEvent>,
    pub(crate) progress: Progress,
    /// Whether its endpoint's last attempt failed.
    pub(crate) is_failing: bool,
}

impl Delivery {
    /// Reads a delivery that was claimed by this token.
    fn read(row: &PgRow, token: i64) -> Result<Self, sqlx::Error> {
        Ok(Self {
            claim: row::claim(row.try_get(0)?, token),
            endpoint: row.try_get(1)?,
            version: row.try_get(2)?,
            event: Arc::new(row::event(row, 6)?),
            progress: row::progress(row, 3)?,
            is_failing: row.try_get(10)?,
        })
    }
}

/// Returns a claim given up.
pub(crate) fn released(claim: Claim) -> Settlement {
    Settlement { claim, outcome: Outcome::Released, attempt: None }
}

impl Shared {
    /// Claims what was handed over, or what waits in the database, in turn.
    pub(crate) async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, StoreError> {
        let mut turns = self.claiming.lock().await;
        self.workers.lease(request.lease);
        let members = persistently(|| self.workers.join(self)).await.map_err(store_error)?;
        if members.is_empty() {
            // It has no share, or no more.
            self.stop().await;
            return Ok(Vec::new());
        }
        let stale = {
            let mut handed = self.handed();
            handed.start(request.lease);
            handed.stale(elapsed())
        };
        self.release_held(stale, request.now.wall).await;
        // The database is asked in every other turn, unless it is known to have nothing.
        let is_dry = {
            let dues = self.dues();
            dues.are_known(self.changes(), &request.busy)
                && dues.next(&request.busy).is_none_or(|due_at| due_at > request.now.monotonic)
        };
        if turns.is_of_database && !is_dry {
            turns.is_of_database = false;
            let claimed = self.claim_waiting(&request, &mut turns, &members).await?;
            if claimed.is_empty() {
                return self.take(&request, &members).await;
            }
            if self.handed().has_some(&request.busy) {
                // Whoever gets less than was asked for does not ask again by itself.
                self.notifier.notify();
            }
            return Ok(claimed);
        }
        turns.is_of_database = true;
        let claimed = self.take(&request, &members).await?;
        if claimed.is_empty() && !is_dry {
            return self.claim_waiting(&request, &mut turns, &members).await;
        }
        if !is_dry {
            self.notifier.notify();
        }
        Ok(claimed)
    }

    /// Claims what waits in the database.
    async fn claim_waiting(
        &self,
        request: &ClaimRequest,
        turns: &mut Turns,
        members: &Arc<[i64]>,
    ) -> Result<Vec<Claimed>, StoreError> {
        self.change();
        let changes = self.changes();
        let token = fastrand::i64(1..);
        let claim =
            async || self.claim_rows(request, token, turns.served.as_deref(), members).await;
        let found = persistently(claim).await.map_err(store_error)?;
        if found.claimed < request.limit {
            let busy = Arc::clone(&request.busy);
            *self.dues() = Dues { found_at: Some(changes), busy, by_endpoint: found.dues };
        }
        if found.is_repaired {
            self.wake();
        }
        let is_none = found.deliveries.is_empty();
        let claimed = self.claimed(found.deliveries, members, request.now.wall).await?;
        if let Some(error) = found.unreadable.filter(|_| is_none) {
            return Err(store_error(error));
        }
        if let Some(last) = claimed.last() {
            turns.served = Some(last.registration.endpoint.tenant.to_string());
        }
        // What was claimed counts, whatever becomes of this: the next claim finds the rest.
        // One of them is taken at random, so that none that fails keeps the others.
        if let Some(endpoint) = fastrand::choice(&found.gone) {
            let drained = attempt(self.drain(*endpoint)).await.unwrap_or_default();
            if drained == DRAIN || (drained > 0 && found.gone.len() > 1) {
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
    ) -> Result<Found, sqlx::Error> {
        const CLAIM: &str =
            "SELECT id, endpoint, version, queued_at, attempts, attempts_before_replay,
            event_id, tenant, type, body, is_failing
            FROM webhooks.claim($1, $2 * interval '1 microsecond', $3, $4, $5, $6, $7, $8, $9)";
        let busy: Vec<i64> = request.busy.iter().map(|number| row::endpoint(*number)).collect();
        let mut call = self.call().await?;
        let rows = sqlx::query(CLAIM)
            .persistent(call.prepares())
            .bind(At(request.now.wall))
            .bind(row::micros(request.lease))
            .bind(token)
            .bind(row::limit(request.limit))
            .bind(row::limit(request.per_endpoint))
            .bind(busy)
            .bind(served.unwrap_or_default())
            .bind(self.workers.id)
            .bind(members)
            .fetch_all(call.on())
            .await?;
        call.end().await?;
        let mut found = Found::default();
        for row in rows {
            let (id, queued_at): (Option<i64>, Option<At>) = (row.try_get(0)?, row.try_get(3)?);
            match (id, queued_at) {
                (Some(_), _) => {
                    found.claimed += 1;
                    match Delivery::read(&row, token) {
                        Ok(delivery) => found.deliveries.push(delivery),
                        Err(error) => found.unreadable = Some(error),
                    }
                }
                (None, Some(At(due_at))) => {
                    let endpoint = row::endpoint_number(row.try_get(1)?);
                    // What is due later is so by a clock that may step; the wait for it goes on.
                    let wait = due_at.saturating_since(request.now.wall);
                    found.dues.insert(endpoint, request.now.monotonic + wait);
                }
                (None, None) => match row.try_get::<Option<i64>, _>(2)? {
                    Some(_late) => found.is_repaired = true,
                    None => found.gone.push(row.try_get(1)?),
                },
            }
        }
        Ok(found)
    }

    /// Puts what was claimed together with its endpoints. What this worker has no share of is handed
    /// back.
    pub(crate) async fn claimed(
        &self,
        found: Vec<Delivery>,
        members: &Arc<[i64]>,
        now: Timestamp,
    ) -> Result<Vec<Claimed>, StoreError> {
        let missing: BTreeSet<(i64, i64)> = {
            let mut registrations = self.registrations();
            if registrations.members != *members {
                *registrations =
                    Registrations { members: Arc::clone(members), ..Default::default() };
            }
            let keys = found.iter().map(|found| (found.endpoint, found.version));
            keys.filter(|key| !registrations.known.contains_key(key)).collect()
        };
        let broken = if missing.is_empty() {
            None
        } else {
            persistently(|| self.remember(&missing, members)).await.map_err(store_error)?
        };
        let (mut claimed, mut unserved) = (Vec::with_capacity(found.len()), Vec::new());
        {
            let (registrations, mut handed) = (self.registrations(), self.handed());
            for Delivery { claim, endpoint, version, event, progress, is_failing } in found {
                // One whose endpoint cannot be read here is due again when its lease ends, for a
                // worker that can; it must not keep the others waiting.
                match registrations.known.get(&(endpoint, version)) {
                    Some(Some(registration)) => {
                        handed.claimed(endpoint, registration, elapsed());
                        let registration = Arc::clone(registration);
                        claimed.push(Claimed { claim, registration, event, progress, is_failing });
                    }
                    Some(None) => {
                        handed.refuse(endpoint, elapsed());
                        unserved.push(released(claim));
                    }
                    None => handed.refuse(endpoint, elapsed()),
                }
            }
        }
        self.workers.hold_claimed(claimed.iter().map(|claimed| claimed.claim));
        if let Some(error) = broken.filter(|_| claimed.is_empty() && unserved.is_empty()) {
            return Err(store_error(error));
        }
        if !unserved.is_empty() {
            // What cannot be handed back is due again when its lease ends.
            let _due_later = self.settle(unserved, now).await;
        }
        Ok(claimed)
    }

    /// Reads endpoints that are not known in these versions; returns why one could not be read, if
    /// that was so. One that is gone meanwhile is none: its row holds no secrets any more.
    async fn remember(
        &self,
        missing: &BTreeSet<(i64, i64)>,
        members: &[i64],
    ) -> Result<Option<sqlx::Error>, sqlx::Error> {
        let select = format!("{} WHERE number = ANY ($1) AND is_open", endpoints::SELECT);
        let numbers: Vec<i64> = missing.iter().map(|(number, _)| *number).collect();
        let mut call = self.call().await?;
        let rows = sqlx::query(sqlx::AssertSqlSafe(select)).persistent(call.prepares());
        let rows = rows.bind(numbers).fetch_all(call.on()).await?;
        call.end().await?;
        let (mut found, mut broken) = (Vec::with_capacity(rows.len()), None);
        for row in rows {
            let number: i64 = row.try_get(0)?;
            match endpoints::registration(&row, &self.keys) {
                Ok(registration) => {
                    let registration = Arc::new(registration);
                    found.push((number, shared(&registration, number, self.workers.id, members)));
                }
                Err(error) => broken = Some(error),
            }
        }
        let known = &mut self.registrations().known;
        if known.len() + missing.len() > MAX_REMEMBERED {
            known.clear();
        }
        // A version that was replaced meanwhile stands for the newer one: it goes by that.
        for key in missing {
            if let Some((_, registration)) = found.iter().find(|(number, _)| *number == key.0) {
                known.insert(*key, registration.clone());
            }
        }
        Ok(broken)
    }

    /// Cancels some of what waits for an endpoint that is gone; returns how many.
    async fn drain(&self, endpoint: i64) -> Result<i32, sqlx::Error> {
        let mut call = self.call().await?;
        let drained = drain(call.on(), endpoint).await?;
        call.end().await?;
        Ok(drained)
    }

    pub(crate) async fn extend(
        &self,
        claims: Vec<Claim>,
        lease: Duration,
        now: Now,
    ) -> Result<Vec<Claim>, StoreError> {
        const EXTEND: &str = "
            UPDATE webhooks.pending_deliveries SET leased_until = greatest(
                leased_until, webhooks.lease_clock($4) + $3 * interval '1 microsecond')
            FROM unnest($1::bigint[], $2::bigint[]) AS claim(id, token)
            WHERE pending_deliveries.id = claim.id AND pending_deliveries.token = claim.token
            RETURNING pending_deliveries.id, pending_deliveries.token";
        let ids: Vec<i64> = claims.iter().map(|claim| row::number(claim.delivery)).collect();
        let tokens: Vec<i64> = claims.iter().map(|claim| row::integer(claim.token)).collect();
        let extend = async || {
            let mut call = self.call().await?;
            let extended: Vec<(i64, i64)> = sqlx::query_as(EXTEND)
                .persistent(call.prepares())
                .bind(&ids)
                .bind(&tokens)
                .bind(row::micros(lease))
                .bind(At(now.wall))
                .fetch_all(call.on())
                .await?;
            call.end().await?;
            Ok(extended)
        };
        let extended: BTreeSet<(i64, i64)> =
            persistently(extend).await.map_err(store_error)?.into_iter().collect();
        let is_lost = |claim: &Claim| {
            !extended.contains(&(row::number(claim.delivery), row::integer(claim.token)))
        };
        let (lost, held): (Vec<Claim>, Vec<Claim>) = claims.into_iter().partition(is_lost);
        self.workers.hold(held, lease);
        self.workers.let_go(&lost);
        Ok(lost)
    }

    /// Returns how long it takes until something may be due; asks the database only if something has changed since the
    /// last claim.
    pub(crate) async fn next_due(
        &self,
        busy: &BTreeSet<EndpointNumber>,
        now: Now,
    ) -> Result<Option<Duration>, sqlx::Error> {
        const NEXT_DUE: &str = "SELECT min(due_at) FROM webhooks.dues($1, $2, $3, $4)";
        if self.handed().has_some(busy) {
            return Ok(Some(Duration::ZERO));
        }
        {
            let dues = self.dues();
            if dues.are_known(self.changes(), busy) {
                let next = dues.next(busy);
                return Ok(next.map(|next| next.saturating_since(now.monotonic)));
            }
        }
        let members = self.workers.join(self).await?;
        // Without a share it can claim nothing yet; later it may get any part of all.
        let (members, soonest) = match &*members {
            [] => (Arc::from([self.workers.id]), self.workers.heartbeat()),
            _ => (members, Duration::ZERO),
        };
        let busy: Vec<i64> = busy.iter().map(|number| row::endpoint(*number)).collect();
        let mut call = self.call().await?;
        let due_at: Option<At> = sqlx::query_scalar(NEXT_DUE)
            .persistent(call.prepares())
            .bind(At(now.wall))
            .bind(busy)
            .bind(self.workers.id)
            .bind(&*members)
            .fetch_one(call.on())
            .await?;
        call.end().await?;
        Ok(due_at.map(|At(due_at)| due_at.saturating_since(now.wall).max(soonest)))
    }

    fn dues(&self) -> MutexGuard<'_, Dues> {
        self.dues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cancels some of what waits for an endpoint that is gone; returns how many.
pub(crate) async fn drain(
    connection: &mut PgConnection,
    endpoint: i64,
) -> Result<i32, sqlx::Error> {
    let drain = sqlx::query_scalar("SELECT webhooks.drain($1, $2)")
        .persistent(false)
        .bind(endpoint)
        .bind(DRAIN);
    drain.fetch_one(connection).await
}
