//! The values that schemes are made of: forms of headers and secrets, and the parts that are signed.

/// The form in which the signature header lists its signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Grammar {
    /// One signature behind a prefix, which may be empty: `sha256=…`.
    One {
        /// The text before the signature.
        prefix: &'static str,
    },
    /// Signatures behind a version; those of other versions are skipped: `v1,… v1a,…`.
    List {
        /// The character between the items.
        separator: u8,
        /// The text before each signature of this scheme.
        version: &'static str,
    },
    /// Named fields, of which the timestamp may be one: `t=…,v1=…,v1=…`.
    Fields {
        /// The character between the fields.
        separator: u8,
        /// The text before each signature of this scheme, `=` included.
        signature: &'static str,
    },
}

/// The place of the timestamp, and its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimestampSource {
    /// In a field of the signature header, whose name is given with its `=`.
    Field(&'static str, TimestampFormat),
    /// In a header of its own.
    Header(&'static str, TimestampFormat),
}

impl TimestampSource {
    pub(crate) fn format(self) -> TimestampFormat {
        match self {
            Self::Field(_, format) | Self::Header(_, format) => format,
        }
    }
}

/// The form of a timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimestampFormat {
    /// Milliseconds since 1970, in decimal.
    Milliseconds,
    /// RFC 3339: `2026-01-01T00:00:00Z` or `2026-01-01T00:00:00-07:00`, with or without a fraction
    /// of a second.
    Rfc3339,
    /// Seconds since 1970, in decimal.
    Seconds,
}

impl core::fmt::Display for TimestampFormat {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Milliseconds => "milliseconds since 1970 in decimal",
            Self::Rfc3339 => "RFC 3339 in UTC",
            Self::Seconds => "seconds since 1970 in decimal",
        })
    }
}

/// A part of the signed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// The body as it came.
    Body,
    /// In place of the body, the fields of the form in it: each decoded name and value, sorted.
    Form,
    /// The id.
    Id,
    /// A fixed text.
    Literal(&'static str),
    /// The request's method, such as `POST`.
    Method,
    /// The timestamp as it is written.
    Timestamp,
    /// In place of the body, a token that stands in it.
    Token,
    /// The URL that the sender was given. Never rebuild it from the `Host` header.
    Url,
}

impl Part {
    /// Returns the content of the body that the part stands for, if it stands for any.
    #[inline]
    pub(crate) fn content(self) -> Option<Content> {
        match self {
            Self::Body => Some(Content::Body),
            Self::Form => Some(Content::Form),
            Self::Token => Some(Content::Token),
            Self::Id | Self::Literal(_) | Self::Method | Self::Timestamp | Self::Url => None,
        }
    }
}

/// The content of the body that a scheme signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content {
    /// The body as it came: verified by [`Verifier::verify`](crate::Verifier::verify) and
    /// [`Verifier::begin`](crate::Verifier::begin).
    Body,
    /// The fields of a form, sorted: verified by
    /// [`Verifier::verify_form`](crate::Verifier::verify_form). A body that is no form is not signed,
    /// but its hash is in the URL:
    /// [`Verifier::verify_hashed_body`](crate::Verifier::verify_hashed_body).
    Form,
    /// A token in the body and nothing else of it: verified by
    /// [`Verifier::verify_token`](crate::Verifier::verify_token).
    Token,
}

/// The form in which the secrets of a scheme are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyFormat {
    /// Padded base64 (RFC 4648 §4).
    Base64,
    /// Hexadecimal.
    Hex,
    /// That of Standard Webhooks: a prefix and base64.
    Standard,
    /// That of Standard Webhooks if the text starts with `whsec_`; otherwise the text is the key.
    StandardOrText,
    /// The text is the key, whatever it looks like.
    Text,
}
