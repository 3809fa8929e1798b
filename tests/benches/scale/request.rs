//! The claims that this benchmark asks for, and the busy endpoints in them.

use std::time::Duration;

use webhooks_core::Timestamp;
use webhooks_dispatch::{
    clock::Now,
    store::{ClaimRequest, Claimed, DeliveryStore, Room, Settled},
};
use webhooks_registry::EndpointNumber;

use super::figures::settlements;

/// Longer than any measurement, so that no lease ends in it.
const LEASE: Duration = Duration::from_secs(3600);

/// Returns a request of a worker for which these endpoints are busy. It is made once for a store, and
/// each claim takes the busy ones from it, as a worker keeps them from one claim to the next.
pub(crate) fn request(now: Now, busy: impl IntoIterator<Item = EndpointNumber>) -> ClaimRequest {
    let room = Room::from_iter(busy);
    ClaimRequest { now, lease: LEASE, limit: 1, per_endpoint: 1, bytes: usize::MAX, room }
}

/// Claims and asks for the next due time, as a worker does.
pub(crate) async fn claim(store: &impl DeliveryStore, request: ClaimRequest) -> Vec<Claimed> {
    let (room, now) = (request.room.clone(), request.now);
    let claimed = store.claim(request).await.unwrap();
    store.next_due(room, now).await.unwrap();
    claimed
}

/// Settles deliveries as delivered.
pub(crate) async fn settle(store: &impl DeliveryStore, claimed: &[Claimed], now: Timestamp) {
    let settled = store.settle(settlements(claimed, now), now).await.unwrap();
    assert!(settled.iter().all(|settled| matches!(settled, Settled::Recorded { .. })));
}
