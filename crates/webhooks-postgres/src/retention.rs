//! Retention: what is old and has ended goes with its partition; the next partitions are made ahead.

use webhooks_core::Timestamp;
use webhooks_dispatch::store::StoreError;

use crate::error::{persistently, store_error};
use crate::row::{self, At};
use crate::store::Shared;

impl Shared {
    pub(crate) async fn prune(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        const AHEAD: &str = "SELECT webhooks.ensure_ahead()";
        const PRUNE: &str = "SELECT webhooks.prune($1, $2)";
        let prune = async || {
            let mut call = self.call().await?;
            sqlx::query(AHEAD).persistent(call.prepares()).execute(call.on()).await?;
            let prune = sqlx::query_scalar(PRUNE)
                .persistent(call.prepares())
                .bind(At(before))
                .bind(row::limit(limit));
            let pruned: i32 = prune.fetch_one(call.on()).await?;
            call.end().await?;
            Ok(pruned)
        };
        let pruned = persistently(prune).await.map_err(store_error)?;
        Ok(usize::try_from(pruned).unwrap_or_default())
    }
}
