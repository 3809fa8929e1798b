//! The MAC algorithms.

use core::fmt;

/// A keyed hash by which a body is signed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// HMAC (RFC 2104) with SHA-256; 32 bytes.
    #[default]
    HmacSha256,
    /// HMAC (RFC 2104) with SHA-512; 64 bytes.
    HmacSha512,
}

impl Algorithm {
    /// Borrows the name that `X-Webhook-Signature-Algorithm` carries.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HmacSha256 => "hmac_sha256",
            Self::HmacSha512 => "hmac_sha512",
        }
    }

    /// Returns the length of a whole MAC in bytes. Shorter ones are never accepted.
    pub(crate) fn tag_len(self) -> usize {
        match self {
            Self::HmacSha256 => 32,
            Self::HmacSha512 => 64,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
