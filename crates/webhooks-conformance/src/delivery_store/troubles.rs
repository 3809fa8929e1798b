//! Troubles: the attempts that did not simply succeed, by time.

use webhooks_dispatch::history::{Trouble, TroubleRequest};
use webhooks_dispatch::store::Outcome;
use webhooks_dispatch::{Replay, store::Claimed};

use super::replay::replay;
use super::{AnyStore, at, claim, endpoint, event, ids, key, publish, register, settlement};

/// Settles an attempt that started at a time.
async fn attempt(store: &impl AnyStore, claimed: &Claimed, outcome: Outcome, second: u64) {
    let mut settlement = settlement(claimed, outcome);
    if let Some(attempt) = &mut settlement.attempt {
        attempt.started_at = at(second);
    }
    let _settled =
        store.settle(vec![settlement], at(second + 1)).await.expect("a store that works");
}

async fn troubles(store: &impl AnyStore, request: TroubleRequest) -> Vec<Trouble> {
    store.troubles(request).await.expect("a store that works")
}

fn since(second: u64) -> TroubleRequest {
    TroubleRequest { since: at(second), after: None, limit: 1_000 }
}

/// Returns the starts, the numbers and the outcomes of troubles.
fn shown(found: &[Trouble]) -> Vec<(u64, u32, bool)> {
    let second = |found: &Trouble| found.started_at.saturating_since(at(0)).as_secs();
    found.iter().map(|found| (second(found), found.number, found.has_failed)).collect()
}

pub async fn troubles_are_the_attempts_that_failed_or_followed_another(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    for id in ["well", "late", "lost"] {
        publish(&store, &[event(id)], at(0)).await;
    }
    let all = claim(&store, at(0)).await;
    assert_eq!(ids(&all), ["well", "late", "lost"]);
    let [well, late, lost] = &all[..] else { return };
    attempt(&store, well, Outcome::Delivered, 1).await;
    attempt(&store, late, Outcome::Retrying { due_at: at(4) }, 2).await;
    attempt(&store, lost, Outcome::Failed, 3).await;
    let retry = claim(&store, at(5)).await.remove(0);
    attempt(&store, &retry, Outcome::Delivered, 5).await;
    let found = troubles(&store, since(0)).await;
    assert_eq!(shown(&found), [(2, 1, true), (3, 1, true), (5, 2, false)]);
    let whole = &found[1];
    assert_eq!((whole.delivery, &whole.endpoint), (lost.claim.delivery, &key("a").id));
    assert_eq!((&whole.tenant, whole.attempts), (&key("a").tenant, 1));
    let status = |found: &Trouble| found.status.to_string();
    let statuses: Vec<String> = found.iter().map(status).collect();
    assert_eq!(statuses, ["delivered", "failed", "delivered"], "that of the delivery now");
    // One that is replayed stays what it was.
    assert_eq!(replay(&store, Replay::Delivery(lost.claim.delivery), 10).await, 1);
    let replayed = claim(&store, at(10)).await.remove(0);
    attempt(&store, &replayed, Outcome::Delivered, 10).await;
    let found = troubles(&store, since(3)).await;
    assert_eq!(shown(&found), [(3, 1, true), (5, 2, false), (10, 2, false)]);
    assert_eq!((found[0].attempts, found[0].attempts_before_replay), (2, 1));
    assert_eq!(troubles(&store, since(11)).await, []);
    // The first attempt of one that is replayed after it succeeded is none, neither before the second nor after it.
    assert_eq!(replay(&store, Replay::Delivery(well.claim.delivery), 12).await, 1);
    let first: [(u64, u32, bool); 4] = [(2, 1, true), (3, 1, true), (5, 2, false), (10, 2, false)];
    assert_eq!(shown(&troubles(&store, since(0)).await), first);
    let replayed = claim(&store, at(12)).await.remove(0);
    attempt(&store, &replayed, Outcome::Delivered, 12).await;
    assert_eq!(shown(&troubles(&store, since(0)).await), [&first[..], &[(12, 2, false)]].concat());
}

pub async fn troubles_come_in_pages_by_their_time(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    for number in 0..9 {
        publish(&store, &[event(&format!("event-{number}"))], at(0)).await;
    }
    // The last comes first, and three have each time.
    for (place, claimed) in claim(&store, at(0)).await.iter().enumerate() {
        let second = 9 - u64::try_from(place / 3).unwrap_or_default();
        let outcome =
            if place % 2 == 0 { Outcome::Failed } else { Outcome::Retrying { due_at: at(90) } };
        attempt(&store, claimed, outcome, second).await;
    }
    let whole = troubles(&store, since(0)).await;
    assert_eq!(whole.len(), 9);
    assert!(whole.is_sorted_by_key(|found| (found.started_at, found.delivery)));
    for limit in 1..=9 {
        let (mut request, mut found) = (TroubleRequest { limit, ..since(0) }, Vec::new());
        loop {
            let page = troubles(&store, request).await;
            let Some(last) = page.last() else { break };
            assert!(page.len() <= limit);
            request = request.behind(last);
            found.extend(page);
        }
        assert_eq!(found, whole, "{limit}");
    }
}
