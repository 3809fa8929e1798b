//! Registering, replacing, forgetting and matching.

use proptest::collection::vec;
use proptest::prelude::*;
use webhooks_core::{EventType, TenantId};

use super::*;
use crate::Subscription;

fn endpoint(events: &[&str]) -> Endpoint {
    Endpoint::new("https://example.com/", "my-secret-key").unwrap().events(events).unwrap()
}

fn event(event_type: &str) -> Event {
    Event::new(event_type, ()).unwrap()
}

fn ids(found: &[Arc<Registration>]) -> Vec<&str> {
    found.iter().map(|registration| registration.id.as_str()).collect()
}

#[test]
fn registering_again_replaces() {
    let registry = Registry::new();
    assert_eq!(registry.register("a", endpoint(&["created"])).unwrap(), None);
    let replaced = registry.register("a", endpoint(&["deleted"])).unwrap().unwrap();
    assert_eq!(replaced.endpoint, endpoint(&["created"]));
    assert!(registry.matching(&event("created")).is_empty());
    assert_eq!(ids(&registry.matching(&event("deleted"))), ["a"]);
    assert_eq!(registry.list().len(), 1);
}

#[test]
fn unregistering_an_unknown_id_names_it() {
    let registry = Registry::new();
    for id in ["ghost", "not an id"] {
        let error = registry.unregister(id).unwrap_err();
        assert_eq!(error.to_string(), format!("tenant default has no endpoint {id:?}"));
    }
}

#[test]
fn an_unknown_id_is_named_in_full_if_it_could_be_one_and_else_in_part() {
    let id = |len| "x".repeat(len);
    let registry = Registry::new();
    assert_eq!(registry.unregister(&id(128)).unwrap_err().id, id(128));
    assert_eq!(registry.unregister(&id(129)).unwrap_err().id, format!("{}…", id(63)));
}

#[test]
fn a_bad_id_is_refused_and_nothing_changes() {
    let registry = Registry::new();
    let error = registry.register("a b", endpoint(&[])).unwrap_err();
    assert!(matches!(error, RegisterError::Id(IdError::Character { .. })));
    assert!(registry.list().is_empty());
}

#[test]
fn too_many_subscriptions_are_refused_however_they_were_set() {
    let registry = Registry::new();
    let mut endpoint = endpoint(&["created"]);
    endpoint.subscriptions = vec![Subscription::all(); 257];
    let error = registry.register("a", endpoint).unwrap_err();
    assert_eq!(error, RegisterError::Endpoint(EndpointError::TooManySubscriptions));
    assert!(registry.list().is_empty());
}

#[test]
fn tenants_get_their_own_events_alone() {
    let registry = Registry::new();
    let acme = TenantId::new("acme").unwrap();
    registry.register("a", endpoint(&[]).tenant(acme.clone())).unwrap();
    registry.register("b", endpoint(&[])).unwrap();
    assert_eq!(ids(&registry.matching(&event("created").tenant(acme))), ["a"]);
    assert_eq!(ids(&registry.matching(&event("created"))), ["b"]);
}

#[test]
fn an_id_names_an_endpoint_within_its_tenant_alone() {
    let registry = Registry::new();
    let acme = TenantId::new("acme").unwrap();
    let theirs = EndpointKey::new(acme.clone(), EndpointId::new("crm").unwrap());
    assert_eq!(registry.register("crm", endpoint(&[])).unwrap(), None);
    assert_eq!(registry.register("crm", endpoint(&[]).tenant(acme.clone())).unwrap(), None);
    registry.unregister("crm").unwrap();
    assert!(registry.matching(&event("created")).is_empty());
    assert_eq!(ids(&registry.matching(&event("created").tenant(acme))), ["crm"]);
    assert!(registry.get("crm").is_none() && registry.get_of(&theirs).is_some());
    registry.unregister_of(&theirs).unwrap();
    assert_eq!(registry.unregister_of(&theirs).unwrap_err().id, "crm");
}

#[test]
fn only_a_changed_wish_changes_the_state() {
    let failing = EndpointState::Disabled(DisableReason::Failing);
    let manual = EndpointState::Disabled(DisableReason::Manual);
    let id = EndpointId::new("crm").unwrap();
    let (number, at) = (EndpointNumber::from_u64(1), Timestamp::from_unix_seconds(7));
    let check = |was: bool, state, is: bool, expected| {
        let mut before =
            Registration::new(number, id.clone(), endpoint(&["a"])).in_state(state, at);
        before.endpoint.active = was;
        let mut after = endpoint(&["b"]);
        after.active = is;
        assert_eq!(before.again(after, at).unwrap().state, expected, "{was} {state:?} {is}");
        assert_eq!(before.again(before.endpoint.clone(), at), None);
    };
    check(true, EndpointState::Active, true, EndpointState::Active);
    check(true, EndpointState::Paused, true, EndpointState::Paused);
    check(true, failing, true, failing);
    check(true, EndpointState::Active, false, manual);
    check(true, EndpointState::Paused, false, manual);
    check(true, failing, false, failing);
    check(false, manual, true, EndpointState::Active);
    check(false, EndpointState::Paused, true, EndpointState::Paused);
    check(false, EndpointState::Active, false, EndpointState::Active);
}

#[test]
fn matching_visits_no_endpoint_that_cannot_match() {
    let registry = Registry::new();
    for n in 0..1000 {
        registry.register(&format!("other-{n}"), endpoint(&[&format!("type-{n}.*")])).unwrap();
    }
    registry.register("subtree", endpoint(&["user.*"])).unwrap();
    registry.register("exact", endpoint(&["user.created", "type-7.b"])).unwrap();
    let event = event("user.created");
    let visited = registry.read().index.candidates(&event.tenant, &event.event_type).count();
    assert_eq!(visited, 2);
}

#[test]
fn forgetting_everything_leaves_the_index_empty() {
    let registry = Registry::new();
    registry.register("a", endpoint(&["user.*", "*", "order.paid"])).unwrap();
    registry.register("b", endpoint(&[])).unwrap();
    registry.register("b", endpoint(&[]).inactive()).unwrap();
    registry.unregister("a").unwrap();
    assert!(registry.read().index.is_empty());
}

#[test]
fn deactivating_spares_an_endpoint_that_was_replaced_meanwhile() {
    let registry = Registry::new();
    registry.register("a", endpoint(&[])).unwrap();
    let seen = registry.get("a").unwrap();
    registry.register("a", endpoint(&["created"])).unwrap();
    assert_eq!(registry.disable(&seen, DisableReason::Gone), None);
    assert_eq!(ids(&registry.matching(&event("created"))), ["a"]);

    let seen = registry.get("a").unwrap();
    let disabled = registry.disable(&seen, DisableReason::Gone).unwrap();
    assert_eq!(disabled.state.disabled(), Some(DisableReason::Gone));
    assert!(registry.matching(&event("created")).is_empty());
    assert!(!registry.get("a").unwrap().state.is_open());
}

fn pattern() -> impl Strategy<Value = String> {
    "([ab]\\.){0,2}([ab]|\\*)"
}

proptest! {
    /// The index agrees with asking every endpoint, after any sequence of changes.
    #[test]
    fn matching_agrees_with_a_scan(
        changes in vec((0..8_u8, prop::option::of((vec(pattern(), 0..3), any::<bool>()))), 0..40),
        event_type in "[ab](\\.[ab]){0,2}",
    ) {
        let registry = Registry::new();
        for (id, change) in changes {
            let id = id.to_string();
            match change {
                Some((events, active)) => {
                    let mut endpoint = endpoint(&[]).events(events).unwrap();
                    endpoint.active = active;
                    registry.register(&id, endpoint).unwrap();
                }
                None => drop(registry.unregister(&id)),
            }
        }
        let wanted = EventType::new(&event_type).unwrap();
        let scanned: Vec<_> = registry
            .list()
            .into_iter()
            .filter(|registration| {
                let Endpoint { active, subscriptions, .. } = &registration.endpoint;
                *active && (subscriptions.is_empty() || subscriptions.iter().any(|s| s.matches(&wanted)))
            })
            .collect();
        prop_assert_eq!(registry.matching(&event(&event_type)), scanned);
    }
}

#[test]
fn channels_filter_beside_event_types() {
    let registry = Registry::new();
    let channels = |channels: &[&str]| endpoint(&["created"]).channels(channels).unwrap();
    registry.register("all", channels(&[])).unwrap();
    registry.register("one", channels(&["1"])).unwrap();
    registry.register("two", channels(&["1", "2"])).unwrap();
    let check = |channels: &[&str], expected: &[&str]| {
        let event = event("created").channels(channels).unwrap();
        assert_eq!(ids(&registry.matching(&event)), expected);
    };
    check(&[], &["all"]);
    check(&["1"], &["all", "one", "two"]);
    check(&["2", "3"], &["all", "two"]);
    check(&["3"], &["all"]);
    assert!(registry.matching(&event("deleted").channels(["1"]).unwrap()).is_empty());
}
