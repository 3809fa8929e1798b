//! The key that matched, found in a time that does not depend on it.

use subtle::{Choice, ConditionallySelectable as _};

use crate::Error;

/// The first key of a ring that matched, among those that were checked so far.
#[derive(Clone, Copy)]
pub(crate) struct KeyMatch {
    any: Choice,
    first: u64,
    checked: u64,
}

impl KeyMatch {
    /// Notes whether the next key matched.
    #[inline]
    pub(crate) fn note(&mut self, is_match: Choice) {
        self.first.conditional_assign(&self.checked, is_match & !self.any);
        self.any |= is_match;
        self.checked = self.checked.saturating_add(1);
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
        Self { any: Choice::from(0), first: 0, checked: 0 }
    }
}
