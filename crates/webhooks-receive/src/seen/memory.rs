//! Ids in memory, the oldest forgotten first.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use webhooks_core::Timestamp;

use super::{BeginOutcome, SeenClaim, SeenError, SeenId, SeenStore};

/// How many ids are remembered unless set: some 20 MB, and at 100 webhooks a second more than the
/// 10 minutes in which a replay passes verification.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(100_000).unwrap();

/// Remembers ids in this process alone, and as many as it may. Clones are one store.
///
/// When it is full, the id done first is forgotten, whatever its time and whose it is, so that one
/// busy tenant can make it forget the ids of another: choose a capacity for as
/// many webhooks as come while one may be repeated. After a restart nothing is remembered.
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
    /// Returns a store of 100,000 ids.
    pub fn new() -> Self {
        Self::with_capacity(CAPACITY)
    }

    /// Returns a store of so many ids, and as many webhooks being handled.
    pub fn with_capacity(capacity: NonZeroUsize) -> Self {
        let ids = Ids { claimed: HashMap::new(), done: LruCache::new(capacity) };
        Self { ids: Arc::new(Mutex::new(ids)), capacity }
    }

    fn ids(&self) -> MutexGuard<'_, Ids> {
        // No call leaves the maps half changed, so what panicked elsewhere does no harm here.
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
        // Those that have ended make room.
        let later = SeenClaim { until: at(120), ..claim("b") };
        assert_eq!(store.begin(later, at(60)).await.unwrap(), BeginOutcome::Claimed);
    }
}
