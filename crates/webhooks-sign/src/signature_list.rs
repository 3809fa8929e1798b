//! The signatures that a header lists.

use subtle::Choice;

use crate::algorithm::MAX_CURVE_SIGNATURES;
use crate::grammar::Grammar;
use crate::scheme::{Encoding, Scheme};
use crate::tag::Tag;
use crate::{Algorithm, Error};

/// The most signatures that a header may list.
///
/// The limit bounds what a stranger's request can cost. Svix, the sender with the longest lists,
/// keeps ten old keys beside the live one.
pub(crate) const MAX_SIGNATURES: usize = 16;

/// The most headers that may carry signatures. A sender that rotates its key fills two.
pub(crate) const MAX_HEADERS: usize = 4;

/// The signatures in the values of the signature headers, in order.
///
/// Most headers list one, which is decoded when it is read. Others are decoded when they are
/// compared: an array for sixteen would be copied with each value, and that costs more.
pub(crate) struct SignatureList<'s, 'h> {
    scheme: &'s Scheme,
    first: Tag,
    /// The text after the first well-formed signature.
    rest: &'h [u8],
    /// The values of further headers, if the scheme has several.
    more: Option<[&'h [u8]; MAX_HEADERS]>,
}

impl<'s, 'h> SignatureList<'s, 'h> {
    /// Returns an empty list. [`read`](Self::read) fills it in place: a signature that was written byte
    /// by byte and is moved at once makes the processor wait for the bytes.
    #[inline]
    pub(crate) fn new(scheme: &'s Scheme) -> Self {
        Self { scheme, first: Tag::EMPTY, rest: b"", more: None }
    }

    /// Reads the value of the signature header.
    ///
    /// One malformed item does not invalidate the others: by Standard Webhooks 1.0, "Signature
    /// scheme", receivers try each.
    #[inline]
    pub(crate) fn read(&mut self, value: &'h [u8]) -> Result<(), Error> {
        let scheme = self.scheme;
        // Most headers list one signature, and no signature except a token can hold a separator: no
        // search is needed.
        let may_be_one = scheme.separator().is_none() || scheme.algorithm != Algorithm::Token;
        if may_be_one && scheme.read_text(value, &mut self.first).is_some() {
            return self.check_limit();
        }
        let first = match scheme.separator() {
            None => None,
            Some(separator) => {
                // Empty items count: a header of sixteen spaces in a row is refused, too.
                let mut separators = value.iter().filter(|byte| **byte == separator);
                if separators.nth(MAX_SIGNATURES - 1).is_some() {
                    return Err(scheme.too_many());
                }
                self.rest = value;
                scheme.read_next(&mut self.rest, &mut self.first)
            }
        };
        self.check_first(first)
    }

    /// Reads the values of the signature headers of a scheme that has several.
    pub(crate) fn read_all(&mut self, values: [&'h [u8]; MAX_HEADERS]) -> Result<(), Error> {
        let separator = self.scheme.separator();
        let is_separator = |byte: &&u8| Some(**byte) == separator;
        let mut separators = values.iter().copied().flatten().filter(is_separator);
        if separators.nth(MAX_SIGNATURES - MAX_HEADERS).is_some() {
            return Err(self.scheme.too_many());
        }
        let more = self.more.insert(values);
        let first = self.scheme.read_next_of(more, &mut self.first);
        self.check_first(first)
    }

    #[inline]
    fn check_first(&self, first: Option<()>) -> Result<(), Error> {
        let scheme = self.scheme;
        match (first, scheme.grammar) {
            (Some(()), _) => self.check_limit(),
            (None, Grammar::One { .. }) => Err(scheme.malformed()),
            // Nothing can match: refuse it before the body is hashed.
            (None, _) => {
                Err(Error::NoneListed { header: scheme.signature, expected: scheme.expected() })
            }
        }
    }

    #[inline]
    fn check_limit(&self) -> Result<(), Error> {
        let is_curve = self.scheme.algorithm.is_curve();
        if is_curve && self.iter().nth(MAX_CURVE_SIGNATURES).is_some() {
            return Err(self.scheme.too_many());
        }
        Ok(())
    }

    /// Compares each signature with `expected`, whether or not one matched before.
    #[inline]
    pub(crate) fn contains(&self, expected: &[u8]) -> Choice {
        let found = self.first.matches(expected);
        // Most headers list only one, and the number of signatures is no secret.
        if self.rest.is_empty() && self.more.is_none() {
            return found;
        }
        self.others().fold(found, |found, tag| found | tag.matches(expected))
    }

    /// Returns the well-formed signatures of the scheme's own version.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Tag> {
        core::iter::once(self.first).chain(self.others())
    }

    fn others(&self) -> impl Iterator<Item = Tag> {
        let (mut rest, mut more, mut tag) = (self.rest, self.more, Tag::EMPTY);
        core::iter::from_fn(move || {
            let next = self.scheme.read_next(&mut rest, &mut tag);
            next.or_else(|| self.scheme.read_next_of(more.as_mut()?, &mut tag))?;
            Some(tag)
        })
    }
}

impl Scheme {
    fn too_many(&self) -> Error {
        Error::TooManySignatures { header: self.signature }
    }

    /// Returns the error for a malformed signature header.
    pub(crate) fn malformed(&self) -> Error {
        Error::InvalidHeader { header: self.signature, expected: self.expected() }
    }

    #[inline]
    pub(crate) fn separator(&self) -> Option<u8> {
        match self.grammar {
            Grammar::One { .. } => None,
            Grammar::List { separator, .. } | Grammar::Fields { separator, .. } => Some(separator),
        }
    }

    /// Reads the next signature as [`read_next`](Self::read_next) does, over the values of several
    /// headers.
    #[inline]
    fn read_next_of(&self, rest: &mut [&[u8]; MAX_HEADERS], tag: &mut Tag) -> Option<()> {
        rest.iter_mut().find_map(|rest| self.read_next(rest, tag))
    }

    /// Removes items from the front up to the first well-formed signature, and reads it into `tag`.
    #[inline]
    fn read_next(&self, rest: &mut &[u8], tag: &mut Tag) -> Option<()> {
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| Some(*byte) == self.separator());
            let (item, behind) = rest.split_at(end.unwrap_or(rest.len()));
            *rest = behind.get(1..).unwrap_or_default();
            if self.read_item(item, tag).is_some() {
                return Some(());
            }
        }
        None
    }

    /// Reads one item; `None` if it is malformed or of another version.
    #[inline]
    fn read_item(&self, item: &[u8], tag: &mut Tag) -> Option<()> {
        self.read_text(if self.separator().is_some() { item.trim_ascii() } else { item }, tag)
    }

    #[inline]
    fn read_text(&self, item: &[u8], tag: &mut Tag) -> Option<()> {
        let text = item.strip_prefix(self.signature_prefix().as_bytes())?;
        self.algorithm.decode(self.encoding, text, tag)
    }
}

impl Algorithm {
    /// Reads a signature; `None` if it is malformed or not whole: a MAC that was cut is easier to guess.
    #[inline]
    fn decode(self, encoding: Encoding, text: &[u8], tag: &mut Tag) -> Option<()> {
        if self == Self::Token {
            *tag = Tag::of_token(text)?;
            return Some(());
        }
        tag.write(|room| encoding.decode(text, room))?;
        let len = tag.as_bytes().len();
        let is_whole = match self {
            Self::HmacSha256 => len == 32,
            Self::HmacSha512 => len == 64,
            #[cfg(feature = "sha1")]
            Self::HmacSha1 => len == 20,
            #[cfg(feature = "ed25519")]
            Self::Ed25519 => len == crate::ed25519::SIGNATURE_LEN,
            // DER has no fixed length; the parser is strict.
            #[cfg(feature = "p256")]
            Self::EcdsaP256 => true,
            Self::Token => false,
        };
        is_whole.then_some(())
    }
}
