//! Signing and verifying forms and tokens, which some schemes sign in place of the body.

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::envelope::check_id;
use crate::scheme::{Content, Encoding, Part, Scheme};
use crate::{
    Envelope, Error, Expected, Headers, Key, KeyRing, Pending, SignError, Signature, Verified,
    Verifier,
};

/// The query parameter that carries the hash of a body which is no form.
const BODY_HASH: &str = "bodySHA256=";

impl Verifier<'_> {
    /// Verifies a webhook whose body is a form. `fields` are its decoded names and values; they are
    /// sorted in place, unless the headers are refused. `now` is in Unix seconds.
    ///
    /// The [URL](Self::url) is the one that the sender was given, with its query. Names and values
    /// are signed after the URL, with nothing between them. So a name with a character that could
    /// continue the URL is refused as forged.
    ///
    /// # Errors
    /// [`Error`] says what is wrong, and whether it is malformed, stale or forged;
    /// [`Error::OtherContent`] when the scheme does not sign forms.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "sha1")]
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use webhooks_sign::KeyRing;
    /// use webhooks_sign::providers::TWILIO;
    ///
    /// // The example of Twilio's own documentation.
    /// let keys = KeyRing::from(TWILIO.key("12345")?);
    /// let url = "https://example.com/myapp.php?foo=1&bar=2";
    /// let headers = [("X-Twilio-Signature", "L/OH5YylLD5NRKLltdqwSvS0BnU=")];
    /// let mut fields = [
    ///     ("Digits", "1234"),
    ///     ("To", "+18005551212"),
    ///     ("From", "+14158675310"),
    ///     ("Caller", "+14158675310"),
    ///     ("CallSid", "CA1234567890ABCDE"),
    /// ];
    /// TWILIO.verifier().url(url).verify_form(&keys, &headers, &mut fields, 0)?;
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "sha1"))]
    /// # fn main() {}
    /// ```
    pub fn verify_form<const N: usize>(
        &self,
        keys: &KeyRing<N>,
        headers: &(impl Headers + ?Sized),
        fields: &mut [(&str, &str)],
        now: u64,
    ) -> Result<Verified<'static, ()>, Error> {
        let mut pending = Pending::begin(self.of(Content::Form), keys, headers, now)?;
        if !have_names(fields) {
            return Err(Error::NoMatch);
        }
        fields.sort_unstable();
        distinct(fields).for_each(|piece| pending.update(piece));
        Ok(pending.finish()?.with_id(None))
    }

    /// Verifies a webhook by a scheme that signs forms, if the body is no form: only the URL is signed,
    /// and its query holds the body's SHA-256 as `bodySHA256`. The [URL](Self::url) must be the one that
    /// the sender was given, followed by the parameters that its query has in addition in the request.
    /// `now` is in Unix seconds.
    ///
    /// # Errors
    /// [`Error`] says what is wrong, and whether it is malformed, stale or forged; a URL without
    /// `bodySHA256` would leave the body unprotected and is [`Error::InvalidHeader`].
    /// [`Error::OtherContent`] when the scheme does not sign forms.
    pub fn verify_hashed_body<'b, const N: usize>(
        &self,
        keys: &KeyRing<N>,
        headers: &(impl Headers + ?Sized),
        body: &'b [u8],
        now: u64,
    ) -> Result<Verified<'static, &'b [u8]>, Error> {
        let pending = Pending::begin(self.of(Content::Form), keys, headers, now)?;
        let Verified { timestamp, key_index, scheme, .. } = pending.finish()?;
        let malformed = Error::InvalidHeader {
            header: self.scheme.signature,
            expected: Expected::Field(BODY_HASH),
        };
        let (_, query) = self.url.split_once('?').ok_or(malformed)?;
        let mut hashes = query.split('&').filter_map(|pair| pair.strip_prefix(BODY_HASH));
        let expected = hashes.next().ok_or(malformed)?;
        let mut decoded = [0; 32];
        if Encoding::Hex.decode(expected.as_bytes(), &mut decoded) != Some(decoded.len()) {
            return Err(malformed);
        }
        let is_same = Sha256::digest(body).as_slice().ct_eq(&decoded);
        let verified = Verified { id: None, timestamp, key_index, scheme, body };
        if bool::from(is_same) { Ok(verified) } else { Err(Error::NoMatch) }
    }

    /// Verifies a time and a token that a body holds. `now` is in Unix seconds.
    ///
    /// Nothing else of the body is signed. The token becomes the id of the result: store it, because
    /// somebody who saw it once could send it with another body.
    ///
    /// # Errors
    /// [`Error`] says what is wrong, and whether it is malformed, stale or forged;
    /// [`Error::OtherContent`] when the scheme does not sign tokens.
    ///
    /// # Example
    /// ```
    /// use webhooks_sign::KeyRing;
    /// use webhooks_sign::providers::MAILGUN;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let key = MAILGUN.key("signing-key")?;
    /// let token = "a8ce0edb2dd8301dee6c2405235584e45aa91d1e9f979f3de0";
    /// let signature = MAILGUN.sign_token(&key, "1529006854", token)?;
    ///
    /// let keys = KeyRing::from(key);
    /// let (verifier, now) = (MAILGUN.verifier(), 1_529_006_860);
    /// let verified = verifier.verify_token(&keys, "1529006854", token, signature.as_str(), now)?;
    /// assert_eq!(verified.id(), Some(token));
    /// # Ok(())
    /// # }
    /// ```
    pub fn verify_token<'t, const N: usize>(
        &self,
        keys: &KeyRing<N>,
        timestamp: &str,
        token: &'t str,
        signature: &str,
        now: u64,
    ) -> Result<Verified<'t, ()>, Error> {
        let time_header = self.scheme.timestamp_header().unwrap_or_default();
        let headers = [(self.scheme.signature, signature), (time_header, timestamp)];
        let mut pending = Pending::begin(self.of(Content::Token), keys, &headers, now)?;
        let id = check_id("token", token.as_bytes())?;
        pending.update(token.as_bytes());
        let Verified { timestamp, key_index, scheme, body, .. } = pending.finish()?;
        Ok(Verified { id: Some(id), timestamp, key_index, scheme, body })
    }

    fn of(&self, content: Content) -> Self {
        Self { content, ..*self }
    }
}

impl Scheme {
    /// Signs a form that is sent to `url`; its fields are sorted in place.
    ///
    /// # Errors
    /// [`SignError`] when verifiers would refuse the URL or the name of a field, the key is for another algorithm, or the
    /// scheme signs no forms.
    pub fn sign_form(
        &self,
        key: &Key,
        url: &str,
        fields: &mut [(&str, &str)],
    ) -> Result<Signature, SignError> {
        // Verifiers refuse other names as forged.
        if !have_names(fields) {
            return Err(SignError::OtherContent);
        }
        let envelope = Envelope { url, ..Envelope::default() };
        fields.sort_unstable();
        self.sign_in_place(key, &envelope, Content::Form, distinct(fields))
    }

    /// Signs a token.
    ///
    /// # Errors
    /// [`SignError`] when verifiers would refuse the timestamp or the token, the key is for another
    /// algorithm, or the scheme signs no tokens.
    pub fn sign_token(
        &self,
        key: &Key,
        timestamp: &str,
        token: &str,
    ) -> Result<Signature, SignError> {
        check_id("token", token.as_bytes()).or(Err(SignError::InvalidId))?;
        let envelope = Envelope { timestamp, ..Envelope::default() };
        self.sign_in_place(key, &envelope, Content::Token, core::iter::once(token.as_bytes()))
    }

    fn sign_in_place<'p>(
        &self,
        key: &Key,
        envelope: &Envelope<'p>,
        content: Content,
        pieces: impl Iterator<Item = &'p [u8]> + Clone,
    ) -> Result<Signature, SignError> {
        let (ahead, behind) = self.around_body();
        let parts = envelope.parts();
        let piece = |part: &Part| parts.part(*part);
        let pieces = ahead.iter().map(piece).chain(pieces).chain(behind.iter().map(piece));
        self.sign_pieces(key, envelope, content, pieces)
    }
}

/// Returns whether the name of each field is allowed. If names could hold characters of a URL, the
/// signature of a request without a form would also fit a form whose fields continue that URL.
fn have_names(fields: &[(&str, &str)]) -> bool {
    let is_refused =
        |character: char| character.is_control() || ['?', '/', '&', '=', '#'].contains(&character);
    fields.iter().all(|(name, _)| !name.is_empty() && !name.contains(is_refused))
}

/// Returns names and values; a field that comes twice counts once.
fn distinct<'f>(fields: &'f [(&'f str, &'f str)]) -> impl Iterator<Item = &'f [u8]> + Clone {
    let before = core::iter::once(None).chain(fields.iter().map(Some));
    let pairs = before.zip(fields).filter(|(before, field)| *before != Some(*field));
    pairs.flat_map(|(_, (name, value))| [name.as_bytes(), value.as_bytes()])
}
