//! Handing over: deliveries that this process's worker can carry out are claimed when they are
//! published, and wait in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard, PoisonError};

use std::time::Duration;

use webhooks_core::Timestamp;
use webhooks_dispatch::{
    clock::{Clock as _, MonotonicTime, SystemClock},
    store::{ClaimRequest, Claimed, Progress, StoreError},
};

use crate::claim::{Delivery, released};
use crate::error::{persistently, store_error};
use crate::handed::{Handed, Lanes};
use crate::row;
use crate::store::Shared;

/// What may be handed over of what is published.
pub(crate) struct Offer {
    /// The endpoints, by number, with how many of their deliveries were cancelled by hand, if that is
    /// known.
    pub(crate) open: BTreeMap<i64, Option<i64>>,
    /// How long the claims last.
    pub(crate) lease: Duration,
    /// When they end at the earliest.
    pub(crate) until: MonotonicTime,
    pub(crate) token: i64,
}

/// An endpoint that something was handed over for, as it is now.
struct Current {
    version: i64,
    /// Whether what was handed over must wait after all: the endpoint is ordered or paused.
    must_wait: bool,
    is_failing: bool,
    /// How many of its deliveries were cancelled by hand.
    cancels: i64,
}

/// What was taken, until it is claimed. If it is dropped before, it waits again.
struct Taken<'s> {
    shared: &'s Shared,
    handed: Vec<Handed>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut lanes = self.shared.handed();
        for handed in self.handed.drain(..) {
            // If the worker has ended too, it is due again when its lease ends.
            let _due_later = lanes.put(handed);
        }
    }
}

/// Returns the present time by which what is handed over waits: it is this process's affair alone.
pub(crate) fn elapsed() -> MonotonicTime {
    SystemClock.monotonic()
}

impl Shared {
    /// Returns what may be handed over of so many events, of so many bytes together.
    pub(crate) fn offer(&self, events: (usize, usize)) -> Option<Offer> {
        let (is_alone, now) = (self.workers.is_alone()?, elapsed());
        let (open, lease) = self.handed().open(now, events, is_alone)?;
        Some(Offer { open, lease, until: now + lease, token: fastrand::i64(1..) })
    }

    /// Hands deliveries over.
    pub(crate) async fn put(&self, deliveries: Vec<Handed>, now: Timestamp) {
        let homeless: Vec<Handed> = {
            let mut handed = self.handed();
            deliveries.into_iter().filter_map(|delivery| handed.put(delivery).err()).collect()
        };
        self.release_held(homeless, now).await;
    }

    /// Claims what was handed over, for endpoints as they are now.
    pub(crate) async fn take(
        &self,
        request: &ClaimRequest,
        members: &Arc<[i64]>,
    ) -> Result<Vec<Claimed>, StoreError> {
        let mut taken = Taken { shared: self, handed: self.handed().take(request) };
        if taken.handed.is_empty() {
            return Ok(Vec::new());
        }
        let numbers: BTreeSet<i64> = taken.handed.iter().map(|handed| handed.endpoint).collect();
        let current = persistently(|| self.current(&numbers)).await.map_err(store_error)?;
        let is_doubtful = |handed: &&Handed| {
            let current = current.get(&handed.endpoint);
            current.is_some_and(|current| handed.cancels != Some(current.cancels))
        };
        let doubtful: Vec<&Handed> = taken.handed.iter().filter(is_doubtful).collect();
        let mut lost: BTreeSet<i64> = doubtful.iter().map(|handed| handed.id).collect();
        if !doubtful.is_empty() {
            let held = persistently(|| self.held(&doubtful)).await.map_err(store_error)?;
            lost.retain(|id| !held.contains(id));
        }
        {
            let mut lanes = self.handed();
            for (number, current) in &current {
                lanes.count_cancels(*number, current.cancels);
            }
        }
        let (mut deliveries, mut unfit) = (Vec::new(), Vec::new());
        for handed in taken.handed.iter().filter(|handed| !lost.contains(&handed.id)) {
            // What was handed over for an endpoint that is gone has been cancelled.
            match current.get(&handed.endpoint) {
                Some(current) if current.must_wait => unfit.push(handed.clone()),
                Some(current) => deliveries.push(Delivery {
                    is_failing: current.is_failing,
                    claim: row::claim(handed.id, handed.token),
                    endpoint: handed.endpoint,
                    version: current.version,
                    event: Arc::clone(&handed.event),
                    progress: Progress::start(handed.queued_at),
                }),
                None => {}
            }
        }
        let claimed = self.claimed(deliveries, members, request.now.wall).await?;
        taken.handed.clear();
        self.release_held(unfit, request.now.wall).await;
        Ok(claimed)
    }

    /// Returns these endpoints as they are, except those that are gone.
    async fn current(
        &self,
        numbers: &BTreeSet<i64>,
    ) -> Result<BTreeMap<i64, Current>, sqlx::Error> {
        const CURRENT: &str = "SELECT number, version, is_ordered OR state = 'paused',
                failing_since IS NOT NULL, cancels
            FROM webhooks.endpoints WHERE number = ANY ($1) AND is_open";
        let mut call = self.call().await?;
        let rows: Vec<(i64, i64, bool, bool, i64)> = sqlx::query_as(CURRENT)
            .persistent(call.prepares())
            .bind(Vec::from_iter(numbers))
            .fetch_all(call.on())
            .await?;
        call.end().await?;
        let by_number = |(number, version, must_wait, is_failing, cancels)| {
            (number, Current { version, must_wait, is_failing, cancels })
        };
        Ok(rows.into_iter().map(by_number).collect())
    }

    /// Returns the ids of those whose claims hold: they were not cancelled.
    async fn held(&self, handed: &[&Handed]) -> Result<BTreeSet<i64>, sqlx::Error> {
        const HELD: &str = "SELECT w.id FROM unnest($1::bigint[], $2::bigint[]) AS claim(id, token)
            JOIN webhooks.pending_deliveries w ON w.id = claim.id AND w.token = claim.token";
        let mut call = self.call().await?;
        let held: Vec<i64> = sqlx::query_scalar(HELD)
            .persistent(call.prepares())
            .bind(handed.iter().map(|handed| handed.id).collect::<Vec<_>>())
            .bind(handed.iter().map(|handed| handed.token).collect::<Vec<_>>())
            .fetch_all(call.on())
            .await?;
        call.end().await?;
        Ok(held.into_iter().collect())
    }

    /// Gives claims up, so that any worker can make them anew.
    pub(crate) async fn release_held(&self, handed: Vec<Handed>, now: Timestamp) {
        if !handed.is_empty() {
            let claims = handed.iter().map(|handed| row::claim(handed.id, handed.token));
            // What cannot be handed back is due again when its lease ends.
            let _due_later = self.settle(claims.map(released).collect(), now).await;
        }
    }

    /// Hands back everything, and has nothing more handed over; returns how much it was.
    pub(crate) async fn stop(&self) -> usize {
        let handed = self.handed().stop();
        let count = handed.len();
        self.release_held(handed, Timestamp::now()).await;
        count
    }

    /// Hands back what has waited too long.
    pub(crate) async fn tidy(&self, now: Timestamp) {
        let stale = {
            let mut handed = self.handed();
            handed.sweep(elapsed());
            handed.stale(elapsed())
        };
        self.release_held(stale, now).await;
    }

    pub(crate) fn handed(&self) -> MutexGuard<'_, Lanes> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
