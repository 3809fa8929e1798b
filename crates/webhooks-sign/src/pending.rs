//! Verification under way: headers checked, body still to come.

use core::fmt;

use subtle::Choice;

use crate::checked_headers::CheckedHeaders;
use crate::key_check::KeyCheck;
use crate::key_match::KeyMatch;
use crate::{Error, Headers, KeyRing, Verified, Verifier};

/// A webhook whose headers are in order and whose body is being hashed, once a key.
///
/// Everything that can be refused cheaply was refused before this was made.
#[must_use = "nothing is verified before `finish`"]
pub struct Pending<'s, 'h, const N: usize> {
    opened: CheckedHeaders<'s, 'h>,
    /// The same for keys of another algorithm, where there are both.
    twin: Option<CheckedHeaders<'s, 'h>>,
    /// A key's check at its place in the ring, unless nothing is listed for its algorithm.
    checks: [Option<KeyCheck>; N],
    is_by_twin: [bool; N],
}

impl<'s, 'h, const N: usize> Pending<'s, 'h, N> {
    /// Checks the headers and hashes what is signed ahead of the body.
    pub(crate) fn begin(
        verifier: Verifier<'s>,
        keys: &KeyRing<N>,
        headers: &'h (impl Headers + ?Sized),
        now: u64,
    ) -> Result<Self, Error> {
        let (first, second) = verifier.suiting(keys)?;
        let (mut opened, mut twin) = (CheckedHeaders::new(first), second.map(CheckedHeaders::new));
        let is_listed = match (opened.read(headers, now), &mut twin) {
            (Err(none @ Error::NoneListed { .. }), Some(twin)) => {
                twin.read(headers, now).map_err(|error| match error {
                    Error::NoneListed { .. } => none,
                    error => error,
                })?;
                [false, true]
            }
            (read, None) => read.map(|()| [true, false])?,
            (read, Some(twin)) => match read.and_then(|()| twin.read(headers, now)) {
                Err(Error::NoneListed { .. }) => [true, false],
                read => read.map(|()| [true, true])?,
            },
        };
        let [is_first_listed, is_twin_listed] = is_listed;
        let mut checks = [const { None }; N];
        let mut is_by_twin = [false; N];
        for ((slot, is_by_twin), key) in checks.iter_mut().zip(&mut is_by_twin).zip(keys.iter()) {
            *is_by_twin = !opened.is_for(key);
            *slot = match &twin {
                Some(twin) if *is_by_twin => is_twin_listed.then(|| twin.start(key)),
                _ => is_first_listed.then(|| opened.start(key)),
            };
        }
        Ok(Self { opened, twin, checks, is_by_twin })
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
        let Self { opened, twin, checks, is_by_twin } = self;
        let by = |is_by_twin| twin.as_ref().filter(|_| is_by_twin).unwrap_or(&opened);
        let mut matched = KeyMatch::default();
        for (check, is_by_twin) in checks.into_iter().zip(is_by_twin) {
            let is_match = check.map(|check| by(is_by_twin).finish(check));
            matched.note(is_match.unwrap_or_else(|| Choice::from(0)));
        }
        let key_index = matched.key_index()?;
        let is_by_twin = is_by_twin.get(key_index).copied().unwrap_or_default();
        Ok(by(is_by_twin).verified(key_index, ()))
    }
}

impl<'s> Verifier<'s> {
    /// Checks the headers of a webhook whose body is still to come. `now` is in Unix seconds.
    ///
    /// # Errors
    /// Every [`Error`] but a body that was changed, which [`Pending::finish`] finds.
    pub fn begin<'h, const N: usize>(
        &self,
        keys: &KeyRing<N>,
        headers: &'h (impl Headers + ?Sized),
        now: u64,
    ) -> Result<Pending<'s, 'h, N>, Error> {
        Pending::begin(*self, keys, headers, now)
    }
}

impl<const N: usize> fmt::Debug for Pending<'_, '_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}
