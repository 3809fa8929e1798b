//! Retention: partitions whose events are old and have ended are dropped, events of one tenant are
//! deleted, and old figures are added up. The next partitions are made ahead.

use webhooks_core::{TenantId, Timestamp};
use webhooks_dispatch::{
    figures::KEPT,
    store::{PruneRequest, StoreError},
};

use crate::call::with_retries;
use crate::error::store_error;
use crate::row::{self, At};
use crate::state::PostgresInner;

/// The number of rows of figures that are added up in one transaction, and the most transactions
/// for one prune.
const FIGURES_BATCH: i32 = 5_000;
const FIGURES_BATCHES: usize = 40;

/// The number of a tenant's oldest events among which those without a pending delivery are deleted.
const EVENTS_TO_LOOK_AT: i32 = 10_000;

impl PostgresInner {
    pub(crate) async fn prune(&self, request: PruneRequest) -> Result<usize, StoreError> {
        let PruneRequest { tenant, before, limit, now } = request;
        let pruned = match &tenant {
            Some(tenant) => with_retries(|| self.prune_tenant(tenant, before, limit)).await,
            None => with_retries(|| self.prune_all(before, limit)).await,
        };
        let pruned = pruned.map_err(store_error)?;
        if tenant.is_none() {
            for _ in 0..FIGURES_BATCHES {
                if !with_retries(|| self.roll_up_figures(now)).await.map_err(store_error)? {
                    break;
                }
            }
        }
        Ok(usize::try_from(pruned).unwrap_or_default())
    }

    async fn prune_all(&self, before: Timestamp, limit: usize) -> Result<i32, sqlx::Error> {
        const AHEAD: &str = "SELECT webhooks.ensure_ahead()";
        const PRUNE: &str = "SELECT webhooks.prune($1, $2)";
        let mut call = self.database.call().await?;
        sqlx::query(AHEAD).persistent(call.prepares()).execute(call.connection()).await?;
        let prune = sqlx::query_scalar(PRUNE).persistent(call.prepares());
        let prune = prune.bind(At(before)).bind(row::int4(limit));
        let pruned = prune.fetch_one(call.connection()).await?;
        call.commit().await?;
        Ok(pruned)
    }

    async fn prune_tenant(
        &self,
        tenant: &TenantId,
        before: Timestamp,
        limit: usize,
    ) -> Result<i32, sqlx::Error> {
        const PRUNE: &str = "SELECT webhooks.prune_tenant($1, $2, $3, $4)";
        let mut call = self.database.call().await?;
        let prune = sqlx::query_scalar(PRUNE).persistent(call.prepares()).bind(tenant.as_str());
        let prune = prune.bind(At(before)).bind(row::int4(limit)).bind(EVENTS_TO_LOOK_AT);
        let pruned = prune.fetch_one(call.connection()).await?;
        call.commit().await?;
        Ok(pruned)
    }

    /// Adds up some old figures, and forgets some that are older; returns whether there may be
    /// more.
    async fn roll_up_figures(&self, now: Timestamp) -> Result<bool, sqlx::Error> {
        const ROLL_UP: &str = "SELECT webhooks.roll_up_figures(
            $1, $2 * interval '1 microsecond', $3 * interval '1 microsecond', $4)";
        let mut call = self.database.call().await?;
        let roll_up = sqlx::query_scalar(ROLL_UP).persistent(call.prepares()).bind(At(now));
        let roll_up = roll_up.bind(row::micros(KEPT.0)).bind(row::micros(KEPT.1));
        let is_more = roll_up.bind(FIGURES_BATCH).fetch_one(call.connection()).await?;
        call.commit().await?;
        Ok(is_more)
    }
}
