//! The signatures that a header lists.

use subtle::Choice;

use crate::Error;
use crate::mac::Tag;
use crate::scheme::{Grammar, Scheme};

/// How many signatures a header may list.
///
/// The limit bounds what a stranger's request can cost. Svix, the sender with the longest lists,
/// keeps ten old keys beside the live one.
pub(crate) const MAX_SIGNATURES: usize = 16;

/// The value of a signature header, found in order.
///
/// Most list one signature, which is kept; the others are decoded when they are compared, which is
/// cheaper than carrying room for sixteen around.
#[derive(Clone, Copy)]
pub(crate) struct Listed<'s, 'h> {
    scheme: &'s Scheme,
    first: Tag,
    /// What stands behind the first well-formed signature.
    rest: &'h [u8],
}

impl<'s, 'h> Listed<'s, 'h> {
    /// Checks the value of the signature header.
    ///
    /// One malformed item does not spoil the others: Standard Webhooks 1.0, "Signature scheme",
    /// has receivers try each.
    #[inline]
    pub(crate) fn read(scheme: &'s Scheme, value: &'h [u8]) -> Result<Self, Error> {
        #[expect(clippy::naive_bytecount, reason = "a header is short")]
        let count = |separator| value.iter().filter(|byte| **byte == separator).count();
        let separators = scheme.separator().map_or(0, count);
        // Empty items count: who sends sixteen spaces in a row wants no answer.
        if separators >= MAX_SIGNATURES {
            return Err(Error::TooManySignatures);
        }
        // Most headers list one signature, which then needs no search for its end.
        let mut rest = if separators == 0 { b"" } else { value };
        let first = if separators == 0 { scheme.tag(value) } else { scheme.next_tag(&mut rest) };
        match (first, scheme.grammar) {
            (Some(first), _) => Self { scheme, first, rest }.limited(),
            (None, Grammar::One { .. }) => Err(Error::InvalidHeader),
            // Nothing that could match: say so before the body is hashed.
            (None, _) => Err(Error::NoMatch),
        }
    }

    #[cfg_attr(
        not(feature = "ed25519"),
        expect(clippy::unnecessary_wraps, reason = "only curve operations need a closer limit")
    )]
    #[inline]
    fn limited(self) -> Result<Self, Error> {
        #[cfg(feature = "ed25519")]
        if self.scheme.algorithm == crate::Algorithm::Ed25519
            && self.iter().nth(crate::ed25519::MAX_SIGNATURES).is_some()
        {
            return Err(Error::TooManySignatures);
        }
        Ok(self)
    }

    /// Compares each with the one expected, whether or not one matched before.
    #[inline]
    pub(crate) fn contains(self, expected: &Tag) -> Choice {
        self.iter().fold(Choice::from(0), |found, tag| found | tag.matches(expected))
    }

    /// Returns the well-formed signatures of the scheme's own version.
    #[inline]
    pub(crate) fn iter(self) -> impl Iterator<Item = Tag> {
        let mut rest = self.rest;
        let others = core::iter::from_fn(move || self.scheme.next_tag(&mut rest));
        core::iter::once(self.first).chain(others)
    }
}

impl Scheme {
    #[inline]
    fn separator(&self) -> Option<u8> {
        match self.grammar {
            Grammar::One { .. } => None,
            Grammar::List { separator, .. } | Grammar::Fields { separator, .. } => Some(separator),
        }
    }

    /// Takes items off the front up to the first well-formed signature, and returns that.
    fn next_tag(&self, rest: &mut &[u8]) -> Option<Tag> {
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| Some(*byte) == self.separator());
            let (item, behind) = rest.split_at(end.unwrap_or(rest.len()));
            *rest = behind.get(1..).unwrap_or_default();
            if let Some(tag) = self.tag(item) {
                return Some(tag);
            }
        }
        None
    }

    /// Reads one item; `None` if it is malformed or of another version.
    #[inline]
    fn tag(&self, item: &[u8]) -> Option<Tag> {
        let item = if self.separator().is_some() { item.trim_ascii() } else { item };
        let text = item.strip_prefix(self.item_prefix().as_bytes())?;
        self.algorithm.decode(self.encoding, text)
    }
}
