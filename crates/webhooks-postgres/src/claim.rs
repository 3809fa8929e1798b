//! Claiming: what is due, with the endpoint as it is now and this worker's share of its limits.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use webhooks_core::{EndpointId, Timestamp};
use webhooks_dispatch::{Claim, ClaimRequest, Claimed, StoreError};
use webhooks_registry::Registration;

use crate::endpoints;
use crate::error::{persistently, store_error};
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

/// What was last found to be due next, and for whom that holds.
#[derive(Debug, Default)]
pub(crate) struct Due {
    /// After how many changes, with which endpoints busy.
    asked: Option<(u64, Arc<BTreeSet<EndpointId>>)>,
    due_at: Option<Timestamp>,
}

/// A row of a claim.
struct Found {
    delivery: i64,
    endpoint: i64,
    version: i64,
    row: PgRow,
}

impl Shared {
    pub(crate) async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, StoreError> {
        let mut served = self.claiming.lock().await;
        let members = persistently(|| self.workers.join(&self.pool)).await.map_err(store_error)?;
        if members.is_empty() {
            return Ok(Vec::new());
        }
        // Whoever asks what is due next asks anew.
        self.change();
        let token = fastrand::i64(1..);
        let claim = async || self.claim_rows(&request, token, served.as_deref(), &members).await;
        let (found, gone) = persistently(claim).await.map_err(store_error)?;
        let claimed = self.claimed(found, token, &members).await.map_err(store_error)?;
        if let Some(last) = claimed.last() {
            *served = Some(last.registration.endpoint.tenant.to_string());
        }
        for endpoint in gone {
            self.drain(endpoint).await.map_err(store_error)?;
        }
        Ok(claimed)
    }

    /// Claims, and returns the deliveries and the endpoints that are gone.
    async fn claim_rows(
        &self,
        request: &ClaimRequest,
        token: i64,
        served: Option<&str>,
        members: &[i64],
    ) -> Result<(Vec<Found>, Vec<i64>), sqlx::Error> {
        const CLAIM: &str = "SELECT id, endpoint, version, since, attempts, earlier_attempts,
            event_id, tenant, type, body FROM webhooks.claim($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let busy: Vec<&str> = request.busy.iter().map(EndpointId::as_str).collect();
        let mut call = self.call().await?;
        let rows = sqlx::query(CLAIM)
            .bind(At(request.now))
            .bind(At(request.now + request.lease))
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
        let (mut found, mut gone) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in rows {
            let (delivery, endpoint): (Option<i64>, i64) = (row.try_get(0)?, row.try_get(1)?);
            match delivery {
                Some(delivery) => {
                    found.push(Found { delivery, endpoint, version: row.try_get(2)?, row });
                }
                None => gone.push(endpoint),
            }
        }
        Ok((found, gone))
    }

    /// Puts what was claimed together with its endpoints.
    async fn claimed(
        &self,
        found: Vec<Found>,
        token: i64,
        members: &Arc<[i64]>,
    ) -> Result<Vec<Claimed>, sqlx::Error> {
        let missing: BTreeSet<(i64, i64)> = {
            let mut registrations = self.registrations();
            if registrations.members != *members {
                *registrations =
                    Registrations { members: Arc::clone(members), ..Default::default() };
            }
            let keys = found.iter().map(|found| (found.endpoint, found.version));
            keys.filter(|key| !registrations.known.contains_key(key)).collect()
        };
        if !missing.is_empty() {
            persistently(|| self.remember(&missing, members)).await?;
        }
        let known = &self.registrations().known;
        let mut claimed = Vec::with_capacity(found.len());
        for Found { delivery, endpoint, version, row } in found {
            // One whose endpoint went away meanwhile is due again when its lease ends, and cancelled.
            let Some(Some(registration)) = known.get(&(endpoint, version)) else { continue };
            claimed.push(Claimed {
                claim: Claim { delivery: row::delivery_id(delivery), token: row::unsigned(token) },
                registration: Arc::clone(registration),
                event: Arc::new(row::event(&row, 6)?),
                progress: row::progress(&row, 3)?,
            });
        }
        Ok(claimed)
    }

    /// Reads endpoints that are not known in these versions.
    async fn remember(
        &self,
        missing: &BTreeSet<(i64, i64)>,
        members: &[i64],
    ) -> Result<(), sqlx::Error> {
        let select = format!("{} WHERE number = ANY ($1)", endpoints::SELECT);
        let numbers: Vec<i64> = missing.iter().map(|(number, _)| *number).collect();
        let mut call = self.call().await?;
        let rows = sqlx::query(sqlx::AssertSqlSafe(select));
        let rows = rows.bind(numbers).fetch_all(call.on()).await?;
        call.end().await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            let number: i64 = row.try_get(0)?;
            let registration = Arc::new(endpoints::registration(&row, &self.keys)?);
            found.push((number, shared(&registration, number, self.workers.id, members)));
        }
        let known = &mut self.registrations().known;
        if known.len() + missing.len() > MAX_REMEMBERED {
            known.clear();
        }
        // A version that was replaced meanwhile stands for the newer one: it goes by that.
        for key in missing {
            let newest = found.iter().find(|(number, _)| *number == key.0);
            known.insert(*key, newest.and_then(|(_, registration)| registration.clone()));
        }
        Ok(())
    }

    /// Cancels some of what waits for an endpoint that is gone, and comes back for the rest.
    async fn drain(&self, endpoint: i64) -> Result<(), sqlx::Error> {
        let mut call = self.call().await?;
        let drained = drain(call.on(), endpoint).await?;
        call.end().await?;
        if drained == DRAIN {
            self.wake();
        }
        Ok(())
    }

    pub(crate) async fn extend(
        &self,
        claims: Vec<Claim>,
        until: Timestamp,
    ) -> Result<Vec<Claim>, StoreError> {
        const EXTEND: &str = "
            UPDATE webhooks.waiting SET leased_until = greatest(leased_until, $3)
            FROM unnest($1::bigint[], $2::bigint[]) AS claim(id, token)
            WHERE waiting.id = claim.id AND waiting.token = claim.token
            RETURNING waiting.id, waiting.token";
        let ids: Vec<i64> = claims.iter().map(|claim| row::number(claim.delivery)).collect();
        let tokens: Vec<i64> = claims.iter().map(|claim| row::integer(claim.token)).collect();
        let extend = async || {
            let mut call = self.call().await?;
            let extended: Vec<(i64, i64)> = sqlx::query_as(EXTEND)
                .bind(&ids)
                .bind(&tokens)
                .bind(At(until))
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
        Ok(claims.into_iter().filter(is_lost).collect())
    }

    /// Returns when something may be due; asks the database only if something has changed.
    pub(crate) async fn next_due(
        &self,
        busy: &Arc<BTreeSet<EndpointId>>,
    ) -> Result<Option<Timestamp>, sqlx::Error> {
        const NEXT_DUE: &str = "SELECT webhooks.next_due($1, $2, $3)";
        let changes = self.changes();
        {
            let due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            if due.asked.as_ref().is_some_and(|(at, who)| *at == changes && who == busy) {
                return Ok(due.due_at);
            }
        }
        let members = self.workers.join(&self.pool).await?;
        if members.is_empty() {
            return Ok(None);
        }
        let names: Vec<&str> = busy.iter().map(EndpointId::as_str).collect();
        let mut call = self.call().await?;
        let due_at: Option<At> = sqlx::query_scalar(NEXT_DUE)
            .bind(names)
            .bind(self.workers.id)
            .bind(&*members)
            .fetch_one(call.on())
            .await?;
        call.end().await?;
        let due_at = due_at.map(|At(due_at)| due_at);
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        *due = Due { asked: Some((changes, Arc::clone(busy))), due_at };
        Ok(due_at)
    }
}

/// Cancels some of what waits for an endpoint that is gone; returns how many.
pub(crate) async fn drain(
    connection: &mut PgConnection,
    endpoint: i64,
) -> Result<i32, sqlx::Error> {
    let drain = sqlx::query_scalar("SELECT webhooks.drain($1, $2)").bind(endpoint).bind(DRAIN);
    drain.fetch_one(connection).await
}
