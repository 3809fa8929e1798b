//! Records in memory, for tests and for a service that may forget.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use webhooks_core::Timestamp;

use crate::record::{
    Record, RecordChange, RecordError, RecordKind, RecordName, RecordPlace, RecordQuery,
    RecordStore,
};

type Records = BTreeMap<RecordPlace, Record>;

/// Keeps records until it is dropped.
#[derive(Debug, Default)]
pub struct MemoryRecordStore(Mutex<Records>);

impl MemoryRecordStore {
    fn records(&self) -> MutexGuard<'_, Records> {
        // A poisoned lock is used on: changes are made to a copy, which takes its place as a whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_live(record: &Record, now: Timestamp) -> bool {
    record.expires_at.is_none_or(|at| at > now)
}

impl RecordStore for MemoryRecordStore {
    fn get(
        &self,
        kind: RecordKind,
        scope: String,
        name: RecordName,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Option<Record>, RecordError>> {
        let records = self.records();
        let found = match name {
            RecordName::Key(key) => records.get(&RecordPlace { kind, scope, key }),
            RecordName::Alias(alias) => records.values().find(|record| {
                record.place.kind == kind
                    && record.place.scope == scope
                    && record.alias.as_ref() == Some(&alias)
            }),
        };
        ready(Ok(found.filter(|record| is_live(record, now)).cloned())).boxed()
    }

    fn list(&self, query: RecordQuery) -> BoxFuture<'_, Result<Vec<Record>, RecordError>> {
        let RecordQuery { kind, scope, after, is_descending, limit, now } = query;
        let records = self.records();
        let is_listed = |record: &&Record| {
            let RecordPlace { kind: of, scope: within, key } = &record.place;
            let is_behind = after
                .as_ref()
                .is_none_or(|after| if is_descending { key < after } else { key > after });
            *of == kind && *within == scope && is_behind && is_live(record, now)
        };
        let found = records.values().filter(is_listed).cloned();
        let mut page: Vec<Record> = found.collect();
        if is_descending {
            page.reverse();
        }
        page.truncate(limit);
        ready(Ok(page)).boxed()
    }

    fn write(
        &self,
        changes: Vec<RecordChange>,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<(), RecordError>> {
        let mut records = self.records();
        let mut after = records.clone();
        after.retain(|_, record| is_live(record, now));
        let changed = changes
            .into_iter()
            .enumerate()
            .try_for_each(|(number, change)| apply(&mut after, change, number));
        if changed.is_ok() {
            *records = after;
        }
        ready(changed).boxed()
    }
}

fn apply(records: &mut Records, change: RecordChange, number: usize) -> Result<(), RecordError> {
    let record = match change {
        RecordChange::Insert(record) if records.contains_key(&record.place) => {
            return Err(RecordError::Exists { change: number });
        }
        RecordChange::Insert(record) => record,
        RecordChange::Replace(record) => match records.get(&record.place) {
            Some(found) if found.version + 1 == record.version => record,
            _ => return Err(RecordError::Changed { change: number }),
        },
        RecordChange::Delete(place) => {
            records.remove(&place);
            return Ok(());
        }
    };
    let is_taken = records.values().any(|other| {
        other.place != record.place
            && other.place.kind == record.place.kind
            && other.place.scope == record.place.scope
            && other.alias.is_some()
            && other.alias == record.alias
    });
    if is_taken {
        return Err(RecordError::Exists { change: number });
    }
    records.insert(record.place.clone(), record);
    Ok(())
}
