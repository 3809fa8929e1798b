//! Schemes for private senders, checked when they are built.

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

    /// Starts a scheme of your own that is like this one: for a sender that follows a provider except in
    /// one point, and for finding out in which.
    ///
    /// # Example
    /// ```
    /// use webhooks_sign::Algorithm;
    /// use webhooks_sign::providers::GITHUB;
    ///
    /// let like_github = GITHUB.customized().algorithm(Algorithm::HmacSha512).build()?;
    /// # Ok::<(), webhooks_sign::scheme::SchemeError>(())
    /// ```
    pub const fn customized(&self) -> SchemeBuilder {
        let scheme = Self { twin: None, ..*self };
        SchemeBuilder { scheme, tolerance: None, may_join: false }
    }

    /// Checks the rules for all schemes, also those of the providers.
    pub(crate) fn check(&self) -> Result<(), SchemeError> {
        if self.parts.iter().filter(|part| part.content().is_some()).count() != 1 {
            return Err(SchemeError::Body);
        }
        // A token signs nothing: a stranger may have changed all that stands beside it.
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

    /// Returns whether each header has a valid name that no other header has.
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

    /// Returns whether the signed bytes can be split into these parts in only one way, so that no byte
    /// can be moved from one part to another.
    fn has_one_split(&self) -> bool {
        let (ahead, behind) = self.around_body();
        // The parts before the body are read from the start, those after it from the end: the body
        // itself may hold any bytes.
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

    /// Returns whether a part ends before or after this character, because it cannot hold it.
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
            // The ASCII characters that RFC 3986 leaves out.
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

/// Returns whether a text can stand before a signature: short enough, and valid in a header.
fn is_prefix(text: &str) -> bool {
    let is_printable = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    text.len() <= MAX_PREFIX_LEN && text.bytes().all(is_printable) && !text.starts_with(' ')
}

/// Returns whether a character can separate items: no signature, timestamp or prefix holds it.
fn is_separator(separator: u8, prefix: &str) -> bool {
    (separator == b' ' || separator.is_ascii_punctuation())
        && !b"+/=-_:.".contains(&separator)
        && !prefix.as_bytes().contains(&separator)
}

/// Builds a scheme for a private sender; returned by [`Scheme::custom`].
#[derive(Debug, Clone, Copy)]
#[must_use = "a builder does nothing before `build`"]
pub struct SchemeBuilder {
    scheme: Scheme,
    /// Apart from the scheme, to know whether it was set at all.
    tolerance: Option<Tolerance>,
    may_join: bool,
}

impl SchemeBuilder {
    /// Sets the algorithm.
    pub const fn algorithm(self, algorithm: Algorithm) -> Self {
        Self { scheme: Scheme { algorithm, ..self.scheme }, ..self }
    }

    /// Sets the encoding of the signatures.
    pub const fn encoding(self, encoding: Encoding) -> Self {
        Self { scheme: Scheme { encoding, ..self.scheme }, ..self }
    }

    /// Sets the form in which the header lists its signatures.
    pub const fn grammar(self, grammar: Grammar) -> Self {
        Self { scheme: Scheme { grammar, ..self.scheme }, ..self }
    }

    /// Sets the header that carries the id, which must be signed.
    pub const fn id(self, header: &'static str) -> Self {
        Self { scheme: Scheme { id: Some(header), ..self.scheme }, ..self }
    }

    /// Sets the place of the timestamp, which must be signed.
    pub const fn timestamp(self, source: TimestampSource) -> Self {
        Self { scheme: Scheme { timestamp: Some(source), ..self.scheme }, ..self }
    }

    /// Sets the parts that are signed, in order.
    ///
    /// Between parts there must be a [`Part::Literal`] that shows where one ends: a character that the
    /// part cannot hold. Next to an id this is `.` or a character that is not visible ASCII. Next to a
    /// time in digits it is any character except a digit. Next to a URL or a method it is one that
    /// neither can hold, such as a line feed. A time of RFC 3339 needs none.
    pub const fn parts(self, parts: &'static [Part]) -> Self {
        Self { scheme: Scheme { parts, ..self.scheme }, ..self }
    }

    /// Signs the body alone: without id and timestamp, so that a message can be replayed.
    pub const fn body_alone(self) -> Self {
        Self {
            scheme: Scheme { id: None, timestamp: None, parts: &[Part::Body], ..self.scheme },
            ..self
        }
    }

    /// Allows parts side by side without a literal between them, for a sender that exists already and
    /// signs so.
    ///
    /// Somebody who saw a webhook can then move bytes from one part to another, such as from the body
    /// to the id, and send it again: it is handled again, under the other id.
    pub const fn dangerous_joined_parts(self) -> Self {
        Self { may_join: true, ..self }
    }

    /// Sets the tolerance for the timestamp; 5 minutes unless set.
    pub const fn tolerance(self, tolerance: Tolerance) -> Self {
        Self { tolerance: Some(tolerance), ..self }
    }

    /// Sets the form of the secrets.
    pub const fn key_format(self, key: KeyFormat) -> Self {
        Self { scheme: Scheme { key, ..self.scheme }, ..self }
    }

    /// Sets the JSON pointers of the fields that identify an event, which
    /// [`Scheme::event_id_fields`] returns.
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
    /// [`SchemeError`] when the scheme would not protect what it seems to protect: the body or the
    /// timestamp is not signed, bytes could be moved between its parts, there is a tolerance and no
    /// timestamp, or a token has to protect more than itself. Also when the scheme could not read what
    /// it writes.
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

/// The reason why a scheme cannot be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SchemeError {
    /// The body is not signed, or is signed twice.
    Body,
    /// The id or the timestamp is signed and has no header, or has a header and is not signed. Or a
    /// tolerance is set and no timestamp, or a token is combined with an id or a timestamp. An id or
    /// a timestamp that is not signed proves nothing: a replay of the message can change it.
    Unsigned,
    /// The timestamp is in a field, and the grammar has no fields.
    Field,
    /// The name of a header is invalid, or one header would carry two values.
    Header,
    /// No literal shows where a part of the signed bytes ends, so bytes could be moved from it to the
    /// next: see [`SchemeBuilder::parts`].
    Joined,
    /// A header in this grammar could not be read back: a prefix is longer than 32 bytes or not
    /// printable ASCII, a separator can occur in an item, or two fields have the same name or one has
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
