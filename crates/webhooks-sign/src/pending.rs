//! Verification under way: headers checked, body still to come.

use core::fmt;

use subtle::{Choice, ConditionallySelectable as _};

use crate::headers::Headers;
use crate::mac::Mac;
use crate::scheme::{Envelope, Scheme};
use crate::{Algorithm, Error, KeyRing, Tolerance, Verified};

/// A webhook whose headers are in order and whose body is being hashed, once a key.
///
/// Everything that can be refused cheaply was refused before this was made.
#[must_use = "nothing is verified before `finish`"]
pub struct Pending<'h, const N: usize> {
    scheme: &'static Scheme,
    envelope: Envelope<'h>,
    macs: [Option<Mac>; N],
}

impl<'h, const N: usize> Pending<'h, N> {
    /// Checks the headers and hashes what is signed ahead of the body.
    ///
    /// With `algorithm`, every key must be for it; without, the first key says which.
    pub(crate) fn begin(
        scheme: &'static Scheme,
        algorithm: Option<Algorithm>,
        keys: &KeyRing<N>,
        headers: &'h (impl Headers + ?Sized),
        now: u64,
        tolerance: Tolerance,
    ) -> Result<Self, Error> {
        let first = keys.iter().next().ok_or(Error::UnsuitableKey)?;
        let algorithm = algorithm.unwrap_or_else(|| first.algorithm());
        if keys.iter().any(|key| key.algorithm() != algorithm) {
            return Err(Error::UnsuitableKey);
        }
        let envelope = scheme.open(headers, algorithm.tag_len(), now, tolerance)?;
        let mut macs = [const { None }; N];
        for (slot, key) in macs.iter_mut().zip(keys.iter()) {
            let mac = slot.insert(key.start());
            envelope.start(scheme, mac);
        }
        Ok(Self { scheme, envelope, macs })
    }

    /// Hashes the next bytes of the body. How the body is cut makes no difference.
    pub fn update(&mut self, chunk: &[u8]) {
        for mac in self.macs.iter_mut().flatten() {
            mac.update(chunk);
        }
    }

    /// Compares every listed signature with every key, in a time that does not tell which matched.
    ///
    /// # Errors
    /// [`Error::NoMatch`] when none does.
    pub fn finish(self) -> Result<Verified<'h, ()>, Error> {
        let mut is_match = Choice::from(0);
        let mut key_index = 0_u64;
        for (index, mac) in (0..).zip(self.macs.into_iter().flatten()) {
            let computed = mac.finish();
            let of_this_key = (self.envelope.listed.iter())
                .fold(Choice::from(0), |any, tag| any | tag.matches(&computed));
            key_index.conditional_assign(&index, of_this_key & !is_match);
            is_match |= of_this_key;
        }
        if !bool::from(is_match) {
            return Err(Error::NoMatch);
        }
        Ok(Verified {
            id: self.envelope.id,
            timestamp: self.envelope.timestamp,
            key_index: usize::try_from(key_index).unwrap_or_default(),
            scheme: self.scheme.name,
            body: (),
        })
    }
}

impl<const N: usize> fmt::Debug for Pending<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("scheme", &self.scheme.name).finish_non_exhaustive()
    }
}
