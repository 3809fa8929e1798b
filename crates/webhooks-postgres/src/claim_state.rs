//! The state that a claim leaves to the next one: endpoints and turns.

use std::collections::HashMap;
use std::sync::Arc;

use webhooks_registry::Registration;

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

/// The turns at the next claim.
#[derive(Debug, Default)]
pub(crate) struct ClaimTurns {
    /// Whether the next claim asks the database first, or the local queues.
    pub(crate) database_is_next: bool,
}
