//! The jobs that run, and the leases on them: in memory, since one process owns the file.

use std::collections::BTreeMap;

use webhooks_core::Timestamp;
use webhooks_dispatch::clock::MonotonicTime;
use webhooks_dispatch::jobs::JobId;

/// The jobs that run or are leased. Without one, looking for work costs nothing.
#[derive(Debug, Default)]
pub(crate) struct JobLeases {
    jobs: BTreeMap<JobId, Entry>,
    last_token: u64,
}

#[derive(Debug)]
struct Entry {
    is_running: bool,
    updated_at: Timestamp,
    /// The token of the lease, and its end.
    lease: Option<(u64, MonotonicTime)>,
    /// Set while the store writes the progress of the lease: then it does not end.
    is_pinned: bool,
}

impl JobLeases {
    /// Notes the state of a job, as its row has it now.
    pub(crate) fn set(&mut self, id: JobId, is_running: bool, updated_at: Timestamp) {
        let entry = self.jobs.entry(id).or_insert(Entry {
            is_running,
            updated_at,
            lease: None,
            is_pinned: false,
        });
        (entry.is_running, entry.updated_at) = (is_running, updated_at);
        self.forget(id);
    }

    /// Leases the job that runs, is free, and waits longest; returns it with the token.
    pub(crate) fn lease(
        &mut self,
        now: MonotonicTime,
        until: MonotonicTime,
    ) -> Option<(JobId, u64)> {
        let is_free = |entry: &Entry| {
            let has_ended = entry.lease.is_none_or(|(_, until)| until <= now);
            entry.is_running && !entry.is_pinned && has_ended
        };
        let free = self.jobs.iter_mut().filter(|(_, entry)| is_free(entry));
        let (id, entry) = free.min_by_key(|(_, entry)| entry.updated_at)?;
        self.last_token += 1;
        entry.lease = Some((self.last_token, until));
        Some((*id, self.last_token))
    }

    /// Pins a lease, so that no other begins before its progress is committed; returns whether it holds.
    pub(crate) fn pin(&mut self, id: JobId, token: u64) -> bool {
        let entry = self.jobs.get_mut(&id);
        let held = entry.filter(|entry| entry.lease.is_some_and(|(found, _)| found == token));
        held.is_some_and(|entry| !std::mem::replace(&mut entry.is_pinned, true))
    }

    /// Undoes [`pin`](Self::pin).
    pub(crate) fn unpin(&mut self, id: JobId) {
        if let Some(entry) = self.jobs.get_mut(&id) {
            entry.is_pinned = false;
        }
    }

    /// Extends a lease, or ends it if `until` is `None`.
    pub(crate) fn extend(&mut self, id: JobId, token: u64, until: Option<MonotonicTime>) {
        if let Some(entry) = self.jobs.get_mut(&id)
            && entry.lease.is_some_and(|(found, _)| found == token)
        {
            entry.lease = until.map(|until| (token, until));
        }
        self.forget(id);
    }

    /// Forgets a job that neither runs nor is leased.
    fn forget(&mut self, id: JobId) {
        if self.jobs.get(&id).is_some_and(|entry| !entry.is_running && entry.lease.is_none()) {
            self.jobs.remove(&id);
        }
    }
}
