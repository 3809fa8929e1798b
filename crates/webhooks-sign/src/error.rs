//! What can go wrong. No error holds a secret, a computed value or a part of the message.

use core::fmt;

/// Says why a webhook was refused.
///
/// Answer 400 when [`is_malformed`](Self::is_malformed), 401 otherwise, and don't tell the sender
/// which: the reason is for your log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Error {
    /// A header that the scheme needs is missing.
    MissingHeader,
    /// A header is there more than once, so that nobody can say which one counts.
    DuplicateHeader,
    /// A header does not follow its grammar.
    InvalidHeader,
    /// The timestamp is not a plain decimal number of seconds.
    InvalidTimestamp,
    /// The timestamp lies further back than the tolerance allows: stale, or replayed.
    TimestampTooOld,
    /// The timestamp lies further ahead than the tolerance allows: a clock is wrong.
    TimestampTooNew,
    /// More than 16 signatures are listed.
    TooManySignatures,
    /// No listed signature fits any key: forged, changed on the way, or signed with another key.
    NoMatch,
    /// The ring is empty or holds a key of another algorithm: a mistake on this side.
    UnsuitableKey,
}

impl Error {
    /// Returns whether the request breaks the scheme's grammar, as against one that is well-formed
    /// but stale or forged.
    pub fn is_malformed(self) -> bool {
        matches!(
            self,
            Self::MissingHeader
                | Self::DuplicateHeader
                | Self::InvalidHeader
                | Self::InvalidTimestamp
                | Self::TooManySignatures
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MissingHeader => "a signature header is missing",
            Self::DuplicateHeader => "a signature header is given more than once",
            Self::InvalidHeader => "a signature header is malformed",
            Self::InvalidTimestamp => "the timestamp is not a decimal number of seconds",
            Self::TimestampTooOld => "the timestamp is too old",
            Self::TimestampTooNew => "the timestamp is too far in the future",
            Self::TooManySignatures => "too many signatures are listed",
            Self::NoMatch => "no signature matches",
            Self::UnsuitableKey => "the key ring is empty or its keys are for another algorithm",
        })
    }
}

impl core::error::Error for Error {}

/// Says why a secret cannot be a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyError {
    /// The secret has no bytes: anybody could sign.
    Empty,
    /// The text is not base64 (RFC 4648 §4, padded) behind its prefix.
    Encoding,
    /// The text has another prefix than `whsec_`.
    Prefix,
    /// The secret is not 24 to 64 bytes long (Standard Webhooks 1.0, "Signature scheme").
    Length,
    /// The key ring is full.
    Full,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the secret is empty",
            Self::Encoding => "the secret is not padded base64 behind its prefix",
            Self::Prefix => "the secret does not start with whsec_",
            Self::Length => "the secret is not 24 to 64 bytes long",
            Self::Full => "the key ring is full",
        })
    }
}

impl core::error::Error for KeyError {}

/// Says why a message cannot be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SignError {
    /// The id is empty, longer than 256 bytes, or has a character that is not visible ASCII, or a
    /// `.`; receivers would refuse it.
    InvalidId,
    /// No key is given, more than 16 are, or one is for another algorithm.
    UnsuitableKey,
    /// The writer refused the text, or the buffer is too small.
    Write,
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidId => "the id is empty, too long, or has a '.' or invisible character",
            Self::UnsuitableKey => "there is no key, too many, or one for another algorithm",
            Self::Write => "the signature could not be written",
        })
    }
}

impl core::error::Error for SignError {}
