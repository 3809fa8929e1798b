//! Ended attempts: all of them, in the order of their ends.

use std::time::Duration;

use webhooks_dispatch::history::{AttemptRecord, EndedRequest};
use webhooks_dispatch::store::Outcome;
use webhooks_dispatch::{Replay, store::Claimed};

use super::replay::replay;
use super::{AnyStore, at, claim, endpoint, event, ids, key, publish, register, settlement};

/// Settles an attempt of some seconds that ends at a time.
async fn attempt(
    store: &impl AnyStore,
    claimed: &Claimed,
    outcome: Outcome,
    (start, end): (u64, u64),
) {
    let mut settlement = settlement(claimed, outcome);
    if let Some(attempt) = &mut settlement.attempt {
        (attempt.started_at, attempt.duration) = (at(start), Duration::from_secs(end - start));
    }
    let _settled = store.settle(vec![settlement], at(end)).await.expect("a store that works");
}

async fn ended(store: &impl AnyStore, request: EndedRequest) -> Vec<AttemptRecord> {
    store.ended_attempts(request).await.expect("a store that works")
}

fn since(second: u64) -> EndedRequest {
    EndedRequest { since: at(second), after: None, limit: 1_000 }
}

/// Returns the events, the numbers and the ends of attempts.
fn shown(found: &[AttemptRecord]) -> Vec<(String, u32, u64)> {
    let second = |found: &AttemptRecord| found.ended_at().saturating_since(at(0)).as_secs();
    found.iter().map(|found| (found.event.to_string(), found.number, second(found))).collect()
}

pub async fn ended_attempts_are_all_attempts_by_their_ends(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    for id in ["slow", "well", "lost"] {
        publish(&store, &[event(id)], at(0)).await;
    }
    let all = claim(&store, at(0)).await;
    assert_eq!(ids(&all), ["slow", "well", "lost"]);
    let [slow, well, lost] = &all[..] else { return };
    attempt(&store, slow, Outcome::Retrying { due_at: at(10) }, (1, 9)).await;
    attempt(&store, well, Outcome::Delivered, (2, 3)).await;
    attempt(&store, lost, Outcome::Failed, (3, 4)).await;
    let entry = |event: &str, number, end| (event.to_owned(), number, end);
    let first = [entry("well", 1, 3), entry("lost", 1, 4), entry("slow", 1, 9)];
    let found = ended(&store, since(0)).await;
    assert_eq!(shown(&found), first);
    for found in &found {
        let one = store.attempt(found.delivery, found.number).await.expect("a store that works");
        assert_eq!(one.as_ref(), Some(found));
    }
    assert_eq!((&found[0].endpoint, &found[0].tenant), (&key("a").id, &key("a").tenant));
    // The start of the time belongs to it.
    assert_eq!(shown(&ended(&store, since(4)).await), first[1..]);
    let retry = claim(&store, at(10)).await.remove(0);
    attempt(&store, &retry, Outcome::Delivered, (10, 11)).await;
    // Attempts of one that is replayed stay where they were.
    for delivery in [well.claim.delivery, lost.claim.delivery] {
        assert_eq!(replay(&store, Replay::Delivery(delivery), 12).await, 1);
    }
    let later = [&first[..], &[entry("slow", 2, 11)]].concat();
    assert_eq!(shown(&ended(&store, since(0)).await), later);
    assert_eq!(shown(&ended(&store, since(12)).await), []);
}

pub async fn ended_attempts_come_in_pages(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    for number in 0..9 {
        publish(&store, &[event(&format!("event-{number}"))], at(0)).await;
    }
    // The last comes first, and three have each time.
    for (place, claimed) in claim(&store, at(0)).await.iter().enumerate() {
        let end = 9 - u64::try_from(place / 3).unwrap_or_default();
        let outcome =
            if place % 2 == 0 { Outcome::Delivered } else { Outcome::Retrying { due_at: at(90) } };
        attempt(&store, claimed, outcome, (1, end)).await;
    }
    let whole = ended(&store, since(0)).await;
    assert_eq!(whole.len(), 9);
    assert!(whole.is_sorted_by_key(|found| (found.ended_at(), found.delivery)));
    for limit in 1..=9 {
        let (mut request, mut found) = (EndedRequest { limit, ..since(0) }, Vec::new());
        loop {
            let page = ended(&store, request).await;
            let Some(last) = page.last() else { break };
            assert!(page.len() <= limit);
            request = request.behind(last);
            found.extend(page);
        }
        assert_eq!(found, whole, "{limit}");
    }
}
