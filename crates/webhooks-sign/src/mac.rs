//! The running and the finished MAC: the only file that names hmac, sha2 and their types.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Sha256, Sha512};
use subtle::{Choice, ConstantTimeEq as _};

use crate::Algorithm;

/// The longest MAC in bytes: that of HMAC-SHA512.
pub(crate) const MAX_TAG_LEN: usize = 64;

/// An HMAC under way. Cloning the state of a fresh key saves two hash blocks a message.
#[derive(Clone)]
pub(crate) enum Mac {
    Sha256(Hmac<Sha256>),
    Sha512(Hmac<Sha512>),
}

impl Mac {
    /// Returns the state for a key of any length.
    pub(crate) fn new(algorithm: Algorithm, key: &[u8]) -> Option<Self> {
        match algorithm {
            Algorithm::HmacSha256 => Hmac::new_from_slice(key).ok().map(Self::Sha256),
            Algorithm::HmacSha512 => Hmac::new_from_slice(key).ok().map(Self::Sha512),
        }
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::HmacSha256,
            Self::Sha512(_) => Algorithm::HmacSha512,
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(mac) => mac.update(bytes),
            Self::Sha512(mac) => mac.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> Tag {
        match self {
            Self::Sha256(mac) => Tag::new(mac.finalize().into_bytes()),
            Self::Sha512(mac) => Tag::new(mac.finalize().into_bytes()),
        }
    }
}

/// A whole MAC, as computed or as received.
///
/// It has no `PartialEq`: MACs are compared in constant time alone.
#[derive(Clone, Copy)]
pub(crate) struct Tag {
    bytes: [u8; MAX_TAG_LEN],
    len: usize,
}

impl Tag {
    fn new<const LEN: usize>(mac: impl Into<[u8; LEN]>) -> Self {
        let mut bytes = [0; MAX_TAG_LEN];
        bytes.iter_mut().zip(mac.into()).for_each(|(to, from)| *to = from);
        Self { bytes, len: LEN }
    }

    /// Returns the MAC with these bytes; `None` if they are more than any MAC has.
    pub(crate) fn from_slice(slice: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_TAG_LEN];
        bytes.get_mut(..slice.len())?.copy_from_slice(slice);
        Some(Self { bytes, len: slice.len() })
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Compares, in a time that depends on nothing but the lengths, which are public.
    pub(crate) fn matches(&self, other: &Self) -> Choice {
        self.as_bytes().ct_eq(other.as_bytes())
    }
}
