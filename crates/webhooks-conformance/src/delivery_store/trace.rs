//! Traces: the place of an event in a distributed trace goes with it to each attempt.

use webhooks_core::TraceContext;
use webhooks_dispatch::{
    Publication, Replay,
    store::{Outcome, SerializedEvent},
};

use super::replay::replay;
use super::{
    AnyStore, at, claim, deliveries_of, endpoint, event, publish, publish_as, register, settle,
};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn trace(state: &str) -> TraceContext {
    TraceContext::parse(PARENT, [state]).expect("a valid parent")
}

fn traced(id: &str, state: &str) -> SerializedEvent {
    Publication::new(&event(id)).trace(trace(state)).into_serialized()
}

pub async fn a_trace_is_stored_and_returned_with_each_claim(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    register(&store, "b", endpoint()).await;
    let plain = SerializedEvent::new(&event("plain"));
    publish_as(&store, vec![traced("traced", "a=1,b=2"), plain, traced("bare", "")], at(0)).await;
    let expected = |id: &str| match id {
        "traced" => Some(trace("a=1,b=2")),
        "bare" => Some(trace("")),
        _ => None,
    };
    for second in [0, 10] {
        let claimed = claim(&store, at(second)).await;
        assert_eq!(claimed.len(), 6);
        for claimed in &claimed {
            let id = claimed.event.id.to_string();
            assert_eq!(claimed.event.trace, expected(&id), "{id} at {second}");
            let outcome = Outcome::Retrying { due_at: at(second + 10) };
            let _recorded = settle(&store, claimed, outcome, at(second)).await;
        }
    }
    for id in ["traced", "plain", "bare"] {
        let found = store.event(event(id).tenant, event(id).id).await;
        let found = found.expect("a store that works").expect("it was published");
        assert_eq!(found.summary.trace, expected(id));
    }
}

pub async fn a_replayed_delivery_has_its_trace(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    publish_as(&store, vec![traced("a", "a=1")], at(0)).await;
    let claimed = claim(&store, at(0)).await.remove(0);
    let _recorded = settle(&store, &claimed, Outcome::Failed, at(0)).await;
    let delivery = deliveries_of(&store, "a").await[0].id;
    assert_eq!(replay(&store, Replay::Delivery(delivery), 5).await, 1);
    assert_eq!(claim(&store, at(5)).await[0].event.trace, Some(trace("a=1")));
}

pub async fn a_trace_is_no_part_of_the_content(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    publish_as(&store, vec![traced("a", "a=1")], at(0)).await;
    publish_as(&store, vec![traced("a", "a=2")], at(1)).await;
    publish(&store, &[event("a")], at(2)).await;
    let claimed = claim(&store, at(2)).await;
    assert_eq!((claimed.len(), &claimed[0].event.trace), (1, &Some(trace("a=1"))));
}
