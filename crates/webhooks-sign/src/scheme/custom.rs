//! Schemes of one's own, checked as they are made.

use super::{
    Encoding, Grammar, HEX_OF_BODY, KeyFormat, Part, Scheme, TimestampFormat, TimestampSource,
};
use crate::signature::MAX_PREFIX_LEN;
use crate::{Algorithm, Tolerance};

impl Scheme {
    /// Starts a scheme of your own: a hexadecimal HMAC-SHA256 of the body alone in this header,
    /// with the text of the secret as the key.
    ///
    /// # Example
    /// ```
    /// use webhooks_sign::scheme::{Part, Scheme, TimestampFormat, TimestampSource};
    ///
    /// let acme = Scheme::custom("acme", "Acme-Signature")
    ///     .timestamp(TimestampSource::Header("Acme-Time", TimestampFormat::Seconds))
    ///     .parts(&[Part::Timestamp, Part::Literal("."), Part::Body])
    ///     .build()?;
    /// # Ok::<(), webhooks_sign::scheme::SchemeError>(())
    /// ```
    pub const fn custom(name: &'static str, signature_header: &'static str) -> SchemeBuilder {
        let scheme = Self { name, signature: signature_header, ..HEX_OF_BODY };
        SchemeBuilder { scheme, tolerance: None, may_join: false }
    }

    /// Checks what a scheme of one's own could get wrong.
    pub(crate) fn check(&self) -> Result<(), SchemeError> {
        if self.parts.iter().filter(|part| part.content().is_some()).count() != 1 {
            return Err(SchemeError::Body);
        }
        // A token signs nothing: whatever stands beside it, a stranger may have changed.
        let signs_nothing = self.algorithm == Algorithm::Token;
        if self.signs(Part::Timestamp) != self.timestamp.is_some()
            || self.signs(Part::Id) != self.id.is_some()
            || (signs_nothing && self.parts != [Part::Body])
        {
            return Err(SchemeError::Unsigned);
        }
        if !self.has_one_header_for_each() {
            return Err(SchemeError::Header);
        }
        let field = match (self.timestamp, self.grammar) {
            (Some(TimestampSource::Field(name, _)), Grammar::Fields { .. }) => Some(name),
            (Some(TimestampSource::Field(..)), _) => return Err(SchemeError::Field),
            _ => None,
        };
        if self.grammar.is_unambiguous(field) { Ok(()) } else { Err(SchemeError::Grammar) }
    }

    /// Returns whether each header that is looked at has a name that can be one, and its own.
    fn has_one_header_for_each(&self) -> bool {
        let mut names = self.headers();
        core::iter::from_fn(|| names.next().map(|name| (name, names.clone()))).all(
            |(name, mut behind)| {
                !name.is_empty()
                    && name.chars().all(is_token)
                    && !behind.any(|other| other.eq_ignore_ascii_case(name))
            },
        )
    }

    /// Returns whether the signed bytes can be made of these parts in one way alone, so that no
    /// byte can be moved from one part to another.
    fn has_one_split(&self) -> bool {
        let (ahead, behind) = self.around_body();
        // What stands ahead of the body is found from the start, and what stands behind it from
        // the end: the body may hold anything.
        let follows =
            ahead.iter().skip(1).map(|part| part.literal().and_then(|text| text.chars().next()));
        let ends =
            ahead.iter().zip(follows.chain([None])).all(|(part, next)| self.ends_at(*part, next));
        let precedes =
            behind.iter().map(|part| part.literal().and_then(|text| text.chars().next_back()));
        let begins = behind
            .iter()
            .zip([None].into_iter().chain(precedes))
            .all(|(part, last)| self.ends_at(*part, last));
        ends && begins
    }

    /// Returns whether a part ends where this character stands beside it.
    fn ends_at(&self, part: Part, beside: Option<char>) -> bool {
        let is_outside =
            |can_hold: fn(char) -> bool| beside.is_some_and(|beside| !can_hold(beside));
        match part {
            Part::Body | Part::Form | Part::Literal(_) | Part::Token => true,
            Part::Id => is_outside(|c| c.is_ascii_graphic() && c != '.'),
            Part::Method => is_outside(is_token),
            Part::Timestamp => match self.timestamp.map(TimestampSource::format) {
                // No such text is the start or the end of another.
                Some(TimestampFormat::Rfc3339) => true,
                _ => is_outside(|c| c.is_ascii_digit()),
            },
            // What RFC 3986 leaves out, as far as it is in ASCII.
            Part::Url => is_outside(|c| !(c.is_ascii_control() || " \"<>\\^`{|}".contains(c))),
        }
    }
}

impl Part {
    fn literal(self) -> Option<&'static str> {
        match self {
            Self::Literal(text) => Some(text),
            _ => None,
        }
    }
}

/// Returns whether a character may stand in a token (RFC 9110 §5.6.2): a header's name, a method.
fn is_token(character: char) -> bool {
    character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(character)
}

impl Grammar {
    /// Returns whether what it writes can be read back, the timestamp's field included.
    fn is_unambiguous(self, timestamp: Option<&str>) -> bool {
        match self {
            Self::One { prefix } => is_prefix(prefix),
            Self::List { separator, version } => {
                is_prefix(version) && is_separator(separator, version)
            }
            Self::Fields { separator, signature } => {
                let is_field = |name: &str| {
                    is_prefix(name) && is_separator(separator, name) && name.ends_with('=')
                };
                let is_other = |name: &str| {
                    is_field(name) && !name.starts_with(signature) && !signature.starts_with(name)
                };
                is_field(signature) && timestamp.is_none_or(is_other)
            }
        }
    }
}

/// Returns whether a text can stand before a signature, short enough and in a header.
fn is_prefix(text: &str) -> bool {
    let is_printable = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    text.len() <= MAX_PREFIX_LEN && text.bytes().all(is_printable) && !text.starts_with(' ')
}

/// Returns whether a character separates: it stands in no signature, timestamp or prefix.
fn is_separator(separator: u8, prefix: &str) -> bool {
    (separator == b' ' || separator.is_ascii_punctuation())
        && !b"+/=-_:.".contains(&separator)
        && !prefix.as_bytes().contains(&separator)
}

/// A scheme of one's own in the making; from [`Scheme::custom`].
#[derive(Debug, Clone, Copy)]
#[must_use = "a builder does nothing before `build`"]
pub struct SchemeBuilder {
    scheme: Scheme,
    /// Kept apart, to know whether it was set at all.
    tolerance: Option<Tolerance>,
    may_join: bool,
}

impl SchemeBuilder {
    /// Sets the algorithm.
    pub const fn algorithm(self, algorithm: Algorithm) -> Self {
        Self { scheme: Scheme { algorithm, ..self.scheme }, ..self }
    }

    /// Sets how signatures are written.
    pub const fn encoding(self, encoding: Encoding) -> Self {
        Self { scheme: Scheme { encoding, ..self.scheme }, ..self }
    }

    /// Sets how the header lists its signatures.
    pub const fn grammar(self, grammar: Grammar) -> Self {
        Self { scheme: Scheme { grammar, ..self.scheme }, ..self }
    }

    /// Sets the header that carries the id, which must be signed.
    pub const fn id(self, header: &'static str) -> Self {
        Self { scheme: Scheme { id: Some(header), ..self.scheme }, ..self }
    }

    /// Sets where the timestamp stands, which must be signed.
    pub const fn timestamp(self, source: TimestampSource) -> Self {
        Self { scheme: Scheme { timestamp: Some(source), ..self.scheme }, ..self }
    }

    /// Sets what is signed, in order.
    ///
    /// Between parts there must be a [`Part::Literal`] that tells where one ends: next to an id a
    /// `.` or what is not visible ASCII, next to a time in digits what is no digit, next to a URL
    /// or a method what neither can hold, such as a line feed. A time of RFC 3339 ends by itself.
    pub const fn parts(self, parts: &'static [Part]) -> Self {
        Self { scheme: Scheme { parts, ..self.scheme }, ..self }
    }

    /// Lets parts stand beside each other with nothing that tells where one ends: for a sender that
    /// exists already and signs so.
    ///
    /// Whoever saw a webhook can then move bytes from one part to another, such as from the body to
    /// the id, and have it handled again under that id.
    pub const fn dangerous_joined_parts(self) -> Self {
        Self { may_join: true, ..self }
    }

    /// Sets how far the timestamp may lie from the receiver's clock; 5 minutes unless set.
    pub const fn tolerance(self, tolerance: Tolerance) -> Self {
        Self { tolerance: Some(tolerance), ..self }
    }

    /// Sets how secrets are written.
    pub const fn key_format(self, key: KeyFormat) -> Self {
        Self { scheme: Scheme { key, ..self.scheme }, ..self }
    }

    /// Sets the JSON pointers of the fields that identify an event, as
    /// [`Scheme::event_id_fields`] returns them.
    pub const fn event_id_fields(self, pointers: &'static [&'static str]) -> Self {
        Self { scheme: Scheme { event_id: pointers, ..self.scheme }, ..self }
    }

    /// Sets the size in bytes of the sender's largest body.
    pub const fn max_body(self, bytes: usize) -> Self {
        Self { scheme: Scheme { max_body: Some(bytes), ..self.scheme }, ..self }
    }

    /// Returns the scheme.
    ///
    /// # Errors
    /// [`SchemeError`] when it would not protect what it seems to: the body or the timestamp is
    /// not signed, bytes could be moved between its parts, there is a tolerance for a timestamp that
    /// there is not, or a token is to protect more than itself; or when it could not read what it
    /// writes.
    pub fn build(self) -> Result<Scheme, SchemeError> {
        let Self { scheme, tolerance, may_join } = self;
        scheme.check()?;
        if !scheme.signs(Part::Body) {
            return Err(SchemeError::Body);
        }
        if !may_join && !scheme.has_one_split() {
            return Err(SchemeError::Joined);
        }
        match (tolerance, scheme.timestamp) {
            (Some(_), None) => Err(SchemeError::Unsigned),
            (Some(tolerance), Some(_)) => Ok(Scheme { tolerance, ..scheme }),
            (None, _) => Ok(scheme),
        }
    }
}

/// Says why a scheme of one's own cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SchemeError {
    /// The body is not signed, or twice.
    Body,
    /// The id or the timestamp is signed without a header to take it from, or the other way round,
    /// or a tolerance is set for a timestamp that is not signed, or any of them is to go with a
    /// token. What is not signed proves nothing: whoever replays the message changes it.
    Unsigned,
    /// The timestamp is to be in a field, but the grammar has none.
    Field,
    /// The name of a header is none, or one header is to carry two things.
    Header,
    /// Nothing tells where a part of the signed bytes ends, so that bytes could be moved from it to
    /// the next: see [`SchemeBuilder::parts`].
    Joined,
    /// What the grammar writes could not be read back: a prefix is longer than 32 bytes or not
    /// printable ASCII, a separator can stand in what it separates, or two fields have one name or
    /// a name without `=`.
    Grammar,
}

impl core::fmt::Display for SchemeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Body => "a scheme signs the body, once",
            Self::Unsigned => "what a header names must be signed, and the other way round",
            Self::Field => "only a grammar of fields can hold the timestamp",
            Self::Header => "a header's name is invalid or used twice",
            Self::Joined => "a literal must tell where each signed part ends",
            Self::Grammar => "a prefix is too long or a separator or name ambiguous",
        })
    }
}

impl core::error::Error for SchemeError {}
