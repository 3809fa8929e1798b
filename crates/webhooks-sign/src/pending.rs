//! Verification under way: headers checked, body still to come.

use core::fmt;

use subtle::{Choice, ConditionallySelectable as _};

use crate::check::Check;
use crate::envelope::{Envelope, Opened};
use crate::scheme::Part;
use crate::{Error, Headers, Key, KeyRing, Verified, Verifier};

/// A webhook whose headers are in order and whose body is being hashed, once a key.
///
/// Everything that can be refused cheaply was refused before this was made.
#[must_use = "nothing is verified before `finish`"]
pub struct Pending<'s, 'h, const N: usize> {
    verifier: Verifier<'s>,
    opened: Opened<'h>,
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
        let scheme = verifier.scheme;
        let is_suitable = |key: &Key| key.algorithm() == scheme.algorithm;
        if keys.iter().next().is_none() || !keys.iter().all(is_suitable) {
            return Err(Error::UnsuitableKey);
        }
        let is_missing = |part, value: &str| scheme.signs(part) && value.is_empty();
        if is_missing(Part::Method, verifier.method) || is_missing(Part::Url, verifier.url) {
            return Err(Error::MissingPart);
        }
        let opened = scheme.open(headers)?;
        if let Some(timestamp) = opened.timestamp {
            verifier.tolerance.check(timestamp, now)?;
        }
        let mut checks = [const { None }; N];
        for (slot, key) in checks.iter_mut().zip(keys.iter()) {
            *slot = Some(Check::new(key, &opened.listed)?);
        }
        let mut pending = Self { verifier, opened, checks };
        pending.update_parts(scheme.around_body().0);
        Ok(pending)
    }

    /// Hashes the next bytes of the body. How the body is cut makes no difference.
    pub fn update(&mut self, chunk: &[u8]) {
        for check in self.checks.iter_mut().flatten() {
            check.update(chunk);
        }
    }

    fn update_parts(&mut self, parts: &[Part]) {
        let Verifier { method, url, .. } = self.verifier;
        let id = self.opened.id.unwrap_or_default();
        let envelope = Envelope { id, timestamp: self.opened.timestamp_text, method, url };
        for part in parts {
            self.update(envelope.part(*part));
        }
    }

    /// Compares every listed signature with every key, in a time that does not tell which matched.
    ///
    /// # Errors
    /// [`Error::NoMatch`] when none does.
    pub fn finish(mut self) -> Result<Verified<'h, ()>, Error> {
        self.update_parts(self.verifier.scheme.around_body().1);
        let mut is_match = Choice::from(0);
        let mut key_index = 0_u64;
        for (index, check) in (0..).zip(self.checks.into_iter().flatten()) {
            let of_this_key = check.finish(&self.opened.listed);
            key_index.conditional_assign(&index, of_this_key & !is_match);
            is_match |= of_this_key;
        }
        if !bool::from(is_match) {
            return Err(Error::NoMatch);
        }
        Ok(Verified {
            id: self.opened.id,
            timestamp: self.opened.timestamp,
            key_index: usize::try_from(key_index).unwrap_or_default(),
            scheme: self.verifier.scheme.name,
            body: (),
        })
    }
}

impl<const N: usize> fmt::Debug for Pending<'_, '_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.verifier.scheme.name;
        f.debug_struct("Pending").field("scheme", &scheme).finish_non_exhaustive()
    }
}
