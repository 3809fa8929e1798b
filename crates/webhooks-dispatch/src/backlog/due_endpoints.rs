//! The endpoints with something to claim: when it is due, and whose turn it is.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use webhooks_core::{TenantId, Timestamp};
use webhooks_registry::EndpointNumber;

use crate::store::{Room, RoomReader};

/// The number of workers for which an order is kept. Another one replaces the one that asked longest
/// ago.
const MAX_VIEWS: usize = 8;

/// The endpoints with something to claim, in the order in which it is due, and tenants in turn.
///
/// A pure structure: time is an argument. It keeps one order per worker, which leaves out the
/// endpoints that are busy for that worker. So to find what can be claimed costs as much as is
/// found, however many endpoints are busy or wait.
#[derive(Debug)]
pub struct DueEndpoints {
    now: Timestamp,
    endpoints: HashMap<EndpointNumber, DueEndpoint>,
    views: Vec<View>,
    /// The tenant that was served last.
    served: Option<TenantId>,
}

#[derive(Debug)]
struct DueEndpoint {
    tenant: TenantId,
    due_at: Timestamp,
}

/// The endpoints that are not busy for one worker.
#[derive(Debug)]
struct View {
    room: RoomReader,
    /// Those with something due, by tenant.
    ready: BTreeMap<TenantId, BTreeSet<(Timestamp, EndpointNumber)>>,
    /// The others. An endpoint is in `ready` if it is due at `DueEndpoints::now`, and here if not.
    later: BTreeSet<(Timestamp, EndpointNumber)>,
}

impl DueEndpoints {
    /// Returns an empty set.
    pub fn new() -> Self {
        Self {
            now: Timestamp::UNIX_EPOCH,
            endpoints: HashMap::new(),
            views: Vec::new(),
            served: None,
        }
    }

    /// Sets the time at which an endpoint has something to claim; `None` if it has nothing.
    pub fn set(&mut self, endpoint: EndpointNumber, tenant: &TenantId, due_at: Option<Timestamp>) {
        let Some(due_at) = due_at else { return self.remove(endpoint) };
        match self.endpoints.get_mut(&endpoint) {
            Some(known) if known.due_at == due_at => return,
            Some(known) => {
                for view in &mut self.views {
                    view.remove(endpoint, known, self.now);
                }
                known.due_at = due_at;
            }
            None => {
                let known = DueEndpoint { tenant: tenant.clone(), due_at };
                self.endpoints.insert(endpoint, known);
            }
        }
        if let Some(known) = self.endpoints.get(&endpoint) {
            for view in &mut self.views {
                view.insert(endpoint, known, self.now);
            }
        }
    }

    /// Removes an endpoint.
    pub fn remove(&mut self, endpoint: EndpointNumber) {
        if let Some(known) = self.endpoints.remove(&endpoint) {
            for view in &mut self.views {
                view.remove(endpoint, &known, self.now);
            }
        }
    }

    /// Returns the number of endpoints.
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// Removes the endpoints for which `keeps` is false.
    pub fn retain(&mut self, keeps: impl Fn(EndpointNumber) -> bool) {
        let gone = self.endpoints.keys().copied().filter(|endpoint| !keeps(*endpoint));
        for endpoint in gone.collect::<BTreeSet<_>>() {
            self.remove(endpoint);
        }
    }

    /// Returns the time at which an endpoint has something to claim.
    pub fn due_at(&self, endpoint: EndpointNumber) -> Option<Timestamp> {
        self.endpoints.get(&endpoint).map(|known| known.due_at)
    }

    /// Sets the time. It may go back, as a wall clock does.
    pub fn advance(&mut self, now: Timestamp) {
        let before = std::mem::replace(&mut self.now, now);
        for view in &mut self.views {
            view.advance(&self.endpoints, before, now);
        }
    }

    /// Notes the tenant that was served last: the others come first now.
    pub fn set_served(&mut self, tenant: &TenantId) {
        if self.served.as_ref() != Some(tenant) {
            self.served = Some(tenant.clone());
        }
    }

    /// Returns the time at which an endpoint that is not busy first has something to claim, or one
    /// at which it has already.
    pub fn next(&mut self, room: &Room) -> Option<Timestamp> {
        let view = self.view(room);
        let ready = view.ready.values().next().and_then(BTreeSet::first);
        ready.or_else(|| view.later.first()).map(|(due_at, _)| *due_at)
    }

    /// Returns the endpoints to claim from, in turn. None of them is busy, and all have something
    /// due. `count` returns the number of deliveries that an endpoint has to claim; the plan ends
    /// when they are `limit` in all.
    pub fn plan(
        &mut self,
        room: &Room,
        limit: usize,
        count: impl Fn(EndpointNumber) -> usize,
    ) -> Vec<EndpointNumber> {
        use std::ops::Bound::{Excluded, Unbounded};

        let served = self.served.clone();
        let view = self.view(room);
        // The tenants after the one that was served last come first, then those before.
        let after = served.as_ref().map_or(Unbounded, Excluded);
        let first = view.ready.range::<TenantId, _>((after, Unbounded));
        let rest = (view.ready.iter())
            .take_while(|(tenant, _)| served.as_ref().is_some_and(|served| *tenant <= served));
        let tenants = first.chain(rest).take(limit);
        let mut turns: VecDeque<_> = tenants.map(|(_, endpoints)| endpoints.iter()).collect();
        let (mut plan, mut planned) = (Vec::new(), 0);
        while planned < limit
            && let Some(mut endpoints) = turns.pop_front()
        {
            if let Some((_, endpoint)) = endpoints.next() {
                planned += count(*endpoint);
                plan.push(*endpoint);
                turns.push_back(endpoints);
            }
        }
        plan
    }

    /// Returns the view of the worker whose room this is, up to date.
    fn view(&mut self, room: &Room) -> &mut View {
        let place = self.views.iter().position(|view| view.room.is_of(room));
        let mut view = match place {
            Some(place) => self.views.remove(place),
            None => {
                // The one that asked longest ago is the first.
                if self.views.len() >= MAX_VIEWS {
                    self.views.remove(0);
                }
                View::new(room, &self.endpoints, self.now)
            }
        };
        for endpoint in view.room.changes(room) {
            let Some(known) = self.endpoints.get(&endpoint) else { continue };
            if view.room.is_busy(endpoint) {
                view.remove(endpoint, known, self.now);
            } else {
                view.insert(endpoint, known, self.now);
            }
        }
        self.views.push(view);
        let last = self.views.len() - 1;
        &mut self.views[last]
    }
}

impl Default for DueEndpoints {
    fn default() -> Self {
        Self::new()
    }
}

impl View {
    #[expect(clippy::iter_over_hash_type, reason = "they are sorted here")]
    fn new(room: &Room, endpoints: &HashMap<EndpointNumber, DueEndpoint>, now: Timestamp) -> Self {
        let room = RoomReader::new(room);
        let mut view = Self { room, ready: BTreeMap::new(), later: BTreeSet::new() };
        for (endpoint, known) in endpoints {
            view.insert(*endpoint, known, now);
        }
        view
    }

    fn insert(&mut self, endpoint: EndpointNumber, known: &DueEndpoint, now: Timestamp) {
        let DueEndpoint { tenant, due_at } = known;
        if self.room.is_busy(endpoint) {
            return;
        }
        if *due_at > now {
            self.later.insert((*due_at, endpoint));
        } else if let Some(endpoints) = self.ready.get_mut(tenant) {
            endpoints.insert((*due_at, endpoint));
        } else {
            self.ready.entry(tenant.clone()).or_default().insert((*due_at, endpoint));
        }
    }

    fn remove(&mut self, endpoint: EndpointNumber, known: &DueEndpoint, now: Timestamp) {
        let DueEndpoint { tenant, due_at } = known;
        if *due_at > now {
            self.later.remove(&(*due_at, endpoint));
        } else if let Some(endpoints) = self.ready.get_mut(tenant) {
            endpoints.remove(&(*due_at, endpoint));
            if endpoints.is_empty() {
                self.ready.remove(tenant);
            }
        }
    }

    fn advance(
        &mut self,
        endpoints: &HashMap<EndpointNumber, DueEndpoint>,
        before: Timestamp,
        now: Timestamp,
    ) {
        if now < before {
            // The clock was set back: what was ready may be due later again.
            let is_early = |(due_at, _): &&(Timestamp, EndpointNumber)| *due_at > now;
            let early: Vec<(Timestamp, EndpointNumber)> =
                self.ready.values().flatten().filter(is_early).copied().collect();
            for (_, endpoint) in early {
                if let Some(known) = endpoints.get(&endpoint) {
                    self.remove(endpoint, known, before);
                    self.insert(endpoint, known, now);
                }
            }
        }
        while let Some((due_at, endpoint)) = self.later.first().copied()
            && due_at <= now
        {
            self.later.pop_first();
            if let Some(known) = endpoints.get(&endpoint) {
                self.insert(endpoint, known, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Advance { now: u64 },
        Plan { room: usize, limit: usize },
        Set { endpoint: u64, due_at: Option<u64> },
        SetRoom { room: usize, endpoint: u64, limit: usize },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..50_u64).prop_map(|now| Step::Advance { now }),
            (0..3_usize, 1..20_usize).prop_map(|(room, limit)| Step::Plan { room, limit }),
            (0..12_u64, prop::option::of(0..50_u64))
                .prop_map(|(endpoint, due_at)| Step::Set { endpoint, due_at }),
            (0..3_usize, 0..12_u64, 0..3_usize)
                .prop_map(|(room, endpoint, limit)| { Step::SetRoom { room, endpoint, limit } }),
        ]
    }

    fn number(endpoint: u64) -> EndpointNumber {
        EndpointNumber::from_u64(endpoint)
    }

    fn tenant(endpoint: u64) -> TenantId {
        TenantId::new(&format!("tenant-{}", endpoint % 3)).unwrap()
    }

    proptest! {
        /// Goal: every worker finds all endpoints that are due and not busy for it, in their order,
        /// whatever happened before.
        #[test]
        fn a_plan_holds_what_is_due_and_not_busy(steps in vec(step(), 1..100)) {
            let mut due = DueEndpoints::new();
            let rooms = [Room::new(), Room::new(), Room::new()];
            let (mut now, mut model) = (0, BTreeMap::new());
            for step in steps {
                match step {
                    Step::Advance { now: time } => {
                        now = time;
                        due.advance(Timestamp::from_unix_seconds(now));
                    }
                    Step::Set { endpoint, due_at } => {
                        let time = due_at.map(Timestamp::from_unix_seconds);
                        due.set(number(endpoint), &tenant(endpoint), time);
                        match due_at {
                            Some(due_at) => model.insert(endpoint, due_at),
                            None => model.remove(&endpoint),
                        };
                    }
                    Step::SetRoom { room, endpoint, limit } => {
                        rooms[room].set(number(endpoint), (limit < 2).then_some(limit));
                    }
                    Step::Plan { room, limit } => {
                        let is_free = |endpoint: &u64| !rooms[room].is_busy(number(*endpoint));
                        let free = model.iter().filter(|(endpoint, _)| is_free(endpoint));
                        let mut free: Vec<(u64, u64)> = free.map(|(e, at)| (*at, *e)).collect();
                        free.sort_unstable();
                        let next = due.next(&rooms[room]);
                        prop_assert_eq!(next.is_some(), !free.is_empty());
                        let ready: Vec<u64> = free.iter().filter(|(at, _)| *at <= now)
                            .map(|(_, endpoint)| *endpoint).collect();
                        if ready.is_empty() {
                            let first = free.first().map(|(at, _)| Timestamp::from_unix_seconds(*at));
                            prop_assert_eq!(next, first);
                        } else {
                            prop_assert!(next <= Some(Timestamp::from_unix_seconds(now)));
                        }
                        let plan = due.plan(&rooms[room], limit, |_| 1);
                        prop_assert_eq!(plan.len(), ready.len().min(limit));
                        for name in 0..3 {
                            let of = |endpoint: &&u64| **endpoint % 3 == name;
                            let expected: Vec<u64> = ready.iter().filter(of).copied().collect();
                            let planned = plan.iter().map(|number| number.as_u64());
                            let planned: Vec<u64> = planned.filter(|e| e % 3 == name).collect();
                            prop_assert!(expected.starts_with(&planned), "{planned:?} {expected:?}");
                        }
                        if let Some(last) = plan.last() {
                            due.set_served(&tenant(last.as_u64()));
                        }
                    }
                }
            }
        }
    }
}
