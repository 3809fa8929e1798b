//! The bytes of a signature, as computed or as received.

use subtle::{Choice, ConstantTimeEq as _};
use zeroize::Zeroize;

/// Room for any signature, the longest being ECDSA with P-256 in DER (72 bytes).
const TAG_ROOM: usize = 80;

/// A whole signature or MAC, as computed or as received.
///
/// It has no `PartialEq`: MACs are only compared in constant time.
#[derive(Clone, Copy)]
pub(crate) struct Tag {
    bytes: [u8; TAG_ROOM],
    len: usize,
}

/// For the MACs that stand in for tokens: they are secret. Signatures that were received or will be
/// sent are not.
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

    /// Replaces the bytes by those that `write` writes; it returns their number. If it returns `None`,
    /// the tag is undefined and must not be used.
    #[inline]
    pub(crate) fn write(&mut self, write: impl FnOnce(&mut [u8]) -> Option<usize>) -> Option<()> {
        self.len = write(&mut self.bytes).filter(|len| *len <= TAG_ROOM)?;
        Some(())
    }

    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Compares in a time that depends only on the lengths, which are no secret.
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
