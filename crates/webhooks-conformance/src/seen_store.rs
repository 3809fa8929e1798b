//! The behaviours of every store of webhooks' ids: an async function for each.
//!
//! Each takes an empty store and panics if the store does otherwise.
//! [`seen_store_tests`](crate::seen_store_tests) makes a test of each.

use std::time::Duration;

use tokio::task::JoinSet;
use webhooks_core::Timestamp;
use webhooks_receive::seen::{BeginOutcome, SeenClaim, SeenId, SeenStore};

/// How many callers claim one id at the same time.
const CALLERS: usize = 100;

fn at(second: u64) -> Timestamp {
    Timestamp::from_unix_seconds(1_767_225_600 + second)
}

fn id() -> SeenId {
    SeenId::new("standard", "msg_1")
}

/// Claims the id at this second, for a minute.
async fn begin(store: &impl SeenStore, id: &SeenId, second: u64) -> BeginOutcome {
    let claim = SeenClaim { id: id.clone(), until: at(second + 60) };
    store.begin(claim, at(second)).await.expect("a store that works")
}

async fn done(store: &impl SeenStore, until: u64) {
    store.done(id(), at(until)).await.expect("a store that works");
}

async fn release(store: &impl SeenStore, until: u64) {
    let claim = SeenClaim { id: id(), until: at(until) };
    store.release(claim).await.expect("a store that works");
}

pub async fn an_id_is_claimed_then_done_then_forgotten(store: impl SeenStore) {
    assert_eq!(begin(&store, &id(), 0).await, BeginOutcome::Claimed);
    assert_eq!(begin(&store, &id(), 1).await, BeginOutcome::InProgress { until: at(60) });
    done(&store, 1000).await;
    assert_eq!(begin(&store, &id(), 2).await, BeginOutcome::Done);
    assert_eq!(begin(&store, &id(), 999).await, BeginOutcome::Done);
    assert_eq!(begin(&store, &id(), 1000).await, BeginOutcome::Claimed);
}

pub async fn what_is_released_can_be_claimed(store: impl SeenStore) {
    assert_eq!(begin(&store, &id(), 0).await, BeginOutcome::Claimed);
    release(&store, 60).await;
    assert_eq!(begin(&store, &id(), 1).await, BeginOutcome::Claimed);
    // To release what nobody has does no harm.
    release(&store, 61).await;
    release(&store, 61).await;
    assert_eq!(begin(&store, &id(), 2).await, BeginOutcome::Claimed);
}

pub async fn a_claim_that_ended_is_taken_over(store: impl SeenStore) {
    // Ids that ended earlier and are not yet forgotten must not be in the way.
    for number in 0..20 {
        let other = SeenId::new("standard", &format!("msg_{number}_before"));
        store.done(other, at(1)).await.expect("a store that works");
    }
    assert_eq!(begin(&store, &id(), 0).await, BeginOutcome::Claimed);
    let just_before = at(60).saturating_sub(Duration::from_micros(1));
    let claim = SeenClaim { id: id(), until: at(200) };
    let early = store.begin(claim, just_before).await.expect("a store that works");
    assert_eq!(early, BeginOutcome::InProgress { until: at(60) });
    assert_eq!(begin(&store, &id(), 60).await, BeginOutcome::Claimed);
    assert_eq!(begin(&store, &id(), 61).await, BeginOutcome::InProgress { until: at(120) });
}

pub async fn who_lost_a_claim_releases_nothing(store: impl SeenStore) {
    assert_eq!(begin(&store, &id(), 0).await, BeginOutcome::Claimed);
    assert_eq!(begin(&store, &id(), 60).await, BeginOutcome::Claimed);
    release(&store, 60).await;
    assert_eq!(begin(&store, &id(), 61).await, BeginOutcome::InProgress { until: at(120) });
    done(&store, 1000).await;
    release(&store, 120).await;
    assert_eq!(begin(&store, &id(), 62).await, BeginOutcome::Done);
}

pub async fn who_lost_a_claim_may_still_be_done(store: impl SeenStore) {
    assert_eq!(begin(&store, &id(), 0).await, BeginOutcome::Claimed);
    assert_eq!(begin(&store, &id(), 60).await, BeginOutcome::Claimed);
    // The first one was slow, but it succeeded.
    done(&store, 1000).await;
    assert_eq!(begin(&store, &id(), 61).await, BeginOutcome::Done);
    // Also when nothing is left of any claim.
    release(&store, 120).await;
    done(&store, 2000).await;
    assert_eq!(begin(&store, &id(), 1000).await, BeginOutcome::Done);
}

pub async fn scopes_are_apart(store: impl SeenStore) {
    let others = [
        SeenId::new("standard/acme", "msg_1"),
        SeenId::new("standard", "acme/msg_1"),
        SeenId::new("standard", "msg_2"),
    ];
    assert_eq!(begin(&store, &id(), 0).await, BeginOutcome::Claimed);
    done(&store, 1000).await;
    for other in &others {
        assert_eq!(begin(&store, other, 1).await, BeginOutcome::Claimed, "{other:?}");
    }
    assert_eq!(begin(&store, &id(), 2).await, BeginOutcome::Done);
}

pub async fn of_many_claims_at_once_one_is_new(store: impl SeenStore + Clone) {
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let store = store.clone();
        callers.spawn(async move { begin(&store, &id(), 0).await });
    }
    let found = callers.join_all().await;
    let new = found.iter().filter(|begun| **begun == BeginOutcome::Claimed).count();
    let waits = BeginOutcome::InProgress { until: at(60) };
    let waiting = found.iter().filter(|begun| **begun == waits).count();
    assert_eq!((new, waiting), (1, CALLERS - 1));
}
