//! The seen store in memory, which forgets the oldest ids first.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use webhooks_core::Timestamp;

use super::{BeginOutcome, SeenClaim, SeenError, SeenId, SeenStore};

/// How many ids are remembered by default. They take about 20 MB. At 100 webhooks per second they cover
/// more than the 10 minutes in which a replay passes verification.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(100_000).unwrap();

/// Remembers ids in this process alone, up to its capacity. Clones are one store.
///
/// When it is full, it forgets the id that was done first, of whatever scope and however long it was
/// to be remembered. So one busy tenant can make it forget the ids of another: choose a capacity of at
/// least the number of webhooks that arrive while one of them may be repeated. After a restart it is
/// empty.
#[derive(Clone)]
pub struct MemorySeenStore {
    ids: Arc<Mutex<Ids>>,
    capacity: NonZeroUsize,
}

struct Ids {
    claimed: HashMap<SeenId, Timestamp>,
    done: LruCache<SeenId, Timestamp>,
}

impl MemorySeenStore {
    /// Returns a store with a capacity of 100,000 ids.
    pub fn new() -> Self {
        Self::with_capacity(CAPACITY)
    }

    /// Returns a store that remembers `capacity` ids that are done, and as many that are claimed.
    pub fn with_capacity(capacity: NonZeroUsize) -> Self {
        let ids = Ids { claimed: HashMap::new(), done: LruCache::new(capacity) };
        Self { ids: Arc::new(Mutex::new(ids)), capacity }
    }

    fn ids(&self) -> MutexGuard<'_, Ids> {
        // A poisoned lock is used on: no call can panic halfway through a change of the maps.
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemorySeenStore {
    fn default() -> Self {
        Self::new()
    }
}

impl SeenStore for MemorySeenStore {
    async fn begin(&self, claim: SeenClaim, now: Timestamp) -> Result<BeginOutcome, SeenError> {
        let mut ids = self.ids();
        if ids.done.peek(&claim.id).is_some_and(|until| *until > now) {
            return Ok(BeginOutcome::Done);
        }
        if let Some(&until) = ids.claimed.get(&claim.id)
            && until > now
        {
            return Ok(BeginOutcome::InProgress { until });
        }
        // Claims that ended without a call are removed only when there is no room, since that walks
        // the whole map.
        let capacity = self.capacity.get();
        if ids.claimed.len() >= capacity {
            ids.claimed.retain(|_, until| *until > now);
        }
        if ids.claimed.len() >= capacity {
            return Err(SeenError::Full { capacity });
        }
        ids.claimed.insert(claim.id, claim.until);
        Ok(BeginOutcome::Claimed)
    }

    async fn done(&self, id: SeenId, until: Timestamp) -> Result<(), SeenError> {
        let mut ids = self.ids();
        ids.claimed.remove(&id);
        ids.done.put(id, until);
        Ok(())
    }

    async fn release(&self, claim: SeenClaim) -> Result<(), SeenError> {
        let mut ids = self.ids();
        if ids.claimed.get(&claim.id) == Some(&claim.until) {
            ids.claimed.remove(&claim.id);
        }
        Ok(())
    }
}

impl fmt::Debug for MemorySeenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySeenStore").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    fn claim(id: &str) -> SeenClaim {
        SeenClaim { id: SeenId::new("standard", id), until: at(60) }
    }

    #[tokio::test]
    async fn the_id_done_first_is_forgotten_first() {
        let store = MemorySeenStore::with_capacity(NonZeroUsize::new(2).unwrap());
        for id in ["a", "b", "c"] {
            store.done(SeenId::new("standard", id), at(100)).await.unwrap();
        }
        assert_eq!(store.begin(claim("b"), at(1)).await.unwrap(), BeginOutcome::Done);
        assert_eq!(store.begin(claim("c"), at(1)).await.unwrap(), BeginOutcome::Done);
        assert_eq!(store.begin(claim("a"), at(1)).await.unwrap(), BeginOutcome::Claimed);
    }

    #[tokio::test]
    async fn a_claim_is_never_forgotten_for_want_of_room() {
        let store = MemorySeenStore::with_capacity(NonZeroUsize::new(1).unwrap());
        assert_eq!(store.begin(claim("a"), at(1)).await.unwrap(), BeginOutcome::Claimed);
        let full = store.begin(claim("b"), at(1)).await;
        assert!(matches!(full, Err(SeenError::Full { capacity: 1 })), "{full:?}");
        // Claims that have ended make room.
        let later = SeenClaim { until: at(120), ..claim("b") };
        assert_eq!(store.begin(later, at(60)).await.unwrap(), BeginOutcome::Claimed);
    }
}
