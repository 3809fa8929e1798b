//! How signatures are written in a header.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// How signatures are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Encoding {
    /// Base64 (RFC 4648 §4) with padding.
    Base64,
    /// Hexadecimal; lower case when written, either case when read.
    Hex,
}

impl Encoding {
    /// Decodes into the buffer and returns the length; `None` if the text is malformed or too long.
    #[inline]
    pub(crate) fn decode(self, text: &[u8], buffer: &mut [u8]) -> Option<usize> {
        match self {
            Self::Base64 => STANDARD.decode_slice(text, buffer).ok(),
            Self::Hex => decode_hex(text, buffer),
        }
    }

    /// Writes the bytes as text and returns the length of the text; `None` if the room is short.
    pub(crate) fn encode(self, bytes: &[u8], out: &mut [u8]) -> Option<usize> {
        match self {
            Self::Base64 => STANDARD.encode_slice(bytes, out).ok(),
            Self::Hex => encode_hex(bytes, out),
        }
    }
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

    proptest! {
        #[test]
        fn encoding_and_back_is_the_same(bytes in prop::collection::vec(any::<u8>(), 1..64)) {
            for encoding in [Encoding::Hex, Encoding::Base64] {
                let (mut text, mut decoded) = ([0; 128], [0; 66]);
                let len = encoding.encode(&bytes, &mut text).unwrap();
                let text = text.get(..len).unwrap();
                prop_assert_eq!(encoding.decode(text, &mut decoded), Some(bytes.len()));
                prop_assert_eq!(decoded.get(..bytes.len()).unwrap(), bytes.as_slice());
                let cut = text.get(..len - 1).unwrap();
                prop_assert_eq!(encoding.decode(cut, &mut decoded), None);
            }
        }

        #[test]
        fn no_text_panics(text: Vec<u8>, len in 0..100_usize) {
            let mut buffer = [0; 100];
            for encoding in [Encoding::Hex, Encoding::Base64] {
                let found = encoding.decode(&text, buffer.get_mut(..len).unwrap());
                prop_assert!(found.is_none_or(|found| found <= len));
            }
        }
    }
}
