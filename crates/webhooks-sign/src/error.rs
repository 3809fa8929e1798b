//! What can go wrong. No error holds a secret, a computed value or a part of the message.

use core::fmt;

/// Says why a webhook was refused.
///
/// Answer 400 when [`is_malformed`](Self::is_malformed), 500 when [`is_misuse`](Self::is_misuse),
/// which is a mistake of yours, and 401 otherwise: forged, or [stale](Self::is_stale). Don't tell
/// the sender why: the reason is for your log.
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
/// assert_eq!(status(Error::InvalidHeader), 400);
/// assert_eq!(status(Error::TimestampTooOld), 401);
/// assert_eq!(status(Error::UnsuitableKey), 500);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Error {
    /// A header that the scheme needs is missing.
    MissingHeader,
    /// A header is there more than once, so that nobody can say which one counts.
    DuplicateHeader,
    /// A header does not follow its grammar.
    InvalidHeader,
    /// The timestamp is not in the scheme's form.
    InvalidTimestamp,
    /// The timestamp lies further back than the tolerance allows: stale, or replayed.
    TimestampTooOld,
    /// The timestamp lies further ahead than the tolerance allows: a clock is wrong.
    TimestampTooNew,
    /// The header lists more than 16 items or fields, of whatever version and the time among them,
    /// or more than 4 signatures by a curve (ed25519, P-256), each of which costs far more.
    TooManySignatures,
    /// No listed signature fits any key: forged, changed on the way, or signed with another key.
    NoMatch,
    /// The scheme signs the method or the URL, and the verifier was not told it: a mistake on this
    /// side.
    MissingPart,
    /// The scheme signs other [`Content`](crate::Content) than was given: a form is verified by
    /// [`Verifier::verify_form`](crate::Verifier::verify_form), a token by
    /// [`Verifier::verify_token`](crate::Verifier::verify_token), and a body by neither. A mistake on
    /// this side.
    OtherContent,
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

    /// Returns whether the timestamp is too far from the receiver's clock: the message is stale or
    /// replayed, or a clock is wrong. Whether it is forged was not looked at.
    pub fn is_stale(self) -> bool {
        matches!(self, Self::TimestampTooOld | Self::TimestampTooNew)
    }

    /// Returns whether the mistake is on this side: the request was not looked at.
    pub fn is_misuse(self) -> bool {
        matches!(self, Self::MissingPart | Self::OtherContent | Self::UnsuitableKey)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MissingHeader => "a signature header is missing",
            Self::DuplicateHeader => "a signature header is given more than once",
            Self::InvalidHeader => "a signature header is malformed",
            Self::InvalidTimestamp => "the timestamp is malformed",
            Self::TimestampTooOld => "the timestamp is too old",
            Self::TimestampTooNew => "the timestamp is too far in the future",
            Self::TooManySignatures => "too many signatures are listed",
            Self::NoMatch => "no signature matches",
            Self::MissingPart => "the verifier was not told the method or URL that is signed",
            Self::OtherContent => {
                "the scheme signs a form or a token in place of the body, or neither"
            }
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
    /// The text is not in the form of the scheme: padded base64 (RFC 4648 §4) or hexadecimal.
    Encoding,
    /// The prefix is not that of the scheme's keys: `whsec_` for HMAC, `whpk_` or `whsk_` for
    /// ed25519.
    Prefix,
    /// The key has another length than Standard Webhooks 1.0, "Signature scheme", or the algorithm
    /// asks for.
    Length,
    /// The key is no point of its curve, a weak one, or its public half belongs to another secret.
    Curve,
    /// The key is for another algorithm, or the algorithm's keys are read otherwise.
    Algorithm,
    /// The key ring is full.
    Full,
    /// The writer refused the text.
    Write,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the secret is empty",
            Self::Encoding => "the secret is not encoded as its scheme says",
            Self::Prefix => "the secret does not start with the prefix of its scheme",
            Self::Length => "the secret has the wrong length",
            Self::Curve => "the key is not a valid point of its curve",
            Self::Algorithm => "the algorithm takes no such key",
            Self::Full => "the key ring is full",
            Self::Write => "the key could not be written",
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
    /// The timestamp is not in the scheme's form.
    InvalidTimestamp,
    /// The scheme signs the method or the URL, and it is not given.
    MissingPart,
    /// The scheme signs other [`Content`](crate::Content) than was given.
    OtherContent,
    /// No key is given, more are than a header may list signatures, or one is for another algorithm
    /// or for verifying alone.
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
        for error in [
            Error::MissingHeader,
            Error::DuplicateHeader,
            Error::InvalidHeader,
            Error::InvalidTimestamp,
            Error::TooManySignatures,
        ] {
            check(error, [true, false, false]);
        }
        check(Error::TimestampTooOld, [false, true, false]);
        check(Error::TimestampTooNew, [false, true, false]);
        check(Error::MissingPart, [false, false, true]);
        check(Error::OtherContent, [false, false, true]);
        check(Error::UnsuitableKey, [false, false, true]);
        // Forged.
        check(Error::NoMatch, [false; 3]);
    }
}
