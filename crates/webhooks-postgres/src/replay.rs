//! Replay: ended deliveries become due again, and missed events get the deliveries that they lack.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;
use webhooks_core::{DeliveryId, DeliveryStatus, EventId, TenantId, Timestamp};
use webhooks_dispatch::{
    OperationError, Replay, Undelivered,
    store::{ReplayCursor, ReplayMode, ReplayRequest, Replayed},
};
use webhooks_registry::EndpointKey;

use crate::cancel_closed::{LockedRows, cancel_closed};
use crate::endpoint_row::{LockedEndpoint, lock, lock_all};
use crate::operations::{FoundDelivery, failed, find};
use crate::row;
use crate::state::PostgresInner;

mod statements;

use statements::{
    OpenEndpoint, Target, cancel_if_closed, deliver, earlier_row, ended, lock_events, missed,
    missed_by, reopen, share_events,
};

/// A portion of a replay: the deliveries to reopen, the events to deliver, and where to go on.
#[derive(Default)]
struct Portion {
    ended: Vec<Target>,
    missed: Vec<Target>,
    next: Option<ReplayCursor>,
}

impl PostgresInner {
    pub(crate) async fn replay(&self, request: ReplayRequest) -> Result<Replayed, OperationError> {
        let mut transaction = self.database.begin().await.map_err(failed)?;
        let portion = match self.portion(transaction.connection(), &request).await {
            Ok(portion) => portion,
            // The connection may be broken, and is closed.
            Err(error @ OperationError::Store(_)) => return Err(error),
            Err(error) => return Err(transaction.refuse(error).await),
        };
        let mut deliveries = portion.ended.len() + portion.missed.len();
        let targets = portion.ended.iter().chain(&portion.missed);
        let endpoints: BTreeSet<i64> = targets.map(|target| target.endpoint).collect();
        let endpoints: Vec<i64> = endpoints.into_iter().collect();
        if request.mode == ReplayMode::Replay {
            let reopened = reopen(transaction.connection(), &portion.ended, request.now).await;
            let delivered = deliver(transaction.connection(), &portion.missed, request.now).await;
            deliveries = reopened.map_err(failed)? + delivered.map_err(failed)?;
            self.notify_others(&mut transaction).await.map_err(failed)?;
        }
        if request.probes() {
            let probe = self.probe_elsewhere(&mut transaction, &endpoints).await;
            probe.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)?;
        if request.probes() {
            self.probe(&endpoints);
        } else {
            self.wake_for(endpoints);
        }
        Ok(Replayed { deliveries, next: portion.next })
    }

    async fn portion(
        &self,
        connection: &mut PgConnection,
        request: &ReplayRequest,
    ) -> Result<Portion, OperationError> {
        match &request.replay {
            Replay::Delivery(delivery) => {
                let targets = self.targets(connection, &[*delivery], request, |_| true).await?;
                let ended = targets.into_iter().collect::<Result<_, _>>()?;
                Ok(Portion { ended, ..Portion::default() })
            }
            Replay::Deliveries(ids) => self.several(connection, ids, request).await,
            Replay::Endpoint { endpoint, which, since, until } => {
                self.of_endpoint(connection, endpoint, *which, (*since, *until), request).await
            }
            Replay::Event { tenant, event, which } => {
                self.of_event(connection, (tenant, event), *which, request).await
            }
        }
    }

    /// Returns the target of each delivery that has ended with a wanted status, or why it has none.
    /// Deliveries that ended with another status are left out, and so are those that this replay
    /// has made due before. `deliveries` has each once.
    ///
    /// All replays lock in this order: the events of tenants, pending deliveries by their ids, and
    /// then endpoints. So they never wait for each other in a circle. Once the endpoints are locked, no other replay
    /// touches their ended deliveries.
    async fn targets(
        &self,
        connection: &mut PgConnection,
        deliveries: &[DeliveryId],
        request: &ReplayRequest,
        is_wanted: impl Fn(DeliveryStatus) -> bool,
    ) -> Result<Vec<Result<Target, OperationError>>, OperationError> {
        let before = find(connection, deliveries).await.map_err(failed)?;
        let has_ended = |found: &&FoundDelivery| {
            !found.is_pending && !request.has_replayed(found.queued_at) && is_wanted(found.status)
        };
        let keys: BTreeSet<EndpointKey> =
            before.values().filter(has_ended).map(|found| found.endpoint.clone()).collect();
        let tenants: BTreeSet<&TenantId> = keys.iter().map(|key| &key.tenant).collect();
        share_events(connection, tenants).await.map_err(failed)?;
        // Some may still wait for closed rows of their endpoints, which counts as cancelled.
        cancel_if_closed(connection, deliveries, request.now).await.map_err(failed)?;
        let locked = lock_all(connection, &keys).await.map_err(failed)?;
        let locked: BTreeMap<EndpointKey, LockedEndpoint> = locked.into_iter().collect();
        // Another replay may have been quicker.
        let found = find(connection, deliveries).await.map_err(failed)?;
        let mut targets = Vec::with_capacity(deliveries.len());
        for delivery in deliveries.iter().copied() {
            let target = match found.get(&delivery) {
                None => Err(OperationError::UnknownDelivery { delivery }),
                Some(found) if request.has_replayed(found.queued_at) => continue,
                Some(FoundDelivery { status, is_pending: true, .. }) => {
                    Err(OperationError::WrongStatus { delivery, status: *status })
                }
                Some(found) if !is_wanted(found.status) => continue,
                // It ended after the first look, so it was pending when the replay was asked for.
                Some(FoundDelivery { endpoint, .. }) if !keys.contains(endpoint) => {
                    let status =
                        before.get(&delivery).map_or(DeliveryStatus::Pending, |found| found.status);
                    Err(OperationError::WrongStatus { delivery, status })
                }
                Some(FoundDelivery { expunged: Some(event), .. }) => {
                    Err(OperationError::Expunged { event: event.clone() })
                }
                Some(FoundDelivery { endpoint, .. }) => {
                    match self.read(endpoint, locked.get(endpoint)) {
                        Err(error @ OperationError::Store(_)) => return Err(error),
                        open => open.map(|open| open.target(row::delivery_int8(delivery))),
                    }
                }
            };
            targets.push(target);
        }
        Ok(targets)
    }

    async fn several(
        &self,
        connection: &mut PgConnection,
        ids: &[DeliveryId],
        request: &ReplayRequest,
    ) -> Result<Portion, OperationError> {
        let (ids, next) = request.portion(ids);
        let given: BTreeSet<DeliveryId> = ids.iter().copied().collect();
        let given = Vec::from_iter(given);
        let targets = self.targets(connection, &given, request, |_| true).await?;
        let ended = targets.into_iter().filter_map(Result::ok).collect();
        Ok(Portion { ended, missed: Vec::new(), next })
    }

    async fn of_endpoint(
        &self,
        connection: &mut PgConnection,
        endpoint: &EndpointKey,
        which: Undelivered,
        (since, until): (Timestamp, Option<Timestamp>),
        request: &ReplayRequest,
    ) -> Result<Portion, OperationError> {
        let mut portion = Portion::default();
        match request.begin(which) {
            Some(ReplayCursor::Missed(_)) => {
                lock_events(connection, &endpoint.tenant).await.map_err(failed)?;
            }
            Some(begin @ ReplayCursor::Ended(_)) => {
                share_events(connection, [&endpoint.tenant]).await.map_err(failed)?;
                if let Some(row) = earlier_row(connection, endpoint).await.map_err(failed)? {
                    // It may wait for other transactions, and so comes before the lock of the endpoint.
                    let cancel = cancel_closed(connection, row, LockedRows::WaitFor, request.now);
                    let _some_or_all = cancel.await.map_err(failed)?;
                    portion.next = Some(begin);
                    return Ok(portion);
                }
            }
            None => {}
        }
        let open = self.open(connection, endpoint).await?;
        let Some(begin) = request.begin(which) else { return Ok(portion) };
        let last = match begin {
            ReplayCursor::Ended(after) => {
                // The one before who had the lock may have enabled it. Deliveries that are pending for the closed row
                // are cancelled in the next portion.
                if earlier_row(connection, endpoint).await.map_err(failed)?.is_some() {
                    portion.next = Some(begin);
                    return Ok(portion);
                }
                let ended = ended(connection, endpoint, after, which, (since, until), request);
                let ended = ended.await.map_err(failed)?;
                let last = ended.last().filter(|_| ended.len() >= request.limit).copied();
                portion.ended = ended.into_iter().map(|delivery| open.target(delivery)).collect();
                last
            }
            ReplayCursor::Missed(after) => {
                let missed =
                    missed(connection, endpoint, &open, after, (since, until), request.limit);
                let (missed, last) = missed.await.map_err(failed)?;
                portion.missed = missed.into_iter().map(|event| open.target(event)).collect();
                last
            }
        };
        portion.next = ReplayRequest::next(begin, which, last.map(row::unsigned));
        Ok(portion)
    }

    async fn of_event(
        &self,
        connection: &mut PgConnection,
        (tenant, event): (&TenantId, &EventId),
        which: Undelivered,
        request: &ReplayRequest,
    ) -> Result<Portion, OperationError> {
        const EVENT: &str = "SELECT event FROM webhooks.event_keys WHERE id = $1 AND tenant = $2";
        const LOOK: &str = "SELECT id FROM webhooks.deliveries_view
            WHERE webhooks.is_of(id, $1) AND id > $2 ORDER BY id LIMIT $3";
        let found = sqlx::query_scalar(EVENT).persistent(false).bind(event.to_string());
        let found: Option<i64> =
            found.bind(tenant.as_str()).fetch_optional(&mut *connection).await.map_err(failed)?;
        let number = found.ok_or_else(|| OperationError::UnknownEvent { event: event.clone() })?;
        let mut portion = Portion::default();
        let Some(begin) = request.begin(which) else { return Ok(portion) };
        let last = match begin {
            ReplayCursor::Ended(after) => {
                let look = sqlx::query_scalar(LOOK).persistent(false).bind(number);
                let look = look.bind(row::int8(after)).bind(row::int4(request.limit));
                let looked: Vec<i64> = look.fetch_all(&mut *connection).await.map_err(failed)?;
                let ids: Vec<DeliveryId> = looked.iter().map(|id| row::delivery_id(*id)).collect();
                let includes = |status| which.includes(status);
                let targets = self.targets(connection, &ids, request, includes).await?;
                portion.ended = targets.into_iter().filter_map(Result::ok).collect();
                looked.last().filter(|_| looked.len() >= request.limit).copied()
            }
            ReplayCursor::Missed(_) => {
                lock_events(connection, tenant).await.map_err(failed)?;
                portion.missed = missed_by(connection, number, tenant).await.map_err(failed)?;
                None
            }
        };
        portion.next = ReplayRequest::next(begin, which, last.map(row::unsigned));
        Ok(portion)
    }

    /// Locks and reads an endpoint; an error if no deliveries are stored for it.
    async fn open(
        &self,
        connection: &mut PgConnection,
        key: &EndpointKey,
    ) -> Result<OpenEndpoint, OperationError> {
        let locked = lock(connection, key).await.map_err(failed)?;
        self.read(key, locked.as_ref())
    }

    /// Reads a locked endpoint; an error if no deliveries are stored for it.
    fn read(
        &self,
        key: &EndpointKey,
        locked: Option<&LockedEndpoint>,
    ) -> Result<OpenEndpoint, OperationError> {
        let locked = Replay::target(key, locked.map(|locked| (locked.state, locked)))?;
        let registration = locked.read(&self.keys).map_err(failed)?;
        Ok(OpenEndpoint { number: locked.number, endpoint: registration.endpoint })
    }
}
