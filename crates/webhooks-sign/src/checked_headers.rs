//! The headers of a webhook, checked, and the verification of its body by them.

use subtle::Choice;

use crate::envelope::{SignedParts, check_id};
use crate::headers::single;
use crate::key::Kind;
use crate::key_check::KeyCheck;
use crate::key_match::KeyMatch;
use crate::scheme::{Grammar, Part, Scheme, TimestampSource};
use crate::signature_list::{MAX_HEADERS, SignatureList};
use crate::timestamp::parse;
use crate::{Error, Expected, Headers, Key, KeyRing, Verified, Verifier};

/// The values of the headers, checked as far as possible without hashing.
pub(crate) struct CheckedHeaders<'s, 'h> {
    verifier: Verifier<'s>,
    /// The id: visible ASCII.
    id: Option<&'h [u8]>,
    /// The timestamp in Unix seconds.
    timestamp: Option<u64>,
    /// The timestamp as it is written.
    timestamp_text: &'h [u8],
    signatures: SignatureList<'s, 'h>,
}

impl<'s, 'h> CheckedHeaders<'s, 'h> {
    /// Returns values with which nothing matches. [`read`](Self::read) fills them in place, as
    /// [`SignatureList::read`] does.
    #[inline]
    pub(crate) fn new(verifier: Verifier<'s>) -> Self {
        let signatures = SignatureList::new(verifier.scheme);
        Self { verifier, id: None, timestamp: None, timestamp_text: b"", signatures }
    }

    /// Reads the headers and refuses all that can be refused without hashing.
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
            None => self.signatures.read(signature),
            Some(values) => self.signatures.read_all(values),
        }
    }
}

impl<'h> CheckedHeaders<'_, 'h> {
    /// Starts the check of a key: hashes the parts before the body.
    #[inline]
    pub(crate) fn start(&self, key: &Key) -> KeyCheck {
        let mut check = KeyCheck::new(key, &self.signatures);
        self.update(&mut check, self.verifier.scheme.around_body().0);
        check
    }

    /// Hashes the parts after the body and compares every listed signature.
    #[inline]
    pub(crate) fn finish(&self, mut check: KeyCheck) -> Choice {
        self.update(&mut check, self.verifier.scheme.around_body().1);
        check.finish(&self.signatures)
    }

    /// Returns whether a key is for this scheme, and not for its twin.
    #[inline]
    pub(crate) fn is_for(&self, key: &Key) -> bool {
        key.algorithm() == self.verifier.scheme.algorithm
    }

    /// Returns the index of the first key that verifies a body in memory.
    pub(crate) fn find_key<const N: usize>(
        &self,
        keys: &KeyRing<N>,
        body: &[u8],
    ) -> Result<usize, Error> {
        // Key by key: unlike `Pending`, this needs no room for the checks of all keys.
        let mut matched = KeyMatch::default();
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
            return mac.of(pieces, |computed| self.signatures.contains(computed));
        }
        let mut check = self.start(key);
        check.update(body);
        self.finish(check)
    }

    fn update(&self, check: &mut KeyCheck, parts: &[Part]) {
        let bytes = self.parts();
        for part in parts {
            check.update(bytes.part(*part));
        }
    }

    #[inline]
    fn parts(&self) -> SignedParts<'_> {
        SignedParts {
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

impl Scheme {
    /// Returns the values of the signature headers that are there, for a scheme with several.
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
