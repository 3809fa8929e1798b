//! How a MAC is written in a header.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::mac::Tag;

/// Hexadecimal or base64 (RFC 4648 §4, padded).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Base64,
    Hex,
}

impl Encoding {
    /// Returns the MAC of `len` bytes that the text stands for; `None` if the text is malformed
    /// or has another length.
    pub(crate) fn decode(self, text: &[u8], len: usize) -> Option<Tag> {
        // Three bytes more than any MAC: base64 decodes in groups and checks the room first.
        let mut buffer = [0; 67];
        let found = match self {
            Self::Base64 => STANDARD.decode_slice(text, &mut buffer).ok()?,
            Self::Hex => decode_hex(text, &mut buffer)?,
        };
        if found != len {
            return None;
        }
        Tag::from_slice(buffer.get(..found)?)
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
        fn encoding_and_back_is_the_same_tag(short: [u8; 32], long: [u8; 64]) {
            for encoding in [Encoding::Hex, Encoding::Base64] {
                for bytes in [short.as_slice(), long.as_slice()] {
                    let mut text = [0; 128];
                    let len = encoding.encode(bytes, &mut text).unwrap();
                    let decode = |end, tag_len| encoding.decode(text.get(..end).unwrap(), tag_len);
                    let tag = decode(len, bytes.len()).unwrap();
                    prop_assert_eq!(tag.as_bytes(), bytes);
                    prop_assert!(decode(len - 1, bytes.len()).is_none());
                    prop_assert!(decode(len, bytes.len() - 1).is_none());
                }
            }
        }

        #[test]
        fn no_text_panics(text: Vec<u8>, len in 0..100_usize) {
            for encoding in [Encoding::Hex, Encoding::Base64] {
                if let Some(tag) = encoding.decode(&text, len) {
                    prop_assert_eq!(tag.as_bytes().len(), len);
                }
            }
        }
    }
}
