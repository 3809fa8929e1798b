//! HMAC, and what all signatures are held as. The one file that computes HMACs.

use hmac::digest::Output;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Sha256, Sha512};
use subtle::{Choice, ConstantTimeEq as _};
use zeroize::Zeroize;

use crate::Algorithm;

/// Room for any signature, the longest being ECDSA with P-256 in DER (72 bytes).
const TAG_ROOM: usize = 80;

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

    /// Has the MAC of the pieces together read, without moving about the largest of all states, as
    /// [`finish`](Self::finish) must, or the MAC itself.
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

/// A whole signature or MAC, as computed or as received.
///
/// It has no `PartialEq`: MACs are compared in constant time alone.
#[derive(Clone, Copy)]
pub(crate) struct Tag {
    bytes: [u8; TAG_ROOM],
    len: usize,
}

/// For stand-ins of tokens, which are secret: what was received or will be sent is not.
impl Zeroize for Tag {
    fn zeroize(&mut self) {
        self.bytes.zeroize();
        self.len.zeroize();
    }
}

impl Tag {
    /// No signature; it matches nothing that was computed.
    pub(crate) const EMPTY: Self = Self { bytes: [0; TAG_ROOM], len: 0 };

    #[inline]
    pub(crate) fn from_slice(mac: &[u8]) -> Self {
        let mut tag = Self::EMPTY;
        if let Some(room) = tag.bytes.get_mut(..mac.len()) {
            room.copy_from_slice(mac);
            tag.len = mac.len();
        }
        tag
    }

    /// Holds from now on what `write` writes and tells the length of. When that fails, with `None`,
    /// what it holds says nothing.
    #[inline]
    pub(crate) fn write(&mut self, write: impl FnOnce(&mut [u8]) -> Option<usize>) -> Option<()> {
        self.len = write(&mut self.bytes).filter(|len| *len <= TAG_ROOM)?;
        Some(())
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

    /// Compares, in a time that depends on nothing but the lengths, which are no secret.
    #[inline]
    pub(crate) fn matches(&self, other: &[u8]) -> Choice {
        // All bytes, whatever they are, eight at a time; only the sum of differences is looked at. A
        // barrier for each byte, as subtle has for slices, would take as long as a hash block.
        let (eights, rest) = self.as_bytes().as_chunks::<8>();
        let (other_eights, other_rest) = other.as_chunks::<8>();
        let eights = eights.iter().zip(other_eights);
        let eights = eights.map(|(a, b)| u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b));
        let rest = rest.iter().zip(other_rest).map(|(a, b)| u64::from(a ^ b));
        let is_other_length = u64::from(self.len != other.len());
        let difference =
            eights.chain(rest).fold(is_other_length, |all, difference| all | difference);
        difference.ct_eq(&0)
    }
}
