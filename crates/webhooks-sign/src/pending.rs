//! Verifying a webhook whose body comes in chunks.

use core::fmt;

use subtle::Choice;

use crate::checked_headers::CheckedHeaders;
use crate::key_check::KeyCheck;
use crate::key_match::KeyMatch;
use crate::{Error, Headers, KeyRing, Verified, Verifier};

/// A webhook whose headers were checked and whose body is being hashed, once for each key.
///
/// All that can be refused without the body was refused before, by [`Verifier::begin`].
#[must_use = "nothing is verified before `finish`"]
pub struct Pending<'s, 'h, const N: usize> {
    checked: CheckedHeaders<'s, 'h>,
    /// The same for keys of the twin's algorithm, if the ring has keys of both.
    twin: Option<CheckedHeaders<'s, 'h>>,
    /// The check of each key at its index in the ring; `None` if the header lists no signature for the
    /// key's algorithm.
    checks: [Option<KeyCheck>; N],
    is_by_twin: [bool; N],
}

impl<'s, 'h, const N: usize> Pending<'s, 'h, N> {
    /// Checks the headers and hashes the parts before the body.
    pub(crate) fn begin(
        verifier: Verifier<'s>,
        keys: &KeyRing<N>,
        headers: &'h (impl Headers + ?Sized),
        now: u64,
    ) -> Result<Self, Error> {
        let (first, second) = verifier.suiting(keys)?;
        let (mut checked, mut twin) = (CheckedHeaders::new(first), second.map(CheckedHeaders::new));
        // A header needs signatures for one of the two algorithms. If it has none for either, the error
        // names the form of the first.
        let is_listed = match (checked.read(headers, now), &mut twin) {
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
            *is_by_twin = !checked.is_for(key);
            *slot = match &twin {
                Some(twin) if *is_by_twin => is_twin_listed.then(|| twin.start(key)),
                _ => is_first_listed.then(|| checked.start(key)),
            };
        }
        Ok(Self { checked, twin, checks, is_by_twin })
    }

    /// Hashes the next bytes of the body. The sizes of the chunks make no difference.
    pub fn update(&mut self, chunk: &[u8]) {
        for check in self.checks.iter_mut().flatten() {
            check.update(chunk);
        }
    }

    /// Compares every listed signature with every key. The time does not depend on which one matches.
    ///
    /// # Errors
    /// [`Error::NoMatch`] when none does.
    pub fn finish(self) -> Result<Verified<'h, ()>, Error> {
        let Self { checked, twin, checks, is_by_twin } = self;
        let by = |is_by_twin| twin.as_ref().filter(|_| is_by_twin).unwrap_or(&checked);
        let mut matched = KeyMatch::default();
        for (check, is_by_twin) in checks.into_iter().zip(is_by_twin) {
            // A key without a check is noted too: the index counts all keys before the match.
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
    /// Every [`Error`] except [`Error::NoMatch`], which [`Pending::finish`] returns.
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
