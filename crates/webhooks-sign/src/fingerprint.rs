//! Fingerprints of keys, so that two can be compared without being shown.

use core::fmt;
use core::iter::once;

#[cfg(feature = "ed25519")]
use sha2::{Digest as _, Sha256};

use crate::Key;
use crate::key::Kind;

impl Key {
    /// Returns four bytes for comparing the keys of sender and receiver without showing them: equal keys
    /// have equal ones.
    ///
    /// For an HMAC key they are the start of the HMAC of the text `webhooks-sign fingerprint`, so that
    /// any sender can compute them:
    /// `printf %s 'webhooks-sign fingerprint' | openssl dgst -sha256 -hmac "$SECRET"` where the text
    /// of the secret is the key, with `-mac HMAC -macopt hexkey:…` where it is encoded.
    ///
    /// Use it in development. Anybody who knows it can tell a right guess of a weak secret from most
    /// wrong ones, as with any signature.
    ///
    /// # Example
    /// ```
    /// use webhooks_sign::Key;
    ///
    /// let key = Key::standard(concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))?;
    /// assert_eq!(key.fingerprint().to_string(), "d05ebde6");
    /// # Ok::<(), webhooks_sign::KeyError>(())
    /// ```
    pub fn fingerprint(&self) -> Fingerprint {
        let of = |bytes: &[u8]| Fingerprint(bytes.first_chunk().copied().unwrap_or_default());
        match &self.kind {
            Kind::Mac(mac) => mac.of(once(&b"webhooks-sign fingerprint"[..]), of),
            // This is a MAC of the token already.
            Kind::Token(token) => of(token.as_bytes()),
            #[cfg(feature = "ed25519")]
            Kind::Ed25519(pair) => of(&Sha256::digest(pair.public_bytes())),
            #[cfg(feature = "p256")]
            Kind::EcdsaP256(key) => of(key.hash().as_ref()),
        }
    }
}

/// Four bytes that identify a key, shown as hexadecimal; returned by [`Key::fingerprint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 4]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
