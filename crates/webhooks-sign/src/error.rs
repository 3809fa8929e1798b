//! Errors. None holds a secret, a computed value or a part of the message.

use core::fmt;

use crate::encoding::Encoding;
use crate::grammar::TimestampFormat;

/// The reason why a webhook was refused.
///
/// Answer 400 if it [`is_malformed`](Self::is_malformed), 500 if it [`is_misuse`](Self::is_misuse),
/// which is a mistake of yours, and 401 otherwise: it is forged, or [stale](Self::is_stale). Don't
/// tell the sender why: the reason is for your log.
///
/// # Example
/// ```
/// use webhooks_sign::Error;
///
/// fn status(error: Error) -> u16 {
///     match error {
///         _ if error.is_misuse() => 500,
///         _ if error.is_malformed() => 400,
///         _ => 401,
///     }
/// }
/// let header = "webhook-id";
/// assert_eq!(status(Error::MissingHeader { header }), 400);
/// assert_eq!(status(Error::TimestampTooOld { age: 400, tolerance: 300 }), 401);
/// assert_eq!(status(Error::UnsuitableKey), 500);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Error {
    /// A header that the scheme needs is missing.
    MissingHeader {
        /// Its name.
        header: &'static str,
    },
    /// A header is there more than once, so that it is undefined which one counts.
    DuplicateHeader {
        /// Its name.
        header: &'static str,
    },
    /// A header does not follow its grammar.
    InvalidHeader {
        /// Its name.
        header: &'static str,
        /// The form that the scheme asks for.
        expected: Expected,
    },
    /// The timestamp is not in the scheme's form.
    InvalidTimestamp {
        /// The form that it should have.
        expected: TimestampFormat,
    },
    /// The timestamp lies further back than the tolerance allows: stale, or replayed.
    TimestampTooOld {
        /// Its age in seconds.
        age: u64,
        /// The greatest age in seconds.
        tolerance: u64,
    },
    /// The timestamp lies further ahead than the tolerance allows: a clock is wrong.
    TimestampTooNew {
        /// Its lead in seconds.
        lead: u64,
        /// The furthest lead in seconds.
        tolerance: u64,
    },
    /// The header lists more than 16 items or fields, of any version and including the time, or more
    /// than 4 signatures by a curve (ed25519, P-256), which cost far more.
    TooManySignatures {
        /// Its name.
        header: &'static str,
    },
    /// The header lists no well-formed signature of the scheme's version, so there is nothing to
    /// compare: the signatures are of other versions, or lack the prefix.
    NoneListed {
        /// Its name.
        header: &'static str,
        /// The form of a signature.
        expected: Expected,
    },
    /// No listed signature fits any key: the webhook is forged, was changed on the way, or was signed
    /// with another key.
    NoMatch,
    /// The scheme signs the method or the URL, and the verifier was not given it: a mistake on this
    /// side.
    MissingPart,
    /// The scheme signs another [`Content`](crate::scheme::Content) than was given: a form is verified
    /// by [`Verifier::verify_form`](crate::Verifier::verify_form), a token by
    /// [`Verifier::verify_token`](crate::Verifier::verify_token), and a body by neither. A mistake on
    /// this side.
    OtherContent,
    /// The ring is empty or holds a key of another algorithm: a mistake on this side.
    UnsuitableKey,
}

impl Error {
    /// Returns whether the request breaks the scheme's grammar. One that is stale or forged is
    /// well-formed.
    pub fn is_malformed(self) -> bool {
        // Not `NoneListed`: a header may list versions that are unknown here; receivers skip them.
        matches!(
            self,
            Self::MissingHeader { .. }
                | Self::DuplicateHeader { .. }
                | Self::InvalidHeader { .. }
                | Self::InvalidTimestamp { .. }
                | Self::TooManySignatures { .. }
        )
    }

    /// Returns whether the timestamp is too far from the receiver's clock: the message is stale or
    /// replayed, or a clock is wrong. The signature was not checked.
    pub fn is_stale(self) -> bool {
        matches!(self, Self::TimestampTooOld { .. } | Self::TimestampTooNew { .. })
    }

    /// Returns whether the mistake is on this side: the request was not checked.
    pub fn is_misuse(self) -> bool {
        matches!(self, Self::MissingPart | Self::OtherContent | Self::UnsuitableKey)
    }

    /// Returns the error's name in snake case, for metrics: `missing_header`.
    pub fn name(self) -> &'static str {
        match self {
            Self::MissingHeader { .. } => "missing_header",
            Self::DuplicateHeader { .. } => "duplicate_header",
            Self::InvalidHeader { .. } => "invalid_header",
            Self::InvalidTimestamp { .. } => "invalid_timestamp",
            Self::TimestampTooOld { .. } => "timestamp_too_old",
            Self::TimestampTooNew { .. } => "timestamp_too_new",
            Self::TooManySignatures { .. } => "too_many_signatures",
            Self::NoneListed { .. } => "none_listed",
            Self::NoMatch => "no_match",
            Self::MissingPart => "missing_part",
            Self::OtherContent => "other_content",
            Self::UnsuitableKey => "unsuitable_key",
        }
    }
}

/// The lead in seconds above which a timestamp was probably meant in milliseconds: a century.
const CENTURY: u64 = 100 * 365 * 24 * 60 * 60;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingHeader { header } => write!(f, "the header {header:?} is missing"),
            Self::DuplicateHeader { header } => {
                write!(f, "the header {header:?} is given more than once")
            }
            Self::InvalidHeader { header, expected } => {
                write!(f, "the header {header:?} is malformed: expected {expected}")
            }
            Self::InvalidTimestamp { expected } => {
                write!(f, "the timestamp is malformed: expected {expected}")
            }
            Self::TimestampTooOld { age, tolerance } => {
                write!(f, "the timestamp is {age} s old; at most {tolerance} s are allowed")
            }
            Self::TimestampTooNew { lead, .. } if *lead > CENTURY => {
                f.write_str("the timestamp lies centuries ahead: is it in milliseconds?")
            }
            Self::TimestampTooNew { lead, tolerance } => {
                write!(f, "the timestamp is {lead} s ahead; at most {tolerance} s are allowed")
            }
            Self::TooManySignatures { header } => {
                write!(f, "the header {header:?} lists too many signatures")
            }
            Self::NoneListed { header, expected } => {
                write!(f, "the header {header:?} lists no signature of the form {expected}")
            }
            Self::NoMatch => f.write_str(
                "no signature matches: another secret signed it, or the body was changed",
            ),
            Self::MissingPart => {
                f.write_str("the verifier was not told the method or URL that is signed")
            }
            Self::OtherContent => {
                f.write_str("the scheme signs a form or a token in place of the body, or neither")
            }
            Self::UnsuitableKey => {
                f.write_str("the key ring is empty or its keys are for another algorithm")
            }
        }
    }
}

impl core::error::Error for Error {}

/// The form of a header's value, in an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Expected {
    /// Named fields, such as `t=…,v1=…`; the name is that of the field that was expected.
    Field(&'static str),
    /// An id of 1 to 256 visible ASCII characters except `.`.
    Id,
    /// A signature: a prefix and an encoding.
    Signature(&'static str, Encoding),
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => {
                write!(f, "one field \"{name}…\" beside others of the form name=value")
            }
            Self::Id => f.write_str("1 to 256 visible ASCII characters without '.'"),
            Self::Signature(prefix, encoding) => write!(f, "\"{prefix}<{encoding}>\""),
        }
    }
}

/// The reason why a secret cannot be a key. It holds nothing of the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyError {
    /// The secret has no bytes: anybody could sign.
    Empty,
    /// The text is not in the form of the scheme, such as padded base64 (RFC 4648 §4) or hexadecimal.
    Encoding {
        /// The form of the scheme.
        expected: Encoding,
    },
    /// The prefix is not that of the scheme's keys: `whsec_` for HMAC, `whpk_` or `whsk_` for
    /// ed25519.
    Prefix {
        /// The prefix of the scheme's keys.
        expected: &'static str,
    },
    /// The prefix is spelt differently, such as `WHSEC_` or `whsec-`.
    PrefixSpelling {
        /// The right spelling.
        expected: &'static str,
    },
    /// The prefix is there, but after other text, such as the `v1,` that Supabase shows.
    PrefixInside {
        /// The prefix that the secret starts with.
        expected: &'static str,
    },
    /// White space, a line break, quotes or a byte order mark surround the secret.
    Surrounded,
    /// The text is a secret of Standard Webhooks, in which the key is written as base64. It was given
    /// as the key itself.
    StandardSecret,
    /// The text is an ed25519 key. One half of such a key is public, so it never becomes an HMAC key.
    Asymmetric,
    /// The length of the key is not one that Standard Webhooks 1.0, "Signature scheme", or the
    /// algorithm allows.
    Length {
        /// The fewest bytes.
        min: usize,
        /// The most bytes.
        max: usize,
    },
    /// The key is no point of its curve, a weak one, or its public half belongs to another secret.
    Curve,
    /// The key is for another algorithm, or keys of the algorithm are made by another constructor.
    Algorithm,
    /// The key ring is full.
    Full,
    /// The writer refused the text.
    Write,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the secret is empty"),
            Self::Encoding { expected } => write!(f, "the secret is not {expected}"),
            Self::Prefix { expected } => {
                write!(f, "the secret does not start with {expected:?}")
            }
            Self::PrefixSpelling { expected } => {
                write!(f, "the secret's prefix is spelt {expected:?}")
            }
            Self::PrefixInside { expected } => {
                write!(f, "text stands before {expected:?} in the secret: remove it")
            }
            Self::Surrounded => {
                f.write_str("white space, a line break or quotes surround the secret: remove them")
            }
            Self::StandardSecret => f.write_str(
                "the text is a secret of Standard Webhooks, not a key itself: use `Key::standard`",
            ),
            Self::Asymmetric => {
                f.write_str("the text is an ed25519 key, which is no shared secret")
            }
            Self::Length { min, max } if min == max => {
                write!(f, "the key does not have {min} bytes")
            }
            Self::Length { min, max } => {
                write!(f, "the key does not have {min} to {max} bytes")
            }
            Self::Curve => f.write_str("the key is not a valid point of its curve"),
            Self::Algorithm => f.write_str("the algorithm takes no such key"),
            Self::Full => f.write_str("the key ring is full"),
            Self::Write => f.write_str("the key could not be written"),
        }
    }
}

impl core::error::Error for KeyError {}

/// The reason why a message cannot be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SignError {
    /// The id is empty, longer than 256 bytes, or has a character that is not visible ASCII, or a
    /// `.`; receivers would refuse it.
    InvalidId,
    /// The timestamp is not in the scheme's form.
    InvalidTimestamp,
    /// The scheme signs the method or the URL, and it is not given.
    MissingPart,
    /// The scheme signs another [`Content`](crate::scheme::Content) than was given.
    OtherContent,
    /// There is no key, there are more than a header may list signatures, or one is for another
    /// algorithm or can only verify.
    UnsuitableKey,
    /// The writer refused the text, or the buffer is too small.
    Write,
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidId => "the id is empty, too long, or has a '.' or invisible character",
            Self::InvalidTimestamp => "the timestamp is malformed",
            Self::MissingPart => "the method or URL that is signed is missing",
            Self::OtherContent => {
                "the scheme signs a form or a token in place of the body, or neither"
            }
            Self::UnsuitableKey => "there is no key, too many, or one for another algorithm",
            Self::Write => "the signature could not be written",
        })
    }
}

impl core::error::Error for SignError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_is_of_one_kind() {
        let check = |error: Error, kinds: [bool; 3]| {
            let found = [error.is_malformed(), error.is_stale(), error.is_misuse()];
            assert_eq!(found, kinds, "{error:?}");
        };
        let header = "webhook-id";
        for error in [
            Error::MissingHeader { header },
            Error::DuplicateHeader { header },
            Error::InvalidHeader { header, expected: Expected::Id },
            Error::InvalidTimestamp { expected: TimestampFormat::Seconds },
            Error::TooManySignatures { header },
        ] {
            check(error, [true, false, false]);
        }
        check(Error::TimestampTooOld { age: 2, tolerance: 1 }, [false, true, false]);
        check(Error::TimestampTooNew { lead: 2, tolerance: 1 }, [false, true, false]);
        check(Error::MissingPart, [false, false, true]);
        check(Error::OtherContent, [false, false, true]);
        check(Error::UnsuitableKey, [false, false, true]);
        // Forged.
        check(Error::NoMatch, [false; 3]);
        check(Error::NoneListed { header, expected: Expected::Id }, [false; 3]);
    }
}
