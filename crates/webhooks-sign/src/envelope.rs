//! The parts that are signed beside the body.

use core::fmt;

use crate::grammar::Part;
use crate::scheme::Scheme;
use crate::timestamp::parse;
use crate::{Error, Expected, SignError};

/// The longest id in bytes. The limit is ours; Standard Webhooks gives none.
const MAX_ID_LEN: usize = 256;

/// The parts that a sender may sign beside the body. A scheme signs some of them; leave the others
/// empty.
///
/// # Example
/// ```
/// use webhooks_sign::Envelope;
/// use webhooks_sign::providers::SLACK;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let key = SLACK.key("secret")?;
/// let envelope = Envelope { timestamp: "1531420618", ..Envelope::default() };
/// assert!(SLACK.sign(&key, &envelope, b"text=hi")?.as_str().starts_with("v0="));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The id: 1 to 256 visible ASCII characters except `.`.
    pub id: &'a str,
    /// The timestamp in the scheme's form.
    pub timestamp: &'a str,
    /// The request's method.
    pub method: &'a str,
    /// The URL that the sender was given.
    pub url: &'a str,
}

impl fmt::Debug for Envelope<'_> {
    /// Leaves out the URL, which may hold a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("id", &self.id)
            .field("timestamp", &self.timestamp)
            .field("method", &self.method)
            .field("url_bytes", &self.url.len())
            .finish()
    }
}

/// The bytes of the parts, from an envelope or from headers. A receiver has not checked that they are
/// text.
#[derive(Clone, Copy)]
pub(crate) struct SignedParts<'a> {
    pub(crate) id: &'a [u8],
    pub(crate) timestamp: &'a [u8],
    pub(crate) method: &'a [u8],
    pub(crate) url: &'a [u8],
}

impl<'a> SignedParts<'a> {
    /// Returns the bytes of a part other than the body.
    #[inline]
    pub(crate) fn part(&self, part: Part) -> &'a [u8] {
        match part {
            Part::Body | Part::Form | Part::Token => b"",
            Part::Id => self.id,
            Part::Literal(text) => text.as_bytes(),
            Part::Method => self.method,
            Part::Timestamp => self.timestamp,
            Part::Url => self.url,
        }
    }

    /// Returns all bytes that a scheme signs, in order.
    #[inline]
    pub(crate) fn pieces(
        self,
        scheme: &Scheme,
        body: &'a [u8],
    ) -> impl Iterator<Item = &'a [u8]> + Clone {
        let piece = move |part: &Part| match part {
            Part::Body => body,
            part => self.part(*part),
        };
        scheme.parts.iter().map(piece)
    }
}

impl<'a> Envelope<'a> {
    pub(crate) fn parts(&self) -> SignedParts<'a> {
        SignedParts {
            id: self.id.as_bytes(),
            timestamp: self.timestamp.as_bytes(),
            method: self.method.as_bytes(),
            url: self.url.as_bytes(),
        }
    }

    /// Refuses an envelope that a verifier would refuse.
    pub(crate) fn check(&self, scheme: &Scheme) -> Result<(), SignError> {
        if scheme.signs(Part::Id) && !is_valid_id(self.id.as_bytes()) {
            return Err(SignError::InvalidId);
        }
        if let Some(source) = scheme.timestamp {
            parse(self.timestamp.as_bytes(), source.format())
                .or(Err(SignError::InvalidTimestamp))?;
        }
        let is_missing = |part: &Part| match part {
            Part::Method => self.method.is_empty(),
            Part::Url => self.url.is_empty(),
            _ => false,
        };
        if scheme.parts.iter().any(is_missing) { Err(SignError::MissingPart) } else { Ok(()) }
    }
}

/// Returns whether an id can be signed.
///
/// Standard Webhooks 1.0, "Signature scheme": id and timestamp must not be user controlled, "or at
/// the very least not be allowed to include any `.`". Otherwise a part of one could be read as a part
/// of the other.
#[inline]
fn is_valid_id(id: &[u8]) -> bool {
    let is_invalid = |byte: &u8| !byte.is_ascii_graphic() || *byte == b'.';
    // No early end: checking many bytes at once is faster than one after the other.
    (1..=MAX_ID_LEN).contains(&id.len())
        && id.iter().fold(0, |any, byte| any | u8::from(is_invalid(byte))) == 0
}

#[inline]
pub(crate) fn check_id<'h>(header: &'static str, id: &'h [u8]) -> Result<&'h [u8], Error> {
    let expected = Expected::Id;
    if is_valid_id(id) { Ok(id) } else { Err(Error::InvalidHeader { header, expected }) }
}
