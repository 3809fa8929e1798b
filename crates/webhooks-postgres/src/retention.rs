//! Retention: partitions whose events are old and have ended are dropped; the next partitions are
//! made ahead.

use webhooks_core::Timestamp;
use webhooks_dispatch::store::StoreError;

use crate::call::with_retries;
use crate::error::store_error;
use crate::row::{self, At};
use crate::state::PostgresInner;

impl PostgresInner {
    pub(crate) async fn prune(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        const AHEAD: &str = "SELECT webhooks.ensure_ahead()";
        const PRUNE: &str = "SELECT webhooks.prune($1, $2)";
        let prune = async || {
            let mut call = self.database.call().await?;
            sqlx::query(AHEAD).persistent(call.prepares()).execute(call.connection()).await?;
            let prune = sqlx::query_scalar(PRUNE)
                .persistent(call.prepares())
                .bind(At(before))
                .bind(row::int4(limit));
            let pruned: i32 = prune.fetch_one(call.connection()).await?;
            call.commit().await?;
            Ok(pruned)
        };
        let pruned = with_retries(prune).await.map_err(store_error)?;
        Ok(usize::try_from(pruned).unwrap_or_default())
    }
}
