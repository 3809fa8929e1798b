//! The endpoints that have something to claim in the database, as far as this process knows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use webhooks_core::{TenantId, Timestamp};
use webhooks_dispatch::{backlog::DueEndpoints, store::Room};
use webhooks_registry::EndpointNumber;

/// The number of endpoints whose tenants are remembered. With more, all of them are read again.
const MAX_TENANTS: usize = 200_000;

/// An endpoint as the database describes it.
#[derive(Debug)]
pub(crate) struct EndpointDue {
    pub(crate) endpoint: EndpointNumber,
    pub(crate) tenant: TenantId,
    /// The time from which there may be something to claim; `None` if it is closed.
    pub(crate) due_at: Option<Timestamp>,
}

/// The endpoints from which something can be claimed, and when.
///
/// It learns from what this process does, from the notifications of others, and from the answer to
/// each claim. A read of all endpoints finds the rest: it is then complete. So a claim names the
/// endpoints that it claims from, and does not look at others.
#[derive(Debug)]
pub(crate) struct KnownDue {
    due: DueEndpoints,
    /// The endpoints that may have something to claim, of which nothing else is known.
    unknown: BTreeSet<EndpointNumber>,
    /// The endpoints whose times may be too early, because a lease ended that was known.
    unsure: BTreeSet<EndpointNumber>,
    /// The closed endpoints with pending deliveries.
    closed: BTreeSet<EndpointNumber>,
    tenants: HashMap<EndpointNumber, TenantId>,
    /// False if all endpoints must be read.
    is_complete: bool,
    /// Set while they are read, and nothing was forgotten meanwhile.
    is_reading: bool,
    /// The workers among which this one had its share when they were read.
    members: Arc<[i64]>,
    /// The time of the last claim.
    now: Timestamp,
    /// The changes that were noted since the call of the database began whose answer is to come.
    noted: BTreeMap<EndpointNumber, Timestamp>,
}

impl Default for KnownDue {
    fn default() -> Self {
        Self {
            due: DueEndpoints::new(),
            unknown: BTreeSet::new(),
            unsure: BTreeSet::new(),
            closed: BTreeSet::new(),
            tenants: HashMap::new(),
            is_complete: false,
            is_reading: false,
            members: Arc::default(),
            now: Timestamp::UNIX_EPOCH,
            noted: BTreeMap::new(),
        }
    }
}

impl KnownDue {
    /// Notes that anything may have changed in the database.
    pub(crate) fn forget(&mut self) {
        (self.is_complete, self.is_reading) = (false, false);
    }

    /// Returns whether it has all endpoints that this worker serves beside `members`.
    pub(crate) fn is_complete(&self, members: &Arc<[i64]>) -> bool {
        self.is_complete && self.members == *members
    }

    /// Notes that an endpoint has something to claim from `due_at` on.
    pub(crate) fn note(&mut self, endpoint: EndpointNumber, due_at: Timestamp) {
        // No earlier than now, so that it comes behind those that wait.
        let due_at = due_at.max(self.now);
        let noted = self.noted.entry(endpoint).or_insert(due_at);
        *noted = due_at.min(*noted);
        match self.tenants.get(&endpoint) {
            Some(tenant) => {
                let known = self.due.due_at(endpoint).into_iter();
                self.due.set(endpoint, tenant, known.chain([due_at]).min());
            }
            None => {
                self.unknown.insert(endpoint);
            }
        }
    }

    /// Notes that a delivery of an endpoint is tried again from `due_at` on, and so has no lease.
    pub(crate) fn note_retry(&mut self, endpoint: EndpointNumber, due_at: Timestamp) {
        self.note(endpoint, due_at);
        self.unsure.insert(endpoint);
    }

    /// Returns the endpoints whose times may be too early, and begins to note changes.
    pub(crate) fn take_unsure(&mut self) -> Vec<EndpointNumber> {
        self.noted.clear();
        std::mem::take(&mut self.unsure).into_iter().collect()
    }

    /// Notes the tenant of an endpoint.
    pub(crate) fn note_tenant(&mut self, endpoint: EndpointNumber, tenant: &TenantId) {
        if self.tenants.contains_key(&endpoint) {
            return;
        }
        if self.tenants.len() >= MAX_TENANTS.max(2 * self.due.len()) {
            self.tenants.retain(|endpoint, _| self.due.due_at(*endpoint).is_some());
        }
        self.tenants.insert(endpoint, tenant.clone());
        if self.unknown.remove(&endpoint) {
            self.due.set(endpoint, tenant, Some(self.now));
        }
    }

    pub(crate) fn set_served(&mut self, tenant: &TenantId) {
        self.due.set_served(tenant);
    }

    /// Returns the time from which there may be something to claim for endpoints that are not busy.
    pub(crate) fn next(&mut self, room: &Room, now: Timestamp) -> Option<Timestamp> {
        self.now = now;
        self.due.advance(now);
        let is_free = |endpoint: &EndpointNumber| !room.is_busy(*endpoint);
        let unknown = self.unknown.iter().any(is_free).then_some(now);
        self.due.next(room).into_iter().chain(unknown).min()
    }

    /// Returns the endpoints to claim from, in turn, and begins to note changes.
    pub(crate) fn plan(
        &mut self,
        room: &Room,
        limit: usize,
        now: Timestamp,
    ) -> Vec<EndpointNumber> {
        self.noted.clear();
        self.now = now;
        self.due.advance(now);
        let is_free = |endpoint: &EndpointNumber| !room.is_busy(*endpoint);
        let mut plan: Vec<EndpointNumber> =
            self.unknown.iter().copied().filter(is_free).take(limit).collect();
        // One delivery each: it is not known how many there are.
        plan.extend(self.due.plan(room, limit - plan.len(), |_| 1));
        plan
    }

    /// Notes the answer to a claim from `asked` that has found everything that was due: what is due
    /// there now.
    pub(crate) fn answer(&mut self, asked: &[EndpointNumber], found: Vec<EndpointDue>) {
        for endpoint in asked {
            self.unknown.remove(endpoint);
            self.unsure.remove(endpoint);
            self.due.remove(*endpoint);
        }
        self.add(found);
    }

    /// Notes that a claim has reached its limit with these endpoints. They may have more, and come
    /// behind the others now.
    pub(crate) fn rotate(&mut self, asked: &[EndpointNumber]) {
        for endpoint in asked {
            match self.tenants.get(endpoint) {
                Some(tenant) => self.due.set(*endpoint, tenant, Some(self.now)),
                // Nothing was claimed for it: perhaps others serve it.
                None => {
                    self.unknown.remove(endpoint);
                    self.unsure.insert(*endpoint);
                }
            }
        }
        self.noted.clear();
    }

    /// Begins to note changes, before all endpoints are read.
    pub(crate) fn begin_read(&mut self, members: &Arc<[i64]>) {
        self.noted.clear();
        self.members = Arc::clone(members);
        self.is_reading = true;
    }

    /// Takes over all endpoints as they were read.
    pub(crate) fn complete(&mut self, found: Vec<EndpointDue>) {
        self.is_complete = std::mem::take(&mut self.is_reading);
        let known: BTreeSet<EndpointNumber> = found.iter().map(|found| found.endpoint).collect();
        self.due.retain(|endpoint| known.contains(&endpoint));
        self.unknown.clear();
        self.unsure.clear();
        self.closed.clear();
        self.add(found);
    }

    /// Adds endpoints as the database describes them, and what was noted meanwhile.
    fn add(&mut self, found: Vec<EndpointDue>) {
        for EndpointDue { endpoint, tenant, due_at } in found {
            self.note_tenant(endpoint, &tenant);
            self.due.set(endpoint, &tenant, due_at);
            if due_at.is_none() {
                self.closed.insert(endpoint);
            }
        }
        for (endpoint, due_at) in std::mem::take(&mut self.noted) {
            self.note(endpoint, due_at);
        }
        self.noted.clear();
    }

    /// Returns a closed endpoint with pending deliveries.
    pub(crate) fn closed(&self) -> Option<EndpointNumber> {
        // At random, so that one that fails does not block the others.
        fastrand::choice(&self.closed).copied()
    }

    /// Notes that a closed endpoint has no more pending deliveries; returns whether another one has.
    pub(crate) fn close_ended(&mut self, endpoint: EndpointNumber) -> bool {
        self.closed.remove(&endpoint);
        !self.closed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(endpoint: u64) -> EndpointNumber {
        EndpointNumber::from_u64(endpoint)
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    fn found(endpoint: u64, due_at: u64) -> EndpointDue {
        let (endpoint, tenant) = (number(endpoint), TenantId::default());
        EndpointDue { endpoint, tenant, due_at: Some(at(due_at)) }
    }

    #[test]
    fn what_is_noted_during_a_call_outlasts_its_answer() {
        let (mut known, room) = (KnownDue::default(), Room::new());
        known.begin_read(&Arc::default());
        known.note(number(1), at(3));
        known.complete(vec![found(1, 9), found(2, 4)]);
        assert_eq!(known.next(&room, at(0)), Some(at(3)));
        let asked = known.plan(&room, 10, at(5));
        assert_eq!(asked, [number(1), number(2)]);
        known.note(number(2), at(5));
        known.answer(&asked, vec![found(1, 20)]);
        assert_eq!(known.plan(&room, 10, at(5)), [number(2)]);
        known.answer(&[number(2)], Vec::new());
        assert_eq!(known.next(&room, at(5)), Some(at(20)));
        assert!(known.is_complete(&Arc::default()));
    }

    #[test]
    fn a_retry_leaves_no_lease_behind() {
        let (mut known, room) = (KnownDue::default(), Room::new());
        known.complete(vec![found(1, 60)]);
        known.note_retry(number(1), at(90));
        assert_eq!(known.next(&room, at(0)), Some(at(60)));
        let unsure = known.take_unsure();
        assert_eq!(unsure, [number(1)]);
        known.answer(&unsure, vec![found(1, 90)]);
        assert_eq!(known.next(&room, at(0)), Some(at(90)));
        assert!(known.take_unsure().is_empty());
    }

    #[test]
    fn endpoints_that_may_have_more_come_behind_the_others() {
        let (mut known, room) = (KnownDue::default(), Room::new());
        known.complete((1..=3).map(|endpoint| found(endpoint, endpoint)).collect());
        let asked = known.plan(&room, 2, at(5));
        assert_eq!(asked, [number(1), number(2)]);
        // The claim got no further than to the first one.
        known.rotate(&asked[..1]);
        assert_eq!(known.plan(&room, 3, at(6)), [number(2), number(3), number(1)]);
        // News of one that waits already moves it nowhere.
        known.note(number(1), Timestamp::UNIX_EPOCH);
        assert_eq!(known.plan(&room, 3, at(6)), [number(2), number(3), number(1)]);
    }

    #[test]
    fn an_endpoint_of_which_nothing_is_known_is_asked_unless_it_is_busy() {
        let (mut known, room) = (KnownDue::default(), Room::new());
        known.begin_read(&Arc::default());
        known.complete(Vec::new());
        known.note(number(1), at(5));
        assert_eq!(known.next(&room, at(5)), Some(at(5)));
        room.set(number(1), Some(0));
        assert!(known.plan(&room, 3, at(5)).is_empty());
        room.set(number(1), None);
        assert_eq!(known.plan(&room, 3, at(5)), [number(1)]);
        // Once its tenant is known, it is planned one time.
        known.note_tenant(number(1), &TenantId::default());
        known.note(number(1), at(5));
        assert_eq!(known.plan(&room, 3, at(5)), [number(1)]);
        known.answer(&[number(1)], Vec::new());
        assert_eq!(known.next(&room, at(5)), None);
    }

    #[test]
    fn a_read_that_ends_without_an_answer_is_made_again() {
        let mut known = KnownDue::default();
        known.begin_read(&Arc::default());
        assert!(!known.is_complete(&Arc::default()));
        known.begin_read(&Arc::default());
        known.forget();
        known.complete(vec![found(1, 9)]);
        assert!(!known.is_complete(&Arc::default()), "something has changed meanwhile");
        known.begin_read(&Arc::default());
        known.complete(vec![found(1, 9)]);
        assert!(known.is_complete(&Arc::default()));
    }
}
