//! HMAC: the one file that computes any.

use hmac::digest::Output;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Sha256, Sha512};

use crate::Algorithm;
use crate::tag::Tag;

/// An HMAC that is being computed. Cloning the state of a fresh key saves two hash blocks per message.
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

    #[inline]
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
            Self::Sha1(mac) => Tag::from_slice(&mac.finalize().into_bytes()),
            Self::Sha256(mac) => Tag::from_slice(&mac.finalize().into_bytes()),
            Self::Sha512(mac) => Tag::from_slice(&mac.finalize().into_bytes()),
        }
    }

    /// Passes the MAC of the pieces together to `read`. Neither the state nor the MAC is moved:
    /// [`finish`](Self::finish) must move a value of the size of the largest state.
    #[inline]
    pub(crate) fn of<'p, T>(
        &self,
        pieces: impl Iterator<Item = &'p [u8]>,
        read: impl FnOnce(&[u8]) -> T,
    ) -> T {
        match self {
            #[cfg(feature = "sha1")]
            Self::Sha1(mac) => read(&run(mac.clone(), pieces)),
            Self::Sha256(mac) => read(&run(mac.clone(), pieces)),
            Self::Sha512(mac) => read(&run(mac.clone(), pieces)),
        }
    }
}

#[inline]
fn run<'p, M: hmac::Mac>(mut mac: M, pieces: impl Iterator<Item = &'p [u8]>) -> Output<M> {
    pieces.for_each(|piece| mac.update(piece));
    mac.finalize().into_bytes()
}

impl Tag {
    /// Returns the stand-in for a token: its HMAC-SHA256 under a fixed key. So the comparison takes
    /// the same time for tokens of all lengths.
    pub(crate) fn of_token(token: &[u8]) -> Option<Self> {
        let mut mac = Mac::new(Algorithm::HmacSha256, b"webhooks-sign token")?;
        mac.update(token);
        Some(mac.finish())
    }
}
