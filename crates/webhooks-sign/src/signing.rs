//! Signing: one signature, or the whole value of the header.

use core::fmt;

use crate::algorithm::MAX_CURVE_SIGNATURES;
use crate::scheme::{Content, Scheme, TimestampSource};
use crate::signature_list::MAX_SIGNATURES;
use crate::{Algorithm, Envelope, Key, SignError, Signature};

impl Scheme {
    /// Signs a body with one key. Returns the signature as it stands in the header, prefix included.
    ///
    /// # Errors
    /// [`SignError`] when verifiers would refuse the envelope, or the key is for another algorithm
    /// or can only verify.
    pub fn sign(
        &self,
        key: &Key,
        envelope: &Envelope<'_>,
        body: &[u8],
    ) -> Result<Signature, SignError> {
        self.sign_pieces(key, envelope, Content::Body, envelope.parts().pieces(self, body))
    }

    /// Signs pieces that stand for `content`.
    pub(crate) fn sign_pieces<'p>(
        &self,
        key: &Key,
        envelope: &Envelope<'_>,
        content: Content,
        pieces: impl Iterator<Item = &'p [u8]> + Clone,
    ) -> Result<Signature, SignError> {
        if self.content() != content {
            return Err(SignError::OtherContent);
        }
        envelope.check(self)?;
        if key.algorithm() != self.algorithm {
            return Err(SignError::UnsuitableKey);
        }
        let tag = key.sign(pieces)?;
        Signature::new(self.signature_prefix(), self.encoding, &tag).ok_or(SignError::Write)
    }

    /// Signs a body with every live key and writes the value of the signature header, with its
    /// timestamp where that is a field of it.
    ///
    /// # Errors
    /// [`SignError`] when [`sign`](Self::sign) refuses, there is no key, there are more than verifiers
    /// accept, or the writer fails. Verifiers accept one signature if the grammar has room for one,
    /// 4 signatures by a curve, and 16 fields or items otherwise. After an error the output is not a
    /// whole header value.
    ///
    /// # Example
    /// ```
    /// use webhooks_sign::providers::STRIPE;
    /// use webhooks_sign::{Envelope, KeyRing};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (new, old) = (STRIPE.key("whsec_new")?, STRIPE.key("whsec_old")?);
    /// let envelope = Envelope { timestamp: "1767225600", ..Envelope::default() };
    /// let mut value = String::new();
    /// STRIPE.sign_all([&new, &old], &envelope, b"{}", &mut value)?;
    /// assert!(value.starts_with("t=1767225600,v1="));
    ///
    /// let headers = [(STRIPE.signature_header(), value.as_str())];
    /// assert!(STRIPE.verify(&KeyRing::from(old), &headers, b"{}", 1_767_225_600).is_ok());
    /// # Ok(())
    /// # }
    /// ```
    pub fn sign_all<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k Key>,
        envelope: &Envelope<'_>,
        body: &[u8],
        out: &mut impl fmt::Write,
    ) -> Result<(), SignError> {
        write_all(keys, |_| self, envelope, body, out)
    }

    /// Signs as [`sign_all`](Self::sign_all) does, into `buffer`. Returns the text that was written.
    ///
    /// # Errors
    /// Those of [`sign_all`](Self::sign_all), and [`SignError::Write`] when the buffer is too
    /// small.
    pub fn sign_into<'b, 'k>(
        &self,
        keys: impl IntoIterator<Item = &'k Key>,
        envelope: &Envelope<'_>,
        body: &[u8],
        buffer: &'b mut [u8],
    ) -> Result<&'b str, SignError> {
        write_into(buffer, |out| self.sign_all(keys, envelope, body, out))
    }
}

/// Signs with each key by the scheme of its algorithm and writes the value of the header that
/// these schemes share.
pub(crate) fn write_all<'s, 'k>(
    keys: impl IntoIterator<Item = &'k Key>,
    scheme_of: impl Fn(Algorithm) -> &'s Scheme,
    envelope: &Envelope<'_>,
    body: &[u8],
    out: &mut impl fmt::Write,
) -> Result<(), SignError> {
    let mut value = Value { out, items: 0, curves: 0 };
    for key in keys {
        let scheme = scheme_of(key.algorithm());
        // Signed before anything is written, so that a refused key leaves no start of a header.
        let signature = scheme.sign(key, envelope, body)?;
        if let (0, Some(TimestampSource::Field(name, _))) = (value.items, scheme.timestamp) {
            value.push(scheme, [name, envelope.timestamp])?;
        }
        value.count_curve(scheme.algorithm)?;
        value.push(scheme, ["", signature.as_str()])?;
    }
    if value.items == 0 { Err(SignError::UnsuitableKey) } else { Ok(()) }
}

/// The value of a signature header that is being written, no longer than verifiers accept.
struct Value<'o, W> {
    out: &'o mut W,
    items: usize,
    curves: usize,
}

impl<W: fmt::Write> Value<'_, W> {
    /// Adds an item, given in two pieces.
    fn push(&mut self, scheme: &Scheme, item: [&str; 2]) -> Result<(), SignError> {
        let separator = scheme.separator();
        let limit = if separator.is_some() { MAX_SIGNATURES } else { 1 };
        if self.items >= limit {
            return Err(SignError::UnsuitableKey);
        }
        if let Some(separator) = separator.filter(|_| self.items > 0) {
            self.out.write_char(char::from(separator)).or(Err(SignError::Write))?;
        }
        for piece in item {
            self.out.write_str(piece).or(Err(SignError::Write))?;
        }
        self.items = self.items.saturating_add(1);
        Ok(())
    }

    fn count_curve(&mut self, algorithm: Algorithm) -> Result<(), SignError> {
        self.curves = self.curves.saturating_add(usize::from(algorithm.is_curve()));
        if self.curves > MAX_CURVE_SIGNATURES { Err(SignError::UnsuitableKey) } else { Ok(()) }
    }
}

/// Returns the text that `write` writes to the start of `buffer`.
pub(crate) fn write_into<'b>(
    buffer: &'b mut [u8],
    write: impl FnOnce(&mut Written<'b>) -> Result<(), SignError>,
) -> Result<&'b str, SignError> {
    let mut written = Written { buffer, len: 0 };
    write(&mut written)?;
    let Written { buffer, len } = written;
    buffer.get(..len).and_then(|text| str::from_utf8(text).ok()).ok_or(SignError::Write)
}

/// The text at the start of a buffer.
pub(crate) struct Written<'b> {
    buffer: &'b mut [u8],
    len: usize,
}

impl fmt::Write for Written<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len.saturating_add(text.len());
        let room = self.buffer.get_mut(self.len..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}
