//! The behaviours of every store of deliveries, endpoints and history: an async function for each.
//!
//! Each takes an empty store and panics if the store does otherwise.
//! [`delivery_store_tests`](crate::delivery_store_tests) makes a test of each.

pub mod addressed;
pub mod claim;
pub mod ended;
pub mod endpoints;
pub mod expunge;
pub mod feed;
pub mod figures;
pub mod filters;
pub mod history;
pub mod jobs;
pub mod lists;
pub mod model;
pub mod monitor;
pub mod operations;
pub mod order;
pub mod pages;
pub mod publish;
pub mod records;
pub mod replay;
pub mod scheduled;
pub mod search;
pub mod settle;
pub mod trace;
pub mod troubles;
pub mod try_now;
pub mod versions;

use std::time::Duration;

use bytes::Bytes;
use webhooks_core::{DeliveryId, EndpointId, Event, EventId, RetryPolicy, TenantId, Timestamp};
use webhooks_dispatch::{
    OperationError, Published, Store,
    clock::{MonotonicTime, Now},
    history::{DeliveryRecord, HistoryStore, Query},
    store::{
        Attempt, ClaimRequest, Claimed, DeliveryStore, OperationStore, Outcome, Room,
        SerializedEvent, Settled, Settlement,
    },
};
use webhooks_registry::{
    Endpoint, EndpointKey,
    store::{EndpointStore, RegisterRequest, Registered},
};

/// A store that the suite can be run on.
pub trait AnyStore: Store + Clone {}

impl<S: Store + Clone> AnyStore for S {}

/// Returns the time `seconds` after the start of the test.
pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix_seconds(1_767_225_600 + seconds)
}

/// Returns a time of the test by both clocks.
pub(crate) fn clocks(wall: Timestamp) -> Now {
    Now { wall, monotonic: MonotonicTime::from_origin(wall.saturating_since(at(0))) }
}

pub(crate) const LEASE: Duration = Duration::from_secs(60);

pub(crate) fn endpoint_id(id: &str) -> EndpointId {
    EndpointId::new(id).expect("a valid id")
}

/// Returns the key of an endpoint of the default tenant.
pub(crate) fn key(id: &str) -> EndpointKey {
    EndpointKey::of_default_tenant(endpoint_id(id))
}

pub(crate) fn endpoint() -> Endpoint {
    Endpoint::new("https://example.com/hook", "my-secret-key")
        .expect("a valid endpoint")
        .retry(RetryPolicy::default().without_jitter())
}

pub(crate) async fn register(store: &impl EndpointStore, id: &str, endpoint: Endpoint) {
    register_at(store, id, endpoint, at(0)).await;
}

/// Registers an endpoint at a time, and returns the change.
pub(crate) async fn register_at(
    store: &impl EndpointStore,
    id: &str,
    endpoint: Endpoint,
    now: Timestamp,
) -> Registered {
    let request = RegisterRequest::new(endpoint_id(id), endpoint, now);
    store.register(request).await.expect("a free id")
}

/// Cancels a delivery.
pub(crate) async fn cancel(
    store: &impl OperationStore,
    delivery: DeliveryId,
    now: Timestamp,
) -> Result<(), OperationError> {
    let mut cancelled = store.cancel(vec![delivery], now).await.expect("a store that works");
    assert_eq!(cancelled.len(), 1, "one answer for one delivery");
    cancelled.remove(0)
}

/// Returns an event with this id and a payload of its own.
pub(crate) fn event(id: &str) -> Event {
    Event::new("user.created", id)
        .expect("a valid event")
        .id(EventId::new(id).expect("a valid id"))
        .timestamp(at(0))
}

/// Publishes events that are new, and returns the answer to each.
pub(crate) async fn publish(
    store: &impl DeliveryStore,
    events: &[Event],
    now: Timestamp,
) -> Vec<Published> {
    publish_as(store, events.iter().map(SerializedEvent::new).collect(), now).await
}

/// Publishes events that are new and say how they are to be delivered.
pub(crate) async fn publish_as(
    store: &impl DeliveryStore,
    events: Vec<SerializedEvent>,
    now: Timestamp,
) -> Vec<Published> {
    let published = store.publish(events, now).await.expect("a store that works");
    published.into_iter().collect::<Result<_, _>>().expect("no conflict")
}

pub(crate) fn request(now: Timestamp) -> ClaimRequest {
    let now = clocks(now);
    ClaimRequest {
        now,
        lease: LEASE,
        limit: 100,
        per_endpoint: 100,
        bytes: usize::MAX,
        room: Room::new(),
    }
}

/// Claims by a request. A store may read ahead in the background, so an empty answer counts only
/// when the store says that nothing is due.
pub(crate) async fn claim_as(store: &impl DeliveryStore, request: ClaimRequest) -> Vec<Claimed> {
    let mut changes = store.changes();
    loop {
        let claimed = store.claim(request.clone()).await.expect("a store that works");
        if !claimed.is_empty() {
            return claimed;
        }
        let due = store.next_due(request.room.clone(), request.now).await;
        if due.expect("a store that works").is_none_or(|due| !due.is_zero()) {
            return claimed;
        }
        changes.changed().await;
    }
}

/// Claims until nothing is left to claim: one claim may return less than there is.
pub(crate) async fn claim(store: &impl DeliveryStore, now: Timestamp) -> Vec<Claimed> {
    let mut all = Vec::new();
    loop {
        let claimed = claim_as(store, request(now)).await;
        if claimed.is_empty() {
            return all;
        }
        all.extend(claimed);
    }
}

/// Returns when something is due, as a store tells it at a time.
pub(crate) async fn next_due(store: &impl DeliveryStore, now: Timestamp) -> Option<Timestamp> {
    let due = store.next_due(Room::new(), clocks(now)).await;
    due.expect("a store that works").map(|wait| now + wait)
}

/// Returns a settlement of a claimed delivery, with an attempt if the outcome has one.
pub(crate) fn settlement(claimed: &Claimed, outcome: Outcome) -> Settlement {
    let is_tried = !matches!(outcome, Outcome::Released | Outcome::Expired);
    let is_delivered = outcome == Outcome::Delivered;
    let attempt = is_tried.then(|| Attempt {
        started_at: at(1),
        duration: Duration::from_millis(15),
        status_code: Some(if is_delivered { 200 } else { 503 }),
        error_class: None,
        error: (!is_delivered).then(|| "endpoint answered 503 Service Unavailable".to_owned()),
        response_headers: "content-type: text/plain\nretry-after: 120".to_owned(),
        response: Bytes::from_static(b"thank you"),
    });
    Settlement { claim: claimed.claim, outcome, attempt }
}

pub(crate) async fn settle(
    store: &impl DeliveryStore,
    claimed: &Claimed,
    outcome: Outcome,
    now: Timestamp,
) -> Settled {
    let settled = store.settle(vec![settlement(claimed, outcome)], now).await;
    let settled = settled.expect("a store that works");
    assert_eq!(settled.len(), 1, "one answer for one settlement");
    settled[0]
}

pub(crate) fn ids(claimed: &[Claimed]) -> Vec<String> {
    claimed.iter().map(|claimed| claimed.event.id.to_string()).collect()
}

pub(crate) async fn status(store: &impl HistoryStore, delivery: DeliveryId) -> String {
    let query = Query { delivery: Some(delivery), ..Query::default() };
    let page = store.deliveries(query).await.expect("a store that works");
    page.items.first().map_or_else(|| "forgotten".to_owned(), |found| found.status.to_string())
}

/// Returns the deliveries of an event of the default tenant, the newest first.
pub(crate) async fn deliveries_of(store: &impl HistoryStore, event: &str) -> Vec<DeliveryRecord> {
    let event = Some(EventId::new(event).expect("a valid id"));
    let query = Query { tenant: Some(TenantId::default()), event, ..Query::default() };
    store.deliveries(query).await.expect("a store that works").items
}

pub(crate) fn tenant(id: &str) -> TenantId {
    TenantId::new(id).expect("a valid id")
}
