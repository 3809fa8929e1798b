//! Four bytes by which two keys are compared without being shown.

use core::fmt;
use core::iter::once;

#[cfg(feature = "ed25519")]
use sha2::{Digest as _, Sha256};

use crate::Key;
use crate::key::Kind;

impl Key {
    /// Returns four bytes by which the keys of sender and receiver are compared without being shown:
    /// equal keys have equal ones.
    ///
    /// Of an HMAC key they are the start of the HMAC of the text `webhooks-sign fingerprint`, so that
    /// any sender can compute them:
    /// `printf %s 'webhooks-sign fingerprint' | openssl dgst -sha256 -hmac "$SECRET"` where the text
    /// of the secret is the key, with `-mac HMAC -macopt hexkey:…` where it is encoded.
    ///
    /// It is for development. Who knows it can tell a right guess of a weak secret from most wrong
    /// ones, as from any signature.
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
            // A MAC of the token already.
            Kind::Token(token) => of(token.as_bytes()),
            #[cfg(feature = "ed25519")]
            Kind::Ed25519(pair) => of(&Sha256::digest(pair.public_bytes())),
            #[cfg(feature = "p256")]
            Kind::EcdsaP256(key) => of(key.hash().as_ref()),
        }
    }
}

/// Four bytes that stand for a key, shown as hexadecimal; from [`Key::fingerprint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 4]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
