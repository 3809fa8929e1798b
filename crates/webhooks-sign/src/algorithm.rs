//! The algorithms that authenticate a body.

use core::fmt;

/// The most signatures by a curve that a header may list: each costs a curve operation per key, some
/// 40 times an HMAC. A sender that rotates its key lists two.
pub(crate) const MAX_CURVE_SIGNATURES: usize = 4;

/// The way in which a body is authenticated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// HMAC (RFC 2104) with SHA-256; 32 bytes.
    #[default]
    HmacSha256,
    /// HMAC (RFC 2104) with SHA-512; 64 bytes.
    HmacSha512,
    /// HMAC (RFC 2104) with SHA-1; 20 bytes. For Twilio and Intercom, which have no other.
    #[cfg(feature = "sha1")]
    HmacSha1,
    /// Ed25519 (RFC 8032); the receiver has only the public key.
    #[cfg(feature = "ed25519")]
    Ed25519,
    /// ECDSA with P-256 and SHA-256 (FIPS 186-5), in DER; the receiver has only the public key.
    #[cfg(feature = "p256")]
    EcdsaP256,
    /// No signature: the header repeats a shared token. It proves the sender, not the body.
    Token,
}

impl Algorithm {
    /// Borrows the name; for an HMAC it is the value of `X-Webhook-Signature-Algorithm`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HmacSha256 => "hmac_sha256",
            Self::HmacSha512 => "hmac_sha512",
            #[cfg(feature = "sha1")]
            Self::HmacSha1 => "hmac_sha1",
            #[cfg(feature = "ed25519")]
            Self::Ed25519 => "ed25519",
            #[cfg(feature = "p256")]
            Self::EcdsaP256 => "ecdsa_p256_sha256",
            Self::Token => "token",
        }
    }

    /// Returns whether checking a signature costs a curve operation.
    #[inline]
    pub(crate) fn is_curve(self) -> bool {
        match self {
            Self::HmacSha256 | Self::HmacSha512 | Self::Token => false,
            #[cfg(feature = "sha1")]
            Self::HmacSha1 => false,
            #[cfg(feature = "ed25519")]
            Self::Ed25519 => true,
            #[cfg(feature = "p256")]
            Self::EcdsaP256 => true,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
