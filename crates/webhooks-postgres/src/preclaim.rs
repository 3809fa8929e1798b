//! Preclaiming: deliveries that this process's worker can serve are claimed when they are
//! published, and wait in the local queues.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use webhooks_core::Timestamp;
use webhooks_dispatch::store::{ClaimRequest, Claimed, Progress, StoreError};

use crate::attach::ClaimedDelivery;
use crate::call::with_retries;
use crate::error::store_error;
use crate::local_queue::{PreclaimGrant, PreclaimedDelivery};
use crate::row;
use crate::state::{PostgresInner, local_now};

/// The present state of an endpoint that deliveries were preclaimed for.
struct Current {
    version: i64,
    /// Whether its deliveries must be released, to be claimed from the database: it is ordered or
    /// paused.
    must_release: bool,
    is_failing: bool,
    /// The count of its deliveries that were cancelled by hand.
    cancels: i64,
}

/// Deliveries that were taken from the local queues, until the claim returns them to the worker. If
/// it is dropped before, they wait again: the store failed, or the claim was dropped.
struct TakenGuard<'s> {
    inner: &'s PostgresInner,
    deliveries: Vec<PreclaimedDelivery>,
}

impl Drop for TakenGuard<'_> {
    fn drop(&mut self) {
        let mut queues = self.inner.local_queues();
        for delivery in self.deliveries.drain(..) {
            // If the worker has ended too, the delivery is due again when its lease ends.
            let _due_later = queues.push(delivery);
        }
    }
}

impl PostgresInner {
    /// Returns the permission to preclaim deliveries of `events`, a count and the bytes of their
    /// bodies; `None` if there is no endpoint to preclaim for.
    pub(crate) fn preclaim_grant(&self, events: (usize, usize)) -> Option<PreclaimGrant> {
        let (is_alone, now) = (self.membership.is_alone()?, local_now());
        let (endpoints, lease) = self.local_queues().endpoints_with_room(now, events, is_alone)?;
        Some(PreclaimGrant { endpoints, lease, until: now + lease, token: fastrand::i64(1..) })
    }

    /// Puts preclaimed deliveries into the local queues. Those that no longer have a queue are
    /// released.
    pub(crate) async fn push_preclaimed(
        &self,
        deliveries: Vec<PreclaimedDelivery>,
        now: Timestamp,
    ) {
        let unqueued: Vec<PreclaimedDelivery> = {
            let mut queues = self.local_queues();
            deliveries.into_iter().filter_map(|delivery| queues.push(delivery).err()).collect()
        };
        self.release_preclaimed(unqueued, now).await;
    }

    /// Claims deliveries from the local queues, for endpoints as they are now.
    pub(crate) async fn take_preclaimed(
        &self,
        request: &ClaimRequest,
        members: &Arc<[i64]>,
    ) -> Result<Vec<Claimed>, StoreError> {
        let deliveries = self.local_queues().take(request);
        let mut taken = TakenGuard { inner: self, deliveries };
        if taken.deliveries.is_empty() {
            return Ok(Vec::new());
        }
        let numbers: BTreeSet<i64> =
            taken.deliveries.iter().map(|delivery| delivery.endpoint).collect();
        let current = with_retries(|| self.current(&numbers)).await.map_err(store_error)?;
        // Another process may have cancelled a delivery. It counts that in the endpoint's row, so
        // the claims are read only if the count has changed since the publish, or was not known
        // then.
        let is_doubtful = |delivery: &&PreclaimedDelivery| {
            let current = current.get(&delivery.endpoint);
            current.is_some_and(|current| delivery.cancels != Some(current.cancels))
        };
        let doubtful: Vec<&PreclaimedDelivery> =
            taken.deliveries.iter().filter(is_doubtful).collect();
        let mut lost: BTreeSet<i64> = doubtful.iter().map(|delivery| delivery.id).collect();
        if !doubtful.is_empty() {
            let valid = with_retries(|| self.valid(&doubtful)).await.map_err(store_error)?;
            lost.retain(|id| !valid.contains(id));
        }
        {
            let mut queues = self.local_queues();
            for (number, current) in &current {
                queues.record_cancels(*number, current.cancels);
            }
        }
        let (mut deliveries, mut to_release) = (Vec::new(), Vec::new());
        for delivery in taken.deliveries.iter().filter(|delivery| !lost.contains(&delivery.id)) {
            match current.get(&delivery.endpoint) {
                Some(current) if current.must_release => to_release.push(delivery.clone()),
                Some(current) => deliveries.push(ClaimedDelivery {
                    is_failing: current.is_failing,
                    claim: row::claim(delivery.id, delivery.token),
                    endpoint: delivery.endpoint,
                    version: current.version,
                    event: Arc::clone(&delivery.event),
                    progress: Progress::start(delivery.queued_at),
                }),
                // The endpoint is closed, and the delivery cancelled with it.
                None => {}
            }
        }
        let claimed = self.attach_endpoints(deliveries, members, request.now.wall).await?;
        taken.deliveries.clear();
        self.release_preclaimed(to_release, request.now.wall).await;
        Ok(claimed)
    }

    /// Returns the present state of endpoints, except those that are closed.
    async fn current(
        &self,
        numbers: &BTreeSet<i64>,
    ) -> Result<BTreeMap<i64, Current>, sqlx::Error> {
        const CURRENT: &str = "SELECT number, version, is_ordered OR state = 'paused',
                failing_since IS NOT NULL, cancels
            FROM webhooks.endpoints WHERE number = ANY ($1) AND is_open";
        let mut call = self.database.call().await?;
        let rows: Vec<(i64, i64, bool, bool, i64)> = sqlx::query_as(CURRENT)
            .persistent(call.prepares())
            .bind(Vec::from_iter(numbers))
            .fetch_all(call.connection())
            .await?;
        call.commit().await?;
        let by_number = |(number, version, must_release, is_failing, cancels)| {
            (number, Current { version, must_release, is_failing, cancels })
        };
        Ok(rows.into_iter().map(by_number).collect())
    }

    /// Returns the ids of the deliveries whose claims still hold: they were not cancelled.
    async fn valid(
        &self,
        deliveries: &[&PreclaimedDelivery],
    ) -> Result<BTreeSet<i64>, sqlx::Error> {
        const VALID: &str = "SELECT w.id
            FROM unnest($1::bigint[], $2::bigint[]) AS claim(id, token)
            JOIN webhooks.pending_deliveries w ON w.id = claim.id AND w.token = claim.token";
        let mut call = self.database.call().await?;
        let valid: Vec<i64> = sqlx::query_scalar(VALID)
            .persistent(call.prepares())
            .bind(deliveries.iter().map(|delivery| delivery.id).collect::<Vec<_>>())
            .bind(deliveries.iter().map(|delivery| delivery.token).collect::<Vec<_>>())
            .fetch_all(call.connection())
            .await?;
        call.commit().await?;
        Ok(valid.into_iter().collect())
    }

    /// Releases preclaimed deliveries, so that any worker can claim them.
    pub(crate) async fn release_preclaimed(
        &self,
        deliveries: Vec<PreclaimedDelivery>,
        now: Timestamp,
    ) {
        let claims = deliveries.iter().map(|delivery| row::claim(delivery.id, delivery.token));
        self.release(claims, now).await;
    }

    /// Releases all preclaimed deliveries and stops preclaiming; returns how many there were.
    pub(crate) async fn stop_preclaiming(&self) -> usize {
        let deliveries = self.local_queues().stop();
        let count = deliveries.len();
        self.release_preclaimed(deliveries, Timestamp::now()).await;
        count
    }

    /// Releases the preclaimed deliveries that have waited too long.
    pub(crate) async fn release_stale(&self, now: Timestamp) {
        let stale = {
            let mut queues = self.local_queues();
            queues.remove_idle(local_now());
            queues.take_stale(local_now())
        };
        self.release_preclaimed(stale, now).await;
    }
}
