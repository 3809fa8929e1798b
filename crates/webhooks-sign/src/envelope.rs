//! What is signed beside the body, given by the sender or read from headers.

use core::fmt;

use subtle::Choice;

use crate::check::Check;
use crate::headers::single;
use crate::key::Kind;
use crate::listed::{Listed, MAX_HEADERS};
use crate::matched::Matched;
use crate::scheme::{Grammar, Part, Scheme, TimestampSource};
use crate::timestamp::parse;
use crate::{Error, Expected, Headers, Key, KeyRing, SignError, Verified, Verifier};

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
#[derive(Clone, Copy, Default, PartialEq, Eq)]
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

/// What the headers said, checked as far as it can be without hashing.
pub(crate) struct Opened<'s, 'h> {
    verifier: Verifier<'s>,
    /// Visible ASCII.
    id: Option<&'h [u8]>,
    /// The timestamp in Unix seconds.
    timestamp: Option<u64>,
    /// The timestamp as it is written.
    timestamp_text: &'h [u8],
    listed: Listed<'s, 'h>,
}

/// The bytes of an envelope: a receiver need not know that the timestamp is text.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    id: &'a [u8],
    timestamp: &'a [u8],
    method: &'a [u8],
    url: &'a [u8],
}

impl<'a> Parts<'a> {
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

    /// Returns all that a scheme signs, in order.
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
    pub(crate) fn parts(&self) -> Parts<'a> {
        Parts {
            id: self.id.as_bytes(),
            timestamp: self.timestamp.as_bytes(),
            method: self.method.as_bytes(),
            url: self.url.as_bytes(),
        }
    }

    /// Refuses to sign what a verifier would refuse.
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

impl<'s, 'h> Opened<'s, 'h> {
    /// Holds nothing that could match before [`read`](Self::read), which fills it where it lies, as
    /// [`Listed::read`] does.
    #[inline]
    pub(crate) fn new(verifier: Verifier<'s>) -> Self {
        let listed = Listed::new(verifier.scheme);
        Self { verifier, id: None, timestamp: None, timestamp_text: b"", listed }
    }

    /// Reads the headers, refusing whatever needs no hashing to refuse.
    #[inline]
    pub(crate) fn read(
        &mut self,
        headers: &'h (impl Headers + ?Sized),
        now: u64,
    ) -> Result<(), Error> {
        let Verifier { scheme, tolerance, .. } = self.verifier;
        self.verifier.check_given()?;
        let (signature, several) = if scheme.more_signatures.is_empty() {
            (single(headers, scheme.signature)?, None)
        } else {
            (&b""[..], Some(scheme.signature_values(headers)?))
        };
        if let Some(name) = scheme.id {
            self.id = Some(check_id(name, single(headers, name)?)?);
        }
        if let Some(source) = scheme.timestamp {
            let text = match source {
                TimestampSource::Field(name, _) => scheme.field(signature, name)?,
                TimestampSource::Header(name, _) => single(headers, name)?,
            };
            let timestamp = parse(text, source.format())?;
            tolerance.check(timestamp, now)?;
            (self.timestamp, self.timestamp_text) = (Some(timestamp), text);
        }
        match several {
            None => self.listed.read(signature),
            Some(values) => self.listed.read_all(values),
        }
    }
}

impl<'h> Opened<'_, 'h> {
    /// Puts a key to work: hashes what is signed ahead of the body.
    #[inline]
    pub(crate) fn start(&self, key: &Key) -> Check {
        let mut check = Check::new(key, &self.listed);
        self.update(&mut check, self.verifier.scheme.around_body().0);
        check
    }

    /// Hashes what is signed behind the body and compares every listed signature.
    #[inline]
    pub(crate) fn finish(&self, mut check: Check) -> Choice {
        self.update(&mut check, self.verifier.scheme.around_body().1);
        check.finish(&self.listed)
    }

    /// Returns whether a key can verify by this scheme, and not by its twin.
    #[inline]
    pub(crate) fn is_for(&self, key: &Key) -> bool {
        key.algorithm() == self.verifier.scheme.algorithm
    }

    /// Returns the place of the first key that verifies a body in memory.
    pub(crate) fn find_key<const N: usize>(
        &self,
        keys: &KeyRing<N>,
        body: &[u8],
    ) -> Result<usize, Error> {
        // Key by key, without room for all of them as `Pending` has.
        let mut matched = Matched::default();
        for key in keys.iter() {
            matched.note(self.check(key, body));
        }
        matched.key_index()
    }

    /// Verifies a body in memory with one key.
    #[inline]
    fn check(&self, key: &Key, body: &[u8]) -> Choice {
        if let Kind::Mac(mac) = &key.kind {
            let pieces = self.parts().pieces(self.verifier.scheme, body);
            return mac.of(pieces, |computed| self.listed.contains(computed));
        }
        let mut check = self.start(key);
        check.update(body);
        self.finish(check)
    }

    fn update(&self, check: &mut Check, parts: &[Part]) {
        let bytes = self.parts();
        for part in parts {
            check.update(bytes.part(*part));
        }
    }

    #[inline]
    fn parts(&self) -> Parts<'_> {
        Parts {
            id: self.id.unwrap_or_default(),
            timestamp: self.timestamp_text,
            method: self.verifier.method.as_bytes(),
            url: self.verifier.url.as_bytes(),
        }
    }

    #[inline]
    pub(crate) fn verified<B>(&self, key_index: usize, body: B) -> Verified<'h, B> {
        let scheme = self.verifier.scheme.name;
        Verified { id: self.id, timestamp: self.timestamp, key_index, scheme, body }
    }
}

impl Verifier<'_> {
    /// Refuses what the caller should have given otherwise.
    #[inline]
    fn check_given(&self) -> Result<(), Error> {
        self.scheme.parts.iter().try_for_each(|part| match part {
            Part::Method if self.method.is_empty() => Err(Error::MissingPart),
            Part::Url if self.url.is_empty() => Err(Error::MissingPart),
            part if part.content().is_some_and(|content| content != self.content) => {
                Err(Error::OtherContent)
            }
            _ => Ok(()),
        })
    }
}

impl Scheme {
    /// Returns the values of the signature headers that are there, where there may be several.
    fn signature_values<'h>(
        &self,
        headers: &'h (impl Headers + ?Sized),
    ) -> Result<[&'h [u8]; MAX_HEADERS], Error> {
        let mut values: [&[u8]; MAX_HEADERS] = [b""; MAX_HEADERS];
        let mut is_any = false;
        let names = core::iter::once(&self.signature).chain(self.more_signatures);
        for (slot, name) in values.iter_mut().zip(names) {
            match single(headers, name) {
                Ok(value) => (*slot, is_any) = (value, true),
                Err(Error::MissingHeader { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if is_any { Ok(values) } else { Err(Error::MissingHeader { header: self.signature }) }
    }

    /// Returns the one field of this name.
    fn field<'h>(&self, signature: &'h [u8], name: &'static str) -> Result<&'h [u8], Error> {
        let malformed =
            Error::InvalidHeader { header: self.signature, expected: Expected::Field(name) };
        let Grammar::Fields { separator, .. } = self.grammar else {
            return Err(malformed);
        };
        let fields = || signature.split(|byte| *byte == separator).map(<[u8]>::trim_ascii);
        if !fields().all(|field| field.is_empty() || field.contains(&b'=')) {
            return Err(malformed);
        }
        let mut values = fields().filter_map(|field| field.strip_prefix(name.as_bytes()));
        match (values.next(), values.next()) {
            (Some(value), None) if !value.is_empty() => Ok(value),
            _ => Err(malformed),
        }
    }
}

/// Standard Webhooks 1.0, "Signature scheme": id and timestamp must not be user controlled, "or at
/// the very least not be allowed to include any `.`", or a part of one could pass for the other.
#[inline]
fn is_valid_id(id: &[u8]) -> bool {
    let is_invalid = |byte: &u8| !byte.is_ascii_graphic() || *byte == b'.';
    // Without an early end: many bytes at once are checked sooner than one after the other.
    (1..=MAX_ID_LEN).contains(&id.len())
        && id.iter().fold(0, |any, byte| any | u8::from(is_invalid(byte))) == 0
}

#[inline]
pub(crate) fn check_id<'h>(header: &'static str, id: &'h [u8]) -> Result<&'h [u8], Error> {
    let expected = Expected::Id;
    if is_valid_id(id) { Ok(id) } else { Err(Error::InvalidHeader { header, expected }) }
}
