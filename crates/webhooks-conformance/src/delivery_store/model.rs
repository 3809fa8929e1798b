//! Endpoints of a store beside those of the store in memory: the same after any operations.

use std::collections::BTreeMap;

use webhooks_core::EventType;
use webhooks_dispatch::MemoryStore;
use webhooks_registry::{
    DisableReason, Endpoint, EndpointKey, Registration,
    store::{
        EndpointCursor, EndpointOrder, EndpointQuery, EndpointStore, Expected, PagePlace,
        RegisterRequest, Registered, StateChange, StateKind,
    },
};

use super::{AnyStore, at, endpoint, endpoint_id, tenant};

/// Numbers that look random, the same in each run (Marsaglia's xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).expect("a small number")
    }

    /// Returns whether the one case in `cases` comes up.
    fn once_in(&mut self, cases: usize) -> bool {
        self.below(cases) == 0
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

/// Returns all that is told of an endpoint, except for the number, which is the store's own.
fn told(found: &Registration) -> String {
    let Registration { id, endpoint, state, revision, .. } = found;
    format!("{id} {state:?} {revision:?} {endpoint:?}")
}

fn any_key(numbers: &mut Numbers) -> EndpointKey {
    let tenant = tenant(numbers.one(&["acme", "globex"]));
    EndpointKey::new(tenant, endpoint_id(numbers.one(&["a", "b", "C", "d-1", "e_2"])))
}

fn any_endpoint(numbers: &mut Numbers) -> Endpoint {
    let mut made = endpoint();
    if numbers.once_in(3) {
        made = made.name(numbers.one(&["one", "Two", "größe"]));
    }
    if numbers.once_in(3) {
        made = made.metadata("team", numbers.one(&["crm", "shop"]));
    }
    if numbers.once_in(3) {
        made = made.events([numbers.one(&["user.*", "user.created", "a.b"])]).expect("valid");
    }
    if numbers.once_in(4) {
        made = made.inactive();
    }
    if numbers.once_in(4) { made.ordered() } else { made }
}

fn any_query(numbers: &mut Numbers, second: u64) -> EndpointQuery {
    let order = numbers.one(&[EndpointOrder::ById, EndpointOrder::NewestFirst]);
    let mut query =
        EndpointQuery { order, limit: 1 + numbers.below(4), ..EndpointQuery::default() };
    if numbers.once_in(2) {
        query.tenant = Some(tenant(numbers.one(&["acme", "globex"])));
    }
    if numbers.once_in(3) {
        let state = numbers.one(&[StateKind::Active, StateKind::Paused, StateKind::Disabled]);
        query.states = vec![state, StateKind::Active];
    }
    if numbers.once_in(4) {
        query.text = Some(numbers.one(&["TW", "E", "größe", "https"]).to_owned());
    }
    if numbers.once_in(4) {
        query.metadata = BTreeMap::from([("team".to_owned(), "crm".to_owned())]);
    }
    if numbers.once_in(4) {
        query.event_type = EventType::new(numbers.one(&["user.created", "a.b"])).ok();
    }
    if numbers.once_in(2) {
        let key = any_key(numbers);
        let cursor = match order {
            EndpointOrder::ById => EndpointCursor::ById(key),
            EndpointOrder::NewestFirst => {
                let created = numbers.below(usize::try_from(second + 1).expect("a small number"));
                EndpointCursor::ByCreation(at(created as u64), key)
            }
        };
        let is_after = numbers.once_in(2);
        query.place =
            Some(if is_after { PagePlace::After(cursor) } else { PagePlace::Before(cursor) });
    }
    query
}

/// An operation on endpoints.
#[derive(Debug, Clone)]
enum Operation {
    Register(Box<RegisterRequest>),
    Unregister(EndpointKey),
    SetState(EndpointKey, StateChange),
    Get(EndpointKey),
    List(EndpointQuery),
    Count(EndpointQuery, usize),
}

fn any_operation(numbers: &mut Numbers, second: u64) -> Operation {
    let key = any_key(numbers);
    match numbers.below(12) {
        0..=3 => {
            let endpoint = any_endpoint(numbers).tenant(key.tenant);
            let version = Expected::Version(1 + numbers.below(9) as u64);
            let (any, absent, present) = (Expected::Any, Expected::Absent, Expected::Present);
            let expected = numbers.one(&[any, any, absent, present, version]);
            let max_endpoints = numbers.one(&[None, Some(2), Some(4)]);
            let request = RegisterRequest::new(key.id, endpoint, at(second));
            Operation::Register(Box::new(RegisterRequest { expected, max_endpoints, ..request }))
        }
        4 => Operation::Unregister(key),
        5..=7 => {
            use StateChange::{Disable, Enable, Pause, Resume};

            let (gone, manual) = (Disable(DisableReason::Gone), Disable(DisableReason::Manual));
            Operation::SetState(key, numbers.one(&[gone, manual, Enable, Pause, Resume]))
        }
        8 => Operation::Get(key),
        9 | 10 => Operation::List(any_query(numbers, second)),
        _ => Operation::Count(any_query(numbers, second), numbers.below(6)),
    }
}

/// Carries out an operation; returns all that a caller is told, as a text.
async fn run(store: &impl EndpointStore, operation: Operation, second: u64) -> String {
    let (now, failed) = (at(second), "refused");
    match operation {
        Operation::Register(request) => match store.register(*request).await {
            Ok(Registered::Changed { before }) => format!("changed {}", told(&before)),
            Ok(registered) => format!("{registered:?}"),
            Err(error) => format!("{failed} {error}"),
        },
        Operation::Unregister(key) => match store.unregister(key, now).await {
            Ok(removed) => told(&removed),
            Err(error) => format!("{failed} {error}"),
        },
        Operation::SetState(key, change) => match store.set_state(key, change, now).await {
            Ok(before) => format!("{:?}", before.as_deref().map(told)),
            Err(error) => format!("{failed} {error}"),
        },
        Operation::Get(key) => {
            let found = store.get(key).await.expect("a store that works");
            format!("{:?}", found.as_deref().map(told))
        }
        Operation::List(query) => {
            let page = store.list(query).await.expect("a store that works");
            let items: Vec<String> = page.items.iter().map(|found| told(found)).collect();
            format!("{items:#?} {:?} {:?}", page.next, page.previous)
        }
        Operation::Count(query, max) => {
            store.count(query, max).await.expect("a store that works").to_string()
        }
    }
}

/// Goal: conditions, revisions, states, bounds and lists hold together, in any order of operations.
/// Method: 1,500 operations on ten endpoints of two tenants, each on this store and on the store in
/// memory; each answer is the same.
pub async fn endpoints_are_those_of_the_store_in_memory(store: impl AnyStore) {
    let (model, mut numbers) = (MemoryStore::new(), Numbers(0x5eed_cafe_f00d_0001));
    for second in 0..1_500 {
        let operation = any_operation(&mut numbers, second);
        let expected = run(&model, operation.clone(), second).await;
        let found = run(&store, operation.clone(), second).await;
        assert_eq!(found, expected, "operation {second}: {operation:?}");
    }
    for order in [EndpointOrder::ById, EndpointOrder::NewestFirst] {
        let all = Operation::List(EndpointQuery { order, ..EndpointQuery::default() });
        let expected = run(&model, all.clone(), 1_500).await;
        assert_eq!(run(&store, all, 1_500).await, expected);
    }
}
