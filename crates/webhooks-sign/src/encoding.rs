//! The encodings of signatures in headers.

use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{
    GeneralPurpose, GeneralPurposeConfig, STANDARD, URL_SAFE_NO_PAD,
};
use base64::{Engine as _, alphabet};

/// The encoding of signatures, and of some secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Encoding {
    /// Base64 (RFC 4648 §4) with padding.
    Base64,
    /// Base64 for URLs (RFC 4648 §5) without padding.
    Base64Url,
    /// Hexadecimal: lower case when written, either case when read, because providers leave the case
    /// open. So two texts may stand for one signature.
    Hex,
    /// Hexadecimal, only in lower case.
    LowerHex,
}

impl Encoding {
    /// Decodes `text` into `buffer` and returns the length; `None` if the text is malformed or too long.
    #[inline]
    pub(crate) fn decode(self, text: &[u8], buffer: &mut [u8]) -> Option<usize> {
        match self {
            Self::Base64 => decode_base64(text, buffer),
            Self::Base64Url => URL_SAFE_NO_PAD.decode_slice(text, buffer).ok(),
            Self::Hex => decode_hex(text, buffer),
            Self::LowerHex => decode_hex(text, buffer).filter(|_| is_lower(text)),
        }
    }

    /// Returns the number of bytes that a text of this length stands for, up to 2 more if it is padded.
    pub(crate) fn decoded_len(self, text: usize) -> usize {
        match self {
            Self::Base64 | Self::Base64Url => text.saturating_mul(3) / 4,
            Self::Hex | Self::LowerHex => text / 2,
        }
    }

    /// Writes the bytes as text and returns its length; `None` if `out` is too short.
    pub(crate) fn encode(self, bytes: &[u8], out: &mut [u8]) -> Option<usize> {
        match self {
            Self::Base64 => STANDARD.encode_slice(bytes, out).ok(),
            Self::Base64Url => URL_SAFE_NO_PAD.encode_slice(bytes, out).ok(),
            Self::Hex | Self::LowerHex => encode_hex(bytes, out),
        }
    }
}

impl core::fmt::Display for Encoding {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Base64 => "padded base64",
            Self::Base64Url => "base64 for URLs without padding",
            Self::Hex => "hexadecimal",
            Self::LowerHex => "hexadecimal in lower case",
        })
    }
}

/// Base64 as careless senders wrote it: with or without padding, and with any pad bits.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Decodes base64 with or without padding and with any pad bits; otherwise as [`Encoding::decode`].
pub(crate) fn decode_lenient(text: &[u8], buffer: &mut [u8]) -> Option<usize> {
    LENIENT.decode_slice(text, buffer).ok()
}

/// The mark of a byte that is no character of base64: one bit that lies beyond the 24 bits of four
/// characters, at each of the four places to which it can be shifted.
const INVALID: u32 = 1 << 31;

/// The six bits that each character stands for (RFC 4648 §4).
#[expect(clippy::indexing_slicing, reason = "a byte is a place in the table, and rustc checks it")]
const SIX_BITS: [u32; 256] = {
    let mut table = [INVALID; 256];
    let mut alphabet: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bits = 0;
    while let [character, rest @ ..] = alphabet {
        table[*character as usize] = bits;
        (alphabet, bits) = (rest, bits + 1);
    }
    table
};

/// Decodes padded base64. A signature takes three quarters of the instructions of the base64 crate,
/// because the place of an error is not needed. The tests compare the two.
fn decode_base64(text: &[u8], out: &mut [u8]) -> Option<usize> {
    let (quads, []) = text.as_chunks::<4>() else { return None };
    let Some((last, quads)) = quads.split_last() else { return Some(0) };
    let (out, out_last) = out.split_at_mut_checked(quads.len().checked_mul(3)?)?;
    let mut seen = 0;
    for (quad, bytes) in quads.iter().zip(out.as_chunks_mut::<3>().0) {
        *bytes = decode_quad(*quad, &mut seen);
    }
    let (last, len) = match *last {
        [a, b, b'=', b'='] => ([a, b, b'A', b'A'], 1),
        [a, b, c, b'='] => ([a, b, c, b'A'], 2),
        last => (last, 3),
    };
    let bytes = decode_quad(last, &mut seen);
    let (bytes, behind) = bytes.split_at_checked(len)?;
    out_last.get_mut(..len)?.copy_from_slice(bytes);
    // RFC 4648 §3.5: pad bits are zero, or many texts would stand for the same bytes.
    let is_canonical = behind.iter().all(|byte| *byte == 0);
    (is_canonical && seen < 1 << 24).then(|| out.len().saturating_add(len))
}

/// Decodes four characters and adds their bits to `seen`, which is checked once at the end.
#[inline]
fn decode_quad(quad: [u8; 4], seen: &mut u64) -> [u8; 3] {
    let bits = |character| SIX_BITS.get(usize::from(character)).copied().unwrap_or(INVALID);
    let [a, b, c, d] = quad.map(|character| u64::from(bits(character)));
    let joined = (a << 18) | (b << 12) | (c << 6) | d;
    *seen |= joined;
    let [.., first, second, third] = joined.to_be_bytes();
    [first, second, third]
}

fn decode_hex(text: &[u8], out: &mut [u8]) -> Option<usize> {
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    let room = out.get_mut(..pairs.len())?;
    for ([high, low], byte) in pairs.iter().zip(room) {
        let digit = |&character: &u8| char::from(character).to_digit(16);
        *byte = u8::try_from((digit(high)? << 4) | digit(low)?).ok()?;
    }
    Some(pairs.len())
}

fn is_lower(text: &[u8]) -> bool {
    !text.iter().any(u8::is_ascii_uppercase)
}

fn encode_hex(bytes: &[u8], out: &mut [u8]) -> Option<usize> {
    let len = bytes.len().checked_mul(2)?;
    let (pairs, _) = out.get_mut(..len)?.as_chunks_mut::<2>();
    for ([high, low], byte) in pairs.iter_mut().zip(bytes) {
        let digit = |nibble: u8| u8::try_from(char::from_digit(u32::from(nibble), 16)?).ok();
        (*high, *low) = (digit(byte >> 4)?, digit(byte & 15)?);
    }
    Some(len)
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "small numbers in a test")]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    const ALL: [Encoding; 4] =
        [Encoding::Base64, Encoding::Base64Url, Encoding::Hex, Encoding::LowerHex];

    proptest! {
        #[test]
        fn encoding_and_back_is_the_same(bytes in prop::collection::vec(any::<u8>(), 1..64)) {
            for encoding in ALL {
                let (mut text, mut decoded) = ([0; 128], [0; 66]);
                let len = encoding.encode(&bytes, &mut text).unwrap();
                let text = text.get(..len).unwrap();
                prop_assert_eq!(encoding.decode(text, &mut decoded), Some(bytes.len()));
                prop_assert_eq!(decoded.get(..bytes.len()).unwrap(), bytes.as_slice());
                let cut = text.get(..len - 1).unwrap();
                // Without padding a shorter text may stand for fewer bytes, but never for all.
                let most = if encoding == Encoding::Base64Url { bytes.len() - 1 } else { 0 };
                prop_assert!(encoding.decode(cut, &mut decoded).unwrap_or_default() <= most);
            }
        }

        #[test]
        fn base64_is_decoded_as_its_crate_decodes_it(
            text in prop_oneof!["[A-Za-z0-9+/]{0,24}={0,3}", "[A-D/=\\-_ é]{0,12}"],
            len in 0..20_usize,
        ) {
            let (mut ours, mut theirs) = ([0; 20], [0; 20]);
            let found = decode_base64(text.as_bytes(), ours.get_mut(..len).unwrap());
            let expected = STANDARD.decode_slice(&text, theirs.get_mut(..len).unwrap()).ok();
            prop_assert_eq!(found, expected);
            let read = |bytes: [u8; 20]| bytes.get(..found?).map(<[u8]>::to_vec);
            prop_assert_eq!(read(ours), read(theirs));
        }

        #[test]
        fn base64_for_urls_has_one_text_for_the_same_bytes(text in "[A-D_=+/-]{0,12}") {
            let (mut decoded, mut encoded) = ([0; 12], [0; 16]);
            if let Some(len) = Encoding::Base64Url.decode(text.as_bytes(), &mut decoded) {
                let bytes = decoded.get(..len).unwrap();
                let written = Encoding::Base64Url.encode(bytes, &mut encoded).unwrap();
                prop_assert_eq!(encoded.get(..written).unwrap(), text.as_bytes());
            }
        }

        #[test]
        fn no_text_panics(text: Vec<u8>, len in 0..100_usize) {
            let mut buffer = [0; 100];
            for encoding in ALL {
                let found = encoding.decode(&text, buffer.get_mut(..len).unwrap());
                prop_assert!(found.is_none_or(|found| found <= len));
            }
        }
    }
}
