//! Verifying a webhook whose body is in memory.

use crate::checked_headers::CheckedHeaders;
use crate::scheme::Scheme;
use crate::{Error, Headers, KeyRing, Verified, Verifier};

impl Scheme {
    /// Verifies a webhook whose body is in memory. `now` is in Unix seconds.
    ///
    /// # Errors
    /// [`Error`] says what is wrong, and whether it is malformed, stale or forged.
    #[inline]
    pub fn verify<'h, 'b, const N: usize>(
        &self,
        keys: &KeyRing<N>,
        headers: &'h (impl Headers + ?Sized),
        body: &'b [u8],
        now: u64,
    ) -> Result<Verified<'h, &'b [u8]>, Error> {
        self.verifier().verify(keys, headers, body, now)
    }
}

impl Verifier<'_> {
    /// Verifies a webhook whose body is in memory. `now` is in Unix seconds.
    ///
    /// # Errors
    /// [`Error`] says what is wrong, and whether it is malformed, stale or forged.
    #[inline]
    pub fn verify<'h, 'b, const N: usize>(
        &self,
        keys: &KeyRing<N>,
        headers: &'h (impl Headers + ?Sized),
        body: &'b [u8],
        now: u64,
    ) -> Result<Verified<'h, &'b [u8]>, Error> {
        if !self.suits_all(keys) {
            let mut pending = self.begin(keys, headers, now)?;
            pending.update(body);
            return Ok(pending.finish()?.with_body(body));
        }
        let mut checked = CheckedHeaders::new(*self);
        checked.read(headers, now)?;
        let key_index = checked.find_key(keys, body)?;
        Ok(checked.verified(key_index, body))
    }

    /// Verifies a webhook whose body is in memory, by the system's clock.
    ///
    /// # Errors
    /// [`Error`] says what is wrong, and whether it is malformed, stale or forged.
    #[cfg(feature = "std")]
    #[expect(clippy::disallowed_methods, reason = "the one convenience that reads the clock")]
    pub fn verify_now<'h, 'b, const N: usize>(
        &self,
        keys: &KeyRing<N>,
        headers: &'h (impl Headers + ?Sized),
        body: &'b [u8],
    ) -> Result<Verified<'h, &'b [u8]>, Error> {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        // A clock before 1970 finds every timestamp too new.
        self.verify(keys, headers, body, since.map_or(0, |since| since.as_secs()))
    }
}
