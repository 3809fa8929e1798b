//! Operations of people on many deliveries and events: batches of cancellations, and retention of
//! one tenant.

use webhooks_core::{DeliveryId, DeliveryStatus};
use webhooks_dispatch::{
    OperationError,
    history::Query,
    store::{Outcome, PruneRequest, Settled},
};

use super::{
    AnyStore, at, claim, deliveries_of, endpoint, event, publish, register, settle, status, tenant,
};

pub async fn a_batch_is_cancelled_and_answered_in_order(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    let names = ["delivered", "retrying", "flying", "waiting"];
    publish(&store, &names.map(event), at(0)).await;
    let claimed = claim(&store, at(0)).await;
    let outcomes = [Outcome::Delivered, Outcome::Retrying { due_at: at(50) }, Outcome::Released];
    for (claimed, outcome) in [0, 1, 3].map(|n| &claimed[n]).into_iter().zip(outcomes) {
        let _recorded = settle(&store, claimed, outcome, at(1)).await;
    }
    let ids: Vec<DeliveryId> = claimed.iter().map(|claimed| claimed.claim.delivery).collect();
    let unknown = DeliveryId::from_u64(424_242);
    let batch = vec![ids[3], unknown, ids[0], ids[2], ids[3], ids[1]];
    let answers = store.cancel(batch, at(2)).await.expect("a store that works");
    let told: Vec<String> = answers
        .iter()
        .map(|answer| answer.as_ref().map_or_else(ToString::to_string, |()| "done".to_owned()))
        .collect();
    let expected = [
        "done".to_owned(),
        format!("there is no delivery {unknown}"),
        format!("delivery {} is delivered", ids[0]),
        "done".to_owned(),
        format!("delivery {} is cancelled", ids[3]),
        "done".to_owned(),
    ];
    assert_eq!(told, expected);
    assert!(matches!(
        answers[2],
        Err(OperationError::WrongStatus { status: DeliveryStatus::Delivered, .. })
    ));
    for id in &ids[1..] {
        assert_eq!(status(&store, *id).await, "cancelled");
    }
    assert_eq!(settle(&store, &claimed[2], Outcome::Delivered, at(3)).await, Settled::LeaseLost);
    assert!(claim(&store, at(10_000)).await.is_empty());
    assert!(store.cancel(vec![], at(4)).await.expect("a store that works").is_empty());
}

pub async fn a_large_batch_is_cancelled_whole(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    register(&store, "ordered", endpoint().ordered()).await;
    let events: Vec<_> = (0..600).map(|n| event(&format!("event-{n}"))).collect();
    publish(&store, &events, at(0)).await;
    let query = Query { limit: 1_000, ..Query::default() };
    let mut ids: Vec<DeliveryId> = Vec::new();
    let mut after = None;
    loop {
        let page = store.deliveries(Query { after, ..query.clone() }).await;
        let page = page.expect("a store that works");
        ids.extend(page.items.iter().map(|found| found.id));
        let Some(next) = page.next else { break };
        after = Some(next);
    }
    assert_eq!(ids.len(), 1_200);
    let left = deliveries_of(&store, "event-300").await;
    ids.retain(|id| left.iter().all(|left| left.id != *id));
    let answers = store.cancel(ids, at(1)).await.expect("a store that works");
    assert_eq!((answers.len(), answers.iter().filter(|one| one.is_ok()).count()), (1_198, 1_198));
    let claimed = claim(&store, at(2)).await;
    let is_left =
        |claimed: &webhooks_dispatch::store::Claimed| claimed.event.id.to_string() == "event-300";
    assert_eq!((claimed.len(), claimed.iter().all(is_left)), (2, true));
}

pub async fn a_tenants_events_are_forgotten_and_no_others(store: impl AnyStore) {
    for name in ["acme", "globex"] {
        register(&store, "a", endpoint().tenant(tenant(name))).await;
        for n in 0..5 {
            let event = event(&format!("event-{n}")).tenant(tenant(name));
            publish(&store, &[event], at(n)).await;
        }
    }
    for claimed in claim(&store, at(10)).await {
        let is_open = claimed.event.id.to_string() == "event-1";
        let outcome =
            if is_open { Outcome::Retrying { due_at: at(9_000) } } else { Outcome::Failed };
        let _recorded = settle(&store, &claimed, outcome, at(10)).await;
    }
    let prune = async |name: Option<&str>, before: u64, limit| {
        let request =
            PruneRequest { tenant: name.map(tenant), before: at(before), limit, now: at(100) };
        store.prune(request).await.expect("a store that works")
    };
    let left = async |name: &str| {
        let query = Query { tenant: Some(tenant(name)), ..Query::default() };
        let events = store.events(query.clone()).await.expect("a store that works").items;
        let found = store.deliveries(query.clone()).await.expect("a store that works").items;
        let tried = store.attempts(query).await.expect("a store that works").items;
        assert_eq!((found.len(), tried.len()), (events.len(), events.len()), "{name}");
        events.iter().map(|found| found.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(prune(Some("nobody"), 100, 10).await, 0);
    let (mut forgotten, mut calls) = (0, 0);
    loop {
        let few = prune(Some("acme"), 4, 2).await;
        assert!(few <= 2);
        forgotten += few;
        calls += 1;
        if few == 0 {
            break;
        }
        assert!(calls < 10, "it ends");
    }
    assert_eq!(forgotten, 3, "0, 2 and 3; 1 waits, and 4 is younger");
    assert_eq!(left("acme").await, ["event-4", "event-1"]);
    let all: Vec<String> = (0..5).rev().map(|n| format!("event-{n}")).collect();
    assert_eq!(left("globex").await, all);
    let acmes = event("event-0").tenant(tenant("acme"));
    assert_eq!(store.event(tenant("acme"), acmes.id.clone()).await.expect("works"), None);
    let again = publish(&store, &[acmes], at(200)).await;
    assert_eq!(again[0].deliveries, 1, "a forgotten id is free");
    assert_eq!(claim(&store, at(9_000)).await.len(), 3, "both retries, and the new one");
}
