//! Records that were read a moment ago, for stores whose writes all go through this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use webhooks_core::Timestamp;

use crate::record::{Record, RecordKind, RecordName};

/// The most records, and the most bytes of the body of each: together a few MiB.
const MAX_RECORDS: usize = 1_024;
const MAX_BODY: usize = 4_096;

/// How long a record is served. Writes empty the cache at once: this is for those that are made past this
/// process, by hand.
const MAX_AGE: Duration = Duration::from_secs(1);

/// The kind and scope of a record, and the name by which it was read.
pub(crate) type CacheKey = (RecordKind, String, RecordName);

/// The records that were read since the last write. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct RecordCache(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The records, and the times at which they were read.
    records: HashMap<CacheKey, (Timestamp, Record)>,
    /// The writes under way, during which nothing is served or added.
    writes: usize,
    /// Grows at both ends of a write, so that what was read before its commit is not added after it.
    generation: u64,
}

/// A write under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct WriteGuard(RecordCache);

impl Drop for WriteGuard {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.writes -= 1;
        state.generation += 1;
    }
}

impl RecordCache {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets all records. The guard must be dropped when the write has been committed or undone, even if
    /// nobody waits for it any more.
    pub(crate) fn begin_write(&self) -> WriteGuard {
        let mut state = self.state();
        state.records.clear();
        state.writes += 1;
        state.generation += 1;
        WriteGuard(self.clone())
    }

    /// Returns a record that was read a moment ago and has not expired.
    pub(crate) fn get(&self, key: &CacheKey, now: Timestamp) -> Option<Record> {
        let state = self.state();
        let (read_at, record) = state.records.get(key)?;
        let is_recent = *read_at <= now && now.saturating_since(*read_at) < MAX_AGE;
        let is_there = record.expires_at.is_none_or(|at| at > now);
        (is_recent && is_there).then(|| record.clone())
    }

    /// Returns what [`add`](Self::add) must be given, before a record is read.
    pub(crate) fn begin_read(&self) -> u64 {
        self.state().generation
    }

    /// Adds a record, unless a write began or ended since the read began.
    pub(crate) fn add(&self, generation: u64, key: CacheKey, record: &Record, now: Timestamp) {
        let mut state = self.state();
        if state.generation != generation || state.writes > 0 || record.body.len() > MAX_BODY {
            return;
        }
        if state.records.len() >= MAX_RECORDS {
            state.records.clear();
        }
        state.records.insert(key, (now, record.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RecordPlace;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_unix_seconds(1_000_000 + second)
    }

    fn record(expires_at: Option<Timestamp>) -> (CacheKey, Record) {
        let (kind, scope, key) = (RecordKind::ApiKey, String::new(), "key".to_owned());
        let name = RecordName::Key(key.clone());
        let record = Record {
            place: RecordPlace { kind, scope: scope.clone(), key },
            alias: None,
            version: 1,
            created_at: at(0),
            updated_at: at(0),
            expires_at,
            body: "{}".to_owned(),
        };
        ((kind, scope, name), record)
    }

    #[test]
    fn a_record_is_served_until_it_is_old_or_expires() {
        let (key, lasting) = record(None);
        let cache = RecordCache::default();
        assert_eq!(cache.get(&key, at(0)), None);
        cache.add(cache.begin_read(), key.clone(), &lasting, at(0));
        assert_eq!(cache.get(&key, at(0)), Some(lasting));
        assert_eq!(cache.get(&key, at(1)), None, "it is old");
        let (key, expiring) = record(Some(at(5)));
        cache.add(cache.begin_read(), key.clone(), &expiring, at(5));
        assert_eq!(cache.get(&key, at(5)), None, "it has expired");
    }

    #[test]
    fn a_clock_that_steps_back_makes_no_record_last() {
        let (key, record) = record(None);
        let cache = RecordCache::default();
        cache.add(cache.begin_read(), key.clone(), &record, at(1_000));
        assert_eq!(cache.get(&key, at(0)), None);
    }

    #[test]
    fn nothing_that_was_read_before_or_during_a_write_is_served_after_it() {
        let (key, record) = record(None);
        let cache = RecordCache::default();
        cache.add(cache.begin_read(), key.clone(), &record, at(0));
        let before = cache.begin_read();
        let write = cache.begin_write();
        assert_eq!(cache.get(&key, at(0)), None, "it may change now");
        let during = cache.begin_read();
        cache.add(during, key.clone(), &record, at(0));
        assert_eq!(cache.get(&key, at(0)), None, "it may have been read before the commit");
        drop(write);
        for generation in [before, during] {
            cache.add(generation, key.clone(), &record, at(0));
        }
        assert_eq!(cache.get(&key, at(0)), None);
        cache.add(cache.begin_read(), key.clone(), &record, at(0));
        assert_eq!(cache.get(&key, at(0)), Some(record));
    }

    #[test]
    fn the_cache_is_bounded() {
        let (_, record) = record(None);
        let cache = RecordCache::default();
        for number in 0..3 * MAX_RECORDS {
            let key = (RecordKind::ApiKey, String::new(), RecordName::Key(number.to_string()));
            cache.add(cache.begin_read(), key, &record, at(0));
            assert!(cache.state().records.len() <= MAX_RECORDS);
        }
        let large = Record { body: "a".repeat(MAX_BODY + 1), ..record };
        let key = (RecordKind::ApiKey, String::new(), RecordName::Key("large".to_owned()));
        cache.add(cache.begin_read(), key.clone(), &large, at(0));
        assert_eq!(cache.get(&key, at(0)), None);
    }
}
