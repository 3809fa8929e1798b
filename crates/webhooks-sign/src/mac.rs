//! HMAC, and what all signatures are held as. The one file that names hmac and its types.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Sha256, Sha512};
use subtle::{Choice, ConstantTimeEq as _};

use crate::Algorithm;

/// The longest signature in bytes: ECDSA with P-256 in DER.
pub(crate) const MAX_TAG_LEN: usize = 72;

/// Hands over the signed bytes, piece by piece.
pub(crate) type Feed<'f> = dyn Fn(&mut dyn FnMut(&[u8])) + 'f;

/// An HMAC under way. Cloning the state of a fresh key saves two hash blocks a message.
#[derive(Clone)]
pub(crate) enum Mac {
    #[cfg(feature = "sha1")]
    Sha1(Hmac<sha1::Sha1>),
    Sha256(Hmac<Sha256>),
    Sha512(Hmac<Sha512>),
}

impl Mac {
    /// Returns the state for a key of any length; `None` if the algorithm is no HMAC.
    pub(crate) fn new(algorithm: Algorithm, key: &[u8]) -> Option<Self> {
        match algorithm {
            #[cfg(feature = "sha1")]
            Algorithm::HmacSha1 => Hmac::new_from_slice(key).ok().map(Self::Sha1),
            Algorithm::HmacSha256 => Hmac::new_from_slice(key).ok().map(Self::Sha256),
            Algorithm::HmacSha512 => Hmac::new_from_slice(key).ok().map(Self::Sha512),
            _ => None,
        }
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        match self {
            #[cfg(feature = "sha1")]
            Self::Sha1(_) => Algorithm::HmacSha1,
            Self::Sha256(_) => Algorithm::HmacSha256,
            Self::Sha512(_) => Algorithm::HmacSha512,
        }
    }

    #[inline]
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            #[cfg(feature = "sha1")]
            Self::Sha1(mac) => mac.update(bytes),
            Self::Sha256(mac) => mac.update(bytes),
            Self::Sha512(mac) => mac.update(bytes),
        }
    }

    #[inline]
    pub(crate) fn finish(self) -> Tag {
        match self {
            #[cfg(feature = "sha1")]
            Self::Sha1(mac) => Tag::from_array(mac.finalize().into_bytes()),
            Self::Sha256(mac) => Tag::from_array(mac.finalize().into_bytes()),
            Self::Sha512(mac) => Tag::from_array(mac.finalize().into_bytes()),
        }
    }
}

/// A whole signature or MAC, as computed or as received.
///
/// It has no `PartialEq`: MACs are compared in constant time alone.
#[derive(Clone, Copy)]
pub(crate) struct Tag {
    bytes: [u8; MAX_TAG_LEN],
    len: usize,
}

impl Tag {
    const EMPTY: Self = Self { bytes: [0; MAX_TAG_LEN], len: 0 };

    #[inline]
    fn from_array<const LEN: usize>(mac: impl Into<[u8; LEN]>) -> Self {
        let mut tag = Self::EMPTY;
        tag.bytes.iter_mut().zip(mac.into()).for_each(|(to, from)| *to = from);
        tag.len = LEN;
        tag
    }

    /// Returns the tag with these bytes; `None` if they are more than any has.
    #[inline]
    pub(crate) fn from_slice(slice: &[u8]) -> Option<Self> {
        let mut tag = Self::EMPTY;
        tag.bytes.get_mut(..slice.len())?.copy_from_slice(slice);
        tag.len = slice.len();
        Some(tag)
    }

    /// Returns a stand-in for a token, so that tokens of all lengths are compared in the time of
    /// one: its SHA-256 under a fixed key.
    pub(crate) fn of_token(token: &[u8]) -> Option<Self> {
        let mut mac = Mac::new(Algorithm::HmacSha256, b"webhooks-sign token")?;
        mac.update(token);
        Some(mac.finish())
    }

    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Compares, in a time that depends on nothing but the lengths, which are public.
    #[inline]
    pub(crate) fn matches(&self, other: &Self) -> Choice {
        // All bytes, whatever they are; only the sum of differences is looked at. A barrier for each
        // byte, as subtle has for slices, would take as long as a hash block.
        let difference = (self.bytes.iter().zip(&other.bytes)).fold(0, |all, (a, b)| all | (a ^ b));
        self.len.ct_eq(&other.len) & difference.ct_eq(&0_u8)
    }
}
