//! The settings of a verification: a scheme, and the receiver's own values.

use core::fmt;

use crate::scheme::{Content, Part, Scheme};
use crate::{Error, Key, KeyRing, Tolerance};

/// A scheme together with the receiver's own values: a tolerance, and the method and the URL for schemes
/// that sign them.
///
/// # Example
/// ```
/// use webhooks_sign::providers::SQUARE;
/// use webhooks_sign::{Envelope, KeyRing};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let key = SQUARE.key("signature-key")?;
/// // Square signs the URL that it was given: take it from your settings, not from the request.
/// let url = "https://example.com/webhook";
/// let signature = SQUARE.sign(&key, &Envelope { url, ..Envelope::default() }, b"{}")?;
/// let headers = [("x-square-hmacsha256-signature", signature.as_str())];
/// let keys = KeyRing::from(key);
/// assert!(SQUARE.verifier().url(url).verify(&keys, &headers, b"{}", 0).is_ok());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy)]
pub struct Verifier<'s> {
    pub(crate) scheme: &'s Scheme,
    pub(crate) tolerance: Tolerance,
    pub(crate) method: &'s str,
    pub(crate) url: &'s str,
    /// The content that the caller passes.
    pub(crate) content: Content,
}

impl<'s> Verifier<'s> {
    pub(crate) const fn new(scheme: &'s Scheme) -> Self {
        let (method, url, content) = ("", "", Content::Body);
        Self { scheme, tolerance: scheme.tolerance, method, url, content }
    }

    /// Sets the tolerance for the difference between the timestamp and `now`. It has no effect if the
    /// scheme signs no timestamp.
    #[must_use]
    pub const fn tolerance(self, tolerance: Tolerance) -> Self {
        Self { tolerance, ..self }
    }

    /// Sets the request's method, which some schemes sign.
    #[must_use]
    pub const fn method(self, method: &'s str) -> Self {
        Self { method, ..self }
    }

    /// Sets the URL that the sender was given, which some schemes sign.
    #[must_use]
    pub const fn url(self, url: &'s str) -> Self {
        Self { url, ..self }
    }

    /// Returns whether there are keys, and all are for this scheme and not for its twin.
    #[inline]
    pub(crate) fn suits_all<const N: usize>(&self, keys: &KeyRing<N>) -> bool {
        let mut algorithms = keys.iter().map(Key::algorithm);
        algorithms.next() == Some(self.scheme.algorithm)
            && algorithms.all(|algorithm| algorithm == self.scheme.algorithm)
    }

    /// Returns the verifiers for which there are keys: that of this scheme, of its twin, or both.
    pub(crate) fn suiting<const N: usize>(
        &self,
        keys: &KeyRing<N>,
    ) -> Result<(Self, Option<Self>), Error> {
        let is_for = |scheme: &Scheme, key: &Key| key.algorithm() == scheme.algorithm;
        if self.suits_all(keys) {
            return Ok((*self, None));
        }
        let twin = self.scheme.twin.ok_or(Error::UnsuitableKey)?;
        let by_twin = Self { scheme: twin, ..*self };
        let is_ours = keys.iter().any(|key| is_for(self.scheme, key));
        let is_twins = keys.iter().any(|key| is_for(twin, key));
        let is_either = keys.iter().all(|key| is_for(self.scheme, key) || is_for(twin, key));
        match (is_ours, is_twins) {
            _ if !is_either => Err(Error::UnsuitableKey),
            (true, true) => Ok((*self, Some(by_twin))),
            (false, true) => Ok((by_twin, None)),
            _ => Err(Error::UnsuitableKey),
        }
    }

    /// Refuses a verifier that lacks a part, or is used for another content than the scheme's.
    #[inline]
    pub(crate) fn check_given(&self) -> Result<(), Error> {
        self.scheme.parts.iter().try_for_each(|part| match part {
            Part::Method if self.method.is_empty() => Err(Error::MissingPart),
            Part::Url if self.url.is_empty() => Err(Error::MissingPart),
            part if part.content().is_some_and(|content| content != self.content) => {
                Err(Error::OtherContent)
            }
            _ => Ok(()),
        })
    }
}

impl Scheme {
    /// Returns a verifier, to set a tolerance, or the method and the URL if they are signed.
    pub const fn verifier(&self) -> Verifier<'_> {
        Verifier::new(self)
    }
}

impl fmt::Debug for Verifier<'_> {
    /// Leaves out the URL, which may hold a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("scheme", &self.scheme.name)
            .field("tolerance", &self.tolerance)
            .field("method", &self.method)
            .field("url_bytes", &self.url.len())
            .finish()
    }
}
