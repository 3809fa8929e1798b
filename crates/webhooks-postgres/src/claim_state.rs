//! The state that a claim leaves to the next one: endpoints, when they have something due, and
//! turns.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use webhooks_dispatch::clock::MonotonicTime;
use webhooks_registry::{EndpointNumber, Registration};

/// The maximum of endpoints that are kept between claims.
const MAX_CACHED: usize = 10_000;

/// The number and version of an endpoint's row.
pub(crate) type RowVersion = (i64, i64);

/// The endpoints that deliveries were claimed for, each with this worker's share of its limits.
#[derive(Debug, Default)]
pub(crate) struct EndpointCache {
    /// The members that the shares were computed for.
    members: Arc<[i64]>,
    /// `None` is an endpoint that this worker does not serve.
    by_version: HashMap<RowVersion, Option<Arc<Registration>>>,
}

impl EndpointCache {
    /// Empties the cache if it holds the shares among other members.
    pub(crate) fn use_members(&mut self, members: &Arc<[i64]>) {
        if self.members != *members {
            *self = Self { members: Arc::clone(members), ..Self::default() };
        }
    }

    /// Returns an endpoint; `Some(None)` if this worker does not serve it, `None` if it is not
    /// known.
    pub(crate) fn get(&self, version: RowVersion) -> Option<&Option<Arc<Registration>>> {
        self.by_version.get(&version)
    }

    /// Makes room for as many endpoints as are about to be inserted.
    pub(crate) fn reserve(&mut self, count: usize) {
        if self.by_version.len() + count > MAX_CACHED {
            self.by_version.clear();
        }
    }

    pub(crate) fn insert(&mut self, version: RowVersion, endpoint: Option<Arc<Registration>>) {
        self.by_version.insert(version, endpoint);
    }
}

/// The times at which endpoints that were not busy have something due in the database.
///
/// They hold as long as the store's count of changes stays the same. It grows when something in the
/// database may have become due.
#[derive(Debug, Default)]
pub(crate) struct NextDueCache {
    /// The count of changes when they were found; `None` if they never were.
    pub(crate) changes_when_found: Option<u64>,
    /// The endpoints that were busy, of which nothing is known.
    pub(crate) busy: Arc<BTreeSet<EndpointNumber>>,
    pub(crate) by_endpoint: BTreeMap<EndpointNumber, MonotonicTime>,
}

impl NextDueCache {
    /// Returns whether it holds at this count of changes, and for all endpoints that are not busy
    /// now.
    pub(crate) fn is_valid(&self, changes: u64, busy: &BTreeSet<EndpointNumber>) -> bool {
        self.changes_when_found == Some(changes) && self.busy.is_subset(busy)
    }

    /// Makes it hold no longer: a change may be committed whose notification is under way.
    pub(crate) fn forget(&mut self) {
        self.changes_when_found = None;
    }

    /// Returns when an endpoint that is not busy next has something due.
    pub(crate) fn next(&self, busy: &BTreeSet<EndpointNumber>) -> Option<MonotonicTime> {
        let is_free = |(endpoint, _): &(&EndpointNumber, &MonotonicTime)| !busy.contains(*endpoint);
        self.by_endpoint.iter().filter(is_free).map(|(_, due_at)| *due_at).min()
    }
}

/// The turns at the next claim.
#[derive(Debug, Default)]
pub(crate) struct ClaimTurns {
    /// The tenant that was served last.
    pub(crate) served: Option<String>,
    /// Whether the next claim asks the database first, or the local queues.
    pub(crate) database_is_next: bool,
}
