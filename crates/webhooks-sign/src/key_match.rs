//! Which key matched, found without telling by time.

use subtle::{Choice, ConditionallySelectable as _};

use crate::Error;

/// The first key of a ring that matched, as far as its keys were looked at.
#[derive(Clone, Copy)]
pub(crate) struct KeyMatch {
    any: Choice,
    first: u64,
    looked_at: u64,
}

impl KeyMatch {
    /// Notes whether the next key matched.
    #[inline]
    pub(crate) fn note(&mut self, is_match: Choice) {
        self.first.conditional_assign(&self.looked_at, is_match & !self.any);
        self.any |= is_match;
        self.looked_at = self.looked_at.saturating_add(1);
    }

    /// Returns the place of the first key that matched.
    #[inline]
    pub(crate) fn key_index(self) -> Result<usize, Error> {
        let is_match = bool::from(self.any);
        usize::try_from(self.first).ok().filter(|_| is_match).ok_or(Error::NoMatch)
    }
}

impl Default for KeyMatch {
    #[inline]
    fn default() -> Self {
        Self { any: Choice::from(0), first: 0, looked_at: 0 }
    }
}
