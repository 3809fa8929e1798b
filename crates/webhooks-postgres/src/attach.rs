//! Attaching: a claimed delivery gets its endpoint as it is now, with this worker's share of its
//! limits.

use std::collections::BTreeSet;
use std::sync::Arc;

use sqlx::Row as _;
use webhooks_core::Timestamp;
use webhooks_dispatch::store::{Claim, Claimed, Progress, SerializedEvent, StoreError};

use crate::call::with_retries;
use crate::claim_state::RowVersion;
use crate::endpoint_row::{self, registration};
use crate::error::store_error;
use crate::share::with_share;
use crate::state::{PostgresInner, local_now};

/// A claimed delivery, without its endpoint.
pub(crate) struct ClaimedDelivery {
    pub(crate) claim: Claim,
    /// The number of its endpoint's row.
    pub(crate) endpoint: i64,
    /// The version of that row when the delivery was claimed.
    pub(crate) version: i64,
    pub(crate) event: Arc<SerializedEvent>,
    pub(crate) progress: Progress,
    /// Whether its endpoint's last attempt failed.
    pub(crate) is_failing: bool,
}

impl PostgresInner {
    /// Attaches endpoints to claimed deliveries. Those that this worker has no share of are
    /// released.
    pub(crate) async fn attach_endpoints(
        &self,
        deliveries: Vec<ClaimedDelivery>,
        members: &Arc<[i64]>,
        now: Timestamp,
    ) -> Result<Vec<Claimed>, StoreError> {
        let missing: BTreeSet<RowVersion> = {
            let mut cache = self.endpoint_cache();
            cache.use_members(members);
            let versions = deliveries.iter().map(|delivery| (delivery.endpoint, delivery.version));
            versions.filter(|version| cache.get(*version).is_none()).collect()
        };
        let unreadable = if missing.is_empty() {
            None
        } else {
            with_retries(|| self.load(&missing, members)).await.map_err(store_error)?
        };
        let (mut claimed, mut unserved) = (Vec::with_capacity(deliveries.len()), Vec::new());
        {
            let (cache, mut queues) = (self.endpoint_cache(), self.local_queues());
            let mut known = self.known_due();
            for delivery in deliveries {
                let ClaimedDelivery { claim, endpoint, version, event, progress, is_failing } =
                    delivery;
                match cache.get((endpoint, version)) {
                    Some(Some(registration)) => {
                        queues.record_claim(endpoint, registration, local_now());
                        known.note_tenant(registration.number, &registration.endpoint.tenant);
                        let registration = Arc::clone(registration);
                        claimed.push(Claimed { claim, registration, event, progress, is_failing });
                    }
                    Some(None) => {
                        queues.record_refusal(endpoint, local_now());
                        unserved.push(claim);
                    }
                    // The endpoint cannot be read here. The delivery is not released: this worker
                    // would claim it again at once, in place of others. It is due again when its
                    // lease ends, for a worker that can read the endpoint.
                    None => queues.record_refusal(endpoint, local_now()),
                }
            }
        }
        self.membership.record_claims(claimed.iter().map(|claimed| claimed.claim));
        if let Some(error) = unreadable.filter(|_| claimed.is_empty() && unserved.is_empty()) {
            return Err(store_error(error));
        }
        self.release(unserved, now).await;
        Ok(claimed)
    }

    /// Loads endpoints that are missing in the cache; returns why one could not be read, if so.
    ///
    /// An endpoint that was closed meanwhile is not loaded: its row may hold no secrets any more.
    async fn load(
        &self,
        missing: &BTreeSet<RowVersion>,
        members: &[i64],
    ) -> Result<Option<sqlx::Error>, sqlx::Error> {
        let select = format!("{} WHERE number = ANY ($1) AND is_open", endpoint_row::SELECT);
        let numbers: Vec<i64> = missing.iter().map(|(number, _)| *number).collect();
        let mut call = self.database.call().await?;
        let rows = sqlx::query(sqlx::AssertSqlSafe(select)).persistent(call.prepares());
        let rows = rows.bind(numbers).fetch_all(call.connection()).await?;
        call.commit().await?;
        let (mut loaded, mut unreadable) = (Vec::with_capacity(rows.len()), None);
        for row in rows {
            let number: i64 = row.try_get(0)?;
            match registration(&row, &self.keys) {
                Ok(registration) => {
                    let registration = Arc::new(registration);
                    let worker = self.membership.id;
                    loaded.push((number, with_share(&registration, number, worker, members)));
                }
                Err(error) => unreadable = Some(error),
            }
        }
        let mut cache = self.endpoint_cache();
        cache.reserve(missing.len());
        // The row may have a newer version by now. It stands for the older one too, so that the
        // delivery goes to the endpoint as it is.
        for version in missing {
            if let Some((_, registration)) = loaded.iter().find(|(number, _)| *number == version.0)
            {
                cache.insert(*version, registration.clone());
            }
        }
        Ok(unreadable)
    }
}
