//! ECDSA with P-256 and SHA-256, signatures in DER: SendGrid.

use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use p256::ecdsa::{Signature, VerifyingKey};
use sha2::{Digest as _, Sha256};
use subtle::Choice;

use crate::KeyError;
use crate::encoding::Encoding;
use crate::tag::Tag;

/// The start of the DER of a `SubjectPublicKeyInfo` for an uncompressed P-256 point (RFC 5480 §2), up
/// to the point.
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A public key.
#[derive(Clone)]
pub(crate) struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads a `SubjectPublicKeyInfo` in DER.
    pub(crate) fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        let point = der
            .strip_prefix(&SPKI_PREFIX)
            .ok_or(KeyError::Encoding { expected: Encoding::Base64 })?;
        VerifyingKey::from_sec1_bytes(point).map(Self).or(Err(KeyError::Curve))
    }

    /// Returns the hash of the point.
    pub(crate) fn hash(&self) -> impl AsRef<[u8]> {
        Sha256::digest(self.0.to_sec1_point(true).as_bytes())
    }

    pub(crate) fn check(&self) -> P256Check {
        P256Check { key: self.0, hash: Sha256::new() }
    }
}

/// A message that is being hashed, once for all signatures.
pub(crate) struct P256Check {
    key: VerifyingKey,
    hash: Sha256,
}

impl P256Check {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
    }

    /// Returns whether a signature fits. The time may vary: key and signatures are public.
    pub(crate) fn finish(self, tags: impl Iterator<Item = Tag>) -> Choice {
        let digest = self.hash.finalize();
        tags.fold(Choice::from(0), |found, tag| {
            let verified = Signature::from_der(tag.as_bytes())
                .and_then(|signature| self.key.verify_prehash(&digest, &signature));
            found | Choice::from(u8::from(verified.is_ok()))
        })
    }
}
