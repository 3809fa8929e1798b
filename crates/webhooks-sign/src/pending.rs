//! Verification under way: headers checked, body still to come.

use core::fmt;

use crate::check::Check;
use crate::envelope::Opened;
use crate::matched::Matched;
use crate::{Error, Headers, KeyRing, Verified, Verifier};

/// A webhook whose headers are in order and whose body is being hashed, once a key.
///
/// Everything that can be refused cheaply was refused before this was made.
#[must_use = "nothing is verified before `finish`"]
pub struct Pending<'s, 'h, const N: usize> {
    opened: Opened<'s, 'h>,
    checks: [Option<Check>; N],
}

impl<'s, 'h, const N: usize> Pending<'s, 'h, N> {
    /// Checks the headers and hashes what is signed ahead of the body.
    pub(crate) fn begin(
        verifier: Verifier<'s>,
        keys: &KeyRing<N>,
        headers: &'h (impl Headers + ?Sized),
        now: u64,
    ) -> Result<Self, Error> {
        let mut opened = Opened::new(verifier);
        opened.read(keys, headers, now)?;
        let mut checks = [const { None }; N];
        for (slot, key) in checks.iter_mut().zip(keys.iter()) {
            *slot = Some(opened.start(key));
        }
        Ok(Self { opened, checks })
    }

    /// Hashes the next bytes of the body. How the body is cut makes no difference.
    pub fn update(&mut self, chunk: &[u8]) {
        for check in self.checks.iter_mut().flatten() {
            check.update(chunk);
        }
    }

    /// Compares every listed signature with every key, in a time that does not tell which matched.
    ///
    /// # Errors
    /// [`Error::NoMatch`] when none does.
    pub fn finish(self) -> Result<Verified<'h, ()>, Error> {
        let mut matched = Matched::default();
        for check in self.checks.into_iter().flatten() {
            matched.note(self.opened.finish(check));
        }
        Ok(self.opened.verified(matched.key_index()?, ()))
    }
}

impl<const N: usize> fmt::Debug for Pending<'_, '_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}
