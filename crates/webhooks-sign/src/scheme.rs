//! Schemes: ways to sign webhooks, as data.
//!
//! A scheme names the headers, their grammar, the algorithm and the parts that are signed. A receiver
//! of a known provider needs no more than a constant of [`providers`](crate::providers),
//! [`standard`](crate::standard) or [`x_webhook`](crate::x_webhook). This module is for those who ask
//! a scheme for its parts, and for senders of their own: see [`Scheme::custom`].

mod custom;
mod describe;

use crate::{Algorithm, Expected, Tolerance};

pub use crate::encoding::Encoding;
pub use crate::grammar::{Content, Grammar, KeyFormat, Part, TimestampFormat, TimestampSource};
pub use custom::{SchemeBuilder, SchemeError};

/// A way to sign webhooks, as data: that of a provider, or one of your own from [`Scheme::custom`].
///
/// # Example
/// ```
/// use webhooks_sign::KeyRing;
/// use webhooks_sign::providers::GITHUB;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // The example of GitHub's own documentation.
/// let keys = KeyRing::from(GITHUB.key("It's a Secret to Everybody")?);
/// let digest = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
/// let headers = [("X-Hub-Signature-256", digest)];
/// let verified = GITHUB.verify(&keys, &headers, b"Hello, World!", 0)?;
/// assert_eq!(verified.scheme(), "github");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheme {
    pub(crate) name: &'static str,
    pub(crate) algorithm: Algorithm,
    /// The header that carries the signatures.
    pub(crate) signature: &'static str,
    /// Further headers that carry signatures. Each of them, and the first, may be missing.
    pub(crate) more_signatures: &'static [&'static str],
    pub(crate) grammar: Grammar,
    pub(crate) encoding: Encoding,
    /// The header that carries the id, if one is signed.
    pub(crate) id: Option<&'static str>,
    pub(crate) timestamp: Option<TimestampSource>,
    /// The parts that are signed, in order.
    pub(crate) parts: &'static [Part],
    pub(crate) tolerance: Tolerance,
    pub(crate) key: KeyFormat,
    pub(crate) event_id: &'static [&'static str],
    pub(crate) repeats_bodies: bool,
    pub(crate) max_body: Option<usize>,
    /// The same scheme by another algorithm, whose signatures stand in the same header: keys for either
    /// algorithm are accepted.
    pub(crate) twin: Option<&'static Self>,
}

impl Scheme {
    /// Borrows the name, such as `github`.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the algorithm, for which the keys must be. Standard Webhooks and Svix also accept keys
    /// for ed25519, if that feature is on.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Borrows the name of the header that carries the signatures: in lower case, or as you gave it
    /// for a scheme of your own.
    pub const fn signature_header(&self) -> &'static str {
        self.signature
    }

    /// Borrows the names of further headers that carry signatures, for a provider that sends one
    /// header for each live key. A webhook needs at least one of all these headers.
    pub const fn more_signature_headers(&self) -> &'static [&'static str] {
        self.more_signatures
    }

    /// Borrows the text before each signature in its header, such as `sha256=`; it is often empty.
    pub const fn signature_prefix(&self) -> &'static str {
        match self.grammar {
            Grammar::One { prefix } => prefix,
            Grammar::List { version, .. } => version,
            Grammar::Fields { signature, .. } => signature,
        }
    }

    /// Returns whether the scheme signs the URL that the sender was given.
    pub fn signs_url(&self) -> bool {
        self.signs(Part::Url)
    }

    /// Returns the other algorithm for which the scheme accepts keys: ed25519 for Standard Webhooks and
    /// Svix, with the feature `ed25519`.
    pub fn other_algorithm(&self) -> Option<Algorithm> {
        self.twin.map(|twin| twin.algorithm)
    }

    /// Borrows the name of the header that carries the id, if the scheme signs one.
    pub const fn id_header(&self) -> Option<&'static str> {
        self.id
    }

    /// Returns the content of the body that is signed. It decides which function verifies.
    pub fn content(&self) -> Content {
        self.parts.iter().find_map(|part| part.content()).unwrap_or(Content::Body)
    }

    /// Returns whether a verified webhook has a signed id, by which to deduplicate.
    pub fn signs_id(&self) -> bool {
        self.id.is_some() || self.content() == Content::Token
    }

    /// Returns the place of the timestamp, if the scheme signs one.
    pub const fn timestamp_source(&self) -> Option<TimestampSource> {
        self.timestamp
    }

    /// Returns the names of all headers that the scheme reads.
    pub fn headers(&self) -> impl Iterator<Item = &'static str> + Clone {
        let others = self.more_signatures.iter().copied();
        core::iter::once(self.signature).chain(others).chain(self.id).chain(self.timestamp_header())
    }

    pub(crate) const fn timestamp_header(&self) -> Option<&'static str> {
        match self.timestamp {
            Some(TimestampSource::Header(name, _)) => Some(name),
            _ => None,
        }
    }

    /// Returns the tolerance for the timestamp, unless a verifier sets another. It has no meaning if the
    /// scheme signs no timestamp.
    pub const fn tolerance(&self) -> Tolerance {
        self.tolerance
    }

    /// Borrows the JSON pointers (RFC 6901) of the fields in the signed body that together identify
    /// an event in all its attempts. `*` in place of an index stands for each item of an array. The
    /// list is empty if the scheme signs an id in a header, or the provider documents no such field.
    pub const fn event_id_fields(&self) -> &'static [&'static str] {
        self.event_id
    }

    /// Returns whether different events of the provider have equal bodies by design, so that a body
    /// does not identify an event.
    pub const fn repeats_bodies(&self) -> bool {
        self.repeats_bodies
    }

    /// Returns the size in bytes that the provider documents for its largest body, if it does.
    pub const fn max_body(&self) -> Option<usize> {
        self.max_body
    }

    pub(crate) fn expected(&self) -> Expected {
        Expected::Signature(self.signature_prefix(), self.encoding)
    }

    /// Returns the parts before the body and those after it.
    #[inline]
    pub(crate) fn around_body(&self) -> (&'static [Part], &'static [Part]) {
        let at = self.parts.iter().position(|part| part.content().is_some());
        let (ahead, rest) = self.parts.split_at(at.unwrap_or(self.parts.len()));
        (ahead, rest.split_first().map_or(&[], |(_, behind)| behind))
    }

    #[inline]
    pub(crate) fn signs(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }
}

/// The scheme from which most others are made: a hexadecimal HMAC-SHA256 of the body.
pub(crate) const HEX_OF_BODY: Scheme = Scheme {
    name: "custom",
    algorithm: Algorithm::HmacSha256,
    signature: "",
    more_signatures: &[],
    grammar: Grammar::One { prefix: "" },
    encoding: Encoding::Hex,
    id: None,
    timestamp: None,
    parts: &[Part::Body],
    tolerance: Tolerance::DEFAULT,
    key: KeyFormat::Text,
    event_id: &[],
    repeats_bodies: false,
    max_body: None,
    twin: None,
};
