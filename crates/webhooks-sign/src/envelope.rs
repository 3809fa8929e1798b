//! What is signed beside the body, given by the sender or read from headers.

use crate::headers::{Headers, single};
use crate::listed::Listed;
use crate::scheme::{Grammar, Part, Scheme, TimestampSource};
use crate::timestamp::parse;
use crate::{Error, SignError};

/// The longest id in bytes. The limit is ours; Standard Webhooks gives none.
const MAX_ID_LEN: usize = 256;

/// What may be signed beside the body. Which of it a scheme signs, the scheme says; the rest is
/// left empty.
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The id: 1 to 256 visible ASCII characters but `.`.
    pub id: &'a str,
    /// The timestamp in the scheme's form.
    pub timestamp: &'a str,
    /// The request's method.
    pub method: &'a str,
    /// The URL that the sender was given.
    pub url: &'a str,
}

/// What the headers said, checked as far as it can be without hashing.
pub(crate) struct Opened<'h> {
    pub(crate) id: Option<&'h str>,
    /// The timestamp in Unix seconds.
    pub(crate) timestamp: Option<u64>,
    /// The timestamp as it is written.
    pub(crate) timestamp_text: &'h str,
    pub(crate) listed: Listed,
}

impl<'a> Envelope<'a> {
    /// Returns the bytes of a part other than the body.
    pub(crate) fn part(&self, part: Part) -> &'a [u8] {
        match part {
            Part::Body => b"",
            Part::Id => self.id.as_bytes(),
            Part::Literal(text) => text.as_bytes(),
            Part::Method => self.method.as_bytes(),
            Part::Timestamp => self.timestamp.as_bytes(),
            Part::Url => self.url.as_bytes(),
        }
    }

    /// Refuses to sign what a verifier would refuse.
    pub(crate) fn check(&self, scheme: &Scheme) -> Result<(), SignError> {
        if scheme.signs(Part::Id) && !is_valid_id(self.id.as_bytes()) {
            return Err(SignError::InvalidId);
        }
        if let Some(source) = scheme.timestamp {
            parse(self.timestamp, source.format()).or(Err(SignError::InvalidTimestamp))?;
        }
        let is_missing = |part, value: &str| scheme.signs(part) && value.is_empty();
        if is_missing(Part::Method, self.method) || is_missing(Part::Url, self.url) {
            return Err(SignError::MissingPart);
        }
        Ok(())
    }
}

impl Scheme {
    /// Reads the headers, refusing whatever needs no hashing to refuse.
    pub(crate) fn open<'h>(
        &self,
        headers: &'h (impl Headers + ?Sized),
    ) -> Result<Opened<'h>, Error> {
        let signature = single(headers, self.signature)?;
        let id = match self.id {
            Some(name) => Some(check_id(single(headers, name)?)?),
            None => None,
        };
        let (timestamp, timestamp_text) = match self.timestamp {
            Some(source) => {
                let text = match source {
                    TimestampSource::Field(name, _) => self.field(signature, name)?,
                    TimestampSource::Header(name, _) => single(headers, name)?,
                };
                let text = str::from_utf8(text).or(Err(Error::InvalidTimestamp))?;
                (Some(parse(text, source.format())?), text)
            }
            None => (None, ""),
        };
        let listed = Listed::read(self, signature)?;
        Ok(Opened { id, timestamp, timestamp_text, listed })
    }

    /// Returns the one field of this name.
    fn field<'h>(&self, signature: &'h [u8], name: &str) -> Result<&'h [u8], Error> {
        let Grammar::Fields { separator, .. } = self.grammar else {
            return Err(Error::InvalidHeader);
        };
        let mut values = signature
            .split(|byte| *byte == separator)
            .filter_map(|field| field.trim_ascii().strip_prefix(name.as_bytes()));
        match (values.next(), values.next()) {
            (Some(value), None) if !value.is_empty() => Ok(value),
            _ => Err(Error::InvalidHeader),
        }
    }
}

/// Standard Webhooks 1.0, "Signature scheme": id and timestamp must not be user controlled, "or at
/// the very least not be allowed to include any `.`", or a part of one could pass for the other.
fn is_valid_id(id: &[u8]) -> bool {
    (1..=MAX_ID_LEN).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.')
}

fn check_id(id: &[u8]) -> Result<&str, Error> {
    match str::from_utf8(id) {
        Ok(text) if is_valid_id(id) => Ok(text),
        _ => Err(Error::InvalidHeader),
    }
}
