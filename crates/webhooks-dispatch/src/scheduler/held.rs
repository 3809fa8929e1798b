//! The claims of a worker, with the ends of their leases and the bytes of their bodies.

use std::collections::BTreeMap;

use super::{Claim, MonotonicTime};

#[derive(Debug, Default)]
pub(super) struct Held {
    claims: BTreeMap<Claim, (MonotonicTime, usize)>,
    bytes: usize,
}

impl Held {
    /// Returns the bytes of all bodies.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn contains(&self, claim: &Claim) -> bool {
        self.claims.contains_key(claim)
    }

    pub(super) fn lease_end(&self, claim: &Claim) -> Option<MonotonicTime> {
        self.claims.get(claim).map(|(lease_end, _)| *lease_end)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Claim, MonotonicTime)> {
        self.claims.iter().map(|(claim, (lease_end, _))| (*claim, *lease_end))
    }

    pub(super) fn insert(&mut self, claim: Claim, lease_end: MonotonicTime, bytes: usize) {
        self.remove(&claim);
        self.claims.insert(claim, (lease_end, bytes));
        self.bytes += bytes;
    }

    pub(super) fn remove(&mut self, claim: &Claim) {
        if let Some((_, bytes)) = self.claims.remove(claim) {
            self.bytes -= bytes;
        }
    }

    /// Notes that the lease of a claim lasts until `lease_end`, if that is later.
    pub(super) fn extend(&mut self, claim: &Claim, lease_end: MonotonicTime) {
        if let Some((before, _)) = self.claims.get_mut(claim) {
            *before = lease_end.max(*before);
        }
    }

    pub(super) fn retain(&mut self, is_kept: impl Fn(&Claim) -> bool) {
        self.claims.retain(|claim, _| is_kept(claim));
        self.bytes = self.claims.values().map(|(_, bytes)| bytes).sum();
    }
}
